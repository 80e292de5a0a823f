"""Plans as text: what `vqcc explain` and `vqcc compile --explain` print."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from vqcc.levels import DATAFLOW_WORDS
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["show_plans"]


def show_plans(plans: Mapping[str, Mapping[str, Any]]) -> None:
    """Print plan documents (vqcc.explaining) by GPU: every kernel's summary and decisions, then numbers to doubt."""
    for gpu, plan in plans.items():
        for kernel in plan["kernels"]:
            click.echo(f"{gpu}: {kernel['kernel']}, level {kernel['level']}")
            click.echo(f"  {'; '.join(_summary(kernel))}")
            for decision in kernel["decisions"]:
                _show_decision(decision)
        for fact in plan["uncalibrated"]:
            click.echo(
                f"{gpu}: uncalibrated: {fact['name']} = {_shown(fact['value'])} ({fact['confidence']}: "
                f"{fact['source']})"
            )


def _summary(kernel: Mapping[str, Any]) -> list[str]:
    """What a kernel came to, in a few words each."""
    return [
        *(_weight_parts(kernel) if "placement" in kernel else _cache_parts(kernel)),
        *_launch_parts(kernel),
    ]


def _cache_parts(kernel: Mapping[str, Any]) -> list[str]:
    """Of a kernel over a KV cache: its dataflow, and where entries are."""
    dataflow = kernel["strategy"]["dataflow"]
    if dataflow in DATAFLOW_WORDS:
        return [DATAFLOW_WORDS[dataflow]]
    exchange = kernel["exchange"]
    exchanged = [] if exchange["fusion"] == "none" else [f"values: {_fusion(exchange)}"]
    return [*(f"{side}: {_places(kernel[side])}" for side in ("keys", "values")), *exchanged]


def _fusion(exchange: Mapping[str, Any]) -> str:
    """How decoded elements reach the lanes that multiply them."""
    fusion = f"fusion {exchange['fusion']}"
    if exchange["shuffles"]:
        fusion += f" ({counted(exchange['shuffles'], 'shuffle')} in mini-warps of {exchange['mini_warp']})"
    return fusion


def _weight_parts(kernel: Mapping[str, Any]) -> list[str]:
    """Of a kernel over a quantized weight: its engine, where entries are, and the split."""
    exchange, split = kernel["exchange"], kernel["split"]
    if exchange["engine"] in DATAFLOW_WORDS:
        return [DATAFLOW_WORDS[exchange["engine"]]]
    factor = split["tiles"] * split["stages"]
    return [
        f"{exchange['engine']}, {_fusion(exchange)}",
        _places(kernel["placement"]),
        "no split"
        if factor == 1
        else f"split {factor} ways ({split['tiles']} of columns x {split['stages']} of stages)",
    ]


def _launch_parts(kernel: Mapping[str, Any]) -> list[str]:
    launch = kernel["launch"]
    parts = [
        f"{counted(launch['grid'], 'block')} of {launch['threads']} threads, {launch['blocks_per_sm']} per SM "
        f"({launch['limited_by']})"
    ]
    if launch["workspace_bytes"]:
        parts.append(f"{launch['workspace_bytes']:,} bytes of workspace")
    if kernel["predicted_us"] is not None:
        parts.append(f"{kernel['predicted_us']:.1f} us predicted")
    return parts


def _places(placement: Mapping[str, Any]) -> str:
    """Where the entries of each table are; of tables that differ in it, one after the other."""
    places = [_table_places(registers, placement["n_shared"]) for registers in placement["n_registers"]]
    if len(set(places)) == 1:
        return f"entries {places[0]}" if places[0] else "no entries cached"
    return f"entries by table: {' | '.join(each or 'none cached' for each in places)}"


def _table_places(registers: int, shared: int) -> str:
    places = [f"[0, {registers}) in registers"] if registers else []
    if shared > registers:
        places.append(f"[{registers}, {shared}) in shared memory")
    return ", ".join(places)


def _show_decision(decision: Mapping[str, Any]) -> None:
    section = f"  [{decision['section']}]" if decision["section"] else ""
    click.echo(f"  {decision['name']} = {_shown(decision['value'])}{section}")
    click.echo(f"      {decision['formula']}")
    if decision["inputs"]:
        inputs = ", ".join(f"{name} = {_shown(value)}" for name, value in decision["inputs"].items())
        click.echo(f"      with {inputs}")
    click.echo(f"      {decision['reason']}")
    for rejected in decision["rejected"]:
        click.echo(f"      instead of {rejected['value']}: {rejected['reason']}")


def _shown(value: object) -> str:
    """A number as people read it: no more digits than mean something."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)
