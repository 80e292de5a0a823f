"""The search for attention: what makes a library's kernels, once the compiler has had its say."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from vqcc.assembling import in_parallel
from vqcc.diagnostics import Diagnostic, ExitCode, VqccError
from vqcc.flow import CACHES
from vqcc.passes.cache.append import launch_append, plan_appends
from vqcc.passes.cache.choice import CACHE_STRATEGIES, agree_on_cache, cache_contenders
from vqcc.passes.cache.pipeline import estimate
from vqcc.picks import PickError
from vqcc.racing import NOTHING_FITS, Race, compile_racing, first_that_fits
from vqcc.trial import spills

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from vqcc.codegen.toolchain import Compiled
    from vqcc.gpus.model import Gpu
    from vqcc.passes.cache.append import AppendPlan
    from vqcc.passes.choice import Agreed
    from vqcc.picks import Pick
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

    #: What was picked of a library: by GPU and variant's suffix.
    Picks = Mapping[str, Mapping[str, Pick]]

__all__ = ["CacheKernels", "compile_cache_plans"]


@dataclass(frozen=True)
class CacheKernels:
    """A library of attention on one GPU: source, cubin, and plans of the kernels that attend and that append."""

    source: str
    plans: tuple[CachePlan, ...]
    appends: tuple[AppendPlan, ...]
    compiled: Compiled


def compile_cache_plans(
    problems: Sequence[Sequence[CacheProblem]],
    compile_source: Callable[[Gpu, str], Compiled],
    jobs: int = 1,
    agreed: Agreed | None = None,
    picks: Picks = MappingProxyType({}),
) -> tuple[CacheKernels, ...]:
    """Plan, render and compile the kernels of one library, `problems` a row for each GPU; `jobs` GPUs at a time.

    All are of the first dataflow of which each has a tile that does not spill: one cache and its books serve them all.
    Of a dataflow that was `agreed` on, kernels that were picked are made so. Raises VQ0403 if a level's books do not
    fit shared memory, VQ0607 if no dataflow is left, PickError for a kernel that cannot be made as picked.
    """

    def make(agreed: Agreed) -> tuple[CacheKernels, ...]:
        compile_row = partial(_compile, agreed=agreed, picks=picks, compile_source=compile_source)
        return tuple(in_parallel(compile_row, problems, jobs))

    if agreed is not None:
        return make(agreed)
    return first_that_fits(agree_on_cache([problem for row in problems for problem in row], estimate), make)


def _compile(
    problems: Sequence[CacheProblem],
    agreed: Agreed,
    picks: Picks,
    compile_source: Callable[[Gpu, str], Compiled],
) -> CacheKernels:
    """The kernels on one GPU."""
    gpu = problems[0].gpu
    own = picks.get(gpu.name, {})
    races = [_race(problem, agreed, own.get(problem.variant.suffix)) for problem in problems]
    source, plans, compiled = compile_racing(races, partial(compile_source, gpu))
    suffix = plans[0].kernel.rpartition("_")[2]
    appends = tuple(
        launch_append(problems[0], append, compiled.resources[append.kernel])
        for append in plan_appends(problems, plans, suffix)
    )
    for append in appends:
        if spills(compiled.resources[append.kernel]):
            raise _spills(append.kernel, gpu.name)
    return CacheKernels(source, plans, appends, compiled)


def _race(problem: CacheProblem, agreed: Agreed, pick: Pick | None) -> Race[CacheProblem, CachePlan]:
    told = agreed if problem.level == "best" else None
    if pick is None:
        waiting = cache_contenders(problem, estimate, agreed.dataflow)
    elif pick.strategy in CACHE_STRATEGIES[pick.strategy.dataflow]:
        waiting = [(0.0, pick.strategy)]
    else:
        raise PickError(f"the strategy of {problem.variant.suffix} on {problem.gpu.name} is none of today's")
    return Race(CACHES, problem, waiting, told, pick)


def _spills(kernel: str, gpu: str) -> VqccError:
    return VqccError(
        Diagnostic(
            NOTHING_FITS,
            f"{kernel} spills registers on {gpu}",
            help="please report this spec: the planner has no tile small enough for it",
        ),
        exit_code=ExitCode.TOOLCHAIN,
    )
