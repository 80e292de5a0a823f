"""Rows: for which bounds on the rows of inputs a library has kernels, where its op leaves that to the planner.

A launch takes the kernel of the least bound that covers its rows. So a bound needs a kernel of its own only where that
takes less time than the kernel of the next bound, at the same rows; what is drawn with it is the line between kernels
that are made for few rows and those that are made for many.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from vqcc.passes.phases import plan_time
from vqcc.plan import Decision, Rejected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vqcc.plan import Plan
    from vqcc.problem import Problem

__all__ = ["MARGIN", "draw_lines", "predicted_at"]

#: How many times longer the next bound's kernel must take than a bound's own for that to be made: predictions are off
#: by as much (docs/performance.md), and each kernel takes time to compile and to load.
MARGIN = 1.05


def predicted_at(problem: Problem, plan: Plan, rows: int) -> float:
    """Predicted microseconds of a launch of a kernel with `rows` rows of inputs, no more than its bound."""
    assert plan.tile is not None
    at_rows = plan_time(problem, replace(plan, tile=problem.op.tile_at(plan.tile, rows)))
    assert at_rows.predicted_us is not None
    return at_rows.predicted_us


def draw_lines(kernels: Sequence[tuple[Problem, Plan | None]]) -> dict[tuple[str, str], Decision]:
    """Which kernels a library has, of those that it may have, planned for all of its GPUs; and why.

    A bound has one if that pays on any of the GPUs, which have the same kernels. One without a plan stays: whoever
    compiles it says what is wrong.
    """
    found: dict[tuple[str, str], Decision] = {}
    for dtype in dict.fromkeys(problem.variant.dtype for problem, _ in kernels):
        own = [pair for pair in kernels if pair[0].variant.dtype == dtype]
        kept = _kept(own)
        for gpu in dict.fromkeys(problem.gpu.name for problem, _ in own):
            of_gpu = {_bound(pair[0]): pair for pair in own if pair[0].gpu.name == gpu}
            for bound in kept:
                found[gpu, of_gpu[bound][0].variant.suffix] = _explain(bound, kept, of_gpu)
    return found


def _bound(problem: Problem) -> int:
    return problem.op.input_rows(problem.variant)


def _kept(kernels: Sequence[tuple[Problem, Plan | None]]) -> list[int]:
    """Bounds of one type that have a kernel, ascending: the largest, and of the others those that pay."""
    bounds = sorted({_bound(problem) for problem, _ in kernels}, reverse=True)
    kept = bounds[:1]
    for bound in bounds[1:]:
        own = {problem.gpu.name: (problem, plan) for problem, plan in kernels if _bound(problem) == bound}
        following = {
            problem.gpu.name: (problem, plan) for problem, plan in kernels if _bound(problem) == kept[-1]
        }
        if any(_pays(own[gpu], following[gpu], bound) for gpu in own):
            kept.append(bound)
    return kept[::-1]


def _pays(own: tuple[Problem, Plan | None], following: tuple[Problem, Plan | None], bound: int) -> bool:
    """Whether a bound's kernel takes less time than the next one's at as many rows."""
    (problem, plan), (other, others_plan) = own, following
    if plan is None or others_plan is None:
        return True
    return MARGIN * predicted_at(problem, plan, bound) <= predicted_at(other, others_plan, bound)


def _explain(bound: int, kept: Sequence[int], kernels: Mapping[int, tuple[Problem, Plan | None]]) -> Decision:
    """Why one kernel of a GPU and type is made, and what rows it serves."""
    number = kept.index(bound)
    first = kept[number - 1] + 1 if number else 1
    following = kept[number + 1] if number + 1 < len(kept) else None
    problem, plan = kernels[bound]
    inputs: dict[str, int | str | float | bool] = {}
    if plan is not None:
        inputs["predicted_us"] = predicted_at(problem, plan, bound)
    if following is not None and (us := _us(kernels, following, bound)) is not None:
        inputs |= {"next_bound": following, "next_predicted_us": us}
    return Decision(
        "rows_served",
        f"{first} to {bound}" if first < bound else str(bound),
        f"bounds, from the largest down, whose kernel is predicted to take {MARGIN} times less than that of the next "
        "one kept, at as many rows, on any GPU; before compiling",
        inputs,
        _line(kept, kernels),
        rejected=tuple(_rejected(range(first, bound), bound, kernels)),
    )


def _rejected(
    rows: range, bound: int, kernels: Mapping[int, tuple[Problem, Plan | None]]
) -> Iterator[Rejected]:
    """Bounds below that have no kernel, since this one serves them as well."""
    for other in rows:
        if other in kernels:
            own, this = _us(kernels, other, other), _us(kernels, bound, other)
            yield Rejected(f"a kernel for up to {other}", f"it would take {own} us there, this one {this} us")


def _line(kept: Sequence[int], kernels: Mapping[int, tuple[Problem, Plan | None]]) -> str:
    """Where kernels that are made for few rows end, and what either takes there."""
    made_as = {bound: problem.op.made_as(problem.variant) for bound, (problem, _) in kernels.items()}
    for below, above in pairwise(kept):
        if made_as[below] != made_as[above]:
            return (
                f"up to {below} rows they are {made_as[below]} kernels, past that {made_as[above]}: at {below}, "
                f"{_us(kernels, below, below)} us against {_us(kernels, above, below)} us"
            )
    few = [bound for bound in kernels if made_as[bound] != made_as[kept[-1]]]
    if not few:
        return f"all are {made_as[kept[0]]} kernels"
    most = max(few)
    return (
        f"all are {made_as[kept[0]]} kernels: at {most} rows, {_us(kernels, kept[0], most)} us against "
        f"{_us(kernels, most, most)} us of {made_as[most]}"
    )


def _us(kernels: Mapping[int, tuple[Problem, Plan | None]], bound: int, rows: int) -> float | None:
    """What a bound's kernel is predicted to take with so many rows; None without a plan."""
    problem, plan = kernels[bound]
    return None if plan is None else predicted_at(problem, plan, rows)
