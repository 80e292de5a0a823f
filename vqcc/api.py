"""The same as the command line, without a terminal: functions from files to files.

Each raises `vqcc.diagnostics.VqccError` with every diagnostic of its input.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vqcc.building import Built, build_library, write_library
from vqcc.library import Library, load_library, select_gpus
from vqcc.spec.load import load_algorithm, load_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vqcc.algorithms.base import Algorithm
    from vqcc.tensors.packing import PackedTensor
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = [
    "Built",
    "Library",
    "algorithm_named",
    "build_library",
    "load_library",
    "load_spec",
    "pack",
    "quantize",
    "write_library",
]


def algorithm_named(text: str) -> Algorithm:
    """The algorithm of a preset, or of a spec file if `text` ends like one or is one."""
    from vqcc.algorithms.presets import resolve

    path = Path(text)
    if path.suffix in {".yaml", ".yml"} or path.is_file():
        return load_algorithm(path)
    return resolve(text)


def quantize(
    weights: Path,
    name: str,
    algorithm: str,
    output: Path,
    *,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> VQTensor:
    """Quantize tensor `name` of a safetensors file and write it to `output`."""
    from vqcc.tensors.container import load_weights, save
    from vqcc.tensors.quantize import quantize as quantize_weights

    chosen = algorithm_named(algorithm)
    tensor = quantize_weights(load_weights(weights, name), name, chosen, seed=seed, progress=progress)
    save(output, [tensor])
    return tensor


def pack(
    tensors: Path, library: Path, output: Path, *, gpu: str | None = None, names: Sequence[str] = ()
) -> list[tuple[VQTensor, PackedTensor]]:
    """Pack VQ tensors of a file (all, or those named) for a compiled library and write them to `output`.

    Raises VQ0803 for tensors that do not fit the library, VQ0805 for a GPU it was not compiled for.
    """
    from vqcc.tensors.container import load, load_all
    from vqcc.tensors.packed_file import save_packed
    from vqcc.tensors.packing import pack_tensor
    from vqcc.verify.harness import check_tensors

    loaded = load_library(library)
    if gpu is not None:
        select_gpus(loaded, (gpu,))
    chosen = [load(tensors, name) for name in names] if names else list(load_all(tensors))
    check_tensors(loaded, chosen)
    packed = [(tensor, pack_tensor(tensor, loaded.layout)) for tensor in chosen]
    save_packed(output, loaded, packed)
    return packed
