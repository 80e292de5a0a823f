"""Candidates on a CUDA device: libraries of one kernel, written, loaded, checked against float64 and timed."""

from __future__ import annotations

import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqcc import gpus as known_gpus
from vqcc.building import runs_on, write_library
from vqcc.diagnostics import Diagnostic, ExitCode, VqccError
from vqcc.gpus.device_names import names_gpu
from vqcc.hotness.drawing import draw_tensor, shares_by_rank
from vqcc.library import load_cache_library, load_weight_library
from vqcc.problem import CacheProblem
from vqcc.runtime.bench import bench_library, shared_weights
from vqcc.runtime.cache_bench import bench_cache_library, longest_context

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from vqcc.building import Built
    from vqcc.gpus.model import Gpu
    from vqcc.hotness.model import TensorProfile
    from vqcc.library import Library
    from vqcc.problem import KernelProblem
    from vqcc.runtime.bench import Weights
    from vqcc.runtime.device import Device
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = ["CacheBench", "WeightBench", "gpu_of_device"]


class _DeviceBench:
    """What benches of all subjects have: the device, and what inputs are drawn by."""

    def __init__(self, device: Device, *, seed: int = 0) -> None:
        self._device, self._seed = device, seed

    @property
    def device(self) -> str:
        """The device's name and its driver."""
        return f"{self._device.name}, driver {self._device.driver_release}"


class WeightBench(_DeviceBench):
    """Times libraries of one algorithm and shape, all with the same random weights.

    With a profile, entries are looked up as often as it says.
    """

    def __init__(self, device: Device, *, seed: int = 0, profile: Sequence[TensorProfile] = ()) -> None:
        super().__init__(device, seed=seed)
        self._profile = profile
        self._tensor: VQTensor | None = None
        self._weights: dict[str, Weights] = {}

    def note(self, _problem: KernelProblem) -> str:
        """Nothing: launches are those that kernels are planned for."""
        return ""

    def time(self, built: Built) -> float | None:
        """Microseconds of one launch; None if its result is outside its bound of float64. Raises VQ0808, VQ08xx."""
        with _written(built) as directory:
            library = load_weight_library(directory)
            if self._tensor is None:
                self._tensor = self._draw(library)
            if library.layout_id not in self._weights:
                self._weights |= shared_weights([library], self._tensor)
            (row,) = bench_library(
                library, self._device, None, seed=self._seed, weights=self._weights[library.layout_id]
            )
        return _us_within_bound(row)

    def _draw(self, library: Library) -> VQTensor:
        import numpy as np

        rng, shape = np.random.default_rng(self._seed), library.op.weight_shape
        if not self._profile:
            return library.algorithm.random_tensor(rng, "random", *shape)
        return draw_tensor(rng, library.algorithm, shape, shares_by_rank(self._profile))


class CacheBench(_DeviceBench):
    """Times libraries of attention, over random caches of sequences as long as the context.

    Where the device has no room for these, sequences are shorter, equally long for all candidates of a kernel.
    """

    def __init__(self, device: Device, *, seed: int = 0) -> None:
        super().__init__(device, seed=seed)
        self._contexts: dict[str, int] = {}

    def note(self, problem: KernelProblem) -> str:
        """How long sequences are if not as long as the context."""
        assert isinstance(problem, CacheProblem)
        context = self._context(problem)
        if context == problem.op.context:
            return ""
        return f"sequences of {context} tokens: longer ones do not fit its free memory"

    def time(self, built: Built) -> float | None:
        """Microseconds of one launch; None if its result is outside its bound of float64. Raises VQ0808, VQ08xx."""
        ((problem,),) = (build.problems for build in built.gpus)
        assert isinstance(problem, CacheProblem)
        context = self._context(problem)
        with _written(built) as directory:
            library = load_cache_library(directory)
            row = next(bench_cache_library(library, self._device, None, contexts=(context,), seed=self._seed))
        return _us_within_bound(row)

    def _context(self, problem: CacheProblem) -> int:
        """As the memory was when it was asked for first, before anything was timed."""
        suffix, sizes = problem.variant.suffix, problem.variant.sizes
        layout = problem.op.layout(problem.keys, problem.values, "plain")
        if suffix not in self._contexts:
            self._contexts[suffix] = longest_context(
                problem.op,
                layout.in_pages(sizes["page_tokens"]),
                sizes["batch"],
                l2_bytes=self._device.l2_bytes,
                free_bytes=self._device.free_bytes,
            )
        return self._contexts[suffix]


@contextmanager
def _written(built: Built) -> Iterator[Path]:
    """A library's bundle, for as long as it is needed."""
    with tempfile.TemporaryDirectory() as directory:
        write_library(built, Path(directory) / built.name)
        yield Path(directory) / built.name


def _us_within_bound(row: Mapping[str, Any]) -> float | None:
    """Microseconds of a benchmark's row; None if the result was outside its bound."""
    return float(row["us"]) if row["within_bound"] else None


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
