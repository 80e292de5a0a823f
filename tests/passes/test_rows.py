"""Lines: which kernels a library of any number of rows has, and that a launch takes what is predicted to be fastest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from libraries import build_fake, make_spec
from problems import kmeans

from vqcc.flow import WEIGHTS
from vqcc.passes.rows import MARGIN, draw_lines, predicted_at
from vqcc.pipeline import estimate
from vqcc.weight_building import problems_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.passes.agreement import Agreed
    from vqcc.plan import Plan
    from vqcc.problem import Problem

SHAPE = {"n": 8192, "k": 4096}
FALLBACK = kmeans(vector_size=4, entries=256, scales={"group": 128})


def agreed_on(algorithm: Any, **options: Any) -> tuple[tuple[Problem, ...], Agreed]:
    """All kernels that a library may have, and what is chosen for it."""
    spec = make_spec(algorithm, **{"kind": "linear", "level": "best", **SHAPE, **options})
    everywhere = tuple(problem for gpu in spec.gpu for problem in problems_of(spec, gpu))
    return everywhere, WEIGHTS.agree(everywhere)[0]


def best_plans(
    problems: tuple[Problem, ...], agreed: Agreed
) -> dict[tuple[str, str, int], tuple[Problem, Plan]]:
    """The plan of least predicted time of every kernel that a library may have, by GPU, type and bound."""
    found = {}
    for problem in problems:
        strategies = [each for dataflow in agreed.dataflows for each in WEIGHTS.strategies(problem, dataflow)]
        plans = [plan for each in strategies if (plan := estimate(problem, each)) is not None]
        best = min(plans, key=lambda plan: plan.predicted_us or 0.0)
        found[problem.gpu.name, problem.variant.dtype, problem.variant.sizes["m"]] = (problem, best)
    return found


def bounds_of(agreed: Agreed, gpu: str, dtype: str = "float16") -> list[int]:
    return sorted(
        int(suffix[1:].partition("_")[0])
        for name, suffix in agreed.lines
        if name == gpu and suffix.endswith(f"_{dtype}")
    )


@pytest.mark.parametrize(
    ("algorithm", "options"),
    [
        ("gptvq-2", {"m": {"min": 1, "max": 4096}}),
        ("aqlm-2x8", {"m": {"min": 1, "max": 300}, "dtype": ["float16", "bfloat16"]}),
        ("quip-4", {"m": {"min": 3, "max": 64}, "gpu": "rtx4090"}),
        ("aqlm-3", {"m": {"min": 1, "max": 512}, "gpu": ["h200", "rtx4090"]}),
        (FALLBACK, {"m": {"min": 1, "max": 100}}),
    ],
    ids=["gptvq-2", "aqlm-2x8", "quip-4", "aqlm-3", "groups"],
)
def test_a_launch_takes_what_is_predicted_to_be_fastest(algorithm: Any, options: Mapping[str, Any]) -> None:
    """At each bound that may have a kernel: no kernel that is left out would take much less."""
    problems, agreed = agreed_on(algorithm, **options)
    plans = best_plans(problems, agreed)
    for gpu, dtype in {key[:2] for key in plans}:
        kept = bounds_of(agreed, gpu, dtype)
        own = {bound: pair for (*key, bound), pair in plans.items() if key == [gpu, dtype]}
        assert kept[-1] == max(own)
        for bound, pair in own.items():
            serving = min(each for each in kept if each >= bound)
            alone = predicted_at(*pair, bound)
            served = predicted_at(*own[serving], bound)
            assert served <= MARGIN * alone, (gpu, bound, serving)
    # And none is made for nothing: each pays on one of the GPUs at least.
    for (_, suffix), line in agreed.lines.items():
        of_all = [each for (_, name), each in agreed.lines.items() if name == suffix]
        gains = [each.inputs for each in of_all if "next_predicted_us" in each.inputs]
        assert line.name == "rows_served"
        assert not gains or any(
            MARGIN * float(each["predicted_us"]) <= float(each["next_predicted_us"]) for each in gains
        )


def test_the_line_between_gemv_and_gemm_is_told() -> None:
    _, agreed = agreed_on("gptvq-2", m={"min": 1, "max": 512})
    bounds = bounds_of(agreed, "h200")
    few = max(bound for bound in bounds if bound <= 16)
    for bound in bounds:
        line = agreed.lines["h200", f"m{bound}_float16"]
        assert line.reason.startswith(f"up to {few} rows they are gemv kernels, past that gemm: at {few}, ")
        first = max((each for each in bounds if each < bound), default=0) + 1
        assert line.value == (f"{first} to {bound}" if first < bound else str(bound))


def test_only_rows_of_one_op_have_no_line() -> None:
    _, few = agreed_on("aqlm-2x8", m={"min": 1, "max": 16})
    _, many = agreed_on("aqlm-2x8", m={"min": 64, "max": 512})
    assert {line.reason for line in few.lines.values()} == {"all are gemv kernels"}
    assert {line.reason for line in many.lines.values()} == {"all are gemm kernels"}


@settings(deadline=None, max_examples=8)
@given(
    st.sampled_from(["aqlm-2x8", "gptvq-2", "vq-4-8-1"]),
    st.tuples(st.integers(1, 600), st.integers(1, 600)).map(sorted),
    st.sampled_from(["h200", "a100"]),
    st.sampled_from(["best", "gc", "o3"]),
)
def test_the_largest_bound_and_one_layout(
    algorithm: str, rows: tuple[int, int], gpu: str, level: str
) -> None:
    _, agreed = agreed_on(algorithm, m={"min": rows[0], "max": rows[1]}, gpu=gpu, level=level, n=512, k=2048)
    bounds = bounds_of(agreed, gpu)
    assert bounds[-1] == rows[1]
    assert bounds[0] >= rows[0]
    built = build_fake(
        algorithm, kind="linear", m={"min": rows[0], "max": rows[1]}, gpu=gpu, level=level, n=512, k=2048
    )
    (build,) = built.gpus
    assert [problem.variant.sizes["m"] for problem in build.problems] == bounds
    assert len({plan.layout for plan in build.plans}) == 1
    assert all(plan.decisions[0].name == "rows_served" for plan in build.plans)


def test_a_kernel_without_a_plan_stays() -> None:
    """The compiler's search says what is wrong with it."""
    problems, _ = agreed_on("aqlm-2x8", m={"min": 1, "max": 4}, level="gc")
    assert len(draw_lines([(problem, None) for problem in problems])) == len(problems)
