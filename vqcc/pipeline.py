"""The passes in order: from a problem to a compiled, launchable plan."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import vqcc
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


def plan_kernel(problem: Problem, attempt: int = 0) -> Plan | None:
    """Plan one kernel up to its tile; None if `attempt` exceeds the op's proposals. Raises VQ04xx."""
    plan = Plan(problem.kernel, problem.level)
    plan = plan_layout(problem, plan)
    plan = plan_placement(problem, plan)
    tiled = plan_tile(problem, plan, attempt)
    return None if tiled is None else replace(tiled, kernel=f"{problem.kernel}_{_identity(problem, tiled)}")


def _identity(problem: Problem, plan: Plan) -> str:
    """Eight hex digits of all that shapes a kernel: a header never finds its symbols in another build's cubin."""
    assert plan.layout is not None
    assert plan.tile is not None
    described = [
        vqcc.__version__,
        problem.gpu.target,
        plan.level,
        problem.algorithm.mapping(),
        problem.op.weight_shape,
        asdict(plan.layout),
        [[constant.name, constant.value] for constant in plan.tile.constants()],
    ]
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:8]


def compile_plans(
    problems: Sequence[Problem], compile_source: Callable[[str], Compiled]
) -> tuple[str, tuple[Plan, ...], Compiled]:
    """Plan, render and compile the kernels of one library on one GPU; plan the launch from what they need.

    A kernel that needs a stack frame or spills is planned again with its op's next tile. Raises VQ0607 if
    the last proposal still spills.
    """
    attempts = [0] * len(problems)
    while True:
        plans = tuple(_planned(problem, attempt) for problem, attempt in zip(problems, attempts, strict=True))
        source = render_source(problems, plans)
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
