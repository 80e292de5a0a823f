"""The plan: every decision about one kernel, each with its value, formula, inputs and reason.

Passes take a `Problem` and a `Plan` and return a new `Plan`; nothing here knows an algorithm, an op or a GPU.
A plan is frozen and serialises to JSON; equal plans give equal text.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from vqcc.levels import STRATEGIES, Level, Strategy

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from vqcc.cache_layouts import CacheLayout
    from vqcc.code_layouts import CodeLayout
    from vqcc.codegen.toolchain import Resources

__all__ = [
    "CachePlan",
    "Constant",
    "Decision",
    "Exchange",
    "Hotness",
    "KernelPlan",
    "Launch",
    "Level",
    "Placement",
    "Plan",
    "Rejected",
    "Slack",
    "Split",
    "Tile",
]

Value = int | str | float | bool


@dataclass(frozen=True)
class Constant:
    """One `static constexpr` of the emitted source. Text values are enumerators of our own, never spec text."""

    type: str
    name: str
    value: int | str
    comment: str


@dataclass(frozen=True)
class Rejected:
    """An alternative that a decision passed over, and why."""

    value: Value
    reason: str


@dataclass(frozen=True)
class Decision:
    """Why the plan is as it is: what `vqcc explain` prints and the emitted source quotes.

    `facts` are the GPU's numbers that entered, by their names in the GPU's file, whatever the inputs call them.
    """

    name: str
    value: Value
    formula: str
    inputs: Mapping[str, Value]
    reason: str
    section: str = ""
    rejected: tuple[Rejected, ...] = ()
    facts: tuple[str, ...] = ()


class Tile(Protocol):
    """What one block and one warp work on; each op has its own."""

    @property
    def warps(self) -> int:
        """Warps of a block."""
        ...

    @property
    def register_cap(self) -> int:
        """Registers of a thread that the tile is made for."""
        ...

    @property
    def roundings(self) -> int:
        """Bound on the roundings of an fp32 sum on its way to an output."""
        ...

    @property
    def blocks(self) -> int:
        """Items of work in the problem: a block takes one at a time."""
        ...

    @property
    def one_item_per_block(self) -> bool:
        """Whether every item needs a block of its own; else blocks stay and take several."""
        ...

    @property
    def panel_rows(self) -> int:
        """Rows of inputs for which a launch has `blocks` anew; 0: it has them once, whatever its rows."""
        ...

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block beside the codebooks."""
        ...

    @property
    def workspace_bytes(self) -> int:
        """Device memory through which blocks that share outputs add up."""
        ...

    def constants(self) -> tuple[Constant, ...]:
        """The tile as the kernel template reads it."""
        ...


@dataclass(frozen=True)
class Hotness:
    """How often entries are looked up (Sec. V-A): means over the tables of a tensor's books.

    `hot`, `medium` and `cold` count a table's entries above mean + 3 sigma, between, and below the mean;
    `hot_by_table` has the hot ones of each of a book's tables, and is empty without a profile. With order `profile`,
    `vqcc pack` renames entries so that 0 is the most frequent one.
    """

    order: Literal["identity", "profile"]
    hot: float
    medium: float
    cold: float
    hot_by_table: tuple[float, ...] = ()


@dataclass(frozen=True)
class Split:
    """Parts that work along a row is cut into for different blocks (Sec. VI-A): column tiles, then stages."""

    tiles: int = 1
    stages: int = 1

    @property
    def factor(self) -> int:
        """Partial sums of each output."""
        return self.tiles * self.stages


@dataclass(frozen=True)
class Exchange:
    """How decoded elements reach the threads that multiply them (Sec. VI-B, Algorithm 1).

    `engine` multiplies with fused multiply-adds (`fma`) or tensor cores (`mma`; `fragment`, `warpgroup`, `dense`
    and `bucket` where codes are packed for them), or adds looked-up products (`score`).
    `width` consecutive elements of a row belong to one thread, the next `width` to the next of `lanes` threads.
    `fusion` is how they get there: not at all (a thread multiplies what it decodes, wherever that lies), through
    registers (`shuffles` xor-shuffles inside mini-warps of `mini_warp` threads), through shared memory, or not at all
    because the sum's order was permuted (`aligned`). Thread t of the `lanes` decodes vector `vector_of_lane[t]`.
    """

    engine: Literal["fma", "mma", "score", "fragment", "bucket", "warpgroup", "dense"] = "fma"
    fusion: Literal["none", "register", "shared", "aligned"] = "none"
    width: int = 0
    lanes: int = 32
    mini_warp: int = 1
    shuffles: int = 0
    vector_of_lane: tuple[int, ...] = tuple(range(32))


@dataclass(frozen=True)
class Slack:
    """What a base kernel can still take at the occupancy it has (Sec. V-B, Fig. 10).

    `registers` per thread, `shared_bytes` per block, both in addition to what it uses; `blocks_per_sm` is kept.
    """

    blocks_per_sm: int
    registers: int
    shared_bytes: int


@dataclass(frozen=True)
class Placement:
    """Where entries live: [0, n_registers), [n_registers, n_shared), global memory (Sec. V-B).

    Counts are per table: a book has one table per residual stage, or one that its stages share. `n_registers` has a
    count for each table that a part of the stages looks up, in their order; all share `n_shared`. At most
    `resident_tiles` books of `shared_book_bytes` cached bytes each are in shared memory at a time; lanes look up
    `copies` copies of an entry in turn, so that fewer of them meet in a bank.
    """

    n_registers: tuple[int, ...]
    n_shared: int
    resident_tiles: int
    shared_book_bytes: int
    copies: int = 1

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block that holds entries."""
        return self.resident_tiles * self.shared_book_bytes


@dataclass(frozen=True)
class Launch:
    """Grid and block of a launch; the block is one-dimensional.

    `workspace_bytes` of device memory, zero before the first launch and after each, hold what blocks tell each other.
    `carveout_percent` of an SM's shared memory holds all blocks that are planned; 0: they need none. With `panel_rows`
    the grid is there once for each panel of so many rows of inputs.
    """

    grid: int
    threads: int
    dynamic_shared_bytes: int
    blocks_per_sm: int
    limited_by: str
    workspace_bytes: int = 0
    carveout_percent: int = 0
    panel_rows: int = 0

    def blocks_for(self, scalars: Mapping[str, float]) -> int:
        """Blocks of a launch with these arguments, of which `m` are the rows of inputs."""
        return self.grid * -(-int(scalars["m"]) // self.panel_rows) if self.panel_rows else self.grid


@dataclass(frozen=True)
class KernelPlan(ABC):
    """What plans of all ops have; the passes fill it, and what an op's plans add, one after another.

    `minimum_blocks` an SM must be able to hold: the compiler caps registers by it.
    """

    kernel: str
    level: Level
    strategy: Strategy = STRATEGIES["gc"]
    decisions: tuple[Decision, ...] = ()
    slack: Slack | None = None
    tile: Tile | None = None
    minimum_blocks: int = 1
    launch: Launch | None = None
    resources: Resources | None = None
    predicted_us: float | None = None

    @property
    @abstractmethod
    def book_bytes(self) -> int:
        """Shared memory of a block that holds cached entries; placement has been planned."""

    @property
    def dynamic_shared_bytes(self) -> int:
        """Shared memory of a block: the tile's own, and that of the cached entries."""
        assert self.tile is not None
        return self.tile.shared_bytes + self.book_bytes

    def decide(self, *decisions: Decision, **changes: Any) -> Self:
        """A new plan with `changes` made and the decisions behind them noted."""
        return replace(self, decisions=(*self.decisions, *decisions), **changes)

    def to_json(self) -> dict[str, Any]:
        """The plan as plain data, keys in a fixed order."""
        return asdict(self)


@dataclass(frozen=True)
class Plan(KernelPlan):
    """Decisions about one kernel over a quantized weight, filled by the passes in the order of `vqcc.pipeline`."""

    layout: CodeLayout | None = None
    hotness: Hotness | None = None
    split: Split = Split()
    exchange: Exchange = Exchange()
    placement: Placement | None = None

    @property
    def book_bytes(self) -> int:
        """Shared memory of a block that holds entries of the weight's books."""
        assert self.placement is not None
        return self.placement.shared_bytes


@dataclass(frozen=True)
class CachePlan(KernelPlan):
    """Decisions about one kernel over a quantized KV cache.

    `keys` and `values` say which entries of a head's books are cached: of so many books as are present at a time.
    If `books_take_turns`, those of keys and of values share their place. Where blocks share a head's channels out,
    `clusters` are the numbers of them that may. `exchange` is that of decoded values; nothing of keys moves.
    """

    layout: CacheLayout | None = None
    clusters: tuple[int, ...] = ()
    exchange: Exchange = Exchange()
    keys: Placement | None = None
    values: Placement | None = None
    books_take_turns: bool = False

    @property
    def book_bytes(self) -> int:
        """Shared memory of a block that holds entries of keys and of values."""
        assert self.keys is not None
        assert self.values is not None
        both = (self.keys.shared_bytes, self.values.shared_bytes)
        return max(both) if self.books_take_turns else sum(both)
