"""What the gemv kernel moves and executes beside looking entries up, counted from its inner loops."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from vqcc.ops.base import Traffic
from vqcc.ops.exchanges import exchange_instructions, exchange_wavefronts

if TYPE_CHECKING:
    from vqcc.ops.base import Variant
    from vqcc.ops.linear.tile import LinearTile
    from vqcc.plan import Exchange

__all__ = ["count_traffic"]

ELEMENT_BYTES = 2
LINE_BYTES = 128
#: Instructions of a step that are not per row: loop, addresses of x and of chunks.
STEP_INSTRUCTIONS = 10
#: Rows of W that one multiply takes.
GROUP_ROWS = 8


def count_traffic(
    shape: tuple[int, int], variant: Variant, tile: LinearTile, exchange: Exchange, vector_size: int
) -> Traffic:
    """Per vector of a lane; `shape` is W's [n, k]."""
    n, k = shape
    batch = variant.sizes["m"]
    count = _tensor_traffic if exchange.engine == "mma" else _scalar_traffic
    global_wavefronts, shared_wavefronts, instructions, step, multiplies = count(
        batch, tile, exchange, vector_size
    )
    registers = vector_size // 2 if exchange.engine == "mma" else vector_size
    return Traffic(
        io_bytes=ELEMENT_BYTES * batch * (n + k),
        input_bytes=ELEMENT_BYTES * batch * k,
        global_wavefronts=global_wavefronts,
        shared_wavefronts=shared_wavefronts,
        shuffles=exchange.shuffles,
        instructions=instructions + exchange_instructions(exchange, registers),
        step_instructions=step,
        tensor_multiplies=multiplies,
    )


def _scalar_traffic(
    batch: int, tile: LinearTile, exchange: Exchange, vector_size: int
) -> tuple[float, float, float, float, float]:
    """Multiply-adds on the CUDA cores: rows of a warp share loaded and converted activations."""
    rows = tile.rows_per_warp
    vector_lines = 32 * vector_size * ELEMENT_BYTES / LINE_BYTES
    exchanged = exchange.fusion in {"register", "shared"}
    loads = vector_size if exchanged else max(1, vector_size * ELEMENT_BYTES / 16)
    lines = vector_size if exchanged else vector_lines
    # A vector goes through shared memory once each way, 128 bytes a wavefront.
    shared = exchange_wavefronts(exchange, vector_size)
    per_batch = batch * (loads + vector_size) / rows
    return (
        batch * lines / rows,
        shared,
        batch * vector_size + per_batch,
        STEP_INSTRUCTIONS / rows + 2,
        0.0,
    )


def _tensor_traffic(
    batch: int, tile: LinearTile, exchange: Exchange, vector_size: int
) -> tuple[float, float, float, float, float]:
    """Multiplies on tensor cores: groups of eight rows share loaded activations, four lanes a row."""
    groups = tile.rows_per_warp // GROUP_ROWS
    pairs = vector_size // 2
    halves = -(-batch // GROUP_ROWS)  # of the sixteen rows of x of each multiply
    tiles = -(-halves // 2)
    exchanged = exchange.fusion in {"register", "shared"} and pairs > 1
    loads = halves * (pairs if exchanged else math.ceil(vector_size * ELEMENT_BYTES / 16))
    # A load meets a line for each row of x.
    lines = batch * (pairs if exchanged else 1)
    shared = exchange_wavefronts(exchange, pairs)
    return (
        lines / groups,
        shared,
        2 * loads / groups,
        STEP_INSTRUCTIONS / groups + 2,
        tiles * max(0.5, pairs / 2),
    )
