// Streams, events and graphs of the CUDA driver.
#pragma once

#include "device.hpp"

namespace engine {

using example::Buffer;
using example::Driver;

/// Calls a function that gives something back, at the end of its life: there is nobody left to tell of failures.
template <class... Arguments>
void give_back(const char* name, Arguments... arguments) {
  try {
    Driver::get().call(name, arguments...);
  } catch (const std::exception&) {  // the context may be gone
  }
}

class Stream {
 public:
  Stream() { Driver::get().call("cuStreamCreate", &handle_, 1u /* CU_STREAM_NON_BLOCKING */); }
  ~Stream() { give_back("cuStreamDestroy_v2", handle_); }
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  void synchronize() const { Driver::get().call("cuStreamSynchronize", handle_); }
  void* get() const { return handle_; }

 private:
  void* handle_ = nullptr;
};

class Event {
 public:
  Event() { Driver::get().call("cuEventCreate", &handle_, 0u); }
  ~Event() { give_back("cuEventDestroy_v2", handle_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  void record(const Stream& stream) const { Driver::get().call("cuEventRecord", handle_, stream.get()); }
  void synchronize() const { Driver::get().call("cuEventSynchronize", handle_); }
  /// Microseconds from `start` to this one; both have happened.
  double microseconds_since(const Event& start) const {
    float milliseconds = 0;
    Driver::get().call("cuEventElapsedTime", &milliseconds, start.handle_, handle_);
    return 1e3 * static_cast<double>(milliseconds);
  }

 private:
  void* handle_ = nullptr;
};

/// What `enqueue(stream)` enqueues, as one graph. Only kernels may be in it: edges between them stay programmatic, so that they
/// overlap in the graph as they do in a stream; copies and memsets between would end that.
class Graph {
 public:
  template <class Enqueue>
  Graph(const Stream& stream, Enqueue enqueue) {
    void* graph = nullptr;
    Driver::get().call("cuStreamBeginCapture_v2", stream.get(), 1 /* CU_STREAM_CAPTURE_MODE_THREAD_LOCAL */);
    try {
      enqueue(stream.get());
    } catch (...) {
      give_back("cuStreamEndCapture", stream.get(), &graph);  // a stream that captures could not be used again
      if (graph != nullptr) give_back("cuGraphDestroy", graph);
      throw;
    }
    Driver::get().call("cuStreamEndCapture", stream.get(), &graph);
    try {
      Driver::get().call("cuGraphInstantiateWithFlags", &executable_, graph, 0ull);
    } catch (...) {
      give_back("cuGraphDestroy", graph);
      throw;
    }
    give_back("cuGraphDestroy", graph);
  }
  ~Graph() { give_back("cuGraphExecDestroy", executable_); }
  Graph(const Graph&) = delete;
  Graph& operator=(const Graph&) = delete;

  void launch(const Stream& stream) const { Driver::get().call("cuGraphLaunch", executable_, stream.get()); }

 private:
  void* executable_ = nullptr;
};

}  // namespace engine
