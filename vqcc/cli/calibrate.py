"""`vqcc calibrate`: the cost model's constants, measured on this machine's GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

import vqcc
from vqcc.cli.support import ANY_PATH, console, finish, json_option, reports_errors
from vqcc.diagnostics import ExitCode

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.calibration.measurements import Measurement
    from vqcc.codegen.toolchain import Toolchain
    from vqcc.gpus.model import Gpu
    from vqcc.runtime.device import Device

__all__ = ["command"]


@click.command("calibrate")
@click.option(
    "--gpu", "name", metavar="NAME", help="The GPU whose data file to start from; default: the one this is."
)
@click.option(
    "-o",
    "--output",
    type=ANY_PATH,
    help="Write the GPU's data file, measured.",
)
@json_option
@reports_errors
def command(name: str | None, output: Path | None, as_json: bool) -> None:
    """Measure constants of the cost model on this machine's GPU, once per GPU.

    Prints each beside what the GPU's data file says now. Takes a few seconds; nothing else should use the GPU.
    """
    from vqcc import gpus
    from vqcc.calibration.data_file import data_file
    from vqcc.codegen.toolchain import find
    from vqcc.runtime.device import open_device
    from vqcc.tensors.output import check_outputs, write_atomically

    if output is not None:
        check_outputs([output], ())
    named = None if name is None else gpus.load(name)
    toolchain = find("nvrtc")
    without = "`vqcc compile` takes the numbers of the GPU's data file as they are"
    with open_device(without=without) as device:
        gpu = _gpu(device, named)
        measured = _measure(device, gpu, toolchain)
        source = (
            f"measured by vqcc calibrate {vqcc.__version__} on {device.name[:100]}, driver {device.driver_release}, "
            f"CUDA {toolchain.identity.split()[1]}"
        )
        described = {"device": device.name, "target": device.target, "gpu": gpu.name, "source": source}
    rows = [_row(each, gpu) for each in measured]
    if not as_json:
        _show(rows, described)
    text = data_file(gpu, measured, source)
    if output is not None:
        write_atomically(output, text.encode())
    finish({**described, "facts": rows}, [], ExitCode.MISMATCH, as_json=as_json)


def _gpu(device: Device, named: Gpu | None) -> Gpu:
    """The GPU that the device is, or is said to be."""
    from vqcc import gpus
    from vqcc.calibration.data_file import check_named, matching_gpu

    capability = "{}.{}".format(*device.compute_capability)
    if named is not None:
        check_named(named, capability=capability, device_name=device.name)
        return named
    known = [gpus.load(each) for each in gpus.names()]
    return matching_gpu(known, capability=capability, sm_count=device.sm_count, device_name=device.name)


def _measure(device: Device, gpu: Gpu, toolchain: Toolchain) -> list[Measurement]:
    """All numbers, in the order of the data file."""
    from vqcc.calibration.measurements import summarize
    from vqcc.runtime.calibration import Benchmarks, calibration_source

    compiled = toolchain.compile(
        calibration_source(), target=device.target, want_ptx=False, file_name="calibrate.cu"
    )
    benchmarks = Benchmarks(device, compiled.cubin, gpu.sub_partitions.integer)
    found = {name: summarize(name, samples) for name, samples in benchmarks.samples()}
    return [found[name] for name in gpu.facts() if name in found]


def _row(measured: Measurement, gpu: Gpu) -> dict[str, Any]:
    given = gpu.facts()[measured.name]
    return {
        "name": measured.name,
        "value": measured.value,
        "low": measured.low,
        "high": measured.high,
        "given": given.value,
        "confidence": given.confidence,
    }


def _show(rows: list[dict[str, Any]], described: dict[str, str]) -> None:
    from rich.table import Table

    click.echo(f"{described['device']} ({described['target']}), as {described['gpu']}")
    table = Table("constant", "measured", "least", "most", "data file", "", box=None, pad_edge=False)
    for row in rows:
        numbers = (f"{row[key]:.4g}" for key in ("value", "low", "high", "given"))
        table.add_row(row["name"], *numbers, row["confidence"])
    console().print(table)
