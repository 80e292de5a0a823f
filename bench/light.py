"""Timing without a check: for many kernels at once, whose results other programs hold against float64.

Codes are random words, which every layout takes; nothing is decoded or packed on the CPU.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.building import write_library
from vqcc.library import load_library
from vqcc.runtime.backend import CudaBackend
from vqcc.runtime.timing import copies_past_cache, time_kernel
from vqcc.verify.harness import make_workspace

if TYPE_CHECKING:
    from vqcc.building import Built
    from vqcc.library import Library
    from vqcc.runtime.device import Device

#: Rows of the small tensor of which books are taken: entries and scales are those of any weight.
BOOK_ROWS = 64


def time_built(built: Built, device: Device, seed: int = 0) -> list[float]:
    """Microseconds of each kernel of a library on its first GPU."""
    with tempfile.TemporaryDirectory() as directory:
        write_library(built, Path(directory) / built.name)
        library = load_library(Path(directory) / built.name)
        return [_time(library, number, device, seed) for number in range(len(built.gpus[0].plans))]


def _time(library: Library, number: int, device: Device, seed: int) -> float:
    rng = np.random.default_rng(seed)
    gpu = next(iter(library.builds))
    kernel = library.builds[gpu].kernels[number]
    case = library.op.draw_case(kernel.variant, kernel.variant.sizes, library.algorithm, rng)
    arrays = {**weights_of(library, rng), **case.inputs, **case.outputs}
    moved = sum(array.nbytes for array in arrays.values())
    first = {name: device.upload(array) for name, array in arrays.items()}
    copies: list[dict[str, Any]] = [first]
    copies += (
        {name: device.clone(array) for name, array in first.items()}
        for _ in range(copies_past_cache(moved, device.l2_bytes) - 1)
    )
    if kernel.launch.workspace_bytes:
        shared = device.upload(make_workspace(library, gpu))
        copies = [{**copy, "workspace": shared} for copy in copies]
    runner = CudaBackend(device).load(library, gpu)
    return time_kernel(device, runner, kernel, copies, case.scalars).us


def weights_of(library: Library, rng: np.random.Generator) -> dict[str, Any]:
    """Random codes of the library's layout; books and scales of a small tensor, as often as there are books."""
    algorithm, (n, k) = library.algorithm, library.op.weight_shape
    rows, columns = algorithm.scope.tile(n, k)
    small = algorithm.random_tensor(rng, "random", min(rows, n, BOOK_ROWS), min(columns, k))
    books = np.ascontiguousarray(algorithm.pack_tables(small))[:1]
    words = rng.integers(0, 2**32, library.layout.code_shape(n), dtype=np.uint32)
    found: dict[str, Any] = {"codes": words, "books": np.repeat(books, algorithm.scope.books(n, k), axis=0)}
    shape = algorithm.scales.shape(n, k)
    if shape is not None:
        found["scales"] = np.ones(shape, np.float16 if algorithm.scales.kind == "group" else np.float32)
    return found
