"""Trials: kernels on their way through the pipeline and the compiler, until each is as planned or has run out of tiles.

The compiler has its say on registers, so a plan is planned anew where its kernel spills or overruns its slack: with
fewer register entries, then without the demand on occupancy, then with the op's next tile. A kernel whose multiplies of
warpgroups it serializes (its notices C7510 and C7511) gets the next tile too, and is taken if nothing else compiles.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

from vqcc.codegen.render import UNNAMED
from vqcc.passes.bounds import held_blocks
from vqcc.passes.launch import plan_launch
from vqcc.plan import KernelPlan
from vqcc.problem import KernelProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vqcc.codegen.toolchain import Compiled, Resources
    from vqcc.flow import Flow
    from vqcc.levels import Strategy
    from vqcc.picks import TileIdentity

    Compile = Callable[[str], Compiled]

__all__ = ["MAX_REPLANS", "Settled", "Trial", "render_named", "render_numbered", "settle", "spills"]

AnyProblem = TypeVar("AnyProblem", bound=KernelProblem)
AnyPlan = TypeVar("AnyPlan", bound=KernelPlan)

#: Times that a kernel is planned anew because it overran its slack (Sec. V-B), before it is compiled without the demand
#: to keep the base kernel's occupancy.
MAX_REPLANS = 3


@dataclass(eq=False)
class Trial(Generic[AnyProblem, AnyPlan]):
    """One kernel on its way: the strategy and tile it is at, how far its cache is cut, and how often it overran it."""

    flow: Flow[AnyProblem, AnyPlan]
    problem: AnyProblem
    strategy: Strategy
    attempt: int = 0
    cut: int = 0
    replans: int = 0
    base: AnyPlan | None = None
    base_resources: Resources | None = None
    #: Why it was planned anew the last time: `spills`, or what limited its occupancy.
    overrun: str | None = None
    #: The only tile to try, if it is not the op's to propose.
    pinned: TileIdentity | None = None
    #: There was no further tile to try: nothing of this strategy compiles.
    exhausted: bool = False
    #: The first tile that does not spill but whose multiplies the assembler serializes; whether it has to do.
    serialized: int | None = None
    concedes: bool = False

    @property
    def needs_base(self) -> bool:
        """Whether a base kernel has to be compiled before this one can be planned."""
        return self.strategy.caching == "slack" and self.base_resources is None

    def take_tile(self) -> None:
        """Plan the base of the tile at hand, if that is not done; the trial is exhausted where there is none."""
        if self.base is None:
            self.base = self.flow.plan_base(self.problem, self.strategy, self.attempt, self.pinned)
            self.exhausted = self.base is None

    def next_tile(self) -> None:
        """Give the tile at hand up."""
        self.attempt, self.cut, self.replans = self.attempt + 1, 0, 0
        self.base, self.base_resources, self.overrun = None, None, None

    def concede(self) -> None:
        """Go back to the first tile whose multiplies are serialized: nothing better compiles."""
        assert self.serialized is not None
        self.next_tile()
        self.attempt, self.exhausted, self.concedes = self.serialized, False, True

    def plan(self) -> AnyPlan:
        """The plan of the tile at hand, which has been taken, and whose base kernel has been compiled."""
        assert self.base is not None
        hold = self.cut < MAX_REPLANS
        return self.flow.plan_kernel(self.problem, self.base, self.base_resources, self.cut, hold=hold)

    def accepts(self, plan: AnyPlan, resources: Resources) -> bool:
        """Whether the compiled kernel is as planned; otherwise the trial is set for the next plan."""
        if plan.slack is not None and self.cut < MAX_REPLANS:
            overrun = _overrun(self.problem, plan, resources)
            if overrun is not None:
                # Without register entries to give up, only the demand on occupancy is left to drop.
                free = self.flow.may_cut(self.problem, plan)
                self.cut = self.cut + 1 if free else MAX_REPLANS
                self.replans, self.overrun = self.replans + 1, overrun
                return False
        elif spills(resources):
            self.next_tile()
            return False
        if resources.serialized and not self.concedes:
            self.serialized = self.attempt if self.serialized is None else self.serialized
            self.next_tile()
            return False
        return True


@dataclass(frozen=True)
class Settled(Generic[AnyProblem, AnyPlan]):
    """Trials whose kernels are as planned, their finished plans, and the source and cubin that hold them."""

    trials: tuple[Trial[AnyProblem, AnyPlan], ...] = ()
    plans: tuple[AnyPlan, ...] = ()
    source: str = ""
    compiled: Compiled | None = None


def settle(
    trials: Sequence[Trial[AnyProblem, AnyPlan]],
    compile_source: Compile,
    render: Render[AnyProblem, AnyPlan],
    *,
    need_all: bool = False,
) -> Settled[AnyProblem, AnyPlan]:
    """Plan and compile until every kernel is as planned; trials that run out of tiles are left out.

    All trials are of one flow. `render` names the kernels and prints them. With `need_all` nothing settles once one
    has run out.
    """
    pending = list(trials)
    while True:
        running, plans, source, compiled, pending = _compile(trials, compile_source, render)
        if compiled is None or (need_all and len(running) < len(trials)):
            return Settled()
        if not pending:
            finished = tuple(
                trial.flow.plan_compiled(trial.problem, plan, compiled.resources[plan.kernel])
                for trial, plan in zip(running, plans, strict=True)
            )
            return Settled(tuple(running), finished, source, compiled)
        # Only these are compiled again until all can be.
        while pending and not (need_all and any(trial.exhausted for trial in trials)):
            pending = _compile(pending, compile_source, render_numbered)[-1]


def _compile(
    trials: Sequence[Trial[AnyProblem, AnyPlan]], compile_source: Compile, render: Render[AnyProblem, AnyPlan]
) -> tuple[
    list[Trial[AnyProblem, AnyPlan]],
    tuple[AnyPlan, ...],
    str,
    Compiled | None,
    list[Trial[AnyProblem, AnyPlan]],
]:
    """Plan and compile once: trials that have a tile, their plans, source, cubin, and trials to be planned anew."""
    for trial in trials:
        trial.take_tile()
    running = [trial for trial in trials if not trial.exhausted]
    if not running:
        return [], (), "", None, []
    _measure_bases(running, compile_source)
    plans, source = render(
        running[0].flow, [trial.problem for trial in running], [trial.plan() for trial in running]
    )
    compiled = compile_source(source)
    pending = [
        trial
        for trial, plan in zip(running, plans, strict=True)
        if not trial.accepts(plan, compiled.resources[plan.kernel])
    ]
    return running, plans, source, compiled, pending


def _measure_bases(trials: Sequence[Trial[AnyProblem, AnyPlan]], compile_source: Compile) -> None:
    """Compile the base kernels not yet measured, all together.

    One may spill under its launch bounds, since look-ups in global memory need more registers than cached ones: its
    registers are then all that the bounds allow, and none of them are slack.
    """
    waiting = [trial for trial in trials if trial.needs_base]
    if not waiting:
        return
    flow = waiting[0].flow
    bases = [
        replace(flow.base_kernel(trial.problem, trial.base), kernel=f"{trial.problem.kernel}_base{i}")
        for i, trial in enumerate(waiting)
        if trial.base is not None
    ]
    compiled = compile_source(flow.render([trial.problem for trial in waiting], bases))
    for trial, base in zip(waiting, bases, strict=True):
        trial.base_resources = compiled.resources[base.kernel]


def _overrun(problem: KernelProblem, plan: KernelPlan, resources: Resources) -> str | None:
    """Why the compiled kernel has not the occupancy that it was to keep: it spills, or what fewer blocks fit for."""
    if spills(resources):
        return "spills"
    launch = plan_launch(problem, plan, resources).launch
    assert launch is not None
    return launch.limited_by if launch.blocks_per_sm < held_blocks(problem, plan) else None


def spills(resources: Resources) -> bool:
    """Whether a thread keeps anything in local memory."""
    return bool(resources.stack_bytes or resources.spill_store_bytes or resources.spill_load_bytes)


class Render(Protocol[AnyProblem, AnyPlan]):
    """Names kernels and prints them."""

    def __call__(
        self, flow: Flow[AnyProblem, AnyPlan], problems: Sequence[AnyProblem], plans: Sequence[AnyPlan]
    ) -> tuple[tuple[AnyPlan, ...], str]:
        """The plans with their kernels' names, and the source."""
        ...


def render_named(
    flow: Flow[AnyProblem, AnyPlan], problems: Sequence[AnyProblem], plans: Sequence[AnyPlan]
) -> tuple[tuple[AnyPlan, ...], str]:
    """Render a library, its kernels named by a hash of the source they are in.

    So a header never finds its symbols in the cubin of another build.
    """
    unnamed = [replace(plan, kernel=f"{plan.kernel}_{UNNAMED}") for plan in plans]
    source = flow.render(problems, unnamed, UNNAMED)
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]
    named = tuple(replace(plan, kernel=f"{plan.kernel}_{digest}") for plan in plans)
    for before in flow.kernels(
        problems, unnamed, UNNAMED
    ):  # whole names: a library may be called like the stand-in
        source = source.replace(before, before.removesuffix(UNNAMED) + digest)
    return named, source


def render_numbered(
    flow: Flow[AnyProblem, AnyPlan], problems: Sequence[AnyProblem], plans: Sequence[AnyPlan]
) -> tuple[tuple[AnyPlan, ...], str]:
    """Render contenders for one kernel, told apart by numbers."""
    numbered = tuple(replace(plan, kernel=f"{plan.kernel}_{i}") for i, plan in enumerate(plans))
    return numbered, flow.render(problems, numbered)
