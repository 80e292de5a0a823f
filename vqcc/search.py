"""The search: which strategy makes each kernel of a library, once the compiler has had its say on all of them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from vqcc.flow import WEIGHTS
from vqcc.levels import STRATEGIES
from vqcc.passes.choice import contenders
from vqcc.pipeline import estimate
from vqcc.racing import Race, compile_racing, first_that_fits, picked

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vqcc.codegen.toolchain import Compiled
    from vqcc.passes.agreement import Agreed
    from vqcc.passes.choice import Contenders
    from vqcc.picks import Pick
    from vqcc.plan import Plan
    from vqcc.problem import Problem

__all__ = ["compile_plans"]


def compile_plans(
    problems: Sequence[Problem],
    compile_source: Callable[[str], Compiled],
    agreed: Agreed | None = None,
    picks: Mapping[str, Pick] = MappingProxyType({}),
) -> tuple[str, tuple[Plan, ...], Compiled]:
    """Plan, render and compile the kernels of one library on one GPU.

    Base kernels, with an empty codebook cache, are compiled first: what they leave is the slack. A kernel with a
    stack frame or spills is planned again with its op's next tile, one that overruns its slack with fewer register
    entries. Without a dataflow that the library's GPUs have `agreed` on, these kernels agree by themselves; all of them
    are made. Where `picks` has a variant's kernel by its suffix, that is made. Raises VQ0607 for a kernel that spills
    with every tile of every strategy it may have, PickError for one that cannot be made as picked.
    """
    if agreed is None:
        return first_that_fits(
            WEIGHTS.agree(problems), lambda each: compile_plans(problems, compile_source, each, picks)
        )
    races = [_race(problem, agreed, picks.get(problem.variant.suffix)) for problem in problems]
    source, plans, compiled = compile_racing(races, compile_source)
    return source, tuple(map(agreed.explained, problems, plans)), compiled


def _race(problem: Problem, agreed: Agreed, pick: Pick | None) -> Race[Problem, Plan]:
    asked = problem.boundaries.registers is not None
    told = agreed if problem.level == "best" else None
    waiting = _waiting(problem, agreed) if pick is None else picked(WEIGHTS, problem, pick)
    return Race(WEIGHTS, problem, waiting, told, pick, asked_for_registers=asked)


def _waiting(problem: Problem, agreed: Agreed) -> Contenders:
    if problem.level != "best":
        return [(0.0, STRATEGIES[problem.level])]
    return contenders(problem, estimate, *agreed.dataflows)
