"""The passes in order: from a problem to a plan. `vqcc.search` runs them, and the compiler between them."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

from vqcc.codegen.resources import Resources
from vqcc.diagnostics import VqccError
from vqcc.passes.bounds import plan_bounds, promised_registers
from vqcc.passes.bucket import plan_bucket_layout, plan_buckets
from vqcc.passes.choice import predicted
from vqcc.passes.exchange import plan_exchange
from vqcc.passes.fragment import plan_dense, plan_fragment_layout, plan_fragments, plan_warpgroups
from vqcc.passes.hotness import plan_hotness
from vqcc.passes.launch import plan_launch
from vqcc.passes.layout import plan_layout
from vqcc.passes.phases import place_nothing, plan_time
from vqcc.passes.placement import certain_placement, place_all, place_none, place_slack
from vqcc.passes.score import plan_look_ups, plan_rotated_layout
from vqcc.passes.slack import plan_slack
from vqcc.passes.split import WHOLE, plan_split, weigh_split
from vqcc.passes.tile import plan_tile, plan_tiles
from vqcc.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vqcc.levels import Strategy
    from vqcc.picks import TileIdentity
    from vqcc.problem import Problem

    _Pass = Callable[[Problem, Plan], Plan]

__all__ = [
    "analyze",
    "base_kernel",
    "decide_split",
    "estimate",
    "plan_base",
    "plan_compiled",
    "plan_kernel",
    "proposals",
]

#: How dataflows past the paper's lay codes out, and what becomes of these.
_PASSES: Mapping[str, tuple[_Pass, _Pass]] = {
    "score": (plan_rotated_layout, plan_look_ups),
    "fragment": (plan_fragment_layout, plan_fragments),
    "bucket": (plan_bucket_layout, plan_buckets),
    "warpgroup": (plan_fragment_layout, plan_warpgroups),
    "dense": (plan_fragment_layout, plan_dense),
}


def analyze(problem: Problem, strategy: Strategy) -> Plan:
    """Everything that needs no tile: layout, hotness, exchange, and the split that bytes propose."""
    plan = Plan(problem.kernel, problem.level, strategy)
    if strategy.dataflow in _PASSES:
        lay_out, multiply = _PASSES[strategy.dataflow]
        return multiply(problem, plan_hotness(problem, lay_out(problem, plan)))
    plan = plan_layout(problem, plan)
    plan = plan_hotness(problem, plan)
    plan = plan_exchange(problem, plan)
    return plan_split(problem, plan)


def plan_base(
    problem: Problem,
    strategy: Strategy,
    attempt: int = 0,
    pinned: TileIdentity | None = None,
) -> Plan | None:
    """Up to the tile, the op's proposal number `attempt`, or the one that is `pinned`. None: no more tiles."""
    plan = decide_split(problem, analyze(problem, strategy))
    return plan_tile(problem, plan, certain_placement(problem, plan), attempt, pinned)


def decide_split(problem: Problem, proposal: Plan) -> Plan:
    """The plan with the split that it proposes, or without one, whichever is predicted to be faster."""
    if proposal.split == WHOLE:
        return proposal
    times = []
    for plan in (proposal, replace(proposal, split=WHOLE)):
        try:
            estimated = _estimated(problem, plan_tile(problem, plan, certain_placement(problem, plan)))
        except VqccError:  # boundaries of the spec that only the other one's blocks can have
            estimated = None
        times.append(math.inf if estimated is None else predicted(estimated))
    return weigh_split(proposal, *times)


def base_kernel(problem: Problem, base: Plan) -> Plan:
    """The kernel with an empty cache that is compiled to see what it leaves."""
    return plan_bounds(problem, _empty(problem, base))


def plan_kernel(
    problem: Problem, base: Plan, resources: Resources | None, cut: int = 0, *, hold: bool = True
) -> Plan:
    """Fill the cache as the strategy says: from the slack of the base kernel, compiled to `resources`, or regardless.

    `cut` halves what registers hold so often; with `hold` the compiler keeps the base kernel's occupancy.
    """
    if base.strategy.caching == "slack":
        assert base.tile is not None
        assert resources is not None
        threads, shared = 32 * base.tile.warps, base.tile.shared_bytes + resources.static_shared_bytes
        plan = plan_slack(problem, base, threads=threads, registers=resources.registers, shared_bytes=shared)
        plan = place_slack(problem, plan, cut)
    elif base.strategy.caching == "all":
        plan = place_all(problem, base)
    else:
        plan = _empty(problem, base)
    return plan_bounds(problem, plan, hold=hold)


def plan_compiled(problem: Problem, plan: Plan, resources: Resources) -> Plan:
    """Launch the kernel with what the compiler says it needs, and predict its time."""
    return plan_time(problem, plan_launch(problem, plan, resources))


def estimate(
    problem: Problem, strategy: Strategy, attempt: int = 0, pinned: TileIdentity | None = None
) -> Plan | None:
    """The plan and its predicted time before anything is compiled: with the slack that launch bounds promise."""
    return _estimated(problem, plan_base(problem, strategy, attempt, pinned))


def proposals(problem: Problem, strategy: Strategy) -> Iterator[Plan]:
    """Every tile of a strategy that is worth timing, with its predicted time."""
    plan = decide_split(problem, analyze(problem, strategy))
    for base in plan_tiles(problem, plan, certain_placement(problem, plan), every=True):
        estimated = _estimated(problem, base)
        if estimated is not None:
            yield estimated


def _estimated(problem: Problem, base: Plan | None) -> Plan | None:
    if base is None:
        return None
    promised = Resources(promised_registers(problem, base_kernel(problem, base)), 0, 0, 0, 0, 0)
    return plan_time(problem, plan_kernel(problem, base, promised))


def _empty(problem: Problem, base: Plan) -> Plan:
    """The plan with an empty cache."""
    return (place_none if base.strategy.dataflow == "decode" else place_nothing)(problem, base)
