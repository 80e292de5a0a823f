"""Which dataflows a cache's kernels can have, and why not the others.

Kernels that decode take any keys and values. Those over score tables and on tensor cores look entries up by rows
(device/attention/entry_rows.cuh). Tables need keys that are multiplied as they lie in the cache; tensor cores also take
those that are rotated by their positions first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.cache_layouts import ROW_BYTES, EntryRows, FragmentOrder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.algorithms.base import Algorithm
    from vqcc.cache_layouts import KeyOrder
    from vqcc.levels import Dataflow
    from vqcc.problem import CacheProblem

__all__ = ["CACHE_DATAFLOWS", "KEY_ORDERS", "cache_refusals"]

CACHE_DATAFLOWS: tuple[Dataflow, ...] = ("decode", "score", "fragment")
#: How each dataflow wants a token block's keys to lie; one that decodes reads them in order or rotated.
KEY_ORDERS: dict[Dataflow, KeyOrder] = {"decode": "plain", "score": "rotated", "fragment": "fragment"}

#: Codes are a byte of a row's address.
ROW_CODE_BITS = 8
ROW_VECTOR_SIZES = (2, 4, 8, 16)
#: Codes of a token fill words.
SCORED_GROUPS = 4
#: Turns of an operand's rows, and operands of queries that a thread has registers for (device/attention/quarters.cuh,
#: fragment_keys.cuh); lanes that meet different groups of values.
TURNS, MAX_OPERANDS, WARP_SIZE = 4, 8, 32


def cache_refusals(problem: CacheProblem, dataflow: Dataflow) -> Iterator[str]:
    """Why no kernel of the problem can have a dataflow: nothing if it can."""
    if dataflow == "decode":
        return
    if dataflow == "score" and problem.op.rope != "none":
        yield "keys are rotated after decoding: products with entries are not theirs"
    reasons = [reason for side in _sides(problem) for reason in _refusals_of_rows(*side)]
    yield from reasons
    if reasons:
        return
    if dataflow == "score":
        groups = problem.op.head_dim // problem.keys.vector_size
        if groups < SCORED_GROUPS:
            yield f"a key has {groups} codes of a byte, which are no whole words"
    elif dataflow == "fragment":
        yield from _refusals_of_fragments(problem)
    else:
        yield "no kernel of attention has it"


def _sides(problem: CacheProblem) -> tuple[tuple[str, Algorithm], ...]:
    if problem.keys == problem.values:
        return (("keys and values", problem.keys),)
    return (("keys", problem.keys), ("values", problem.values))


def _refusals_of_rows(side: str, algorithm: Algorithm) -> Iterator[str]:
    if algorithm.code_bits != ROW_CODE_BITS or algorithm.residuals != 1:
        yield f"{side} are looked up by one code of {ROW_CODE_BITS} bits, not those of {algorithm.label}"
    if algorithm.codebook_type != "float16":
        yield f"rows are of float16 entries, those of {side} are {algorithm.codebook_type}"
    if algorithm.vector_size not in ROW_VECTOR_SIZES:
        yield f"vectors of {algorithm.vector_size} channels of {side} are no whole words of a row"


def _refusals_of_fragments(problem: CacheProblem) -> Iterator[str]:
    head_dim, keys, values = problem.op.head_dim, problem.keys, problem.values
    if problem.op.query_rows == 1 and problem.op.rope == "none":  # else there are no tables to do better
        yield "of four rows of an operand one would be of use"
    if 2 * head_dim > ROW_BYTES:
        yield f"entries of a head of {head_dim} channels take more than a row of {ROW_BYTES} bytes"
        return
    order = FragmentOrder(head_dim // keys.vector_size, keys.vector_size)
    registers = -(-(keys.vector_size // 2) * (order.block_groups // 4) // 2)
    if order.turns < TURNS or order.steps * registers > MAX_OPERANDS:
        yield f"a key of {order.groups} channel groups has no {TURNS} turns in which lanes meet different banks"
    lanes = EntryRows(head_dim, values.vector_size).team_lanes
    if lanes < WARP_SIZE:
        yield f"a value has {lanes} channel groups for the {WARP_SIZE} lanes of a warp"
