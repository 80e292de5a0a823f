"""Where a library's kernels can run: the CPU emulator or a CUDA device. Both take the same launches."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

from vqcc.compiled import select_gpus
from vqcc.diagnostics import Diagnostic, VqccError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.compiled import CompiledKernel, CompiledLibrary

    AnyLibrary = CompiledLibrary[CompiledKernel]

__all__ = ["Backend", "EmulatorBackend", "Runner"]


class Runner(Protocol):
    """A library's kernels on one GPU, loaded."""

    def run(
        self,
        kernel: CompiledKernel,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
        scalars: Mapping[str, float],
        workspace: NDArray[np.uint8],
    ) -> None:
        """Launch once; `outputs` are overwritten, and `workspace` holds what the kernel left there.

        The kernel sees `Launch.workspace_bytes` of the workspace, or null where that is 0. Raises VqccError with
        exit code MISMATCH for a bug found.
        """


class Backend(Protocol):
    """Loads libraries."""

    name: str

    def gpus(self, library: AnyLibrary, names: Sequence[str]) -> tuple[str, ...]:
        """GPUs of `library` to run: those named, or all that can be. Raises VQ0805."""

    def load(self, library: AnyLibrary, gpu: str) -> Runner:
        """Make the kernels for `gpu` ready to run. Raises VQ08xx if they cannot be."""


class EmulatorBackend:
    """Runs the emitted source on the CPU, checking every memory access and barrier."""

    name = "emulate"

    def __init__(self, cache_directory: Path, compiler: str | None = None) -> None:
        self._cache_directory = cache_directory
        self._compiler = compiler

    def gpus(self, library: AnyLibrary, names: Sequence[str]) -> tuple[str, ...]:
        """Those named, or all."""
        return select_gpus(library, names)

    def load(self, library: AnyLibrary, gpu: str) -> Runner:
        """Compile the emitted source for the CPU. Raises VQ0802 if the library holds no source."""
        from vqcc.emulator import build

        source = library.source(gpu)
        if source is None:
            raise VqccError(
                Diagnostic(
                    "VQ0802",
                    f"{library.bundle.directory} holds no source for {gpu}, which the emulator runs",
                    help="compile with --emit cu among the others",
                )
            )
        return _Emulated(build(source, cache_directory=self._cache_directory, compiler=self._compiler))


class _Emulated:
    def __init__(self, emulated: Any) -> None:
        self._emulated = emulated

    def run(
        self,
        kernel: CompiledKernel,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
        scalars: Mapping[str, float],
        workspace: NDArray[np.uint8],
    ) -> None:
        from vqcc.emulator import Buffer

        launch = kernel.launch
        # No more than it needs: an access past that is found.
        scratch = workspace[: launch.workspace_bytes]

        arguments: list[Any] = []
        for argument in kernel.arguments:
            if argument.role == "scalar":
                arguments.append(scalar(argument.c_type, scalars[argument.name]))
            elif argument.role in {"output", "inout"} and argument.name in outputs:
                role: Any = argument.role
                arguments.append(Buffer(argument.name, outputs[argument.name], role))
            elif argument.role == "workspace" and scratch.size:
                arguments.append(Buffer(argument.name, scratch, "inout"))
            elif argument.name in inputs:
                arguments.append(Buffer(argument.name, inputs[argument.name], "input"))
            else:
                arguments.append(None)
        before = {name: array.copy() for name, array in outputs.items()}
        report = self._emulated.launch(
            kernel.name,
            (launch.blocks_for(scalars), 1, 1),
            (launch.threads, 1, 1),
            launch.dynamic_shared_bytes,
            arguments,
        )
        for name, array in outputs.items():  # as on a device, what a kernel does not write stays as it was
            array[report.unwritten[name]] = before[name][report.unwritten[name]]


def scalar(c_type: str, value: float) -> Any:
    """A kernel's scalar parameter as NumPy's type of the same size."""
    import numpy as np

    types: dict[str, Any] = {"int32_t": np.int32, "int64_t": np.int64, "float": np.float32}
    return types[c_type](value)
