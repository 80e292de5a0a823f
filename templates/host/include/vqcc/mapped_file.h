/* Files in memory, by POSIX functions: how readers of packed files open one. */
#ifndef VQCC_MAPPED_FILE_H_
#define VQCC_MAPPED_FILE_H_

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "packed_file.h"

/* Maps a regular file, to be read only; if that cannot be, errno says why. An empty one, which cannot be mapped, is one
 * that ends too early. */
static inline vqcc_packed_status vqcc_map_file(const char* path, const void** data, size_t* bytes) {
  struct stat about;
#ifdef O_CLOEXEC
  const int file = open(path, O_RDONLY | O_CLOEXEC);
#else
  const int file = open(path, O_RDONLY);
#endif
  if (file < 0) return VQCC_PACKED_ERROR_FILE;
  void* mapped = MAP_FAILED;
  vqcc_packed_status status = VQCC_PACKED_ERROR_FILE;
  if (fstat(file, &about) == 0) {
    if (!S_ISREG(about.st_mode)) {
      errno = S_ISDIR(about.st_mode) ? EISDIR : EINVAL;
    } else if ((uint64_t)about.st_size > SIZE_MAX) {
      errno = EFBIG;
    } else {
      *bytes = (size_t)about.st_size;
      if (*bytes == 0) status = VQCC_PACKED_ERROR_TRUNCATED;
      if (*bytes > 0) mapped = mmap(NULL, *bytes, PROT_READ, MAP_PRIVATE, file, 0);
    }
  }
  const int number = errno;
  (void)close(file);
  errno = number; /* closing may have set it too */
  if (mapped == MAP_FAILED) return status;
  *data = mapped;
  return VQCC_PACKED_OK;
}

static inline void vqcc_unmap_file(const void* data, size_t bytes) {
  (void)munmap((void*)(uintptr_t)data, bytes);
}

#endif /* VQCC_MAPPED_FILE_H_ */
