"""Blocks per SM: points worked out by hand, laws, and NVIDIA's own header."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcc import gpus
from vqcc.gpus.occupancy import Occupancy, blocks_per_sm, carveout_percent

H200, A100, A40, RTX4090 = (gpus.load(name) for name in ("h200", "a100", "a40", "rtx4090"))
KIB = 1024

threads = st.integers(1, 1024)
registers = st.integers(0, 255)
shared = st.integers(0, 240 * KIB)
any_gpu = st.sampled_from([gpus.load(name) for name in gpus.names()])
laws = settings(max_examples=400, derandomize=True, deadline=None)


@pytest.mark.parametrize(
    ("gpu", "threads", "registers", "shared", "blocks", "limited_by"),
    [
        # 2048 / 128 = 16; registers 65536 / (128 * 32) = 16 as well: warps come first.
        (H200, 128, 32, 0, 16, "warps"),
        # One warp a block: the SM holds at most 32 blocks (H200) and 16 (A40).
        (H200, 32, 16, 0, 32, "blocks"),
        (A40, 32, 16, 0, 16, "blocks"),
        # 24 blocks of 64 threads fill the 1536 threads exactly, and the block limit too.
        (RTX4090, 64, 32, 0, 24, "blocks"),
        # 168 registers: 5376 a warp, 3 warps of it in a sub-partition's 16384, 12 on the SM, 8 a block.
        (H200, 256, 168, 0, 1, "registers"),
        # 128 registers: 4096 a warp, 4 per sub-partition, 16 warps; 4 warps a block.
        (H200, 128, 128, 0, 4, "registers"),
        # 33 registers round up to 1280 a warp: 12 per sub-partition, 48 warps, 6 blocks of 8.
        (H200, 256, 33, 0, 6, "registers"),
        # 9 warps count as 12 in the check of a launch: 12 * 8192 = 98304 > 65536.
        (H200, 288, 255, 0, 0, "registers"),
        # 8 warps of 255 registers pass it: 8 * 8192 = 65536.
        (H200, 256, 255, 0, 1, "registers"),
        # 1024 threads at 65 registers: 2304 a warp * 32 = 73728 > 65536.
        (H200, 1024, 65, 0, 0, "registers"),
        (H200, 1024, 64, 0, 1, "registers"),
        # The most a block can have, and a byte more.
        (H200, 256, 32, 227 * KIB, 1, "shared"),
        (H200, 256, 32, 227 * KIB + 1, 0, "shared"),
        (RTX4090, 256, 32, 99 * KIB, 1, "shared"),
        (RTX4090, 256, 32, 99 * KIB + 1, 0, "shared"),
        # 48 KiB + 1 KiB reserved: 228 / 49 = 4, 100 / 49 = 2, 164 / 49 = 3.
        (H200, 256, 32, 48 * KIB, 4, "shared"),
        (RTX4090, 256, 32, 48 * KIB, 2, "shared"),
        (A100, 256, 32, 48 * KIB, 3, "shared"),
        # Without any of its own a block still takes the reserved 1 KiB; 100 of those are no limit.
        (RTX4090, 96, 32, 0, 16, "warps"),
        # No block has 1056 threads.
        (H200, 1056, 32, 0, 0, "warps"),
        # A kernel without registers is limited by the rest.
        (H200, 64, 0, 0, 32, "blocks"),
    ],
)
def test_points_by_hand(gpu, threads, registers, shared, blocks, limited_by):
    result = blocks_per_sm(gpu, threads, registers, shared)
    assert (result.blocks, result.limited_by) == (blocks, limited_by)


@pytest.mark.parametrize(
    ("shared", "carveout"),
    [(0, 8), (1 * KIB, 16), (7 * KIB, 64), (24 * KIB, 228), (27 * KIB, 228), (100 * KIB, 228)],
)
def test_the_carveout_is_the_smallest_that_holds_the_blocks(shared, carveout):
    # 8 blocks at most, of 256 threads and 32 registers.
    assert blocks_per_sm(H200, 256, 32, shared).carveout_bytes == carveout * KIB


@laws
@given(any_gpu, threads, registers, shared)
def test_the_driver_takes_the_carveout_that_is_asked_for(gpu, threads, registers, shared):
    """It rounds a percentage up to a size that there is: to that of the blocks, no larger and no smaller."""
    result = blocks_per_sm(gpu, threads, registers, shared)
    percent = carveout_percent(gpu, result)
    assert 0 <= percent <= 100
    wanted = gpu.shared_bytes_per_sm.integer * percent // 100
    assert min(size for size in gpu.shared_carveouts.value if size >= wanted) == result.carveout_bytes


def test_carveouts_less_than_a_percent_apart():
    """No percentage rounds down to one and stays above the other: then a percent more, and the size after."""
    sizes = [0, 100 * KIB, 100 * KIB + 128, 228 * KIB]
    facts = H200.shared_carveouts.model_copy(update={"value": sizes})
    close = H200.model_copy(update={"shared_carveouts": facts})
    asked = [carveout_percent(close, Occupancy(8, "shared", size, 8)) for size in sizes]
    assert asked == [0, 43, 44, 100]
    assert 43 * 228 < 100 * 100 < 44 * 228


def test_warps():
    result = blocks_per_sm(H200, 100, 32, 0)
    assert (result.warps_per_block, result.warps) == (4, result.blocks * 4)


@pytest.mark.parametrize(("threads", "registers", "shared"), [(0, 1, 1), (32, -1, 0), (32, 1, -1)])
def test_nonsense_is_refused(threads, registers, shared):
    with pytest.raises(ValueError, match="must be positive"):
        blocks_per_sm(H200, threads, registers, shared)


@laws
@given(any_gpu, threads, registers, shared)
def test_a_result_fits_the_gpu(gpu, threads, registers, shared):
    result = blocks_per_sm(gpu, threads, registers, shared)
    assert 0 <= result.blocks <= gpu.blocks_per_sm.integer
    assert result.warps <= gpu.warps_per_sm.integer
    assert result.blocks * result.warps_per_block * 32 * registers <= gpu.registers_per_sm.integer
    assert result.blocks * (shared + gpu.shared_bytes_reserved.integer) <= result.carveout_bytes
    assert result.carveout_bytes in gpu.shared_carveouts.value


@laws
@given(any_gpu, threads, registers, shared, st.integers(0, 255), st.integers(0, 240 * KIB))
def test_more_resources_never_give_more_blocks(
    gpu, threads, registers, shared, extra_registers, extra_shared
):
    before = blocks_per_sm(gpu, threads, registers, shared).blocks
    assert blocks_per_sm(gpu, threads, registers + extra_registers, shared).blocks <= before
    assert blocks_per_sm(gpu, threads, registers, shared + extra_shared).blocks <= before


@laws
@given(any_gpu, threads, threads, registers, shared)
def test_more_threads_never_give_more_blocks(gpu, one, other, registers, shared):
    few, many = sorted((one, other))
    assert (
        blocks_per_sm(gpu, many, registers, shared).blocks
        <= blocks_per_sm(gpu, few, registers, shared).blocks
    )


@laws
@given(threads, registers, shared)
def test_a_larger_gpu_of_equal_shape_holds_no_fewer(threads, registers, shared):
    assert (
        blocks_per_sm(H200, threads, registers, shared).blocks
        >= blocks_per_sm(A100, threads, registers, shared).blocks
    )


@laws
@given(any_gpu, threads, registers, shared)
def test_the_named_limit_is_the_one_that_binds(gpu, threads, registers, shared):
    result = blocks_per_sm(gpu, threads, registers, shared)
    if result.limited_by == "shared":
        assert blocks_per_sm(gpu, threads, registers, 0).blocks > result.blocks
    if result.limited_by == "registers":
        # Shared memory, which comes after, may allow as few.
        assert blocks_per_sm(gpu, threads, 0, 0).blocks > result.blocks


PROGRAM = r"""
#include "cuda_occupancy.h"
#include <cstdio>
int main() {
  cudaOccDeviceProp p;
  int t, r, s, carveout;
  while (std::scanf("%d %d %d %d %zu %zu %d %d %d %d", &p.computeMajor, &p.computeMinor,
                    &p.maxThreadsPerMultiprocessor, &p.regsPerMultiprocessor, &p.sharedMemPerMultiprocessor,
                    &p.sharedMemPerBlockOptin, &t, &r, &s, &carveout) == 10) {
    p.maxThreadsPerBlock = 1024;
    p.regsPerBlock = p.regsPerMultiprocessor;
    p.warpSize = 32;
    p.sharedMemPerBlock = 48 * 1024;
    p.numSms = 1;
    p.reservedSharedMemPerBlock = 1024;
    cudaOccFuncAttributes a;
    a.maxThreadsPerBlock = 1024;
    a.numRegs = r;
    a.sharedSizeBytes = 0;
    a.shmemLimitConfig = FUNC_SHMEM_LIMIT_OPTIN;
    a.maxDynamicSharedSizeBytes = p.sharedMemPerBlockOptin;
    a.numBlockBarriers = 1;
    cudaOccDeviceState d;
    d.carveoutConfig = carveout;
    cudaOccResult o;
    if (cudaOccMaxActiveBlocksPerMultiprocessor(&o, &p, &a, &d, t, s) != CUDA_OCC_SUCCESS) return 1;
    std::printf("%d\n", o.activeBlocksPerMultiprocessor);
  }
}
"""


def header_directory():
    import nvidia

    for root in nvidia.__path__:
        for header in Path(root).rglob("cuda_occupancy.h"):
            return header.parent
    raise AssertionError("the CUDA runtime wheel brings cuda_occupancy.h")


def queries(gpu):
    for block in (1, 31, 32, 33, 64, 96, 128, 160, 224, 256, 288, 384, 512, 640, 768, 1000, 1024):
        for per_thread in (
            1,
            8,
            16,
            24,
            31,
            32,
            33,
            40,
            48,
            63,
            64,
            65,
            80,
            96,
            128,
            129,
            168,
            192,
            224,
            255,
        ):
            for kib in (
                0,
                1,
                2,
                3,
                7,
                8,
                12,
                15,
                23,
                24,
                31,
                32,
                47,
                48,
                49,
                63,
                64,
                81,
                98,
                99,
                100,
                163,
                227,
                228,
            ):
                for more in (0, 1, 127):
                    yield block, per_thread, kib * KIB + more


@pytest.fixture(scope="module")
def calculator(tmp_path_factory):
    """NVIDIA's occupancy calculator, compiled on the host: blocks of queries with a carve-out in percent each."""
    compiler = shutil.which("g++")
    assert compiler, "the emulator needs g++, and so does this test"
    directory = tmp_path_factory.mktemp("occupancy")
    source, program = directory / "occupancy.cpp", directory / "occupancy"
    source.write_text(PROGRAM)
    subprocess.run([compiler, "-O1", f"-I{header_directory()}", source, "-o", program], check=True)

    def ask(gpu, asked):
        head = (
            f"{gpu.sm // 10} {gpu.sm % 10} {gpu.threads_per_sm.integer} {gpu.registers_per_sm.integer} "
            f"{gpu.shared_bytes_per_sm.integer} {gpu.shared_bytes_per_block.integer}"
        )
        text = "".join(f"{head} {' '.join(map(str, query))}\n" for query in asked)
        done = subprocess.run([program], input=text, capture_output=True, text=True, check=True)
        return [int(answer) for answer in done.stdout.split()]

    return ask


@pytest.mark.parametrize("planned", [False, True], ids=["largest carve-out", "planned carve-out"])
@pytest.mark.parametrize("name", ["a100", "a40", "rtx4090", "h200", "b200", "rtx5090"])
def test_every_answer_is_that_of_the_header(name, planned, calculator):
    """24,480 kernels per architecture, with the largest carve-out and with the one that libraries ask for."""
    gpu = gpus.load(name)
    asked = list(queries(gpu))
    ours = [blocks_per_sm(gpu, *query) for query in asked]
    carveouts = [carveout_percent(gpu, each) if planned else 100 for each in ours]
    answers = calculator(gpu, [(*query, carveout) for query, carveout in zip(asked, carveouts, strict=True)])
    wrong = [
        (query, carveout, answer, each.blocks)
        for query, carveout, answer, each in zip(asked, carveouts, answers, ours, strict=True)
        if each.blocks != answer
    ]
    assert not wrong, wrong[:5]
