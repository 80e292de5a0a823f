"""Libraries on a CUDA device: the backend of `validate --backend cuda` and of `bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqcc.compiled import select_gpus
from vqcc.diagnostics import Diagnostic, ExitCode, VqccError
from vqcc.runtime.overlap import OverlappingModule

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.compiled import CompiledKernel
    from vqcc.runtime.device import Device, DeviceArray
    from vqcc.verify.backends import AnyLibrary

__all__ = ["CudaBackend", "CudaRunner", "gpus_for"]


class CudaBackend:
    """Loads cubins into an open device."""

    name = "cuda"

    def __init__(self, device: Device, *, overlap: bool = False) -> None:
        self.device, self.overlap = device, overlap

    def gpus(self, library: AnyLibrary, names: Sequence[str]) -> tuple[str, ...]:
        """Those named, or all whose cubins this device runs."""
        return select_gpus(library, names) if names else gpus_for(library, self.device)

    def load(self, library: AnyLibrary, gpu: str) -> CudaRunner:
        """Load the cubin compiled for `gpu`. Raises VQ0805 if this device cannot run it, VQ0802 without one."""
        runs_on = library.builds[gpu].runs_on
        if self.device.target not in runs_on:
            raise VqccError(
                Diagnostic(
                    "VQ0805",
                    f"the cubin for {gpu} runs on {', '.join(runs_on)}; this device is {self.device.name}, "
                    f"{self.device.target}",
                    help="compile the spec for this GPU",
                ),
                exit_code=ExitCode.NO_DEVICE,
            )
        cubin = library.cubin(gpu)
        if cubin is None:
            raise VqccError(
                Diagnostic(
                    "VQ0802",
                    f"{library.bundle.directory} holds no cubin for {gpu}",
                    help="compile with --emit cubin among the others",
                )
            )
        return CudaRunner(self.device, library, gpu, cubin, overlap=self.overlap)


class CudaRunner:
    """A library's kernels, loaded; with `overlap` launches may start while those before them end."""

    def __init__(
        self, device: Device, library: AnyLibrary, gpu: str, cubin: bytes, *, overlap: bool = False
    ) -> None:
        self._device = device
        self._overlapping = OverlappingModule(cubin, library.builds[gpu].in_cubin) if overlap else None
        module = device.load(cubin)
        self._functions = {
            kernel.name: module.function(
                kernel.name, kernel.launch.dynamic_shared_bytes, kernel.launch.carveout_percent
            )
            for kernel in library.builds[gpu].in_cubin
        }

    def run(
        self,
        kernel: CompiledKernel,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
        scalars: Mapping[str, float],
        workspace: NDArray[np.uint8],
    ) -> None:
        """Launch once and wait; `outputs` and `workspace` are overwritten."""
        written = {**outputs, **({"workspace": workspace} if kernel.launch.workspace_bytes else {})}
        arrays = {name: self._device.upload(array) for name, array in {**inputs, **written}.items()}
        self.enqueue(kernel, arrays, scalars)
        self._device.synchronize()
        for name, array in written.items():
            self._device.download(arrays[name], array)

    def enqueue(
        self, kernel: CompiledKernel, arrays: Mapping[str, DeviceArray], scalars: Mapping[str, float]
    ) -> None:
        """Put one launch on the device's stream; `arrays` holds the workspace too, if the kernel needs one."""
        launch = kernel.launch
        if self._overlapping is not None:
            self._overlapping.enqueue(
                kernel,
                launch.blocks_for(scalars),
                self._arguments(kernel, arrays, scalars),
                self._device.stream.handle,
            )
            return
        self._device.launch(
            self._functions[kernel.name],
            self._arguments(kernel, arrays, scalars),
            launch.blocks_for(scalars),
            launch.threads,
            launch.dynamic_shared_bytes,
        )

    def _arguments(
        self, kernel: CompiledKernel, arrays: Mapping[str, DeviceArray], scalars: Mapping[str, float]
    ) -> list[Any]:
        import numpy as np

        from vqcc.verify.backends import scalar

        return [
            scalar(argument.c_type, scalars[argument.name])
            if argument.role == "scalar"
            else np.uint64(arrays[argument.name].address if argument.name in arrays else 0)
            for argument in kernel.arguments
        ]


def gpus_for(library: AnyLibrary, device: Device) -> tuple[str, ...]:
    """GPUs of the library whose cubins `device` runs, those of its own target first. Raises VQ0805 without any."""
    running = [name for name, build in library.builds.items() if device.target in build.runs_on]
    found = tuple(sorted(running, key=lambda name: library.builds[name].runs_on[0] != device.target))
    if not found:
        held = ", ".join(library.gpus)
        raise VqccError(
            Diagnostic(
                "VQ0805",
                f"library {library.name} was compiled for {held}; none of its cubins runs on {device.name}, "
                f"{device.target}",
                help="compile the spec for this GPU",
            ),
            exit_code=ExitCode.NO_DEVICE,
        )
    return found
