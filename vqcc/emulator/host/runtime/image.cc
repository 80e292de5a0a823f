#include "image.h"

#include <link.h>

#include "state.h"

namespace vqcc_emulator {

namespace {

// Whether a module calls a function of the runtime: its names say so, before any kernel does.
bool calls(const dl_phdr_info* info, const char* function) {
  const char* strings = nullptr;
  size_t bytes = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    if (info->dlpi_phdr[i].p_type != PT_DYNAMIC) {
      continue;
    }
    const auto* entry = reinterpret_cast<const ElfW(Dyn)*>(info->dlpi_addr + info->dlpi_phdr[i].p_vaddr);
    for (; entry->d_tag != DT_NULL; ++entry) {
      strings = entry->d_tag == DT_STRTAB ? reinterpret_cast<const char*>(entry->d_un.d_ptr) : strings;
      bytes = entry->d_tag == DT_STRSZ ? entry->d_un.d_val : bytes;
    }
  }
  return strings != nullptr && memmem(strings, bytes, function, strlen(function)) != nullptr;
}

// The kernel's module, from its program headers.
int look_at(dl_phdr_info* info, size_t, void* data) {
  const uintptr_t function = reinterpret_cast<uintptr_t>(data);
  uintptr_t low = ~uintptr_t(0), high = 0;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type == PT_LOAD) {
      const uintptr_t start = info->dlpi_addr + header.p_vaddr;
      low = start < low ? start : low;
      high = start + header.p_memsz > high ? start + header.p_memsz : high;
    }
  }
  if (function < low || function >= high) {
    return 0;
  }
  launch.image_low = low;
  launch.image_high = high;
  launch.staged = calls(info, "vqcc_emulator12barrier_init") || calls(info, "vqcc_emulator13group_barrier");
  launch.multiplies = calls(info, "vqcc_emulator14start_multiply") ||
                      calls(info, "vqcc_emulator21start_shared_multiply");
  return 1;
}

}  // namespace

void find_image(void* function) { dl_iterate_phdr(look_at, function); }

}  // namespace vqcc_emulator
