// The runtime as one translation unit: the checks are inlined into the functions the compiler calls for each access.
#include "counters.cc"
#include "fences.cc"
#include "memory.cc"
#include "operations.cc"
#include "schedule.cc"
#include "sync.cc"
#include "tsan.cc"
#include "launch.cc"
