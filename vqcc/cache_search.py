"""The search for attention: what makes a library's kernels, once the compiler has had its say."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, ExitCode, VqccError
from vqcc.flow import CACHES
from vqcc.passes.cache.append import launch_append, plan_appends
from vqcc.passes.cache.choice import cache_contenders
from vqcc.passes.cache.pipeline import estimate
from vqcc.racing import NOTHING_FITS, Race, compile_racing, picked
from vqcc.trial import spills

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vqcc.codegen.toolchain import Compiled
    from vqcc.passes.agreement import Agreed
    from vqcc.passes.cache.append import AppendPlan
    from vqcc.picks import Pick
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

__all__ = ["CacheKernels", "compile_cache_plans"]


@dataclass(frozen=True)
class CacheKernels:
    """A library of attention on one GPU: source, cubin, and plans of the kernels that attend and that append."""

    source: str
    plans: tuple[CachePlan, ...]
    appends: tuple[AppendPlan, ...]
    compiled: Compiled


def compile_cache_plans(
    problems: Sequence[CacheProblem],
    compile_source: Callable[[str], Compiled],
    agreed: Agreed,
    picks: Mapping[str, Pick] = MappingProxyType({}),
) -> CacheKernels:
    """Plan, render and compile the kernels of one library of attention on one GPU.

    They are of the dataflow that the library's GPUs have `agreed` on. Where `picks` has a variant's kernel by its
    suffix, that is made. Raises VQ0403 if a level's books do not fit shared memory, VQ0607 if no tile of that dataflow
    is left, PickError for a kernel that cannot be made as picked.
    """
    races = [_race(problem, agreed, picks.get(problem.variant.suffix)) for problem in problems]
    source, plans, compiled = compile_racing(races, compile_source)
    suffix = plans[0].kernel.rpartition("_")[2]
    appends = tuple(
        launch_append(problems[0], append, compiled.resources[append.kernel])
        for append in plan_appends(problems, plans, suffix)
    )
    for append in appends:
        if spills(compiled.resources[append.kernel]):
            raise _spills(append.kernel, problems[0].gpu.name)
    return CacheKernels(source, plans, appends, compiled)


def _race(problem: CacheProblem, agreed: Agreed, pick: Pick | None) -> Race[CacheProblem, CachePlan]:
    told = agreed if problem.level == "best" else None
    if pick is not None:
        return Race(CACHES, problem, picked(CACHES, problem, pick), told, pick)
    return Race(CACHES, problem, cache_contenders(problem, estimate, agreed.dataflow), told)


def _spills(kernel: str, gpu: str) -> VqccError:
    return VqccError(
        Diagnostic(
            NOTHING_FITS,
            f"{kernel} spills registers on {gpu}",
            help="please report this spec: the planner has no tile small enough for it",
        ),
        exit_code=ExitCode.TOOLCHAIN,
    )
