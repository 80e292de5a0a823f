"""Plans for tests: every pass run, with what a compiler would have said made up."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from vqcc.codegen.resources import Resources
from vqcc.codegen.toolchain import Compiled
from vqcc.diagnostics import VqccError
from vqcc.hotness import TensorProfile
from vqcc.levels import STRATEGIES
from vqcc.passes.choice import PAST_THE_PAPER, describe
from vqcc.passes.placement import certain_placement, check_placement
from vqcc.passes.tile import plan_tile
from vqcc.pipeline import analyze, base_kernel, decide_split, plan_compiled, plan_kernel
from vqcc.problem import Boundaries
from vqcc.search import compile_plans

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vqcc.levels import Strategy
    from vqcc.plan import Exchange, Plan, Split
    from vqcc.problem import Problem

#: Every strategy that decodes: the paper's by its level, and those that only `best` may take (tests/test_score.py has
#: score tables).
EVERY_STRATEGY: dict[str, Strategy] = {
    **STRATEGIES,
    **{describe(strategy): strategy for strategy in PAST_THE_PAPER if strategy.dataflow == "decode"},
}
_KERNEL = re.compile(r"__launch_bounds__\((\d+), (\d+)\) (\w+)\(")


def using(registers: int = 50, *, spilled: int = 0, static: int = 0) -> Resources:
    """What a compiled kernel needs."""
    return Resources(registers, static, 0, spilled, spilled, 1)


@dataclass
class Compiler:
    """Stands in for a compiler: `answer` says what a kernel needs, from the compilation's number and its name.

    Kernels keep to the registers that their launch bounds leave on an SM of `registers_per_sm`.
    """

    answer: Callable[[int, str], Resources] = field(default=lambda number, name: using())
    registers_per_sm: int = 65536
    sources: list[str] = field(default_factory=list)

    def __call__(self, source: str) -> Compiled:
        number = len(self.sources)
        self.sources.append(source)
        kernels = {
            name: self._capped(self.answer(number, name), int(threads) * int(blocks))
            for threads, blocks, name in _KERNEL.findall(source)
        }
        return Compiled(b"", None, kernels, "")

    def _capped(self, used: Resources, threads: int) -> Resources:
        return replace(used, registers=min(used.registers, self.registers_per_sm // threads // 8 * 8))

    @property
    def kernels(self) -> list[tuple[str, ...]]:
        """Names of the kernels of each compilation."""
        return [tuple(name for _, _, name in _KERNEL.findall(source)) for source in self.sources]


def compiler_of(problem: Problem, registers: int = 50) -> Compiler:
    """A compiler for a problem's GPU, all of whose kernels need the same."""
    return Compiler(lambda number, name: using(registers), problem.gpu.registers_per_sm.integer)


def planned(problem: Problem, registers: int = 50) -> Plan:
    """A problem's plan as `vqcc compile` makes it."""
    _, (plan,), _ = compile_plans([problem], compiler_of(problem, registers))
    return plan


def is_legal(problem: Problem, strategy: Strategy) -> bool:
    """Whether the problem can have the strategy: whole books must fit, and boundaries are those of the slack."""
    if strategy.caching == "slack":
        return True
    fits = strategy.caching != "all" or not any(check_placement(problem.algorithm, problem.gpu, "sc"))
    return fits and problem.boundaries == Boundaries()


def forced(
    problem: Problem,
    strategy: Strategy,
    *,
    split: Split | None = None,
    exchange: Exchange | None = None,
    registers: int = 50,
) -> Plan:
    """The plan of a strategy, with a split and an exchange of the test's choice if they are given."""
    plan = analyze(problem, strategy)
    plan = replace(plan, split=split) if split else decide_split(problem, plan)
    plan = replace(plan, exchange=exchange or plan.exchange)
    tiled = plan_tile(problem, plan, certain_placement(problem, plan))
    assert tiled is not None
    assert tiled.tile is not None
    bounded = (
        base_kernel(problem, tiled) if strategy.caching == "slack" else plan_kernel(problem, tiled, None)
    )
    threads = 32 * tiled.tile.warps * bounded.minimum_blocks
    used = using(min(registers, problem.gpu.registers_per_sm.integer // threads // 8 * 8))
    return plan_compiled(problem, plan_kernel(problem, tiled, used), used)


def kernel_of(plan: Plan) -> object:
    """What makes a kernel the code it is; plans that agree in it compute the same way."""
    assert plan.tile is not None
    tile = replace(plan.tile, register_cap=1)  # type: ignore[type-var]
    return tile, plan.placement, plan.split, plan.exchange


def refusal(action: Callable[[], object]) -> VqccError | None:
    """The error that `action` raises; None if it does not."""
    try:
        action()
    except VqccError as error:
        return error
    return None


def distinct(kernels: Sequence[tuple[Problem, Plan]]) -> list[tuple[Problem, Plan]]:
    """Problems and plans without those whose kernel an earlier plan gives."""
    found: dict[object, tuple[Problem, Plan]] = {}
    for problem, plan in kernels:
        found.setdefault((problem.variant.suffix, kernel_of(plan)), (problem, plan))
    return list(found.values())


def hot_profile(problem: Problem, *hot: int) -> TensorProfile:
    """A profile in which the first `hot` entries of each table, one in 32, are looked up a hundred times as often.

    Several numbers are those of the stages' tables. One without any has as many look-ups as the first, evenly.
    """
    algorithm = problem.algorithm
    tables, entries = algorithm.table_count, algorithm.table_entries
    counts = np.full((1, tables, entries), 10 * entries, np.int64)
    each = hot or (max(1, entries // 32),)
    for table in range(tables):
        counts[:, table, : each[table % len(each)]] = 1000 * entries
        if each[table % len(each)] == 0:
            counts[:, table] = counts[0, 0].sum() // entries
    return TensorProfile("w", algorithm, problem.op.weight_shape, "0" * 64, counts)
