"""The op linear: its bounds, which op serves each, and what its kernels agree on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import problem

from vqcc import gpus
from vqcc.levels import Strategy
from vqcc.ops import WEIGHT_OPS
from vqcc.ops.gemm.dense_tile import DenseTile
from vqcc.ops.gemm.warpgroup_tile import WarpgroupTile
from vqcc.ops.gemv.fragment_tile import FragmentTile
from vqcc.ops.linear.model import BOUNDS, Linear
from vqcc.passes.choice import DATAFLOWS
from vqcc.passes.dataflow import refusals
from vqcc.passes.placement import certain_placement
from vqcc.passes.tile import machine_of, workload_of
from vqcc.pipeline import analyze

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.problem import Problem

RANGES = st.tuples(st.integers(1, 16384), st.integers(1, 16384)).map(sorted)


def linear(least: int, most: int, **changes: Any) -> Linear:
    shape = {"n": 256, "k": 1024, "m": {"min": least, "max": most}} | changes
    return Linear.model_validate({"kind": "linear", **shape})


def kernels(algorithm: Any, **options: Any) -> Iterator[Problem]:
    """Problems of every kernel that a library may have."""
    op = linear(**{"least": 1, "most": 200} | options.pop("rows", {}), **options)
    for number in range(len(op.variants())):
        yield problem(
            algorithm,
            kind="linear",
            variant=number,
            level="best",
            **{name: getattr(op, name) for name in ("n", "k", "m", "dtype")},
        )


@given(RANGES)
def test_bounds_cover_the_range(rows: tuple[int, int]) -> None:
    least, most = rows
    op = linear(least, most)
    assert op.bounds == tuple(sorted(set(op.bounds)))
    assert op.bounds[-1] == most
    assert set(op.bounds[:-1]) == {bound for bound in BOUNDS if least <= bound < most}
    assert [variant.sizes["m"] for variant in op.variants()] == list(op.bounds)


@given(RANGES, st.data())
def test_one_kernel_is_what_it_is_in_any_range(rows: tuple[int, int], data: st.DataObject) -> None:
    """What is recorded of a kernel counts whatever else the library may have."""
    op = linear(*rows)
    variant = data.draw(st.sampled_from(op.variants()))
    (alone,) = op.only(variant).variants()
    bound = variant.sizes["m"]
    assert alone == variant
    assert op.only(variant) == linear(bound, bound)
    assert op.made_as(variant) == ("gemv" if bound <= 16 else "gemm")


@pytest.mark.parametrize("k", [520, 516])
def test_kernels_are_those_of_gemv_and_gemm(k: int) -> None:
    """Tiles, compute layouts and traffic, but for counters in the workspace."""
    for each in kernels("vq-4-8-1", k=k, n=300):
        served = each.op.made_as(each.variant)
        other = problem(
            "vq-4-8-1", kind=served, m=each.variant.sizes["m"], n=300, k=k, dtype=each.variant.dtype
        ).op
        asked = {"vector_size": 4, "exact": True, "aligned": False}
        assert each.op.compute_layout(each.variant, **asked) == other.compute_layout(each.variant, **asked)
        assert each.op.staged(each.variant) == other.staged(each.variant) == (served == "gemm")
        assert each.op.arguments(each.variant) == other.arguments(each.variant)
        for dataflow in DATAFLOWS:
            assert each.op.rows_of(each.variant, dataflow) == other.rows_of(each.variant, dataflow)
        assert each.op.x_alignment(each.algorithm) == (16 if k == 520 else 8)


@settings(deadline=None, max_examples=15)
@given(
    st.sampled_from(["aqlm-2x8", "vq-4-8-1", "gptvq-2", "quip-4", "vq-4-10-1"]),
    st.integers(1, 40).map(lambda n: 32 * n),
    st.sampled_from(["h200", "rtx4090"]),
)
def test_kernels_over_fragments_agree(algorithm: str, n: int, gpu: str) -> None:
    """On the layout of codes, whichever dataflow they have, and on how many counters a workspace begins with."""
    layouts, counters = set(), set()
    op = linear(1, 64, n=n, k=2048)
    for number, _ in enumerate(op.variants()):
        each = problem(algorithm, kind="linear", variant=number, gpu=gpu, n=n, k=2048, m=op.m, level="best")
        for dataflow in ("fragment", "warpgroup", "dense"):
            if any(refusals(each, dataflow)):
                continue
            plan = analyze(each, Strategy("none", dataflow=dataflow))
            work = workload_of(each, plan, certain_placement(each, plan))
            layouts.add(plan.layout)
            for tile, _ in each.op.tiles(each.variant, work, machine_of(gpus.load(gpu))):
                assert isinstance(tile, FragmentTile | WarpgroupTile | DenseTile)
                counters.add(tile.arrivals)
    assert len(layouts) == 1
    assert len(counters) == 1


def test_few_rows_have_no_multiplies_of_a_warpgroup() -> None:
    found = {
        each.variant.sizes["m"]: list(refusals(each, "warpgroup"))
        for each in kernels("aqlm-2x8", k=528, n=64)
    }
    assert {bound for bound, reasons in found.items() if not reasons} == {32, 48, 64, 96, 128, 192, 200}
    assert found[16] == ["gemv has no such kernels"]


def test_every_op_over_a_weight_has_its_kinds_kernels() -> None:
    """Elsewhere no line is drawn: the spec lists the bounds."""
    drawn = {name for name, op in WEIGHT_OPS.items() if op.chosen_by_time}
    assert drawn == {"linear"}
