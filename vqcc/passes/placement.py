"""Placement: which codebook entries live where (VQ-LLM, Sec. V-B).

Of each table, entries [0, n_registers) are in registers, as many as are hot in that table, [n_registers, n_shared) in
shared memory, the rest in global memory. The slack of the base kernel says how many fit; a spec may overrule that
(Sec. V-C).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, Finding, VqccError, raise_findings
from vqcc.gpus.model import MOST_SHARED_BYTES
from vqcc.passes.hotness import covered
from vqcc.plan import Decision, Placement, Rejected
from vqcc.problem import Boundaries
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vqcc.algorithms.base import Algorithm
    from vqcc.gpus.model import Gpu
    from vqcc.levels import Level
    from vqcc.plan import Plan
    from vqcc.problem import Problem

__all__ = [
    "COPY_BYTES",
    "cached_tables",
    "certain_placement",
    "check_placement",
    "copied_entries",
    "part_tiles",
    "place_all",
    "place_none",
    "place_slack",
]

#: Tables are copied to shared memory by words of this many bytes.
COPY_BYTES = 16
#: Bytes that the banks of shared memory give a warp at a time; narrower entries than a bank have no bank of their own.
BANK_BYTES, MIN_COPIED_BYTES = 128, 4
#: Shared memory that level sc leaves to the sums of a block's warps.
RESERVED_FOR_SUMS = 4096


def part_tiles(problem: Problem, plan: Plan) -> int:
    """Column tiles, and so books, that one part of a row meets."""
    _, column_tiles = problem.algorithm.scope.grid(*problem.op.weight_shape)
    return -(-column_tiles // plan.split.tiles)


def cached_tables(problem: Problem, plan: Plan) -> int:
    """Tables of one book that one part of a row looks up."""
    return 1 if problem.algorithm.table_count == 1 else problem.algorithm.residuals // plan.split.stages


def certain_placement(problem: Problem, plan: Plan) -> Placement:
    """What is cached whatever a kernel leaves: whole books where the strategy says so, else nothing.

    Raises VQ0403 if shared memory cannot hold one book that it must.
    """
    algorithm, tiles = problem.algorithm, part_tiles(problem, plan)
    none = (0,) * cached_tables(problem, plan)
    if plan.strategy.caching != "all":
        return Placement(none, 0, tiles, 0)
    raise_findings(check_placement(algorithm, problem.gpu, "sc"))
    book_bytes = _book_bytes(problem, plan, algorithm.table_entries)
    room = problem.gpu.shared_bytes_per_block.integer - RESERVED_FOR_SUMS
    return Placement(none, algorithm.table_entries, max(1, min(room // book_bytes, tiles)), book_bytes)


def place_none(problem: Problem, plan: Plan) -> Plan:
    """Nothing is cached: level gc, and the base kernel of the others."""
    placement = Placement((0,) * cached_tables(problem, plan), 0, part_tiles(problem, plan), 0)
    return plan.decide(
        Decision(
            "n_shared",
            0,
            "no entry is cached",
            {"entries": problem.algorithm.table_entries},
            "look-ups go to global memory through the first-level cache",
            "Table IV",
        ),
        placement=placement,
    )


def place_all(problem: Problem, plan: Plan) -> Plan:
    """Level sc: all entries of the books in use. Raises VQ0403 if shared memory cannot hold one book."""
    placement = certain_placement(problem, plan)
    return plan.decide(
        Decision(
            "n_shared",
            placement.n_shared,
            "every entry of the books in use is cached",
            {
                "book_bytes": placement.shared_book_bytes,
                "shared_bytes_per_block": problem.gpu.shared_bytes_per_block.integer,
            },
            f"{placement.resident_tiles} of {counted(part_tiles(problem, plan), 'book')} along a row are resident at a "
            f"time, {placement.shared_bytes} bytes",
            "Table IV",
            facts=("shared_bytes_per_block",),
        ),
        placement=placement,
    )


def place_slack(problem: Problem, plan: Plan, cut: int = 0) -> Plan:
    """As many entries as the slack holds, the hottest first (Sec. V-B); half as many registers for each `cut`.

    Raises VQ0406 for boundaries of the spec that the GPU cannot have.
    """
    assert plan.slack is not None
    assert plan.hotness is not None
    n_shared = _shared_entries(problem, plan, plan.slack.shared_bytes)
    if problem.boundaries.shared is not None:
        n_shared = _copied(problem, plan, problem.boundaries.shared)
    n_registers, registers_decision = _register_entries(problem, plan, n_shared, cut)
    if problem.boundaries != Boundaries():
        _check_boundaries(problem, plan, n_registers, n_shared)
    algorithm = problem.algorithm
    tables, tiles = cached_tables(problem, plan), part_tiles(problem, plan)
    in_registers = covered(problem, n_registers)
    in_shared = covered(problem, [max(n_shared, each) for each in n_registers])
    decision = Decision(
        "n_shared",
        n_shared,
        "slack_shared / (books * tables * entry_bytes), at most all entries"
        if problem.boundaries.shared is None
        else "the spec's cache.shared",
        {
            "slack_shared_bytes": plan.slack.shared_bytes,
            "books": tiles,
            "tables": tables,
            "entry_bytes": algorithm.entry_stride,
            "entries": algorithm.table_entries,
        },
        f"{in_shared - in_registers:.1%} of the look-ups go to shared memory, {1 - in_shared:.1%} to global memory",
        "V-B, Fig. 10",
        _against_all_shared(problem, plan, n_shared),
    )
    copies, copies_decisions = _copies(problem, plan, n_shared)
    return plan.decide(
        registers_decision,
        decision,
        *copies_decisions,
        placement=Placement(
            n_registers, n_shared, tiles, _book_bytes(problem, plan, n_shared, copies), copies
        ),
    )


def _against_all_shared(problem: Problem, plan: Plan, n_shared: int) -> tuple[Rejected, ...]:
    """Why not all entries are shared, if they are not."""
    entries = problem.algorithm.table_entries
    if n_shared == entries:
        return ()
    assert plan.slack is not None
    need, slack = part_tiles(problem, plan) * _book_bytes(problem, plan, entries), plan.slack.shared_bytes
    if need > slack:
        reason = f"they take {need} bytes, more than the slack of {slack}: fewer blocks would fit an SM"
    elif problem.boundaries.shared is not None:
        reason = f"the spec asks for fewer, though they take {need} bytes of a slack of {slack}"
    else:
        reason = f"a table of {problem.algorithm.stage_bytes} bytes cannot be copied by words of {COPY_BYTES}"
    return (Rejected(entries, reason),)


def _copies(problem: Problem, plan: Plan, n_shared: int) -> tuple[int, tuple[Decision, ...]]:
    """Copies of the shared entries, as far as the slack holds them and banks can tell them apart."""
    assert plan.slack is not None
    if plan.strategy.copies == 1:
        return 1, ()
    stride = problem.algorithm.entry_stride
    useful = BANK_BYTES // stride if n_shared and stride >= MIN_COPIED_BYTES else 1
    useful = min(useful, plan.strategy.copies)
    copies = 1
    while (
        2 * copies <= useful
        and part_tiles(problem, plan) * _book_bytes(problem, plan, n_shared, 2 * copies)
        <= plan.slack.shared_bytes
    ):
        copies *= 2
    if copies * stride % COPY_BYTES:
        copies = 1
    return copies, (
        Decision(
            "copies",
            copies,
            "largest power of two <= 128 / entry_bytes, and what the strategy asks for, whose copies the slack holds",
            {"entry_bytes": stride, "slack_shared_bytes": plan.slack.shared_bytes, "n_shared": n_shared},
            "lanes look up copies in turn: fewer of them meet in a bank of shared memory",
        ),
    )


def _shared_entries(problem: Problem, plan: Plan, budget: int) -> int:
    algorithm = problem.algorithm
    tiles = part_tiles(problem, plan)
    if tiles * _book_bytes(problem, plan, algorithm.table_entries) <= budget:
        return _copied(problem, plan, algorithm.table_entries)
    left = budget // tiles - algorithm.constant_entries * algorithm.entry_stride
    return _copied(problem, plan, max(0, left) // (cached_tables(problem, plan) * algorithm.entry_stride))


def _copied(problem: Problem, plan: Plan, entries: int) -> int:
    """What of `entries` can be copied; a split along the stages copies parts of books."""
    return copied_entries(problem.algorithm, entries, whole_books=plan.split.stages == 1)


def copied_entries(algorithm: Algorithm, entries: int, *, whole_books: bool) -> int:
    """At most `entries` of a table that can be copied by whole words: all, or a multiple of what a word holds.

    None of tables that end inside a word, unless whole books are copied.
    """
    ends_inside = algorithm.stage_bytes % COPY_BYTES != 0
    if entries >= algorithm.table_entries and (whole_books or not ends_inside):
        return algorithm.table_entries
    if ends_inside:
        return 0
    return entries - entries % max(1, COPY_BYTES // algorithm.entry_stride)


def _book_bytes(problem: Problem, plan: Plan, n_shared: int, copies: int = 1) -> int:
    """Shared memory of one book's cached entries, and of its constants if any entry is cached."""
    if n_shared == 0:
        return 0
    entries = cached_tables(problem, plan) * n_shared + problem.algorithm.constant_entries
    return -(-entries * copies * problem.algorithm.entry_stride // COPY_BYTES) * COPY_BYTES


def _register_entries(
    problem: Problem, plan: Plan, n_shared: int, cut: int
) -> tuple[tuple[int, ...], Decision]:
    """Hot entries of each table, as far as the slack's registers hold them: every thread keeps its own copies.

    They are the first of the shared ones, if any are.
    """
    assert plan.slack is not None
    algorithm, tables = problem.algorithm, cached_tables(problem, plan)
    most, words = n_shared or algorithm.table_entries, algorithm.entry_words
    hot = [min(each, most) for each in _hot_entries(problem, plan)]
    wanted = (0,) * tables
    if plan.strategy.registers and part_tiles(problem, plan) == 1:
        cap = max(cap for cap in range(max(hot) + 1) if words * _capped(hot, cap) <= plan.slack.registers)
        wanted = tuple(min(each, cap) >> cut for each in hot)
    formula = (
        "min(hot entries of the table, c, n_shared if any entry is shared), the largest c for which the sum over "
        "tables * entry_words <= slack_registers"
    )
    reason = _why_registers(problem, plan, hot, wanted, cut)
    if problem.boundaries.registers is not None:
        wanted = (min(problem.boundaries.registers, most),) * tables
        formula, reason = "the spec's cache.registers", "as the spec says"
    return wanted, Decision(
        "n_registers",
        wanted[0] if len(set(wanted)) == 1 else ", ".join(map(str, wanted)),
        formula,
        {
            "hot": ", ".join(map(str, hot)),
            "tables": tables,
            "entry_words": words,
            "slack_registers": plan.slack.registers,
        },
        reason,
        "V-B, Fig. 10",
    )


def _hot_entries(problem: Problem, plan: Plan) -> list[int]:
    """Hot entries of each table that a part looks up; of parts with other stages, what all of them have."""
    assert plan.hotness is not None
    tables = cached_tables(problem, plan)
    hot = [round(each) for each in plan.hotness.hot_by_table] or [0] * tables
    return [min(hot[table::tables]) for table in range(tables)]


def _capped(hot: Sequence[int], cap: int) -> int:
    return sum(min(each, cap) for each in hot)


def _why_registers(problem: Problem, plan: Plan, hot: Sequence[int], wanted: Sequence[int], cut: int) -> str:
    assert plan.slack is not None
    tiles = part_tiles(problem, plan)
    if not plan.strategy.registers:
        return "the level keeps no entries in registers"
    if tiles > 1:
        return f"a thread's look-ups go to {tiles} books: their entries would need as many registers"
    if not any(hot):
        return "no entry is hot: a register is worth more elsewhere"
    if plan.slack.registers < problem.algorithm.entry_words:
        return "no register is slack"
    held = (
        f"every thread holds {counted(sum(wanted), 'entry', 'entries')} of {counted(len(wanted), 'table')}, selected "
        "without indexing registers"
    )
    return f"{held}; fewer than the slack, which the compiled kernel overran" if cut else held


def _check_boundaries(problem: Problem, plan: Plan, n_registers: Sequence[int], n_shared: int) -> None:
    """Refuse boundaries that no block of this GPU can have."""
    assert plan.tile is not None
    tiles = part_tiles(problem, plan)
    need = tiles * _book_bytes(problem, plan, n_shared) + plan.tile.shared_bytes
    limit = problem.gpu.shared_bytes_per_block.integer
    if problem.boundaries.shared is not None and need > limit:
        raise VqccError(
            Diagnostic(
                "VQ0406",
                f"cache.shared: {n_shared} entries of {counted(tiles, 'book')} take {need} bytes with the sums of the "
                f"block; a block of {problem.gpu.name} has at most {limit}",
                help="lower cache.shared to "
                f"{_shared_entries(problem, plan, limit - plan.tile.shared_bytes)} or less, or leave it out: the slack "
                "then decides",
            )
        )
    words = sum(n_registers) * problem.algorithm.entry_words
    if words >= problem.gpu.registers_per_thread.integer:
        raise VqccError(
            Diagnostic(
                "VQ0406",
                f"cache.registers: {max(n_registers)} entries of {counted(len(n_registers), 'table')} take {words} "
                f"registers; a thread of {problem.gpu.name} has {problem.gpu.registers_per_thread.integer}",
                help="lower cache.registers, or leave it out: the slack then decides",
            )
        )
    if any(n_registers) and tiles > 1:
        raise VqccError(
            Diagnostic(
                "VQ0406",
                f"cache.registers: a thread's look-ups go to {tiles} books, registers hold entries of one",
                help="use cache.registers: 0, or an algorithm with scope: tensor",
            )
        )


def check_placement(algorithm: Algorithm, gpu: Gpu, level: Level) -> Iterator[Finding]:
    """Report what a level cannot have on a GPU: VQ0403."""
    limit = gpu.shared_bytes_per_block.integer
    wanted = algorithm.table_bytes + RESERVED_FOR_SUMS
    if level == "sc" and wanted > limit:
        larger = f"a GPU with at least {wanted} bytes of shared memory per block, or"
        yield Finding(
            ("level",),
            "VQ0403",
            f"level sc cannot hold a codebook of {algorithm.label} in shared memory on {gpu.name}: "
            f"it takes {algorithm.table_bytes} bytes, a block has at most {limit} and needs "
            f"{RESERVED_FOR_SUMS} for sums",
            f"use level: o1, which caches what fits, {larger if wanted <= MOST_SHARED_BYTES else 'or'} an algorithm "
            "with a smaller codebook",
        )
