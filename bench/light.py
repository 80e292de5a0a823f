"""Timing of many kernels at once, over random words as codes, which every layout takes: nothing is packed on the CPU.

Results are held against float64 by other programs, or here in samples.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sampled import compare_samples, samples_of

from vqcc.building import build_library, write_library
from vqcc.code_layouts import FragmentLayout, PackedLayout
from vqcc.codegen.toolchain import find
from vqcc.library import load_library
from vqcc.runtime.backend import CudaBackend
from vqcc.runtime.timing import copies_past_cache, time_kernel
from vqcc.spec.load import parse_spec
from vqcc.tensors.packing import pack_codes
from vqcc.verify.harness import make_workspace

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from sampled import Sample

    from vqcc.building import Built
    from vqcc.library import Kernel, Library
    from vqcc.ops.base import LaunchCase
    from vqcc.runtime.device import Device, DeviceArray
    from vqcc.spec.model import Spec
    from vqcc.tensors.vq_tensor import VQTensor

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
    """A launch: its microseconds (median, smallest and largest over replays), and the bytes that must move for it.

    `within_bound` says whether samples of rows of y were, if they were looked at.
    """

    us: float
    moved_bytes: int
    us_min: float
    us_max: float
    within_bound: bool | None = None


class Weights:
    """Random weights on the device, more copies than the L2 can hold, and inputs; who takes the same shares them."""

    def __init__(self, device: Device, seed: int = 0) -> None:
        self.device, self.seed = device, seed
        self._held: dict[str, list[dict[str, DeviceArray]]] = {}
        self._samples: dict[str, tuple[Sample, ...]] = {}
        self._cases: dict[Any, LaunchCase] = {}

    def case(self, library: Library, kernel: Kernel) -> LaunchCase:
        """The other inputs of a kernel's largest launch: the same for kernels that take the same."""
        variant = kernel.variant
        kind = (library.op.weight_shape, variant.dtype, *sorted(variant.sizes.items()))
        if kind not in self._cases:
            rng = np.random.default_rng(self.seed)
            self._cases[kind] = library.op.draw_case(
                variant, variant.sizes, library.algorithm, rng, gaps=False
            )
        return self._cases[kind]

    def copies(self, library: Library) -> list[dict[str, DeviceArray]]:
        """The weights of a library, copy by copy."""
        if library.layout_id not in self._held:
            arrays, _ = weights_of(library, np.random.default_rng(self.seed))
            moved = sum(array.nbytes for array in arrays.values())
            first = {name: self.device.upload(array) for name, array in arrays.items()}
            count = copies_past_cache(moved, self.device.l2_bytes)
            self._held[library.layout_id] = [first, *(self._clone(first) for _ in range(count - 1))]
        return self._held[library.layout_id]

    def samples(self, library: Library) -> tuple[Sample, ...]:
        """Some rows of these weights in float64; none of layouts of which rows cannot be taken out."""
        if not isinstance(library.layout, FragmentLayout | PackedLayout):
            return ()
        if library.layout_id not in self._samples:
            arrays, book = weights_of(library, np.random.default_rng(self.seed))
            self._samples[library.layout_id] = samples_of(library, arrays["codes"], book)
        return self._samples[library.layout_id]

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


def time_rows(
    library: Library, kernel: Kernel, m: int, weights: Weights, *, checked: bool = False
) -> Launched:
    """A launch of `m` rows of x, at most as many as the kernel takes; a bias is added, whatever m is.

    With `checked` the results of a first launch are held against float64, in samples of rows of W, and those of the
    last one against them.
    """
    device = weights.device
    gpu = next(iter(library.builds))
    case = weights.case(library, kernel)
    rows = {**case.inputs, **case.outputs}
    first = {name: device.upload(array) for name, array in rows.items()}
    held = weights.copies(library)
    copies: list[Arrays] = [{**held[0], **first}]
    copies += ({**own, **{name: device.clone(array) for name, array in first.items()}} for own in held[1:])
    if kernel.launch.workspace_bytes:
        shared = device.upload(make_workspace(library, gpu))
        copies = [{**copy, "workspace": shared} for copy in copies]
    runner = CudaBackend(device).load(library, gpu)
    scalars = {**case.scalars, "m": m}
    samples = weights.samples(library) if checked else ()

    def result() -> NDArray[Any]:
        y = np.empty_like(case.outputs["y"])
        device.download(copies[0]["y"], y)
        return y

    within = None
    if samples:
        runner.enqueue(kernel, copies[0], scalars)
        device.synchronize()
        first_result = result()
        inputs = {name: array[:m] if name == "x" else array for name, array in case.inputs.items()}
        found = compare_samples(library, kernel, samples, inputs, first_result[:m])
        within = all(each.passed for each in found)
    timing = time_kernel(device, runner, kernel, copies, scalars)
    if samples and not np.array_equal(first_result.view(np.uint16), result().view(np.uint16)):
        within = False  # launches one after the other must have the same bits
    moved = sum(array.size for array in held[0].values())
    moved += sum(array.nbytes if name == "bias" else array[:m].nbytes for name, array in rows.items())
    return Launched(timing.us, moved, timing.us_min, timing.us_max, within)


def weights_of(library: Library, rng: np.random.Generator) -> tuple[dict[str, Any], VQTensor]:
    """Random codes of the library's layout, with books of a small tensor, as often as there are books, and scales of 1.

    The small tensor comes with them.
    """
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
    return found, small
