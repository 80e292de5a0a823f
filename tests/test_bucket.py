"""Buckets: kernels whose blocks keep a part of a book past shared memory are right, whatever codes and shapes are."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from dealing import dealt, launched, task_of
from launches import Kernels
from libraries import build_fake, make_spec
from problems import kmeans, problem

from vqcc.algorithms.presets import resolve
from vqcc.building import build_library, write_library
from vqcc.code_layouts import BucketLayout
from vqcc.codegen.cache import CompileCache
from vqcc.codegen.toolchain import find
from vqcc.diagnostics import VqccError
from vqcc.library import load_library
from vqcc.ops.gemv.bucket_tile import BucketTile, entry_wavefronts, unit_steps
from vqcc.passes.bucket import bucket_layout
from vqcc.passes.dataflow import refusals
from vqcc.problem import Boundaries
from vqcc.tensors.buckets import pack_buckets, wrong_buckets
from vqcc.tensors.packed_file import check_contents, load_packed, save_packed

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.library import Library
    from vqcc.problem import Problem
    from vqcc.tensors.vq_tensor import VQTensor

LARGE = kmeans(vector_size=8, entries=16384, residuals=1)
STAGES = kmeans(vector_size=8, entries=16384, residuals=2)
WHOLE_TABLES = kmeans(vector_size=8, entries=4096, residuals=4)
CASES: list[dict[str, Any]] = [
    # One panel and several, one part of the buckets and many, whole and ragged in every direction.
    {"algorithm": "aqlm-1x16", "n": 64, "k": 512},
    {"algorithm": "aqlm-1x16", "n": 300, "k": 264, "sm_count": 3},
    {"algorithm": LARGE, "n": 33, "k": 4808, "sm_count": 2},
    {"algorithm": LARGE, "n": 1, "k": 8},
    {"algorithm": LARGE, "n": 600, "k": 136, "sm_count": 1},
    {"algorithm": STAGES, "n": 70, "k": 1032, "dtype": "bfloat16", "sm_count": 5},
    {"algorithm": STAGES, "n": 513, "k": 128, "gpu": "b200", "sm_count": 4},
    {"algorithm": WHOLE_TABLES, "n": 40, "k": 400, "sm_count": 3},
    {"algorithm": "aqlm-1x16", "n": 40, "k": 400, "gpu": "a100", "sm_count": 2},
    # Several rows of x, and fewer than the kernel is for.
    {"algorithm": "aqlm-1x16", "n": 300, "k": 264, "m": 2, "sm_count": 3},
    {"algorithm": LARGE, "n": 33, "k": 4808, "m": 4, "sm_count": 2},
    {"algorithm": STAGES, "n": 70, "k": 1032, "m": 3, "dtype": "bfloat16", "sm_count": 5},
]


def name_of(case: dict[str, Any]) -> str:
    algorithm = case["algorithm"]
    named = algorithm if isinstance(algorithm, str) else f"{algorithm['residuals']}x{algorithm['entries']}"
    return "-".join([named, *(str(value) for key, value in case.items() if key != "algorithm")])


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_results_are_within_their_bound(case: dict[str, Any], cache_directory: Path) -> None:
    task = task_of(case)
    for outcome in launched(task, dealt(task, "bucket"), cache_directory):
        assert outcome.comparison.passed, outcome.comparison


def random_tile(tile: BucketTile, rng: np.random.Generator) -> dict[str, int]:
    """Another way to deal the same work: more or fewer parts, warps and chunks on their way."""
    return {
        "warps": int(rng.choice([1, 3, 8, 10])),
        "ahead": int(rng.integers(2, 5)),
        "row_parts": int(rng.integers(1, tile.row_blocks + 1)),
        "column_parts": int(rng.integers(1, tile.buckets + 1)),
    }


def check_random_tile(seed: int, cache_directory: Path) -> None:
    rng = np.random.default_rng([seed, 23])
    bits = int(rng.integers(13, 17))
    case = {
        "algorithm": kmeans(vector_size=8, entries=2**bits, residuals=int(rng.integers(1 + (bits == 13), 4))),
        "n": int(rng.integers(1, 700)),
        "k": 8 * int(rng.integers(1, 120)),
        "dtype": str(rng.choice(["float16", "bfloat16"])),
        "m": int(rng.integers(1, 5)),
    }
    task = task_of(case)
    tile = dealt(task, "bucket").tile
    assert isinstance(tile, BucketTile)
    for outcome in launched(task, dealt(task, "bucket", **random_tile(tile, rng)), cache_directory):
        assert outcome.comparison.passed, (case, outcome.comparison)


@pytest.mark.parametrize("seed", range(6))
def test_any_way_to_deal_the_work_is_right(seed: int, cache_directory: Path) -> None:
    check_random_tile(seed, cache_directory)


@pytest.mark.full
@pytest.mark.parametrize("seed", range(6, 40))
def test_more_ways_to_deal_the_work_are_right(seed: int, cache_directory: Path) -> None:
    check_random_tile(seed, cache_directory)


def with_codes(tensor: VQTensor, codes: np.ndarray) -> VQTensor:
    return replace(tensor, codes=codes.astype(tensor.codes.dtype))


@pytest.mark.parametrize("by_frequency", [False, True])
@pytest.mark.parametrize("kind", ["equal", "few", "uneven rows"])
def test_uneven_codes_are_right(kind: str, by_frequency: bool, cache_directory: Path) -> None:
    """All codes in one bucket, and rows of very different lists; entries renamed or not."""
    task = task_of({"algorithm": LARGE, "n": 70, "k": 1000, "sm_count": 3})
    rng = np.random.default_rng(5)
    tensor = task.algorithm.random_tensor(rng, "w", *task.op.weight_shape)
    shape = tensor.codes.shape
    few = rng.choice([3, 9000, 16383], shape)
    uneven = np.where(np.arange(shape[1])[:, None] % 3 == 0, few, rng.integers(0, 16384, shape))
    codes = {"equal": np.full(shape, 8191), "few": few, "uneven rows": uneven}[kind]
    plan = dealt(task, "bucket")
    tensor = with_codes(tensor, codes)
    kernels = Kernels([(task, plan)], tensor, cache_directory, by_frequency=by_frequency)
    outcome = kernels.run(kernels.kernels[0], kernels.draw(task, 1, rng, bias=True))
    assert outcome.comparison.passed, outcome.comparison


def test_infinite_inputs_give_what_they_should(cache_directory: Path) -> None:
    """Products beside the diagonal, and slots that hold no code, reach no row."""
    task = task_of({"algorithm": LARGE, "n": 300, "k": 512, "sm_count": 2})
    rng = np.random.default_rng(5)
    tensor = task.algorithm.random_tensor(rng, "w", *task.op.weight_shape)
    kernels = Kernels([(task, dealt(task, "bucket"))], tensor, cache_directory)
    inputs = kernels.draw(task, 1, rng, bias=False)
    inputs.case.inputs["x"][0, 77] = np.inf
    result = kernels.run(kernels.kernels[0], inputs).result.astype(np.float64)
    expected = np.inf * np.sign(task.algorithm.decode(tensor)[:, 77])
    np.testing.assert_array_equal(result[0], expected)


@pytest.mark.parametrize(("k", "parts"), [(8192, 8), (4096, 8), (1024, 8), (8192, 2), (4096, 1), (11008, 4)])
def test_lists_are_as_the_model_expects(k: int, parts: int) -> None:
    """Steps of units, and wavefronts of entries, of uniform codes in the order that the packer gives them."""
    algorithm = resolve(f"vq-8-{13 + parts.bit_length() - 1}-1")
    layout = bucket_layout(algorithm, (2048, k))
    assert layout.parts == parts
    codes = np.random.default_rng(1).integers(0, 1 << layout.code_bits, (1, 2048, layout.vectors))
    words = pack_buckets(codes.astype(np.uint16), layout)
    units = layout.units(2048)
    assert int(words[units]) * layout.CHUNK_STEPS / units == pytest.approx(unit_steps(layout), rel=0.02)
    assert measured_wavefronts(words, layout, 2048) == pytest.approx(entry_wavefronts(layout), rel=0.04)


def measured_wavefronts(words: np.ndarray, layout: BucketLayout, rows: int) -> float:
    """Of a phase's entries, counted from the slots."""
    chunks = words[layout.chunk_offset(rows) :].reshape(-1, 3, 32).astype(np.uint64)
    stream = chunks[:, 0] | chunks[:, 1] << np.uint64(32)
    slots = [stream, stream >> np.uint64(24), chunks[:, 1] >> np.uint64(16) | chunks[:, 2] << np.uint64(16),
             chunks[:, 2] >> np.uint64(8)]  # fmt: skip
    entries = np.stack(slots, axis=1).reshape(-1, 8).astype(np.int64) & 8191
    met = np.zeros((len(entries), 8), np.int64)
    for lane in range(8):
        new = (entries[:, :lane] != entries[:, lane : lane + 1]).all(axis=1)
        np.add.at(met, (np.arange(len(entries)), entries[:, lane] % 8), new)
    return float(met.max(axis=1).mean())


def test_wavefronts_are_as_the_model_counts_them(cache_directory: Path) -> None:
    """Of a block's steps; x meets no bank twice."""
    task = task_of({"algorithm": "aqlm-1x16", "n": 256, "k": 4096, "sm_count": 8})
    plan = dealt(task, "bucket")
    outcome, *_ = launched(task, plan, cache_directory, count=True)
    counters, layout = outcome.counters, plan.layout
    assert counters is not None
    assert isinstance(layout, BucketLayout)
    steps = layout.units(256) * unit_steps(layout)
    sums = layout.units(256) * 4 + layout.buckets * 256 / 32
    expected = steps * (4 + 4 * entry_wavefronts(layout) + 0.75) + sums
    assert counters.shared_load_wavefronts == pytest.approx(expected, rel=0.04)
    assert counters.tensor_multiplies == pytest.approx(4 * steps, rel=0.04)


@pytest.mark.parametrize(
    ("task", "reason"),
    [
        (problem("aqlm-1x16", m=5), "4 rows of inputs, not 5"),
        (problem("aqlm-1x16", boundaries=Boundaries(shared=64)), "the spec's cache"),
        (problem("aqlm-1x16", gpu="rtx4090"), "take 147584 bytes of shared memory, rtx4090 has 101376"),
        (problem("aqlm-1x16", gpu="a100", k=8192), "take 196736 bytes of shared memory, a100 has"),
        (problem("aqlm-2x8"), "there are no parts to sort by"),
        (problem("quip-4"), "there are no parts to sort by"),
        (problem("vq-4-16-1"), "vectors of 4 are no rows"),
        (problem(kmeans(vector_size=8, entries=65536, scales={"group": 64}), k=512), "different scales"),
        (problem(kmeans(vector_size=8, entries=65536, codebook_dtype="int8")), "not exact"),
        (problem("aqlm-1x16", dtype="bfloat16"), "not exact in bfloat16"),
        (problem(kmeans(vector_size=8, entries=65536, scope={"rows": 64, "cols": 64}), n=512, k=512),
         "buckets of its own"),
    ],
)  # fmt: skip
def test_what_has_no_buckets_is_told_why(task: Problem, reason: str) -> None:
    assert any(reason in found for found in refusals(task, "bucket")), list(refusals(task, "bucket"))
    assert not any(refusals(task, "decode"))


def test_best_weighs_buckets_against_look_ups_in_the_second_level_cache() -> None:
    """Parts of a book have to be loaded: buckets pay for large weights."""
    for n, chosen, other in ((28672, "bucket", "decode"), (256, "decode", "bucket")):
        built = build_fake("aqlm-1x16", n=n, k=4096, m=1, level="best")
        (plan,) = built.gpus[0].plans
        assert plan.strategy.dataflow == chosen
        (decision, *_) = plan.decisions
        assert any(each.value == other and ", this one " in each.reason for each in decision.rejected)


@pytest.mark.parametrize("gpu", ["h200", "b200"])
def test_nothing_is_spilled(gpu: str, cache_directory: Path) -> None:
    """As NVRTC compiles it, and without a stack frame: no register is indexed at run time."""
    cache = CompileCache(cache_directory / "compiled", 1 << 30)
    spec = make_spec("aqlm-1x16", n=28672, k=8192, m=1, gpu=gpu, level="best")
    built = build_library(spec, toolchain=find("nvrtc"), cache=cache)
    (plan,) = built.gpus[0].plans
    assert plan.strategy.dataflow == "bucket"
    assert plan.resources is not None
    assert plan.resources.stack_bytes == plan.resources.spill_store_bytes == 0


@pytest.fixture
def library(tmp_path: Path) -> Library:
    built = build_fake("aqlm-1x16", n=4096, k=4096, m=1, level="best")
    write_library(built, tmp_path / built.name)
    return load_library(tmp_path / built.name)


def test_a_library_comes_back_from_its_bundle(library: Library, tmp_path: Path) -> None:
    (kernel,) = library.builds["h200"].kernels
    assert isinstance(kernel.tile, BucketTile)
    assert library.layout == bucket_layout(library.algorithm, (4096, 4096))
    header = library.bundle.read_file(f"{library.name}.h").decode()
    assert "_CODES_BYTES is not defined" in header
    assert "#define TINY_CODES_BYTES" not in header


def test_packed_files_are_read_and_wrong_ones_refused(library: Library, tmp_path: Path) -> None:
    """A kernel follows what stands in the codes: what would lead it past their end is found first."""
    path, layout = tmp_path / "packed.safetensors", library.layout
    assert isinstance(layout, BucketLayout)
    tensor = library.algorithm.random_tensor(np.random.default_rng(0), "w", 4096, 4096)
    packed = library.pack(tensor)
    save_packed(path, library, [(tensor, packed)])
    read = load_packed(path, library)
    np.testing.assert_array_equal(read["w"]["codes"], packed.codes)
    assert check_contents(path, library, read, [tensor]) == ()
    other = with_codes(tensor, np.zeros_like(tensor.codes))
    (found,) = check_contents(path, library, read, [other])
    assert "its shape is" in found.message
    units, chunks = layout.units(4096), layout.chunk_offset(4096)
    for change, reason in (
        (lambda words: words[: units // 2], "fewer than"),
        (lambda words: words.reshape(2, -1) if len(words) % 2 == 0 else words[None], "of one dimension"),
        (lambda words: words[:-96], "units end after"),
        (lambda words: changed_word(words, 0, 1), "do not follow"),
        (lambda words: changed_word(words, units // 2, 0), "do not follow"),
        (lambda words: changed_word(words, units, 2**31), "units end after"),
        (lambda words: changed_word(words, layout.row_offset(4096), 0), "name a row twice"),
        (lambda words: changed_word(words, chunks, 0xFFFFFF), "a vector past its panel"),
    ):
        save_packed(
            path, library, [(tensor, replace(packed, codes=np.ascontiguousarray(change(packed.codes))))]
        )
        with pytest.raises(VqccError, match=reason) as caught:
            load_packed(path, library)
        assert [item.code for item in caught.value.diagnostics] == ["VQ0530"]


def test_a_vector_past_the_rows_end_is_found() -> None:
    """The last panel is shorter than the others: what is past it is zero in a kernel, and no vector of the tensor."""
    layout = BucketLayout(513, 1, 14, 8192, 257)
    codes = np.random.default_rng(0).integers(0, 1 << 14, (1, 40, 513)).astype(np.uint16)
    words = pack_buckets(codes, layout)
    assert wrong_buckets(words, layout, 40) is None
    units = layout.units(40)
    chunk = int(words[units - units // layout.panels])
    place = layout.chunk_offset(40) + chunk * layout.CHUNK_WORDS
    entry = int(words[place]) & (1 << layout.ENTRY_BITS) - 1
    wrong = (int(words[place]) & 0xFF000000) | 256 << layout.ENTRY_BITS | entry
    assert (
        wrong_buckets(changed_word(words, place, wrong), layout, 40) == "a code names a vector past its panel"
    )


def changed_word(words: np.ndarray, index: int, value: int) -> np.ndarray:
    changed = words.copy()
    changed[index] = value
    return changed
