"""Markdown tables of gemm from bench/results/*/gemm-best.json and gemm-levels.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markdown import table_head, table_line, time_of

from vqcc.levels import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Row = dict[str, Any]
#: What stands behind a time: the dataflow that level best took, if it is not a warpgroup's.
MARKS = {"warpgroup": "", "fragment": " f", "dense": " d", "decode": " -"}


def gemm_tables(rows: Sequence[Row]) -> Iterator[str]:
    """Level best by shape, an empty line before each; or several levels, one line for each problem."""
    if {row["level"] for row in rows} != {"best"}:
        yield from ("", *levels_table(rows))
        return
    for shape in dict.fromkeys((row["n"], row["k"]) for row in rows):
        yield from ("", *best_table([row for row in rows if (row["n"], row["k"]) == shape]))


def best_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each algorithm: microseconds by m, and in brackets the ratio to cuBLAS in the same run."""
    bounds = sorted({row["m"] for row in rows})
    yield from table_head([f"{rows[0]['n']} x {rows[0]['k']}", *(f"m = {m}" for m in bounds)])
    cells = {(row["algorithm"], row["m"]): row for row in rows}
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    for algorithm in algorithms:
        own = [cells.get((algorithm, m)) for m in bounds]
        yield table_line([algorithm, *("-" if row is None else _best(row) for row in own)])
    base = [cells[algorithms[0], m]["baseline_us"] for m in bounds]
    yield table_line(["cuBLAS fp16", *(f"{us:.1f}" for us in base)])


def levels_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each problem: microseconds of each level that was timed and of cuBLAS, and what best spares of gc."""
    levels = [level for level in LEVELS if any(row["level"] == level for row in rows)]
    yield from table_head(["", "n x k", "m", *levels, "cuBLAS fp16", "best against gc"])
    cells = {(row["algorithm"], row["n"], row["k"], row["m"], row["level"]): row for row in rows}
    for problem in dict.fromkeys(key[:-1] for key in cells):
        of = {level: cells.get((*problem, level)) for level in levels}
        gc, best = of.get("gc"), of.get("best")
        if gc is None or best is None:
            continue
        algorithm, n, k, m = problem
        spared = f"{best['us'] / gc['us'] - 1:+.0%}"
        times = [time_of(row) for row in of.values()]
        yield table_line([algorithm, f"{n} x {k}", m, *times, f"{best['baseline_us']:.1f}", spared])


def _best(row: Row) -> str:
    return f"{row['us']:.1f} ({row['baseline_us'] / row['us']:.2f}){MARKS[row['dataflow']]}"
