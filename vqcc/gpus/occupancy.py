"""Blocks of a kernel that an SM holds at once, by the rules of NVIDIA's cuda_occupancy.h (CUDA 13)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vqcc.gpus.model import WARP_SIZE

if TYPE_CHECKING:
    from vqcc.gpus.model import Gpu

Limit = Literal["blocks", "warps", "registers", "shared"]
#: The GPU's numbers that resident blocks depend on.
OCCUPANCY_FACTS = (
    "threads_per_block",
    "blocks_per_sm",
    "warps_per_sm",
    "registers_per_thread",
    "registers_per_block",
    "registers_per_sm",
    "register_allocation_unit",
    "sub_partitions",
    "shared_bytes_per_block",
    "shared_bytes_per_sm",
    "shared_bytes_reserved",
    "shared_allocation_unit",
)


@dataclass(frozen=True)
class Occupancy:
    """Resident blocks per SM and what holds them down; 0 blocks means the kernel cannot be launched.

    `limited_by` is the first of blocks, warps, registers, shared that allows no more; `carveout_bytes` is the
    smallest shared-memory carve-out that still holds these blocks and leaves the rest to the L1 cache.
    """

    blocks: int
    limited_by: Limit
    carveout_bytes: int
    warps_per_block: int

    @property
    def warps(self) -> int:
        """Resident warps per SM."""
        return self.blocks * self.warps_per_block


def blocks_per_sm(gpu: Gpu, threads: int, registers_per_thread: int, shared_bytes: int) -> Occupancy:
    """Occupancy of a kernel with `threads` per block and `shared_bytes` of static plus dynamic shared memory.

    Shared memory past the default limit counts as opted in, and the carve-out as set to the largest.
    Raises ValueError for threads < 1 or negative resources.
    """
    if threads < 1 or registers_per_thread < 0 or shared_bytes < 0:
        raise ValueError("threads must be positive, registers and shared memory not negative")
    warps = -(-threads // WARP_SIZE)
    shared_per_block = _round_up(
        shared_bytes + gpu.shared_bytes_reserved.integer, gpu.shared_allocation_unit.integer
    )
    limits: dict[Limit, int] = {
        "blocks": gpu.blocks_per_sm.integer,
        "warps": 0 if threads > gpu.threads_per_block.integer else gpu.warps_per_sm.integer // warps,
        "registers": _by_registers(gpu, warps, registers_per_thread),
        "shared": _by_shared(gpu, shared_per_block),
    }
    blocks = min(limits.values())
    limited_by = next(limit for limit, allowed in limits.items() if allowed == blocks)
    need = blocks * shared_per_block
    carveout = next(size for size in gpu.shared_carveouts.value if size >= need)
    return Occupancy(blocks, limited_by, carveout, warps)


def carveout_percent(gpu: Gpu, occupancy: Occupancy) -> int:
    """What to ask the driver for as the carve-out, in percent of the SM's shared memory: 0 to 100.

    The driver takes the next larger of the sizes that there are. So `carveout_bytes` are rounded down: a percent more
    would take the size after it from the L1 cache; and up only where a percent less would be the size before it.
    """
    total = gpu.shared_bytes_per_sm.integer
    down = 100 * occupancy.carveout_bytes // total
    smaller = [size for size in gpu.shared_carveouts.value if size < occupancy.carveout_bytes]
    return down + 1 if smaller and down * total // 100 <= smaller[-1] else down


def _by_registers(gpu: Gpu, warps: int, registers_per_thread: int) -> int:
    if registers_per_thread > gpu.registers_per_thread.integer:
        return 0
    if registers_per_thread == 0:
        return gpu.blocks_per_sm.integer
    per_warp = _round_up(registers_per_thread * WARP_SIZE, gpu.register_allocation_unit.integer)
    parts = gpu.sub_partitions.integer
    # The hardware checks a launch as if the block's warps filled all sub-partitions evenly.
    if per_warp * _round_up(warps, parts) > gpu.registers_per_block.integer:
        return 0
    warps_per_part = gpu.registers_per_sm.integer // parts // per_warp
    return parts * warps_per_part // warps


def _by_shared(gpu: Gpu, shared_per_block: int) -> int:
    if shared_per_block > gpu.shared_bytes_per_block.integer + gpu.shared_bytes_reserved.integer:
        return 0
    if shared_per_block == 0:
        return gpu.blocks_per_sm.integer
    return gpu.shared_bytes_per_sm.integer // shared_per_block


def _round_up(value: int, unit: int) -> int:
    return -(-value // unit) * unit
