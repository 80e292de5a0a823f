// What the examples need of the CUDA driver, found at run time: nothing here needs a CUDA toolkit, or a GPU to build.
//
// Errors are exceptions: an example that meets one has nothing better to do than to print it.
#pragma once

#include <dlfcn.h>

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "vqcc/driver.h"

namespace example {

/// Functions of libcuda.so.1 by name.
class Driver {
 public:
  Driver() : library_(dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL)) {
    if (library_ == nullptr) throw std::runtime_error("there is no libcuda.so.1: no NVIDIA driver is installed");
  }

  /// Calls function `name`; throws if it says that it failed.
  template <class... Arguments>
  void call(const char* name, Arguments... arguments) const {
    void* symbol = dlsym(library_, name);
    if (symbol == nullptr) throw std::runtime_error(std::string("the driver has no ") + name);
    const int result = reinterpret_cast<int (*)(Arguments...)>(symbol)(arguments...);
    if (result != 0) throw std::runtime_error(std::string(name) + " failed: CUDA error " + std::to_string(result));
  }

  static const Driver& get() {
    static const Driver driver;
    return driver;
  }

 private:
  void* library_;
};

/// The first GPU's primary context, current as long as this lives.
class Context {
 public:
  Context() {
    void* context = nullptr;
    Driver::get().call("cuInit", 0u);
    Driver::get().call("cuDeviceGet", &device_, 0);
    Driver::get().call("cuDevicePrimaryCtxRetain", &context, device_);
    Driver::get().call("cuCtxSetCurrent", context);
  }
  ~Context() {
    try {
      Driver::get().call("cuDevicePrimaryCtxRelease_v2", device_);
    } catch (const std::exception&) {  // at the end of the program there is nobody left to tell
    }
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  void synchronize() const { Driver::get().call("cuCtxSynchronize"); }

 private:
  int device_ = 0;
};

/// Device memory.
class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : bytes_(bytes) {
    if (bytes > 0) Driver::get().call("cuMemAlloc_v2", &address_, bytes);
  }
  Buffer(const void* data, std::size_t bytes) : Buffer(bytes) {
    if (bytes > 0) Driver::get().call("cuMemcpyHtoD_v2", address_, data, bytes);
  }
  template <class Element>
  explicit Buffer(const std::vector<Element>& data) : Buffer(data.data(), data.size() * sizeof(Element)) {}
  Buffer(Buffer&& other) noexcept
      : address_(std::exchange(other.address_, 0)), bytes_(std::exchange(other.bytes_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(address_, other.address_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() {
    try {
      if (address_ != 0) Driver::get().call("cuMemFree_v2", address_);
    } catch (const std::exception&) {  // the context may be gone
    }
  }

  template <class Element>
  std::vector<Element> download() const {
    std::vector<Element> data(bytes_ / sizeof(Element));
    if (data.empty()) return data;
    Driver::get().call("cuMemcpyDtoH_v2", static_cast<void*>(data.data()), address_, data.size() * sizeof(Element));
    return data;
  }

  std::uint64_t address() const { return address_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::uint64_t address_ = 0;
  std::size_t bytes_ = 0;
};

/// The table of functions that vqcc's libraries take.
inline vqcc_driver vqcc_functions() {
  vqcc_driver driver;
  const vqcc_driver_status status = vqcc_driver_open(&driver);
  if (status != VQCC_DRIVER_OK) throw std::runtime_error(vqcc_driver_status_string(status));
  return driver;
}

}  // namespace example
