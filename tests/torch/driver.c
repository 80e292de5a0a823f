/* Stands in for libcuda, and for a program that uses a library's header: both launch into the same record.
 *
 * library.h, written by the test, includes the header under test and names its functions by LIB. What Python loads and launches
 * through the functions of libcuda below, C loads and launches through the header, whose table has the same functions.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "library.h"

enum { kMostParameters = 32, kMostAttributes = 64 };

struct record {
  char kernel[256];
  uint32_t grid[3], block[3], shared_bytes;
  int32_t overlapping; /* 1 if it was launched by cuLaunchKernelEx with the attribute that allows it */
  uint64_t stream;
  uint64_t parameters[kMostParameters];
};
struct attribute {
  char kernel[256];
  int32_t number, value;
};

struct record last;
int32_t launches, modules, attribute_count;
struct attribute attributes[kMostAttributes];
/* What the test sets: sizes of a kernel's parameters, the device, the name of a function that fails, and with what. */
char sizes[kMostParameters + 1];
int32_t device[3] = {9, 0, 132};
char failing[64];
int32_t failure;
uint64_t current_context = 1;

static int fails(const char* name) { return strcmp(failing, name) == 0 ? failure : 0; }

int cuModuleLoadData(void** module, const void* image) {
  if (fails("cuModuleLoadData") != 0 || image == NULL) return failure;
  *module = malloc(1);
  ++modules;
  return 0;
}
int cuModuleUnload(void* module) {
  free(module);
  --modules;
  return 0;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  if (fails("cuModuleGetFunction") != 0 || module == NULL) return failure;
  char* copy = malloc(strlen(name) + 1); /* for the process's life, as modules are */
  strcpy(copy, name);
  *function = copy;
  return 0;
}
int cuFuncLoad(void* function) { return function == NULL ? 1 : fails("cuFuncLoad"); }
int cuFuncSetAttribute(void* function, int attribute, int value) {
  if (fails("cuFuncSetAttribute") != 0) return failure;
  struct attribute* next = &attributes[attribute_count++ % kMostAttributes];
  strncpy(next->kernel, function, sizeof next->kernel - 1);
  next->number = attribute;
  next->value = value;
  return 0;
}
int cuCtxGetCurrent(void** context) {
  *context = (void*)(uintptr_t)current_context;
  return 0;
}
int cuCtxSetCurrent(void* context) {
  current_context = (uint64_t)(uintptr_t)context;
  return fails("cuCtxSetCurrent");
}
int cuDeviceGet(int* number, int ordinal) {
  *number = 40 + ordinal;
  return fails("cuDeviceGet");
}
int cuDevicePrimaryCtxRetain(void** context, int number) {
  *context = (void*)(uintptr_t)number;
  return 0;
}
int cuCtxGetDevice(int* number) {
  *number = 40;
  return fails("cuCtxGetDevice");
}
int cuDeviceGetAttribute(int* value, int attribute, int number) {
  if (number != 40) return 101;
  *value = attribute == 75 ? device[0] : attribute == 76 ? device[1] : attribute == 16 ? device[2] : -1;
  return 0;
}
int cuGetErrorName(int error, const char** name) {
  *name = error == 701 ? "CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES" : NULL;
  return error == 701 ? 0 : 1;
}

static int record_launch(void* function, const unsigned* grid, const unsigned* block, unsigned shared_bytes, void* stream,
                         void** parameters, int overlapping) {
  if (current_context == 0) return 201;
  memset(&last, 0, sizeof last);
  strncpy(last.kernel, function, sizeof last.kernel - 1);
  memcpy(last.grid, grid, sizeof last.grid);
  memcpy(last.block, block, sizeof last.block);
  last.shared_bytes = shared_bytes;
  last.overlapping = overlapping;
  last.stream = (uint64_t)(uintptr_t)stream;
  for (int i = 0; sizes[i] != 0; ++i) memcpy(&last.parameters[i], parameters[i], (size_t)(sizes[i] - '0'));
  ++launches;
  return 0;
}
int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, void* stream, void** parameters, void** extra) {
  const unsigned grid[3] = {grid_x, grid_y, grid_z}, block[3] = {block_x, block_y, block_z};
  if (extra != NULL) return 1;
  if (fails("cuLaunchKernel") != 0) return failure;
  return record_launch(function, grid, block, shared_bytes, stream, parameters, 0);
}
int cuLaunchKernelEx(const vqcc_launch_config* config, void* function, void** parameters, void** extra) {
  const unsigned grid[3] = {config->grid_x, config->grid_y, config->grid_z};
  const unsigned block[3] = {config->block_x, config->block_y, config->block_z};
  const int overlaps = config->attribute_count == 1 && config->attributes[0].id == 6 && config->attributes[0].value.allowed == 1;
  if (extra != NULL || !overlaps) return 1;
  return record_launch(function, grid, block, config->shared_bytes, config->stream, parameters, 1);
}

/* The header's side. */
static LIB(handle) handle;

int header_load(int gpu) {
  const vqcc_driver table = {cuModuleLoadData, cuModuleUnload,   cuModuleGetFunction, cuFuncSetAttribute,
                             cuLaunchKernel,   cuLaunchKernelEx, cuCtxGetDevice,      cuDeviceGetAttribute};
  return LIB(load)(&handle, &table, gpu, "");
}
int header_find_gpu(void) {
  const vqcc_driver table = {NULL, NULL, NULL, NULL, NULL, NULL, cuCtxGetDevice, cuDeviceGetAttribute};
  int32_t gpu = -1;
  return LIB(find_gpu)(&table, &gpu, NULL) == 0 ? gpu : -1;
}
int header_launch(const LIB(args) * args, void* stream) { return LIB(launch)(&handle, args, stream); }
int64_t header_workspace_bytes(const LIB(args) * args) { return (int64_t)LIB(workspace_bytes)(args); }
#ifdef CACHE
int header_append(const LIB(append_args) * args, void* stream) { return LIB(append)(&handle, args, stream); }
int header_check_cache(const int32_t* lengths, const int32_t* table, int64_t pages, int32_t batch, int64_t span, int32_t stride,
                       int32_t blocks) {
  const LIB(host_view) host = {lengths, table, pages};
  return LIB(check_cache)(&host, batch, span, stride, blocks);
}
#endif
