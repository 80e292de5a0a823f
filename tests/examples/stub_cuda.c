/* Stands in for libcuda.so.1: device memory is host memory, and a launch is written down instead of done.
 *
 * STUB_DEVICE is "major minor sm_count". Launch number i is written to STUB_RECORD/launch-i: a line of its numbers (grid,
 * block, shared bytes), its kernel's name, then each parameter as STUB_SIZES says how many bytes it has; memory that a parameter
 * points to goes to STUB_RECORD/launch-i-parameter-j. If STUB_RESULT names a file, it is copied to what parameter
 * STUB_OUTPUT points to. STUB_FAIL names a function that fails. At the end STUB_RECORD/held says how many allocations,
 * modules and contexts were not given back.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kMost = 4096, kInvalid = 1, kOutOfMemory = 2 };
static struct {
  unsigned char* data;
  size_t bytes;
} memory[kMost];
static int launches, modules, contexts;

static int fails(const char* name) {
  const char* wanted = getenv("STUB_FAIL");
  return wanted != NULL && strcmp(wanted, name) == 0;
}
#define MAY_FAIL(name, error) \
  do {                        \
    if (fails(name)) return error; \
  } while (0)

static FILE* record(const char* name) {
  char path[4096];
  const char* directory = getenv("STUB_RECORD");
  if (directory == NULL) return NULL;
  snprintf(path, sizeof path, "%s/%s", directory, name);
  return fopen(path, "wb");
}

static void write_held(void) {
  FILE* file = record("held");
  int held = 0;
  for (int i = 0; i < kMost; ++i) held += memory[i].data != NULL;
  if (file == NULL) return;
  fprintf(file, "%d %d %d\n", held, modules, contexts);
  fclose(file);
}

static int find(uint64_t address) {
  for (int i = 0; i < kMost; ++i) {
    const uint64_t first = (uint64_t)(uintptr_t)memory[i].data;
    if (first != 0 && first <= address && address < first + memory[i].bytes) return i;
  }
  return -1;
}

int cuInit(unsigned flags) {
  MAY_FAIL("cuInit", 100);
  atexit(write_held);
  return flags == 0 ? 0 : kInvalid;
}
int cuDeviceGet(int* device, int number) {
  *device = 40 + number;
  return 0;
}
int cuDevicePrimaryCtxRetain(void** context, int device) {
  static char token;
  *context = &token;
  ++contexts;
  return device == 40 ? 0 : kInvalid;
}
int cuDevicePrimaryCtxRelease_v2(int device) {
  --contexts;
  return device == 40 ? 0 : kInvalid;
}
int cuCtxSetCurrent(void* context) { return context != NULL ? 0 : kInvalid; }
int cuCtxGetDevice(int* device) {
  *device = 40;
  return 0;
}
int cuDeviceGetAttribute(int* value, int attribute, int device) {
  int numbers[3] = {9, 0, 132};
  const char* text = getenv("STUB_DEVICE");
  if (text != NULL) sscanf(text, "%d %d %d", &numbers[0], &numbers[1], &numbers[2]);
  if (device != 40) return kInvalid;
  *value = attribute == 75 ? numbers[0] : attribute == 76 ? numbers[1] : numbers[2];
  return attribute == 75 || attribute == 76 || attribute == 16 ? 0 : kInvalid;
}
int cuCtxSynchronize(void) {
  MAY_FAIL("cuCtxSynchronize", 719);
  return 0;
}

int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  MAY_FAIL("cuMemAlloc_v2", kOutOfMemory);
  for (int i = 0; i < kMost; ++i) {
    if (memory[i].data != NULL) continue;
    memory[i].data = aligned_alloc(256, (bytes + 255) / 256 * 256);
    memory[i].bytes = bytes;
    memset(memory[i].data, 0xff, bytes); /* NaN, so that what nobody writes is seen */
    *address = (uint64_t)(uintptr_t)memory[i].data;
    return 0;
  }
  return kOutOfMemory;
}
int cuMemFree_v2(uint64_t address) {
  const int i = find(address);
  if (i < 0) return kInvalid;
  free(memory[i].data);
  memory[i].data = NULL;
  return 0;
}
int cuMemcpyHtoD_v2(uint64_t address, const void* data, size_t bytes) {
  if (find(address) < 0) return kInvalid;
  memcpy((void*)(uintptr_t)address, data, bytes);
  return 0;
}
int cuMemcpyDtoH_v2(void* data, uint64_t address, size_t bytes) {
  if (find(address) < 0) return kInvalid;
  memcpy(data, (const void*)(uintptr_t)address, bytes);
  return 0;
}
int cuMemsetD8_v2(uint64_t address, unsigned char value, size_t bytes) {
  if (find(address) < 0) return kInvalid;
  memset((void*)(uintptr_t)address, value, bytes);
  return 0;
}

int cuModuleLoadData(void** module, const void* image) {
  MAY_FAIL("cuModuleLoadData", 209);
  if (memcmp(image, "\177ELF", 4) != 0) return 200;
  *module = calloc(1, 64);
  ++modules;
  return 0;
}
int cuModuleUnload(void* module) {
  free(module);
  --modules;
  return 0;
}
int cuModuleGetFunction(void** function, void* module, const char* name) {
  static char names[64][256];
  static int count;
  MAY_FAIL("cuModuleGetFunction", 500);
  if (module == NULL || count == 64) return kInvalid;
  snprintf(names[count], sizeof names[count], "%s", name);
  *function = names[count++];
  return 0;
}
int cuFuncSetAttribute(void* function, int attribute, int value) {
  MAY_FAIL("cuFuncSetAttribute", kInvalid);
  return function != NULL && (attribute == 8 || attribute == 9) && value >= 0 ? 0 : kInvalid;
}

static void write_memory(int number, int parameter, uint64_t address) {
  char name[64];
  const int i = find(address);
  FILE* file;
  if (i < 0) return;
  snprintf(name, sizeof name, "launch-%d-parameter-%d", number, parameter);
  file = record(name);
  if (file == NULL) return;
  fwrite(memory[i].data, 1, memory[i].bytes, file);
  fclose(file);
}

static void copy_result(uint64_t address) {
  const char* path = getenv("STUB_RESULT");
  FILE* file = path == NULL ? NULL : fopen(path, "rb");
  if (file == NULL) return;
  if (fread((void*)(uintptr_t)address, 1, memory[find(address)].bytes, file) == 0) abort();
  fclose(file);
}

int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, void* stream, void** parameters, void** extra) {
  const char* sizes = getenv("STUB_SIZES");
  const char* output = getenv("STUB_OUTPUT");
  char name[64];
  FILE* file;
  MAY_FAIL("cuLaunchKernel", 701);
  if (stream != NULL || extra != NULL) return kInvalid;
  snprintf(name, sizeof name, "launch-%d", launches);
  file = record(name);
  if (file != NULL) {
    fprintf(file, "%u %u %u %u %u %u %u\n%s\n", grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes,
            (const char*)function);
  }
  for (int i = 0; sizes != NULL && sizes[i] != 0; ++i) {
    uint64_t value = 0;
    memcpy(&value, parameters[i], (size_t)(sizes[i] - '0'));
    if (file != NULL) fprintf(file, "%llu\n", (unsigned long long)value);
    if (sizes[i] == '8') write_memory(launches, i, value);
    if (output != NULL && atoi(output) == i) copy_result(value);
  }
  if (file != NULL) fclose(file);
  ++launches;
  return 0;
}
