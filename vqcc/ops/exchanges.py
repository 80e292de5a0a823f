"""What an exchange of decoded elements takes of a warp, whatever the op: counted from device/exchange.cuh."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqcc.plan import Exchange

__all__ = ["exchange_instructions", "exchange_scratch_bytes", "exchange_wavefronts"]

WARP_SIZE, WORD_BYTES, WAVEFRONT_BYTES = 32, 4, 128


def exchange_instructions(exchange: Exchange, registers: int) -> float:
    """Selects and shuffles of an exchange through registers, loads and stores of one through shared memory."""
    if exchange.fusion == "register" and exchange.mini_warp > 1:
        return exchange.shuffles + 2 * registers * math.log2(exchange.mini_warp)
    if exchange.fusion == "shared":
        return registers + math.ceil(registers / 4) + 2
    return 0.0


def exchange_wavefronts(exchange: Exchange, registers: int) -> float:
    """Of shared memory, through which `registers` of a lane go once each way; none of an exchange through registers."""
    return 2 * exchange_scratch_bytes(exchange, registers) / WAVEFRONT_BYTES


def exchange_scratch_bytes(exchange: Exchange, registers: int) -> int:
    """Shared memory of a warp that exchanges `registers` of a lane at a time through it."""
    return WARP_SIZE * WORD_BYTES * registers if exchange.fusion == "shared" else 0
