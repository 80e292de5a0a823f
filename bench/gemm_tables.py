"""Markdown tables of gemm from bench/results/*/gemm-best.json and gemm-levels.json."""

from __future__ import annotations

from statistics import mean
from typing import TYPE_CHECKING, Any

from markdown import table_head, table_line, time_of

from vqcc.levels import LEVELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Row = dict[str, Any]
#: What stands behind a time: the dataflow that level best took, if it is not a warpgroup's.
ENDS = {"gc", "best"}
MARKS = {"warpgroup": "", "fragment": " f", "dense": " d", "decode": " -"}


def gemm_tables(rows: Sequence[Row]) -> Iterator[str]:
    """Level best by shape, an empty line before each; or several levels, problem by problem, and best against gc."""
    if {row["level"] for row in rows} != {"best"}:
        yield from ("", *levels_table(rows))
        yield from ("", *spared_table(rows))
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
    """A line for each problem of which more than gc and best was timed: microseconds of each level and of cuBLAS."""
    levels = [level for level in LEVELS if any(row["level"] == level for row in rows)]
    yield from table_head(["", "n x k", "m", *levels, "cuBLAS fp16"])
    for (algorithm, n, k, m), own in _by_problem(rows).items():
        if len(own) > len(ENDS):
            base = next(iter(own.values()))["baseline_us"]
            times = [time_of(own.get(level)) for level in levels]
            yield table_line([algorithm, f"{n} x {k}", m, *times, f"{base:.1f}"])


def spared_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each m: what best spares of gc's time, by algorithm the mean over shapes, and the least of all."""
    spared: dict[tuple[int, str], list[float]] = {}
    for (algorithm, _, _, m), own in _by_problem(rows).items():
        if own.keys() >= ENDS:
            spared.setdefault((m, algorithm), []).append(1 - own["best"]["us"] / own["gc"]["us"])
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    yield from table_head(["best against gc", *algorithms, "all", "least", "problems"])
    for m in sorted({m for m, _ in spared}):
        each = [spared.get((m, algorithm), []) for algorithm in algorithms]
        every = [value for values in each for value in values]
        means = [f"-{mean(values):.0%}" if values else "-" for values in (*each, every)]
        yield table_line([f"m = {m}", *means, f"-{min(every):.0%}", len(every)])


def _by_problem(rows: Sequence[Row]) -> dict[tuple[str, int, int, int], dict[str, Row]]:
    """Rows of each problem by their levels."""
    found: dict[tuple[str, int, int, int], dict[str, Row]] = {}
    for row in rows:
        found.setdefault((row["algorithm"], row["n"], row["k"], row["m"]), {})[row["level"]] = row
    return found


def _best(row: Row) -> str:
    return f"{row['us']:.1f} ({row['baseline_us'] / row['us']:.2f}){MARKS[row['dataflow']]}"
