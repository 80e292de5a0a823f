"""Placement: which entries of a head's codebooks of keys and of values live in shared memory (VQ-LLM, Sec. V-B).

A block works on one kv-head at a time, so it caches entries of that head's books: of each channel group's, or of the
one that all groups share. Nothing is profiled of caches, so no entry is hot, and registers hold none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, VqccError
from vqcc.ops.attention.cluster_tile import ClusterTile
from vqcc.passes.placement import COPY_BYTES, copied_entries
from vqcc.plan import Decision, Placement, Rejected
from vqcc.report.text import counted

if TYPE_CHECKING:
    from vqcc.algorithms.base import Algorithm
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

__all__ = ["head_books", "head_bytes", "place_all_books", "place_no_books", "place_rows", "place_slack_books"]


def head_books(algorithm: Algorithm, kv_heads: int, head_dim: int) -> int:
    """Books that a kv-head's vectors meet: one for each channel group, or one."""
    return algorithm.scope.cache_books(kv_heads, head_dim // algorithm.vector_size)[1]


def head_bytes(problem: CacheProblem) -> int:
    """Bytes of all books, of keys and of values, that a kv-head's vectors meet."""
    op = problem.op
    return sum(
        head_books(algorithm, op.kv_heads, op.head_dim) * algorithm.table_bytes
        for algorithm in (problem.keys, problem.values)
    )


def place_no_books(problem: CacheProblem, plan: CachePlan) -> CachePlan:
    """Nothing is cached: level gc, and the base kernel of the others."""
    return plan.decide(
        Decision(
            "n_shared",
            0,
            "no entry is cached",
            {"key_entries": problem.keys.entries, "value_entries": problem.values.entries},
            "look-ups go to global memory through the first-level cache",
            "Table IV",
        ),
        keys=_placed(problem, plan, problem.keys, 0),
        values=_placed(problem, plan, problem.values, 0),
    )


def place_rows(plan: CachePlan) -> CachePlan:
    """Entries by rows are the tile's own: a dataflow past the paper's caches nothing entry by entry."""
    nothing = Placement((0,), 0, 1, 0)
    return plan.decide(keys=nothing, values=nothing)


def place_all_books(problem: CacheProblem, plan: CachePlan) -> CachePlan:
    """Level sc: all entries of a head's books, those of keys and of values in turn if there is no room for both.

    Raises VQ0403 if shared memory cannot hold the larger of them.
    """
    assert plan.tile is not None
    keys, values = (
        _placed(problem, plan, algorithm, algorithm.entries) for algorithm in (problem.keys, problem.values)
    )
    own, limit = plan.tile.shared_bytes, problem.gpu.shared_bytes_per_block.integer
    both, larger = keys.shared_bytes + values.shared_bytes, max(keys.shared_bytes, values.shared_bytes)
    if own + larger > limit:
        raise VqccError(
            Diagnostic(
                "VQ0403",
                f"level sc cannot hold the codebooks of a kv-head in shared memory on {problem.gpu.name}: they take "
                f"{larger} bytes, a block has at most {limit} and needs {own} for scores and sums",
                help="use level: o1, which caches what fits, or an algorithm with scope: kv_head or layer",
            )
        )
    turns = own + both > limit
    return plan.decide(
        Decision(
            "n_shared",
            f"{keys.n_shared} of keys, {values.n_shared} of values",
            "every entry of a kv-head's books is cached",
            {
                "key_bytes": keys.shared_bytes,
                "value_bytes": values.shared_bytes,
                "tile_bytes": own,
                "shared_bytes_per_block": limit,
            },
            "books of keys and of values take turns: there is no room for both"
            if turns
            else "books of keys and of values lie side by side",
            "Table IV",
            facts=("shared_bytes_per_block",),
        ),
        keys=keys,
        values=values,
        books_take_turns=turns,
    )


def place_slack_books(problem: CacheProblem, plan: CachePlan) -> CachePlan:
    """As many entries as the slack holds, the same part of each book of keys and of values (Sec. V-B)."""
    assert plan.slack is not None
    budget = plan.slack.shared_bytes
    whole = [
        _placed(problem, plan, algorithm, algorithm.entries).shared_bytes
        for algorithm in (problem.keys, problem.values)
    ]
    share = min(1.0, budget / sum(whole))
    keys, values = (
        _placed(problem, plan, algorithm, int(share * algorithm.entries))
        for algorithm in (problem.keys, problem.values)
    )
    names = ("keys", "values")
    algorithms = (problem.keys, problem.values)
    rejected = tuple(
        Rejected(
            f"all {algorithm.entries} of {name}",
            f"books of both take {sum(whole)} bytes, more than the slack of {budget}: fewer blocks would fit an SM",
        )
        for name, algorithm, placed in zip(names, algorithms, (keys, values), strict=True)
        if placed.n_shared < algorithm.entries
    )
    return plan.decide(
        Decision(
            "n_registers",
            0,
            "hot entries of each table",
            {"slack_registers": plan.slack.registers},
            "nothing is profiled of a cache: no entry is hot"
            if plan.strategy.registers
            else "the level keeps no entries in registers",
            "V-B, Fig. 10",
        ),
        Decision(
            "n_shared",
            f"{keys.n_shared} of keys, {values.n_shared} of values",
            "slack_shared / bytes of a kv-head's books, at most all entries",
            {
                "slack_shared_bytes": budget,
                "key_books": keys.resident_tiles,
                "value_books": values.resident_tiles,
                "book_bytes": sum(whole),
            },
            f"{counted(keys.shared_bytes + values.shared_bytes, 'byte')} of them are cached",
            "V-B, Fig. 10",
            rejected,
        ),
        keys=keys,
        values=values,
    )


def _placed(problem: CacheProblem, plan: CachePlan, algorithm: Algorithm, entries: int) -> Placement:
    """The first `entries` of each table of a block's books, rounded to words; none of tables that end inside one.

    Books are a kv-head's, or those of the channel groups that a block of a cluster has.
    """
    held = copied_entries(algorithm, entries, whole_books=True)
    stages = algorithm.table_count
    book_bytes = -(-held * stages * algorithm.entry_stride // COPY_BYTES) * COPY_BYTES
    books = head_books(algorithm, problem.op.kv_heads, problem.op.head_dim)
    if isinstance(plan.tile, ClusterTile) and books > 1:
        books //= plan.tile.cluster
    return Placement((0,) * stages, held, books, book_bytes)
