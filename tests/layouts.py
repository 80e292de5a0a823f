"""Layouts of a warp, and Algorithm 1's exchange on all its threads: what tests hold passes and device against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar

from vqcc.passes.exchange import ThreadLayout, ThreadMapping, map_threads

if TYPE_CHECKING:
    from collections.abc import Sequence

WARP_SIZE = 32
_Value = TypeVar("_Value")

#: Fused multiply-adds: neighbouring threads take neighbouring elements.
ELEMENT_LAYOUT = ThreadLayout(1, WARP_SIZE)
#: 16-bit operands of mma.m16n8k16: of 16 columns, thread t of a quad has 2t, 2t + 1, 2t + 8 and 2t + 9.
FRAGMENT_LAYOUT = ThreadLayout(2, 4)


def mapped(vector_size: int, compute: ThreadLayout) -> ThreadMapping:
    """The thread mapping of the pass for vectors that an engine wants in a layout."""
    mapping = map_threads(ThreadLayout(vector_size, compute.lanes), compute)
    assert mapping is not None
    return mapping


@dataclass(frozen=True)
class FragmentTile:
    """An operand of mma.m16n8k16 over a warp: A has 16 rows, B as its 8 columns (PTX ISA, matrix fragments).

    Row g belongs to quad g % 8 of the warp, each quad laid out as FRAGMENT_LAYOUT.
    """

    rows: Literal[8, 16]
    columns: int = 16

    def thread_of(self, row: int, column: int) -> int:
        """The lane that multiplies an element."""
        return row % 8 * FRAGMENT_LAYOUT.lanes + FRAGMENT_LAYOUT.thread_of(column)

    def register_of(self, row: int, column: int) -> int:
        """The element's place in its lane's operand: columns 8 to 15 come last, rows 8 to 15 before them."""
        return column // 8 * (self.rows // 4) + row // 8 * 2 + column % 2


@dataclass(frozen=True)
class SequentialTile:
    """The naive mapping: vectors of a tile dealt to threads in the order in which they are stored."""

    vector_size: int
    columns: int

    def thread_of(self, row: int, column: int) -> int:
        """The lane that dequantizes an element."""
        return (row * self.columns + column) // self.vector_size % WARP_SIZE


def columns_for(mapping: ThreadMapping, thread: int) -> tuple[tuple[int, ...], ...]:
    """Before the exchange: of the vector that `thread` holds, the columns for each thread of its mini-warp."""
    first = mapping.vector_of_thread[thread] * mapping.run
    base = thread - thread % mapping.size
    return tuple(
        tuple(
            column
            for column in range(first, first + mapping.run)
            if mapping.compute.thread_of(column) == peer
        )
        for peer in range(base, base + mapping.size)
    )


def exchange_registers(data: Sequence[Sequence[_Value]], size: int) -> list[list[_Value]]:
    """REG_FUSION of Algorithm 1 on all threads at once, as the device does it: a transposition in each mini-warp.

    data[t][j] is what thread t decoded for thread j of its mini-warp of `size`; afterwards it is what thread j
    decoded for thread t.
    """
    held = [list(registers) for registers in data]
    for offset in range(1, size):
        sent = [registers[thread % size ^ offset] for thread, registers in enumerate(held)]
        for thread, registers in enumerate(held):
            registers[thread % size ^ offset] = sent[thread ^ offset]
    return held
