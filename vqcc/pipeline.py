"""The passes in order: from a problem to a compiled, launchable plan."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from vqcc.codegen.render import UNNAMED, render_source
from vqcc.diagnostics import Diagnostic, ExitCode, VqccError
from vqcc.levels import STRATEGIES
from vqcc.passes.choice import contenders, explain_choice, predicted
from vqcc.passes.cost import plan_cost
from vqcc.passes.exchange import plan_exchange
from vqcc.passes.hotness import plan_hotness
from vqcc.passes.launch import dynamic_shared_bytes, plan_launch
from vqcc.passes.layout import plan_layout
from vqcc.passes.placement import place_all, place_none, place_slack
from vqcc.passes.slack import plan_slack
from vqcc.passes.split import plan_split
from vqcc.passes.tile import plan_tile
from vqcc.plan import Decision, Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vqcc.codegen.toolchain import Compiled, Resources
    from vqcc.levels import Strategy
    from vqcc.problem import Problem

__all__ = ["analyze", "compile_plans", "plan_base", "plan_kernel"]

#: Times that a kernel is planned anew because it overran its slack (Sec. V-B), before it is compiled without the demand
#: to keep the base kernel's occupancy.
MAX_REPLANS = 3


def analyze(problem: Problem, strategy: Strategy) -> Plan:
    """Everything that needs no tile: layout, hotness, exchange, split."""
    plan = Plan(problem.kernel, problem.level, strategy)
    plan = plan_layout(problem, plan)
    plan = plan_hotness(problem, plan)
    plan = plan_exchange(problem, plan)
    return plan_split(problem, plan)


def plan_base(problem: Problem, strategy: Strategy, attempt: int = 0) -> Plan | None:
    """Up to the tile; the cache empty unless the strategy fills it whatever the slack. None: no more tiles."""
    plan = analyze(problem, strategy)
    if strategy.caching == "all":
        return plan_tile(problem, place_all(problem, plan), attempt)
    tiled = plan_tile(problem, plan, attempt)
    if tiled is None or strategy.caching == "slack":
        return tiled
    return place_none(problem, tiled)


def plan_kernel(problem: Problem, base: Plan, resources: Resources | None, cut: int = 0) -> Plan:
    """Fill the cache from the slack that the compiled base kernel leaves; a plan that needs none is returned as is."""
    if base.strategy.caching == "slack":
        assert base.tile is not None
        assert resources is not None
        threads, shared = 32 * base.tile.warps, base.tile.shared_bytes + resources.static_shared_bytes
        base = plan_slack(problem, base, threads=threads, registers=resources.registers, shared_bytes=shared)
        base = place_slack(problem, base, cut)
        if cut < MAX_REPLANS:
            base = keep_occupancy(base)
    return base


def keep_occupancy(plan: Plan) -> Plan:
    """Have the compiler hold the kernel to the base kernel's blocks per SM, whatever the cache adds."""
    assert plan.slack is not None
    assert plan.tile is not None
    blocks = max(plan.tile.minimum_blocks, plan.slack.blocks_per_sm)
    return replace(plan, tile=replace(plan.tile, minimum_blocks=blocks))  # type: ignore[type-var]


@dataclass
class _Trial:
    """One kernel on its way: the strategy and tile it is at, how far its cache is cut, and how often it overran it."""

    problem: Problem
    strategy: Strategy
    attempt: int = 0
    cut: int = 0
    replans: int = 0
    base: Plan | None = None
    base_resources: Resources | None = None
    alternatives: list[tuple[float, Strategy]] = field(default_factory=list)

    @property
    def needs_base(self) -> bool:
        return self.strategy.caching == "slack" and self.base_resources is None

    def next_tile(self) -> None:
        self.attempt, self.cut, self.replans = self.attempt + 1, 0, 0
        self.base, self.base_resources = None, None

    def planned_base(self) -> Plan:
        """The base plan of the tile at hand; of the next strategy where tiles have run out. Raises VQ0607."""
        while self.base is None:
            self.base = plan_base(self.problem, self.strategy, self.attempt)
            if self.base is None and not self.alternatives:
                raise _nothing_fits(self.problem)
            if self.base is None:
                self.strategy, self.attempt = self.alternatives.pop(0)[1], 0
        return self.base

    def plan(self) -> Plan:
        return plan_kernel(self.problem, self.planned_base(), self.base_resources, self.cut)


def compile_plans(
    problems: Sequence[Problem], compile_source: Callable[[str], Compiled]
) -> tuple[str, tuple[Plan, ...], Compiled]:
    """Plan, render and compile the kernels of one library on one GPU.

    Base kernels, with an empty codebook cache, are compiled first: what they leave is the slack. A kernel with a
    stack frame or spills is planned again with its op's next tile, one that overruns its slack with fewer register
    entries. Raises VQ0607 if the last proposal still spills.
    """
    races = [_Race(problem) for problem in problems]
    trials = [race.next_trial() for race in races]
    plans, source, compiled = _settle(trials, compile_source, _named)
    for race, trial, plan in zip(races, trials, plans, strict=True):
        race.finished.append((trial, plan))
    if any(not race.decided for race in races):
        _run(races, compile_source)
        trials = [race.winner for race in races]
        plans, source, compiled = _settle(trials, compile_source, _named)
    finished = tuple(
        _explained(trial, plan, race.decisions())
        for trial, plan, race in zip(trials, plans, races, strict=True)
    )
    return source, finished, compiled


class _Race:
    """The strategies that may make one kernel, by their estimated times, and those that have been compiled.

    A level has one. `best` compiles the most promising first, and others only while they may still be faster: a
    kernel may be slower than estimated once the compiler has had its say on tiles and occupancy.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.finished: list[tuple[_Trial, Plan]] = []
        self.waiting: list[tuple[float, Strategy]] = (
            contenders(problem, plan_base) if problem.level == "best" else [(0.0, STRATEGIES[problem.level])]
        )

    def next_trial(self) -> _Trial:
        _, strategy = self.waiting.pop(0)
        return _Trial(self.problem, strategy, alternatives=self.waiting)

    @property
    def decided(self) -> bool:
        fastest = min(predicted(plan) for _, plan in self.finished)
        return not self.waiting or fastest <= self.waiting[0][0]

    @property
    def winner(self) -> _Trial:
        return min(self.finished, key=lambda pair: predicted(pair[1]))[0]

    def decisions(self) -> tuple[Decision, ...]:
        """Why this strategy; nothing to say where the level leaves no choice."""
        if self.problem.level != "best":
            return ()
        compiled = [(trial.strategy, predicted(plan)) for trial, plan in self.finished]
        return (explain_choice(compiled, self.waiting),)


def _run(races: Sequence[_Race], compile_source: Callable[[str], Compiled]) -> None:
    """Compile the next contenders of every race that is not decided, together, until all are."""
    while running := [race for race in races if not race.decided]:
        trials = [race.next_trial() for race in running]
        plans, _, _ = _settle(trials, compile_source, _numbered)
        for race, trial, plan in zip(running, trials, plans, strict=True):
            race.finished.append((trial, plan))


def _settle(
    trials: Sequence[_Trial],
    compile_source: Callable[[str], Compiled],
    render: Callable[[Sequence[Problem], Sequence[Plan]], tuple[tuple[Plan, ...], str]],
) -> tuple[tuple[Plan, ...], str, Compiled]:
    """Plan and compile until every kernel is as planned; finished plans, named by `render`, source and cubin."""
    while True:
        plans, source, compiled, pending = _compile(trials, compile_source, render)
        if not pending:
            launched = tuple(
                plan_cost(trial.problem, plan_launch(trial.problem, plan, compiled.resources[plan.kernel]))
                for trial, plan in zip(trials, plans, strict=True)
            )
            return launched, source, compiled
        while pending:  # only these are compiled again until all can be
            pending = _compile(pending, compile_source, _numbered)[3]


def _compile(
    trials: Sequence[_Trial],
    compile_source: Callable[[str], Compiled],
    render: Callable[[Sequence[Problem], Sequence[Plan]], tuple[tuple[Plan, ...], str]],
) -> tuple[tuple[Plan, ...], str, Compiled, list[_Trial]]:
    """Plan and compile once; with the trials that are to be planned anew."""
    _measure_bases(trials, compile_source)
    plans, source = render([trial.problem for trial in trials], [trial.plan() for trial in trials])
    compiled = compile_source(source)
    pending = [
        trial
        for trial, plan in zip(trials, plans, strict=True)
        if not _settled(trial, plan, compiled.resources[plan.kernel])
    ]
    return plans, source, compiled, pending


def _measure_bases(trials: Sequence[_Trial], compile_source: Callable[[str], Compiled]) -> None:
    """Compile the base kernels not yet measured, all together.

    One may spill under its launch bounds, since look-ups in global memory need more registers: it has no slack.
    """
    for trial in trials:
        trial.planned_base()  # where tiles have run out, this is another strategy's
    waiting = [trial for trial in trials if trial.needs_base]
    if not waiting:
        return
    bases = [
        replace(place_none(trial.problem, trial.planned_base()), kernel=f"{trial.problem.kernel}_base{i}")
        for i, trial in enumerate(waiting)
    ]
    compiled = compile_source(render_source([trial.problem for trial in waiting], bases))
    for trial, base in zip(waiting, bases, strict=True):
        trial.base_resources = compiled.resources[base.kernel]


def _settled(trial: _Trial, plan: Plan, resources: Resources) -> bool:
    """Whether the compiled kernel is as planned; otherwise `trial` is set for the next plan."""
    if plan.slack is not None and trial.cut < MAX_REPLANS:
        if _spills(resources) or _overruns(trial.problem, plan, resources):
            assert plan.placement is not None
            # Without register entries to give up, only the demand on occupancy is left to drop.
            free = plan.placement.n_registers > 0 and trial.problem.boundaries.registers is None
            trial.cut = trial.cut + 1 if free else MAX_REPLANS
            trial.replans += 1
            return False
        return True
    if _spills(resources):
        trial.next_tile()
        return False
    return True


def _overruns(problem: Problem, plan: Plan, resources: Resources) -> bool:
    """Whether fewer blocks fit an SM than the slack was to keep."""
    assert plan.slack is not None
    return plan_launch(problem, plan, resources).launch.blocks_per_sm < plan.slack.blocks_per_sm  # type: ignore[union-attr]


def _explained(trial: _Trial, plan: Plan, choice: tuple[Decision, ...]) -> Plan:
    """The plan with what the compiler made of the prediction, and why this strategy."""
    assert plan.launch is not None
    assert plan.resources is not None
    if plan.slack is not None:
        kept = plan.launch.blocks_per_sm >= plan.slack.blocks_per_sm
        plan = plan.decide(
            Decision(
                "occupancy",
                plan.launch.blocks_per_sm,
                "compiled kernel against the base kernel's blocks per SM",
                {
                    "predicted_blocks": plan.slack.blocks_per_sm,
                    "compiled_registers": plan.resources.registers,
                    "shared_bytes": dynamic_shared_bytes(plan),
                    "replans": trial.replans,
                },
                "as predicted"
                if kept
                else "the kernel with its cache cannot be held to the base kernel's occupancy: it spills",
                "V-B",
            )
        )
    return replace(plan, decisions=(*choice, *plan.decisions))


def _nothing_fits(problem: Problem) -> VqccError:
    asked = problem.boundaries.registers is not None
    return VqccError(
        Diagnostic(
            "VQ0607",
            f"every tile of {problem.kernel} spills registers on {problem.gpu.name}",
            help="lower cache.registers, or leave it out: the slack then decides"
            if asked
            else "please report this spec: the planner has no tile small enough for it",
        ),
        exit_code=ExitCode.INPUT if asked else ExitCode.TOOLCHAIN,
    )


def _named(problems: Sequence[Problem], plans: Sequence[Plan]) -> tuple[tuple[Plan, ...], str]:
    """Render the plans, their kernels named by a hash of the source they are in.

    So a header never finds its symbols in the cubin of another build.
    """
    unnamed = [replace(plan, kernel=f"{plan.kernel}_{UNNAMED}") for plan in plans]
    source = render_source(problems, unnamed)
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]
    named = tuple(replace(plan, kernel=f"{plan.kernel}_{digest}") for plan in plans)
    for before, after in zip(
        unnamed, named, strict=True
    ):  # whole names: a library may be called like the stand-in
        source = source.replace(before.kernel, after.kernel)
    return named, source


def _numbered(problems: Sequence[Problem], plans: Sequence[Plan]) -> tuple[tuple[Plan, ...], str]:
    """Render contenders for one kernel, told apart by numbers."""
    numbered = tuple(replace(plan, kernel=f"{plan.kernel}_{i}") for i, plan in enumerate(plans))
    return numbered, render_source(problems, numbered)


def _spills(resources: Resources) -> bool:
    return bool(resources.stack_bytes or resources.spill_store_bytes or resources.spill_load_bytes)
