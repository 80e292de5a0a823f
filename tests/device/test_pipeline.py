"""Rings of stages between warps of a block (arch_pipeline.cuh): right ones pass, each step left out is found."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from vqcc.emulator import Buffer, EmulationError

if TYPE_CHECKING:
    from collections.abc import Callable

    from vqcc.emulator import Emulated, LaunchReport

STAGES = 3
ROUNDS = 8
PRODUCERS = 2  # warps
CONSUMERS = 3
WORDS = 4 * 32 * PRODUCERS  # of a stage
STEPS = (  # what may be left out, one bit each
    "wait_for_room",
    "wait_for_copies",
    "tell",
    "wait_for_stage",
    "meet",
    "release",
)

_CONSTANTS = f"""
constexpr int kStages = {STAGES}, kProducers = {PRODUCERS}, kConsumers = {CONSUMERS}, kWords = {WORDS};
"""
_SOURCE = (
    _CONSTANTS
    + """enum Way { kCopies, kStores, kBulk };

// Producers bring one stage of `in` after the other, consumers add them up; `without` has bits of steps left out.
template <int kWay, bool kFirst, bool kElected>
VQCC_DEVICE void ring(const uint32* in, uint32* out, int rounds, int without) {
  auto* full = reinterpret_cast<StageBarrier*>(dynamic_shared());
  StageBarrier* empty = full + kStages;
  auto* stages = reinterpret_cast<uint32*>(dynamic_shared() + 128);
  const auto does = [&](int step) { return (without >> step & 1) == 0; };
  const int before = kFirst ? 0 : kConsumers;
  const bool produces = warp_index() >= before && warp_index() < before + kProducers;
  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      make_barrier(full + s, kWay == kBulk ? 1 : kProducers * (kElected ? 1 : 32));
      make_barrier(empty + s, kConsumers * (kElected ? 1 : 32));
    }
    show_barriers();
  }
  block_barrier();
  if (produces) {
    const int t = static_cast<int>(threadIdx.x) - before * 32;
    const auto bring = [&](int round) {
      if (kWay == kBulk && t != 0) return;
      const int s = round % kStages;
      if (does(0)) wait_for_phase(empty + s, static_cast<uint32>(round / kStages & 1) ^ 1u);
      uint32* stage = stages + s * kWords;
      const uint32* source = in + round * kWords;
      if constexpr (kWay == kBulk) {
        if (does(2)) arrive_expecting(full + s, kWords * 4);
        start_bulk_copy(reinterpret_cast<uint8*>(stage), source, kWords * 2, full + s);
        start_bulk_copy(reinterpret_cast<uint8*>(stage + kWords / 2), source + kWords / 2, kWords * 2, full + s);
      } else if constexpr (kWay == kCopies) {
        start_copy(reinterpret_cast<uint4*>(stage) + t, reinterpret_cast<const uint4*>(source) + t);
        commit_copies();
      } else {
        store(reinterpret_cast<uint4*>(stage) + t, load<Space::kGlobal>(reinterpret_cast<const uint4*>(source) + t));
      }
    };
    const auto tell = [&](int round) {
      if (kWay == kBulk || !does(2)) return;
      if (kElected && does(4)) warp_barrier();
      if (!kElected || lane_index() == 0) arrive(full + round % kStages);
    };
    // Copies of two rounds are on their way.
    constexpr int kAhead = kWay == kCopies ? 1 : 0;
    for (int round = 0; round < rounds; ++round) {
      bring(round);
      if (kWay == kCopies && does(1)) wait_for_copies_but<kAhead>();
      if (round >= kAhead) tell(round - kAhead);
    }
    if (kWay == kCopies) wait_for_copies();
    if (kAhead > 0) tell(rounds - 1);
  } else {
    const int t = static_cast<int>(threadIdx.x) - (kFirst ? kProducers * 32 : 0);
    uint32 sum = 0;
    for (int round = 0; round < rounds; ++round) {
      const int s = round % kStages;
      if (does(3)) wait_for_phase(full + s, static_cast<uint32>(round / kStages & 1));
      for (int i = 0; i < kWords; ++i) {
        sum += (i + 1) * load<Space::kShared>(stages + s * kWords + (i + t) % kWords);
      }
      if (kElected && does(4)) warp_barrier();
      if (does(5) && (!kElected || lane_index() == 0)) arrive(empty + s);
    }
    // All consumers add theirs up, without the producers.
    uint32* sums = stages + kStages * kWords;
    sums[t] = sum;
    group_barrier<kConsumers * 32>(1);
    out[t] = sums[t] + sums[(t + 40) % (kConsumers * 32)];
  }
}
"""
)

RINGS = [
    (way, order, arrivals)
    for way in ("copies", "stores", "bulk")
    for order in ("first", "last")
    for arrivals in ("elected", "each")
]


def name_of(way: str, order: str, arrivals: str) -> str:
    return f"ring_{way}_{order}_{arrivals}"


_KERNELS = "".join(
    f"""
extern "C" __global__ void {name_of(way, order, arrivals)}(const uint32* in, uint32* out, int rounds, int without) {{
  ring<k{way.capitalize()}, {int(order == "first")}, {int(arrivals == "elected")}>(in, out, rounds, without);
}}
"""
    for way, order, arrivals in RINGS
)


@pytest.fixture(scope="module")
def kernels(emulate_device: Callable[..., Emulated]) -> Emulated:
    return emulate_device(("arch_pipeline.cuh",), _SOURCE + _KERNELS)


def run(kernels: Emulated, name: str, without: int = 0, *, count: bool = False) -> LaunchReport:
    values = np.random.default_rng(7).integers(0, 1000, ROUNDS * WORDS).astype(np.uint32)
    threads = np.arange(CONSUMERS * 32)
    out = np.zeros(len(threads), np.uint32)
    report = kernels.launch(
        name,
        (1, 1, 1),
        ((PRODUCERS + CONSUMERS) * 32, 1, 1),
        128 + STAGES * WORDS * 4 + len(threads) * 4,
        [Buffer("in", values, "input"), Buffer("out", out, "output"), ROUNDS, without],
        count=count,
        step_limit=50_000_000,
    )
    place = np.arange(WORDS)
    totals = values.reshape(ROUNDS, WORDS).sum(axis=0)
    sums = np.array([((place + 1) * totals[(place + t) % WORDS]).sum() for t in threads])
    assert np.array_equal(out, (sums + sums[(threads + 40) % len(threads)]).astype(np.uint32))
    return report


@pytest.mark.parametrize("ring", RINGS, ids="-".join)
def test_ring_passes(kernels: Emulated, ring: tuple[str, str, str]) -> None:
    run(kernels, name_of(*ring))


@pytest.mark.parametrize("step", range(len(STEPS)), ids=STEPS)
@pytest.mark.parametrize("ring", RINGS, ids="-".join)
def test_left_out_step_is_found(kernels: Emulated, ring: tuple[str, str, str], step: int) -> None:
    way, _, arrivals = ring
    needless = (STEPS[step] == "wait_for_copies" and way != "copies") or (
        STEPS[step] == "meet" and arrivals == "each"
    )
    if needless:
        run(kernels, name_of(*ring), 1 << step)
        return
    with pytest.raises(EmulationError):
        run(kernels, name_of(*ring), 1 << step)


def test_counts(kernels: Emulated) -> None:
    counters = run(kernels, name_of("bulk", "last", "elected"), count=True).counters
    assert counters is not None
    assert counters.bulk_copies == 2 * ROUNDS
    assert counters.bulk_copy_bytes == counters.global_load_bytes == ROUNDS * WORDS * 4
    assert counters.global_loads == counters.global_load_requests == counters.bulk_copies
    assert counters.stage_arrivals == ROUNDS * (1 + CONSUMERS)
    assert counters.stage_waits == ROUNDS * (1 + CONSUMERS * 32)
    assert counters.group_barriers == 1
