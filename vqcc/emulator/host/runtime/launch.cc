// The functions Python calls: place the buffers, launch, fetch the results.
#include <dlfcn.h>

#include "faults.h"
#include "fences.h"
#include "image.h"
#include "memory.h"
#include "schedule.h"

#define VQCC_EXPORT extern "C" __attribute__((visibility("default")))

namespace vqcc_emulator {

struct Placement {
  const void* data;  // copied in; null for memory nothing has written
  uint64_t bytes;
  uint64_t alignment;
  uint32_t is_writable;
  uint32_t unused;
  uint64_t address;  // filled in
};

struct Request {
  const Kernel* kernel;
  void** arguments;
  Index3 grid, block;
  uint32_t shared_bytes;
  uint32_t counting;
  int64_t steps;
};

namespace {

void* reserve(uint64_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

// Grows one of the lazily backed arrays. Its contents are not kept: a launch starts from nothing.
template <class T>
bool grow(T*& memory, uint64_t& capacity, uint64_t wanted) {
  if (capacity >= wanted) {
    return true;
  }
  if (memory != nullptr) {
    munmap(memory, capacity);
  }
  memory = static_cast<T*>(reserve(wanted));
  capacity = memory != nullptr ? wanted : 0;
  return memory != nullptr;
}

uint64_t align_up(uint64_t value, uint64_t alignment) { return (value + alignment - 1) / alignment * alignment; }

// Address of a buffer with this alignment and no better one, so that code cannot rely on more than it was promised.
uint64_t place_after(uint64_t end, const Placement& placement) {
  const uint64_t gap = placement.bytes > gap_bytes ? placement.bytes : gap_bytes;
  return align_up(end + gap, 2 * placement.alignment) + placement.alignment;
}

uint64_t arena_capacity, flags_capacity, words_capacity, bytes_capacity, visits_capacity;

bool reserve_arena(uint64_t bytes, uint64_t tracked) {
  unsigned char* memory = reinterpret_cast<unsigned char*>(arena.base);
  const bool done = grow(memory, arena_capacity, bytes) && grow(arena.flags, flags_capacity, bytes + 64) &&
                    grow(arena.shadow.words, words_capacity, tracked / 4 * sizeof(Cell)) &&
                    grow(arena.shadow.bytes, bytes_capacity, tracked * sizeof(Cell)) &&
                    grow(arena.visits, visits_capacity, arena.shared_end / 4 * sizeof(Visits));
  arena.base = reinterpret_cast<uintptr_t>(memory);
  return done;
}

// Takes back what the last launch placed. Cells stay, as their epochs make them void; but a large launch gives its
// memory back, of which each written byte took up to 40 bytes more.
void forget_buffers() {
  for (const auto* regions : {&arena.shared, &arena.regions}) {
    for (const Region& region : *regions) {
      memset(arena.flags + region.offset, 0, region.bytes);
    }
  }
  arena.shared.clear();
  arena.regions.clear();
  constexpr uint64_t large = 64 << 20;
  if (arena.bytes > large) {
    madvise(reinterpret_cast<void*>(arena.base), arena_capacity, MADV_DONTNEED);
    madvise(arena.flags, flags_capacity, MADV_DONTNEED);
    madvise(arena.shadow.words, words_capacity, MADV_DONTNEED);
    madvise(arena.shadow.bytes, bytes_capacity, MADV_DONTNEED);
    madvise(arena.visits, visits_capacity, MADV_DONTNEED);
  }
}

// The blocks that run together.
bool prepare_threads(unsigned rank) {
  block = &cluster.blocks[rank];
  block->rank = rank;
  block->thread_count = launch.block.x * launch.block.y * launch.block.z;
  block->warp_count = (block->thread_count + warp_size - 1) / warp_size;
  for (unsigned i = 0; i < block->thread_count; ++i) {
    Thread& thread = block->threads[i];
    if (thread.stack == nullptr && (thread.stack = allocate_stack()) == nullptr) {
      return false;
    }
    thread.index = static_cast<uint16_t>(i);
    thread.lane = static_cast<uint8_t>(i % warp_size);
    thread.warp = static_cast<uint8_t>(i / warp_size);
    thread.position = {i % launch.block.x, i / launch.block.x % launch.block.y, i / (launch.block.x * launch.block.y)};
  }
  return true;
}

void run_grid() {
  uint32_t number = 0;
  for (unsigned z = 0; z < launch.grid.z; ++z) {
    for (unsigned y = 0; y < launch.grid.y; ++y) {
      for (unsigned x = 0; x < launch.grid.x; x += cluster.size) {
        for (unsigned rank = 0; rank < cluster.size; ++rank) {
          cluster.blocks[rank].index = {x + rank, y, z};
          cluster.blocks[rank].number = number++;
        }
        run_cluster();
        if (result.failure.kind != ErrorKind::none) {
          return;
        }
      }
    }
  }
}

}  // namespace

// Lays out shared memory of `blocks` blocks and the buffers and copies the inputs in. Returns 0, or 1 if there is no memory.
VQCC_EXPORT int vqcc_emulator_place(Placement* placements, uint64_t count, uint64_t shared_bytes, uint64_t blocks) {
  forget_buffers();
  arena.shared_stride = align_up(shared_bytes + shared_gap_bytes, 256);
  for (uint64_t rank = 0; rank < blocks; ++rank) {
    arena.shared.push_back({shared_offset + rank * arena.shared_stride, shared_bytes, true});
  }
  arena.regions.resize(count + 1);
  uint64_t end = arena.shared_end = align_up(shared_offset + blocks * arena.shared_stride + gap_bytes, 4096);
  for (const bool writable_ones : {true, false}) {
    for (uint64_t i = 0; i < count; ++i) {
      const Placement& placement = placements[i];
      if ((placement.is_writable != 0) == writable_ones) {
        const uint64_t offset = place_after(end, placement);
        arena.regions[i + 1] = {offset, placement.bytes, writable_ones};
        end = offset + placement.bytes;
      }
    }
    if (writable_ones) {
      arena.tracked_end = align_up(end + 1, 4096);
      end = arena.tracked_end;
    }
  }
  arena.bytes = align_up(end + gap_bytes, 4096);
  if (!reserve_arena(arena.bytes, arena.tracked_end + (blocks - 1) * arena.shared_end)) {
    arena.shared.clear();
    arena.regions.clear();
    arena.bytes = 0;
    return 1;
  }
  for (uint64_t i = 0; i < count; ++i) {
    Placement& placement = placements[i];
    const Region& region = arena.regions[i + 1];
    placement.address = arena.base + region.offset;
    void* memory = reinterpret_cast<void*>(placement.address);
    const uint8_t flags = mapped | (placement.is_writable ? writable : 0) | (placement.data != nullptr ? written : 0);
    memset(arena.flags + region.offset, flags, region.bytes);
    if (placement.data != nullptr) {
      memcpy(memory, placement.data, region.bytes);
    } else {
      memset(memory, 0xff, region.bytes);
    }
  }
  return 0;
}

VQCC_EXPORT void vqcc_emulator_launch(const Request* request, Result* out) {
  launch.kernel = request->kernel;
  launch.arguments = request->arguments;
  launch.grid = request->grid;
  launch.block = request->block;
  launch.shared_bytes = request->shared_bytes;
  launch.counting = request->counting != 0;
  launch.steps_left = request->steps;
  launch.clustered = request->kernel->cluster != 0;
  cluster.size = launch.clustered ? request->kernel->cluster : 1;
  launch.epoch_ranks = cluster.size > 1 ? maximum_cluster - 1 : 0;
  launch.first_epoch = ++launch.last_epoch;
  result.counters = Counters();
  result.failure.kind = ErrorKind::none;
  current = nullptr;
  find_image(request->kernel->function);
  begin_launch_order();
  bool prepared = true;
  for (unsigned rank = 0; rank < cluster.size; ++rank) {
    prepared = prepared && prepare_threads(rank);
  }
  if (!prepared) {
    result.failure = Failure();
    result.failure.kind = ErrorKind::out_of_memory;
  } else {
    const FaultGuard faults;
    const Watchdog watchdog;
    if (sigsetjmp(fault_exit, 1) == 0) {
      run_grid();
    }
  }
  current = nullptr;
  discard_logs();
  result.steps = request->steps - launch.steps_left;
  *out = result;
}

// Copies out the bytes of a buffer that something has written, and for each byte whether that is so.
VQCC_EXPORT void vqcc_emulator_fetch(uint64_t index, uint8_t* data, uint8_t* written_bytes) {
  const Region& region = arena.regions[index + 1];
  const uint8_t* memory = reinterpret_cast<const uint8_t*>(arena.base + region.offset);
  for (uint64_t i = 0; i < region.bytes; ++i) {
    written_bytes[i] = (arena.flags[region.offset + i] & written) != 0;
    data[i] = written_bytes[i] ? memory[i] : data[i];
  }
}

// Name of the function a site lies in and the distance from its start, for machines without addr2line.
VQCC_EXPORT const char* vqcc_emulator_symbol(const Kernel* kernel, uint32_t site, uint64_t* distance) {
  find_image(kernel->function);
  Dl_info info;
  const uintptr_t address = launch.image_low + site;
  if (dladdr(reinterpret_cast<void*>(address), &info) == 0 || info.dli_sname == nullptr) {
    return nullptr;
  }
  *distance = address - reinterpret_cast<uintptr_t>(info.dli_saddr);
  return info.dli_sname;
}

}  // namespace vqcc_emulator
