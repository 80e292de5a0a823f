"""A large KV cache of random codes, for timing: what is attended to is checked for some sequences and heads."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.cache_layouts import BLOCK_TOKENS
from vqcc.ops.attention.reference import Attended, attend, rotate
from vqcc.tensors.cache_codes import unpack_token_blocks
from vqcc.tensors.vq_tensor import numpy_dtype
from vqcc.verify.cache_cases import SOFTCAP, strides_of
from vqcc.verify.cache_tolerance import compare_log_sums, compare_outputs

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from vqcc.cache_layouts import CacheLayout
    from vqcc.cache_library import CacheKernel, CacheLibrary
    from vqcc.ops.base import Variant
    from vqcc.tensors.cache_tensor import CacheTensor
    from vqcc.verify.tolerance import Comparison

__all__ = ["SampledCache", "draw_sampled", "page_shape", "read_bytes"]

#: Random words that are drawn; caches repeat them.
_DRAWN_WORDS = 1 << 24


@dataclass(frozen=True, eq=False)
class SampledCache:
    """`batch` sequences of `context` tokens each: arrays and scalars of a launch by argument name, but for the pages.

    Pages [pages, kv_heads, page blocks, words of a block] hold `words` over and over. `code_bytes` of them a launch
    reads.
    """

    batch: int
    context: int
    code_bytes: int
    element: Any
    words: NDArray[np.uint32]
    page_shape: tuple[int, int, int, int]
    inputs: Mapping[str, NDArray[Any]]
    scalars: Mapping[str, float]

    @property
    def page_bytes(self) -> int:
        """Bytes of all pages."""
        return 4 * int(np.prod(self.page_shape))

    def pages(self) -> NDArray[np.uint8]:
        """All pages in host memory."""
        return np.resize(self.words, self.page_shape).view(np.uint8)

    def outputs(self) -> dict[str, NDArray[Any]]:
        """Arrays for a launch's results."""
        queries = self.inputs["queries"]
        return {"outputs": np.zeros_like(queries), "log_sums": np.zeros(queries.shape[:-1], np.float32)}

    def new_tokens(self) -> tuple[dict[str, NDArray[Any]], dict[str, float]]:
        """Arrays and scalars of a launch that appends each sequence's last token anew."""
        head_dim = self.inputs["queries"].shape[-1]
        rng = np.random.default_rng(self.batch)
        shape = (self.batch, 1, self.page_shape[1], head_dim)
        keys, values = (rng.standard_normal(shape, dtype=np.float32).astype(self.element) for _ in "kv")
        names = ("page_table", "key_window", "value_window", "lengths")
        kept = {name: self.inputs[name] for name in names if name in self.inputs}
        paging = {name: self.scalars[name] for name in ("page_table_stride", "page_blocks")}
        scalars: dict[str, float] = {
            "batch": self.batch,
            "new_tokens": 1,
            **paging,
            **strides_of("key", keys),
            **strides_of("value", values),
        }
        return {**kept, "keys": keys, "values": values}, scalars

    def compare(
        self,
        library: CacheLibrary,
        kernel: CacheKernel,
        sides: tuple[CacheTensor, CacheTensor],
        outputs: Mapping[str, NDArray[Any]],
    ) -> tuple[Comparison, ...]:
        """Outputs and log-sum-exps of the first and the last kv-head of the last sequence against float64."""
        sequence, group = self.batch - 1, library.op.q_heads // library.op.kv_heads
        found = []
        for head in sorted({0, library.op.kv_heads - 1}):
            exact = self._attended(library, sides, sequence, head)
            own = slice(head * group, (head + 1) * group)
            computed = outputs["outputs"][sequence : sequence + 1, :, own]
            log_sums = outputs["log_sums"][sequence : sequence + 1, :, own]
            found.append(compare_outputs(computed, exact, library, kernel, self.context))
            found.append(compare_log_sums(log_sums, exact, library, kernel, self.context))
        return tuple(found)

    def _attended(
        self, library: CacheLibrary, sides: tuple[CacheTensor, CacheTensor], sequence: int, head: int
    ) -> Attended:
        op, group = library.op, library.op.q_heads // library.op.kv_heads
        keys, values = (
            self._decoded(library, side, sequence, head, keys=side is sides[0])[None] for side in sides
        )
        keys = rotate(keys, np.arange(self.context), op.rope, op.rope_base, op.rope_scaling)
        queries = self.inputs["queries"][sequence : sequence + 1, :, head * group : (head + 1) * group]
        return attend(
            queries,
            [keys],
            [values],
            scale=self.scalars["softmax_scale"],
            softcap=self.scalars["softcap"],
            sliding_window=op.sliding_window,
            rope=op.rope,
        )

    def _decoded(
        self, library: CacheLibrary, tensor: CacheTensor, sequence: int, head: int, *, keys: bool
    ) -> NDArray[np.float64]:
        """Keys or values [tokens, head_dim] of a kv-head of a sequence."""
        layout, window = library.layout, library.op.window
        coded = max(0, self.context - window)
        table = self.inputs.get("page_table")
        pages = (sequence,) if table is None else table[sequence]
        own = np.concatenate([self._head_of_page(int(page), head) for page in pages])
        codes = unpack_token_blocks(own[: -(-coded // BLOCK_TOKENS)], layout)[0 if keys else 1][:coded]
        books = tensor.codebooks[head : head + 1] if tensor.codebooks.shape[0] > 1 else tensor.codebooks
        one = replace(tensor, codes=codes[None, None], codebooks=books)
        decoded: NDArray[np.float64] = one.decode()[0, 0]
        if not window:
            return decoded
        newest = self.inputs["key_window" if keys else "value_window"][sequence, head]
        slots = [position % window for position in range(coded, self.context)]
        whole: NDArray[np.float64] = np.concatenate([decoded, newest[slots].astype(np.float64)])
        return whole

    def _head_of_page(self, page: int, head: int) -> NDArray[np.uint32]:
        """The token blocks [page blocks, words] of a kv-head."""
        _, heads, blocks, words = self.page_shape
        first = (page * heads + head) * blocks * words
        own = np.take(self.words, np.arange(first, first + blocks * words), mode="wrap")
        return own.reshape(blocks, words)


def draw_sampled(
    library: CacheLibrary, variant: Variant, context: int, rng: np.random.Generator
) -> SampledCache:
    """Random queries, codes and windows for as many sequences of `context` tokens as the variant serves.

    All of the op's query tokens, in pages of the variant's size.
    """
    op, layout, element = library.op, library.layout_of(variant), numpy_dtype(variant.dtype)
    batch = variant.sizes["batch"]
    shape = page_shape(layout, batch, context)
    pages, _, page_blocks, _ = shape
    words = rng.integers(0, 2**32, min(_DRAWN_WORDS, int(np.prod(shape))), dtype=np.uint32)
    queries = rng.standard_normal((batch, op.query_tokens, op.q_heads, op.head_dim), dtype=np.float32)
    inputs: dict[str, NDArray[Any]] = {
        "queries": queries.astype(element),
        "lengths": np.full(batch, context, np.int32),
    }
    if layout.page_tokens:
        inputs["page_table"] = rng.permutation(pages).reshape(batch, -1).astype(np.int32)
    if op.window:
        window = (batch, op.kv_heads, op.window, op.head_dim)
        inputs |= {
            name: rng.standard_normal(window, dtype=np.float32).astype(element)
            for name in ("key_window", "value_window")
        }
    scalars: dict[str, float] = {
        "batch": batch,
        "query_tokens": op.query_tokens,
        "page_table_stride": pages // batch if layout.page_tokens else 0,
        "page_blocks": page_blocks,
        "softmax_scale": op.head_dim**-0.5,
        "softcap": SOFTCAP if op.softcap else 0.0,
        **strides_of("q", inputs["queries"]),
        **strides_of("out", inputs["queries"]),
    }
    read = read_bytes(layout, batch, context - op.window)
    return SampledCache(batch, context, read, element, words, shape, inputs, scalars)


def page_shape(layout: CacheLayout, batch: int, context: int) -> tuple[int, int, int, int]:
    """Pages, kv-heads, blocks of a page and 32-bit words of a block, of `batch` sequences of `context` tokens."""
    blocks = -(-context // BLOCK_TOKENS)
    page_blocks = layout.page_tokens // BLOCK_TOKENS or blocks
    return (batch * -(-blocks // page_blocks), layout.heads, page_blocks, layout.block_bytes // 4)


def read_bytes(layout: CacheLayout, batch: int, tokens: int) -> int:
    """Bytes of the token blocks of `batch` sequences, of each of which `tokens` are encoded; none if negative."""
    return batch * layout.heads * -(-max(0, tokens) // BLOCK_TOKENS) * layout.block_bytes
