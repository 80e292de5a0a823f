"""Packing: a VQ tensor becomes exactly the bytes that a library's kernels read, and back.

The layouts are those of `vqcc.code_layouts`; docs/packed-layout.md describes them for readers without Python.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.code_layouts import BucketLayout, FragmentLayout, PackedLayout, RotatedLayout
from vqcc.diagnostics import Diagnostic, VqccError
from vqcc.tensors.buckets import deal_orders, pack_buckets, unpack_buckets
from vqcc.tensors.fragment_codes import pack_fragments, unpack_fragments
from vqcc.tensors.rotated_codes import pack_rotated, unpack_rotated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from vqcc.code_layouts import CodeLayout
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = ["PackedTensor", "check_stage_sums", "pack_codes", "pack_tensor", "unpack_codes"]


@dataclass(frozen=True)
class PackedTensor:
    """What a kernel reads of one weight.

    codes uint32 of the layout's `code_shape`, one-dimensional where it has none; books uint8 [books, table_bytes];
    stage_scales float32 [books, residuals] or None; scales float32 [1] (tensor) or [n] (row), float16 [n, groups]
    (group), or None.
    """

    codes: NDArray[np.uint32]
    books: NDArray[np.uint8]
    stage_scales: NDArray[np.float32] | None
    scales: NDArray[Any] | None

    def arrays(self) -> dict[str, NDArray[Any]]:
        """The arrays by argument name, those present."""
        named: dict[str, NDArray[Any] | None] = {
            "codes": self.codes,
            "books": self.books,
            "stage_scales": self.stage_scales,
            "scales": self.scales,
        }
        return {name: array for name, array in named.items() if array is not None}


def pack_tensor(tensor: VQTensor, layout: CodeLayout, *, by_frequency: bool = False) -> PackedTensor:
    """Pack a valid `tensor` [n, k] whose rows have `layout.vectors` vectors.

    With `by_frequency` the entries of each table are renamed by how often the tensor's own codes look them up, the
    most frequent to 0 (Sec. V-B); codes and tables are permuted alike, so the weights stay the same.
    """
    from vqcc.hotness import count_codes, frequency_orders

    algorithm, codes, orders = tensor.algorithm, tensor.codes, None
    if by_frequency:
        orders = frequency_orders(count_codes(tensor))
        if isinstance(layout, BucketLayout):
            orders = deal_orders(orders, layout)
        codes = algorithm.rename(codes, orders, tensor.shape)
    scales = tensor.scales
    if scales is not None:
        kind = algorithm.scales.kind
        scales = np.ascontiguousarray(scales, dtype=np.float16 if kind == "group" else np.float32)
    return PackedTensor(
        codes=pack_codes(codes, layout),
        books=np.ascontiguousarray(algorithm.pack_tables(tensor, orders)),
        stage_scales=tensor.codebook_scales,
        scales=scales,
    )


def check_stage_sums(tensor: VQTensor) -> None:
    """Raise VQ0547 if entries of the tensor's residual stages may add up past the largest float16.

    Any combination counts, whether a code has it or not: kernels decode padding too, and infinity times 0 is no number.
    """
    if tensor.codebooks is None:
        return
    largest = np.abs(tensor.codebooks.astype(np.float64)).max(axis=(2, 3)).sum(axis=1).max()
    if largest > float(np.finfo(np.float16).max):
        raise VqccError(
            Diagnostic(
                "VQ0547",
                f"entries of the residual stages of '{tensor.name}' may add up to {largest:.6g}: kernels of the "
                "library add them in float16",
                help="use a level of the paper or bfloat16, or scale the weight down and x up",
            )
        )


def _vector_of_slot(layout: PackedLayout) -> NDArray[np.int64]:
    """Vector number held by slot j of each chunk of a row: int64 [chunks, chunk_vectors], -1 for padding."""
    chunks = layout.row_words // layout.chunk_words
    chunk = np.arange(chunks)[:, None]
    slot = np.arange(layout.chunk_vectors)[None, :]
    segment, lane = chunk // layout.lanes, chunk % layout.lanes
    full = layout.vectors // layout.segment_vectors
    lanes = np.where(segment < full, layout.lanes, max(layout.tail_lanes, 1))
    vector = segment * layout.segment_vectors + slot * lanes + lane
    return np.where(vector < layout.vectors, vector, -1)


def pack_codes(codes: NDArray[Any], layout: CodeLayout) -> NDArray[np.uint32]:
    """Codes [residuals, n, vectors] to words of the layout's `code_shape`."""
    residuals, _, vectors = codes.shape
    assert (residuals, vectors) == (layout.residuals, layout.vectors)
    return _PACKERS[type(layout)](codes, layout)


def unpack_codes(
    words: NDArray[np.uint32], layout: CodeLayout, rows: int | None = None
) -> NDArray[np.uint16]:
    """Inverse of `pack_codes`: codes [residuals, n, vectors], of the first `rows` rows if that is given.

    All layouts but the paper's are padded to whole groups of rows, which only `rows` takes away again; codes in buckets
    cannot be found without it.
    """
    if isinstance(layout, BucketLayout):
        assert rows is not None, "the number of rows says where chunks begin"
        return unpack_buckets(words, layout, rows)
    codes = _UNPACKERS[type(layout)](words, layout)
    return codes[:, :rows]


def _pack_chunks(codes: NDArray[Any], layout: PackedLayout) -> NDArray[np.uint32]:
    residuals, rows, _ = codes.shape
    slots = _vector_of_slot(layout)
    words = np.zeros((rows, slots.shape[0], layout.chunk_words + 1), dtype=np.uint32)
    for j in range(layout.chunk_vectors):
        present = slots[:, j] >= 0
        for residual in range(residuals):
            bit = (j * residuals + residual) * layout.code_bits
            code = np.where(present, codes[residual][:, slots[:, j]], 0).astype(np.uint64) << np.uint64(
                bit % 32
            )
            words[:, :, bit // 32] |= (code & np.uint64(0xFFFFFFFF)).astype(np.uint32)
            words[:, :, bit // 32 + 1] |= (code >> np.uint64(32)).astype(np.uint32)
    return np.ascontiguousarray(words[:, :, : layout.chunk_words].reshape(rows, layout.row_words))


def _unpack_chunks(words: NDArray[np.uint32], layout: PackedLayout) -> NDArray[np.uint16]:
    rows = words.shape[0]
    slots = _vector_of_slot(layout)
    chunks = words.reshape(rows, slots.shape[0], layout.chunk_words).astype(np.uint64)
    codes = np.zeros((layout.residuals, rows, layout.vectors), dtype=np.uint16)
    for j in range(layout.chunk_vectors):
        present = slots[:, j] >= 0
        for residual in range(layout.residuals):
            bit = (j * layout.residuals + residual) * layout.code_bits
            value = chunks[:, :, bit // 32] >> np.uint64(bit % 32)
            if bit % 32 + layout.code_bits > 32:
                value |= chunks[:, :, bit // 32 + 1] << np.uint64(32 - bit % 32)
            value &= np.uint64((1 << layout.code_bits) - 1)
            codes[residual][:, slots[present, j]] = value[:, present]
    return codes


#: By the layout of the codes.
_PACKERS: Mapping[type[CodeLayout], Callable[[NDArray[Any], Any], NDArray[np.uint32]]] = {
    PackedLayout: _pack_chunks,
    RotatedLayout: pack_rotated,
    FragmentLayout: pack_fragments,
    BucketLayout: pack_buckets,
}
_UNPACKERS: Mapping[type[CodeLayout], Callable[[NDArray[np.uint32], Any], NDArray[np.uint16]]] = {
    PackedLayout: _unpack_chunks,
    RotatedLayout: unpack_rotated,
    FragmentLayout: unpack_fragments,
}
