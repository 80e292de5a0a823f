from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import spec_text
from plans import EVERY_STRATEGY, forced, is_legal
from problems import changed, gemv, kmeans, problem, problems
from pydantic import ValidationError

from vqcc import gpus
from vqcc.algorithms import from_mapping
from vqcc.algorithms.presets import resolve
from vqcc.diagnostics import VqccError
from vqcc.ops import OPS, WEIGHT_OPS
from vqcc.ops.gemv import Gemv
from vqcc.ops.linear.tile import LinearTile
from vqcc.passes.placement import part_tiles
from vqcc.spec.load import parse_spec
from vqcc.verify.tolerance import compare

if TYPE_CHECKING:
    from vqcc.levels import Strategy
    from vqcc.problem import Problem


def findings(op: Gemv, algorithm: object = "aqlm-2x8", gpu: object = "h200") -> list[tuple[str, str]]:
    chosen = resolve(algorithm) if isinstance(algorithm, str) else from_mapping(algorithm)  # type: ignore[arg-type]
    card = gpus.load(gpu) if isinstance(gpu, str) else gpu
    return [(item.code, item.path[-1]) for item in op.check(chosen, card)]  # type: ignore[arg-type]


def test_a_good_problem_has_no_findings() -> None:
    assert findings(gemv(n=11008, k=4096, m=[1, 16], dtype=["float16", "bfloat16"])) == []


@pytest.mark.parametrize(
    "field",
    [
        {"m": 0},
        {"m": 17},
        {"m": []},
        {"m": [1, 4, 1]},
        {"dtype": ["float16"] * 2},
        {"n": 0},
        {"k": 2**31},
        {"dtype": "float32"},
    ],
)
def test_what_no_op_is(field: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        gemv(**field)  # type: ignore[arg-type]


def test_a_type_that_a_gpu_lacks() -> None:
    gpu = gpus.load("a100").model_copy(update={"name": "old", "dtypes": ("float16",)})
    assert findings(gemv(dtype="float16"), gpu=gpu) == []
    assert findings(gemv(dtype=["float16", "bfloat16"]), gpu=gpu) == [("VQ0308", "dtype")]


def test_a_type_that_an_inline_gpu_lacks_is_shown_in_the_spec() -> None:
    facts = {name: fact.value for name, fact in gpus.load("h100").facts().items()}
    gpu = {"name": "mine", "compute_capability": "9.0", "dtypes": ["float16"], **facts}
    text = spec_text(gpu=gpu, dtype="bfloat16")
    with pytest.raises(VqccError) as caught:
        parse_spec(text.encode(), "spec.yaml")
    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.code, diagnostic.message) == ("VQ0308", "mine cannot compute in bfloat16")
    assert diagnostic.help == "use float16"
    assert diagnostic.span is not None
    assert '"dtype": "bfloat16"' in text.splitlines()[diagnostic.span.line - 1]


@pytest.mark.parametrize("preset", ["aqlm-2x8", "aqlm-3", "quip-2", "gptvq-4"])
def test_the_last_row_that_32_bits_reach(preset: str) -> None:
    algorithm = resolve(preset)
    k = 1 << 20
    row_bytes = k // algorithm.vector_size * algorithm.residuals * algorithm.code_bits // 8
    limit = (2**31 - 1) // row_bytes
    assert ("VQ0307", "n") not in findings(gemv(n=limit, k=k), preset)
    assert findings(gemv(n=limit + 1, k=k), preset) == [("VQ0307", "n")]


def test_the_last_group_that_32_bits_reach() -> None:
    grouped = kmeans(vector_size=16, entries=2, scales={"group": 16})
    k = 1 << 12
    limit = (2**31 - 1) // (k // 16)
    assert findings(gemv(n=limit, k=k), grouped) == []
    assert findings(gemv(n=limit + 1, k=k), grouped) == [("VQ0307", "n")]


def test_the_longest_row() -> None:
    """Twice its columns, and so any offset of a warp past its end, stay within 32 bits."""
    bits = kmeans(vector_size=16, entries=2)
    assert findings(gemv(n=1, k=2**30), bits) == []
    with pytest.raises(ValidationError):
        gemv(n=1, k=2**30 + 16)


def test_a_row_takes_a_word_at_least() -> None:
    tiny = kmeans(vector_size=1, entries=2)
    assert findings(gemv(n=2**29 - 1, k=1), tiny) == []
    assert findings(gemv(n=2**29, k=1), tiny) == [("VQ0307", "n")]


def test_an_overflow_is_reported_once_for_all_gpus() -> None:
    with pytest.raises(VqccError) as caught:
        parse_spec(spec_text(n=2**28, k=2**20, gpu=["h200", "a100"]).encode(), "spec.yaml")
    assert [item.code for item in caught.value.diagnostics] == ["VQ0307"]
    assert "at most" in str(caught.value.diagnostics[0].help)


def test_variants_in_a_fixed_order() -> None:
    op = gemv(m=[16, 1, 4], dtype=["float16", "bfloat16"])
    variants = op.variants()
    assert [variant.suffix for variant in variants] == [
        f"m{m}_{dtype}" for dtype, m in product(("bfloat16", "float16"), (1, 4, 16))
    ]
    assert [(variant.dtype, variant.sizes) for variant in variants[:2]] == [
        ("bfloat16", {"m": 1}),
        ("bfloat16", {"m": 4}),
    ]
    assert gemv(m=[4, 16, 1], dtype=["bfloat16", "float16"]).variants() == variants


def test_arguments() -> None:
    op = gemv(dtype=["float16", "bfloat16"])
    half, wide = (op.arguments(variant) for variant in reversed(op.variants()))
    assert [argument.name for argument in half] == [
        "codes",
        "books",
        "stage_scales",
        "scales",
        "x",
        "bias",
        "y",
        "workspace",
        "m",
        "x_stride",
        "y_stride",
    ]
    assert {argument.name for argument in half if argument.optional} == {
        "stage_scales",
        "scales",
        "bias",
        "workspace",
    }
    assert [argument.c_type for argument in half if argument.role == "workspace"] == ["void*"]
    assert [argument.c_type for argument in half if argument.role == "output"] == ["__half*"]
    assert [argument.c_type for argument in wide if argument.role == "input"] == ["const __nv_bfloat16*"] * 2


def test_axes() -> None:
    assert set(Gemv.reduce_axes) < set(Gemv.axes)
    assert OPS["gemv"] is WEIGHT_OPS["gemv"] is Gemv
    assert json.loads(gemv(m=3).model_dump_json())["m"] == [3]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_drawn_cases(dtype: str) -> None:
    op = gemv(n=5, k=24, m=4, dtype=dtype)
    (variant,) = op.variants()
    case = op.draw_case(variant, {"m": 3}, resolve("aqlm-2x8"), np.random.default_rng(0))
    assert case.sizes == {"m": 3}
    x, y = case.inputs["x"], case.outputs["y"]
    assert x.dtype == y.dtype == (np.float16 if dtype == "float16" else ml_dtypes.bfloat16)
    assert case.scalars == {"m": 3, "x_stride": x.shape[1], "y_stride": y.shape[1]}
    assert x.shape[0] == y.shape[0] == 3
    assert x.shape[1] % 8 == 0, "rows of x are as aligned as vectors of 8 need"
    assert x.shape[1] > 24
    assert np.isnan(x[:, 24:].astype(np.float32)).all(), "gaps hold what must not be read"
    assert np.isfinite(x[:, :24].astype(np.float32)).all()
    assert np.isnan(y.astype(np.float32)).all()
    assert case.result(case.outputs).shape == (3, 5)
    assert case.untouched(case.outputs).shape == (3, y.shape[1] - 5)


@pytest.mark.parametrize(("bound", "sizes"), [(1, [1]), (2, [1, 2]), (5, [2, 5]), (16, [8, 16])])
def test_a_variant_is_tried_at_its_bound_and_below(bound: int, sizes: list[int]) -> None:
    op = gemv(m=bound)
    assert op.launch_sizes(op.variants()[0]) == tuple({"m": m} for m in sizes)


def test_the_reference_is_the_definition() -> None:
    rng = np.random.default_rng(3)
    op = gemv(n=3, k=4, m=2)
    weights = rng.standard_normal((3, 4))
    inputs = {
        "x": rng.standard_normal((2, 7)).astype(np.float16),
        "bias": rng.standard_normal(3).astype(np.float16),
    }
    result, magnitude = op.reference(weights, 2 * np.abs(weights), inputs)
    for m, n in product(range(2), range(3)):
        terms = [float(inputs["x"][m, k]) * weights[n, k] for k in range(4)]
        assert result[m, n] == pytest.approx(sum(terms) + float(inputs["bias"][n]), rel=1e-13)
        assert magnitude[m, n] == pytest.approx(
            2 * sum(map(abs, terms)) + abs(float(inputs["bias"][n])), rel=1e-13
        )
    without, _ = op.reference(weights, np.abs(weights), {"x": inputs["x"]})
    assert np.allclose(result - without, inputs["bias"].astype(np.float64), rtol=0, atol=1e-12)


@settings(max_examples=300)
@given(problems(), st.sampled_from(list(EVERY_STRATEGY.values())))
def test_the_longest_sum_counts_every_term(task: Problem, strategy: Strategy) -> None:
    """Terms that a lane or a tensor core's fragment adds one after another, then lanes, warps and parts.

    No bound is void, or counts every term more than a few times.
    """
    if not is_legal(task, strategy):
        return
    plan = forced(task, strategy)
    assert plan.layout is not None
    assert isinstance(plan.tile, LinearTile)
    roundings = task.op.longest_sum(plan.tile, task.algorithm)
    _, columns = task.op.weight_shape
    stages = task.algorithm.residuals // plan.split.stages
    warps = plan.tile.warps_along_row * plan.split.tiles
    if plan.exchange.engine == "mma":
        one_after_another, across_lanes, most = columns * stages / warps, 0, 4 * columns * stages
    else:
        one_after_another, across_lanes, most = columns / (32 * warps), 5, columns
    sums = plan.tile.warps_along_row + plan.split.factor
    assert roundings >= one_after_another + across_lanes + sums
    # Ragged rows, and phases of books, give a warp more than its share.
    assert plan.placement is not None
    phases = -(-part_tiles(task, plan) // plan.placement.resident_tiles)
    chunk = 4 * 4 * plan.layout.chunk_vectors * task.algorithm.vector_size * stages
    assert roundings <= most + (phases + 1) * chunk + sums + 64
    assert roundings < 2**24, "the bound would be void"


@given(problems())
def test_layouts_that_engines_want(task: Problem) -> None:
    op, variant, algorithm = task.op, task.variant, task.algorithm
    for exact in (False, True):
        for aligned in (False, True):
            layout = op.compute_layout(
                variant, vector_size=algorithm.vector_size, exact=exact, aligned=aligned
            )
            many = variant.sizes["m"] > 4
            if exact and algorithm.vector_size in {2, 4, 8, 16} and (aligned or many):
                assert (layout.engine, layout.width, layout.lanes) == ("mma", 2, 4)
            else:
                # Elements, but whole vectors for many rows of x: they would have to be read element by element too.
                width = algorithm.vector_size if many else 1
                assert (layout.engine, layout.width, layout.lanes) == ("fma", width, 32)


def test_the_bound_is_met_by_the_worst_order_and_not_by_a_wrong_product() -> None:
    """Sums in fp32, one after another, stay within the bound of that many roundings; a dropped term does not."""
    rng = np.random.default_rng(4)
    columns = 2048
    x, w = rng.standard_normal((1, columns)).astype(np.float16), rng.standard_normal((1, columns))
    w = w.astype(np.float32)
    total = np.float32(0)
    for a, b in zip(x[0].astype(np.float32), w[0], strict=True):
        total = np.float32(total + a * b)
    op = gemv(n=1, k=columns)
    exact, magnitude = op.reference(w.astype(np.float64), np.abs(w).astype(np.float64), {"x": x})
    assert compare(np.array([[total]]).astype(np.float16), exact, magnitude, columns + 10, "float16").passed
    missing = np.array([[total - np.float32(x[0, 0]) * w[0, 0] - 1]])
    assert not compare(missing.astype(np.float16), exact, magnitude, columns + 10, "float16").passed


@given(st.integers(1, 16))
def test_header_values(vector_size: int) -> None:
    algorithm = from_mapping(kmeans(vector_size=vector_size, scales="row", codebook_dtype="int8"))
    values = gemv(n=7, k=vector_size * 3, m=[2, 5]).header_values(algorithm)
    alignment = values["x_alignment"]
    assert (2 * vector_size) % alignment == 0
    assert 16 % alignment == 0
    assert (2 * vector_size) % (2 * alignment) != 0 or alignment == 16
    assert (values["n"], values["k"], values["max_m"]) == (7, vector_size * 3, 5)
    assert (values["needs_scales"], values["needs_stage_scales"]) == (1, 1)
    assert gemv().header_values(resolve("gptvq-2"))["needs_scales"] == 0


def test_problem_constants_are_cut_to_the_weight() -> None:
    task = problem(kmeans(scope={"rows": 256, "cols": 256}, scales={"group": 64}), n=100, k=128)
    constants = {constant.name: constant.value for constant in task.op.problem_constants(task.algorithm)}
    assert constants == {
        "kRows": 100,
        "kColumns": 128,
        "kTileRows": 100,
        "kTileColumns": 128,
        "kScaleMode": "vqcc::ScaleMode::kGroup",
        "kGroupColumns": 64,
    }


def test_a_gpu_with_other_numbers() -> None:
    assert changed("h200", sm_count=7).sm_count.integer == 7
