"""attention_decode: attention of a few new tokens of each sequence over a cache of quantized keys and values.

o[b, t, h] = sum over the tokens p that query (b, t, h) sees of softmax(q . k[p] * softmax_scale) v[p]. Queries and
outputs are float16 or bfloat16 with strides; lengths of sequences are known to the device alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    Field,
    SerializerFunctionWrapHandler,
    ValidationInfo,
    field_validator,
    model_serializer,
)

from vqcc.algorithms.fields import FROZEN
from vqcc.cache_layouts import BLOCK_TOKENS, CacheLayout
from vqcc.diagnostics import Finding, field_error
from vqcc.gpus.model import WARP_SIZE
from vqcc.ops.attention.arguments import append_arguments, attention_arguments
from vqcc.ops.attention.rope import ROPES, Rope, RopeFactor
from vqcc.ops.base import ComputeLayout, Variant
from vqcc.ops.fields import C_TYPES, Division, Dtypes, as_list, distinct
from vqcc.plan import Constant
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vqcc.algorithms.base import Algorithm
    from vqcc.cache_layouts import KeyOrder
    from vqcc.gpus.model import Gpu
    from vqcc.ops.base import Argument, Dtype

__all__ = ["AttentionDecode", "of_side"]

MAX_HEADS = 1024
MAX_BATCH = 1024
#: Kernels that a list of batch sizes may ask for, of each type.
MAX_BOUNDS = 16
MAX_TOKENS = 2**20
MAX_PAGE_TOKENS = 4096
#: Page sizes that a library may serve; each has kernels of its own.
MAX_PAGE_SIZES = 8
MAX_WINDOW = 256
MAX_QUERY_TOKENS = 8
#: Channel groups of a head: lanes hold the sums of their groups of values in registers.
MAX_GROUPS = 128


def _whole_blocks(tokens: int) -> int:
    if tokens % BLOCK_TOKENS:
        below = tokens // BLOCK_TOKENS * BLOCK_TOKENS
        near = f"{below} or {below + BLOCK_TOKENS}" if below else str(BLOCK_TOKENS)
        raise field_error(
            "VQ0204",
            f"page_size must be a multiple of {BLOCK_TOKENS}, got {tokens}",
            f"use {near}, or 0 alone for a contiguous cache: codes of {BLOCK_TOKENS} tokens lie together",
        )
    return tokens


def _paged_alike(sizes: tuple[int, ...]) -> tuple[int, ...]:
    """The page sizes as they are. Raises VQ0215 for 0, a contiguous cache, beside others."""
    if 0 in sizes and len(sizes) > 1:
        others = sorted(size for size in sizes if size)
        legal = others if len(others) > 1 else others[0]
        raise field_error(
            "VQ0215",
            "page_size 0, a contiguous cache, stands beside sizes of pages",
            f"use {legal}, or 0 alone: all kernels of a library read pages, or all contiguous caches",
        )
    return sizes


Heads = Annotated[int, Field(ge=1, le=MAX_HEADS)]
BatchSize = Annotated[int, Field(ge=1, le=MAX_BATCH)]
PageSize = Annotated[int, Field(ge=0, le=MAX_PAGE_TOKENS), AfterValidator(_whole_blocks)]


class AttentionDecode(BaseModel):
    """Attention of a few new tokens over a quantized KV cache.

    `batch` bounds the sequences of a launch, `query_tokens` the new tokens of each; `context` is the most tokens that a
    sequence has, these included. Sizes of pages and windows are in tokens.
    """

    model_config = FROZEN

    #: Table III: all axes, and those that keys and values are summed over.
    axes: ClassVar[tuple[str, ...]] = ("batch", "head", "token", "channel")
    reduce_axes: ClassVar[tuple[str, ...]] = ("channel (keys)", "token (values)")
    #: The kernel template, relative to templates/kernels, and the C header's, relative to templates/host.
    template: ClassVar[str] = "attention_decode.cu.j2"
    header_template: ClassVar[str] = "attention_decode.h.j2"
    #: How ranks may share the op, by the names that a model's spec has for it; caches do not become one.
    divisions: ClassVar[Mapping[str, Division]] = {"heads": Division(("q_heads", "kv_heads"))}
    fused_field: ClassVar[str | None] = None
    #: Values for required fields when only relations between the others are asked about (vqcc.spec.salvage).
    stand_ins: ClassVar[dict[str, Any]] = {"batch": 1, "context": 1, "q_heads": 1, "kv_heads": 1}

    kind: Literal["attention_decode"]
    q_heads: Heads
    kv_heads: Heads
    head_dim: Literal[64, 128, 256]
    batch: Annotated[
        tuple[BatchSize, ...],
        BeforeValidator(as_list),
        Field(min_length=1, max_length=MAX_BOUNDS),
        AfterValidator(distinct),
    ]
    context: Annotated[int, Field(ge=1, le=MAX_TOKENS)]
    page_size: Annotated[
        tuple[PageSize, ...],
        BeforeValidator(as_list),
        Field(min_length=1, max_length=MAX_PAGE_SIZES),
        AfterValidator(distinct),
        AfterValidator(_paged_alike),
    ] = (0,)
    window: Annotated[int, Field(ge=0, le=MAX_WINDOW)] = 0
    rope: Rope = "none"
    rope_base: RopeFactor = 10000.0
    rope_scaling: RopeFactor = 1.0
    query_tokens: Annotated[int, Field(ge=1, le=MAX_QUERY_TOKENS)] = 1
    sliding_window: Annotated[int, Field(ge=0, le=MAX_TOKENS)] = 0
    softcap: bool = False
    dtype: Dtypes = ("float16",)

    @field_validator("kv_heads")
    @classmethod
    def _share_evenly(cls, kv_heads: int, info: ValidationInfo) -> int:
        q_heads = info.data.get("q_heads", kv_heads)
        if q_heads % kv_heads:
            below = q_heads // kv_heads * kv_heads
            legal = [str(each) for each in (below, below + kv_heads) if 0 < each <= MAX_HEADS]
            raise field_error(
                "VQ0215",
                f"q_heads = {q_heads} is not a multiple of kv_heads = {kv_heads}",
                f"each kv-head serves as many query heads: with these kv_heads, q_heads may be {' or '.join(legal)}",
            )
        return kv_heads

    @field_validator("window")
    @classmethod
    def _window_in_context(cls, window: int, info: ValidationInfo) -> int:
        context = info.data.get("context", window)
        if window > context:
            raise field_error(
                "VQ0215",
                f"a window of {counted(window, 'token')} is longer than a context of {context}",
                f"use at most {context}: the window holds the newest tokens of a sequence",
            )
        return window

    # Validators of fields do not run for defaults: these two are asked only where the spec gives a value.
    @field_validator("rope_base", "rope_scaling")
    @classmethod
    def _rotates(cls, factor: float, info: ValidationInfo) -> float:
        if info.data.get("rope") == "none":
            raise field_error(
                "VQ0215",
                f"{info.field_name} is given, but rope is none: keys would not be rotated",
                f"write rope: half or rope: interleaved, or leave {info.field_name} out",
            )
        return factor

    @model_serializer(mode="wrap")
    def _as_written(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """All fields but those that no spec may give, so that what was written can be read.

        One page size is a number, several are a list.
        """
        written: dict[str, Any] = write(self)
        if len(self.page_size) == 1:
            (written["page_size"],) = self.page_size
        unused = {"rope_base", "rope_scaling"} if self.rope == "none" else set()
        return {name: value for name, value in written.items() if name not in unused}

    @property
    def query_rows(self) -> int:
        """Rows of queries that share a kv-head, at most: query tokens times the query heads that it serves."""
        return self.query_tokens * self.q_heads // self.kv_heads

    @property
    def page_sizes(self) -> tuple[int, ...]:
        """Tokens of a page, of kernels for each, in ascending order; 0 alone for a contiguous cache."""
        return tuple(sorted(self.page_size))

    @property
    def paged(self) -> bool:
        """Whether sequences have pages by a page table."""
        return self.page_sizes != (0,)

    @property
    def page_tokens(self) -> int:
        """Tokens of a page; 0 where a launch says them: of a contiguous cache, and where there are several sizes."""
        return self.page_sizes[0] if len(self.page_sizes) == 1 else 0

    def page_mark(self, page_tokens: int) -> str:
        """What tells names of kernels for pages of `page_tokens` from the others', if there are others."""
        return f"p{page_tokens}" if len(self.page_sizes) > 1 else ""

    def _variant(self, words: str, dtype: Dtype, batch: int, page_tokens: int) -> Variant:
        suffix = "_".join(filter(None, (words, self.page_mark(page_tokens), dtype)))
        return Variant(suffix, dtype, {"batch": batch, "page_tokens": page_tokens})

    @property
    def rotation(self) -> list[str | float]:
        """How keys are rotated once they are decoded: a word, then base and scaling unless it is `none`."""
        return ["none"] if self.rope == "none" else [self.rope, self.rope_base, self.rope_scaling]

    def variants(self) -> tuple[Variant, ...]:
        """One kernel per bound on sequences, page size and type.

        A launch takes, of its type and page size, the smallest bound that covers its batch.
        """
        return tuple(
            self._variant(f"b{batch}", dtype, batch, page_tokens)
            for dtype in sorted(set(self.dtype))
            for batch in sorted(set(self.batch))
            for page_tokens in self.page_sizes
        )

    def append_variant(self, dtype: Dtype, page_tokens: int, *, single: bool) -> Variant:
        """A kernel that appends a token to each sequence, or any number; it serves every batch of the op."""
        return self._variant(f"append_{'one' if single else 'many'}", dtype, max(self.batch), page_tokens)

    def only(self, variant: Variant) -> AttentionDecode:
        """The op with that one variant."""
        sizes = variant.sizes
        return self.model_copy(
            update={
                "batch": (sizes["batch"],),
                "page_size": (sizes["page_tokens"],),
                "dtype": (variant.dtype,),
            }
        )

    def element_type(self, variant: Variant) -> str:
        """The CUDA type of queries, outputs and windows: `__half` or `__nv_bfloat16`."""
        return C_TYPES[variant.dtype]

    def layout(self, keys: Algorithm, values: Algorithm, key_order: KeyOrder) -> CacheLayout:
        """How codes lie in the pages of all kernels, whose sizes may differ: `in_pages` has one kernel's.

        For algorithms of keys and values that `check` accepts; `key_order` is the plan's.
        """
        return CacheLayout(
            heads=self.kv_heads,
            head_dim=self.head_dim,
            key_size=keys.vector_size,
            key_bits=keys.code_bits,
            key_stages=keys.residuals,
            value_size=values.vector_size,
            value_bits=values.code_bits,
            value_stages=values.residuals,
            page_tokens=self.page_tokens,
            key_order=key_order,
        )

    def value_layout(self, vector_size: int, blocks: int = 1) -> ComputeLayout:
        """How multiply-adds want decoded values, of which each of `blocks` blocks has equal parts of the channels.

        Weighted values are summed over tokens: lanes add up single channels of a token, as many lanes as have vectors.
        """
        groups = self.head_dim // vector_size // blocks
        return ComputeLayout("fma", 1, min(groups, WARP_SIZE))

    def check(self, gpu: Gpu) -> Iterator[Finding]:
        """What makes this op impossible on the GPU: types that it lacks (VQ0308)."""
        for dtype in self.dtype:
            if dtype not in gpu.dtypes:
                legal = ", ".join(gpu.dtypes)
                yield Finding(
                    ("op", "dtype"), "VQ0308", f"{gpu.name} cannot compute in {dtype}", f"use {legal}"
                )

    def check_algorithms(self, keys: Algorithm, values: Algorithm) -> Iterator[Finding]:
        """What makes this op impossible for the algorithms of keys and values, everything once.

        What `Algorithm.check_cache` finds, and too many channel groups (VQ0302). Paths lead to `algorithm`, or, if
        `keys` and `values` are two objects, to its `key` and `value`. Offsets of pages need no check: kernels compute
        them in 64 bits (PackedCache, device/attention/cache.cuh).
        """
        if keys is values:
            yield from self._check_side(keys)
            return
        both = [
            of_side(finding, side)
            for side, algorithm in (("key", keys), ("value", values))
            for finding in self._check_side(algorithm)
        ]
        # What is found in the op itself, such as its head_dim, may be the same for both.
        yield from dict.fromkeys(both)

    def _check_side(self, algorithm: Algorithm) -> Iterator[Finding]:
        """What is wrong with keys or values of the algorithm.

        With these the static asserts of KeyBlock and PackedCache hold: what divides head_dim, a power of two, leaves a
        power of two of groups, 4 at least, whose streams of whole words take a multiple of 16 bytes.
        """
        yield from algorithm.check_cache(self.kv_heads, self.head_dim)
        groups, rest = divmod(self.head_dim, algorithm.vector_size)
        if rest == 0 and groups > MAX_GROUPS:
            yield Finding(
                ("algorithm", "vector_size"),
                "VQ0302",
                f"head_dim = {self.head_dim} has {groups} vectors of {counted(algorithm.vector_size, 'channel')}; "
                f"attention kernels have at most {MAX_GROUPS} of a head",
                f"use vectors of {self.head_dim // MAX_GROUPS} channels or more",
            )

    def problem_constants(self) -> tuple[Constant, ...]:
        """The template's `Shape`."""
        return (
            Constant("int", "kQueryHeads", self.q_heads, "heads of queries"),
            Constant("int", "kHeads", self.kv_heads, "heads of keys and values"),
            Constant("int", "kHeadDim", self.head_dim, "channels of a head"),
            Constant("int", "kWindow", self.window, "newest tokens, in full precision"),
            Constant(
                "int",
                "kSlidingWindow",
                self.sliding_window,
                "tokens that a query sees at most; 0: all before it",
            ),
            Constant("bool", "kSoftcap", self.softcap, "whether scores are capped"),
            Constant("vqcc::Rope", "kRope", ROPES[self.rope], "how keys are rotated once they are decoded"),
        )

    def arguments(self, variant: Variant) -> tuple[Argument, ...]:
        """Parameters of the attention kernel in order."""
        return attention_arguments(self, self.element_type(variant))

    def append_arguments(self, variant: Variant) -> tuple[Argument, ...]:
        """Parameters of the kernels that append tokens to the cache, in order."""
        return append_arguments(self, self.element_type(variant))


def of_side(finding: Finding, side: str) -> Finding:
    """A finding of an algorithm where the spec has two: `algorithm` is a mapping of key and value."""
    if finding.path[0] != "algorithm":
        return finding
    path = ("algorithm", side, *finding.path[1:])
    return Finding(path, finding.code, finding.message, finding.help)
