"""What examples/engine dumps (--dump DIR), read, and the compiled model that it ran: what engine_check.py compares."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from safetensors import safe_open

from vqcc.code_layouts import BucketLayout
from vqcc.library import CacheLibrary, Library, layer_folders, load_cache_library, load_weight_library
from vqcc.tensors.packing import unpack_codes
from vqcc.tensors.vq_tensor import VQTensor

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

LINEAR = ("qkv", "o", "gate_up", "down")


@dataclass(frozen=True)
class Model:
    """The libraries of the decoder layer, and whose kernels ran."""

    linears: Mapping[str, Library]
    attention: CacheLibrary
    gpu: str
    _decoded: dict[str, tuple[bytes, tuple[Floats, Floats]]] = field(default_factory=dict)

    @classmethod
    def load(cls, directory: Path, gpu: str) -> Model:
        """The libraries in the model's directory, by the layers that they serve."""
        folders = layer_folders(directory)
        linears = {name: load_weight_library(directory / folders[name]) for name in LINEAR}
        return cls(linears, load_cache_library(directory / folders["attention"]), gpu)

    def weight(self, layer: Dumped, name: str) -> tuple[Floats, Floats]:
        """A weight of a layer and the magnitudes of its terms; the last of each name is kept, for further dumps."""
        arrays = [
            layer.arrays[each].tobytes()
            for each in sorted(layer.arrays)
            if each.startswith(f"weight.{name}.")
        ]
        digest = hashlib.sha256(b"".join(arrays)).digest()
        if self._decoded.get(name, (b"",))[0] != digest:
            self._decoded[name] = digest, decoded_weight(self.linears[name], layer, name)
        return self._decoded[name][1]


class Dumped:
    """A layer's file."""

    def __init__(self, path: Path) -> None:
        with safe_open(path, "np") as file:
            self.notes: dict[str, str] = file.metadata()
            self.arrays: dict[str, NDArray[Any]] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def exact(self, name: str) -> Floats:
        """An array of float16 in float64, or zeros where the first layer has none."""
        return self.arrays[name].astype(np.float64) if name in self.arrays else np.zeros(1)

    def number(self, name: str) -> int:
        """A note that is a whole number."""
        return int(self.notes[name])

    def bytes_of(self, name: str, dtype: Any) -> NDArray[Any]:
        """Bytes as another type; none where the algorithm has no such array."""
        return self.arrays.get(name, np.zeros(0, np.uint8)).view(dtype)


def decoded_weight(library: Library, layer: Dumped, name: str) -> tuple[Floats, Floats]:
    """A packed weight [n, k] and the magnitudes of its terms, by the layout of its codes."""
    algorithm, layout, (n, k) = library.algorithm, library.layout, library.op.weight_shape
    words = layer.bytes_of(f"weight.{name}.codes", np.uint32)
    if not isinstance(layout, BucketLayout):
        words = words.reshape(layout.code_shape(n))
    codes = unpack_codes(words, layout, n)
    entries = layer.bytes_of(f"weight.{name}.books", np.float16)
    stride = algorithm.entry_stride // 2
    books = entries.reshape(-1, algorithm.table_bytes // 2)[
        :, : algorithm.residuals * algorithm.entries * stride
    ]
    codebooks = books.reshape(len(books), algorithm.residuals, algorithm.entries, stride)
    scales = layer.bytes_of(f"weight.{name}.scales", np.float32)
    tensor = VQTensor(
        name,
        algorithm,
        (n, k),
        "float16",
        codes,
        codebooks[..., : algorithm.vector_size],
        scales=scales if len(scales) else None,
    )
    return algorithm.decode(tensor), algorithm.decode(tensor, magnitudes=True)
