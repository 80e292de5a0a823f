"""Attention and its append on the emulator: kernels over the device headers, caches and what they are held against."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import ml_dtypes
import numpy as np
from device.sources import device_source
from layouts import mapped

from vqcc.cache_layouts import CacheLayout, KeyOrder
from vqcc.emulator import Buffer, build
from vqcc.ops.attention.append_tile import propose_append_tile
from vqcc.ops.attention.reference import Attended, attend, rotate, turn_steps
from vqcc.passes.exchange import ThreadLayout
from vqcc.plan import Exchange
from vqcc.tensors.cache_books import pack_books, pack_row_books
from vqcc.tensors.cache_codes import nearest_codes, pack_token_blocks

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vqcc.emulator import Emulated
    from vqcc.ops.attention.append_tile import AppendTile

Fusion = Literal["none", "register", "shared"]
TYPES: Mapping[str, tuple[Any, str]] = {
    "float16": (np.float16, "Float16"),
    "bfloat16": (ml_dtypes.bfloat16, "Bfloat16"),
}
ARRIVAL_ALIGNMENT = 256
#: Half a unit in the last place of an output, relative to it.
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
HALF = 2.0**-11


@dataclass(frozen=True)
class Books:
    """VQ<size, bits, stages> with codebooks for each channel group of a head, each head, or the layer."""

    size: int = 4
    bits: int = 8
    stages: int = 1
    scope: str = "group"

    def count(self, heads: int, head_dim: int) -> int:
        return {"group": heads * (head_dim // self.size), "head": heads, "layer": 1}[self.scope]

    def of_group(self, head: int, group: int, head_dim: int) -> int:
        return {"group": head * (head_dim // self.size) + group, "head": head, "layer": 0}[self.scope]


@dataclass(frozen=True)
class Case:
    """A cache and the kernels for it; `lengths` are the sequences'. Tokens in shared books: `shared_entries`."""

    keys: Books = Books()
    values: Books = Books()
    query_heads: int = 2
    heads: int = 2
    head_dim: int = 64
    window: int = 0
    sliding_window: int = 0
    softcap: float = 0.0
    rope: str = "none"
    page_tokens: int = 0
    key_order: KeyOrder = "plain"
    dtype: str = "float16"
    query_tokens: int = 1
    lengths: tuple[int, ...] = (70, 0, 33)
    warps: int = 4
    rows: int = 1
    row_sets: int = 1
    chunk_blocks: int = 4
    grid: int = 5
    shared_entries: tuple[int, int] = (0, 0)
    take_turns: bool = False
    stages: int = 2
    tables_region: int = 0
    multiplied: bool = False
    cluster: int = 4
    depths: tuple[int, int] = (2, 1)
    kernel: str = "decode"
    fusion: Fusion = "none"
    seed: int = 0
    shared_bytes: int = field(default=227 * 1024)
    blocks_per_sm: int = 1
    own_arrival_bytes: int = 0

    @property
    def tables_offset(self) -> int:
        """Of shared memory, before tables; the driver reserves the window's first 1024 bytes."""
        return self.tables_region * 65536 - 1024 if self.tables_region else 0

    @property
    def arrival_bytes(self) -> int:
        """Of the workspace: counters, as a plan has them, or as few as there must be."""
        least = self.heads * self.row_sets * len(self.lengths) * 4
        return self.own_arrival_bytes or -(-least // ARRIVAL_ALIGNMENT) * ARRIVAL_ALIGNMENT

    @property
    def in_clusters(self) -> bool:
        """Whether blocks share out a head's channels."""
        return self.kernel.startswith("cluster")

    @property
    def decodes(self) -> bool:
        """Whether entries are decoded for each look-up."""
        return self.kernel.endswith("decode")

    @property
    def exchange(self) -> Exchange:
        """Of values among the lanes that have a token's channel groups, as `fusion` says."""
        groups = self.head_dim // self.values.size // (self.cluster if self.in_clusters else 1)
        lanes = min(groups, 32)
        if self.fusion == "none":
            return Exchange()
        if self.fusion == "shared":
            return Exchange("fma", "shared", 1, lanes, 1, 0, tuple(range(lanes)))
        mapping = mapped(self.values.size, ThreadLayout(1, lanes))
        return Exchange(
            "fma", "register", 1, lanes, mapping.size, mapping.shuffles(), mapping.vector_of_thread
        )

    @property
    def layout(self) -> CacheLayout:
        keys, values = self.keys, self.values
        return CacheLayout(
            self.heads, self.head_dim, keys.size, keys.bits, keys.stages, values.size, values.bits, values.stages,
            self.page_tokens, self.key_order,
        )  # fmt: skip

    @property
    def element(self) -> Any:
        return TYPES[self.dtype][0]


def structs(case: Case, *, attends: bool = True) -> str:
    """The plan as constants, of kernels that attend or that append."""
    text, tile = "", append_tile(case)
    for name, books, shared in zip(
        ("Key", "Value"), (case.keys, case.values), case.shared_entries, strict=True
    ):
        of_head = case.head_dim // books.size if books.scope == "group" else 1
        of_block = of_head // case.cluster if case.kernel == "cluster decode" and of_head > 1 else of_head
        stage_bytes = 2 * books.size << books.bits
        text += f"""
struct {name}Codes {{
  static constexpr int kVectorSize = {books.size}, kEntries = {1 << books.bits}, kResiduals = {books.stages};
  static constexpr int kCodeBits = {books.bits}, kEntryStride = {books.size};
  static constexpr int kTableBytes = {-(-stage_bytes * books.stages // 16) * 16};
  static constexpr ElementType kEntryType = ElementType::kFloat16;
}};
struct {name}Tile {{
  static constexpr int kSharedEntries = {shared}, kCopies = 1, kSplitStages = 1, kRegisterEntries = 0;
  static constexpr int kSharedBookBytes = {shared * 2 * books.size * books.stages};
  static constexpr int kResidentTiles = {of_block}, kHeadBooks = {of_head};
  static constexpr int kBooksByHead = {int(books.scope != "layer")};
  VQCC_HOST_DEVICE static constexpr int register_entries(int) {{ return 0; }}
}};"""
    yes_no = {True: "true", False: "false"}
    return (
        text
        + f"""
struct Shape {{
  static constexpr int kQueryHeads = {case.query_heads}, kHeads = {case.heads}, kHeadDim = {case.head_dim};
  static constexpr int kWindow = {case.window}, kSlidingWindow = {case.sliding_window};
  static constexpr bool kSoftcap = {yes_no[case.softcap > 0]};
  static constexpr Rope kRope = Rope::k{case.rope.title()};
}};
struct Cache {{
  static constexpr int kHeads = {case.heads}, kPageBlocks = {case.page_tokens // 32};
  static constexpr KeyOrder kKeyOrder = KeyOrder::k{case.key_order.title()};
  static constexpr bool kBooksByHead = {yes_no[not case.keys.scope == case.values.scope == "layer"]};
}};
struct Tile {{
  static constexpr int kWarps = {case.warps}, kRows = {case.rows}, kRowSets = {case.row_sets};
  static constexpr int kChunkBlocks = {case.chunk_blocks}, kBatch = {len(case.lengths)}, kStages = {case.stages};
  static constexpr int kTablesRegion = {case.tables_region}, kTablesOffset = {case.tables_offset};
  static constexpr int kOwnSharedBytes = {case.shared_bytes}, kArrivalBytes = {case.arrival_bytes};
  static constexpr int kClusterBlocks = {case.cluster};
  static constexpr int kKeyDepth = {case.depths[0]}, kValueDepth = {case.depths[1]};
  static constexpr int kKeyGroups = {tile.key_groups}, kValueGroups = {tile.value_groups};
  static constexpr bool kBooksTakeTurns = {yes_no[case.take_turns]};
  static constexpr ElementType kElement = ElementType::k{TYPES[case.dtype][1]};
{exchange_constants(case.exchange) if attends and case.decodes else ""}
}};
using Element = ElementTraits<Tile::kElement>::Type;
using Keys = KMeans<KeyCodes>;
using Values = KMeans<ValueCodes>;
"""
    )


def exchange_constants(exchange: Exchange) -> str:
    """The plan's exchange as the template prints it."""
    vectors = ", ".join(map(str, exchange.vector_of_lane))
    return f"""
  static constexpr Fusion kFusion = Fusion::k{exchange.fusion.title()};
  static constexpr int kExchangeLanes = {exchange.lanes}, kExchangeWidth = {exchange.width};
  static constexpr int kMiniWarp = {exchange.mini_warp}, kShuffles = {exchange.shuffles};
  VQCC_HOST_DEVICE static constexpr int vector_of_lane(int lane) {{
    constexpr int kVectors[] = {{{vectors}}};
    return kVectors[lane];
  }}"""


def kernel_type(case: Case) -> str:
    """The class that works on a launch."""
    softmax = "FragmentSoftmax" if case.multiplied or case.kernel == "fragment" else "WarpSoftmax"
    return {
        "score": f"RowAttention<HeadScores<Keys, Shape, Cache, Tile>, {softmax}<Values, Shape, Tile>, "
        "Keys, Values, Shape, Cache, Tile>",
        "fragment": f"RowAttention<{'' if case.rope == 'none' else 'Rope'}FragmentKeys<Keys, Shape, Tile>, "
        f"{softmax}<Values, Shape, Tile>, Keys, Values, Shape, Cache, Tile>",
        "decode": "DecodeAttention<Keys, Values, Shape, Cache, KeyTile, ValueTile, Tile>",
        "cluster score": "ClusterAttention<ScoredProducts<Keys, Values, Shape, Cache, Tile>, "
        "Keys, Values, Shape, Cache, Tile>",
        "cluster decode": "ClusterAttention<DecodedProducts<Keys, Values, Shape, Cache, KeyTile, ValueTile, Tile>, "
        "Keys, Values, Shape, Cache, Tile>",
    }[case.kernel]


def headers_of(case: Case) -> tuple[str, ...]:
    """What its class needs."""
    names = {
        "cluster score": ("cluster_kernel", "cluster_scores"),
        "cluster decode": ("cluster_kernel", "cluster_decode"),
        "score": ("row_kernel", "head_scores", "warp_softmax", "fragment_softmax"),
        "fragment": ("row_kernel", "fragment_keys", "rope_keys", "fragment_softmax"),
        "decode": ("decode_kernel",),
    }[case.kernel]
    return (*(f"attention/{name}.cuh" for name in names), "algorithms/kmeans.cuh")


def attention_source(case: Case) -> str:
    """A kernel `attend`."""
    kernel = kernel_type(case)
    cluster = f"__cluster_dims__({case.cluster}, 1, 1) " if case.in_clusters else ""
    return device_source(
        headers_of(case),
        structs(case)
        + f"""
extern "C" __global__ void {cluster}__launch_bounds__({32 * case.warps}, {case.blocks_per_sm}) attend(
    const Element* queries, const uint8* pages, const uint8* key_books, const uint8* value_books,
    const float* book_facts, const uint8* rotations, const int* lengths, const int* page_table,
    const Element* key_window, const Element* value_window, Element* outputs, float* log_sums, uint8* workspace,
    int batch, int query_tokens, int page_table_stride, int page_blocks, float softmax_scale, float softcap,
    long long q0, long long q1, long long q2, long long o0, long long o1, long long o2) {{
  {kernel}::run({{queries, pages, key_books, value_books, book_facts, rotations, lengths, page_table, key_window,
                  value_window, outputs, log_sums, workspace, batch, query_tokens, page_table_stride, page_blocks,
                  softmax_scale, softcap, {{q0, q1, q2}}, {{o0, o1, o2}}}});
}}
""",
    )


def append_source(case: Case) -> str:
    """Kernels `append_one` and `append_many`, and `parts` for the number of their grid's parts."""
    kernels = "".join(
        f"""
extern "C" __global__ void __launch_bounds__({32 * case.warps}, 1) append_{name}(
    const Element* keys, const Element* values, uint8* pages, const uint8* key_books, const uint8* value_books,
    const int* lengths, const int* counts, const int* page_table, Element* key_window, Element* value_window,
    int batch, int new_tokens, int page_table_stride, int page_blocks, long long k0, long long k1, long long k2,
    long long v0, long long v1, long long v2) {{
  AppendTokens<Keys, Values, Shape, Cache, KeyTile, ValueTile, Tile, {single}>::run(
      {{keys, values, pages, key_books, value_books, lengths, counts, page_table, key_window, value_window, batch,
        new_tokens, page_table_stride, page_blocks, {{k0, k1, k2}}, {{v0, v1, v2}}}});
}}
"""
        for name, single in (("one", "true"), ("many", "false"))
    )
    return device_source(
        ("attention/append_kernel.cuh", "algorithms/kmeans.cuh"), structs(case, attends=False) + kernels
    )


def append_tile(case: Case) -> AppendTile:
    """Groups of channels of keys and of values that blocks encode, of each head."""
    return propose_append_tile(case.layout, "float16", len(case.lengths), sm_count=100)


class Cache:
    """Pages of a case in memory, a page table, windows, and codebooks drawn at random."""

    def __init__(self, case: Case, rng: np.random.Generator, tokens: int) -> None:
        self.case = case
        self.blocks = max(1, -(-tokens // 32))
        sequences, heads = len(case.lengths), case.heads
        page_blocks = case.page_tokens // 32 or self.blocks
        self.page_blocks, self.sequence_pages = page_blocks, -(-self.blocks // page_blocks)
        pages = sequences * self.sequence_pages + (2 if case.page_tokens else 0)
        words = case.layout.block_bytes // 4
        self.pages = np.full((pages, heads, page_blocks, words), 0xDEADBEEF, np.uint32)
        self.table = None
        if case.page_tokens:
            order = rng.permutation(pages)[: sequences * self.sequence_pages]
            self.table = order.reshape(sequences, -1).astype(np.int32)
        shape = (sequences, heads, max(1, case.window), case.head_dim)
        self.key_window, self.value_window = (rng.standard_normal(shape).astype(case.element) for _ in "kv")
        self.key_books, self.value_books = (
            rng.standard_normal(
                (books.count(heads, case.head_dim), books.stages, 1 << books.bits, books.size)
            ).astype(np.float16)
            for books in (case.keys, case.values)
        )

    def block(self, sequence: int, block: int) -> NDArray[np.uint32]:
        """The words of a token block, of all heads."""
        page, place = divmod(block, self.page_blocks)
        number = sequence if self.table is None else self.table[sequence, page]
        return self.pages[number, :, place]

    def used_table(self) -> NDArray[np.int32]:
        """The page table, with no page where a sequence has no token in codes."""
        assert self.table is not None
        used = self.table.copy()
        for sequence, length in enumerate(self.case.lengths):
            coded = max(0, length - self.case.window)
            used[sequence, -(-coded // self.case.page_tokens) :] = -1
        return used

    def fill(self, keys: NDArray[Any], values: NDArray[Any]) -> None:
        """Put codes [sequences, heads, tokens, groups, stages] in place; tokens fill all blocks."""
        words = pack_token_blocks(keys, values, self.case.layout)
        for sequence in range(len(words)):
            for block in range(self.blocks):
                self.block(sequence, block)[:] = words[sequence, :, block]

    def decoded(self, codes: NDArray[Any], which: str) -> NDArray[np.float64]:
        """Codes [..., heads, tokens, groups, stages] as vectors [..., heads, tokens, head_dim]."""
        books, tables = (
            (self.case.keys, self.key_books) if which == "keys" else (self.case.values, self.value_books)
        )
        head_dim = self.case.head_dim
        vectors = np.zeros((*codes.shape[:-1], books.size))
        for head in range(self.case.heads):
            for group in range(head_dim // books.size):
                book = tables[books.of_group(head, group, head_dim)].astype(np.float64)
                for stage in range(books.stages):
                    vectors[..., head, :, group, :] += book[stage][codes[..., head, :, group, stage]]
        return vectors.reshape(*vectors.shape[:-2], head_dim)

    def shaped(self, which: str) -> NDArray[np.float16]:
        """Codebooks [kv_heads or 1, groups or 1, stages, entries, x]."""
        books, tables = (
            (self.case.keys, self.key_books) if which == "keys" else (self.case.values, self.value_books)
        )
        heads = 1 if books.scope == "layer" else self.case.heads
        return tables.reshape(heads, -1, *tables.shape[1:])


@dataclass(frozen=True)
class Answer:
    """What a kernel gave, and what it is held against."""

    outputs: NDArray[np.float64]
    log_sums: NDArray[np.float32]
    exact: Attended
    counters: Any


def run_attention(
    case: Case,
    emulated: Emulated,
    *,
    count: bool = False,
    kernel: str = "attend",
    workspace: NDArray[np.uint8] | None = None,
) -> Answer:
    """Draw a cache and launch twice with the same workspace; the first launch's results, which the second gives too."""
    rng = np.random.default_rng(case.seed)
    sequences, longest = len(case.lengths), max(*case.lengths, 1)
    cache = Cache(case, rng, longest)
    tokens, layout = 32 * cache.blocks, case.layout
    keys, values = (
        rng.integers(0, 1 << books.bits, (sequences, case.heads, tokens, groups, books.stages))
        for books, groups in ((case.keys, layout.key_groups), (case.values, layout.value_groups))
    )
    cache.fill(keys, values)
    shape = (sequences, case.query_tokens, case.query_heads, case.head_dim)
    queries = rng.standard_normal(shape).astype(case.element)
    exact = _exact(case, cache, keys, values, queries)
    if not case.decodes:
        packed = pack_row_books(cache.shaped("keys"), cache.shaped("values"), case.head_dim)
        key_books, value_books, facts = packed.keys, packed.values, packed.facts
    else:
        key_books, value_books = pack_books(cache.shaped("keys")), pack_books(cache.shaped("values"))
        facts = np.zeros(1, np.float32)
    arrivals = case.arrival_bytes
    if workspace is None:
        workspace = np.zeros(arrivals + case.grid * 2 * case.rows * (case.head_dim + 2) * 4, np.uint8)
    results = []
    for _ in range(2):
        outputs = np.full(shape, np.nan).astype(case.element)
        log_sums = np.full(shape[:-1], np.nan, np.float32)
        strides = [np.int64(stride // outputs.itemsize) for stride in outputs.strides[:3]]
        report = emulated.launch(
            kernel,
            (case.grid, 1, 1),
            (32 * case.warps, 1, 1),
            case.shared_bytes,
            [
                Buffer("queries", queries, "input"),
                Buffer("pages", cache.pages.view(np.uint8), "input"),
                Buffer("key_books", key_books, "input"),
                Buffer("value_books", value_books, "input"),
                Buffer("book_facts", facts, "input"),
                Buffer("rotations", turn_steps(case.head_dim).view(np.uint8), "input"),
                Buffer("lengths", np.array(case.lengths, np.int32), "input"),
                None if cache.table is None else Buffer("page_table", cache.used_table(), "input"),
                Buffer("key_window", cache.key_window, "input"),
                Buffer("value_window", cache.value_window, "input"),
                Buffer("outputs", outputs, "output"),
                Buffer("log_sums", log_sums, "output"),
                Buffer("workspace", workspace, "inout"),
                np.int32(sequences),
                np.int32(case.query_tokens),
                np.int32(cache.sequence_pages),
                np.int32(cache.page_blocks),
                np.float32(case.head_dim**-0.5),
                np.float32(case.softcap),
                *strides,
                *strides,
            ],
            count=count,
        )
        assert not workspace[:arrivals].any(), "counters are as the next launch expects them"
        results.append((outputs, log_sums))
    assert results[0][0].tobytes() == results[1][0].tobytes()
    assert results[0][1].tobytes() == results[1][1].tobytes()
    return Answer(results[0][0].astype(np.float64), results[0][1], exact, report.counters)


def _exact(
    case: Case, cache: Cache, keys: NDArray[Any], values: NDArray[Any], queries: NDArray[Any]
) -> Attended:
    decoded = {"keys": cache.decoded(keys, "keys"), "values": cache.decoded(values, "values")}
    of_sequences: dict[str, list[NDArray[np.float64]]] = {"keys": [], "values": []}
    for sequence, length in enumerate(case.lengths):
        coded = max(0, length - case.window)
        slots = [position % max(1, case.window) for position in range(coded, length)]
        for which, window in (("keys", cache.key_window), ("values", cache.value_window)):
            newest = window[sequence][:, slots].astype(np.float64)
            whole = np.concatenate([decoded[which][sequence, :, :coded], newest], axis=1)
            of_sequences[which].append(whole)
    rotated = [
        rotate(each, np.arange(each.shape[1]), case.rope)
        for each in of_sequences["keys"]  # type: ignore[arg-type]
    ]
    return attend(
        queries,
        rotated,
        of_sequences["values"],
        scale=case.head_dim**-0.5,
        softcap=case.softcap,
        sliding_window=case.sliding_window,
        rope=case.rope,
    )


def check(case: Case, answer: Answer) -> None:
    """Within what rounding can do: outputs, weights and sums of eight in float16, scores of tables in float16."""
    exact = answer.exact
    tabulated = case.kernel in ("score", "cluster score") and case.rows > 1
    turned = case.kernel == "fragment" and case.rope != "none"
    of_scores = 2.0**-20 + (4 * HALF if tabulated or turned else 0.0)
    of_values = 2.0**-18 + {"score": 6 * HALF, "fragment": 2 * HALF, "decode": 0.0}[case.kernel.split()[-1]]
    relative = of_values + 2 * of_scores * exact.scores
    bound = ROUNDING[case.dtype] * np.abs(exact.outputs) + relative[..., None] * exact.magnitudes + 1e-7
    assert (np.abs(answer.outputs - exact.outputs) <= bound).all()
    seen = np.isfinite(exact.log_sums)
    np.testing.assert_array_equal(seen, np.isfinite(answer.log_sums))
    off = np.abs(answer.log_sums[seen] - exact.log_sums[seen])
    assert (off <= 1e-6 * (1 + np.abs(exact.log_sums[seen])) + of_scores * exact.scores[seen]).all()


def counted(case: Case, cache_directory: Path) -> tuple[dict[str, float], Any]:
    """Counters per token and kv-head, of 1024 tokens beside 1024 others; and those of a launch with 1024."""
    emulated = build(attention_source(case), cache_directory=cache_directory / "emulator")
    launches = [
        run_attention(replace(case, lengths=(length,)), emulated, count=True).counters
        for length in (1024, 2048)
    ]
    names = launches[0].__dataclass_fields__
    more = {name: (getattr(launches[1], name) - getattr(launches[0], name)) / 1024 for name in names}
    return more, launches[0]


def run_append(
    case: Case,
    emulated: Emulated,
    steps: list[tuple[int, ...]],
    shares: int = 2,
    kernels: tuple[str, str] = ("append_one", "append_many"),
    *,
    claim_more: bool = False,
) -> None:
    """Append so many tokens of each sequence at each step; cache and windows must hold exactly what they should.

    With `claim_more` launches say of empty sequences that they get tokens: they do not.
    """
    rng = np.random.default_rng(case.seed)
    totals = [sum(step[sequence] for step in steps) for sequence in range(len(case.lengths))]
    cache = Cache(case, rng, max(*totals, 1))
    tokens = 32 * cache.blocks
    shape = (len(totals), tokens, case.heads, case.head_dim)
    keys, values = (rng.standard_normal(shape).astype(case.element) for _ in "kv")
    key_window, value_window = (np.zeros_like(cache.key_window) for _ in "kv")
    lengths = np.zeros(len(totals), np.int32)
    for counts in steps:
        most = max(*counts, 1)
        new_keys, new_values = (np.zeros((len(totals), most, *shape[2:]), case.element) for _ in "kv")
        for sequence, count in enumerate(counts):
            own = slice(lengths[sequence], lengths[sequence] + count)
            new_keys[sequence, :count], new_values[sequence, :count] = (
                keys[sequence, own],
                values[sequence, own],
            )
        lengths = lengths + np.array(counts, np.int32)
        claimed = np.where((lengths == 0) & claim_more, most, counts).astype(np.int32)
        strides = [np.int64(stride // new_keys.itemsize) for stride in new_keys.strides[:3]]
        emulated.launch(
            kernels[most > 1],
            (append_tile(case).parts * shares, 1, 1),
            (32 * case.warps, 1, 1),
            case.shared_bytes,
            [
                Buffer("keys", new_keys, "input"),
                Buffer("values", new_values, "input"),
                Buffer("pages", cache.pages, "inout"),
                Buffer("key_books", pack_books(cache.shaped("keys")), "input"),
                Buffer("value_books", pack_books(cache.shaped("values")), "input"),
                Buffer("lengths", lengths, "input"),
                None if (claimed == most).all() else Buffer("counts", claimed, "input"),
                None if cache.table is None else Buffer("page_table", cache.table, "input"),
                Buffer("key_window", key_window, "inout"),
                Buffer("value_window", value_window, "inout"),
                np.int32(len(totals)),
                np.int32(most),
                np.int32(cache.sequence_pages),
                np.int32(cache.page_blocks),
                *strides,
                *strides,
            ],
        )
    codes = [
        _encoded(case, books, tables, vectors)
        for books, tables, vectors in (
            (case.keys, cache.key_books, keys),
            (case.values, cache.value_books, values),
        )
    ]
    for sequence, length in enumerate(lengths):
        coded = max(0, int(length) - case.window)
        for each in codes:
            each[sequence, :, coded:] = 0
        words = pack_token_blocks(codes[0][sequence], codes[1][sequence], case.layout)
        for block in range(-(-coded // 32)):
            np.testing.assert_array_equal(cache.block(sequence, block), words[:, block])
        for position in range(coded, int(length)):
            slot = position % case.window
            np.testing.assert_array_equal(key_window[sequence, :, slot], keys[sequence, position])
            np.testing.assert_array_equal(value_window[sequence, :, slot], values[sequence, position])


def _encoded(
    case: Case, books: Books, tables: NDArray[np.float16], vectors: NDArray[Any]
) -> NDArray[np.uint16]:
    """Codes [sequences, heads, tokens, groups, stages] of vectors [sequences, tokens, heads, head_dim]."""
    sequences, tokens, heads, head_dim = vectors.shape
    groups = head_dim // books.size
    codes = np.empty((sequences, heads, tokens, groups, books.stages), np.uint16)
    for head in range(heads):
        for group in range(groups):
            own = vectors[:, :, head, group * books.size : (group + 1) * books.size]
            codes[:, head, :, group] = nearest_codes(own, tables[books.of_group(head, group, head_dim)])
    return codes
