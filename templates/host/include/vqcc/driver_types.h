/* Entry points of the CUDA driver, with its types reduced to what crosses the boundary. Each returns a CUresult; 0 is
 * success. vqcc/driver.h fills the table from libcuda at run time; or fill it with cuGetProcAddress, dlsym or by linking.
 * Shared by all libraries of a program. */
#if !defined(VQCC_DRIVER_DEFINED)
#define VQCC_DRIVER_DEFINED 4
/* CUlaunchAttribute and CUlaunchConfig as cuLaunchKernelEx reads them. */
typedef struct vqcc_launch_attribute {
  int32_t id;
  int32_t padding;
  union {
    uint64_t whole[8];
    int32_t allowed;
  } value;
} vqcc_launch_attribute;
typedef struct vqcc_launch_config {
  unsigned grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes;
  void* stream;
  vqcc_launch_attribute* attributes;
  unsigned attribute_count;
} vqcc_launch_config;
typedef struct vqcc_driver {
  int (*module_load_data)(void** module, const void* image);                    /* cuModuleLoadData */
  int (*module_unload)(void* module);                                           /* cuModuleUnload */
  int (*module_get_function)(void** function, void* module, const char* name);  /* cuModuleGetFunction */
  int (*function_set_attribute)(void* function, int attribute, int value);      /* cuFuncSetAttribute */
  int (*launch_kernel)(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                       unsigned block_y, unsigned block_z, unsigned shared_bytes, void* stream, void** parameters,
                       void** extra);                                           /* cuLaunchKernel */
  int (*launch_kernel_ex)(const vqcc_launch_config* config, void* function, void** parameters,
                          void** extra); /* cuLaunchKernelEx; null: launches never overlap */
  int (*context_get_device)(int* device);                                       /* cuCtxGetDevice */
  int (*device_get_attribute)(int* value, int attribute, int device);           /* cuDeviceGetAttribute */
} vqcc_driver;
#elif VQCC_DRIVER_DEFINED + 0 < 4
#error "a header of an older vqcc is included beside this one: compile its library again"
#endif
