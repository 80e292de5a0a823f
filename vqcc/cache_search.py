"""The search for attention: the strategy that makes a library's kernels, once the compiler has had its say."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from vqcc.assembling import in_parallel
from vqcc.diagnostics import Diagnostic, ExitCode, VqccError
from vqcc.flow import CACHES
from vqcc.passes.cache.append import launch_append, plan_appends
from vqcc.passes.cache.choice import cache_choices
from vqcc.passes.cache.pipeline import estimate
from vqcc.trial import Trial, render_named, settle, spills

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vqcc.codegen.toolchain import Compiled
    from vqcc.gpus.model import Gpu
    from vqcc.passes.cache.append import AppendPlan
    from vqcc.passes.cache.choice import CacheChoice
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

__all__ = ["CacheKernels", "compile_cache_plans"]

_NOTHING_FITS = "VQ0607"


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
) -> tuple[CacheKernels, ...]:
    """Plan, render and compile the kernels of one library, `problems` a row for each GPU; `jobs` GPUs at a time.

    All are of the first strategy whose tiles fit and do not spill on any GPU: one cache and its books serve them all.
    Raises VQ0403 if a level's books do not fit shared memory, VQ0607 if no strategy is left.
    """
    for choice in cache_choices([problem for row in problems for problem in row], estimate):
        made = list(
            in_parallel(partial(_compile, choice=choice, compile_source=compile_source), problems, jobs)
        )
        if None not in made:
            return tuple(kernels for kernels in made if kernels is not None)
    raise _spills(problems[0][0].kernel, " or ".join(row[0].gpu.name for row in problems))


def _compile(
    problems: Sequence[CacheProblem], choice: CacheChoice, compile_source: Callable[[Gpu, str], Compiled]
) -> CacheKernels | None:
    """The kernels on one GPU, of one strategy; None if one of them has no tile."""
    trials = [Trial(CACHES, problem, choice.strategy) for problem in problems]
    settled = settle(trials, partial(compile_source, problems[0].gpu), render_named, need_all=True)
    if settled.compiled is None:
        return None
    suffix = settled.plans[0].kernel.rpartition("_")[2]
    appends = tuple(
        launch_append(problems[0], append, settled.compiled.resources[append.kernel])
        for append in plan_appends(problems, settled.plans, suffix)
    )
    for append in appends:
        if spills(settled.compiled.resources[append.kernel]):
            raise _spills(append.kernel, problems[0].gpu.name)
    plans = tuple(replace(plan, decisions=(*choice.decisions, *plan.decisions)) for plan in settled.plans)
    return CacheKernels(settled.source, plans, appends, settled.compiled)


def _spills(kernel: str, gpu: str) -> VqccError:
    return VqccError(
        Diagnostic(
            _NOTHING_FITS,
            f"every tile of {kernel} spills registers on {gpu}",
            help="please report this spec: the planner has no tile small enough for it",
        ),
        exit_code=ExitCode.TOOLCHAIN,
    )
