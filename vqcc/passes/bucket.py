"""Buckets: codes sorted by the part of a large book that has their entry (docs/decisions/010-bucketed-codes.md).

Instead of layout, exchange, split and placement of kernels that decode: entries go to tensor cores as they are stored.
Hotness, tile, bounds and launch are the same passes for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.code_layouts import BucketLayout
from vqcc.plan import Decision, Exchange
from vqcc.report.text import counted

if TYPE_CHECKING:
    from vqcc.algorithms.base import Algorithm
    from vqcc.plan import Plan
    from vqcc.problem import Problem

__all__ = ["BUCKET_VECTOR", "bucket_layout", "plan_bucket_layout", "plan_buckets"]

#: Elements of a vector: 16 bytes of 16-bit elements, a row of the matrices that are loaded together.
BUCKET_VECTOR = BucketLayout.VECTOR_BYTES // 2
#: The most entries of a part, and vectors of a panel: 128 and 64 KB of shared memory. Longer lists of codes are padded
#: less, so they are as large as the GPUs with most shared memory have room for, whichever GPU a library is for.
MOST_ENTRIES, MOST_VECTORS = 8192, 512


def bucket_layout(algorithm: Algorithm, shape: tuple[int, int]) -> BucketLayout:
    """The layout for weights [n, k]: parts as large as may be, and as few panels, of like size."""
    vectors = shape[1] // algorithm.vector_size
    panels = -(-vectors // MOST_VECTORS)
    return BucketLayout(
        vectors=vectors,
        residuals=algorithm.residuals,
        code_bits=algorithm.code_bits,
        part_entries=min(MOST_ENTRIES, algorithm.table_entries),
        panel_vectors=-(-vectors // panels),
    )


def plan_bucket_layout(problem: Problem, plan: Plan) -> Plan:
    """Sort codes by panel of x and part of the book."""
    algorithm = problem.algorithm
    layout = bucket_layout(algorithm, problem.op.weight_shape)
    return plan.decide(
        Decision(
            "packed_layout",
            f"bucket: {counted(layout.panels, 'panel')} of {counted(layout.panel_vectors, 'vector')} by "
            f"{counted(layout.parts, 'part')} of {layout.part_entries} entries",
            f"parts of at most {MOST_ENTRIES} entries, panels of at most {MOST_VECTORS} vectors",
            {
                "vectors": layout.vectors,
                "residuals": algorithm.residuals,
                "table_entries": algorithm.table_entries,
                "resident_bytes": layout.resident_bytes,
            },
            f"a code takes {layout.SLOT_BITS} bits instead of {algorithm.code_bits}, and its entry is in shared memory",
        ),
        layout=layout,
    )


def plan_buckets(problem: Problem, plan: Plan) -> Plan:
    """Multiply entries as they are stored: there is nothing to exchange."""
    return plan.decide(
        Decision(
            "dataflow",
            "bucket",
            "eight lanes' entries and vectors of x are rows of operands; sums of their rows are the product's diagonal",
            {"vector_size": problem.algorithm.vector_size, "entries": problem.algorithm.table_entries},
            "look-ups in a book past shared memory go to the second-level cache; those in a part of it do not",
        ),
        exchange=Exchange("bucket"),
    )
