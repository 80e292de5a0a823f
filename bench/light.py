"""Timing without a check: for many kernels at once, whose results other programs hold against float64.

Codes are random words, which every layout takes; nothing is decoded or packed on the CPU.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.building import build_library, write_library
from vqcc.codegen.toolchain import find
from vqcc.library import load_library
from vqcc.runtime.backend import CudaBackend
from vqcc.runtime.timing import copies_past_cache, time_kernel
from vqcc.spec.load import parse_spec
from vqcc.tensors.packing import pack_codes
from vqcc.verify.harness import make_workspace

if TYPE_CHECKING:
    from vqcc.building import Built
    from vqcc.library import Kernel, Library
    from vqcc.runtime.device import Device, DeviceArray
    from vqcc.spec.model import Spec

#: Rows of the small tensor of which books are taken: entries and scales are those of any weight.
BOOK_ROWS = 64

#: Processes that compile while the GPU is timed.
COMPILERS = 15

Arrays = dict[str, Any]


def spec_of(preset: str, shape: tuple[int, int], m: int | list[int], gpu: str) -> Spec:
    """A library of one kernel, or of one for each m."""
    n, k = shape
    text = (
        f"vqcc: 1\nname: timed\nalgorithm: {preset}\nop: {{kind: gemv, m: {m}, n: {n}, k: {k}}}\ngpu: {gpu}\n"
    )
    return parse_spec(text.encode(), preset)


def build(preset: str, shape: tuple[int, int], m: int | list[int], gpu: str) -> Built:
    """That library, compiled."""
    return build_library(spec_of(preset, shape, m, gpu), toolchain=find("nvrtc"), cache=None)


def row_head(preset: str, shape: tuple[int, int], m: int) -> dict[str, Any]:
    """What a results file says of a problem at level best."""
    n, k = shape
    return {
        "op": "gemv",
        "algorithm": preset,
        "level": "best",
        "dtype": "float16",
        "n": n,
        "k": k,
        "m": m,
    }


@dataclass(frozen=True)
class Launched:
    """A launch: its microseconds (median, smallest and largest over replays), and the bytes that must move for it."""

    us: float
    moved_bytes: int
    us_min: float
    us_max: float


class Weights:
    """Random weights on the device, more copies than the L2 can hold; libraries that read the same share them."""

    def __init__(self, device: Device, seed: int = 0) -> None:
        self.device, self.seed = device, seed
        self._held: dict[str, list[dict[str, DeviceArray]]] = {}

    def copies(self, library: Library) -> list[dict[str, DeviceArray]]:
        """The weights of a library, copy by copy."""
        if library.layout_id not in self._held:
            arrays = weights_of(library, np.random.default_rng(self.seed))
            moved = sum(array.nbytes for array in arrays.values())
            first = {name: self.device.upload(array) for name, array in arrays.items()}
            count = copies_past_cache(moved, self.device.l2_bytes)
            self._held[library.layout_id] = [first, *(self._clone(first) for _ in range(count - 1))]
        return self._held[library.layout_id]

    def _clone(self, arrays: dict[str, DeviceArray]) -> dict[str, DeviceArray]:
        return {name: self.device.clone(array) for name, array in arrays.items()}


def time_built(built: Built, weights: Weights) -> list[float]:
    """Microseconds of each kernel of a library on its first GPU, at the most rows of x that it takes."""
    library = as_loaded(built)
    kernels = next(iter(library.builds.values())).kernels
    return [time_rows(library, kernel, kernel.variant.sizes["m"], weights).us for kernel in kernels]


def as_loaded(built: Built) -> Library:
    """A library as it is read from its directory."""
    with tempfile.TemporaryDirectory() as directory:
        write_library(built, Path(directory) / built.name)
        return load_library(Path(directory) / built.name)


def time_rows(library: Library, kernel: Kernel, m: int, weights: Weights) -> Launched:
    """A launch of `m` rows of x, at most as many as the kernel takes; a bias is added, whatever m is."""
    device = weights.device
    rng = np.random.default_rng(weights.seed)
    gpu = next(iter(library.builds))
    case = library.op.draw_case(kernel.variant, kernel.variant.sizes, library.algorithm, rng)
    rows = {**case.inputs, **case.outputs}
    first = {name: device.upload(array) for name, array in rows.items()}
    held = weights.copies(library)
    copies: list[Arrays] = [{**held[0], **first}]
    copies += ({**own, **{name: device.clone(array) for name, array in first.items()}} for own in held[1:])
    if kernel.launch.workspace_bytes:
        shared = device.upload(make_workspace(library, gpu))
        copies = [{**copy, "workspace": shared} for copy in copies]
    runner = CudaBackend(device).load(library, gpu)
    timing = time_kernel(device, runner, kernel, copies, {**case.scalars, "m": m})
    moved = sum(array.size for array in held[0].values())
    moved += sum(array.nbytes if name == "bias" else array[:m].nbytes for name, array in rows.items())
    return Launched(timing.us, moved, timing.us_min, timing.us_max)


def weights_of(library: Library, rng: np.random.Generator) -> dict[str, Any]:
    """Random codes of the library's layout; books and scales of a small tensor, as often as there are books."""
    algorithm, (n, k) = library.algorithm, library.op.weight_shape
    rows, columns = algorithm.scope.tile(n, k)
    small = algorithm.random_tensor(rng, "random", min(rows, n, BOOK_ROWS), min(columns, k))
    books = np.ascontiguousarray(algorithm.pack_tables(small))[:1]
    shape_of_codes = library.layout.code_shape(n)
    if shape_of_codes is None:  # such codes are no random words
        drawn = rng.integers(
            0, 1 << algorithm.code_bits, (algorithm.residuals, n, k // algorithm.vector_size)
        )
        words = pack_codes(drawn.astype(np.uint16), library.layout)
    else:
        words = rng.integers(0, 2**32, shape_of_codes, dtype=np.uint32)
    found: dict[str, Any] = {"codes": words, "books": np.repeat(books, algorithm.scope.books(n, k), axis=0)}
    shape = algorithm.scales.shape(n, k)
    if shape is not None:
        found["scales"] = np.ones(shape, np.float16 if algorithm.scales.kind == "group" else np.float32)
    return found
