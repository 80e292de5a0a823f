// Registration of kernels: the parameter types come from the function's own type, so any signature can be launched.
#pragma once

namespace vqcc_emulator {

template <unsigned size>
struct ClusterSize {
  static constexpr unsigned value = size;
};

// What a parameter is, so that a launch with the wrong kind of argument is refused before it runs.
// p: pointer, r: pointer to const, i: signed integer, u: unsigned integer, f: floating point, s: anything else.
struct Parameter {
  unsigned bytes;
  unsigned alignment;
  char kind;
};

struct Kernel {
  const char* name;
  void* function;
  void (*invoke)(void* function, void** arguments);
  const Parameter* parameters;
  unsigned parameter_count;
  unsigned cluster;  // blocks along x that run together; 0: the kernel does not say
};

// The dimensions in a kernel's __cluster_dims__, if it has one.
constexpr unsigned cluster_size() { return 0; }
constexpr unsigned cluster_size(unsigned x, unsigned y = 1, unsigned z = 1) {
  return (x == 1 || x == 2 || x == 4 || x == 8) && y == 1 && z == 1
             ? x
             : throw "clusters of 1, 2, 4 or 8 blocks along x are emulated";
}

template <class T>
struct KindOf {
  static constexpr char value = 's';
};
template <class T>
struct KindOf<T*> {
  static constexpr char value = 'p';
};
template <class T>
struct KindOf<const T*> {
  static constexpr char value = 'r';
};
template <>
struct KindOf<signed char> {
  static constexpr char value = 'i';
};
template <>
struct KindOf<short> {
  static constexpr char value = 'i';
};
template <>
struct KindOf<int> {
  static constexpr char value = 'i';
};
template <>
struct KindOf<long> {
  static constexpr char value = 'i';
};
template <>
struct KindOf<long long> {
  static constexpr char value = 'i';
};
template <>
struct KindOf<bool> {
  static constexpr char value = 'u';
};
template <>
struct KindOf<unsigned char> {
  static constexpr char value = 'u';
};
template <>
struct KindOf<unsigned short> {
  static constexpr char value = 'u';
};
template <>
struct KindOf<unsigned> {
  static constexpr char value = 'u';
};
template <>
struct KindOf<unsigned long> {
  static constexpr char value = 'u';
};
template <>
struct KindOf<unsigned long long> {
  static constexpr char value = 'u';
};
template <>
struct KindOf<float> {
  static constexpr char value = 'f';
};
template <>
struct KindOf<double> {
  static constexpr char value = 'f';
};

template <unsigned... I>
struct Indices {};
template <unsigned N, unsigned... I>
struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <unsigned... I>
struct MakeIndices<0, I...> {
  using type = Indices<I...>;
};

template <class Function>
struct Signature;
template <class... P>
struct Signature<void (*)(P...)> {
  static constexpr unsigned count = sizeof...(P);
  static constexpr Parameter parameters[sizeof...(P) + 1] = {{sizeof(P), alignof(P), KindOf<P>::value}..., {0, 1, 0}};

  // Not instrumented: the parameter block is the emulator's memory, not the kernel's.
  __attribute__((noinline, no_sanitize_thread)) static void invoke(void* function, void** arguments) {
    call(reinterpret_cast<void (*)(P...)>(function), arguments, typename MakeIndices<sizeof...(P)>::type());
  }
  template <unsigned... I>
  __attribute__((always_inline)) static inline void call(void (*function)(P...), void** arguments, Indices<I...>) {
    (void)arguments;
    function(*static_cast<P*>(arguments[I])...);
  }
};

}  // namespace vqcc_emulator

// One line for each kernel and a terminator after them; vqcc appends both to the source it compiles.
#define VQCC_EMULATOR_KERNELS_BEGIN \
  extern "C" __attribute__((visibility("default"))) const vqcc_emulator::Kernel vqcc_emulator_kernels[] = {
#define VQCC_EMULATOR_KERNEL(name, ...)                                                                           \
  {#name, reinterpret_cast<void*>(&name), &vqcc_emulator::Signature<decltype(&name)>::invoke,                     \
   vqcc_emulator::Signature<decltype(&name)>::parameters, vqcc_emulator::Signature<decltype(&name)>::count, \
   vqcc_emulator::ClusterSize<vqcc_emulator::cluster_size(__VA_ARGS__)>::value},
#define VQCC_EMULATOR_KERNELS_END {nullptr, nullptr, nullptr, nullptr, 0, 0}} \
  ;
