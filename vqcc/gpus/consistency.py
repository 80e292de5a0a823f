"""Limits of a GPU that cannot all be true at once: a slip in a data file would plan every kernel wrongly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.gpus.model import Gpu

_WARP_SIZE = 32


@dataclass(frozen=True)
class Contradiction:
    """The field to look at, what does not fit, and what would."""

    field: str
    message: str
    help: str


def contradictions(gpu: Gpu) -> Iterator[Contradiction]:
    """All that does not fit together, in the order of the model's fields."""
    yield from _threads(gpu)
    yield from _registers(gpu)
    yield from _shared_memory(gpu)


def _threads(gpu: Gpu) -> Iterator[Contradiction]:
    threads, warps = gpu.threads_per_sm.integer, gpu.warps_per_sm.integer
    if threads != warps * _WARP_SIZE:
        yield Contradiction(
            "warps_per_sm",
            f"{warps} warps of {_WARP_SIZE} threads are not the {threads} of threads_per_sm",
            f"use warps_per_sm: {threads // _WARP_SIZE} or threads_per_sm: {warps * _WARP_SIZE}",
        )
    if gpu.threads_per_block.integer > threads:
        yield Contradiction(
            "threads_per_block", "a block has more threads than an SM holds", f"use at most {threads}"
        )


def _registers(gpu: Gpu) -> Iterator[Contradiction]:
    registers, parts = gpu.registers_per_sm.integer, gpu.sub_partitions.integer
    unit = gpu.register_allocation_unit.integer
    if gpu.registers_per_block.integer > registers:
        yield Contradiction(
            "registers_per_block", "a block has more registers than an SM", f"use at most {registers}"
        )
    if registers % (parts * unit):
        yield Contradiction(
            "registers_per_sm",
            f"{registers} registers are not a multiple of {parts} sub-partitions x {unit} (allocation unit)",
            f"use a multiple of {parts * unit}",
        )


def _shared_memory(gpu: Gpu) -> Iterator[Contradiction]:
    per_sm, per_block = gpu.shared_bytes_per_sm.integer, gpu.shared_bytes_per_block.integer
    default, reserved = gpu.shared_bytes_per_block_default.integer, gpu.shared_bytes_reserved.integer
    carveouts = gpu.shared_carveouts.value
    if per_block + reserved > per_sm:
        yield Contradiction(
            "shared_bytes_per_block",
            f"{per_block} bytes and the {reserved} reserved of each block exceed the SM's {per_sm}",
            f"use at most {per_sm - reserved}",
        )
    if default > per_block:
        yield Contradiction(
            "shared_bytes_per_block_default",
            f"{default} bytes without opting in are more than {per_block} with",
            f"use at most {per_block}",
        )
    if list(carveouts) != sorted(set(carveouts)) or carveouts[-1] != per_sm:
        yield Contradiction(
            "shared_carveouts",
            f"the sizes must ascend and end at shared_bytes_per_sm, {per_sm}",
            f"end the list with {per_sm}",
        )
    if gpu.l1_shared_bytes.integer < per_sm:
        yield Contradiction(
            "l1_shared_bytes", "the pool is smaller than its shared part", f"use at least {per_sm}"
        )
