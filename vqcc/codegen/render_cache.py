"""Plans of attention to source: one standalone `.cu` with the kernels that attend and those that append."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.codegen.device_parts import inline_headers
from vqcc.codegen.render import (
    UNNAMED,
    Struct,
    banner_of,
    environment,
    exchange_constants,
    moving_lanes,
    notes_of,
    struct,
)
from vqcc.codegen.text import Fragment, c_identifier, comment, literal
from vqcc.data_files import templates_directory
from vqcc.ops.attention.cluster_tile import ClusterTile
from vqcc.ops.attention.row_tile import FragmentTile, RopeFragmentTile, RowTile, ScoreTile
from vqcc.passes.cache.placement import head_books
from vqcc.plan import Constant

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vqcc.algorithms.base import Algorithm
    from vqcc.levels import Dataflow
    from vqcc.ops.attention.model import AttentionDecode
    from vqcc.ops.base import Dtype
    from vqcc.passes.cache.append import AppendPlan
    from vqcc.plan import CachePlan, Placement
    from vqcc.problem import CacheProblem

__all__ = ["describe_cache", "render_cache_source"]

_DECODE_HEADER, _DECODE_ENGINE = "attention/decode_kernel.cuh", "vqcc::DecodeAttention"
#: Over entries by rows: what products of keys come of, and what adds up values, plainly or on tensor cores.
_ROW_HEADER, _ROW_ENGINE = "attention/row_kernel.cuh", "vqcc::RowAttention"
_KEY_PRODUCTS: dict[type, tuple[str, str]] = {
    ScoreTile: (
        "attention/head_scores.cuh",
        "vqcc::HeadScores<plan::Keys, plan::Shape, plan::{cache}, {tile}>",
    ),
    FragmentTile: ("attention/fragment_keys.cuh", "vqcc::FragmentKeys<plan::Keys, plan::Shape, {tile}>"),
    RopeFragmentTile: (
        "attention/rope_keys.cuh",
        "vqcc::RopeFragmentKeys<plan::Keys, plan::Shape, {tile}>",
    ),
}
_SOFTMAXES: dict[bool, tuple[str, str]] = {
    False: ("attention/warp_softmax.cuh", "vqcc::WarpSoftmax<plan::Values, plan::Shape, {tile}>"),
    True: ("attention/fragment_softmax.cuh", "vqcc::FragmentSoftmax<plan::Values, plan::Shape, {tile}>"),
}
#: Of blocks that share a head's channels out: what products come of, in what header.
_PRODUCTS: dict[Dataflow, tuple[str, str]] = {
    "decode": ("attention/cluster_decode.cuh", "vqcc::DecodedProducts"),
    "score": ("attention/cluster_scores.cuh", "vqcc::ScoredProducts"),
}
_CLUSTER_HEADER, _CLUSTER_ENGINE = "attention/cluster_kernel.cuh", "vqcc::ClusterAttention"
_APPEND_HEADER = "attention/append_kernel.cuh"
_KEY_ORDERS = {
    "plain": "vqcc::KeyOrder::kPlain",
    "rotated": "vqcc::KeyOrder::kRotated",
    "fragment": "vqcc::KeyOrder::kFragment",
}


@dataclass(frozen=True)
class _Kernel:
    name: Fragment
    element: Fragment
    engine: Fragment
    attributes: Fragment
    threads: int
    minimum_blocks: int
    structs: tuple[Struct, ...]
    vector_of_lane: tuple[int, ...]
    notes: tuple[Fragment, ...]


@dataclass(frozen=True)
class _Append:
    name: Fragment
    cache: Fragment
    single: Fragment
    minimum_blocks: int
    comment: Fragment


@dataclass(frozen=True)
class _AppendKernel:
    element: Fragment
    threads: int
    parameters: Fragment
    structs: tuple[Struct, ...]
    appends: tuple[_Append, ...]


def render_cache_source(
    problems: Sequence[CacheProblem], plans: Sequence[CachePlan], appends: Sequence[AppendPlan]
) -> str:
    """The `.cu` of one library on one GPU; `problems` and `plans` are its kernels that attend, in order.

    All problems share the op, its algorithms and the GPU, and all plans the layout but for the size of pages.
    """
    problem, plan = problems[0], plans[0]
    keys, values = problem.keys.device(), problem.values.device()
    engines = sorted({header for each in plans for header in _headers(each)})
    headers = tuple(dict.fromkeys((*engines, _APPEND_HEADER, keys.header, values.header)))
    text = (
        environment()
        .get_template(problem.op.template)
        .render(
            banner=tuple(comment(line) for line in banner_of(problem, plan, describe_cache(problem))),
            device_parts=inline_headers(templates_directory() / "device", headers),
            shared_structs=(
                struct("KeyCodes", f"Keys: {problem.keys.label}.", _codes(problem.keys)),
                struct("ValueCodes", f"Values: {problem.values.label}.", _codes(problem.values)),
                struct("Shape", "Queries and the cache's heads.", problem.op.problem_constants()),
                *_caches(problems, plans),
                struct("KeyScope", "Books of keys.", _scope(problem, problem.keys)),
                struct("ValueScope", "Books of values.", _scope(problem, problem.values)),
            ),
            key_type=c_identifier(keys.type_name),
            value_type=c_identifier(values.type_name),
            kernels=tuple(_kernel(*pair) for pair in zip(problems, plans, strict=True)),
            append_kernels=tuple(
                _append_kernels(problem, dtype, [each for each in appends if each.tile.dtype == dtype])
                for dtype in dict.fromkeys(each.tile.dtype for each in appends)
            ),
        )
    )
    return "\n".join(line.rstrip() for line in text.splitlines()) + "\n"


def _headers(plan: CachePlan) -> tuple[str, ...]:
    """Device headers of a plan's kernel."""
    if isinstance(plan.tile, ClusterTile):
        return (_CLUSTER_HEADER, _PRODUCTS[plan.strategy.dataflow][0])
    if isinstance(plan.tile, RowTile):
        return (_ROW_HEADER, _KEY_PRODUCTS[type(plan.tile)][0], _SOFTMAXES[plan.tile.multiplies_values][0])
    return (_DECODE_HEADER,)


def describe_cache(problem: CacheProblem) -> str:
    """What a library computes over which cache, in words."""
    algorithms = (
        problem.keys.label
        if problem.keys == problem.values
        else f"{problem.keys.label} keys and {problem.values.label} values"
    )
    op = problem.op
    return f"{op.kind} over a cache of {algorithms}, {op.q_heads} query heads, {op.kv_heads} kv-heads of {op.head_dim}"


def _codes(algorithm: Algorithm) -> tuple[Constant, ...]:
    return tuple(
        Constant("int" if isinstance(value, int) else value.rsplit("::", 1)[0], name, value, text)
        for name, value, text in algorithm.device().constants
    )


def _caches(problems: Sequence[CacheProblem], plans: Sequence[CachePlan]) -> Iterator[Struct]:
    """A struct for each page size that kernels have."""
    of_sizes = {
        problem.variant.sizes["page_tokens"]: (problem, plan)
        for problem, plan in zip(problems, plans, strict=True)
    }
    for page_tokens, (problem, plan) in sorted(of_sizes.items()):
        pages = f" in pages of {page_tokens} tokens" if len(problem.op.page_sizes) > 1 else ""
        text = f"How packed codes lie{pages}, as the kernels that append write them."
        yield struct(_cache_name(problem.op, page_tokens), text, _cache(problem, plan))


def _cache_name(op: AttentionDecode, page_tokens: int) -> str:
    """The struct of the plan that says how codes lie in such pages."""
    return "_".join(filter(None, ("Cache", op.page_mark(page_tokens))))


def _cache(problem: CacheProblem, plan: CachePlan) -> tuple[Constant, ...]:
    assert plan.layout is not None
    by_head = any(_by_head(each) for each in (problem.keys, problem.values))
    return (
        Constant("int", "kHeads", plan.layout.heads, "kv-heads"),
        Constant(
            "int", "kPageBlocks", plan.layout.page_tokens // 32, "token blocks of a page; 0: contiguous"
        ),
        Constant("vqcc::KeyOrder", "kKeyOrder", _KEY_ORDERS[plan.layout.key_order], "how a block's keys lie"),
        Constant("bool", "kBooksByHead", by_head, "kv-heads have books by rows of their own"),
    )


def _by_head(algorithm: Algorithm) -> bool:
    """Whether kv-heads have books of their own."""
    return algorithm.scope.cache_books(2, 1)[0] > 1


def _scope(problem: CacheProblem, algorithm: Algorithm) -> tuple[Constant, ...]:
    books = head_books(algorithm, problem.op.kv_heads, problem.op.head_dim)
    return (
        Constant("int", "kHeadBooks", books, "of a kv-head: one for each channel group, or one"),
        Constant("bool", "kBooksByHead", _by_head(algorithm), "kv-heads have books of their own"),
    )


def _kernel(problem: CacheProblem, plan: CachePlan) -> _Kernel:
    assert plan.tile is not None
    assert plan.keys is not None
    assert plan.values is not None
    short_name = plan.kernel.removeprefix(f"{problem.library}_").removesuffix(f"_{UNNAMED}")
    decodes = plan.strategy.dataflow == "decode"
    turns = Constant(
        "bool", "kBooksTakeTurns", plan.books_take_turns, "books of keys and values share a place"
    )
    structs = [
        struct(
            f"Tile_{short_name}",
            f"Decisions for {problem.variant.suffix}.",
            (*plan.tile.constants(), *((turns, *exchange_constants(plan.exchange)) if decodes else ())),
        )
    ]
    if decodes:
        for name, algorithm, placement in (
            ("Key", problem.keys, plan.keys),
            ("Value", problem.values, plan.values),
        ):
            text = f"{name}s' entries that are cached."
            structs.append(
                struct(f"{name}Tile_{short_name}", text, _placement(problem, algorithm, placement))
            )
    return _Kernel(
        name=c_identifier(plan.kernel),
        element=literal(problem.op.element_type(problem.variant)),
        engine=literal(
            _engine(
                plan,
                _cache_name(problem.op, problem.variant.sizes["page_tokens"]),
                _reordered([str(each.name) for each in structs]),
            )
        ),
        attributes=literal(
            f"__cluster_dims__({plan.tile.cluster}, 1, 1) " if isinstance(plan.tile, ClusterTile) else ""
        ),
        threads=32 * plan.tile.warps,
        minimum_blocks=plan.minimum_blocks,
        structs=tuple(structs),
        vector_of_lane=moving_lanes(plan.exchange),
        notes=tuple(comment(line) for line in notes_of(plan)),
    )


def _engine(plan: CachePlan, cache: str, tiles: Sequence[str]) -> str:
    """The class that works on a launch; `cache` and `tiles` are its structs of the plan."""
    shared = ("Keys", "Values", "Shape", cache)

    def of(engine: str, names: Sequence[str]) -> str:
        return f"{engine}<{', '.join(f'plan::{each}' for each in names)}>"

    if isinstance(plan.tile, RowTile):
        parts = (_KEY_PRODUCTS[type(plan.tile)][1], _SOFTMAXES[plan.tile.multiplies_values][1])
        policies = ", ".join(each.format(cache=cache, tile=f"plan::{tiles[-1]}") for each in parts)
        return of(_ROW_ENGINE, (*shared, *tiles)).replace("<", f"<{policies}, ", 1)
    if not isinstance(plan.tile, ClusterTile):
        return of(_DECODE_ENGINE, (*shared, *tiles))
    products = of(_PRODUCTS[plan.strategy.dataflow][1], (*shared, *tiles))
    return of(_CLUSTER_ENGINE, (*shared, tiles[-1])).replace("<", f"<{products}, ", 1)


def _reordered(names: list[str]) -> list[str]:
    """Template arguments: tiles of books come before the block's."""
    return [*names[1:], names[0]]


def _placement(problem: CacheProblem, algorithm: Algorithm, placement: Placement) -> tuple[Constant, ...]:
    return (
        Constant("int", "kRegisterEntries", 0, "entries of a table in registers"),
        Constant("int", "kSharedEntries", placement.n_shared, "entries of each table in shared memory"),
        Constant(
            "int", "kCopies", placement.copies, "copies of a shared entry, for lanes to look up in turn"
        ),
        Constant("int", "kSplitStages", 1, "parts of the residual stages"),
        Constant("int", "kSharedBookBytes", placement.shared_book_bytes, "of one book"),
        Constant("int", "kResidentTiles", placement.resident_tiles, "books that are present at once"),
        *_scope(problem, algorithm),
    )


def _append_kernels(problem: CacheProblem, dtype: Dtype, appends: Sequence[AppendPlan]) -> _AppendKernel:
    """The kernels of one element type, which have the same tile."""
    tile = appends[0].tile
    name = f"AppendTile_{dtype}"
    variant = next(each for each in problem.op.variants() if each.dtype == dtype)
    return _AppendKernel(
        element=literal(problem.op.element_type(variant)),
        threads=32 * tile.warps,
        parameters=literal(f"plan::{name}"),
        structs=(struct(name, f"Decisions for appending {dtype} keys and values.", tile.constants()),),
        appends=tuple(
            _Append(
                c_identifier(each.kernel),
                literal(_cache_name(problem.op, each.page_tokens)),
                literal("true" if each.single else "false"),
                tile.minimum_blocks(single=each.single),
                comment(
                    "one token to each sequence" if each.single else "any number of tokens to each sequence"
                ),
            )
            for each in appends
        ),
    )
