/* Stands in for libcuda.so.1: device memory is host memory, and a launch is written down instead of done.
 *
 * STUB_DEVICE is "major minor sm_count". Launch number i is written to STUB_RECORD/launch-i: a line of its numbers (grid,
 * block, shared bytes), its kernel's name, then each parameter as STUB_SIZES says how many bytes it has; memory that a parameter
 * points to goes to STUB_RECORD/launch-i-parameter-j. If STUB_RESULT names a file, it is copied to what parameter
 * STUB_OUTPUT points to.
 *
 * Programs of many kernels have STUB_KERNELS instead, a file with a line for each: its name, then the bytes of each parameter.
 * Their launches are lines of STUB_RECORD/launches: name, grid, block, shared bytes, whether it overlaps, whether it is
 * captured, then parameters, in words of 8 bytes where they are longer. A kernel that the file has not fails.
 *
 * STUB_EMULATOR is a directory of somebody who runs the kernels (emulated_gpu.py): device memory is in files there, MEMORY-i,
 * and each launch that is not captured goes as a line to the pipe `request`; one that `reply` does not answer with ok fails.
 *
 * STUB_FAIL names a function that fails, with STUB_ERROR or a usual error; "cuLaunchKernelEx 7" lets 7 calls pass before.
 * While a stream captures, nothing but launches is allowed. At the end STUB_RECORD/held says how many allocations, modules,
 * contexts, and streams, events and graphs were not given back.
 */
#define _POSIX_C_SOURCE 200809L
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { kMost = 4096, kInvalid = 1, kOutOfMemory = 2, kCaptured = 900 };
static struct {
  unsigned char* data;
  size_t bytes;
} memory[kMost];
static int launches, modules, contexts, objects;
static void* capturing;

static int fails(const char* name) {
  static int passed;
  const char* wanted = getenv("STUB_FAIL");
  const size_t length = strlen(name);
  if (wanted == NULL || strncmp(wanted, name, length) != 0 || (wanted[length] != 0 && wanted[length] != ' ')) return 0;
  return passed++ >= atoi(wanted + length);
}
/* The error that STUB_ERROR asks for, or the usual one. */
static int failure(int usual) {
  const char* asked = getenv("STUB_ERROR");
  return asked == NULL ? usual : atoi(asked);
}
#define MAY_FAIL(name, error) \
  do {                        \
    if (fails(name)) return failure(error); \
  } while (0)

#define NOT_CAPTURED \
  do {               \
    if (capturing != NULL) return kCaptured; \
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
  fprintf(file, "%d %d %d %d\n", held, modules, contexts, objects);
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

/* Memory of allocation `number`: of the process, or of a file that whoever runs the kernels maps too. */
static unsigned char* allocated(int number, size_t bytes) {
  char path[4096];
  void* data;
  int file;
  if (getenv("STUB_EMULATOR") == NULL) return aligned_alloc(256, bytes);
  snprintf(path, sizeof path, "%s/memory-%d", getenv("STUB_EMULATOR"), number);
  file = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (file < 0 || ftruncate(file, (off_t)bytes) != 0) abort();
  data = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  close(file);
  if (data == MAP_FAILED) abort();
  return data;
}
static void given_back(unsigned char* data, size_t bytes) {
  if (getenv("STUB_EMULATOR") == NULL) free(data);
  else munmap(data, (bytes + 255) / 256 * 256);
}

int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
  MAY_FAIL("cuMemAlloc_v2", kOutOfMemory);
  NOT_CAPTURED;
  for (int i = 0; i < kMost; ++i) {
    if (memory[i].data != NULL) continue;
    memory[i].data = allocated(i, (bytes + 255) / 256 * 256);
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
  given_back(memory[i].data, memory[i].bytes);
  memory[i].data = NULL;
  return 0;
}
int cuMemGetInfo_v2(size_t* free_bytes, size_t* bytes) {
  const char* text = getenv("STUB_FREE");
  *free_bytes = text == NULL ? (size_t)1 << 30 : (size_t)atoll(text);
  *bytes = (size_t)1 << 31;
  return 0;
}
int cuMemcpyHtoD_v2(uint64_t address, const void* data, size_t bytes) {
  MAY_FAIL("cuMemcpyHtoD_v2", kInvalid);
  NOT_CAPTURED;
  if (find(address) < 0) return kInvalid;
  memcpy((void*)(uintptr_t)address, data, bytes);
  return 0;
}
int cuMemcpyDtoH_v2(void* data, uint64_t address, size_t bytes) {
  if (find(address) < 0) return kInvalid;
  memcpy(data, (const void*)(uintptr_t)address, bytes);
  return 0;
}
int cuMemcpyDtoD_v2(uint64_t to, uint64_t from, size_t bytes) {
  NOT_CAPTURED;
  if (find(to) < 0 || find(from) < 0) return kInvalid;
  memcpy((void*)(uintptr_t)to, (const void*)(uintptr_t)from, bytes);
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
  static char names[256][256];
  static int count;
  MAY_FAIL("cuModuleGetFunction", 500);
  if (module == NULL || count == 256) return kInvalid;
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

/* Bytes of the parameters of a kernel, as the file STUB_KERNELS has them: how many, or -1. */
static int sizes_of(const char* path, const char* kernel, int* sizes) {
  char line[1024];
  int count = -1;
  FILE* file = fopen(path, "r");
  while (file != NULL && count < 0 && fgets(line, sizeof line, file) != NULL) {
    char* word = strtok(line, " \n");
    if (word == NULL || strcmp(word, kernel) != 0) continue;
    for (count = 0; (word = strtok(NULL, " \n")) != NULL; ++count) sizes[count] = atoi(word);
  }
  if (file != NULL) fclose(file);
  return count;
}

/* Has a launch done: name, grid, block, shared bytes, and of each word of a parameter its value, or memory-i+offset. */
static int emulate(const char* directory, const char* kernel, const unsigned* shape, const int* sizes, int count,
                   void** parameters) {
  static FILE *request, *reply;
  char path[4096], answer[16];
  if (request == NULL) {
    snprintf(path, sizeof path, "%s/request", directory);
    request = fopen(path, "w");
    snprintf(path, sizeof path, "%s/reply", directory);
    reply = fopen(path, "r");
  }
  fprintf(request, "%s", kernel);
  for (int i = 0; i < 7; ++i) fprintf(request, " %u", shape[i]);
  for (int i = 0; i < count; ++i) {
    for (int at = 0; at < sizes[i]; at += 8) {
      uint64_t value = 0;
      int held;
      memcpy(&value, (unsigned char*)parameters[i] + at, (size_t)(sizes[i] - at < 8 ? sizes[i] - at : 8));
      held = sizes[i] >= 8 ? find(value) : -1;
      if (held < 0) fprintf(request, " %llu", (unsigned long long)value);
      else fprintf(request, " memory-%d+%zu", held, (size_t)(value - (uint64_t)(uintptr_t)memory[held].data));
    }
  }
  fprintf(request, "\n");
  fflush(request);
  return fgets(answer, sizeof answer, reply) != NULL && strcmp(answer, "ok\n") == 0 ? 0 : 719;
}

static int append_launch(const char* kernels, const char* kernel, const unsigned* shape, int overlaps, void** parameters) {
  int sizes[64];
  const int count = sizes_of(kernels, kernel, sizes);
  char path[4096];
  FILE* file;
  if (count < 0) return kInvalid;
  snprintf(path, sizeof path, "%s/launches", getenv("STUB_RECORD"));
  file = fopen(path, "ab");
  if (file == NULL) return kInvalid;
  fprintf(file, "%s", kernel);
  for (int i = 0; i < 7; ++i) fprintf(file, " %u", shape[i]);
  fprintf(file, " %d %d", overlaps, capturing != NULL);
  for (int i = 0; i < count; ++i) {
    for (int at = 0; at < sizes[i]; at += 8) {
      uint64_t value = 0;
      memcpy(&value, (unsigned char*)parameters[i] + at, (size_t)(sizes[i] - at < 8 ? sizes[i] - at : 8));
      fprintf(file, " %llu", (unsigned long long)value);
    }
  }
  fprintf(file, "\n");
  fclose(file);
  if (capturing != NULL || getenv("STUB_EMULATOR") == NULL) return 0;
  return emulate(getenv("STUB_EMULATOR"), kernel, shape, sizes, count, parameters);
}

int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x, unsigned block_y,
                   unsigned block_z, unsigned shared_bytes, void* stream, void** parameters, void** extra) {
  const char* sizes = getenv("STUB_SIZES");
  const char* output = getenv("STUB_OUTPUT");
  char name[64];
  FILE* file;
  MAY_FAIL("cuLaunchKernel", 701);
  if (extra != NULL || (capturing != NULL && stream != capturing)) return kInvalid;
  if (getenv("STUB_KERNELS") != NULL) {
    const unsigned shape[7] = {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes};
    return append_launch(getenv("STUB_KERNELS"), (const char*)function, shape, 0, parameters);
  }
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

typedef struct {
  int id, padding;
  int value[16];
} attribute;
typedef struct {
  unsigned shape[7];
  void* stream;
  const attribute* attributes;
  unsigned count;
} launch_config;

/* Programs of one kernel have no launches that overlap. */
int cuLaunchKernelEx(const launch_config* config, void* function, void** parameters, void** extra) {
  const int overlaps = config->count == 1 && config->attributes[0].id == 6 && config->attributes[0].value[0] == 1;
  MAY_FAIL("cuLaunchKernelEx", 701);
  if (extra != NULL || !overlaps || getenv("STUB_KERNELS") == NULL) return kInvalid;
  if (capturing != NULL && config->stream != capturing) return kInvalid;
  return append_launch(getenv("STUB_KERNELS"), (const char*)function, config->shape, 1, parameters);
}

static int make_object(void** object) {
  *object = calloc(1, 16);
  ++objects;
  return 0;
}
static int give_object_back(void* object) {
  free(object);
  --objects;
  return object != NULL ? 0 : kInvalid;
}

int cuStreamCreate(void** stream, unsigned flags) {
  MAY_FAIL("cuStreamCreate", kOutOfMemory);
  return flags == 1 ? make_object(stream) : kInvalid;
}
int cuStreamDestroy_v2(void* stream) { return give_object_back(stream); }
int cuStreamSynchronize(void* stream) {
  MAY_FAIL("cuStreamSynchronize", 719);
  NOT_CAPTURED;
  return stream != NULL ? 0 : kInvalid;
}
int cuStreamBeginCapture_v2(void* stream, int mode) {
  MAY_FAIL("cuStreamBeginCapture_v2", kInvalid);
  NOT_CAPTURED;
  capturing = stream;
  return stream != NULL && mode == 1 ? 0 : kInvalid;
}
int cuStreamEndCapture(void* stream, void** graph) {
  if (stream != capturing) return kInvalid;
  capturing = NULL;
  MAY_FAIL("cuStreamEndCapture", 901);
  return make_object(graph);
}
int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long flags) {
  MAY_FAIL("cuGraphInstantiateWithFlags", kOutOfMemory);
  return graph != NULL && flags == 0 ? make_object(executable) : kInvalid;
}
int cuGraphDestroy(void* graph) { return give_object_back(graph); }
int cuGraphExecDestroy(void* executable) { return give_object_back(executable); }
int cuGraphLaunch(void* executable, void* stream) {
  MAY_FAIL("cuGraphLaunch", 719);
  NOT_CAPTURED;
  return executable != NULL && stream != NULL ? 0 : kInvalid;
}

int cuEventCreate(void** event, unsigned flags) {
  MAY_FAIL("cuEventCreate", kOutOfMemory);
  return flags == 0 ? make_object(event) : kInvalid;
}
int cuEventDestroy_v2(void* event) { return give_object_back(event); }
int cuEventRecord(void* event, void* stream) {
  NOT_CAPTURED;
  return event != NULL && stream != NULL ? 0 : kInvalid;
}
int cuEventSynchronize(void* event) {
  MAY_FAIL("cuEventSynchronize", 719);
  return event != NULL ? 0 : kInvalid;
}
int cuEventElapsedTime(float* milliseconds, void* start, void* end) {
  *milliseconds = 1.5f;
  return start != NULL && end != NULL && start != end ? 0 : kInvalid;
}
