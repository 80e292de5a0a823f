"""Markdown tables from a results file, for docs/performance.md; its tests hold the page against them.

    python bench/tables.py bench/results/h200/gemv-levels.json

Prints levels gc and sc (gemv-baseline.json), all levels (gemv-levels.json), level best (gemv-best.json), curves over m
(gemv-curves.json), random shapes (gemv-random.json), overlapping launches (gemv-overlap.json), candidates
(gemv-candidates.json), attention (attention-levels.json), gemm (gemm-best.json, gemm-levels.json) or resources
(resources.json).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

import numpy as np
from attention_tables import APPEND, ATTEND, attention_tables
from cliffs import Curve, cliffs
from gemm_tables import gemm_tables
from markdown import table_head, table_line, time_of
from program_tables import layer_table, operator_table
from ranking import summary

from vqcc.levels import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Row = dict[str, Any]

#: Of the resources, those of the level and shape that are shown kernel by kernel, for the first GPU of the file.
SHOWN_LEVEL, SHOWN_SHAPE = "o2", (11008, 4096)


def main() -> None:
    """Print the tables that the results are for."""
    for line in tables(json.loads(Path(sys.argv[1]).read_text())["rows"]):
        print(line)


def tables(rows: Sequence[Row]) -> Iterator[str]:
    """Lines of the tables, an empty one before each."""
    if rows[0].get("op") in (ATTEND, APPEND):
        yield from attention_tables(rows)
        return
    if rows[0].get("op") == "decoder_layer":
        yield from ("", *layer_table(rows))
        return
    if "compiled_call_us" in rows[0]:
        yield from ("", *operator_table(rows))
        return
    if rows[0].get("op") == "gemm":
        yield from gemm_tables(rows)
        return
    if "predicted_blocks" in rows[0]:
        yield from ("", *resources_by_level(rows), "", *resources_by_kernel(rows))
        return
    whole = _table_of_all(rows)
    if whole is not None:
        yield from ("", *whole(rows))
        return
    levels = {row["level"] for row in rows}
    make = best_table if levels == {"best"} else levels_table if levels - {"gc", "sc"} else baseline_table
    for m in sorted({row["m"] for row in rows}):
        yield from ("", *make([row for row in rows if row["m"] == m]))


def _table_of_all(rows: Sequence[Row]) -> Callable[[Sequence[Row]], Iterator[str]] | None:
    """What makes the one table of all rows, for results that have one; the others have one for each m."""
    if rows[0].get("codes") == "zipf":
        return hot_table
    if "estimated_us" in rows[0]:
        return candidates_table
    if "kind" in rows[0]:
        return curves_table
    if any("overlap" in row for row in rows):
        return overlap_table
    # Times of random shapes are held against no floor.
    return random_table if "floor_us" not in rows[0] else None


def baseline_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line per algorithm: microseconds of gc and sc, and the ratio to cuBLAS in the same run."""
    cells = {(row["algorithm"], row["level"], shape_of(row)): row for row in rows}
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    shapes = list(dict.fromkeys(map(shape_of, rows)))
    columns = [(level, shape) for level in ("gc", "sc") for shape in shapes]
    yield from table_head([f"m = {rows[0]['m']}", *(f"{level} {n} x {k}" for level, (n, k) in columns)])
    for algorithm in algorithms:
        yield table_line([algorithm, *(_with_ratio(cells.get((algorithm, *column))) for column in columns)])
    base = [cells[algorithms[0], "gc", shape]["baseline_us"] for _, shape in columns]
    yield table_line(["cuBLAS fp16", *(f"{us:.1f}" for us in base)])


def levels_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line per algorithm and shape: microseconds of each level and of cuBLAS, and two ratios of best."""
    heads = (f"m = {rows[0]['m']}", "n x k", *LEVELS, "cuBLAS fp16", "best against gc", "cuBLAS / best")
    yield from table_head(heads)
    cells = {(row["algorithm"], shape_of(row), row["level"]): row for row in rows}
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    shapes = list(dict.fromkeys(map(shape_of, rows)))
    for algorithm in algorithms:
        for n, k in shapes:
            of = {level: cells.get((algorithm, (n, k), level)) for level in LEVELS}
            times = [time_of(row) for row in of.values()]
            gc, best = of["gc"], of["best"]
            assert gc is not None
            assert best is not None
            blas = best["baseline_us"]
            ratios = (f"{best['us'] / gc['us'] - 1:+.0%}", f"{blas / best['us']:.2f}")
            yield table_line([algorithm, f"{n} x {k}", *times, f"{blas:.1f}", *ratios])


def hot_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line per kernel whose hot entries are in registers at o2: microseconds of o1, o2 and best."""
    yield from table_head(
        ("preset", "n x k", "m", "entries in registers at o2", "o1", "o2", "o2 / o1", "best")
    )
    cells = {(row["algorithm"], *shape_of(row), row["m"], row["level"]): row for row in rows}
    for (algorithm, n, k, m, level), row in cells.items():
        if level == "o2" and row["register_entries"]:
            o1, best = cells[algorithm, n, k, m, "o1"], cells[algorithm, n, k, m, "best"]
            ratio = f"{row['us'] / o1['us']:.2f}"
            yield table_line(
                [
                    algorithm,
                    f"{n} x {k}",
                    m,
                    row["register_entries"],
                    *map(time_of, (o1, row)),
                    ratio,
                    time_of(best),
                ]
            )


#: How a dataflow is marked in tables of level best; most rows are over fragments.
MARKS = {"decode": " d", "score": " s", "fragment": "", "bucket": " b", "warpgroup": " w", "dense": " m"}


def best_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line per algorithm: microseconds at each shape, the ratio to cuBLAS in the same run, the share of the floor."""
    shapes = list(dict.fromkeys(map(shape_of, rows)))
    cells = {(row["algorithm"], shape_of(row)): row for row in rows}
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    yield from table_head([f"best, m = {rows[0]['m']}", *(f"{n} x {k}" for n, k in shapes)])
    for algorithm in algorithms:
        own = [cells[algorithm, shape] for shape in shapes]
        yield table_line([algorithm, *map(_with_floor, own)])
    base = [cells[algorithms[0], shape]["baseline_us"] for shape in shapes]
    yield table_line(["cuBLAS fp16", *(f"{us:.1f}" for us in base)])


#: Of the curves, those m that are shown.
SHOWN_BATCHES = (1, 2, 4, 8, 16)


def curves_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line per algorithm and shape: a library for each m, its steps, and one library for all m against it."""
    heads = (
        "preset", "n x k", *(f"m = {m}" for m in SHOWN_BATCHES), "largest step", "cliffs", "dips",
        "one library / own, median", "worst", "its largest step", "its cliffs",
    )  # fmt: skip
    yield from table_head(heads)
    cells = {(row["algorithm"], shape_of(row), row["kind"], row["m"]): row for row in rows}
    curves = {(curve.algorithm, (curve.n, curve.k), curve.kind): curve for curve in cliffs(rows)}
    for algorithm, shape in dict.fromkeys((row["algorithm"], shape_of(row)) for row in rows):
        own, shared = (curves.get((algorithm, shape, kind)) for kind in ("own", "shared"))
        ratios = {
            m: cells[algorithm, shape, "shared", m]["us"] / row["us"]
            for (*of, m), row in cells.items()
            if of == [algorithm, shape, "own"] and (algorithm, shape, "shared", m) in cells
        }
        worst = max(ratios, key=lambda m: ratios[m], default=None)
        yield table_line(
            [
                algorithm, f"{shape[0]} x {shape[1]}",
                *(_with_ratio(cells.get((algorithm, shape, "own", m))) for m in SHOWN_BATCHES),
                _largest_step(own), _count(own, "cliffs"), _count(own, "dips"),
                "-" if worst is None else f"{median(ratios.values()):.2f}",
                "-" if worst is None else f"{ratios[worst]:.2f} (m = {worst})",
                _largest_step(shared), _count(shared, "cliffs"),
            ]
        )  # fmt: skip


def random_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line per algorithm and m: shapes drawn at random, against cuBLAS in the same run and against predictions."""
    heads = (
        "preset", "m", "shapes", "cuBLAS / best, median", "5 to 95 %", "worst", "at", "faster than cuBLAS",
        "predicted / measured, 5 to 95 %",
    )  # fmt: skip
    yield from table_head(heads)
    for algorithm, m in dict.fromkeys((row["algorithm"], row["m"]) for row in rows):
        own = [row for row in rows if (row["algorithm"], row["m"]) == (algorithm, m)]
        ratios = [row["baseline_us"] / row["us"] for row in own]
        worst = own[ratios.index(min(ratios))]
        yield table_line(
            [
                algorithm, m, len(own), f"{median(ratios):.2f}", _range(ratios), f"{min(ratios):.2f}",
                f"{worst['n']} x {worst['k']}", f"{sum(ratio > 1 for ratio in ratios) / len(own):.0%}",
                _range([row["predicted_us"] / row["us"] for row in own]),
            ]
        )  # fmt: skip


def overlap_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line per algorithm: microseconds of a launch alone, and of one that may start while that before it ends."""
    cells = {(row["algorithm"], shape_of(row), row.get("overlap", False)): row for row in rows}
    shapes = list(dict.fromkeys(map(shape_of, rows)))
    yield from table_head([f"m = {rows[0]['m']}", *(f"{n} x {k}" for n, k in shapes)])
    for algorithm in dict.fromkeys(row["algorithm"] for row in rows):
        pairs = [[cells[algorithm, shape, overlap] for overlap in (False, True)] for shape in shapes]
        yield table_line(
            [
                algorithm,
                *(
                    f"{time_of(alone)}, overlapping {time_of(after)} ({after['us'] / alone['us'] - 1:+.0%})"
                    for alone, after in pairs
                ),
            ]
        )


def candidates_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line per algorithm: how near the predicted times are, and the candidate of least predicted time to the best."""
    heads = (
        "algorithm", "problems", "candidates", "predicted / measured, 5 to 95 %", "chosen / best, median", "worst",
        "chosen within 10 % of best", "rank correlation",
    )  # fmt: skip
    yield from table_head(heads)
    for algorithm in (*dict.fromkeys(row["algorithm"] for row in rows), None):
        own = [row for row in rows if algorithm in {None, row["algorithm"]}]
        found = summary(own)
        yield table_line(
            [
                "all" if algorithm is None else algorithm, found.problems, len(own),
                f"{found.low:.2f} to {found.high:.2f}", f"{found.median:.2f}", f"{found.worst:.2f}",
                f"{found.near:.0%}", f"{found.correlation:.2f}",
            ]
        )  # fmt: skip


def resources_by_level(rows: Sequence[Row]) -> Iterator[str]:
    """A line per GPU and level: how many kernels have the blocks per SM that were predicted."""
    heads = (
        "GPU", "level", "kernels", "blocks as predicted", "more", "fewer", "spill", "planned again",
        "entries in registers", "entries left in global memory",
    )  # fmt: skip
    yield from table_head(heads)
    for gpu, level in dict.fromkeys((row["gpu"], row["level"]) for row in rows):
        own = [row for row in rows if (row["gpu"], row["level"]) == (gpu, level)]
        more = [row["compiled_blocks"] - row["predicted_blocks"] for row in own]
        cached = [row["register_entries"] + row["shared_entries"] for row in own]
        yield table_line(
            [
                gpu, level, len(own), more.count(0), sum(each > 0 for each in more), sum(each < 0 for each in more),
                sum(row["stack_bytes"] + row["spill_bytes"] > 0 for row in own),
                sum(row["replans"] > 0 for row in own), sum(row["register_entries"] > 0 for row in own),
                sum(row["table_entries"] > held for row, held in zip(own, cached, strict=True)),
            ]
        )  # fmt: skip


def resources_by_kernel(rows: Sequence[Row]) -> Iterator[str]:
    """A line per preset and m of one GPU, level and shape."""
    heads = (
        "preset", "m", "base registers", "slack registers", "slack shared", "entries shared", "compiled registers",
        "shared bytes", "blocks predicted", "blocks compiled",
    )  # fmt: skip
    yield from table_head(heads)
    for row in rows:
        if (row["gpu"], row["level"], shape_of(row)) == (rows[0]["gpu"], SHOWN_LEVEL, SHOWN_SHAPE):
            yield table_line(
                [
                    row["algorithm"], row["m"], row["base_registers"], row["slack_registers"],
                    row["slack_shared_bytes"], f"{row['shared_entries']} of {row['table_entries']}",
                    row["registers"], row["shared_bytes"], row["predicted_blocks"], row["compiled_blocks"],
                ]
            )  # fmt: skip


def shape_of(row: Row) -> tuple[int, int]:
    """The weight's [n, k]."""
    return row["n"], row["k"]


def _range(values: Sequence[float]) -> str:
    """Percentiles 5 and 95."""
    low, high = np.percentile(values, (5, 95))
    return f"{low:.2f} to {high:.2f}"


def _largest_step(curve: Curve | None) -> str:
    if curve is None:
        return "-"
    return f"{curve.largest.ratio:.2f} (m = {curve.largest.m} to {curve.largest.m + 1})"


def _count(curve: Curve | None, steps: str) -> str:
    return "-" if curve is None else str(len(getattr(curve, steps)))


def _with_ratio(row: Row | None) -> str:
    return "-" if row is None else f"{row['us']:.1f} ({row['baseline_us'] / row['us']:.2f})"


def _with_floor(row: Row) -> str:
    share = row["floor_us"] / row["us"]
    return f"{row['us']:.1f} ({row['baseline_us'] / row['us']:.2f}, {share:.0%}){MARKS[row['dataflow']]}"


if __name__ == "__main__":
    main()
