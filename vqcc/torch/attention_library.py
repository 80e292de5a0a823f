"""A library of attention over a quantized KV cache, as a PyTorch user calls it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vqcc.tensors import cache_packed_file
from vqcc.torch.attention import Books, Cache
from vqcc.torch.attention_op import append, attend, attend_with_log_sums
from vqcc.torch.attention_runtime import AttentionRuntime
from vqcc.torch.errors import refuse_operands, reported
from vqcc.torch.kinds import ATTENTION, refuse_packed, type_name
from vqcc.torch.library import TorchLibrary, check_layout, picked, usable

if TYPE_CHECKING:
    import os

__all__ = ["AttentionLibrary"]


class AttentionLibrary(TorchLibrary[AttentionRuntime]):
    """A library of attention over a quantized KV cache: op attention_decode."""

    kind = ATTENTION

    def __init__(self, runtime: AttentionRuntime, directory: Path) -> None:
        super().__init__(runtime, directory)
        #: What the manifest says: `compiled.op` has the shapes.
        self.compiled = runtime.library
        self._scale = float(runtime.library.op.head_dim) ** -0.5

    def expected_parts(self) -> dict[str, tuple[str, tuple[int, ...] | None]]:
        """Type and shape of each packed array."""
        return dict(cache_packed_file.expected_parts(self._runtime.library))

    def workspace_bytes(self) -> int:
        """Device memory that a launch of any batch needs, on any GPU."""
        return self._runtime.workspace_bytes

    def books(
        self, path: str | os.PathLike[str], name: str | None = None, *, device: torch.device | str = "cuda"
    ) -> Books:
        """Read the codebooks of a layer that `vqcc pack` wrote for this library, as `weight` of linear layers does."""
        place = usable(device)
        with reported():
            packed = cache_packed_file.load_packed_books(Path(path), self._runtime.library)
        return Books.from_arrays(self, packed[picked(path, packed, name)], place)

    def cache(
        self,
        *,
        batch: int,
        pages: int | None = None,
        page_tokens: int | None = None,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cuda",
    ) -> Cache:
        """An empty cache of a layer for up to `batch` sequences.

        `pages` is the number of pages of a paged cache, shared by all sequences; a contiguous one has a page for each
        sequence, of the library's whole context. `page_tokens` is the size of a page, one of those that the library was
        compiled for, and needed where these are several. Windows, if the library has any, are of `dtype`, the library's
        only one if left out. Raises ValueError for sizes that the library has not, and RuntimeError as `books` does.
        """
        place = usable(device)
        return Cache(self, batch=batch, pages=pages, page_tokens=page_tokens, dtype=dtype, device=place)

    def append(
        self,
        cache: Cache,
        books: Books,
        keys: Tensor,
        values: Tensor,
        lengths: Tensor,
        page_table: Tensor | None = None,
        *,
        counts: Tensor | None = None,
    ) -> None:
        """Encode new keys and values [batch, new_tokens, kv_heads, head_dim] into the cache.

        `lengths` int32 [batch] are the tokens of sequences with the new ones, `counts` int32 [batch] how many of the
        new tokens each sequence gets, all of them without. `page_table` int32 [batch, pages of a sequence] is a paged
        cache's. Lengths, counts and pages are read on the GPU, and wrong ones corrupt the cache: `Cache.check` finds
        them.
        """
        _check_layouts(self, books, cache)
        if not (
            isinstance(keys, Tensor)
            and isinstance(values, Tensor)
            and isinstance(lengths, Tensor)
            and (page_table is None or isinstance(page_table, Tensor))
            and (counts is None or isinstance(counts, Tensor))
        ):
            raise refuse_operands(
                self, keys=keys, values=values, lengths=lengths, page_table=page_table, counts=counts
            )
        append(
            keys,
            values,
            books.append_key_books,
            books.append_value_books,
            *cache.operands(),
            lengths,
            page_table,
            counts,
            self._identity,
        )

    def attend(
        self,
        queries: Tensor,
        cache: Cache,
        books: Books,
        lengths: Tensor,
        page_table: Tensor | None = None,
        *,
        softmax_scale: float | None = None,
        softcap: float = 0.0,
    ) -> Tensor:
        """Attention of queries [batch, query_tokens, q_heads, head_dim], the last tokens of their sequences.

        Returns outputs of the same shape. `softmax_scale` is 1 / sqrt(head_dim) if left out; `softcap` is what scores
        are capped at, of a library that caps them. A sequence of length 0 has output 0.
        """
        operands = self._operands(queries, cache, books, lengths, page_table, softmax_scale, softcap)
        result: Tensor = attend(*operands)
        return result

    def attend_with_log_sums(
        self,
        queries: Tensor,
        cache: Cache,
        books: Books,
        lengths: Tensor,
        page_table: Tensor | None = None,
        *,
        softmax_scale: float | None = None,
        softcap: float = 0.0,
    ) -> tuple[Tensor, Tensor]:
        """The same, and log-sum-exps float32 [batch, query_tokens, q_heads], by which parts of a context are joined."""
        operands = self._operands(queries, cache, books, lengths, page_table, softmax_scale, softcap)
        outputs, log_sums = attend_with_log_sums(*operands)
        return outputs, log_sums

    def _operands(
        self,
        queries: Tensor,
        cache: Cache,
        books: Books,
        lengths: Tensor,
        page_table: Tensor | None,
        softmax_scale: float | None,
        softcap: float,
    ) -> tuple[Any, ...]:
        """Those of operators that attend."""
        _check_layouts(self, books, cache)
        if not (
            isinstance(queries, Tensor)
            and isinstance(lengths, Tensor)
            and (page_table is None or isinstance(page_table, Tensor))
        ):
            raise refuse_operands(self, queries=queries, lengths=lengths, page_table=page_table)
        scale = self._scale if softmax_scale is None else softmax_scale
        attending, workspace = books.operands()
        stored = cache.operands()
        return (queries, *attending, *stored, lengths, page_table, workspace, scale, softcap, self._identity)


def _check_layouts(library: AttentionLibrary, books: Books, cache: Cache) -> None:
    if not isinstance(books, Books):
        raise refuse_packed(library, books)
    if not isinstance(cache, Cache):
        raise TypeError(
            f"library {library.name} takes a Cache, which library.cache() makes, not {type_name(cache)}"
        )
    for packed in (books, cache):
        if packed.library is not library:
            check_layout(library, packed)
