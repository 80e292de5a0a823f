"""Cost: the predicted time of a plan, from what its kernel moves, looks up and executes.

Counts follow from the plan, rates from the GPU's data file: together they say how long each resource is busy. Warps are
few and wait for one another's results, so these times overlap in part only: a share of each shows. What every launch
and every round of items costs comes on top. The prediction is there to rank plans of one problem.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from vqcc.code_layouts import PackedLayout
from vqcc.passes.hotness import covered, shares
from vqcc.passes.placement import cached_tables, part_tiles
from vqcc.passes.wavefronts import (
    WIDEST_LOAD,
    copied_wavefronts,
    lanes_per_phase,
    uniform_wavefronts,
    weighted_wavefronts,
)
from vqcc.plan import Decision

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.ops.base import Traffic
    from vqcc.plan import Placement, Plan
    from vqcc.problem import Problem

__all__ = ["ENGINES", "Counts", "EngineCost", "count", "plan_cost", "predict"]

WARP_SIZE = 32
LINE_BYTES = 128
SECTOR_BYTES = 32
#: Second-level bandwidth relative to DRAM's, until it is measured per GPU.
L2_PER_DRAM = 1.3
#: Share of issue slots that a kernel with look-ups in its inner loop fills at best.
ISSUE_EFFICIENCY = 0.7
#: Integer and bit operations that a sub-partition starts in a cycle, in warps: their pipe has half the lanes.
ALU_RATE = 0.5
#: Resources overlap, but not wholly: their times are summed in this power, a softened maximum.
POWER = 3


@dataclass(frozen=True)
class EngineCost:
    """How an engine's kernels behave: fitted to measured ones (docs/performance.md), not to a GPU.

    `start` seconds until the first item is under way. `weights` say how long a resource's busy time is felt, relative
    to itself. Warps of an engine with few of them wait for one another's results: `latency_warps` are as many as it
    takes to halve that. An SM fills `fill_bytes` of shared memory with entries in a cycle, and nothing overlaps it.
    """

    start: float
    latency_warps: float
    fill_bytes: float
    weights: Mapping[str, float]


_COMMON = {"dram": 1.5, "l2": 0.7, "gather": 1.0, "inputs": 2.1, "tensor": 1.0}
ENGINES: Mapping[str, EngineCost] = {
    "fma": EngineCost(2.2e-6, 0.0, 28, {**_COMMON, "shared": 1.1, "issue": 0.9, "alu": 0.7}),
    "mma": EngineCost(3.8e-6, 3.4, 40, {**_COMMON, "shared": 0.85, "issue": 0.75, "alu": 1.0}),
}
#: The GPU's numbers that times are made from.
RATES = (
    "sm_count",
    "boost_hertz",
    "dram_bytes_per_second",
    "tensor_flops_fp16",
    "sub_partitions",
    "l1_shared_bytes",
)
#: What each round of items costs: its last sums, and where they apply new books and the other parts of its rows.
ROUND_SECONDS, BOOKS_SECONDS, PARTS_SECONDS = 0.4e-6, 0.3e-6, 2e-6


@dataclass(frozen=True)
class Counts:
    """What a kernel does in all: bytes, wavefronts of the load/store pipe, warp instructions, tensor multiplies."""

    dram_bytes: float
    l2_bytes: float
    shared_wavefronts: float
    gather_wavefronts: float
    input_wavefronts: float
    instructions: float
    integer_instructions: float
    tensor_multiplies: float
    shuffles: float


def plan_cost(problem: Problem, plan: Plan) -> Plan:
    """Note the predicted time and what it is made of."""
    counts = count(problem, plan)
    parts = _times(problem, counts)
    weights = ENGINES[plan.exchange.engine].weights
    bound = max(parts, key=lambda name: weights[name] * parts[name])
    seconds = predict(problem, plan, counts)
    shown = {name: round(1e6 * value, 2) for name, value in parts.items()}
    figures = {name: round(value) for name, value in asdict(counts).items()}
    return plan.decide(
        Decision(
            "predicted_us",
            round(1e6 * seconds, 2),
            "launch + rounds + cube root of the sum of cubes of the resources' weighted times / balance",
            {**{f"{name}_us": value for name, value in shown.items()}, **figures},
            f"bound by {bound}",
            facts=RATES,
        ),
        predicted_us=round(1e6 * seconds, 2),
    )


def predict(problem: Problem, plan: Plan, counts: Counts) -> float:
    """Seconds of one launch."""
    assert plan.tile is not None
    times = _times(problem, counts)
    engine = ENGINES[plan.exchange.engine]
    powers = [(engine.weights[name] * seconds) ** POWER for name, seconds in times.items()]
    panels = problem.op.panels(plan.tile)  # of inputs, each of which is a pass over the weights
    busy = panels * float(sum(powers) ** (1 / POWER))
    rounds = -(-plan.tile.blocks * panels // (problem.gpu.sm_count.integer * _blocks_per_sm(plan)))
    switches = min(rounds, -(-_book_loads(problem, plan, 1) * panels // problem.gpu.sm_count.integer))
    latency = rounds * (ROUND_SECONDS + PARTS_SECONDS * (plan.split.factor > 1))
    blocks = min(_blocks_per_sm(plan), -(-plan.tile.blocks // problem.gpu.sm_count.integer))
    if _book_bytes(plan):
        assert plan.placement is not None
        rate = engine.fill_bytes if plan.placement.copies == 1 else engine.fill_bytes / 2
        filling = blocks * _book_bytes(plan) / rate / float(problem.gpu.boost_hertz.value)
        latency += switches * (BOOKS_SECONDS + filling)
    busy *= 1 + engine.latency_warps / (blocks * plan.tile.warps)
    return engine.start + latency + busy / _balance(problem, plan)


def _balance(problem: Problem, plan: Plan) -> float:
    """Items of the average SM over those of the busiest: the first blocks have one more, blocks go round the SMs."""
    assert plan.tile is not None
    items, sms = plan.tile.blocks * problem.op.panels(plan.tile), problem.gpu.sm_count.integer
    grid = min(items, sms * _blocks_per_sm(plan))
    blocks = -(-grid // sms)
    busiest = items // grid * blocks + -(-(items % grid) // sms)
    return items / sms / busiest


def _times(problem: Problem, counts: Counts) -> dict[str, float]:
    gpu = problem.gpu
    cycles = gpu.sm_count.integer * float(gpu.boost_hertz.value)
    dram = float(gpu.dram_bytes_per_second.value)
    return {
        "dram": counts.dram_bytes / dram,
        "l2": counts.l2_bytes / (L2_PER_DRAM * dram),
        "shared": counts.shared_wavefronts / cycles,
        "gather": counts.gather_wavefronts / cycles,
        "inputs": counts.input_wavefronts / cycles,
        "issue": counts.instructions / (gpu.sub_partitions.integer * ISSUE_EFFICIENCY * cycles),
        "alu": counts.integer_instructions / (gpu.sub_partitions.integer * ALU_RATE * cycles),
        "tensor": counts.tensor_multiplies * 2 * 16 * 8 * 16 / float(gpu.tensor_flops_fp16.value),
    }


def count(problem: Problem, plan: Plan) -> Counts:
    """Everything one launch does, at the variant's bounds."""
    assert isinstance(plan.layout, PackedLayout)
    assert plan.tile is not None
    assert plan.placement is not None
    algorithm = problem.algorithm
    n, k = problem.op.weight_shape
    vectors = n * (k // algorithm.vector_size)  # each is decoded once, by one lane
    lookups = vectors * algorithm.residuals
    exchanged = vectors if plan.exchange.engine == "fma" else lookups  # tensor cores take stages apart
    traffic = problem.op.traffic(problem.variant, plan.tile, plan.exchange, algorithm.vector_size)
    registers = plan.placement.n_registers
    in_registers = covered(problem, registers)
    in_shared = covered(problem, [max(plan.placement.n_shared, each) for each in registers])
    code_bytes = n * plan.layout.row_words * 4
    blocks = min(plan.tile.blocks, problem.gpu.sm_count.integer * _blocks_per_sm(plan))
    loaded = _book_loads(problem, plan, blocks) * _book_bytes(plan)
    partial = plan.tile.workspace_bytes
    gathers = _gather_wavefronts(problem, plan, 1 - in_shared) * lookups / WARP_SIZE
    missed = _l2_lookups(problem, plan) * lookups * (1 - in_shared)
    return Counts(
        dram_bytes=code_bytes + traffic.io_bytes + algorithm.stored_codebook_bytes(n, k),
        l2_bytes=code_bytes * plan.split.stages
        + loaded / plan.placement.copies
        + _input_loads(problem, plan, blocks, traffic) * traffic.input_bytes / plan.split.tiles
        + 2 * partial
        + missed * SECTOR_BYTES,
        shared_wavefronts=_shared_wavefronts(problem, plan, in_shared - in_registers) * lookups / WARP_SIZE
        + traffic.shared_wavefronts * exchanged / WARP_SIZE
        + loaded / LINE_BYTES,
        gather_wavefronts=gathers,
        input_wavefronts=traffic.global_wavefronts * vectors / WARP_SIZE
        + code_bytes * plan.split.stages / LINE_BYTES,
        instructions=_instructions(problem, plan, traffic, in_shared) * vectors / WARP_SIZE,
        integer_instructions=_integer_instructions(problem) * lookups / WARP_SIZE,
        tensor_multiplies=traffic.tensor_multiplies * algorithm.residuals * vectors / WARP_SIZE,
        shuffles=traffic.shuffles * exchanged / WARP_SIZE,
    )


def _instructions(problem: Problem, plan: Plan, traffic: Traffic, in_shared: float) -> float:
    """Instructions that a warp issues for each vector of its lanes."""
    algorithm = problem.algorithm
    assert plan.placement is not None
    loads = -(-algorithm.entry_stride // 16)
    lookup: float = 3 + loads + algorithm.decode_operations  # shift, mask, address
    lookup += 4 if algorithm.constant_entries else 0
    if 0 < in_shared < 1:
        lookup += 3 + loads  # both places are asked for
    held = sum(plan.placement.n_registers) / len(plan.placement.n_registers)
    lookup += held * (1 + algorithm.entry_words)
    if plan.exchange.engine == "fma":
        lookup += 1.5 * algorithm.vector_size  # taken apart, and to fp32
    stages = algorithm.residuals
    adds = (stages - 1) * algorithm.vector_size if plan.exchange.engine == "fma" else 0
    # A part of the stages still unpacks and walks whole chunks.
    overhead = plan.split.stages * traffic.step_instructions
    return stages * lookup + adds + overhead + traffic.instructions + stages * traffic.tensor_multiplies


def _integer_instructions(problem: Problem) -> float:
    """Integer and bit operations of one look-up: the code taken apart, the address, and most of what decodes it."""
    algorithm = problem.algorithm
    return 3 + 2 * (algorithm.constant_entries > 0) + 2 / 3 * algorithm.decode_operations


def _shared_wavefronts(problem: Problem, plan: Plan, share: float) -> float:
    """Wavefronts of one look-up of a warp, `share` of whose lanes find their entry in shared memory."""
    assert plan.placement is not None
    placement, stride = plan.placement, problem.algorithm.entry_stride
    if placement.n_shared == 0 or share <= 0:
        return 0.0
    constants = 0.0
    if problem.algorithm.constant_entries:
        constants = copied_wavefronts(problem.algorithm.constant_entries, stride, placement.copies)
    counts = placement.n_registers
    if len(set(counts)) == 1:  # registers hold entries of one book only
        return constants + _table_wavefronts(
            problem, placement, counts[0], share, books=_books_met(problem, plan)
        )
    tables = range(problem.algorithm.table_count)
    each = [_table_wavefronts(problem, placement, counts[t % len(counts)], None, table=t) for t in tables]
    return constants + sum(each) / len(each)


def _books_met(problem: Problem, plan: Plan) -> int:
    """Books that lanes meet whose loads go together: those of a row are in different column tiles if these are narrow.

    Lanes are in groups of a segment's lanes, one segment after the other; those of a group have neighbouring vectors.
    """
    assert isinstance(plan.layout, PackedLayout)
    _, tile_columns = problem.algorithm.scope.tile(*problem.op.weight_shape)
    size = problem.algorithm.vector_size
    lanes = min(plan.exchange.lanes, lanes_per_phase(min(problem.algorithm.entry_stride, WIDEST_LOAD)))
    group = min(lanes, plan.layout.lanes)
    by_groups = lanes // group * -(-group * size // tile_columns)
    in_all = -(-lanes * plan.layout.chunk_vectors * size // tile_columns)
    return max(1, min(by_groups, in_all, part_tiles(problem, plan)))


def _table_wavefronts(
    problem: Problem,
    placement: Placement,
    held: int,
    share: float | None,
    *,
    table: int | None = None,
    books: int = 1,
) -> float:
    """Wavefronts of one look-up of a table of which registers hold `held` entries.

    `share` of the lanes find their entry in shared memory; None: as many as look up the others of the shared ones.
    Lanes that meet different `books` share no words, and equally frequent entries of theirs lie in the same banks.
    """
    stride, cached = problem.algorithm.entry_stride, placement.n_shared - held
    if cached <= 0:
        return 0.0
    if placement.copies > 1:
        return copied_wavefronts(cached, stride, placement.copies)
    if not problem.profile:
        active = cached / problem.algorithm.table_entries if share is None else share
        return uniform_wavefronts(books * cached, stride, round(active, 6))
    return weighted_wavefronts(shares(problem, held, placement.n_shared, table), stride, books)


def _book_loads(problem: Problem, plan: Plan, blocks: int) -> int:
    """Times that some block fills its cache: at its start, and where its next item has other books."""
    assert plan.tile is not None
    assert plan.placement is not None
    bands, _ = problem.algorithm.scope.grid(*problem.op.weight_shape)
    phases = -(-part_tiles(problem, plan) // plan.placement.resident_tiles)
    return plan.tile.blocks * phases if phases > 1 else max(blocks, bands * plan.split.factor)


def _input_loads(problem: Problem, plan: Plan, blocks: int, traffic: Traffic) -> float:
    """Times that the inputs are read from the second-level cache.

    By each block, and what the first level cannot hold of them by each item.
    """
    assert plan.tile is not None
    room = _first_level_room(problem, plan)
    missed = max(0.0, 1 - room / (traffic.input_bytes / plan.split.tiles))
    return blocks + missed * (plan.tile.blocks - blocks)


def _first_level_room(problem: Problem, plan: Plan) -> float:
    """First-level cache of an SM that shared memory leaves, codes streaming through it."""
    assert plan.tile is not None
    pool = problem.gpu.l1_shared_bytes.integer
    used = _blocks_per_sm(plan) * (_book_bytes(plan) + plan.tile.shared_bytes)
    return max(pool - used, pool / 8) / 2


def _gather_wavefronts(problem: Problem, plan: Plan, share: float) -> float:
    """Cycles of the first-level cache for one look-up of a warp: one per line its lanes fall on."""
    if share <= 0:
        return 0.0
    assert plan.placement is not None
    stride = problem.algorithm.entry_stride
    entries = problem.algorithm.table_entries - plan.placement.n_shared
    lanes = WARP_SIZE * share
    lines = max(1.0, entries * stride * max(1, min(4, part_tiles(problem, plan))) / LINE_BYTES)
    constants = (
        problem.algorithm.constant_entries * stride / LINE_BYTES if plan.placement.n_shared == 0 else 0
    )
    distinct: float = lines * (1 - (1 - 1 / lines) ** lanes)
    return max(distinct, lanes * stride / LINE_BYTES) + constants


def _l2_lookups(problem: Problem, plan: Plan) -> float:
    """Share of the global look-ups that the first-level cache does not hold."""
    assert plan.placement is not None
    algorithm = problem.algorithm
    tables = cached_tables(problem, plan) * part_tiles(problem, plan)
    cold = tables * (algorithm.table_entries - plan.placement.n_shared) * algorithm.entry_stride
    return max(0.0, 1 - _first_level_room(problem, plan) / cold) if cold else 0.0


def _book_bytes(plan: Plan) -> int:
    assert plan.placement is not None
    return plan.placement.shared_bytes


def _blocks_per_sm(plan: Plan) -> int:
    """As compiled; before that as the launch bounds demand."""
    return plan.launch.blocks_per_sm if plan.launch is not None else plan.minimum_blocks
