"""What micro-benchmarks' cycles and seconds say of a GPU: samples of its numbers, and one value for each."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, ExitCode, VqccError
from vqcc.gpus.model import RANGES

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["DIGITS", "Elapsed", "Measurement", "difference", "per_sub_partition", "summarize"]

#: Digits that a measured rate is written with: repetitions differ in the third.
DIGITS = 3


@dataclass(frozen=True)
class Elapsed:
    """How long a block ran, by the clock of its SM and by that of the device."""

    cycles: int
    nanoseconds: int

    @property
    def hertz(self) -> float:
        """The SM's clock, in cycles a second; 0 if no time was seen to pass."""
        return 1e9 * self.cycles / self.nanoseconds if self.nanoseconds > 0 else 0.0


@dataclass(frozen=True)
class Measurement:
    """One number of a GPU, in the unit of its field: the median of its samples, the least and the most of them."""

    name: str
    value: int | float
    low: float
    high: float

    @property
    def spread(self) -> float:
        """How far apart the samples are, relative to the value."""
        return (self.high - self.low) / self.value


def summarize(name: str, samples: Sequence[float]) -> Measurement:
    """The median of samples of the field `name`, whole or to DIGITS digits.

    No instruction takes less than the least that its field can be, so that a median below it is the clock's error.
    Raises VqccError: VQ0409, exit code 4, for what is no value of the field.
    """
    low, high = RANGES[name]
    median = statistics.median(samples)
    if name.endswith("_cycles") and 0.9 * low < median < low:
        median = low
    if not all(map(math.isfinite, samples)) or not low <= median <= high:
        message = f"{name} was measured as {median:.4g}, where {low:g} to {high:g} can be"
        help_text = (
            "close whatever else uses the GPU and try again; if it stays so, report it with `vqcc doctor`"
        )
        raise VqccError(Diagnostic("VQ0409", message, help=help_text), exit_code=ExitCode.MISMATCH)
    value: int | float = round(median) if isinstance(low, int) else float(f"{median:.{DIGITS}g}")
    return Measurement(name, value, min(samples), max(samples))


def difference(few: Sequence[float], many: Sequence[float], more: int) -> list[float]:
    """Seconds of one piece of work, from those of runs and of runs with `more` pieces: what both take cancels out."""
    base = statistics.median(few)
    return [(seconds - base) / more for seconds in many]


def per_sub_partition(cycles: float, warps: int, instructions: int, sub_partitions: int) -> float:
    """Cycles of an instruction, of which each of a block's `warps` did so many: warps are dealt to sub-partitions."""
    return cycles * sub_partitions / (warps * instructions)
