/* For programs of two threads, each with a context of its own, under ThreadSanitizer: a stand-in for the driver that keeps the
 * current context by thread, as CUDA does, and counts the launches of each. vqcc_driver is there before.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

enum { kThreads = 2, kRounds = 500 };

static _Thread_local int current; /* context */
static atomic_int launches[kThreads], modules;
static char module_tokens[kThreads], function_tokens[kThreads][64];
static int device_major, device_minor, device_sm_count; /* set before the threads are */

static int load_data(void** module, const void* image) {
  *module = &module_tokens[current];
  atomic_fetch_add(&modules, 1);
  return image == NULL;
}
static int unload_module(void* module) {
  atomic_fetch_add(&modules, -1);
  return module == NULL;
}
static int get_function(void** function, void* module, const char* name) {
  const int context = (int)((char*)module - module_tokens);
  *function = &function_tokens[context][strlen(name) % 64];
  return context != current;
}
static int set_attribute(void* function, int attribute, int value) { return function == NULL || attribute < 8 || value < 0; }
static int launch_kernel(void* function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                         unsigned shared, void* stream, void** parameters, void** extra) {
  const int context = (int)(((char*)function - function_tokens[0]) / 64);
  atomic_fetch_add(&launches[context], 1);
  return gx * gy * gz * bx * by * bz == 0 || shared > 1u << 20 || stream == NULL || *parameters == NULL || extra != NULL;
}
static int get_device(int* device) {
  *device = current;
  return 0;
}
static int get_attribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? device_major : attribute == 76 ? device_minor : device_sm_count;
  return device != current;
}
static const vqcc_driver driver = {load_data, unload_module, get_function, set_attribute, launch_kernel,
                                   NULL,      get_device,    get_attribute};

static pthread_barrier_t loaded;
static int failures[kThreads];

/* Runs `work`, which is given the thread's number, in all threads; `each` launches in every context are expected. */
static int run_threads(void* (*work)(void*), int each) {
  pthread_t threads[kThreads];
  int numbers[kThreads], i;
  pthread_barrier_init(&loaded, NULL, kThreads);
  for (i = 0; i < kThreads; ++i) {
    numbers[i] = i;
    pthread_create(&threads[i], NULL, work, &numbers[i]);
  }
  for (i = 0; i < kThreads; ++i) pthread_join(threads[i], NULL);
  for (i = 0; i < kThreads; ++i) {
    if (failures[i] != 0 || launches[i] != each) printf("%d: %d, %d\n", i, failures[i], launches[i]);
  }
  return modules != 0;
}
