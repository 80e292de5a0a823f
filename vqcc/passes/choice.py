"""Choice: level `best` is the strategy of least predicted time.

The strategies of all levels compete, and those past the paper. They are ranked by estimates before anything is
compiled; the pipeline compiles the first, and others while their estimate is below what the first has become.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, get_args

from vqcc.diagnostics import VqccError
from vqcc.levels import DATAFLOW_WORDS, STRATEGIES, Dataflow, Strategy
from vqcc.passes.dataflow import refusals
from vqcc.passes.placement import check_placement
from vqcc.plan import Decision, Rejected
from vqcc.problem import Boundaries, Problem

if TYPE_CHECKING:
    from vqcc.passes.agreement import Agreed
    from vqcc.picks import Pick
    from vqcc.plan import KernelPlan, Plan

__all__ = [
    "DATAFLOWS",
    "PAST_THE_PAPER",
    "contenders",
    "describe",
    "explain_choice",
    "explain_pick",
    "legal_strategies",
    "predicted",
]

#: Dataflows by what the packed codes of their kernels are like: a library has one layout of codes.
DATAFLOWS: tuple[Dataflow, ...] = get_args(Dataflow)

#: Strategies past the paper's: score tables, codes packed in the order of fragments or in buckets, copies of entries,
#: and entries decoded straight into the fragments of tensor cores.
PAST_THE_PAPER = (
    *(Strategy("none", dataflow=dataflow) for dataflow in DATAFLOW_WORDS),
    Strategy("all", fusion="aligned"),
    *(
        Strategy("slack", registers=True, codebook_centric=centric, fusion=fusion, copies=copies)
        for fusion in ("none", "aligned")
        for centric in (False, True)
        for copies in (1, 4, 8, 32)
        if fusion == "aligned" or copies > 1
    ),
)
#: Strategies that may be compiled: these many at most, none whose estimate is so many times the best one's.
FINALISTS, RACE = 3, 1.15


Estimate = Callable[[Problem, Strategy], "Plan | None"]
Contenders = list[tuple[float, Strategy]]


def contenders(
    problem: Problem, estimate: Estimate, dataflow: Dataflow = "decode", *beside: Dataflow
) -> Contenders:
    """Estimated microseconds and strategies that stay in the race, the most promising first; the first on a tie.

    They are of `dataflow` and of those `beside` it. `estimate` plans a strategy before anything is compiled; None if it
    has no tile. The last ones are there in case nothing else compiles. Raises VQ0406 if no strategy can have the spec's
    boundaries.
    """
    seen: set[object] = set()
    refused: list[VqccError] = []
    ranked: list[tuple[float, Strategy]] = []
    plain: dict[Dataflow, tuple[float, Strategy]] = {}
    for strategy in (each for own in (dataflow, *beside) for each in legal_strategies(problem, own)):
        try:
            plan = estimate(problem, strategy)
        except VqccError as error:  # boundaries that this strategy's blocks cannot have
            refused.append(error)
            continue
        if plan is None:
            continue
        identity = (plan.tile, plan.placement, plan.minimum_blocks, plan.split, plan.exchange)
        if identity in seen:  # the same kernel by another name
            continue
        seen.add(identity)
        ranked.append((predicted(plan), strategy))
        if strategy.fusion == "none":
            plain.setdefault(strategy.dataflow, ranked[-1])
    if not ranked and refused:
        raise refused[0]
    if not ranked:  # no strategy has a tile: whoever plans the first one finds out
        return [(0.0, STRATEGIES["gc"])] if dataflow == "decode" else []
    ranked.sort(key=lambda pair: pair[0])
    chosen = [(time, strategy) for time, strategy in ranked[:FINALISTS] if time <= RACE * ranked[0][0]]
    # Were every tile of these to spill, the plainest kernel of a dataflow would still do.
    return chosen + [pair for pair in plain.values() if pair not in chosen]


def legal_strategies(problem: Problem, dataflow: Dataflow) -> tuple[Strategy, ...]:
    """Strategies of a dataflow, of the paper's levels and past them, that the problem can have."""
    return tuple(
        strategy
        for strategy in (*STRATEGIES.values(), *PAST_THE_PAPER)
        if strategy.dataflow == dataflow and _legal(problem, strategy)
    )


def _legal(problem: Problem, strategy: Strategy) -> bool:
    """Whether the strategy can be had: a spec's boundaries are for the slack, and whole books must fit."""
    if strategy.caching != "slack" and problem.boundaries != Boundaries():
        return False
    if any(refusals(problem, strategy.dataflow)):
        return False
    return strategy.caching != "all" or not any(check_placement(problem.algorithm, problem.gpu, "sc"))


def explain_choice(
    compiled: Sequence[tuple[Strategy, float]],
    estimated: Sequence[tuple[float, Strategy]],
    spilled: Sequence[Strategy] = (),
    agreed: Agreed | None = None,
) -> Decision:
    """Why the fastest of the `compiled` strategies won, against these and those that were only `estimated`.

    `spilled` are those of which no tile compiled without a stack frame or spills; `agreed` says what dataflow the
    library has, and why not another one.
    """
    winner, time = min(compiled, key=lambda pair: pair[1])
    losers = [
        Rejected(describe(other), f"{its:g} us as compiled") for other, its in compiled if other != winner
    ]
    losers += [Rejected(describe(other), f"{its:g} us as estimated") for its, other in estimated]
    losers += [Rejected(describe(other), "each of its tiles spills registers") for other in spilled]
    losers += () if agreed is None else agreed.others
    whole_library = "one order of codes for the whole library"
    if agreed is not None and agreed.measured:
        whole_library += ", the one that took least on the GPUs that were tuned"
    return Decision(
        "strategy",
        describe(winner),
        f"least predicted time of the levels' strategies and those past the paper; {whole_library}",
        {
            "predicted_us": time,
            "compiled": len(compiled),
            "estimated": len(estimated),
            "spilled": len(spilled),
        },
        "see predicted_us for what it is made of"
        if losers
        else f"every other strategy is estimated to take more than {RACE} times as long",
        "",
        tuple(losers),
    )


def explain_pick(pick: Pick, others: Sequence[Rejected] = ()) -> Decision:
    """Why a strategy and its tile were taken though the model was not asked; `others` are dataflows left out."""
    return Decision(
        "strategy",
        describe(pick.strategy),
        "least measured time of those that were tuned; one order of codes for the whole library",
        {"measured_us": pick.us},
        f"recorded by `vqcc tune`, on {pick.measured_on}",
        "",
        tuple(others),
    )


def describe(strategy: Strategy) -> str:
    """A strategy in words: the level that has it, or what it combines."""
    named = {value: name for name, value in STRATEGIES.items()}
    if strategy in named:
        return named[strategy]
    if strategy.dataflow != "decode":
        return DATAFLOW_WORDS[strategy.dataflow]
    parts = [
        {"global": "global look-ups", "all": "whole books shared", "slack": "books in the slack"}[
            strategy.caching
        ]
    ]
    parts += ["hot entries in registers"] * strategy.registers
    parts += ["codebook-centric"] * strategy.codebook_centric
    parts += ["aligned fragments"] * (strategy.fusion == "aligned")
    parts += [f"up to {strategy.copies} copies of entries"] * (strategy.copies > 1)
    return ", ".join(parts)


def predicted(plan: KernelPlan) -> float:
    """Predicted microseconds of a plan that has them."""
    assert plan.predicted_us is not None
    return plan.predicted_us
