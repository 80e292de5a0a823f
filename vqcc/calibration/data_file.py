"""The data file of a calibrated GPU: which known GPU a device is, and its file with the measured numbers put in."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from vqcc import gpus
from vqcc.diagnostics import Diagnostic, DiagnosticList, ExitCode, VqccError
from vqcc.gpus.device_names import names_gpu

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from vqcc.calibration.measurements import Measurement
    from vqcc.gpus.model import Gpu

__all__ = ["check_named", "data_file", "matching_gpu"]


def matching_gpu(known: Iterable[Gpu], *, capability: str, sm_count: int, device_name: str) -> Gpu:
    """The known GPU that a device of this compute capability ("9.0") and SM count is.

    Where several agree in both, the one that the device's name names. Raises VqccError: VQ0407, exit code 1, if
    that leaves none or more than one.
    """
    alike = [gpu for gpu in known if gpu.compute_capability == capability]
    found = [gpu for gpu in alike if gpu.sm_count.integer == sm_count]
    if len(found) > 1:
        found = [gpu for gpu in found if names_gpu(device_name, gpu.name)] or found
    if len(found) == 1:
        return found[0]
    names = [gpu.name for gpu in found or alike]
    message = f"{device_name}, with compute capability {capability} and {sm_count} SMs, is "
    message += f"one of {', '.join(names)}" if found else "no GPU that vqcc has a data file of"
    help_text = (
        f"name the one whose other numbers hold for it: {' or '.join(f'--gpu {name}' for name in names)}"
        if names
        else f"write a data file for compute capability {capability} first (docs/gpus.md)"
    )
    raise VqccError(Diagnostic("VQ0407", message, help=help_text))


def check_named(gpu: Gpu, *, capability: str, device_name: str) -> None:
    """Refuse to measure one architecture for another. Raises VqccError: VQ0408, exit code 5."""
    if gpu.compute_capability == capability:
        return
    message = f"{gpu.name} has compute capability {gpu.compute_capability}; this device is {device_name}, {capability}"
    help_text = "name a GPU of the device's compute capability, or none"
    raise VqccError(Diagnostic("VQ0408", message, help=help_text), exit_code=ExitCode.NO_DEVICE)


def data_file(gpu: Gpu, measured: Sequence[Measurement], source: str) -> str:
    """The YAML text of a known GPU's data file with measured numbers and their `source` in place of its own.

    All else stays to the letter. Raises VqccError: VQ0204 or VQ0402 for numbers that the file cannot have.
    """
    text = gpus.data_file_text(gpu.name)
    for each in measured:
        line = f"{each.name}: {{value: {number(each.value)}, source: {json.dumps(source)}, confidence: measured}}"
        (old,) = re.findall(
            rf"^{each.name}: .*$", text, flags=re.MULTILINE
        )  # a data file has a line for each
        text = text.replace(old, line)
    _check(text, f"{gpu.name}.yaml")
    return text


def number(value: int | float) -> str:
    """A number as data files have it: 132, 44.0, 4.6e12, 1.0e-6. A point makes it a rate and no count."""
    if isinstance(value, int):
        return str(value)
    if 0.01 <= abs(value) < 1e5:
        return repr(value)
    mantissa, _, exponent = f"{value:.6e}".partition("e")
    digits = mantissa.rstrip("0")
    return f"{digits}{'0' * digits.endswith('.')}e{int(exponent)}"


def _check(text: str, name: str) -> None:
    """Read the file as vqcc will."""
    from vqcc.gpus.loading import gpu_at
    from vqcc.spec.source import parse_source

    source = parse_source(text.encode(), name)
    found = gpu_at(source, source.data)
    if isinstance(found, DiagnosticList):
        raise VqccError(*found)
