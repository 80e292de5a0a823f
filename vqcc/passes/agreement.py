"""Agreement: the dataflow that all kernels of a library have, since they read the same packed codes.

A library is compiled for several sizes, element types and GPUs, and its weight is packed once. Dataflows are weighed by
what all of its kernels are predicted to take. Of dataflows that read the same order of codes, each kernel has its
fastest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeVar

from vqcc.levels import CODE_ORDERS, STRATEGIES, Dataflow
from vqcc.passes.choice import DATAFLOWS, contenders
from vqcc.passes.dataflow import refusals
from vqcc.passes.rows import draw_lines
from vqcc.plan import Decision, Rejected
from vqcc.problem import KernelProblem, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vqcc.passes.choice import Contenders, Estimate
    from vqcc.plan import Plan

__all__ = ["DOUBT", "Agreed", "agree", "of_kernels", "refusals_of_all", "total", "weigh"]

AnyProblem = TypeVar("AnyProblem", bound=KernelProblem)

#: How much longer than predicted a dataflow is taken to be where dataflows are weighed. Predictions of kernels that
#: decode are off by 19 % (root mean square), those of the others by 5 to 6 % (docs/performance.md), and the least of
#: several that are off is too low.
DOUBT: Mapping[Dataflow, float] = {"decode": 1.1}


@dataclass(frozen=True)
class Agreed:
    """A dataflow that all kernels of a library can have, and why the library does without the others.

    `beside` are others that read the same packed codes: a kernel has the fastest of all these that it can have. If
    `measured`, it took least where the library was tuned, whatever the model says of it. `lines` say why kernels are
    made, by GPU and variant, where that was the planner's to say: those without are not.
    """

    dataflow: Dataflow
    others: tuple[Rejected, ...] = ()
    measured: bool = False
    beside: tuple[Dataflow, ...] = ()
    lines: Mapping[tuple[str, str], Decision] = field(default_factory=dict)

    @property
    def dataflows(self) -> tuple[Dataflow, ...]:
        """All that its kernels may have."""
        return (self.dataflow, *self.beside)

    def made(self, problems: Sequence[AnyProblem]) -> tuple[AnyProblem, ...]:
        """Those of a GPU's kernels that are made."""
        if not self.lines:
            return tuple(problems)
        return tuple(each for each in problems if (each.gpu.name, each.variant.suffix) in self.lines)

    def explained(self, problem: Problem, plan: Plan) -> Plan:
        """The plan of a kernel with why it is made, if that was the planner's to say."""
        line = self.lines.get((problem.gpu.name, problem.variant.suffix))
        return plan if line is None else replace(plan, decisions=(line, *plan.decisions))


def agree(problems: Sequence[Problem], estimate: Estimate) -> tuple[Agreed, ...]:
    """The dataflows that all kernels of a library can have, on all of its GPUs, the fastest in sum first.

    All of them read the same packed codes, so they share a dataflow, or have those that read one order of codes. Levels
    of the paper decode. Where the op leaves it to the planner which kernels are made, each choice says so of its own,
    and the first is that of the least geometric mean of times: launches may be of any size. Raises VQ0406 if plans have
    to be weighed and no strategy can have the spec's boundaries.
    """
    drawn = _drawn(problems)
    if problems[0].level != "best":
        ranked = [[(0.0, STRATEGIES[problem.level])] for problem in problems]
        return (Agreed("decode", lines=_lines(problems, ranked, estimate) if drawn else {}),)
    against = {dataflow: refusals_of_all(problems, dataflow) for dataflow in DATAFLOWS}
    orders = _orders(problems)
    served = {dataflow for order in orders for dataflow in order}
    reasons = {dataflow: "; ".join(found) for dataflow, found in against.items() if dataflow not in served}
    if len(orders) == 1 and not drawn:  # nothing to plan yet: whoever compiles it will
        ((first, *beside),) = orders
        return (Agreed(first, _refused(reasons), beside=tuple(beside)),)
    totals: dict[Dataflow, float] = {}
    choices: dict[Dataflow, Agreed] = {}
    for first, *beside in orders:
        ranked = [contenders(problem, estimate, first, *beside) for problem in problems]
        if not all(ranked):
            reasons[first] = "no tile of it fits"
            continue
        # Of a kernel without a tile nothing is predicted: whoever compiles it finds out, if nothing else is left.
        times = [DOUBT.get(first, 1.0) * (each[0][0] or math.inf) for each in ranked]
        totals[first] = total(problems, times)
        lines = _lines(problems, ranked, estimate) if drawn else {}
        choices[first] = Agreed(first, beside=tuple(beside), lines=lines)
    weighed = weigh(totals, reasons, of_kernels(problems))
    return tuple(replace(choices[each.dataflow], others=each.others) for each in weighed)


def _orders(problems: Sequence[Problem]) -> list[list[Dataflow]]:
    """Dataflows by the order of codes that they read, if every kernel can have one of them; less what none can have."""
    possible = {
        dataflow: [not any(refusals(problem, dataflow)) for problem in problems] for dataflow in DATAFLOWS
    }
    found = []
    for order in dict.fromkeys(CODE_ORDERS.values()):
        own = [dataflow for dataflow in DATAFLOWS if CODE_ORDERS[dataflow] == order]
        if all(any(each) for each in zip(*(possible[dataflow] for dataflow in own), strict=True)):
            found.append([dataflow for dataflow in own if any(possible[dataflow])])
    return found


def _lines(
    problems: Sequence[Problem], ranked: Sequence[Contenders], estimate: Estimate
) -> dict[tuple[str, str], Decision]:
    """Which kernels are made if each has the first of its strategies."""
    return draw_lines(
        [(problem, estimate(problem, each[0][1])) for problem, each in zip(problems, ranked, strict=True)]
    )


def total(problems: Sequence[KernelProblem], times: Sequence[float]) -> float:
    """What dataflows are weighed by, of the microseconds of each kernel: their sum.

    Their geometric mean where `problems` are kernels that a library may have, for launches of any size.
    """
    return math.prod(time ** (1 / len(times)) for time in times) if _drawn(problems) else sum(times)


def of_kernels(problems: Sequence[KernelProblem]) -> str:
    """What the total of all kernels of a library is, in words; nothing for one kernel."""
    if len(problems) == 1:
        return ""
    if _drawn(problems):
        return f" in the geometric mean of the {len(problems)} kernels that the library may have"
    return f" for the library's {len(problems)} kernels together"


def _drawn(problems: Sequence[KernelProblem]) -> bool:
    """Whether the planner draws the lines between kernels."""
    return isinstance(problems[0], Problem) and problems[0].op.chosen_by_time


def weigh(
    totals: Mapping[Dataflow, float], reasons: Mapping[Dataflow, str], whole: str
) -> tuple[Agreed, ...]:
    """Dataflows by the microseconds of a `whole` library, the fastest first; `reasons` speak against others."""
    return tuple(
        Agreed(dataflow, (*_refused(reasons), *_slower(dataflow, totals, whole)))
        for dataflow in sorted(totals, key=lambda dataflow: totals[dataflow])
    )


def _refused(reasons: Mapping[Dataflow, str]) -> tuple[Rejected, ...]:
    return tuple(Rejected(dataflow, why) for dataflow, why in reasons.items())


def _slower(chosen: Dataflow, totals: Mapping[Dataflow, float], whole: str) -> Iterator[Rejected]:
    """The other dataflows that a library could have, each beside the chosen one, both as they were weighed."""
    for other, total in totals.items():
        if other != chosen:
            told, own = _weighed(other, total), _weighed(chosen, totals[chosen])
            yield Rejected(other, f"estimated {told}{whole}, this one {own}, before compiling either")


def _weighed(dataflow: Dataflow, total: float) -> str:
    doubt = f" ({DOUBT[dataflow]:g} times what is predicted)" if dataflow in DOUBT else ""
    return f"{total:.5g} us{doubt}"


def refusals_of_all(problems: Sequence[Problem], dataflow: Dataflow) -> list[str]:
    """What stands against a dataflow for a library, with the kernels that it is true of if not of all."""
    found: dict[str, list[str]] = {}
    for problem in problems:
        for reason in refusals(problem, dataflow):
            found.setdefault(reason, []).append(problem.variant.suffix)
    variants = {problem.variant.suffix for problem in problems}
    whole = [reason for reason, names in found.items() if set(names) == variants]
    partial = [
        f"{', '.join(dict.fromkeys(names))} of this library: {reason}"
        for reason, names in found.items()
        if set(names) != variants
    ]
    if _drawn(problems):  # of many kernels, one reason says enough
        return whole or partial[-1:]
    return whole + partial
