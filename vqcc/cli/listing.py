"""`vqcc list`: what a spec may name."""

from __future__ import annotations

from typing import Any

import click

from vqcc.cli.support import WordChoice, console, json_option, print_json, reports_errors

__all__ = ["command"]


@click.command("list")
@click.argument("what", type=WordChoice(["algorithms", "ops", "gpus", "levels"]))
@json_option
@reports_errors
def command(what: str, as_json: bool) -> None:
    """List the algorithms, ops, GPUs or levels that a spec may name."""
    rows = {"algorithms": _algorithms, "ops": _ops, "gpus": _gpus, "levels": _levels}[what]()
    if as_json:
        print_json({what: rows})
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in rows[0]:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(str(value) for value in row.values()))
    console().print(table)


def _algorithms() -> list[dict[str, Any]]:
    from vqcc.algorithms.presets import PARAMETRIC, named, resolve

    rows = []
    for name, member in {**{name: name for name in named()}, **PARAMETRIC}.items():
        algorithm = resolve(member)
        scope = _plain(algorithm.scope.spec())
        notation = algorithm.label
        if name in PARAMETRIC:
            notation = "VQ<X,Y,1>" if "X" in name else "VQ<x,y,z>"
            scope = scope.replace(str(algorithm.vector_size), "X")
        rows.append(
            {
                "preset": name,
                "notation": notation,
                "family": algorithm.family,
                "scope": scope,
                "scales": _plain(algorithm.scales.spec()),
            }
        )
    return rows


def _plain(value: str | dict[str, int]) -> str:
    if isinstance(value, str):
        return value
    if "channels" in value:
        return f"kv-head x {value['channels']} channels"
    return " x ".join(map(str, value.values()))


def _ops() -> list[dict[str, Any]]:
    from vqcc.ops import OPS

    return [
        {
            "op": name,
            "computes": (op.__doc__ or "").strip().splitlines()[0],
            "axes": ", ".join(op.axes),
            "reduce_axes": ", ".join(op.reduce_axes),
        }
        for name, op in OPS.items()
    ]


def _gpus() -> list[dict[str, Any]]:
    from vqcc import gpus

    rows = []
    for name in gpus.names():
        gpu = gpus.load(name)
        rows.append(
            {
                "gpu": name,
                "target": gpu.target,
                "sms": gpu.sm_count.integer,
                "shared_kib_per_block": gpu.shared_bytes_per_block.integer // 1024,
                "l2_mib": gpu.l2_bytes.integer >> 20,
                "dram_gb_per_second": round(gpu.dram_bytes_per_second.value / 1e9),
                "dram_figure": gpu.dram_bytes_per_second.confidence,
            }
        )
    return rows


def _levels() -> list[dict[str, Any]]:
    from vqcc.levels import LEVELS, STRATEGIES

    caching = {
        "global": "none",
        "all": "all, in shared memory",
        "slack": "as many as fit the slack, in shared memory",
    }
    rows = [
        {
            "level": level,
            "cached_entries": caching[strategy.caching] + " and registers" * strategy.registers,
            "split": "by codebook" if strategy.codebook_centric else "none",
            "fusion": strategy.fusion,
        }
        for level in LEVELS
        if (strategy := STRATEGIES.get(level)) is not None
    ]
    planned = "as predicted to be fastest"
    others = [level for level in LEVELS if level not in STRATEGIES]
    return rows + [
        {"level": level, "cached_entries": planned, "split": planned, "fusion": planned} for level in others
    ]
