"""The passes in order: from a problem to a compiled, launchable plan."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from vqcc.codegen.render import render_source
from vqcc.diagnostics import Diagnostic, ExitCode, VqccError
from vqcc.passes.launch import plan_launch
from vqcc.passes.layout import plan_layout
from vqcc.passes.placement import plan_placement
from vqcc.passes.tile import plan_tile
from vqcc.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vqcc.codegen.toolchain import Compiled, Resources
    from vqcc.problem import Problem

__all__ = ["compile_plans", "plan_kernel"]

_UNNAMED = "source_hash"  # stands for eight hex digits while they are not known


def plan_kernel(problem: Problem, attempt: int = 0) -> Plan | None:
    """Plan one kernel up to its tile; None if `attempt` exceeds the op's proposals. Raises VQ04xx."""
    plan = Plan(problem.kernel, problem.level)
    plan = plan_layout(problem, plan)
    plan = plan_placement(problem, plan)
    return plan_tile(problem, plan, attempt)


def compile_plans(
    problems: Sequence[Problem], compile_source: Callable[[str], Compiled]
) -> tuple[str, tuple[Plan, ...], Compiled]:
    """Plan, render and compile the kernels of one library on one GPU; plan the launch from what they need.

    A kernel that needs a stack frame or spills is planned again with its op's next tile. Raises VQ0607 if
    the last proposal still spills.
    """
    attempts = [0] * len(problems)
    while True:
        plans, source = _named(
            problems,
            [_planned(problem, attempt) for problem, attempt in zip(problems, attempts, strict=True)],
        )
        compiled = compile_source(source)
        spilling = [i for i, plan in enumerate(plans) if _spills(compiled.resources[plan.kernel])]
        if not spilling:
            launched = tuple(
                plan_launch(problem, plan, compiled.resources[plan.kernel])
                for problem, plan in zip(problems, plans, strict=True)
            )
            return source, launched, compiled
        for i in spilling:
            attempts[i] += 1


def _named(problems: Sequence[Problem], plans: Sequence[Plan]) -> tuple[tuple[Plan, ...], str]:
    """Render the plans, their kernels named by a hash of the source they are in.

    So a header never finds its symbols in the cubin of another build.
    """
    unnamed = [replace(plan, kernel=f"{plan.kernel}_{_UNNAMED}") for plan in plans]
    source = render_source(problems, unnamed)
    digest = hashlib.sha256(source.encode()).hexdigest()[:8]
    named = tuple(replace(plan, kernel=f"{plan.kernel}_{digest}") for plan in plans)
    return named, source.replace(_UNNAMED, digest)


def _planned(problem: Problem, attempt: int) -> Plan:
    plan = plan_kernel(problem, attempt)
    if plan is None:
        raise VqccError(
            Diagnostic(
                "VQ0607",
                f"every tile of {problem.kernel} spills registers on {problem.gpu.name}",
                help="please report this spec: the planner has no tile small enough for it",
            ),
            exit_code=ExitCode.TOOLCHAIN,
        )
    return plan


def _spills(resources: Resources) -> bool:
    return bool(resources.stack_bytes or resources.spill_store_bytes or resources.spill_load_bytes)
