"""Split: whether blocks share a head's channels out, and how many of them (VQ-LLM, Sec. VI-A).

Table III: codebooks of a cache switch along heads and channels; keys are summed over channels, values over tokens.
Blocks that share out tokens, as flash-decoding has it, each load all of a head's books. Blocks that share out channels
load their own channels' books, and add partial scores up: in a cluster of blocks, through each other's shared memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.ops.attention.cluster_tile import CLUSTER_SIZES
from vqcc.passes.cache.placement import head_bytes
from vqcc.plan import Decision, Rejected

if TYPE_CHECKING:
    from vqcc.plan import CachePlan
    from vqcc.problem import CacheProblem

__all__ = ["cluster_sizes", "plan_cache_split"]

SCORE_BYTES = 4
#: Tokens of a sequence past which idle SMs cost more than reading books for each block of the grid: measured between
#: 1024 and 4096 (docs/performance.md).
LONG_CONTEXT = 2048
#: Channel groups of keys of a block over score tables: their codes fill words.
SCORED_GROUPS = 4
#: Channels of a vector of values that are added up together (WarpSums, device/attention/warp_sums.cuh).
SUMMED_CHANNELS = 2


def cluster_sizes(problem: CacheProblem, dataflow: str) -> tuple[int, ...]:
    """Numbers of blocks that may share a head's channels out; none where there are no clusters, or sums in pairs."""
    if not problem.gpu.has_clusters or problem.values.vector_size % SUMMED_CHANNELS:
        return ()
    least = SCORED_GROUPS if dataflow == "score" else 1
    groups = [problem.op.head_dim // each.vector_size for each in (problem.keys, problem.values)]
    return tuple(
        size
        for size in CLUSTER_SIZES
        if all(count % size == 0 for count in groups) and groups[0] // size >= least
    )


def plan_cache_split(problem: CacheProblem, plan: CachePlan) -> CachePlan:
    """Decide for a codebook-centric strategy: the number of least traffic, or, past the paper, all that may be."""
    if not plan.strategy.codebook_centric:
        return plan
    sizes = cluster_sizes(problem, plan.strategy.dataflow)
    if plan.strategy.dataflow != "decode":
        return plan.decide(clusters=sizes)
    idle = tuple(size for size in sizes if _leaves_idle(problem, size))
    sizes = tuple(size for size in sizes if size not in idle)
    traffic = {size: _traffic(problem, size) for size in (1, *sizes)}
    best = min(traffic, key=lambda size: sum(traffic[size]))
    why = (
        "each block loads the books of its own channels, and partial scores are added up through shared memory"
        if best > 1
        else _why_none(problem)
        if not sizes and not idle
        else "blocks share out tokens: partial scores would move more bytes than books"
    )
    return plan.decide(
        Decision(
            "split",
            best,
            "least traffic_reduce + traffic_codebook of blocks that share a head's channels out",
            {
                "traffic_reduce": traffic[best][0],
                "traffic_codebook": traffic[best][1],
                "sm_count": problem.gpu.sm_count.integer,
            },
            why,
            "VI-A, Table III",
            tuple(
                Rejected(size, f"{reduce + books:,} bytes, {books:,} of them books")
                for size, (reduce, books) in traffic.items()
                if size != best
            )
            + tuple(Rejected(size, "few long sequences would leave most SMs idle") for size in idle),
            facts=("sm_count",),
        ),
        clusters=() if best == 1 else (best,),
    )


def _leaves_idle(problem: CacheProblem, size: int) -> bool:
    """Whether clusters, which work on whole sequences, have less than half of the SMs work on long ones."""
    blocks = problem.op.kv_heads * problem.variant.sizes["batch"] * size
    return problem.op.context > LONG_CONTEXT and 2 * blocks < problem.gpu.sm_count.integer


def _why_none(problem: CacheProblem) -> str:
    if not problem.gpu.has_clusters:
        return f"{problem.gpu.name} has no clusters"
    return f"blocks that share channels add values up in pairs: vectors of {problem.values.vector_size} have none"


def _traffic(problem: CacheProblem, size: int) -> tuple[int, int]:
    """Bytes of partial scores that blocks send each other, and of books that all blocks load."""
    op = problem.op
    rows = op.query_rows * op.kv_heads * problem.variant.sizes["batch"]
    scores = rows * op.context * SCORE_BYTES * size * (size - 1)
    return scores, problem.gpu.sm_count.integer * head_bytes(problem) // size
