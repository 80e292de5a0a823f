"""Candidates on a CUDA device: libraries of one kernel, written, loaded, checked against float64 and timed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vqcc.building import runs_on, write_library
from vqcc.diagnostics import Diagnostic, ExitCode, VqccError
from vqcc.library import load_library
from vqcc.runtime.bench import bench_library, shared_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vqcc.building import Built
    from vqcc.gpus.model import Gpu
    from vqcc.runtime.bench import Weights
    from vqcc.runtime.device import Device
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = ["DeviceBench", "gpu_of_device"]


class DeviceBench:
    """Times libraries of one algorithm and shape, all with the same random weights."""

    def __init__(self, device: Device, *, seed: int = 0) -> None:
        self._device, self._seed = device, seed
        self._tensor: VQTensor | None = None
        self._weights: dict[str, Weights] = {}

    @property
    def device(self) -> str:
        """The device's name and its driver."""
        return f"{self._device.name}, driver {self._device.driver_release}"

    def time(self, built: Built) -> float | None:
        """Microseconds of one launch; None if its result is outside its bound of float64."""
        import numpy as np

        with tempfile.TemporaryDirectory() as directory:
            write_library(built, Path(directory) / built.name)
            library = load_library(Path(directory) / built.name)
            if self._tensor is None:
                rng = np.random.default_rng(self._seed)
                self._tensor = library.algorithm.random_tensor(rng, "random", *library.op.weight_shape)
            if library.layout_id not in self._weights:
                self._weights |= shared_weights([library], self._tensor)
            (row,) = bench_library(
                library, self._device, None, seed=self._seed, weights=self._weights[library.layout_id]
            )
        return float(row["us"]) if row["within_bound"] else None


def gpu_of_device(gpus: Sequence[Gpu], device: Device) -> Gpu:
    """Of a spec's GPUs the first whose cubins this device runs, those of its own target first. Raises VQ0805."""
    running = [gpu for gpu in gpus if device.target in runs_on(gpu)]
    if not running:
        named = ", ".join(gpu.name for gpu in gpus)
        raise VqccError(
            Diagnostic(
                "VQ0805",
                f"the spec is for {named}; this device is {device.name}, {device.target}, and runs no cubin of theirs",
                help="tune on such a GPU, or name one that this device is with --gpu",
            ),
            exit_code=ExitCode.NO_DEVICE,
        )
    return min(running, key=lambda gpu: gpu.target != device.target)
