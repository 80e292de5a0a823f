"""Markdown tables of attention from bench/results/*/attention-levels.json: by heads, and of kernels that append."""

from __future__ import annotations

from statistics import fmean, median
from typing import TYPE_CHECKING, Any

from markdown import table_head, table_line, time_of

from vqcc.levels import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Row = dict[str, Any]

ATTEND, APPEND = "attention_decode", "kv_append"


def attention_tables(rows: Sequence[Row]) -> Iterator[str]:
    """One for each pair of heads, an empty line before each, and one of appending; or one of rotated keys alone."""
    if all(row.get("rope", "none") != "none" for row in rows):
        yield from ("", *rotated_table(rows))
        return
    heads = sorted({heads_of(row) for row in rows}, reverse=True)
    for own in heads:
        yield from ("", *levels_table([row for row in rows if heads_of(row) == own and row["op"] == ATTEND]))
    appends = [row for row in rows if row["op"] == APPEND]
    if appends:
        yield from ("", *append_table(appends))


def levels_table(rows: Sequence[Row]) -> Iterator[str]:
    """Every level of every problem; of best how much faster than gc and than cuDNN, and what of its time bytes take."""
    (heads,) = {heads_of(row) for row in rows}
    yield from table_head(
        (
            f"{heads[0]}/{heads[1]}",
            "batch x context",
            *LEVELS,
            "cuDNN fp16",
            "flash fp16",
            "best against gc",
            "cuDNN / best",
            "floor / best",
        )
    )
    cells = {(*problem_of(row), row["level"]): row for row in rows if row["rope"] == "none"}
    for algorithm, batch, context in dict.fromkeys(map(problem_of, rows)):
        of = {level: cells.get((algorithm, batch, context, level)) for level in LEVELS}
        best = of["best"]
        if best is None:
            continue
        gc = of["gc"]
        yield table_line(
            (
                algorithm,
                f"{batch} x {context}",
                *(time_of(row) for row in of.values()),
                f"{best['baseline_us']:.1f}",
                f"{best['flash_fp16_us']:.1f}" if "flash_fp16_us" in best else "-",
                "-" if gc is None else f"{best['us'] / gc['us'] - 1:+.0%}",
                f"{best['baseline_us'] / best['us']:.2f}",
                f"{best['floor_us'] / best['us']:.0%}",
            )
        )


def rotated_table(rows: Sequence[Row]) -> Iterator[str]:
    """Of every problem the algorithms' times, and how many times as fast as cuDNN's attention they are."""
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    ratios = (f"cuDNN / {algorithm}" for algorithm in algorithms)
    yield from table_head(("rotated keys", "batch x context", *algorithms, "cuDNN fp16", *ratios))
    cells = {(heads_of(row), *problem_of(row)[1:], row["algorithm"]): row for row in rows}
    for heads, batch, context in dict.fromkeys(key[:3] for key in cells):
        own = [cells.get((heads, batch, context, algorithm)) for algorithm in algorithms]
        baseline = next(row["baseline_us"] for row in own if row is not None)
        yield table_line(
            (
                f"{heads[0]}/{heads[1]}",
                f"{batch} x {context}",
                *(time_of(row) for row in own),
                f"{baseline:.1f}",
                *("-" if row is None else f"{row['baseline_us'] / row['us']:.2f}" for row in own),
            )
        )


def append_table(rows: Sequence[Row]) -> Iterator[str]:
    """A token of each sequence, by algorithm and heads; of several contexts the median."""
    batches = sorted({row["batch"] for row in rows})
    yield from table_head(("append one token", "heads", *(f"batch {batch}" for batch in batches)))
    for algorithm, heads in dict.fromkeys((row["algorithm"], heads_of(row)) for row in rows):
        times = [
            sorted(
                row["us"]
                for row in rows
                if (row["algorithm"], heads_of(row), row["batch"]) == (algorithm, heads, batch)
            )
            for batch in batches
        ]
        yield table_line(
            (
                algorithm,
                f"{heads[0]}/{heads[1]}",
                *(f"{own[len(own) // 2]:.2f}" if own else "-" for own in times),
            )
        )


def heads_of(row: Row) -> tuple[int, int]:
    """Heads of queries and of the cache."""
    return row["q_heads"], row["kv_heads"]


def problem_of(row: Row) -> tuple[str, int, int]:
    """Algorithm, batch and context."""
    return row["algorithm"], row["batch"], row["context"]


def attended(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    """What docs/performance.md says of all problems together: level best beside gc, and beside cuDNN."""
    plain = {
        (*heads_of(row), *problem_of(row), row["level"]): row
        for row in rows
        if row["op"] == ATTEND and row["rope"] == "none"
    }
    best = {key[:-1]: row for key, row in plain.items() if key[-1] == "best"}
    spared = [1 - row["us"] / plain[*key, "gc"]["us"] for key, row in best.items() if (*key, "gc") in plain]
    faster = [row["baseline_us"] / row["us"] for row in best.values()]
    yield (
        "attention against gc",
        f"Level best takes {fmean(spared):.0%} less time than gc on average over {len(spared)} problems, "
        f"{min(spared):.0%} in the least.",
    )
    yield (
        "attention against cuDNN",
        f"It is {median(faster):.2f} times as fast as cuDNN's fp16 attention in the median of {len(faster)} problems, "
        f"{min(faster):.2f} to {max(faster):.2f} times.",
    )
