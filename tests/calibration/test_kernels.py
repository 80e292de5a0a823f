"""The micro-benchmarks: what they compute on the emulator, where no time passes, and what compilers make of them."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from vqcc.codegen.nvrtc import Nvrtc
from vqcc.data_files import templates_directory
from vqcc.emulator import Buffer, Emulated, build
from vqcc.runtime.calibration import (
    CHAIN_INSTRUCTIONS,
    CHAINS,
    MULTIPLY_CHAINS,
    NODE_BYTES,
    ONES,
    OTHER,
    SELECTOR,
    SHIFT,
    WORDS,
    calibration_source,
)

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from vqcc.codegen.toolchain import Compiled

TARGETS = ("sm_80", "sm_90", "sm_120")
KERNELS = {
    "fill", "link_nodes", "stream", "read_cached", "chase", "multiply", "combine_bits", "shuffle", "round_trip",
    "empty", "load_up",
}  # fmt: skip
UNROLL = 8


@pytest.fixture(scope="module")
def kernels(cache_directory: Path) -> Emulated:
    return build(calibration_source(), cache_directory=cache_directory / "emulator")


def run(
    kernels: Emulated,
    name: str,
    arguments: list[Any],
    outputs: int,
    *,
    blocks: int = 1,
    threads: int = 64,
    dtype: Any = np.uint32,
    timed: bool = True,
) -> NDArray[Any]:
    """What a kernel leaves in its `outputs`, the first arguments being arrays or numbers."""
    out, elapsed = np.zeros(outputs, dtype), np.ones(2, np.int64)
    given = [
        Buffer(f"in{i}", each, "input") if isinstance(each, np.ndarray) else each
        for i, each in enumerate(arguments)
    ]
    results = [Buffer("out", out, "output"), *([Buffer("elapsed", elapsed, "output")] if timed else [])]
    report = kernels.launch(name, (blocks, 1, 1), (threads, 1, 1), 256, [*given, *results])
    assert report.first_unwritten("out") is None
    assert elapsed.tolist() == ([0, 0] if timed else [1, 1])
    return out


def filled(count: int) -> NDArray[np.uint32]:
    """What `fill` writes."""
    n = np.arange(count, dtype=np.uint32)
    return np.stack([n, ~n, n * np.uint32(1664525), n * np.uint32(1013904223)], axis=1)


def folded(words: NDArray[np.uint32]) -> NDArray[np.uint32]:
    return np.bitwise_xor.reduce(words, axis=-1)


def test_memory_is_filled(kernels: Emulated) -> None:
    words = np.zeros((1000, 4), np.uint32)
    kernels.launch("fill", (2, 1, 1), (64, 1, 1), 0, [Buffer("words", words, "output", alignment=16), 1000])
    assert np.array_equal(words, filled(1000))


def ring(kernels: Emulated, nodes: int) -> NDArray[np.uint32]:
    links = np.zeros((nodes, NODE_BYTES // 4), np.uint32)
    kernels.launch("link_nodes", (2, 1, 1), (64, 1, 1), 0, [Buffer("nodes", links, "inout"), nodes])
    return links


def test_links_visit_every_node_before_the_first_again(kernels: Emulated) -> None:
    links = ring(kernels, 1024)
    assert not links[:, 1:].any()
    node, seen = 5, []
    for _ in range(1024):
        seen.append(node)
        node = int(links[node, 0])
    assert sorted(seen) == list(range(1024))
    assert node == 5
    assert len(set(np.diff(seen).tolist())) > 100, "no stride that could be fetched ahead"


def test_a_chase_ends_where_its_links_lead(kernels: Emulated) -> None:
    links = ring(kernels, 256)
    node = 3
    for _ in range(37):
        node = int(links[node, 0])
    assert run(kernels, "chase", [links, 3, 37], 1, threads=1).tolist() == [node]


def test_a_stream_reads_every_word(kernels: Emulated) -> None:
    threads = 2 * 64
    words = filled(3 * WORDS * threads)
    out = run(kernels, "stream", [words, len(words)], threads, blocks=2, timed=False)
    expected = np.bitwise_xor.reduce(folded(words).reshape(-1, threads), axis=0)
    assert np.array_equal(out, expected)


def test_cached_words_are_read_once_more_than_steps(kernels: Emulated) -> None:
    words = filled(2 * WORDS * 64)
    out = run(kernels, "read_cached", [words, len(words), 3], 64)
    expected = np.zeros(64, np.uint32)
    for _ in range(1 + 3):
        for row in folded(words).reshape(-1, 64):
            expected = 3 * expected + row
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("steps", [UNROLL, 3 * UNROLL])
def test_multiplies_add_up(kernels: Emulated, steps: int) -> None:
    out = run(kernels, "multiply", [ONES, steps], 64, dtype=np.float32)
    assert np.all(out == sum(range(MULTIPLY_CHAINS)) + MULTIPLY_CHAINS * 4 * 16 * steps)


def combined(values: NDArray[np.uint32], other: Any, selector: int, shift: int) -> NDArray[np.uint32]:
    """One step of prmt, shf and lop3 on values [threads, chains]."""
    source = (np.uint64(1) * other << np.uint64(32)) | values.astype(np.uint64)
    permuted = np.zeros_like(source)
    for byte in range(4):
        pick, only_sign = np.uint64(8 * (selector >> 4 * byte & 7)), selector >> 4 * byte & 8
        picked = source >> pick & np.uint64(255)
        picked = (picked >> np.uint64(7)) * np.uint64(255) if only_sign else picked
        permuted |= picked << np.uint64(8 * byte)
    shifted = ((np.uint64(1) * other << np.uint64(32)) | permuted) >> np.uint64(shift)
    return ((shifted & np.uint64(selector)) ^ other).astype(np.uint32)


def chained(values: NDArray[np.uint32]) -> NDArray[np.uint32]:
    total = np.zeros(len(values), np.uint32)
    for chain in range(CHAINS):
        total = 3 * total + values[:, chain]
    return total


@pytest.mark.parametrize("steps", [UNROLL, 2 * UNROLL])
def test_bits_are_combined(kernels: Emulated, steps: int) -> None:
    values = np.arange(64 * CHAINS, dtype=np.uint32).reshape(64, CHAINS)
    for _ in range(steps):
        values = combined(values, np.uint64(OTHER), SELECTOR, SHIFT)
    out = run(kernels, "combine_bits", [OTHER, SELECTOR, SHIFT, steps], 64)
    assert np.array_equal(out, chained(values))


@pytest.mark.parametrize("kernel", ["shuffle", "round_trip"])
@pytest.mark.parametrize("mask", [1, 6, 31])
def test_lanes_exchange_their_values(kernels: Emulated, kernel: str, mask: int) -> None:
    out = run(kernels, kernel, [mask, 2 * UNROLL], 32, threads=32)
    assert np.array_equal(out, np.arange(32) ^ mask)


def test_everything_at_once(kernels: Emulated) -> None:
    threads, steps = 2 * 64, 5
    words = filled(3 * threads)
    out = run(kernels, "load_up", [words, len(words), ONES, steps], threads, blocks=2)
    values = np.tile(np.arange(64 * CHAINS, dtype=np.uint32).reshape(64, CHAINS), (2, 1))
    at = np.arange(threads)
    for step in range(steps):
        other = folded(words[at]).astype(np.uint64)[:, None]
        values = combined(values, other, ONES, step % 32)
        at = (at + threads) % len(words)
    sums = sum(range(MULTIPLY_CHAINS)) + MULTIPLY_CHAINS * 4 * 16 * steps
    assert np.array_equal(out, chained(values) + np.uint32(sums))


@cache
def compiled(target: str) -> Compiled:
    return Nvrtc.find().compile(calibration_source(), target=target, want_ptx=True, file_name="calibrate.cu")


def body(target: str, kernel: str) -> str:
    """The instructions of one kernel."""
    _, _, rest = str(compiled(target).ptx).partition(f".entry {kernel}(")
    return rest.partition(".entry ")[0]


@pytest.mark.parametrize("target", TARGETS)
def test_no_stack_and_no_spill(target: str) -> None:
    assert set(compiled(target).resources) == KERNELS
    for name, used in compiled(target).resources.items():
        assert (used.stack_bytes, used.spill_store_bytes, used.spill_load_bytes) == (0, 0, 0), name
        assert used.registers <= 64, "two blocks of 512 threads are resident"


@pytest.mark.parametrize("target", TARGETS)
def test_no_work_is_left_out(target: str) -> None:
    """Instructions of a loop's turn are those that a number of steps is divided by."""
    assert body(target, "multiply").count("mma.sync") == MULTIPLY_CHAINS * UNROLL
    bits = body(target, "combine_bits")
    assert bits.count("prmt.b32") == bits.count("shf.r.wrap") == bits.count("xor.b32") == CHAINS * UNROLL
    assert CHAIN_INSTRUCTIONS == 3
    assert body(target, "shuffle").count("shfl.sync.bfly") == UNROLL + 1
    trips = body(target, "round_trip")
    assert trips.count("st.shared") == trips.count("ld.shared") == trips.count("bar.warp.sync") == UNROLL
    assert len(re.findall(r"ld\.global\.cg", body(target, "chase"))) == 1
    assert len(re.findall(r"ld\.global\.cs\.v4", body(target, "stream"))) == WORDS
    assert len(re.findall(r"ld\.global\.cg\.v4", body(target, "read_cached"))) == WORDS
    for name in KERNELS - {"fill", "link_nodes", "stream", "empty"}:
        clocks = body(target, name)
        assert clocks.count("%clock64") == clocks.count("%globaltimer") >= 2, name


def test_intrinsics_and_ptx_live_in_arch() -> None:
    text = (templates_directory() / "kernels" / "calibrate.cu").read_text(encoding="utf-8")
    code = re.sub(r"//.*", "", text)
    assert "asm" not in code
    assert not re.findall(r"__(?!global__)\w+", code)
    assert len(text.splitlines()) <= 400
