"""Candidates on a CUDA device: libraries of one kernel, written, loaded, checked against float64 and timed."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from vqcc import gpus as known_gpus
from vqcc.building import runs_on, write_library
from vqcc.diagnostics import Diagnostic, ExitCode, VqccError
from vqcc.gpus.device_names import names_gpu
from vqcc.hotness.drawing import draw_tensor, shares_by_rank
from vqcc.library import load_weight_library
from vqcc.runtime.bench import bench_library, shared_weights

if TYPE_CHECKING:
    from collections.abc import Sequence

    from vqcc.building import Built
    from vqcc.gpus.model import Gpu
    from vqcc.hotness.model import TensorProfile
    from vqcc.library import Library
    from vqcc.runtime.bench import Weights
    from vqcc.runtime.device import Device
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = ["DeviceBench", "gpu_of_device"]


class DeviceBench:
    """Times libraries of one algorithm and shape, all with the same random weights.

    With a profile, entries are looked up as often as it says.
    """

    def __init__(self, device: Device, *, seed: int = 0, profile: Sequence[TensorProfile] = ()) -> None:
        self._device, self._seed, self._profile = device, seed, profile
        self._tensor: VQTensor | None = None
        self._weights: dict[str, Weights] = {}

    @property
    def device(self) -> str:
        """The device's name and its driver."""
        return f"{self._device.name}, driver {self._device.driver_release}"

    def time(self, built: Built) -> float | None:
        """Microseconds of one launch; None if its result is outside its bound of float64."""
        with tempfile.TemporaryDirectory() as directory:
            write_library(built, Path(directory) / built.name)
            library = load_weight_library(Path(directory) / built.name)
            if self._tensor is None:
                self._tensor = self._draw(library)
            if library.layout_id not in self._weights:
                self._weights |= shared_weights([library], self._tensor)
            (row,) = bench_library(
                library, self._device, None, seed=self._seed, weights=self._weights[library.layout_id]
            )
        return float(row["us"]) if row["within_bound"] else None

    def _draw(self, library: Library) -> VQTensor:
        import numpy as np

        rng, shape = np.random.default_rng(self._seed), library.op.weight_shape
        if not self._profile:
            return library.algorithm.random_tensor(rng, "random", *shape)
        return draw_tensor(rng, library.algorithm, shape, shares_by_rank(self._profile))


def gpu_of_device(gpus: Sequence[Gpu], device: Device, *, named: bool) -> Gpu:
    """Which of a spec's GPUs the device is: of its target, SMs and name; if `named`, the one whose cubins it runs.

    A GPU that vqcc has no data file of counts by target and SMs. Raises VqccError: VQ0805, exit code 5, if that leaves
    none or several.
    """
    if named:
        found = [gpu for gpu in gpus if device.target in runs_on(gpu)]
    else:
        found = [gpu for gpu in gpus if _looks_like(gpu, device)]
    if len(found) == 1:
        return found[0]
    names = ", ".join(gpu.name for gpu in gpus)
    told = f"this device is {device.name}, {device.target} with {device.sm_count} SMs"
    if named:
        told += ", and runs no cubin of that"
    help_text = "tune on such a GPU, or name with --gpu the one that this device is to be taken for"
    raise VqccError(
        Diagnostic("VQ0805", f"the spec is for {names}; {told}", help=help_text), exit_code=ExitCode.NO_DEVICE
    )


def _looks_like(gpu: Gpu, device: Device) -> bool:
    if (gpu.target, gpu.sm_count.integer) != (device.target, device.sm_count):
        return False
    return gpu.name not in known_gpus.names() or names_gpu(device.name, gpu.name)
