"""Code layouts: how packed codes of a weight lie in memory (docs/packed-layout.md).

Each dataflow reads one; `vqcc.passes` choose their numbers, `vqcc.tensors` pack by them, manifests carry them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "CODE_LAYOUTS",
    "BucketLayout",
    "CodeLayout",
    "FragmentLayout",
    "PackedLayout",
    "RotatedLayout",
    "layout_mapping",
]


@dataclass(frozen=True)
class PackedLayout:
    """What kernels of the paper read: rows one after the other.

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
    kind: ClassVar[str] = "chunked"

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

    def code_shape(self, rows: int) -> tuple[int, ...]:
        """Shape of the packed codes of `rows` rows, in 32-bit words."""
        return (rows, self.row_words)


@dataclass(frozen=True)
class RotatedLayout:
    """What score tables read: rotated by row.

    Codes have 8 or 12 bits. A row's lie stage after stage, each stage's padded to `padded_vectors`, a multiple of
    `set_codes`. They are cut into `panels` of `panel_codes`; a panel of 32 neighbouring rows is a few runs of
    `run_bytes` a row, the rows' next to each other. Every `set_codes` of row r are rotated: in place s stands code
    s ^ (r % set_codes).
    """

    vectors: int
    residuals: int
    code_bits: int
    padded_vectors: int
    panels: int
    kind: ClassVar[str] = "rotated"

    #: Rows that share a panel: the lanes of a warp.
    GROUP_ROWS: ClassVar[int] = 32
    #: Codes that are rotated together by their bits: the tables among which the lanes of a warp turn.
    SET_CODES: ClassVar[Mapping[int, int]] = {8: 32, 12: 16}
    #: Codes of a panel's row by their bits, and bytes of a row that lie together.
    PANEL_CODES: ClassVar[Mapping[int, int]] = {8: 64, 12: 16}
    RUN_BYTES: ClassVar[Mapping[int, int]] = {8: 16, 12: 8}

    @property
    def set_codes(self) -> int:
        """Codes that are rotated together."""
        return self.SET_CODES[self.code_bits]

    @property
    def panel_codes(self) -> int:
        """Codes of a row in a panel."""
        return self.PANEL_CODES[self.code_bits]

    @property
    def run_bytes(self) -> int:
        """Bytes of a row that lie together."""
        return self.RUN_BYTES[self.code_bits]

    @property
    def panel_bytes(self) -> int:
        """Bytes of a row in a panel."""
        return self.panel_codes * self.code_bits // 8

    def code_shape(self, rows: int) -> tuple[int, ...]:
        """Shape of the packed codes of `rows` rows, in 32-bit words."""
        groups = -(-rows // self.GROUP_ROWS)
        return (self.panels, groups, self.GROUP_ROWS * self.panel_bytes // 4)


@dataclass(frozen=True)
class FragmentLayout:
    """What tensor-core fragments are decoded from: the codes that the lanes of a warp need together lie together.

    Lane 4 g + t of a warp has row g of every eight. Of each four spans of `span_vectors` vectors it has span t, so that
    its own vector i is number (i // span_vectors * 4 + t) * span_vectors + i % span_vectors of the row. A step is
    `step_vectors` of its own vectors: their codes are `step_words` 32-bit words of a little-endian bit stream,
    vector-major, then residual stage. Steps follow one another; in a step, blocks of BLOCK_ROWS rows, an even number
    of them; in a block the words in order; of a word those of all lanes; of a lane those of its rows g, g + 8, g + 16
    and g + 24.
    """

    vectors: int
    residuals: int
    code_bits: int
    step_vectors: int
    step_words: int
    span_vectors: int
    kind: ClassVar[str] = "fragment"

    #: Rows of a block, of one multiply, and lanes that share a row.
    BLOCK_ROWS: ClassVar[int] = 32
    GROUP_ROWS: ClassVar[int] = 8
    QUAD: ClassVar[int] = 4

    @property
    def lane_vectors(self) -> int:
        """Vectors of a row that a lane has, those past its end included."""
        return -(-self.vectors // (self.QUAD * self.span_vectors)) * self.span_vectors

    @property
    def steps(self) -> int:
        """Steps along a row."""
        return -(-self.lane_vectors // self.step_vectors)

    def blocks(self, rows: int) -> int:
        """Blocks of rows that are packed, an even number."""
        return -(-rows // (2 * self.BLOCK_ROWS)) * 2

    def code_shape(self, rows: int) -> tuple[int, ...]:
        """Shape of the packed codes of `rows` rows, in 32-bit words."""
        return (self.steps, self.blocks(rows), self.step_words * 4 * self.BLOCK_ROWS)


@dataclass(frozen=True)
class BucketLayout:
    """What books too large for shared memory are read from a part at a time: codes sorted into buckets.

    Tables are cut into parts of `part_entries` entries, of all stages one after the other, and rows into panels of
    `panel_vectors` vectors. A bucket is a panel and a part. Rows are taken BLOCK_ROWS at a time; in a bucket, a block
    of them has BLOCK_UNITS units, of as many rows as a warp has lanes: a lane's codes of the bucket follow one another,
    a slot each in every step. Units have as many steps as their longest row needs, in whole chunks of CHUNK_STEPS.
    The packer chooses which rows share a unit, and in which order a row's slots come (vqcc/tensors/buckets.py).
    """

    vectors: int
    residuals: int
    code_bits: int
    part_entries: int
    panel_vectors: int
    kind: ClassVar[str] = "bucket"

    BLOCK_ROWS: ClassVar[int] = 256
    UNIT_ROWS: ClassVar[int] = 32
    BLOCK_UNITS: ClassVar[int] = BLOCK_ROWS // UNIT_ROWS
    #: A slot is the entry's number in its part, then the vector's in its panel.
    ENTRY_BITS: ClassVar[int] = 13
    SLOT_BITS: ClassVar[int] = 24
    CHUNK_STEPS: ClassVar[int] = 4
    CHUNK_WORDS: ClassVar[int] = UNIT_ROWS * CHUNK_STEPS * SLOT_BITS // 32
    #: Bytes of a vector, a row of the matrices that are loaded together, and copies of x in shared memory.
    VECTOR_BYTES: ClassVar[int] = 16
    INPUT_COPIES: ClassVar[int] = 8
    #: 32-bit words that name a unit's rows, a byte each.
    UNIT_ROW_WORDS: ClassVar[int] = UNIT_ROWS // 4

    @property
    def parts_of_table(self) -> int:
        """Parts of a stage's table."""
        return (1 << self.code_bits) // self.part_entries

    @property
    def parts(self) -> int:
        """Parts of all stages' tables."""
        return self.residuals * self.parts_of_table

    @property
    def panels(self) -> int:
        """Panels of a row."""
        return -(-self.vectors // self.panel_vectors)

    @property
    def buckets(self) -> int:
        """Pairs of a panel and a part."""
        return self.panels * self.parts

    @property
    def part_bytes(self) -> int:
        """Bytes of a part's entries."""
        return self.VECTOR_BYTES * self.part_entries

    @property
    def resident_bytes(self) -> int:
        """Shared memory of a part of the book, and of the copies of a panel of x and a vector of zeros."""
        return self.part_bytes + self.VECTOR_BYTES * self.INPUT_COPIES * (self.panel_vectors + 1)

    def blocks(self, rows: int) -> int:
        """Blocks of rows, the last one perhaps not full."""
        return -(-rows // self.BLOCK_ROWS)

    def units(self, rows: int) -> int:
        """Units of all buckets and blocks, in this order."""
        return self.buckets * self.blocks(rows) * self.BLOCK_UNITS

    def row_offset(self, rows: int) -> int:
        """Where the units' rows stand, in words: after the units' first chunks and the end of the last one."""
        return -(-(self.units(rows) + 1) // 4) * 4

    def chunk_offset(self, rows: int) -> int:
        """Where the chunks begin, in words."""
        return self.row_offset(rows) + self.units(rows) * self.UNIT_ROW_WORDS

    def code_shape(self, rows: int) -> None:  # noqa: ARG002
        """None: packed codes are one-dimensional, and as long as the codes make them."""
        return


CodeLayout = PackedLayout | RotatedLayout | FragmentLayout | BucketLayout
#: Code layouts by what the manifest and packed files call them.
CODE_LAYOUTS: Mapping[str, type[CodeLayout]] = {
    layout.kind: layout for layout in (PackedLayout, RotatedLayout, FragmentLayout, BucketLayout)
}


def layout_mapping(layout: CodeLayout) -> dict[str, Any]:
    """A layout as plain data, its kind first."""
    return {"kind": layout.kind, **asdict(layout)}
