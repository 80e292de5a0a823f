"""Races: the strategies that may make each kernel of a library, compiled until the fastest is known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Generic, TypeVar

from vqcc.diagnostics import Diagnostic, ExitCode, VqccError
from vqcc.passes.bounds import held_blocks
from vqcc.passes.choice import explain_choice, explain_pick, predicted
from vqcc.picks import PickError
from vqcc.plan import Decision, KernelPlan, Rejected
from vqcc.problem import KernelProblem
from vqcc.trial import Trial, render_named, render_numbered, settle

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vqcc.codegen.toolchain import Compiled
    from vqcc.flow import Flow
    from vqcc.levels import Strategy
    from vqcc.passes.agreement import Agreed
    from vqcc.passes.choice import Contenders
    from vqcc.picks import Pick
    from vqcc.trial import Settled

__all__ = ["NOTHING_FITS", "Race", "compile_racing", "first_that_fits", "picked", "spills_everywhere"]

AnyProblem = TypeVar("AnyProblem", bound=KernelProblem)
AnyPlan = TypeVar("AnyPlan", bound=KernelPlan)
Made = TypeVar("Made")

#: Every tile of every strategy spills.
NOTHING_FITS = "VQ0607"


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


def picked(flow: Flow[AnyProblem, AnyPlan], problem: AnyProblem, pick: Pick) -> Contenders:
    """The one strategy of a pick. Raises PickError if the problem cannot have it."""
    if pick.strategy not in flow.strategies(problem, pick.strategy.dataflow):
        raise PickError(f"the strategy of {problem.variant.suffix} on {problem.gpu.name} is none of today's")
    return [(0.0, pick.strategy)]


def compile_racing(
    races: Sequence[Race[AnyProblem, AnyPlan]], compile_source: Callable[[str], Compiled]
) -> tuple[str, tuple[AnyPlan, ...], Compiled]:
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


def _record(
    races: Sequence[Race[AnyProblem, AnyPlan]], settled: Settled[AnyProblem, AnyPlan]
) -> Settled[AnyProblem, AnyPlan]:
    """Tell every race what became of its trial."""
    plans = dict(zip(settled.trials, settled.plans, strict=True))
    for race in races:
        race.record(plans)
    return settled


class Race(Generic[AnyProblem, AnyPlan]):
    """The strategies that may make one kernel, by their estimated times, and those that have been compiled.

    A level has one, and so has a kernel that was picked. `best` compiles the most promising first, and others only
    while they may still be faster: a kernel may be slower than estimated once the compiler has had its say on tiles
    and occupancy.
    """

    def __init__(
        self,
        flow: Flow[AnyProblem, AnyPlan],
        problem: AnyProblem,
        waiting: Sequence[tuple[float, Strategy]],
        agreed: Agreed | None,
        pick: Pick | None = None,
        *,
        asked_for_registers: bool = False,
    ) -> None:
        """`waiting` are estimated microseconds and strategies, the most promising first; of a `pick` its own.

        `agreed` says what the library's kernels have in common, if the level left a choice.
        """
        self.flow, self.problem, self.agreed, self.pick = flow, problem, agreed, pick
        self.asked_for_registers = asked_for_registers
        self.waiting = list(waiting)
        self.started: list[Trial[AnyProblem, AnyPlan]] = []
        self.finished: dict[Trial[AnyProblem, AnyPlan], AnyPlan] = {}

    def next_trial(self) -> Trial[AnyProblem, AnyPlan]:
        """Start the most promising strategy that waits; if none does, the first whose multiplies are serialized."""
        if not self.waiting:
            trial = self._conceding[0]
            trial.concede()
            return trial
        _, strategy = self.waiting.pop(0)
        pinned = None if self.pick is None else self.pick.tile
        self.started.append(Trial(self.flow, self.problem, strategy, pinned=pinned))
        return self.started[-1]

    def record(self, plans: dict[Trial[AnyProblem, AnyPlan], AnyPlan]) -> None:
        """Note the trials of this race that settled, and those that ran out.

        Raises VQ0607 if no strategy is left, PickError if that was what was picked.
        """
        self.finished |= {trial: plans[trial] for trial in self.started if trial in plans}
        for trial in self.started:
            if trial.exhausted:
                self.finished.pop(trial, None)
        if not self.finished and not self.waiting and not self._conceding:
            if self.pick is not None:
                raise _not_as_picked(self.started[0])
            raise _nothing_fits(self.problem, asked=self.asked_for_registers)

    @property
    def _conceding(self) -> list[Trial[AnyProblem, AnyPlan]]:
        """Trials that nothing but serialized multiplies speaks against."""
        return [trial for trial in self.started if trial.serialized is not None and not trial.concedes]

    @property
    def decided(self) -> bool:
        """Whether no strategy that waits may be faster than what has been compiled."""
        if not self.finished:
            return False
        fastest = min(map(predicted, self.finished.values()))
        return not self.waiting or fastest <= self.waiting[0][0]

    @property
    def winner(self) -> Trial[AnyProblem, AnyPlan]:
        """The trial of least predicted time; the one that started first on a tie."""
        return min(self.finished, key=lambda trial: predicted(self.finished[trial]))

    def decisions(self) -> tuple[Decision, ...]:
        """Why this strategy; nothing to say where the level leaves no choice."""
        if self.agreed is None:
            return ()
        if self.pick is not None:
            return (explain_pick(self.pick, self.agreed.others),)
        compiled = [(trial.strategy, predicted(plan)) for trial, plan in self.finished.items()]
        spilled = [trial.strategy for trial in self.started if trial.exhausted]
        return (explain_choice(compiled, self.waiting, spilled, self.agreed),)


def _explained(trial: Trial[AnyProblem, AnyPlan], plan: AnyPlan, choice: tuple[Decision, ...]) -> AnyPlan:
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


def _why_occupancy(trial: Trial[AnyProblem, AnyPlan], blocks: int, held: int, base: int) -> str:
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


def _not_as_picked(trial: Trial[AnyProblem, AnyPlan]) -> PickError:
    """Why the one tile that a trial was pinned to made no kernel: it was not proposed, or was given up."""
    told = f"the tile of {trial.problem.variant.suffix} on {trial.problem.gpu.name}"
    return PickError(f"{told} spills registers" if trial.attempt else f"{told} is none of today's")


def _nothing_fits(problem: KernelProblem, *, asked: bool) -> VqccError:
    return VqccError(
        Diagnostic(
            NOTHING_FITS,
            f"every tile of {problem.kernel} spills registers on {problem.gpu.name}, or has no room there",
            help="lower cache.registers, or leave it out: the slack then decides"
            if asked
            else "please report this spec: the planner has no tile small enough for it",
        ),
        exit_code=ExitCode.INPUT if asked else ExitCode.TOOLCHAIN,
    )
