"""Wavefronts of random look-ups: the emulator's counts, every case of small tables, and a Monte Carlo."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcc.emulator import Buffer, build
from vqcc.passes.wavefronts import (
    _expected_maximum,
    count_wavefronts,
    uniform_wavefronts,
    weighted_wavefronts,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vqcc.emulator import Emulated

_SOURCE = """
template <class Word> __device__ __forceinline__ void look_up(const int* index, float* out) {
  unsigned char* shared = vqcc_emulator::dynamic_shared();
  for (int i = threadIdx.x; i < 4096; i += 32) reinterpret_cast<unsigned*>(shared)[i] = i;
  __syncthreads();
  const int i = index[threadIdx.x];
  if (i < 0) return;
  const Word word = reinterpret_cast<const Word*>(shared)[i];
  out[threadIdx.x] = reinterpret_cast<const unsigned char*>(&word)[0];
}
extern "C" __global__ void load_1(const int* index, float* out) { look_up<unsigned char>(index, out); }
extern "C" __global__ void load_2(const int* index, float* out) { look_up<unsigned short>(index, out); }
extern "C" __global__ void load_4(const int* index, float* out) { look_up<unsigned>(index, out); }
extern "C" __global__ void load_8(const int* index, float* out) { look_up<uint2>(index, out); }
extern "C" __global__ void load_16(const int* index, float* out) { look_up<uint4>(index, out); }
"""


@pytest.fixture(scope="module")
def kernels(cache_directory: Path) -> Emulated:
    return build(f"#include <cuda_fp16.h>\n{_SOURCE}", cache_directory=cache_directory / "emulator")


@pytest.mark.parametrize("load_bytes", [1, 2, 4, 8, 16])
def test_the_emulator_counts_the_same(kernels: Emulated, load_bytes: int) -> None:
    """Random patterns, of few and many entries, with and without lanes that take no part."""
    rng = np.random.default_rng(load_bytes)
    for entries, active in (
        (16384 // load_bytes, 1.0),
        (64, 1.0),
        (256, 0.6),
        (3, 0.9),
        (256, 0.05),
        (8, 0.0),
    ):
        index = np.where(rng.random(32) < active, rng.integers(0, entries, 32), -1).astype(np.int32)
        arguments = [Buffer("index", index, "input"), Buffer("out", np.zeros(32, np.float32), "output")]
        report = kernels.launch(f"load_{load_bytes}", (1, 1, 1), (32, 1, 1), 16384, arguments, count=True)
        assert report.counters is not None
        offsets = [None if i < 0 else int(i) * load_bytes for i in index]
        assert report.counters.shared_load_wavefronts == count_wavefronts(offsets, load_bytes)


@pytest.mark.parametrize(
    ("entries", "entry_bytes", "active", "wavefronts"),
    [
        (1, 4, 1.0, 1.0),  # all lanes read one word
        (32, 4, 1.0, 1.0),  # a word a bank
        (32, 2, 1.0, 1.0),
        (8, 16, 1.0, 4.0),  # no two entries in one bank, four phases
        (1, 16, 1.0, 4.0),
        (1, 32, 1.0, 8.0),  # two loads
        (256, 8, 0.0, 0.0),
    ],
)
def test_without_conflicts(entries: int, entry_bytes: int, active: float, wavefronts: float) -> None:
    assert uniform_wavefronts(entries, entry_bytes, active) == pytest.approx(wavefronts)
    assert weighted_wavefronts([active / entries] * entries, entry_bytes) == pytest.approx(
        wavefronts, rel=1e-3
    )


@pytest.mark.parametrize(
    ("entries", "entry_bytes", "all_lanes", "half"),
    [
        (256, 4, 3.15, 2.24),
        (256, 8, 5.84, 3.95),
        (256, 16, 10.17, 6.51),
        (4096, 16, 10.38, 6.59),
        (256, 32, 27.79, 16.5),
    ],
)
def test_figures_of_the_page(entries: int, entry_bytes: int, all_lanes: float, half: float) -> None:
    """docs/passes.md."""
    assert uniform_wavefronts(entries, entry_bytes) == pytest.approx(all_lanes, abs=0.005)
    assert uniform_wavefronts(entries, entry_bytes, 0.5) == pytest.approx(half, abs=0.005)


@pytest.mark.parametrize("active", [1.0, 0.4])
@pytest.mark.parametrize(("cells", "groups"), [(1, 1), (3, 2), (4, 2), (5, 3), (2, 4), (6, 1)])
@pytest.mark.parametrize("lanes", [1, 2, 4])
def test_every_case_of_a_small_table(cells: int, groups: int, lanes: int, active: float) -> None:
    expected = 0.0
    for hits in itertools.product([None, *range(cells)], repeat=lanes):
        chance = 1.0
        for hit in hits:
            chance *= 1 - active if hit is None else active / cells
        loads = [len({hit for hit in hits if hit is not None and hit % groups == g}) for g in range(groups)]
        expected += chance * max(loads)
    assert _expected_maximum(cells, groups, lanes, active) == pytest.approx(expected, abs=1e-6)


def sampled(shares: NDArray[np.float64], entry_bytes: int, warps: int = 3000) -> tuple[float, float]:
    """Mean and its standard error over random warps; loads of an entry at its stride, counted one by one."""
    rng = np.random.default_rng(17)
    chances = np.append(shares, max(0.0, 1 - shares.sum()))
    drawn = rng.choice(len(chances), size=(warps, 32), p=chances / chances.sum())
    totals = np.zeros(warps)
    load = min(entry_bytes, 16)
    for warp, entries in enumerate(drawn):
        for part in range(0, entry_bytes, 16):
            offsets = [None if e == len(shares) else int(e) * entry_bytes + part for e in entries]
            totals[warp] += count_wavefronts(offsets, load)
    return float(totals.mean()), float(totals.std() / warps**0.5)


@pytest.mark.parametrize("active", [1.0, 0.5])
@pytest.mark.parametrize(
    ("entries", "entry_bytes"), [(256, 2), (256, 4), (100, 8), (256, 16), (64, 32), (4096, 4)]
)
def test_uniform_against_a_monte_carlo(entries: int, entry_bytes: int, active: float) -> None:
    mean, error = sampled(np.full(entries, active / entries), entry_bytes, warps=1500)
    assert abs(uniform_wavefronts(entries, entry_bytes, active) - mean) < 4 * error + 1e-9


@pytest.mark.parametrize("kept_elsewhere", [0, 8])
@pytest.mark.parametrize("exponent", [0.5, 1.0, 1.5])
@pytest.mark.parametrize(("entries", "entry_bytes"), [(256, 4), (256, 8), (64, 16), (4096, 16)])
def test_weighted_against_a_monte_carlo(
    entries: int, entry_bytes: int, exponent: float, kept_elsewhere: int
) -> None:
    """Skewed look-ups, as profiles have them; the hottest entries may lie in registers."""
    shares = 1 / np.arange(1, entries + 1) ** exponent
    shares /= shares.sum()
    shares[:kept_elsewhere] = 0
    mean, error = sampled(shares, entry_bytes, warps=1000)
    assert abs(weighted_wavefronts(list(shares), entry_bytes) - mean) < 4 * error + 0.02 * mean


@given(st.integers(1, 1000), st.sampled_from([1, 2, 4, 8, 16, 32]), st.floats(0, 1))
def test_bounds(entries: int, entry_bytes: int, active: float) -> None:
    entries *= max(1, 4 // entry_bytes)  # whole words: part of one is hit less often than the others
    found = uniform_wavefronts(entries, entry_bytes, active)
    phases = max(1, min(entry_bytes, 16) // 4) * max(1, entry_bytes // 16)
    assert 0 <= found <= 32 * max(1, entry_bytes // 16) + 1e-6
    assert found <= uniform_wavefronts(entries, entry_bytes, 1.0) + 1e-6
    assert uniform_wavefronts(entries, entry_bytes, 1.0) >= phases - 1e-6
    weighted = weighted_wavefronts([active / entries] * entries, entry_bytes)
    assert weighted == pytest.approx(found, rel=0.04, abs=0.01)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="power of two"):
        uniform_wavefronts(256, 12)
    with pytest.raises(ValueError, match="at least one"):
        uniform_wavefronts(0, 4)
    with pytest.raises(ValueError, match="at most 1"):
        weighted_wavefronts([0.7, 0.7], 4)
    with pytest.raises(ValueError, match="not negative"):
        weighted_wavefronts([0.7, -0.1], 4)


def test_predictions_need_no_numpy() -> None:
    """Compiling imports none; and the result is the same in any process."""
    code = (
        "import sys; from vqcc.passes.wavefronts import uniform_wavefronts, weighted_wavefronts; "
        "print(uniform_wavefronts(256, 16).hex(), weighted_wavefronts([1 / 256] * 256, 16).hex()); "
        "sys.exit('numpy' in sys.modules)"
    )
    runs = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed, "PATH": ""},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(runs) == 1
