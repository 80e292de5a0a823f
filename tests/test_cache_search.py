"""Libraries of attention through the compiler: no kernel spills, and the emulator runs what was compiled."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from caches import make_problem

from vqcc import gpus
from vqcc.cache_search import compile_cache_plans
from vqcc.codegen.cache import CompileCache, compile_cached
from vqcc.codegen.toolchain import find
from vqcc.diagnostics import VqccError
from vqcc.flow import CACHES
from vqcc.passes.agreement import Agreed
from vqcc.picks import tile_identity
from vqcc.racing import first_that_fits
from vqcc.tuning.candidates import candidates_of, possible_dataflows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from vqcc.cache_search import CacheKernels
    from vqcc.codegen.toolchain import Compiled
    from vqcc.gpus.model import Gpu
    from vqcc.problem import CacheProblem

    Compiler = Callable[[Gpu], Callable[[str], Compiled]]

LLAMA = {"q_heads": 32, "kv_heads": 32, "head_dim": 128, "batch": 16, "context": 32768}
GROUPED = {**LLAMA, "kv_heads": 8}
#: Level, algorithm, op, and what makes its kernels.
LIBRARIES: dict[str, tuple[str, str, dict[str, Any], str]] = {
    "gc": ("gc", "cq-2", LLAMA, "decode"),
    "sc": ("sc", "cq-2", LLAMA, "decode"),
    "o2": ("o2", "cq-4", GROUPED, "decode"),
    "o4": ("o4", "cq-2", LLAMA, "decode"),
    "o4, four query heads and wide vectors": ("o4", "cq-1", GROUPED, "decode"),
    "o4 by clusters": ("o4", "cq-2", {**LLAMA, "batch": 1, "context": 1024}, "decode"),
    "o4 by clusters, wide vectors": ("o4", "cq-1", {**LLAMA, "batch": 1, "context": 1024}, "decode"),
    "score tables": ("best", "cq-2", LLAMA, "score"),
    "score tables of narrow vectors": ("best", "cq-4", LLAMA, "score"),
    "values on tensor cores": ("best", "cq-2", GROUPED, "score"),
    "values on tensor cores, narrow vectors": ("best", "cq-4", GROUPED, "score"),
    "values on tensor cores, one book": ("best", "kv-4-8-1", GROUPED, "score"),
    "rotated keys": ("best", "cq-2", {**GROUPED, "rope": "half", "window": 64, "page_size": 64}, "fragment"),
    "rotated keys, one query head": (
        "best",
        "cq-4",
        {"q_heads": 8, "rope": "interleaved", "window": 64},
        "fragment",
    ),
    "a large head": ("best", "cq-1", {**GROUPED, "head_dim": 256}, "score"),
}
#: In `make test`: each way to make kernels once.
SOON = (
    "gc",
    "o2",
    "o4",
    "o4 by clusters, wide vectors",
    "score tables of narrow vectors",
    "values on tensor cores",
    "rotated keys",
)


@pytest.fixture(scope="module")
def compiler(cache_directory: Path) -> Compiler:
    """What compiles sources for a GPU."""
    toolchain, cache = find("nvrtc"), CompileCache(cache_directory, 2**30)
    return lambda gpu: (
        lambda source: compile_cached(
            toolchain, cache, source, target=gpu.target, want_ptx=False, file_name="attention.cu"
        )
    )


def compile_agreeing(
    problems: Sequence[CacheProblem], compile_source: Callable[[str], Compiled]
) -> CacheKernels:
    """The kernels of a library of one GPU, of the first dataflow of which each has a tile that does not spill."""
    return first_that_fits(
        CACHES.agree(problems), lambda agreed: compile_cache_plans(problems, compile_source, agreed)
    )


@pytest.mark.parametrize(
    ("name", "gpu"),
    [
        pytest.param(name, gpu, marks=() if gpu == "h200" and name in SOON else pytest.mark.full)
        for name in LIBRARIES
        for gpu in ("h200", "rtx4090")
    ],
)
def test_no_kernel_spills(name: str, gpu: str, compiler: Compiler) -> None:
    level, algorithm, op, dataflow = LIBRARIES[name]
    problem = make_problem(algorithm, level=level, gpu=gpu, **op)  # type: ignore[arg-type]
    made = compile_agreeing([problem], compiler(problem.gpu))
    (plan,) = made.plans
    if gpu == "h200":
        assert plan.strategy.dataflow == dataflow
    for kernel, used in made.compiled.resources.items():
        assert (used.stack_bytes, used.spill_store_bytes) == (0, 0), kernel
    names = {plan.kernel, *(append.kernel for append in made.appends)}
    assert names == set(made.compiled.resources)
    assert len({re.sub(r".*_", "", each) for each in names}) == 1, "all end with the source's hash"
    for launch in (plan.launch, *(append.launch for append in made.appends)):
        assert launch is not None
        assert launch.blocks_per_sm >= 1
        assert launch.grid >= 1
    assert plan.launch is not None
    assert plan.tile is not None
    assert plan.launch.grid <= plan.tile.blocks, "the workspace has parts for so many"


def test_kernels_of_a_library_share_a_layout(
    compiler: Compiler,
) -> None:
    """Where one of them can have no tensor cores, none has."""
    problem = make_problem("cq-2", **{**GROUPED, "batch": [1, 16]})
    problems = [replace(problem, variant=variant) for variant in problem.op.variants()]
    made = compile_agreeing(problems, compiler(problem.gpu))
    assert len({plan.layout for plan in made.plans}) == 1
    assert [plan.kernel.split("_")[1] for plan in made.plans] == ["b1", "b16"]


def test_gpus_of_a_library_share_a_layout_and_books(compiler: Compiler) -> None:
    """An RTX 4090 has no room for score tables: then the H200 decodes too."""
    problem = make_problem("cq-2", **GROUPED)
    small = replace(problem, gpu=gpus.load("rtx4090"))
    (alone,) = compile_agreeing([problem], compiler(problem.gpu)).plans
    (agreed, *_) = CACHES.agree([problem, small])
    made = [compile_cache_plans([each], compiler(each.gpu), agreed) for each in (problem, small)]
    assert alone.strategy.dataflow == "score"
    assert [kernels.plans[0].strategy.dataflow for kernels in made] == ["decode", "decode"]
    assert len({kernels.plans[0].layout for kernels in made}) == 1


def test_a_gpu_without_room_for_any_tile_is_told(compiler: Compiler) -> None:
    problem = make_problem("cq-2", **{**LLAMA, "head_dim": 256, "rope": "half"})
    small = problem.gpu.shared_bytes_per_block.model_copy(update={"value": 40 * 1024})
    gpu = problem.gpu.model_copy(update={"shared_bytes_per_block": small})
    with pytest.raises(VqccError) as raised:
        compile_agreeing([replace(problem, gpu=gpu)], compiler(gpu))
    assert [item.code for item in raised.value.diagnostics] == ["VQ0607"]
    assert "has no room there" in str(raised.value)


def test_books_past_shared_memory_are_refused(
    compiler: Compiler,
) -> None:
    problem = make_problem("kv-8-12-2", level="sc", gpu="rtx4090", head_dim=128)
    with pytest.raises(VqccError) as raised:
        compile_agreeing([problem], compiler(problem.gpu))
    assert [item.code for item in raised.value.diagnostics] == ["VQ0403"]


def test_kernels_are_made_as_picked(compiler: Compiler) -> None:
    """Of every dataflow the last candidate that has registers enough: its strategy and its tile, clusters included."""
    problem = make_problem("cq-2", **GROUPED)
    clusters = []
    for dataflow in possible_dataflows(CACHES, [problem]):
        candidates = candidates_of(CACHES, problem, dataflow, 64)
        pick = [each.pick for each in candidates if dict(each.pick.tile)["register_cap"] == 255][-1]
        picks = {problem.variant.suffix: pick}
        (plan,) = compile_cache_plans([problem], compiler(problem.gpu), Agreed(dataflow), picks).plans
        assert plan.tile is not None
        assert (plan.strategy, tile_identity(plan.tile)) == (pick.strategy, pick.tile)
        clusters.append(bool(plan.clusters))
    assert set(clusters) == {True, False}
