"""The library's C header: one file for all its GPUs and variants (docs/header.md has the contract)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqcc.codegen.contract import contract_values
from vqcc.codegen.render import environment
from vqcc.codegen.text import Fragment, banner_of, c_identifier, comment, hexadecimal, integers, string_text
from vqcc.library import layout_identity
from vqcc.workspaces import sufficient_of_kernels

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vqcc.gpus.model import Gpu
    from vqcc.ops.base import Argument, Dtype
    from vqcc.plan import Launch, Plan
    from vqcc.problem import Problem

__all__ = [
    "WORKSPACE_ALIGNMENT",
    "HeaderKernel",
    "HeaderLaunch",
    "gpu_names",
    "header_kernel",
    "library_values",
    "render_header",
]

_TYPES = {"float16": 0, "bfloat16": 1}
_SCALE_BYTES = {"float16": 2, "float32": 4}
#: Of a workspace, in bytes: what cuMemAlloc gives.
WORKSPACE_ALIGNMENT = 256


@dataclass(frozen=True)
class _Gpu:
    name: Fragment
    upper: Fragment
    index: int
    comma: Fragment
    file: Fragment
    target: Fragment
    major: int
    minor: int
    sm_count: int
    has_ptx: int

    @classmethod
    def of(cls, library: str, gpu: Gpu, portable: bool, index: int, count: int) -> _Gpu:
        """GPU number `index` of `count`; `portable` code has no instructions of its architecture alone."""
        major, minor = gpu.compute_capability.split(".")
        return cls(
            string_text(gpu.name),
            c_identifier(gpu.name.upper()),
            index,
            comment("," if index + 1 < count else ""),
            string_text(f"{library}.{gpu.name}.cubin"),
            comment(gpu.target),
            int(major),
            int(minor),
            gpu.sm_count.integer,
            int(portable),
        )


@dataclass(frozen=True)
class HeaderKernel:
    """A kernel as the header's table has it."""

    name: Fragment
    type: int
    bounds: Fragment
    grid: int
    threads: int
    shared_bytes: int
    workspace_bytes: int
    carveout_percent: int
    panel_rows: int
    can_overlap: int


@dataclass(frozen=True)
class HeaderLaunch:
    """A function that launches: C names, less the library's, of what it takes and calls; kernel parameters in order.

    `select` finds the kernel by its type, `size` and `choices`, members of `args`; `supports` says whether there is
    one.
    """

    name: Fragment
    args: Fragment
    supports: Fragment
    select: Fragment
    size: Fragment
    parameters: tuple[Fragment, ...]
    choices: tuple[Fragment, ...] = ()

    @classmethod
    def of(
        cls,
        name: str,
        args: str,
        supports: str,
        select: str,
        size: str,
        arguments: Sequence[Argument],
        choices: Sequence[str] = (),
    ) -> HeaderLaunch:
        """The launch of kernels with `arguments`, each a member of `args`. Raises ValueError for no C names."""
        return cls(
            c_identifier(name),
            c_identifier(args),
            c_identifier(supports),
            c_identifier(select),
            c_identifier(size),
            tuple(c_identifier(argument.name) for argument in arguments),
            tuple(map(c_identifier, choices)),
        )


def render_header(
    name: str,
    problems: Sequence[Sequence[Problem]],
    plans: Sequence[Sequence[Plan]],
    build_id: str,
    portable: Sequence[bool],
) -> str:
    """The header of library `name`; `problems` and `plans` are one row of kernels per GPU, in order.

    `portable` says of each GPU whether its code has no instructions of that architecture alone.
    """
    problem, plan = problems[0][0], plans[0][0]
    assert plan.layout is not None
    assert plan.placement is not None
    algorithm, op = problem.algorithm, problem.op
    rows, columns = op.weight_shape
    shape = plan.layout.code_shape(rows)
    books = algorithm.scope.books(rows, columns)
    values = op.header_values(algorithm)
    gpus = [row[0].gpu for row in problems]
    variants = [each.variant for each in problems[0]]
    kernels = tuple(
        tuple(_kernel(*pair) for pair in zip(*row, strict=True)) for row in zip(problems, plans, strict=True)
    )
    what = f"{op.kind} on {algorithm.label} weights [{rows}, {columns}]"
    return (
        environment()
        .get_template(op.header_template)
        .render(
            **library_values(
                name,
                problem.library,
                f"{what}, level {plan.level}",
                gpus,
                portable,
            ),
            **contract_values("weights", gpus=gpu_names(gpus), max_m=values["max_m"]),
            build_id=hexadecimal(build_id),
            layout_id=hexadecimal(layout_identity(algorithm, op.weight_shape, plan.layout)),
            codes_bytes=None if shape is None else math.prod(shape) * 4,
            books_bytes=books * algorithm.table_bytes,
            scales_bytes=algorithm.scales.count(rows, columns) * _SCALE_BYTES[algorithm.scales.dtype],
            stage_scales_bytes=books * algorithm.residuals * 4 if algorithm.has_codebook_scales else 0,
            kernel_count=len(problems[0]),
            kernels=kernels,
            workspace_bytes=sufficient_of_kernels(variants, "m", kernels),
            launch=HeaderLaunch.of(
                "launch", "args", "supports", "select", "m", op.arguments(problem.variant)
            ),
            **values,
        )
    )


def library_values(
    name: str, identifier: str, what: str, gpus: Sequence[Gpu], portable: Sequence[bool]
) -> dict[str, Any]:
    """What `library.h.j2` prints of every library `name`, C name `identifier`, that computes `what` on `gpus`."""
    return {
        "p": c_identifier(identifier),
        "P": c_identifier(identifier.upper()),
        "banner": banner_of(f"{identifier}: {what}"),
        "gpu_count": len(gpus),
        "gpus": tuple(
            _Gpu.of(name, gpu, own, index, len(gpus))
            for index, (gpu, own) in enumerate(zip(gpus, portable, strict=True))
        ),
        "workspace_alignment": WORKSPACE_ALIGNMENT,
    }


def gpu_names(gpus: Iterable[Gpu]) -> Fragment:
    """GPUs as the text of a status names them."""
    return string_text(
        ", ".join(
            f"{gpu.name} (compute capability {gpu.compute_capability}, {gpu.sm_count.integer} SMs)"
            for gpu in gpus
        )
    )


def header_kernel(kernel: str, dtype: Dtype, bounds: Iterable[int], launch: Launch, gpu: Gpu) -> HeaderKernel:
    """A row of the header's table of kernels; `bounds` are the sizes up to which it serves a launch."""
    return HeaderKernel(
        c_identifier(kernel),
        _TYPES[dtype],
        integers(bounds),
        launch.grid,
        launch.threads,
        launch.dynamic_shared_bytes,
        launch.workspace_bytes,
        launch.carveout_percent,
        launch.panel_rows,
        int(gpu.has_dependent_launch),
    )


def _kernel(problem: Problem, plan: Plan) -> HeaderKernel:
    assert plan.launch is not None
    variant = problem.variant
    return header_kernel(plan.kernel, variant.dtype, variant.sizes.values(), plan.launch, problem.gpu)
