"""Benchmark rows: a library's kernels on this GPU, beside cuBLAS fp16 in the same run where torch is there."""

from __future__ import annotations

import datetime
import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqcc.runtime.backend import CudaBackend, gpus_for
from vqcc.runtime.timing import copies_past_cache, time_kernel, time_torch
from vqcc.verify.harness import blank_outputs, make_workspace, repeat_case, run_case

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.library import Kernel, Library
    from vqcc.runtime.device import Device
    from vqcc.runtime.timing import Timing
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = [
    "Baselines",
    "Weights",
    "bench_library",
    "describe_run",
    "packed_weights",
    "random_weights",
    "shared_weights",
]


class Baselines:
    """cuBLAS times by shape and type, each measured once per run; none without PyTorch."""

    def __init__(self, l2_bytes: int) -> None:
        self._l2_bytes = l2_bytes
        self._times: dict[tuple[int, int, int, str], Timing | None] = {}

    def cublas(self, n: int, k: int, m: int, dtype: str) -> Timing | None:
        """y[m, n] = x[m, k] W[n, k] in `dtype` through torch.nn.functional.linear's kernel."""
        key = (n, k, m, dtype)
        if key not in self._times:
            self._times[key] = self._measure(*key)
        return self._times[key]

    def _measure(self, n: int, k: int, m: int, dtype: str) -> Timing | None:
        try:
            import torch
        except ImportError:
            return None
        kind = getattr(torch, dtype)
        copies = copies_past_cache(2 * n * k, self._l2_bytes)
        weights = [torch.randn(n, k, dtype=kind, device="cuda") for _ in range(copies)]
        x = torch.randn(m, k, dtype=kind, device="cuda")
        y = torch.empty(m, n, dtype=kind, device="cuda")
        timing = time_torch(lambda i: torch.mm(x, weights[i].t(), out=y), copies)
        weights.clear()
        torch.cuda.empty_cache()
        return timing


@dataclass(frozen=True)
class Weights:
    """A weight as kernels read it, and as float64 knows it: its values and the sums of their terms' magnitudes."""

    packed: Mapping[str, NDArray[Any]]
    decoded: tuple[NDArray[np.float64], NDArray[np.float64]]


def random_weights(library: Library, *, seed: int = 0) -> Weights:
    """Random weights for `library`; libraries that pack alike can share them, as `packed_weights` says."""
    import numpy as np

    rng = np.random.default_rng(seed)
    return packed_weights(library, library.algorithm.random_tensor(rng, "random", *library.op.weight_shape))


def packed_weights(library: Library, tensor: VQTensor) -> Weights:
    """`tensor` as `library` reads it."""
    return shared_weights([library], tensor)[library.layout_id]


def shared_weights(libraries: Sequence[Library], tensor: VQTensor) -> dict[str, Weights]:
    """`tensor` as `libraries` of its algorithm and shape read it, by the ids of their layouts.

    Of the libraries, all have a profile, or none has.
    """
    algorithm = tensor.algorithm
    decoded = (algorithm.decode(tensor), algorithm.decode(tensor, magnitudes=True))
    layouts = {library.layout_id: library for library in libraries}
    return {name: Weights(library.pack(tensor).arrays(), decoded) for name, library in layouts.items()}


def bench_library(
    library: Library,
    device: Device,
    baselines: Baselines | None,
    *,
    seed: int = 0,
    weights: Weights | None = None,
    overlap: bool = False,
) -> Iterator[dict[str, Any]]:
    """Time every kernel of `library` that this device runs; one row per kernel, as the results files keep them.

    Without `baselines` nothing else is timed. With `overlap` a launch may start while the one before it ends.
    """
    import numpy as np

    backend = CudaBackend(device, overlap=overlap)
    rng = np.random.default_rng(seed)
    weights = weights or random_weights(library, seed=seed)
    packed, decoded = weights.packed, weights.decoded
    for gpu in gpus_for(library, device)[:1]:
        runner = backend.load(library, gpu)
        bandwidth = library.builds[gpu].dram_bytes_per_second
        workspace = make_workspace(library, gpu)
        for kernel in library.builds[gpu].kernels:
            # Rows next to each other, as the baseline's are.
            case = library.op.draw_case(
                kernel.variant, kernel.variant.sizes, library.algorithm, rng, gaps=False
            )
            blank = blank_outputs(case)
            found = run_case(library, runner, kernel, case, packed, decoded, workspace)
            if kernel.launch.workspace_bytes:
                repeat_case(runner, kernel, case, blank, packed, workspace)
            arrays = {**packed, **case.inputs, **case.outputs}
            moved = sum(array.nbytes for array in arrays.values())
            first = {name: device.upload(array) for name, array in arrays.items()}
            copies = [first]
            copies += (
                {name: device.clone(array) for name, array in first.items()}
                for _ in range(copies_past_cache(moved, device.l2_bytes) - 1)
            )
            if kernel.launch.workspace_bytes:  # launches of one stream never overlap: they share it
                shared = device.upload(workspace)
                copies = [{**copy, "workspace": shared} for copy in copies]
            timing = time_kernel(device, runner, kernel, copies, case.scalars)
            del copies, first
            m = kernel.variant.sizes["m"]
            dtype = kernel.variant.dtype
            baseline = None if baselines is None else baselines.cublas(*library.op.weight_shape, m, dtype)
            row = _row(
                library, kernel, timing, baseline, 1e6 * moved / bandwidth, found.relative_error, found.passed
            )
            yield {**row, "overlap": True} if overlap else row


def _row(
    library: Library,
    kernel: Kernel,
    timing: Timing,
    baseline: Timing | None,
    floor_us: float,
    error: float,
    passed: bool,
) -> dict[str, Any]:
    from vqcc.algorithms.presets import name_of

    n, k = library.op.weight_shape
    row: dict[str, Any] = {
        "op": library.op.kind,
        "algorithm": name_of(library.algorithm) or library.algorithm.label,
        "level": library.level,
        "dtype": kernel.variant.dtype,
        "n": n,
        "k": k,
        **kernel.variant.sizes,
        "us": round(timing.us, 3),
        "us_min": round(timing.us_min, 3),
        "us_max": round(timing.us_max, 3),
    }
    if baseline is not None:
        row |= {
            "baseline": "cublas_fp16" if kernel.variant.dtype == "float16" else "cublas_bf16",
            "baseline_us": round(baseline.us, 3),
            "baseline_us_min": round(baseline.us_min, 3),
            "baseline_us_max": round(baseline.us_max, 3),
        }
    return row | {
        "floor_us": round(floor_us, 3),
        "error": float(f"{error:.3e}"),
        "within_bound": passed,
        "grid": kernel.launch.grid,
        "threads": kernel.launch.threads,
        "registers": kernel.registers,
        "workspace_bytes": kernel.launch.workspace_bytes,
    }


def describe_run(device: Device, toolchain: str, command: str, commit: str | None) -> dict[str, Any]:
    """The `meta` of a results file: what was measured where, with what."""
    try:
        import torch

        torch_version: str | None = torch.__version__
    except ImportError:
        torch_version = None
    return {
        "commit": commit,
        "gpu": device.name,
        "driver": device.driver_release,
        "cuda": toolchain,
        "torch": torch_version,
        "python": platform.python_version(),
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        "command": command,
    }
