"""QuIP#'s E8P codebook (Tseng et al. 2024, "QuIP#", Sec. 4.2): 65,536 entries computed from a 2 KB table.

An entry of eight values is a row of absolute values (high byte of the code), an even number of sign flips
(low byte) and a shift of a quarter up or down (the parity of the low byte). A second residual stage uses
the same entries divided by 3.45. The Hadamard transforms around the product are not part of this.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field

from vqcc.algorithms.base import Algorithm, DeviceAlgorithm
from vqcc.algorithms.fields import Scales, ScalesField, Scope, ScopeField
from vqcc.diagnostics import field_error

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.tensors.vq_tensor import VQTensor

VECTOR_SIZE = 8
ENTRIES = 65536
TABLE_ROWS = 256
SIGN_MASKS = 256
# What the second stage's entries are divided by.
RESIDUAL_DIVISOR = 3.45

# The rows of squared length 12 that complete the 227 shorter ones to 256, each value times two.
_LONG_ROWS = (
    "31113333 13113333 11313333 11133333 33313311 33313131 33311331 33313113 33311313 33311133 "
    "33133311 33133131 33131331 33133113 33131313 33131133 31333311 31333131 31331331 31333113 "
    "31331313 13331133 13333311 13333131 13331331 13333113 13331313 11331333 33113331"
)
# Column of a row that nibble j of its packed word holds, so that nibbles k and k + 4 are neighbours.
_NIBBLE_COLUMN = (0, 2, 4, 6, 1, 3, 5, 7)
# Nibble, and sign bit, of element i of a vector: the inverse of the above.
_ELEMENT_NIBBLE = (0, 4, 1, 5, 2, 6, 3, 7)
# Rows whose sum is odd carry one negative value, here, to make every sum even.
_ODD_COLUMN = 7


def _tensor_scope_only(value: object) -> object:
    if value != "tensor" and not (isinstance(value, Scope) and value.is_tensor):
        raise field_error(
            "VQ0312",
            "e8p has one fixed codebook, so its scope can only be the tensor",
            "write scope: tensor, or leave it out",
        )
    return value


def _no_group_scales(value: object) -> object:
    kind = value.kind if isinstance(value, Scales) else "group" if isinstance(value, dict) else value
    if kind == "group":
        raise field_error(
            "VQ0313", "e8p does not offer group scales", "write scales: tensor (the default), row or none"
        )
    return value


class E8P(Algorithm):
    """QuIP#'s computed codebook, in the spec `family: e8p`; only residuals and scales are free."""

    device_header: ClassVar[str] = "algorithms/e8p.cuh"
    device_type: ClassVar[str] = "E8P"

    family: Literal["e8p"]
    vector_size: Literal[8] = 8
    entries: Literal[65536] = 65536
    residuals: Annotated[int, Field(ge=1, le=2)] = 1
    scope: Annotated[ScopeField, BeforeValidator(_tensor_scope_only)] = Scope()
    scales: Annotated[ScalesField, BeforeValidator(_no_group_scales)] = Scales(kind="tensor")

    @property
    def entry_stride(self) -> int:
        """Bytes between rows of the table on the device: one 32-bit word."""
        return 4

    @property
    def stage_bytes(self) -> int:
        """Bytes of the rows; every stage reads the same ones."""
        return TABLE_ROWS * 4

    @property
    def table_bytes(self) -> int:
        """Bytes of the table on the device, whatever the number of stages: rows, then what each sign byte does."""
        return (TABLE_ROWS + SIGN_MASKS) * 4

    @property
    def constant_entries(self) -> int:
        """One mask for each sign byte."""
        return SIGN_MASKS

    @property
    def table_count(self) -> int:
        """One: every stage looks up the same rows."""
        return 1

    @property
    def stage_sums(self) -> int:
        """One per stage: the second stage's points have a factor of their own."""
        return self.residuals

    @property
    def decode_operations(self) -> int:
        """The xor with the signs, a shift, and 2 for each of four pairs, counted in compiled code."""
        return 10

    def exact_in(self, dtype: Literal["float16", "bfloat16"]) -> bool:  # noqa: ARG002
        """Whether points are numbers of `dtype`: quarters up to 2.75 are numbers of both."""
        return True

    @property
    def minimum_vectors(self) -> int:
        """Nothing is learnt."""
        return 0

    def stored_codebook_bytes(self, n: int, k: int) -> int:  # noqa: ARG002
        """Count nothing: no codebook is stored with a tensor."""
        return 0

    def device(self) -> DeviceAlgorithm:
        """Name the device header, type and constants of this algorithm."""
        constants: tuple[tuple[str, int | str, str], ...] = (
            ("kVectorSize", VECTOR_SIZE, "weights per code"),
            ("kEntries", ENTRIES, "entries, computed from the table"),
            ("kResiduals", self.residuals, "codes per vector; the second stage's entry is divided by 3.45"),
            ("kCodeBits", self.code_bits, "high byte: table row; low byte: signs"),
            ("kTableBytes", self.table_bytes, "256 rows of eight nibbles, 2 |v| + 8; 256 masks of signs"),
        )
        return DeviceAlgorithm(self.device_header, self.device_type, constants)

    def decode(self, tensor: VQTensor, *, magnitudes: bool = False) -> NDArray[np.float64]:
        """Compute the weights [n, k] in float64, scales applied; or the sums of their terms' magnitudes."""
        import numpy as np

        n, k = tensor.shape
        values = np.abs(grid().astype(np.float64)) if magnitudes else grid().astype(np.float64)
        weights = np.zeros((n, k))
        for stage, codes in enumerate(tensor.codes):
            weights += values[codes].reshape(n, k) / stage_divisor(stage)
        scales = self.scales.expand(tensor.scales, k)
        weights *= np.abs(scales) if magnitudes else scales
        return weights

    def table_rows(self, codes: NDArray[Any]) -> NDArray[Any]:
        """Return the row of absolute values that each code looks up, uint8: its high byte."""
        import numpy as np

        return (codes >> 8).astype(np.uint8)

    def replace_rows(self, codes: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:
        """Return `codes` with their high bytes replaced by `rows`; the signs stay."""
        import numpy as np

        renamed: NDArray[np.uint16] = np.left_shift(rows, 8) | codes & 255
        return renamed

    def pack_tables(self, tensor: VQTensor, orders: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:  # noqa: ARG002
        """Lay out the table as the device reads it: bytes [1, 2048], the same for every tensor of one order."""
        import numpy as np

        rows = packed_table() if orders is None else packed_table()[orders[0, 0]]
        return np.concatenate([rows, sign_masks()]).view(np.uint8).reshape(1, -1)

    def learn(
        self, name: str, weights: NDArray[np.float32], *, seed: int, progress: Callable[[int, int], None]
    ) -> VQTensor:
        """Round to the nearest entries under the scales of least error; nothing is random but the sample."""
        from vqcc.tensors.e8p import learn_e8p

        return learn_e8p(self, name, weights, seed=seed, progress=progress)

    def random_tensor(self, rng: np.random.Generator, name: str, n: int, k: int) -> VQTensor:
        """Draw a valid VQ tensor of shape [n, k] with magnitudes like those of LLM weights."""
        import numpy as np

        from vqcc.tensors.vq_tensor import VQTensor, random_scales

        codes = rng.integers(0, ENTRIES, self.parts(n, k)[0].shape, dtype=np.uint16)
        scales = random_scales(self.scales, rng, n, k)
        return VQTensor(name=name, algorithm=self, shape=(n, k), dtype="float16", codes=codes, scales=scales)


def stage_divisor(stage: int) -> float:
    """Return what the entries of a residual stage are divided by."""
    return RESIDUAL_DIVISOR**stage


@cache
def absolute_rows() -> NDArray[Any]:
    """Build the 256 rows of absolute values, float64 [256, 8], each a half, three halves or five halves.

    First the absolute values of all vectors of half-integers with an even sum and squared length at most
    10, in lexicographic order, then the 29 fixed rows of squared length 12.
    """
    import numpy as np

    half_integers = np.array([0.5, 1.5, 2.5])
    candidates = np.stack(np.meshgrid(*[half_integers] * VECTOR_SIZE, indexing="ij"), axis=-1).reshape(-1, 8)
    # Every row can be given signs that make its sum even, so only the length decides.
    short = candidates[(candidates**2).sum(axis=1) <= 10]
    long = np.array([[int(digit) for digit in row] for row in _LONG_ROWS.split()]) / 2
    rows = np.concatenate([short, long])
    rows.setflags(write=False)
    return rows


def odd_rows() -> NDArray[Any]:
    """Tell which of the 256 rows have an odd sum, bool [256]."""
    odd: NDArray[Any] = absolute_rows().sum(axis=1) % 2 == 1
    return odd


@cache
def packed_table() -> NDArray[Any]:
    """Build the table of the device, uint32 [256]: nibble j is 2 v + 8 of column `_NIBBLE_COLUMN[j]`."""
    import numpy as np

    rows = absolute_rows().copy()
    rows[odd_rows(), _ODD_COLUMN] *= -1
    nibbles = (2 * rows + 8).astype(np.uint32)[:, list(_NIBBLE_COLUMN)]
    shifts = 4 * np.arange(VECTOR_SIZE, dtype=np.uint32)
    table: NDArray[Any] = np.bitwise_or.reduce(nibbles << shifts, axis=1)
    table = table.astype("<u4")
    table.setflags(write=False)
    return table


@cache
def sign_masks() -> NDArray[Any]:
    """Build what the device xors a row with, uint32 [256] by the low byte of a code.

    14 in the nibble of every sign that is set negates it about 8. A byte of odd parity flips its lowest sign, and has
    1 in every nibble: rows are odd, so each loses half a unit, the quarter up becoming a quarter down.
    """
    import numpy as np

    signs = np.arange(SIGN_MASKS, dtype=np.uint32)
    odd = np.bitwise_count(signs).astype(np.uint32) & 1
    bits = (signs ^ odd)[:, None] >> np.arange(VECTOR_SIZE, dtype=np.uint32) & 1
    shifts = 4 * np.arange(VECTOR_SIZE, dtype=np.uint32)
    masks: NDArray[Any] = np.bitwise_or.reduce((14 * bits | odd[:, None]) << shifts, axis=1).astype("<u4")
    masks.setflags(write=False)
    return masks


@cache
def grid() -> NDArray[Any]:
    """Decode all entries in the order of their codes, float32 [65536, 8]; every value is exact in float16."""
    import numpy as np

    codes = np.arange(ENTRIES, dtype=np.uint32)
    signs = codes & 255
    parity = np.bitwise_count(signs).astype(np.uint32) & 1
    signs = signs ^ parity
    words = packed_table()[codes >> 8]
    values = np.empty((ENTRIES, VECTOR_SIZE), np.float32)
    for element, nibble in enumerate(_ELEMENT_NIBBLE):
        magnitude = ((words >> np.uint32(4 * nibble)) & 15).astype(np.float32) * 0.5 - 4
        negative = (signs >> np.uint32(nibble)) & 1
        values[:, element] = np.where(negative, -magnitude, magnitude)
    values += np.where(parity, -0.25, 0.25).astype(np.float32)[:, None]
    values.setflags(write=False)
    return values


def element_nibbles() -> tuple[int, ...]:
    """Return nibble of the packed word, and sign bit of the code, of each element of a vector."""
    return _ELEMENT_NIBBLE
