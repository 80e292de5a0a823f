/* Drives every path of one library's header with a driver that records its calls.
 *
 * expected.h, written by the test, includes the headers of two libraries, both twice, and says what the one under
 * test must do: its names by LIB and CONST, GPUS, KERNELS, and the tables `expected` and `selections`.
 */
#include "expected.h"

#include <stdio.h>
#include <string.h>

static int failures;

#define CHECK(condition)                                          \
  do {                                                            \
    if (!(condition)) {                                           \
      printf("program.c:%d: %s\n", __LINE__, #condition);         \
      ++failures;                                                 \
    }                                                             \
  } while (0)

static struct {
  int loads, unloads, lookups, attributes, launches, overlapping;
  int fail_load, fail_lookup, fail_attribute, fail_launch; /* 0: never; else the number of the call that fails */
  int error;                                               /* what it answers; 0: what such a call would */
  const void* image;
  const char* names[64];
  int shared[64], carveouts[64];
  void* function;
  unsigned grid[3], block[3], shared_bytes;
  void* stream;
  uint64_t pointers[8];
  int32_t m;
  int64_t x_stride, y_stride;
  void** extra;
} driver_calls;

static int failure(int usual) { return driver_calls.error == 0 ? usual : driver_calls.error; }

static char module_token;
static char function_tokens[64];

static int load_data(void** module, const void* image) {
  driver_calls.image = image;
  *module = &module_token; /* even a failing driver may write here */
  return ++driver_calls.loads == driver_calls.fail_load ? failure(209) : 0;
}

static int unload_module(void* module) {
  CHECK(module == &module_token);
  ++driver_calls.unloads;
  return 0;
}

static int get_function(void** function, void* module, const char* name) {
  CHECK(module == &module_token);
  driver_calls.names[driver_calls.lookups] = name;
  *function = &function_tokens[driver_calls.lookups];
  return ++driver_calls.lookups == driver_calls.fail_lookup ? failure(500) : 0;
}

static int set_attribute(void* function, int attribute, int value) {
  const int index = driver_calls.lookups - 1;
  CHECK(function == &function_tokens[index]);
  CHECK(attribute == 8 || attribute == 9);
  if (attribute == 8) driver_calls.shared[index] = value; /* CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES */
  if (attribute == 9) driver_calls.carveouts[index] = value; /* ..._PREFERRED_SHARED_MEMORY_CARVEOUT */
  return ++driver_calls.attributes == driver_calls.fail_attribute ? failure(1) : 0;
}

static int launch_function(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                           unsigned block_y, unsigned block_z, unsigned shared_bytes, void* stream,
                           void** parameters, void** extra) {
  int i;
  driver_calls.function = function;
  driver_calls.grid[0] = grid_x;
  driver_calls.grid[1] = grid_y;
  driver_calls.grid[2] = grid_z;
  driver_calls.block[0] = block_x;
  driver_calls.block[1] = block_y;
  driver_calls.block[2] = block_z;
  driver_calls.shared_bytes = shared_bytes;
  driver_calls.stream = stream;
  for (i = 0; i < 8; ++i) memcpy(&driver_calls.pointers[i], parameters[i], sizeof(uint64_t));
  memcpy(&driver_calls.m, parameters[8], sizeof(int32_t));
  memcpy(&driver_calls.x_stride, parameters[9], sizeof(int64_t));
  memcpy(&driver_calls.y_stride, parameters[10], sizeof(int64_t));
  driver_calls.extra = extra;
  return ++driver_calls.launches == driver_calls.fail_launch ? failure(719) : 0;
}

static int launch_overlapping(const vqcc_launch_config* config, void* function, void** parameters, void** extra) {
  CHECK(config->attribute_count == 1 && config->attributes[0].id == 6 && config->attributes[0].value.allowed == 1);
  ++driver_calls.overlapping;
  return launch_function(function, config->grid_x, config->grid_y, config->grid_z, config->block_x, config->block_y,
                         config->block_z, config->shared_bytes, config->stream, parameters, extra);
}

/* The device of the current context; `fail` is the number of the question that fails. */
static struct {
  int major, minor, sm_count, questions, fail;
} device;

static int get_device(int* number) {
  *number = 3;
  return ++device.questions == device.fail ? 201 : 0;
}

static int get_attribute(int* value, int attribute, int number) {
  CHECK(number == 3 && (attribute == 75 || attribute == 76 || attribute == 16));
  *value = attribute == 75 ? device.major : attribute == 76 ? device.minor : device.sm_count;
  return ++device.questions == device.fail ? 101 : 0;
}

static void set_device(int major, int minor, int sm_count) {
  device.major = major;
  device.minor = minor;
  device.sm_count = sm_count;
  device.questions = device.fail = 0;
}

static vqcc_driver make_driver(void) {
  vqcc_driver driver;
  memset(&driver_calls, 0, sizeof(driver_calls));
  driver.module_load_data = load_data;
  driver.module_unload = unload_module;
  driver.module_get_function = get_function;
  driver.function_set_attribute = set_attribute;
  driver.launch_kernel = launch_function;
  driver.launch_kernel_ex = launch_overlapping;
  driver.context_get_device = get_device;
  driver.device_get_attribute = get_attribute;
  return driver;
}

/* Attributes that a load on `gpu` sets: every kernel's dynamic shared memory, and carve-outs that are not 0. */
static int attributes_of(int32_t gpu) {
  int count = KERNELS, i;
  for (i = 0; i < KERNELS; ++i) count += expected[gpu][i].carveout != 0;
  return count;
}

static LIB(args) good_args(void) {
  LIB(args) args;
  memset(&args, 0, sizeof(args));
  args.codes = 0x10000;
  args.books = 0x20000;
  args.stage_scales = 0x30000;
  args.scales = 0x40000;
  args.x = 0x50000;
  args.bias = 0x60000;
  args.y = 0x70002;
  args.workspace = 0x80100;
  args.x_stride = CONST(K) + 16;
  args.y_stride = CONST(N) + 1;
  args.m = 1;
  args.type = CONST(FLOAT16);
  return args;
}

/* Blocks of a launch of `m` rows of x: the grid once, or for each panel of rows that has any. */
static unsigned blocks_of(const struct expected_kernel* kernel, int32_t m) {
  int32_t panels = 1;
  while (kernel->panel_rows != 0 && panels * kernel->panel_rows < m) ++panels;
  return kernel->grid * (unsigned)panels;
}

static const char cubin[] = "a cubin";

/* An overlapping launch is asked for, where the GPU and the driver have it; and is the same launch otherwise. */
static void test_overlap(void) {
  int32_t gpu;
  for (gpu = 0; gpu < GPUS; ++gpu) {
    int with_driver;
    for (with_driver = 0; with_driver < 2; ++with_driver) {
      vqcc_driver driver = make_driver();
      LIB(handle) handle;
      LIB(args) args = good_args();
      const struct expected_kernel* kernel = &expected[gpu][selections[0].kernel];
      if (!with_driver) driver.launch_kernel_ex = NULL;
      args.m = selections[0].m;
      args.type = selections[0].type;
      args.overlap = 1;
      CHECK(LIB(load)(&handle, &driver, gpu, cubin) == CONST(OK));
      CHECK(LIB(kernel_info)(gpu, 0)->can_overlap == kernel->can_overlap);
      CHECK(LIB(launch)(&handle, &args, &driver) == CONST(OK));
      CHECK(driver_calls.launches == 1 && driver_calls.overlapping == (with_driver && kernel->can_overlap));
      CHECK(driver_calls.grid[0] == blocks_of(kernel, args.m) && driver_calls.grid[1] == 1 && driver_calls.grid[2] == 1);
      CHECK(driver_calls.block[0] == kernel->threads && driver_calls.block[1] == 1 && driver_calls.block[2] == 1);
      CHECK(driver_calls.shared_bytes == kernel->shared_bytes && driver_calls.stream == &driver);
      CHECK(memcmp(driver_calls.pointers, &args.codes, sizeof(driver_calls.pointers)) == 0);
      driver_calls.fail_launch = 2;
      CHECK(LIB(launch)(&handle, &args, &driver) == CONST(ERROR_LAUNCH));
      LIB(unload)(&handle);
    }
  }
}

static void test_load_and_launch(void) {
  int32_t gpu;
  size_t i;
  for (gpu = 0; gpu < GPUS; ++gpu) {
    vqcc_driver driver = make_driver();
    LIB(handle) handle;
    CHECK(LIB(load)(&handle, &driver, gpu, cubin) == CONST(OK));
    CHECK(driver_calls.loads == 1 && driver_calls.image == cubin);
    CHECK(driver_calls.lookups == KERNELS && CONST(KERNEL_COUNT) == KERNELS);
    CHECK(driver_calls.attributes == attributes_of(gpu));
    CHECK(handle.gpu == gpu && handle.module == &module_token);
    for (i = 0; i < KERNELS; ++i) {
      CHECK(strcmp(driver_calls.names[i], expected[gpu][i].name) == 0);
      CHECK(driver_calls.shared[i] == (int)expected[gpu][i].shared_bytes);
      CHECK(driver_calls.carveouts[i] == expected[gpu][i].carveout);
      CHECK(LIB(kernel_info)(gpu, (int32_t)i)->carveout_percent == expected[gpu][i].carveout);
      CHECK(handle.functions[i] == &function_tokens[i]);
    }
    for (i = 0; i < sizeof(selections) / sizeof(selections[0]); ++i) {
      const struct expected_kernel* kernel = &expected[gpu][selections[i].kernel];
      LIB(args) args = good_args();
      args.m = selections[i].m;
      args.type = selections[i].type;
      CHECK(LIB(supports)(&args, NULL) == CONST(OK));
      CHECK(LIB(workspace_bytes)(&args) == selections[i].workspace);
      CHECK(LIB(kernel_info)(gpu, selections[i].kernel)->workspace_bytes == kernel->workspace);
      CHECK(LIB(launch)(&handle, &args, &driver) == CONST(OK));
      CHECK(driver_calls.launches == (int)i + 1);
      CHECK(driver_calls.overlapping == 0);
      CHECK(driver_calls.function == &function_tokens[selections[i].kernel]);
      CHECK(driver_calls.grid[0] == blocks_of(kernel, args.m) && driver_calls.grid[1] == 1 && driver_calls.grid[2] == 1);
      CHECK(driver_calls.block[0] == kernel->threads && driver_calls.block[1] == 1 && driver_calls.block[2] == 1);
      CHECK(driver_calls.shared_bytes == kernel->shared_bytes);
      CHECK(driver_calls.stream == &driver && driver_calls.extra == NULL);
      CHECK(memcmp(driver_calls.pointers, &args.codes, sizeof(driver_calls.pointers)) == 0);
      CHECK(driver_calls.m == args.m);
      CHECK(driver_calls.x_stride == args.x_stride && driver_calls.y_stride == args.y_stride);
    }
    LIB(unload)(&handle);
    LIB(unload)(&handle);
    CHECK(driver_calls.unloads == 1 && handle.module == NULL);
    {
      LIB(args) args = good_args();
      CHECK(LIB(launch)(&handle, &args, NULL) == CONST(ERROR_NULL_POINTER));
    }
  }
}

static void test_driver_without_memory(void) {
  LIB(args) args = good_args();
  int what;
  for (what = 0; what < 4; ++what) {
    vqcc_driver driver = make_driver();
    LIB(handle) handle;
    driver_calls.error = 2;
    *(what == 0   ? &driver_calls.fail_load
      : what == 1 ? &driver_calls.fail_lookup
      : what == 2 ? &driver_calls.fail_attribute
                  : &driver_calls.fail_launch) = 1;
    CHECK(LIB(load)(&handle, &driver, 0, cubin) == (what < 3 ? CONST(ERROR_OUT_OF_MEMORY) : CONST(OK)));
    CHECK(what < 3 || LIB(launch)(&handle, &args, NULL) == CONST(ERROR_OUT_OF_MEMORY));
    LIB(unload)(&handle);
    CHECK(driver_calls.unloads == (what == 0 ? 0 : 1));
  }
}

static void test_failing_driver(void) {
  vqcc_driver driver = make_driver();
  LIB(handle) handle;
  LIB(args) args = good_args();
  int i;

  driver_calls.fail_load = 1;
  memset(&handle, 0xA5, sizeof(handle));
  CHECK(LIB(load)(&handle, &driver, 0, cubin) == CONST(ERROR_LOAD));
  LIB(unload)(&handle);
  CHECK(driver_calls.unloads == 0 && driver_calls.lookups == 0);

  driver = make_driver();
  driver_calls.fail_lookup = KERNELS;
  memset(&handle, 0xA5, sizeof(handle));
  CHECK(LIB(load)(&handle, &driver, 0, cubin) == CONST(ERROR_SYMBOL));
  CHECK(driver_calls.unloads == 1 && handle.module == NULL);
  CHECK(LIB(launch)(&handle, &args, NULL) == CONST(ERROR_NULL_POINTER));

  for (i = 1; i <= attributes_of(0); ++i) {
    driver = make_driver();
    driver_calls.fail_attribute = i;
    memset(&handle, 0xA5, sizeof(handle));
    CHECK(LIB(load)(&handle, &driver, 0, cubin) == CONST(ERROR_SHARED_MEMORY));
    LIB(unload)(&handle);
    CHECK(driver_calls.loads == 1 && driver_calls.unloads == 1);
  }

  driver = make_driver();
  driver_calls.fail_launch = 1;
  CHECK(LIB(load)(&handle, &driver, 0, cubin) == CONST(OK));
  CHECK(LIB(launch)(&handle, &args, NULL) == CONST(ERROR_LAUNCH));
  CHECK(LIB(launch)(&handle, &args, NULL) == CONST(OK));
  LIB(unload)(&handle);
}

static void test_wrong_load(void) {
  vqcc_driver driver = make_driver();
  LIB(handle) handle;
  LIB(args) args = good_args();
  CHECK(LIB(load)(NULL, &driver, 0, cubin) == CONST(ERROR_NULL_POINTER));
  memset(&handle, 0xA5, sizeof(handle)); /* whatever a load answers, the handle may be unloaded */
  CHECK(LIB(load)(&handle, NULL, 0, cubin) == CONST(ERROR_NULL_POINTER));
  LIB(unload)(&handle);
  memset(&handle, 0xA5, sizeof(handle));
  CHECK(LIB(load)(&handle, &driver, 0, NULL) == CONST(ERROR_NULL_POINTER));
  LIB(unload)(&handle);
  memset(&handle, 0xA5, sizeof(handle));
  CHECK(LIB(load)(&handle, &driver, GPUS, cubin) == CONST(ERROR_GPU));
  LIB(unload)(&handle);
  CHECK(LIB(load)(&handle, &driver, -1, cubin) == CONST(ERROR_GPU));
  driver.launch_kernel = NULL;
  CHECK(LIB(load)(&handle, &driver, 0, cubin) == CONST(ERROR_NULL_POINTER));
  CHECK(driver_calls.loads == 0 && driver_calls.unloads == 0);
  CHECK(LIB(launch)(NULL, &args, NULL) == CONST(ERROR_NULL_POINTER));
  CHECK(LIB(launch)(&handle, NULL, NULL) == CONST(ERROR_NULL_POINTER));
  LIB(unload)(NULL);
}

/* What supports() refuses, launch() refuses alike and launches nothing. */
static void refused(LIB(args) args, LIB(status) status, const char* word) {
  vqcc_driver driver = make_driver();
  LIB(handle) handle;
  const char* reason = NULL;
  CHECK(LIB(supports)(&args, &reason) == status);
  CHECK(reason != NULL && strstr(reason, word) != NULL);
  CHECK(LIB(supports)(&args, NULL) == status);
  CHECK(LIB(load)(&handle, &driver, 0, cubin) == CONST(OK));
  CHECK(LIB(launch)(&handle, &args, &driver) == status);
  CHECK(driver_calls.launches == (status == CONST(OK)));
  LIB(unload)(&handle);
}

#define REFUSED(change, status, word) \
  do {                                \
    LIB(args) args = good_args();     \
    args.m = CONST(MAX_M);            \
    change;                           \
    refused(args, CONST(status), word); \
  } while (0)

static void test_supports(void) {
  const char* reason = NULL;
  CHECK(LIB(supports)(NULL, &reason) == CONST(ERROR_NULL_POINTER));
  REFUSED((void)0, OK, "ok");
  REFUSED(args.codes = 0, ERROR_NULL_POINTER, "null");
  REFUSED(args.books = 0, ERROR_NULL_POINTER, "null");
  REFUSED(args.x = 0, ERROR_NULL_POINTER, "null");
  REFUSED(args.y = 0, ERROR_NULL_POINTER, "null");
  if (NEEDS_SCALES) REFUSED(args.scales = 0, ERROR_NULL_POINTER, "null");
  if (!NEEDS_SCALES) REFUSED(args.scales = 0, OK, "ok");
  if (NEEDS_STAGE_SCALES) REFUSED(args.stage_scales = 0, ERROR_NULL_POINTER, "null");
  if (!NEEDS_STAGE_SCALES) REFUSED(args.stage_scales = 0, OK, "ok");
  REFUSED(args.bias = 0, OK, "ok");
  REFUSED(args.m = 0, ERROR_SIZE, "m is not between 1 and");
  REFUSED(args.m = INT32_MIN, ERROR_SIZE, "m is not between 1 and");
  REFUSED(args.m = CONST(MAX_M) + 1, ERROR_SIZE, "m is not between 1 and");
  REFUSED(args.type = 2, ERROR_TYPE, "element type");
  REFUSED(args.type = -1, ERROR_TYPE, "element type");
  REFUSED(args.x_stride = CONST(K) - 1, ERROR_STRIDE, "stride");
  REFUSED(args.y_stride = CONST(N) - 1, ERROR_STRIDE, "stride");
  REFUSED(args.x_stride = INT64_MIN, ERROR_STRIDE, "stride");
  REFUSED(args.y_stride = -1, ERROR_STRIDE, "stride");
  REFUSED(args.x_stride = CONST(K); args.y_stride = CONST(N), OK, "ok");
  REFUSED(args.codes += 8, ERROR_MISALIGNED, "aligned");
  REFUSED(args.books += 1, ERROR_MISALIGNED, "aligned");
  REFUSED(args.scales += 2, ERROR_MISALIGNED, "aligned");
  REFUSED(args.stage_scales += 2, ERROR_MISALIGNED, "aligned");
  REFUSED(args.bias += 1, ERROR_MISALIGNED, "aligned");
  REFUSED(args.y += 1, ERROR_MISALIGNED, "aligned");
  REFUSED(args.x += CONST(X_ALIGNMENT) / 2, ERROR_MISALIGNED, "aligned");
  REFUSED(args.x += CONST(X_ALIGNMENT), OK, "ok");
  /* Twice this stride would overflow; it is odd, which only single elements allow. */
  if (CONST(X_ALIGNMENT) > 2) REFUSED(args.x_stride = INT64_MAX, ERROR_MISALIGNED, "aligned");
  if (CONST(X_ALIGNMENT) == 2) REFUSED(args.x_stride = INT64_MAX, OK, "ok");
  REFUSED(args.m = 1; args.x_stride = 0; args.y_stride = 0, OK, "ok"); /* one row has no stride */
}

static void test_workspace(void) {
  size_t i;
  LIB(args) args = good_args();
  for (i = 0; i < sizeof(selections) / sizeof(selections[0]); ++i) {
    const int needed = selections[i].workspace != 0;
    args = good_args();
    args.m = selections[i].m;
    args.type = selections[i].type;
    args.workspace = 0;
    refused(args, needed ? CONST(ERROR_NULL_POINTER) : CONST(OK), needed ? "null" : "ok");
    args.workspace = 0x80100 + 128;
    refused(args, needed ? CONST(ERROR_MISALIGNED) : CONST(OK), needed ? "aligned" : "ok");
    args.workspace = 0x80100 + CONST(WORKSPACE_ALIGNMENT);
    refused(args, CONST(OK), "ok");
  }
  args.type = 2; /* none of these is served */
  CHECK(LIB(workspace_bytes)(&args) == 0);
  args = good_args();
  args.m = CONST(MAX_M) + 1;
  CHECK(LIB(workspace_bytes)(&args) == 0);
  args.m = 0;
  CHECK(LIB(workspace_bytes)(&args) == 0);
  CHECK(LIB(workspace_bytes)(NULL) == 0);
}

/* What the library is compiled for, and which of it a device takes. */
static void test_find_gpu(void) {
  int32_t number;
  CHECK(CONST(GPU_COUNT) == GPUS && LIB(gpu_info)(-1) == NULL && LIB(gpu_info)(GPUS) == NULL);
  for (number = 0; number < GPUS; ++number) {
    const struct expected_gpu* own = &expected_gpus[number];
    const LIB(gpu_facts)* facts = LIB(gpu_info)(number);
    vqcc_driver driver = make_driver();
    int32_t gpu = -7, ptx = -7;
    int more, i;
    CHECK(strcmp(facts->name, own->name) == 0 && strcmp(facts->cubin, own->cubin) == 0);
    CHECK(facts->major == own->major && facts->minor == own->minor);
    CHECK(facts->sm_count == own->sm_count && facts->has_ptx == own->has_ptx);
    for (more = 0; more < 2; ++more) {
      set_device(own->major, own->minor, own->sm_count + more);
      CHECK(LIB(find_gpu)(&driver, &gpu, NULL) == CONST(OK) && gpu == number);
      CHECK(LIB(find_gpu)(&driver, &gpu, &ptx) == CONST(OK) && gpu == number && ptx == 0);
    }
    set_device(own->major, own->minor, own->sm_count - 1); /* its grids are for more */
    CHECK(LIB(find_gpu)(&driver, &gpu, NULL) == CONST(ERROR_GPU));
    set_device(own->major - 4, 0, 1000);
    CHECK(LIB(find_gpu)(&driver, &gpu, &ptx) == CONST(ERROR_GPU));
    set_device(own->major + 4, 0, 1000); /* the newest PTX that is not of its architecture alone */
    CHECK(LIB(find_gpu)(&driver, &gpu, NULL) == CONST(ERROR_GPU));
    {
      const LIB(status) status = LIB(find_gpu)(&driver, &gpu, &ptx);
      int best = -1;
      for (i = 0; i < GPUS; ++i) {
        const struct expected_gpu* other = &expected_gpus[i];
        if (other->has_ptx && (best < 0 || 10 * other->major + other->minor >
                                               10 * expected_gpus[best].major + expected_gpus[best].minor)) {
          best = i;
        }
      }
      CHECK(status == (best < 0 ? CONST(ERROR_GPU) : CONST(OK)) && (best < 0 || (gpu == best && ptx == 1)));
    }
    for (i = 1; i <= 4; ++i) {
      set_device(own->major, own->minor, own->sm_count);
      device.fail = i;
      CHECK(LIB(find_gpu)(&driver, &gpu, NULL) == CONST(ERROR_CONTEXT));
    }
    set_device(own->major, own->minor, own->sm_count);
    CHECK(LIB(find_gpu)(NULL, &gpu, NULL) == CONST(ERROR_NULL_POINTER));
    CHECK(LIB(find_gpu)(&driver, NULL, NULL) == CONST(ERROR_NULL_POINTER));
    driver.context_get_device = NULL;
    CHECK(LIB(find_gpu)(&driver, &gpu, NULL) == CONST(ERROR_NULL_POINTER));
    driver = make_driver();
    driver.device_get_attribute = NULL;
    CHECK(LIB(find_gpu)(&driver, &gpu, NULL) == CONST(ERROR_NULL_POINTER));
  }
}

static void test_load_for_device(void) {
  const void* cubins[GPUS];
  LIB(handle) handle;
  int32_t number;
  for (number = 0; number < GPUS; ++number) {
    vqcc_driver driver = make_driver();
    int32_t i;
    for (i = 0; i < GPUS; ++i) cubins[i] = &cubin[i];
    set_device(expected_gpus[number].major, expected_gpus[number].minor, expected_gpus[number].sm_count);
    CHECK(LIB(load_for_device)(&handle, &driver, cubins) == CONST(OK));
    CHECK(driver_calls.image == cubins[number] && handle.gpu == number);
    LIB(unload)(&handle);
    cubins[number] = NULL;
    memset(&handle, 0xA5, sizeof(handle));
    CHECK(LIB(load_for_device)(&handle, &driver, cubins) == CONST(ERROR_GPU) && handle.module == NULL);
    set_device(1, 0, 1);
    CHECK(LIB(load_for_device)(&handle, &driver, cubins) == CONST(ERROR_GPU));
    CHECK(LIB(load_for_device)(&handle, &driver, NULL) == CONST(ERROR_NULL_POINTER));
    CHECK(LIB(load_for_device)(&handle, NULL, cubins) == CONST(ERROR_NULL_POINTER));
    CHECK(LIB(load_for_device)(NULL, &driver, cubins) == CONST(ERROR_NULL_POINTER));
    LIB(unload)(&handle);
    CHECK(driver_calls.loads == 1 && driver_calls.unloads == 1);
  }
}

static void test_status_strings(void) {
  /* Every status has its own text. */
  static const LIB(status) statuses[] = {
      CONST(OK),         CONST(ERROR_NULL_POINTER), CONST(ERROR_SIZE), CONST(ERROR_STRIDE),
      CONST(ERROR_MISALIGNED), CONST(ERROR_TYPE),   CONST(ERROR_GPU),  CONST(ERROR_LOAD),
      CONST(ERROR_SYMBOL), CONST(ERROR_SHARED_MEMORY), CONST(ERROR_LAUNCH), CONST(ERROR_CONTEXT)};
  const size_t count = sizeof(statuses) / sizeof(statuses[0]);
  size_t i, j;
  for (i = 0; i < count; ++i) {
    CHECK((size_t)statuses[i] == i);
    CHECK(strcmp(LIB(status_string)(statuses[i]), "unknown status") != 0);
    for (j = 0; j < i; ++j) CHECK(strcmp(LIB(status_string)(statuses[i]), LIB(status_string)(statuses[j])) != 0);
  }
}

static void test_macros(void) {
  CHECK(CONST(ABI_VERSION) == EXPECTED_ABI_VERSION);
  CHECK(CONST(WORKSPACE_BYTES) == EXPECTED_WORKSPACE_BYTES && CONST(WORKSPACE_ALIGNMENT) == 256);
  CHECK(strcmp(CONST(BUILD_ID), EXPECTED_BUILD_ID) == 0);
  CHECK(strcmp(CONST(LAYOUT_ID), EXPECTED_LAYOUT_ID) == 0);
  CHECK(CONST(CODES_BYTES) == EXPECTED_CODES_BYTES && CONST(BOOKS_BYTES) == EXPECTED_BOOKS_BYTES);
}

int main(void) {
  test_load_and_launch();
  test_find_gpu();
  test_load_for_device();
  test_overlap();
  test_failing_driver();
  test_driver_without_memory();
  test_wrong_load();
  test_supports();
  test_status_strings();
  test_workspace();
  test_macros();
  return failures == 0 ? 0 : 1;
}
