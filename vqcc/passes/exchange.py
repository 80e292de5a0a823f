"""Exchange: how decoded elements reach the threads that multiply them (VQ-LLM, Sec. VI-B, Algorithm 1).

A layout says which thread and register hold a column. A thread dequantizes `vector_size` columns, an engine wants
`width` from each; Algorithm 1 finds mini-warps, groups of threads that need nothing but what they dequantize
themselves once the vectors are dealt to them right. Inside a mini-warp xor-shuffles bring every element home.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vqcc.code_layouts import PackedLayout
from vqcc.plan import Decision, Exchange, Rejected
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vqcc.ops.base import ComputeLayout
    from vqcc.plan import Plan
    from vqcc.problem import Problem

__all__ = [
    "MiniWarp",
    "ThreadLayout",
    "ThreadMapping",
    "choose_exchange",
    "choose_fusion",
    "find_mini_warps",
    "map_threads",
    "plan_exchange",
    "shuffle_count",
]

#: Elements that one shuffle moves: tensor cores take pairs of 16 bits, multiply-adds single ones of 32.
ELEMENTS_PER_REGISTER: Mapping[str, int] = {"fma": 1, "mma": 2}


@dataclass(frozen=True)
class ThreadLayout:
    """Columns of a row over threads: `width` to the first of `lanes` threads, `width` to the next, and round again."""

    width: int
    lanes: int

    @property
    def period(self) -> int:
        """Columns after which the first thread is reached again."""
        return self.width * self.lanes

    def thread_of(self, column: int) -> int:
        """The thread that holds a column, 0 to lanes - 1."""
        return column // self.width % self.lanes

    def register_of(self, column: int) -> int:
        """The element of its thread that a column is."""
        return column // self.period * self.width + column % self.width

    def column_of(self, thread: int, register: int) -> int:
        """The column that an element of a thread is: the inverse of the two above."""
        return (register // self.width * self.lanes + thread) * self.width + register % self.width


@dataclass(frozen=True)
class MiniWarp:
    """Threads that need the same vectors, and which vector each of them dequantizes.

    Vectors are named by the threads that would dequantize them in sequence: threads[i] takes over vectors[i].
    """

    threads: tuple[int, ...]
    vectors: tuple[int, ...]

    @property
    def is_closed(self) -> bool:
        """Whether xor-shuffles can do the exchange: a vector per thread, threads that differ in their low bits."""
        size = len(self.threads)
        first = self.threads[0]
        return (
            len(self.vectors) == size
            and size & (size - 1) == 0
            and first % size == 0
            and self.threads == tuple(range(first, first + size))
        )


@dataclass(frozen=True)
class ThreadMapping:
    """Algorithm 1's answer for rows: `size` threads a mini-warp, and the vector that each thread dequantizes.

    `run` columns, a vector or as many whole vectors as the engine wants of a thread, are dequantized at a time.
    """

    compute: ThreadLayout
    run: int
    mini_warps: tuple[MiniWarp, ...]

    @property
    def size(self) -> int:
        """Threads of a mini-warp."""
        return len(self.mini_warps[0].threads)

    @property
    def vector_of_thread(self) -> tuple[int, ...]:
        """Of one period of vectors, the one that each thread dequantizes."""
        taken = {
            thread: vector
            for group in self.mini_warps
            for thread, vector in zip(group.threads, group.vectors, strict=True)
        }
        return tuple(taken[thread] for thread in range(self.compute.lanes))

    def shuffles(self, elements_per_register: int = 1) -> int:
        """xor-shuffles that a thread issues for each vector: its registers for every other thread."""
        return (self.size - 1) * -(-self.run // self.size // elements_per_register)


def find_mini_warps(elements: Iterable[tuple[int, int]]) -> tuple[MiniWarp, ...]:
    """Algorithm 1, lines 4 to 11, from the threads that (dequantize, multiply) each element, in any order of threads.

    Threads whose vectors the same threads need form a mini-warp; those threads take over their work.
    """
    needed_by: dict[int, dict[int, None]] = {}
    for dequantize, compute in elements:
        needed_by.setdefault(dequantize, {})[compute] = None
    groups: dict[tuple[int, ...], list[int]] = {}
    for dequantize in sorted(needed_by):
        groups.setdefault(tuple(sorted(needed_by[dequantize])), []).append(dequantize)
    return tuple(MiniWarp(threads, tuple(vectors)) for threads, vectors in groups.items())


def map_threads(dequantize: ThreadLayout, compute: ThreadLayout) -> ThreadMapping | None:
    """Algorithm 1 over one period of columns; None if no mini-warps confine the exchange.

    Vectors narrower than what the engine wants of a thread are dequantized several at a time. Raises ValueError
    for layouts over different numbers of threads.
    """
    if dequantize.lanes != compute.lanes:
        raise ValueError(f"layouts over {dequantize.lanes} and {compute.lanes} threads")
    run = math.lcm(dequantize.width, compute.width)
    if run != max(dequantize.width, compute.width):
        return None
    dealt = ThreadLayout(run, dequantize.lanes)
    groups = find_mini_warps((dealt.thread_of(c), compute.thread_of(c)) for c in range(dealt.period))
    sizes = {len(group.threads) for group in groups}
    # Every thread of a mini-warp gets as much of a vector as every other, or one shuffle could not serve all.
    even = all(run % (size * compute.width) == 0 for size in sizes)
    if len(sizes) > 1 or not even or not all(group.is_closed for group in groups):
        return None
    return ThreadMapping(compute, run, groups)


def shuffle_count(source_width: int, target_width: int) -> int:
    """Table V's number of shuffles: parts of a vector that other threads need; 0 if it is no wider than wanted."""
    return max(0, -(-source_width // target_width) - 1)


def choose_fusion(shuffles: int, shared_roundtrip_per_shuffle: float) -> Literal["register", "shared"]:
    """Exchange through registers while that costs less than a round trip to shared memory, in shuffles."""
    return "register" if shuffles < shared_roundtrip_per_shuffle else "shared"


def plan_exchange(problem: Problem, plan: Plan) -> Plan:
    """Choose engine, layout and the way there, as far as the level's strategy lets it."""
    vector_size = problem.algorithm.vector_size
    if plan.strategy.fusion == "none" and problem.op.staged(problem.variant):
        return _plan_staged(problem, plan)
    if plan.strategy.fusion == "none":
        return plan.decide(
            Decision(
                "fusion",
                "none",
                "the level does not fuse",
                {"vector_size": vector_size},
                "the sum over a row may run in any order, so a thread multiplies what it decodes; no element moves",
                "VI-B",
            ),
            exchange=Exchange(),
        )
    aligned = plan.strategy.fusion == "aligned"
    exact = _fits_tensor_cores(problem, plan)
    compute = problem.op.compute_layout(
        problem.variant, vector_size=vector_size, exact=exact, aligned=aligned
    )
    if aligned:
        return _plan_aligned(plan, vector_size, compute)
    exchange, decision = choose_exchange(
        vector_size, compute, float(problem.gpu.shared_roundtrip_per_shuffle.value)
    )
    return plan.decide(decision, exchange=exchange)


def _plan_staged(problem: Problem, plan: Plan) -> Plan:
    """Through shared memory to the tensor cores, whatever that costs: what the paper's levels do before o4."""
    vector_size = problem.algorithm.vector_size
    exact = _fits_tensor_cores(problem, plan)
    compute = problem.op.compute_layout(problem.variant, vector_size=vector_size, exact=exact, aligned=False)
    if compute.engine == "fma" or vector_size <= compute.width:
        exchange, decision = _unexchanged(vector_size, compute)
        return plan.decide(decision, exchange=exchange)
    return plan.decide(
        Decision(
            "fusion",
            "shared",
            "the level does not fuse",
            {"vector_size": vector_size, "width": compute.width, "lanes": compute.lanes},
            "decoded vectors are written to shared memory and read back in the fragments' layout",
            "VI-B, Fig. 6",
            (Rejected("register", "the level does not exchange through registers (Algorithm 1)"),),
        ),
        exchange=_in_place(compute, "shared"),
    )


def choose_exchange(vector_size: int, compute: ComputeLayout, roundtrip: float) -> tuple[Exchange, Decision]:
    """The exchange of vectors into a layout, and why; a round trip through shared memory costs `roundtrip` shuffles."""
    if vector_size <= compute.width or vector_size & (vector_size - 1):
        return _unexchanged(vector_size, compute)
    return _exchanged(vector_size, compute, roundtrip)


def _fits_tensor_cores(problem: Problem, plan: Plan) -> bool:
    """Whether decoded entries can be operands as they are: exact in the type, scaled by whole rows at most."""
    assert isinstance(plan.layout, PackedLayout)
    algorithm = problem.algorithm
    pairs_up = (
        algorithm.vector_size > 2 or plan.layout.chunk_vectors % 2 == 0
    )  # two short vectors make an operand
    return algorithm.exact_in(problem.variant.dtype) and algorithm.scales.kind != "group" and pairs_up


def _plan_aligned(plan: Plan, vector_size: int, compute: ComputeLayout) -> Plan:
    shuffles = shuffle_count(vector_size, compute.width)
    # Multiply-adds take what a thread decodes as it is: permuting their sum is what fusion `none` does.
    exchange = Exchange() if compute.engine == "fma" else _in_place(compute, "aligned")
    decision = Decision(
        "fusion",
        exchange.fusion,
        "the inputs are read in the order in which decoding leaves the elements",
        {
            "engine": compute.engine,
            "vector_size": vector_size,
            "width": exchange.width or vector_size,
            "lanes": exchange.lanes,
        },
        "a sum may run in any order: its free axis is permuted so that a thread decodes what it multiplies"
        if exchange.fusion == "aligned"
        else "a sum may run in any order: multiply-adds take what a thread decodes as it is",
        rejected=(Rejected("exchange", f"{shuffles} shuffles a vector buy an order that no sum needs"),),
    )
    return plan.decide(decision, exchange=exchange)


def _unexchanged(vector_size: int, compute: ComputeLayout) -> tuple[Exchange, Decision]:
    """Vectors that need no exchange, or whose threads no exchange of powers of two can pair up."""
    wanted = counted(compute.width, "element")
    reason = (
        f"a vector of {vector_size} is no longer than the {wanted} the engine wants of a thread"
        if vector_size <= compute.width
        else f"mini-warps are powers of two: they cannot take vectors of {vector_size} apart"
    )
    exchange = Exchange() if compute.engine == "fma" else _in_place(compute, "aligned")
    decision = Decision(
        "fusion",
        exchange.fusion,
        "shuffles = vector_size / width - 1",
        {
            "engine": compute.engine,
            "vector_size": vector_size,
            "width": compute.width,
            "lanes": compute.lanes,
        },
        reason,
        "VI-B, Algorithm 1",
    )
    return exchange, decision


def _exchanged(vector_size: int, compute: ComputeLayout, roundtrip: float) -> tuple[Exchange, Decision]:
    mapping = map_threads(
        ThreadLayout(vector_size, compute.lanes), ThreadLayout(compute.width, compute.lanes)
    )
    shuffles = shuffle_count(vector_size, compute.width)
    against = _against_registers(mapping, vector_size, compute)
    if against is None and choose_fusion(shuffles, roundtrip) == "shared":
        against = f"{shuffles} shuffles a vector cost more than a round trip, {roundtrip:g}"
    if mapping is not None and against is None:
        exchange = Exchange(
            compute.engine,
            "register",
            compute.width,
            compute.lanes,
            mapping.size,
            mapping.shuffles(ELEMENTS_PER_REGISTER[compute.engine]),
            mapping.vector_of_thread,
        )
        reason = f"all exchange stays inside mini-warps of {mapping.size} threads"
        rejected = Rejected("shared", f"a round trip costs {roundtrip:g} shuffles, the exchange {shuffles}")
    else:
        exchange = _in_place(compute, "shared")
        reason = "decoded vectors are written to shared memory and read back in the engine's layout"
        rejected = Rejected("register", against or "")
    decision = Decision(
        "fusion",
        exchange.fusion,
        "shuffles = vector_size / width - 1; registers if shuffles < shared_roundtrip_per_shuffle",
        {
            "engine": compute.engine,
            "vector_size": vector_size,
            "width": compute.width,
            "lanes": compute.lanes,
            "shuffles": shuffles,
            "shared_roundtrip_per_shuffle": roundtrip,
        },
        reason,
        "VI-B, Algorithm 1",
        (rejected, Rejected("none", "the level exchanges decoded vectors before it multiplies them")),
        ("shared_roundtrip_per_shuffle",),
    )
    return exchange, decision


def _against_registers(mapping: ThreadMapping | None, vector_size: int, compute: ComputeLayout) -> str | None:
    """What rules out an exchange through registers, whatever it costs."""
    if mapping is not None:
        return None
    return f"vectors of {vector_size} over {compute.lanes} threads of {compute.width} form no mini-warps"


def _in_place(compute: ComputeLayout, fusion: Literal["shared", "aligned"]) -> Exchange:
    """Threads dequantize vectors in their order."""
    lanes = compute.lanes
    return Exchange(compute.engine, fusion, compute.width, lanes, 1, 0, tuple(range(lanes)))
