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

    Codes are bytes. A row's lie stage after stage, each stage's padded to `padded_vectors`, a multiple of 32. They are
    cut into `panels` of PANEL_CODES; a panel of 32 neighbouring rows is four runs of 16 bytes a row, the rows' next to
    each other. Every 32 codes of row r are rotated: in place s stands code s ^ (r % 32).
    """

    vectors: int
    residuals: int
    padded_vectors: int
    panels: int
    kind: ClassVar[str] = "rotated"

    #: Codes of a panel's row, and rows that share a panel: the lanes of a warp.
    PANEL_CODES: ClassVar[int] = 64
    GROUP_ROWS: ClassVar[int] = 32

    @property
    def row_words(self) -> int:
        """32-bit words that a row takes, padding included."""
        return self.panels * self.PANEL_CODES // 4

    def code_shape(self, rows: int) -> tuple[int, ...]:
        """Shape of the packed codes of `rows` rows, in 32-bit words."""
        groups = -(-rows // self.GROUP_ROWS)
        return (self.panels, groups, self.GROUP_ROWS * self.PANEL_CODES // 4)


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


CodeLayout = PackedLayout | RotatedLayout | FragmentLayout
#: Code layouts by what the manifest and packed files call them.
CODE_LAYOUTS: Mapping[str, type[CodeLayout]] = {
    layout.kind: layout for layout in (PackedLayout, RotatedLayout, FragmentLayout)
}


def layout_mapping(layout: CodeLayout) -> dict[str, Any]:
    """A layout as plain data, its kind first."""
    return {"kind": layout.kind, **asdict(layout)}
