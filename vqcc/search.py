"""The search: which strategy makes each kernel of a library, once the compiler has had its say on all of them."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

from vqcc.diagnostics import Diagnostic, ExitCode, VqccError
from vqcc.flow import WEIGHTS
from vqcc.levels import STRATEGIES
from vqcc.passes.bounds import held_blocks
from vqcc.passes.choice import (
    agree,
    contenders,
    explain_choice,
    explain_pick,
    legal_strategies,
    predicted,
)
from vqcc.picks import PickError
from vqcc.pipeline import estimate
from vqcc.plan import Decision, Rejected
from vqcc.trial import Trial, render_named, render_numbered, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vqcc.codegen.toolchain import Compiled
    from vqcc.passes.choice import Agreed, Contenders
    from vqcc.picks import Pick
    from vqcc.plan import Plan
    from vqcc.problem import Problem
    from vqcc.trial import Settled

    WeightTrial = Trial[Problem, Plan]
    WeightSettled = Settled[Problem, Plan]

__all__ = ["compile_plans", "first_that_fits", "spills_everywhere"]

Made = TypeVar("Made")
#: Every tile of every strategy spills.
NOTHING_FITS = "VQ0607"


def compile_plans(
    problems: Sequence[Problem],
    compile_source: Callable[[str], Compiled],
    agreed: Agreed | None = None,
    picks: Mapping[str, Pick] = MappingProxyType({}),
) -> tuple[str, tuple[Plan, ...], Compiled]:
    """Plan, render and compile the kernels of one library on one GPU.

    Base kernels, with an empty codebook cache, are compiled first: what they leave is the slack. A kernel with a
    stack frame or spills is planned again with its op's next tile, one that overruns its slack with fewer register
    entries. Without a dataflow that the library's GPUs have `agreed` on, these kernels agree by themselves. Where
    `picks` has a variant's kernel by its suffix, that is made. Raises VQ0607 for a kernel that spills with every tile
    of every strategy it may have, PickError for one that cannot be made as picked.
    """
    if agreed is None:
        return first_that_fits(
            agree(problems, estimate), lambda each: compile_plans(problems, compile_source, each, picks)
        )
    races = [_Race(problem, agreed, picks.get(problem.variant.suffix)) for problem in problems]
    return _compile_racing(races, compile_source)


def spills_everywhere(error: VqccError) -> bool:
    """Whether all that an error says is that every tile of a kernel spills: another dataflow may then do."""
    return all(diagnostic.code == NOTHING_FITS for diagnostic in error.diagnostics)


def first_that_fits(choices: Sequence[Agreed], make: Callable[[Agreed], Made]) -> Made:
    """What `make` makes of the first dataflow whose kernels all have a tile that does not spill.

    Raises what the last one raises, and at once whatever has another reason.
    """
    spilled: dict[str, Rejected] = {}
    for agreed in choices[:-1]:
        try:
            return make(_told(agreed, spilled))
        except VqccError as error:
            if not spills_everywhere(error):
                raise
            spilled[agreed.dataflow] = Rejected(agreed.dataflow, "each of its tiles spills registers")
    return make(_told(choices[-1], spilled))


def _told(agreed: Agreed, spilled: Mapping[str, Rejected]) -> Agreed:
    """The choice with what has become of those before it."""
    return replace(agreed, others=tuple(spilled.get(str(other.value), other) for other in agreed.others))


def _waiting(problem: Problem, agreed: Agreed) -> Contenders:
    if problem.level != "best":
        return [(0.0, STRATEGIES[problem.level])]
    return contenders(problem, estimate, agreed.dataflow)


def _picked(problem: Problem, pick: Pick) -> Contenders:
    """The one strategy of a pick. Raises PickError if the problem cannot have it."""
    if pick.strategy not in legal_strategies(problem, pick.strategy.dataflow):
        raise PickError(f"the strategy of {problem.variant.suffix} on {problem.gpu.name} is none of today's")
    return [(0.0, pick.strategy)]


def _compile_racing(
    races: Sequence[_Race], compile_source: Callable[[str], Compiled]
) -> tuple[str, tuple[Plan, ...], Compiled]:
    """Compile until every race is decided."""
    settled = _record(races, settle([race.next_trial() for race in races], compile_source, render_named))
    while True:
        while running := [race for race in races if not race.decided]:
            trials = [race.next_trial() for race in running]
            _record(running, settle(trials, compile_source, render_numbered))
        winners = tuple(race.winner for race in races)
        if settled.trials == winners:
            break
        settled = _record(races, settle(winners, compile_source, render_named))
    assert settled.compiled is not None
    finished = tuple(
        _explained(trial, plan, race.decisions())
        for race, trial, plan in zip(races, settled.trials, settled.plans, strict=True)
    )
    return settled.source, finished, settled.compiled


def _record(races: Sequence[_Race], settled: WeightSettled) -> WeightSettled:
    """Tell every race what became of its trial."""
    plans = dict(zip(settled.trials, settled.plans, strict=True))
    for race in races:
        race.record(plans)
    return settled


class _Race:
    """The strategies that may make one kernel, by their estimated times, and those that have been compiled.

    A level has one, and so has a kernel that was picked. `best` compiles the most promising first, and others only
    while they may still be faster: a kernel may be slower than estimated once the compiler has had its say on tiles
    and occupancy.
    """

    def __init__(self, problem: Problem, agreed: Agreed, pick: Pick | None = None) -> None:
        self.problem, self.agreed, self.pick = problem, agreed, pick
        self.waiting = _waiting(problem, agreed) if pick is None else _picked(problem, pick)
        self.started: list[WeightTrial] = []
        self.finished: dict[WeightTrial, Plan] = {}

    def next_trial(self) -> WeightTrial:
        """Start the most promising strategy that waits."""
        _, strategy = self.waiting.pop(0)
        pinned = None if self.pick is None else self.pick.tile
        self.started.append(Trial(WEIGHTS, self.problem, strategy, pinned=pinned))
        return self.started[-1]

    def record(self, plans: dict[WeightTrial, Plan]) -> None:
        """Note the trials of this race that settled, and those that ran out.

        Raises VQ0607 if no strategy is left, PickError if that was what was picked.
        """
        self.finished |= {trial: plans[trial] for trial in self.started if trial in plans}
        for trial in self.started:
            if trial.exhausted:
                self.finished.pop(trial, None)
        if not self.finished and not self.waiting:
            if self.pick is not None:
                raise _not_as_picked(self.started[0])
            raise _nothing_fits(self.problem)

    @property
    def decided(self) -> bool:
        """Whether no strategy that waits may be faster than what has been compiled."""
        if not self.finished:
            return False
        fastest = min(map(predicted, self.finished.values()))
        return not self.waiting or fastest <= self.waiting[0][0]

    @property
    def winner(self) -> WeightTrial:
        """The trial of least predicted time; the one that started first on a tie."""
        return min(self.finished, key=lambda trial: predicted(self.finished[trial]))

    def decisions(self) -> tuple[Decision, ...]:
        """Why this strategy; nothing to say where the level leaves no choice."""
        if self.problem.level != "best":
            return ()
        if self.pick is not None:
            return (explain_pick(self.pick, self.agreed.others),)
        compiled = [(trial.strategy, predicted(plan)) for trial, plan in self.finished.items()]
        spilled = [trial.strategy for trial in self.started if trial.exhausted]
        return (explain_choice(compiled, self.waiting, spilled, self.agreed),)


def _explained(trial: WeightTrial, plan: Plan, choice: tuple[Decision, ...]) -> Plan:
    """The plan with what the compiler made of the prediction, and why this strategy."""
    assert plan.launch is not None
    assert plan.resources is not None
    if plan.slack is not None:
        held = held_blocks(trial.problem, plan)
        plan = plan.decide(
            Decision(
                "occupancy",
                plan.launch.blocks_per_sm,
                "compiled kernel against the base kernel's blocks per SM, as far as shared memory has room for them",
                {
                    "base_blocks": plan.slack.blocks_per_sm,
                    "predicted_blocks": held,
                    "compiled_registers": plan.resources.registers,
                    "shared_bytes": plan.dynamic_shared_bytes,
                    "replans": trial.replans,
                },
                _why_occupancy(trial, plan.launch.blocks_per_sm, held, plan.slack.blocks_per_sm),
                "V-B",
            )
        )
    return replace(plan, decisions=(*choice, *plan.decisions))


def _why_occupancy(trial: WeightTrial, blocks: int, held: int, base: int) -> str:
    """What became of the base kernel's blocks per SM, of which the kernel was held to `held`."""
    if blocks >= base:
        return "as predicted"
    if blocks >= held:
        return (
            f"as predicted: the entries that the spec's cache.shared asks for leave room for {held} of the base "
            f"kernel's {base} blocks"
        )
    return "the kernel with its cache cannot be held to the base kernel's occupancy: " + {
        "spills": "it spills",
        "registers": "it takes too many registers",
        "shared": "it takes too much shared memory",
    }.get(trial.overrun or "", "an SM holds no more of them")


def _not_as_picked(trial: WeightTrial) -> PickError:
    """Why the one tile that a trial was pinned to made no kernel: it was not proposed, or was given up."""
    told = f"the tile of {trial.problem.variant.suffix} on {trial.problem.gpu.name}"
    return PickError(f"{told} spills registers" if trial.attempt else f"{told} is none of today's")


def _nothing_fits(problem: Problem) -> VqccError:
    asked = problem.boundaries.registers is not None
    return VqccError(
        Diagnostic(
            NOTHING_FITS,
            f"every tile of {problem.kernel} spills registers on {problem.gpu.name}",
            help="lower cache.registers, or leave it out: the slack then decides"
            if asked
            else "please report this spec: the planner has no tile small enough for it",
        ),
        exit_code=ExitCode.INPUT if asked else ExitCode.TOOLCHAIN,
    )
