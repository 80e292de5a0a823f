#include "counters.h"

#include <algorithm>

#include "fail.h"

namespace vqcc_emulator {

namespace {

constexpr unsigned banks = 32, bank_bytes = 4, sector_bytes = 32;

std::vector<Logged> logs[maximum_cluster][maximum_threads];

struct LaneAccess {
  Site site;
  uint32_t occurrence;
  uint32_t bytes;
  uint32_t lane;
  uint64_t offset;
  Access access;
  Place place;
};

// Wavefronts of some lanes' accesses that go together: the bank with the most distinct words decides.
unsigned wavefronts(const LaneAccess* first, const LaneAccess* last) {
  std::vector<uint64_t> words;
  for (const LaneAccess* a = first; a != last; ++a) {
    for (uint64_t word = a->offset / bank_bytes; word <= (a->offset + a->bytes - 1) / bank_bytes; ++word) {
      words.push_back(word);
    }
  }
  std::sort(words.begin(), words.end());
  words.erase(std::unique(words.begin(), words.end()), words.end());
  unsigned load[banks] = {};
  for (const uint64_t word : words) {
    ++load[word % banks];
  }
  return words.empty() ? 0 : *std::max_element(load, load + banks);
}

// A warp's access of 8 bytes a lane goes in 2 phases of 16 lanes, of 16 bytes in 4 phases of 8.
void count_shared(const LaneAccess* first, const LaneAccess* last) {
  const unsigned lanes_per_phase = first->bytes > 8 ? 8 : first->bytes > 4 ? 16 : 32;
  uint64_t total = 0, phases = 0;
  while (first != last) {
    const LaneAccess* end = first;
    while (end != last && end->lane / lanes_per_phase == first->lane / lanes_per_phase) {
      ++end;
    }
    total += wavefronts(first, end);
    ++phases;
    first = end;
  }
  Counters& counters = result.counters;
  const bool load = last[-1].access == Access::read;
  (load ? counters.shared_load_wavefronts : counters.shared_store_wavefronts) += total;
  (load ? counters.shared_load_ideal : counters.shared_store_ideal) += phases;
}

void count_global(const LaneAccess* first, const LaneAccess* last) {
  std::vector<uint64_t> sectors;
  for (const LaneAccess* a = first; a != last; ++a) {
    for (uint64_t s = a->offset / sector_bytes; s <= (a->offset + a->bytes - 1) / sector_bytes; ++s) {
      sectors.push_back(s);
    }
  }
  std::sort(sectors.begin(), sectors.end());
  const uint64_t distinct = static_cast<uint64_t>(std::unique(sectors.begin(), sectors.end()) - sectors.begin());
  Counters& counters = result.counters;
  const bool load = first->access == Access::read;
  (load ? counters.global_load_sectors : counters.global_store_sectors) += distinct;
  (load ? counters.global_load_requests : counters.global_store_requests) += 1;
}

void count_remote(const LaneAccess* first) {
  Counters& counters = result.counters;
  (first->access == Access::read ? counters.remote_load_requests : counters.remote_store_requests) += 1;
}

bool same_access(const LaneAccess& a, const LaneAccess& b) {
  return a.site == b.site && a.occurrence == b.occurrence && a.place == b.place && a.access == b.access &&
         a.bytes == b.bytes;
}

}  // namespace

void count_access(const Thread& thread, uint64_t offset, uint64_t bytes, Access access, Place place, Site site) {
  Counters& counters = result.counters;
  if (access == Access::atomic) {
    ++counters.atomics;
    counters.shared_atomics += place != Place::global;
    return;
  }
  const bool load = access == Access::read;
  if (place == Place::shared) {
    ++(load ? counters.shared_loads : counters.shared_stores);
  } else if (place == Place::remote) {
    ++(load ? counters.remote_loads : counters.remote_stores);
    (load ? counters.remote_load_bytes : counters.remote_store_bytes) += bytes;
  } else {
    ++(load ? counters.global_loads : counters.global_stores);
    (load ? counters.global_load_bytes : counters.global_store_bytes) += bytes;
  }
  logs[block->rank][thread.index].push_back({site, static_cast<uint32_t>(bytes), offset, access, place});
}

void count_operation(WarpOperation operation) {
  Counters& counters = result.counters;
  switch (operation) {
    case WarpOperation::sync:
      ++counters.warp_barriers;
      break;
    case WarpOperation::shuffle_index:
    case WarpOperation::shuffle_up:
    case WarpOperation::shuffle_down:
    case WarpOperation::shuffle_xor:
      ++counters.shuffles;
      break;
    case WarpOperation::tensor_multiply:
      ++counters.tensor_multiplies;
      break;
    case WarpOperation::matrix_load:  // counted as what its lanes load
    case WarpOperation::cluster_arrive:
    case WarpOperation::cluster_wait:  // once for the cluster
    case WarpOperation::multiply_begin:
    case WarpOperation::multiply_start:  // by its columns
    case WarpOperation::multiply_commit:
    case WarpOperation::multiply_wait:
      break;
    default:
      ++counters.votes;
      break;
  }
}

void discard_logs() {
  for (auto& of_block : logs) {
    for (std::vector<Logged>& log : of_block) {
      log.clear();
    }
  }
}

void flush_lanes(unsigned warp, uint32_t lanes) {
  std::vector<LaneAccess> accesses;
  for (; lanes != 0; lanes &= lanes - 1) {
    const unsigned lane = static_cast<unsigned>(__builtin_ctz(lanes));
    std::vector<Logged>& log = logs[block->rank][warp * warp_size + lane];
    const size_t begin = accesses.size();
    for (const Logged& entry : log) {
      accesses.push_back({entry.site, 0, entry.bytes, lane, entry.offset, entry.access, entry.place});
    }
    log.clear();
    // Number the accesses of each place in the code in the order the lane made them.
    std::stable_sort(accesses.begin() + static_cast<long>(begin), accesses.end(),
                     [](const LaneAccess& a, const LaneAccess& b) { return a.site < b.site; });
    for (size_t i = begin + 1; i < accesses.size(); ++i) {
      accesses[i].occurrence = accesses[i].site == accesses[i - 1].site ? accesses[i - 1].occurrence + 1 : 0;
    }
  }
  std::stable_sort(accesses.begin(), accesses.end(), [](const LaneAccess& a, const LaneAccess& b) {
    return a.site != b.site ? a.site < b.site : a.occurrence < b.occurrence;
  });
  for (size_t i = 0; i < accesses.size();) {
    size_t end = i + 1;
    while (end < accesses.size() && same_access(accesses[i], accesses[end])) {
      ++end;
    }
    if (accesses[i].place == Place::remote) {
      count_remote(&accesses[i]);
    } else {
      (accesses[i].place == Place::shared ? count_shared : count_global)(&accesses[i], &accesses[0] + end);
    }
    i = end;
  }
}

}  // namespace vqcc_emulator
