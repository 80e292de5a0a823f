"""The plan: every decision about one kernel, each with its value, formula, inputs and reason.

Passes take a `Problem` and a `Plan` and return a new `Plan`; nothing here knows an algorithm, an op or a GPU.
A plan is frozen and serialises to JSON; equal plans give equal text.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.codegen.toolchain import Resources

__all__ = [
    "Constant",
    "Decision",
    "Launch",
    "Level",
    "PackedLayout",
    "Placement",
    "Plan",
    "Tile",
]

#: Table IV's ablation: gc reads codebooks from global memory, sc holds every entry in shared memory.
Level = Literal["gc", "sc"]

Value = int | str | float | bool


@dataclass(frozen=True)
class Constant:
    """One `static constexpr` of the emitted source. Text values are enumerators of our own, never spec text."""

    type: str
    name: str
    value: int | str
    comment: str


@dataclass(frozen=True)
class Decision:
    """Why the plan is as it is: what `vqcc explain` prints and the emitted source quotes."""

    name: str
    value: Value
    formula: str
    inputs: Mapping[str, Value]
    reason: str
    section: str = ""


@dataclass(frozen=True)
class PackedLayout:
    """How codes of a weight [n, k] lie in memory (docs/packed-layout.md).

    A row is a run of chunks; a chunk is `chunk_words` 32-bit words that hold the codes of `chunk_vectors`
    vectors as a little-endian bit stream, vector-major, then residual stage. Rows are cut into segments of
    `lanes` chunks: vector j of chunk l is number `j * lanes + l` of its segment. The last segment has just
    the chunks it needs and interleaves by their number.
    """

    vectors: int
    residuals: int
    code_bits: int
    chunk_vectors: int
    chunk_words: int
    lanes: int = 32

    @property
    def segment_vectors(self) -> int:
        """Vectors of a full segment."""
        return self.lanes * self.chunk_vectors

    @property
    def tail_lanes(self) -> int:
        """Chunks of the last, shorter segment; 0 if the row ends with a full one."""
        return -(-(self.vectors % self.segment_vectors) // self.chunk_vectors)

    @property
    def segments(self) -> int:
        """Segments of a row, the shorter one included."""
        return -(-self.vectors // self.segment_vectors)

    @property
    def row_words(self) -> int:
        """32-bit words of a packed row."""
        return (self.vectors // self.segment_vectors * self.lanes + self.tail_lanes) * self.chunk_words


class Tile(Protocol):
    """What one block and one warp work on; each op has its own."""

    @property
    def warps(self) -> int:
        """Warps of a block."""
        ...

    @property
    def minimum_blocks(self) -> int:
        """Blocks an SM must be able to hold: the compiler caps registers by it."""
        ...

    @property
    def blocks(self) -> int:
        """Blocks' worth of work in the problem."""
        ...

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block beside the codebooks."""
        ...

    def constants(self) -> tuple[Constant, ...]:
        """The tile as the kernel template reads it."""
        ...


@dataclass(frozen=True)
class Placement:
    """Where codebook entries live: [0, n_registers), [n_registers, n_shared), global memory (Sec. V-B)."""

    n_registers: int
    n_shared: int
    resident_tiles: int
    table_bytes: int

    @property
    def in_shared(self) -> bool:
        """Whether look-ups go to shared memory."""
        return self.n_shared > 0


@dataclass(frozen=True)
class Launch:
    """Grid and block of a launch; the block is one-dimensional."""

    grid: int
    threads: int
    dynamic_shared_bytes: int
    blocks_per_sm: int
    limited_by: str


@dataclass(frozen=True)
class Plan:
    """Decisions about one kernel, filled by the passes in the order of `vqcc.pipeline`."""

    kernel: str
    level: Level
    decisions: tuple[Decision, ...] = ()
    layout: PackedLayout | None = None
    tile: Tile | None = None
    placement: Placement | None = None
    launch: Launch | None = None
    resources: Resources | None = None

    def decide(self, *decisions: Decision, **changes: Any) -> Plan:
        """A new plan with `changes` made and the decisions behind them noted."""
        return replace(self, decisions=(*self.decisions, *decisions), **changes)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data, keys in a fixed order."""
        return asdict(self)
