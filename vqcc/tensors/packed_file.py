"""Packed weights on disk: what an engine loads beside a library's cubin.

A safetensors file with NAME.codes, NAME.books, NAME.stage_scales and NAME.scales as the kernels read them,
and metadata `vqcc.packed`: JSON that gives each NAME its layout, its layout's id and its algorithm.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vqcc.tensors.container import write_safetensors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from vqcc.library import Library
    from vqcc.tensors.packing import PackedTensor
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = ["METADATA_KEY", "save_packed"]

METADATA_KEY = "vqcc.packed"


def save_packed(path: Path, library: Library, packed: Sequence[tuple[VQTensor, PackedTensor]]) -> None:
    """Write tensors packed for `library` to `path`, atomically. Raises VqccError VQ0527, VQ0529."""
    arrays: dict[str, Any] = {}
    described: dict[str, Any] = {}
    for tensor, parts in packed:
        arrays |= {f"{tensor.name}.{part}": array for part, array in parts.arrays().items()}
        described[tensor.name] = {
            "algorithm": tensor.algorithm.mapping(),
            "layout": asdict(library.layout),
            "layout_id": library.layout_id,
            "shape": list(tensor.shape),
        }
    text = json.dumps(described, sort_keys=True, separators=(",", ":"))
    write_safetensors(path, arrays, {METADATA_KEY: text})
