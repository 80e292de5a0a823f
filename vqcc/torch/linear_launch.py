"""Launches of a linear library, checked and chosen as its C header does it: `_supports`, `_select` and `_launch`.

Everything is a number here, addresses and strides too; who has tensors is in linear_op.py.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import TYPE_CHECKING, NamedTuple

from vqcc.codegen.header import WORKSPACE_ALIGNMENT
from vqcc.workspaces import sufficient_of_kernels

if TYPE_CHECKING:
    from vqcc.codegen.contract import StatusName
    from vqcc.library import Library
    from vqcc.ops.base import Dtype
    from vqcc.torch.kernels import LoadedKernels

__all__ = ["LinearArguments", "LinearLaunches"]


class LinearArguments(NamedTuple):
    """The header's args: first the kernel's parameters in their order, 0 where there is none, then what is asked."""

    codes: int
    books: int
    stage_scales: int
    scales: int
    x: int
    bias: int
    y: int
    workspace: int
    m: int
    x_stride: int
    y_stride: int
    dtype: Dtype
    overlap: bool = False


#: Members that are the kernel's.
_PARAMETERS = len(LinearArguments._fields) - 2


class LinearLaunches:
    """What a library's header knows of launches on one of its GPUs."""

    def __init__(self, library: Library, gpu: str) -> None:
        build = library.builds[gpu]
        for kernel in build.kernels:
            assert tuple(each.name for each in kernel.arguments) == LinearArguments._fields[:_PARAMETERS]
        values = library.op.header_values(library.algorithm)
        self.n, self.k, self.max_m = values["n"], values["k"], values["max_m"]
        self.x_alignment = values["x_alignment"]
        self._needs_scales, self._needs_stage_scales = values["needs_scales"], values["needs_stage_scales"]
        self._kernels = build.kernels
        #: By type: bounds on m, ascending, and the kernel's number and workspace bytes of each.
        self._bounds: dict[str, list[int]] = {}
        self._served: dict[str, list[tuple[int, int]]] = {}
        launches = [[kernel.launch for kernel in each.kernels] for each in library.builds.values()]
        variants = [kernel.variant for kernel in build.kernels]
        sufficient = sufficient_of_kernels(variants, "m", launches)
        for dtype in dict.fromkeys(kernel.variant.dtype for kernel in build.kernels):
            numbers = [i for i, kernel in enumerate(build.kernels) if kernel.variant.dtype == dtype]
            numbers.sort(key=lambda i: build.kernels[i].variant.sizes["m"])
            self._bounds[dtype] = [build.kernels[i].variant.sizes["m"] for i in numbers]
            self._served[dtype] = [(number, sufficient[number]) for number in numbers]

    def select(self, dtype: str, m: int) -> int | None:
        """The number of the kernel that serves m rows: that of the smallest bound that covers them."""
        found = self._serving(dtype, m)
        return None if found is None else found[0]

    def workspace_bytes(self, dtype: str, m: int) -> int:
        """Device memory that suffices for launches with m rows or fewer, on any GPU; 0 for what no kernel serves."""
        found = self._serving(dtype, m) if m >= 1 else None
        return 0 if found is None else found[1]

    def _serving(self, dtype: str, m: int) -> tuple[int, int] | None:
        bounds = self._bounds.get(dtype, ())
        place = bisect_left(bounds, m)
        return None if place == len(bounds) else self._served[dtype][place]

    def supports(self, args: LinearArguments) -> StatusName:  # noqa: PLR0911  (a status each)
        """The header's status, less its prefix: `OK`, or what is wrong."""
        codes, books, stage_scales, scales, x, bias, y, workspace, m, x_stride, y_stride, dtype, _ = args
        if not (codes and books and x and y) or (
            (self._needs_scales and not scales) or (self._needs_stage_scales and not stage_scales)
        ):
            return "ERROR_NULL_POINTER"
        if not 1 <= m <= self.max_m:
            return "ERROR_SIZE"
        found = self._serving(dtype, m)
        if found is None:
            return "ERROR_TYPE"
        needs_workspace = found[1] != 0
        if needs_workspace and not workspace:
            return "ERROR_NULL_POINTER"
        if m > 1 and (x_stride < self.k or y_stride < self.n):
            return "ERROR_STRIDE"
        if (
            (codes | books) % 16
            or (scales | stage_scales) % 4
            or x % self.x_alignment
            or (m > 1 and x_stride % (self.x_alignment // 2))
            or (bias | y) % 2
            or (needs_workspace and workspace % WORKSPACE_ALIGNMENT)
        ):
            return "ERROR_MISALIGNED"
        return "OK"

    def launch(self, loaded: LoadedKernels, args: LinearArguments, stream: int) -> StatusName:
        """Check `args`, and enqueue the kernel that serves them. Raises RuntimeError if the driver refuses."""
        status = self.supports(args)
        if status == "OK":
            number, _ = self._served[args.dtype][bisect_left(self._bounds[args.dtype], args.m)]
            launch = self._kernels[number].launch
            panels = -(-args.m // launch.panel_rows) if launch.panel_rows else 1
            loaded.launch(number, launch.grid * panels, args[:_PARAMETERS], stream, overlap=args.overlap)
        return status
