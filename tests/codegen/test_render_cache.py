"""Emitted sources of attention: planned from presets, run on the emulator against float64."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from attention_cases import case_of, render
from caches import STRATEGY, make_plan, make_problem
from device.attention import check, run_append, run_attention

from vqcc import gpus
from vqcc.codegen.render_cache import render_cache_source
from vqcc.emulator import build
from vqcc.passes.cache.append import plan_appends

if TYPE_CHECKING:
    from pathlib import Path


CASES: dict[str, tuple[tuple[str, ...], dict[str, Any], tuple[str, ...]]] = {
    "a book for each group": (
        ("cq-2",),
        {"head_dim": 128},
        ("gc", "sc", "o1", "o2", "o3", "o4", "score", "clusters"),
    ),
    "narrow vectors": (("cq-4",), {"head_dim": 128}, ("o1", "o3", "o4", "score", "clusters")),
    "wide vectors": (("cq-1",), {}, ("o1", "o4", "score")),
    "one book for all": (("kv-4-8-1",), {}, ("gc", "o2", "sc", "o3", "o4", "score", "clusters")),
    "two stages": (("kv-4-8-2",), {}, ("gc", "sc", "o1", "o3", "o4")),
    "two stages of a layer's books, and groups'": (("kv-2-6-2", "cq-2"), {}, ("gc", "sc", "o1")),
    "different algorithms": (("cq-2", "kv-2-8-1"), {"head_dim": 128}, ("sc", "o1", "score")),
    "shared queries": (
        ("cq-2",),
        {"q_heads": 8, "head_dim": 128},
        ("sc", "o1", "score", "fragment", "clusters"),
    ),
    "rotated keys": (("cq-2",), {"rope": "half", "head_dim": 128, "window": 40}, ("fragment",)),
    "six query heads to a cache": (("cq-2",), {"q_heads": 12, "head_dim": 128}, ("o1", "score", "fragment")),
    "everything that is optional": (
        ("cq-2",),
        {
            "rope": "half",
            "window": 40,
            "page_size": 32,
            "softcap": True,
            "sliding_window": 50,
            "query_tokens": 2,
        },
        ("gc", "sc", "o1", "o3", "o4"),
    ),
    "windows and pages": (
        ("cq-2",),
        {"window": 8, "page_size": 64, "head_dim": 128},
        ("o1", "o3", "o4", "score", "clusters"),
    ),
    "bfloat16": (("cq-2",), {"dtype": "bfloat16", "q_heads": 8, "head_dim": 128}, ("o1", "fragment")),
}


@pytest.mark.parametrize(
    ("name", "strategy"),
    [
        # Every other pair in `make test`: every case with some of its strategies, and every strategy with some cases.
        pytest.param(name, each, marks=() if (i + j) % 2 == 0 else pytest.mark.full)
        for i, (name, (_, _, strategies)) in enumerate(CASES.items())
        for j, each in enumerate(strategies)
    ],
)
def test_planned_kernels_attend(name: str, strategy: str, cache_directory: Path) -> None:
    algorithms, op, _ = CASES[name]
    problem = make_problem(*algorithms, **op)
    plan = make_plan(problem, STRATEGY[strategy])
    case = case_of(problem, plan)
    emulated = build(render(problem, plan, appends=False), cache_directory=cache_directory / "emulator")
    check(case, run_attention(case, emulated, kernel=plan.kernel))


@pytest.mark.parametrize(
    ("algorithms", "op", "clustered"),
    [
        (("cq-2",), {"head_dim": 128, "window": 40, "page_size": 32}, True),
        (("cq-1",), {"rope": "half"}, True),
        (("cq-1",), {"gpu": "a100", "softcap": True}, False),
        (("cq-2", "kv-8-6-2"), {"gpu": "a100", "head_dim": 128, "q_heads": 8}, False),
    ],
)
def test_o4_gives_what_o3_does(
    algorithms: tuple[str, ...], op: dict[str, Any], clustered: bool, cache_directory: Path
) -> None:
    """To the bit: one cache, one tile, and sums of the same terms in the same order."""
    problem = make_problem(*algorithms, **op)
    answers, exchanges = [], []
    for level in ("o3", "o4"):
        plan = make_plan(problem, STRATEGY[level])
        assert bool(plan.clusters) == clustered
        exchanges.append(plan.exchange.fusion)
        emulated = build(render(problem, plan, appends=False), cache_directory=cache_directory / "emulator")
        answers.append(run_attention(case_of(problem, plan), emulated, kernel=plan.kernel))
    assert exchanges[0] == "none" != exchanges[1]
    np.testing.assert_array_equal(answers[0].outputs, answers[1].outputs)
    np.testing.assert_array_equal(answers[0].log_sums, answers[1].log_sums)


APPENDS: dict[str, tuple[str, tuple[str, ...], dict[str, Any]]] = {
    "plain": ("gc", ("cq-2",), {}),
    "rotated": ("score", ("cq-2",), {}),
    "in the order of fragments": ("fragment", ("cq-2",), {}),
    "pages of books that differ": ("gc", ("cq-2", "kv-2-8-1"), {"page_size": 64}),
    "two stages, bfloat16": ("gc", ("kv-4-8-2",), {"dtype": "bfloat16"}),
}


@pytest.mark.parametrize("name", APPENDS)
def test_kernels_append_in_the_order_of_those_that_attend(name: str, cache_directory: Path) -> None:
    strategy, algorithms, options = APPENDS[name]
    problem = make_problem(*algorithms, head_dim=128, q_heads=8, window=8, **options)
    plan = make_plan(problem, STRATEGY[strategy])
    tile = plan_appends([problem], [plan])[0].tile
    case = case_of(problem, plan, warps=tile.warps, shared_bytes=tile.shared_bytes)
    emulated = build(render(problem, plan), cache_directory=cache_directory / "emulator")
    dtype = problem.variant.dtype
    names = (f"lib_append_one_{dtype}", f"lib_append_many_{dtype}")
    run_append(case, emulated, [(30, 0, 33), (1, 1, 1), (5, 40, 1)], 2, names)


def test_kernels_of_a_library_share_a_workspace(cache_directory: Path) -> None:
    """Parts that the one leaves do not lie where the other counts, though its bound on sequences is another."""
    problem = make_problem("cq-2", head_dim=128, kv_heads=8, q_heads=8, batch=[1, 40])
    problems = [replace(problem, variant=variant) for variant in problem.op.variants()]
    plans = [make_plan(each, STRATEGY["score"]) for each in problems]
    source = render_cache_source(problems, plans, ())
    emulated = build(source, cache_directory=cache_directory / "emulator")
    workspace = np.zeros(max(plan.launch.workspace_bytes for plan in plans if plan.launch), np.uint8)
    for each, plan, lengths in zip(problems, plans, ((700,), (65,) * 40), strict=True):
        case = case_of(each, plan, lengths=lengths)
        check(case, run_attention(case, emulated, kernel=plan.kernel, workspace=workspace))


def test_books_take_turns_where_there_is_no_room_for_both(cache_directory: Path) -> None:
    problem = replace(make_problem("cq-2", head_dim=128), gpu=gpus.load("rtx4090"))
    plan = make_plan(problem, STRATEGY["sc"])
    assert plan.books_take_turns
    case = case_of(problem, plan)
    emulated = build(render(problem, plan, appends=False), cache_directory=cache_directory / "emulator")
    check(case, run_attention(case, emulated, kernel=plan.kernel))


def test_the_source_says_what_was_decided() -> None:
    problem = make_problem("cq-2", head_dim=128)
    source = render(problem, make_plan(problem, STRATEGY["sc"]))
    assert source.startswith("// lib: attention_decode over a cache of ")
    assert "// n_shared = 256 of keys, 256 of values: every entry of a kv-head's books is cached" in source
    assert source == render(problem, make_plan(problem, STRATEGY["sc"]))


def test_kernels_of_several_page_sizes_share_all_but_pages() -> None:
    problem = make_problem("cq-2", head_dim=128, page_size=[64, 32])
    problems = [replace(problem, variant=variant) for variant in problem.op.variants()]
    plans = [make_plan(each, STRATEGY["score"]) for each in problems]
    source = render_cache_source(problems, plans, plan_appends(problems, plans))
    assert re.findall(r"struct (Cache\w*) \{\n.*\n.*kPageBlocks = (\d+);", source) == [
        ("Cache_p32", "1"),
        ("Cache_p64", "2"),
    ]
    kernels = re.split(r'extern "C" __global__ ', source)[1:]
    names = ["b3_p32", "b3_p64", "append_one_p32", "append_many_p32", "append_one_p64", "append_many_p64"]
    for name, kernel in zip(names, kernels, strict=True):
        assert f" lib_{name}_float16(" in kernel
        assert set(re.findall(r"plan::Cache\w*", kernel)) == {f"plan::Cache_{name[-3:]}"}
    assert source.count("struct AppendTile_float16 ") == source.count("struct Shape ") == 1


def test_a_library_has_one_kernel_for_each_bound_and_type() -> None:
    problem = make_problem("cq-2", head_dim=128, batch=[1, 3], dtype=["float16", "bfloat16"])
    problems = [replace(problem, variant=variant) for variant in problem.op.variants()]
    plans = [make_plan(each, STRATEGY["score"]) for each in problems]
    source = render_cache_source(problems, plans, plan_appends(problems, plans))
    assert re.findall(r"__global__ .* (lib_\w+)\(", source) == [
        "lib_b1_bfloat16",
        "lib_b3_bfloat16",
        "lib_b1_float16",
        "lib_b3_float16",
        "lib_append_one_bfloat16",
        "lib_append_many_bfloat16",
        "lib_append_one_float16",
        "lib_append_many_float16",
    ]
