"""Levels: Table IV's ablation, and `best`; each names which of the paper's ideas a kernel uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CODE_ORDERS",
    "DATAFLOW_WORDS",
    "LEVELS",
    "STRATEGIES",
    "Caching",
    "Dataflow",
    "Fusion",
    "Level",
    "Strategy",
]

#: `best` is whatever the planner predicts to be fastest, dataflows beyond the paper's included.
Level = Literal["gc", "sc", "o1", "o2", "o3", "o4", "best"]
LEVELS: tuple[Level, ...] = get_args(Level)

Caching = Literal["none", "global", "all", "slack"]
Fusion = Literal["none", "exchange", "aligned"]
#: What becomes of a code: its entry is decoded and multiplied, it looks up a score that is added, it is decoded into an
#: operand of tensor cores, in whose order codes are packed (a warp's, or a warpgroup's), or its entry is such an
#: operand, codes being packed by the part of the book that has it. Or weights are decoded to memory first, once for all
#: rows of inputs.
Dataflow = Literal["decode", "score", "fragment", "bucket", "warpgroup", "dense"]
#: Dataflows past the paper's in words.
DATAFLOW_WORDS: Mapping[Dataflow, str] = {
    "score": "score tables",
    "fragment": "codes in the order of fragments",
    "bucket": "codes in buckets",
    "warpgroup": "codes in the order of a warpgroup's operands",
    "dense": "weights decoded to memory first",
}
#: How codes of a weight are packed for each dataflow, by the kind of their layout (vqcc.code_layouts): kernels of
#: dataflows that have one in common read the same packed file.
CODE_ORDERS: Mapping[Dataflow, str] = {
    "decode": "chunked",
    "score": "rotated",
    "fragment": "fragment",
    "bucket": "bucket",
    "warpgroup": "fragment",
    "dense": "fragment",
}


@dataclass(frozen=True)
class Strategy:
    """What a kernel may do with codebooks and decoded vectors.

    `caching`: entries stay in global memory, all of them lie in shared memory, or as many as fit the slack
    (Sec. V-B). `registers`: hot entries may live in registers. `codebook_centric`: blocks may be split along the
    codebook-switch axes (Sec. VI-A). `fusion`: decoded vectors are used as they come, exchanged into the layout
    the op's compute engine wants (Sec. VI-B), or decoded straight into it. `copies`: past the paper, shared memory that
    is left may hold copies of entries. `dataflow`: also past it, products of entries with the inputs may be tabulated
    (score tables), or codes be packed in the order of fragments or in buckets; none leaves anything to cache (`none`)
    or exchange.
    """

    caching: Caching
    registers: bool = False
    codebook_centric: bool = False
    fusion: Fusion = "none"
    copies: int = 1
    dataflow: Dataflow = "decode"


#: Table IV. Each level has all that the one before it has.
STRATEGIES: Mapping[str, Strategy] = {
    "gc": Strategy("global"),
    "sc": Strategy("all"),
    "o1": Strategy("slack"),
    "o2": Strategy("slack", registers=True),
    "o3": Strategy("slack", registers=True, codebook_centric=True),
    "o4": Strategy("slack", registers=True, codebook_centric=True, fusion="exchange"),
}
