"""Markdown tables of what programs run: bench/results/*/engine-layer.json and torch-op.json."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from markdown import table_head, table_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

Row = dict[str, Any]


def layer_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each spec and batch: microseconds of a decoder layer by context, and times as fast as fp16."""
    contexts = sorted({row["context"] for row in rows})
    yield from table_head(["", "batch", *(f"context {context}" for context in contexts)])
    cells = {(row["spec"], row["batch"], row["context"]): row for row in rows}
    for spec, batch in dict.fromkeys((row["spec"], row["batch"]) for row in rows):
        own = [cells.get((spec, batch, context)) for context in contexts]
        yield table_line([spec, batch, *("-" if row is None else _layer(row) for row in own)])


def _layer(row: Row) -> str:
    ratio = f" ({row['baseline_us'] / row['us']:.2f})" if "baseline_us" in row else ""
    return f"{row['us']:.1f}{ratio}"


def operator_table(rows: Sequence[Row]) -> Iterator[str]:
    """A line for each linear library and m: microseconds of a launch in a CUDA graph, and of the calls from Python."""
    calls = ["in a graph", "eager call", "compiled call", "call in fp16"]
    yield from table_head(["", "n x k", "m", *calls])
    for row in (row for row in rows if row["op"] == "linear"):
        times = [row["graph_us"], row["call_us"], row["compiled_call_us"], row["dense_call_us"]]
        shape = f"{row['n']} x {row['k']}"
        yield table_line([row["algorithm"], shape, row["m"], *(f"{us:.1f}" for us in times)])
