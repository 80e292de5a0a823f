/* The table of driver functions that vqcc's libraries take, filled at run time: nothing links against libcuda, and a
 * program starts where there is none.
 *
 * C99 and C++17, POSIX. Link with -ldl where dlopen is not part of the C library.
 *
 *   vqcc_driver driver;
 *   vqcc_driver_status status = vqcc_driver_open(&driver);
 */
#ifndef VQCC_DRIVER_H_
#define VQCC_DRIVER_H_

#include <dlfcn.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "driver_types.h"

typedef enum vqcc_driver_status {
  VQCC_DRIVER_OK = 0,
  VQCC_DRIVER_NULL_POINTER = 1, /* a required pointer is null */
  VQCC_DRIVER_NO_LIBRARY = 2,   /* there is no libcuda.so.1: no driver is installed */
  VQCC_DRIVER_NO_SYMBOL = 3     /* the driver lacks a function that is needed: it is too old */
} vqcc_driver_status;

static inline const char* vqcc_driver_status_string(vqcc_driver_status status) {
  switch (status) {
    case VQCC_DRIVER_OK: return "ok";
    case VQCC_DRIVER_NULL_POINTER: return "a required pointer is null";
    case VQCC_DRIVER_NO_LIBRARY: return "there is no libcuda.so.1: no NVIDIA driver is installed";
    case VQCC_DRIVER_NO_SYMBOL: return "the driver lacks a function that is needed: it is too old";
  }
  return "unknown status";
}

/* Who finds a driver function by its name: dlsym, or an engine's own table. Null if there is none. */
typedef void* (*vqcc_lookup)(void* context, const char* name);

/* Fills the table with what `lookup` finds. Names are those of the functions' current versions (cuda.h maps cuX to cuX_v2
 * where there is one). cuLaunchKernelEx, of drivers from CUDA 11.8 on, may be missing. */
static inline vqcc_driver_status vqcc_driver_fill(vqcc_driver* driver, vqcc_lookup lookup, void* context) {
  static const struct {
    const char* name;
    size_t place;
    int needed;
  } functions[] = {
      {"cuModuleLoadData", offsetof(vqcc_driver, module_load_data), 1},
      {"cuModuleUnload", offsetof(vqcc_driver, module_unload), 1},
      {"cuModuleGetFunction", offsetof(vqcc_driver, module_get_function), 1},
      {"cuFuncSetAttribute", offsetof(vqcc_driver, function_set_attribute), 1},
      {"cuLaunchKernel", offsetof(vqcc_driver, launch_kernel), 1},
      {"cuLaunchKernelEx", offsetof(vqcc_driver, launch_kernel_ex), 0},
      {"cuCtxGetDevice", offsetof(vqcc_driver, context_get_device), 1},
      {"cuDeviceGetAttribute", offsetof(vqcc_driver, device_get_attribute), 1},
  };
  size_t i;
  if (driver == NULL || lookup == NULL) return VQCC_DRIVER_NULL_POINTER;
  memset(driver, 0, sizeof *driver);
  for (i = 0; i < sizeof functions / sizeof functions[0]; ++i) {
    void* found = lookup(context, functions[i].name);
    if (found == NULL && functions[i].needed) {
      memset(driver, 0, sizeof *driver);
      return VQCC_DRIVER_NO_SYMBOL;
    }
    /* POSIX gives functions as void*, which ISO C does not convert: their bytes are the same. */
    memcpy((unsigned char*)driver + functions[i].place, &found, sizeof found);
  }
  return VQCC_DRIVER_OK;
}

static inline void* vqcc_driver_symbol(void* library, const char* name) { return dlsym(library, name); }

/* Fills the table from the installed driver, which stays loaded as long as the program runs. */
static inline vqcc_driver_status vqcc_driver_open(vqcc_driver* driver) {
  void* library;
  if (driver == NULL) return VQCC_DRIVER_NULL_POINTER;
  library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    memset(driver, 0, sizeof *driver);
    return VQCC_DRIVER_NO_LIBRARY;
  }
  return vqcc_driver_fill(driver, vqcc_driver_symbol, library);
}

#endif /* VQCC_DRIVER_H_ */
