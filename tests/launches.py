"""Launches for tests: planned kernels on the emulator, all with the same weights and one workspace."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.codegen.render import render_source
from vqcc.emulator import Buffer, build
from vqcc.tensors.packing import pack_tensor
from vqcc.verify.backends import scalar
from vqcc.verify.tolerance import Comparison, compare, error_bound

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from vqcc.emulator import Counters
    from vqcc.ops.base import LaunchCase
    from vqcc.plan import Plan
    from vqcc.problem import Problem
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = ["Inputs", "Kernel", "Kernels", "Outcome"]

#: Workspace bytes are rounded up to this, as allocations are.
WORKSPACE_UNIT = 256


@dataclass(frozen=True)
class Kernel:
    """A plan and the problem that it is for."""

    problem: Problem
    plan: Plan


@dataclass(frozen=True)
class Inputs:
    """What a launch reads beside the weights, and what it should give."""

    case: LaunchCase
    exact: NDArray[np.float64]
    magnitude: NDArray[np.float64]


@dataclass(frozen=True)
class Outcome:
    """What a launch gave: y [m, n], how it compares with float64, each element's bound, and what it cost."""

    result: NDArray[Any]
    comparison: Comparison
    bound: NDArray[np.float64]
    counters: Counters | None


class Kernels:
    """Kernels of one algorithm, op and GPU, in one source, with one weight and one workspace."""

    def __init__(
        self,
        kernels: Sequence[tuple[Problem, Plan]],
        tensor: VQTensor,
        cache_directory: Path,
        *,
        by_frequency: bool = False,
    ) -> None:
        problem, plan = kernels[0]
        assert plan.layout is not None
        # Names of their own: plans of several levels share one source here.
        self.kernels = tuple(
            Kernel(each, replace(its, kernel=f"{each.kernel}_{number}"))
            for number, (each, its) in enumerate(kernels)
        )
        source = render_source([k.problem for k in self.kernels], [k.plan for k in self.kernels])
        self._emulated = build(source, cache_directory=cache_directory / "emulator")
        self._packed = pack_tensor(tensor, plan.layout, by_frequency=by_frequency).arrays()
        algorithm = problem.algorithm
        self._weights = (algorithm.decode(tensor), algorithm.decode(tensor, magnitudes=True))
        most = max(k.plan.launch.workspace_bytes for k in self.kernels if k.plan.launch is not None)
        self.workspace = np.zeros(-(-most // WORKSPACE_UNIT) * WORKSPACE_UNIT, np.uint8)

    def draw(
        self, problem: Problem, m: int, rng: np.random.Generator, *, bias: bool, scale: float = 1.0
    ) -> Inputs:
        """Inputs of a launch with `m` rows of x, all of them times `scale`."""
        case = problem.op.draw_case(problem.variant, {"m": m}, problem.algorithm, rng)
        kept = {name: array for name, array in case.inputs.items() if bias or name != "bias"}
        if scale != 1.0:
            kept["x"] = (kept["x"] * scale).astype(kept["x"].dtype)
        exact, magnitude = problem.op.reference(*self._weights, kept)
        return Inputs(replace(case, inputs=kept), exact, magnitude)

    def run(self, kernel: Kernel, inputs: Inputs, *, count: bool = False) -> Outcome:
        """Launch `kernel` once."""
        problem, plan, case = kernel.problem, kernel.plan, inputs.case
        launch, tile, layout = plan.launch, plan.tile, plan.layout
        assert launch is not None
        assert tile is not None
        assert layout is not None
        outputs = {name: array.copy() for name, array in case.outputs.items()}
        scratch = self.workspace[: launch.workspace_bytes]
        arguments = self._arguments(problem, case, outputs, scratch)
        report = self._emulated.launch(
            plan.kernel,
            (launch.blocks_for(case.scalars), 1, 1),
            (launch.threads, 1, 1),
            launch.dynamic_shared_bytes,
            arguments,
            count=count,
        )
        assert all(mask.all() for mask in self._untouched(case, report.unwritten)), "wrote past its output"
        roundings = problem.op.longest_sum(tile, problem.algorithm)
        result = case.result(outputs)
        dtype = problem.variant.dtype
        return Outcome(
            result,
            compare(result, inputs.exact, inputs.magnitude, roundings, dtype),
            error_bound(inputs.exact, inputs.magnitude, roundings, dtype),
            report.counters,
        )

    def _arguments(
        self,
        problem: Problem,
        case: LaunchCase,
        outputs: Mapping[str, NDArray[Any]],
        scratch: NDArray[np.uint8],
    ) -> list[Any]:
        arrays = {**self._packed, **case.inputs}
        found: list[Any] = []
        for argument in problem.op.arguments(problem.variant):
            if argument.role == "scalar":
                found.append(scalar(argument.c_type, case.scalars[argument.name]))
            elif argument.role == "output":
                found.append(Buffer(argument.name, outputs[argument.name], "output"))
            elif argument.role == "workspace":
                found.append(Buffer(argument.name, scratch, "inout", 256) if scratch.size else None)
            else:
                array = arrays.get(argument.name)
                found.append(None if array is None else Buffer(argument.name, array, "input"))
        return found

    def _untouched(
        self, case: LaunchCase, unwritten: Mapping[str, NDArray[np.bool_]]
    ) -> list[NDArray[np.bool_]]:
        return [case.untouched({name: unwritten[name] for name in case.outputs})]
