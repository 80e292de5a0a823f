"""What every vector-quantization algorithm says about itself; the families derive from `Algorithm`.

An algorithm is a frozen pydantic model: the mapping of a spec and the object the passes ask are one thing.
It knows no op and no GPU. NumPy is imported only where arrays are touched: compiling a kernel needs none.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import BaseModel

from vqcc.algorithms.fields import FROZEN, MAX_INDEX, DirectionField, Scales, ScalesField, Scope, ScopeField
from vqcc.diagnostics import Finding
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.tensors.vq_tensor import VQTensor

__all__ = ["Algorithm", "DeviceAlgorithm", "Part", "Scales", "Scope"]


@dataclass(frozen=True)
class DeviceAlgorithm:
    """How a template names the device half of an algorithm and the constants it is instantiated with.

    `constants` are (name, value, comment); a text value is an enumerator of the device headers, never
    text of a spec.
    """

    header: str
    type_name: str
    constants: tuple[tuple[str, int | str, str], ...]


@dataclass(frozen=True)
class Part:
    """One array of a VQ tensor, stored as NAME.`name`; of several `dtypes` the first is what vqcc writes."""

    name: Literal["codes", "codebooks", "codebook_scales", "scales"]
    dtypes: tuple[str, ...]
    shape: tuple[int, ...]


class Algorithm(BaseModel, ABC):
    """A vector-quantization algorithm: VQ<vector_size, code_bits, residuals> and how it is stored.

    A weight W [n, k] is cut along k into vectors; each is the sum of one codebook entry per residual stage,
    times a scale. Shapes of the arrays: vqcc.tensors.vq_tensor.
    """

    model_config = FROZEN
    #: Values for required fields when only relations between the others are asked about (vqcc.spec.salvage).
    stand_ins: ClassVar[dict[str, Any]] = {}
    device_header: ClassVar[str]
    device_type: ClassVar[str]

    family: str
    vector_size: int
    entries: int
    residuals: int
    scope: ScopeField = Scope()
    scales: ScalesField = Scales()
    direction: DirectionField = "in"

    @property
    def code_bits(self) -> int:
        """Bits of one code: log2 of the entries."""
        return self.entries.bit_length() - 1

    @property
    def codes_dtype(self) -> Literal["uint8", "uint16"]:
        """Type of the codes in a VQ tensor, unpacked."""
        return "uint8" if self.code_bits <= 8 else "uint16"

    @property
    def label(self) -> str:
        """The paper's notation: vector size, log2 of entries, residual stages."""
        return f"VQ<{self.vector_size},{self.code_bits},{self.residuals}>"

    @property
    def has_codebook_scales(self) -> bool:
        """Whether entries are integers that a float32 scale per book and stage makes real."""
        return False

    @property
    @abstractmethod
    def entry_stride(self) -> int:
        """Bytes between rows of a table on the device."""

    @property
    @abstractmethod
    def stage_bytes(self) -> int:
        """Bytes of one residual stage of one book on the device."""

    @property
    @abstractmethod
    def table_bytes(self) -> int:
        """Bytes of one book on the device, all residual stages, a multiple of 16."""

    @property
    def table_entries(self) -> int:
        """Entries of one stage of a table on the device; fewer than `entries` where points are computed."""
        return self.stage_bytes // self.entry_stride

    @property
    def table_count(self) -> int:
        """Tables of a book: what look-ups index; one per residual stage unless the stages share it."""
        return self.residuals

    @property
    def entry_words(self) -> int:
        """32-bit registers of a looked-up entry."""
        return -(-self.entry_stride // 4)

    @property
    def constant_entries(self) -> int:
        """Entries of a book's last table, which every code looks up too and no order changes; 0 if it has none."""
        return 0

    @property
    def codebook_type(self) -> str | None:
        """Type of stored codebook entries; None where points are computed."""
        return None

    @property
    def stage_sums(self) -> int:
        """Sums that the products of a weight's stages go into, if each stage is multiplied by itself."""
        return 1

    @property
    def decode_operations(self) -> int:
        """Arithmetic instructions that make an entry of what was looked up, 16-bit pairs of elements at a time."""
        return 0

    @abstractmethod
    def exact_in(self, dtype: Literal["float16", "bfloat16"]) -> bool:
        """Whether each stage's entries, factors and scales aside, are numbers of `dtype`."""

    @property
    @abstractmethod
    def minimum_vectors(self) -> int:
        """Vectors that each book needs to be learnt from; 0 where nothing is learnt."""

    @abstractmethod
    def stored_codebook_bytes(self, n: int, k: int) -> int:
        """Count the bytes of all codebooks of an [n, k] tensor, their scales included, as stored."""

    @abstractmethod
    def device(self) -> DeviceAlgorithm:
        """Name the device header, type and constants of this algorithm."""

    @abstractmethod
    def decode(self, tensor: VQTensor, *, magnitudes: bool = False) -> NDArray[np.float64]:
        """Weights [n, k] in float64, scales applied: the reference every kernel is held against.

        With `magnitudes`, the sum over stages of |entry|, times |scale|: what decoding in fp32 can be off by
        is relative to these, not to the weights, since stages may cancel.
        """

    @abstractmethod
    def pack_tables(self, tensor: VQTensor, orders: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """Lay out the tables as the device reads them: bytes [books, table_bytes].

        With `orders` [books, table_count, table_entries], row i of a table is its row orders[..., i]: codes that
        `rename` gives for the same orders then decode to the same weights.
        """

    @abstractmethod
    def learn(
        self, name: str, weights: NDArray[np.float32], *, seed: int, progress: Callable[[int, int], None]
    ) -> VQTensor:
        """Quantize finite weights [n, k] that `check` accepts; the same seed gives the same tensor.

        `progress` is called with (steps done, steps in all). Raises VqccError.
        """

    @abstractmethod
    def random_tensor(self, rng: np.random.Generator, name: str, n: int, k: int) -> VQTensor:
        """Draw a valid VQ tensor of shape [n, k] with magnitudes like those of LLM weights."""

    def table_rows(self, codes: NDArray[Any]) -> NDArray[Any]:
        """Return the table row that each code looks up, of any shape and unsigned."""
        return codes

    def replace_rows(self, codes: NDArray[Any], rows: NDArray[Any]) -> NDArray[Any]:  # noqa: ARG002
        """Return `codes` with the table rows that they look up replaced by `rows`, which have the codes' type."""
        return rows

    def rename(self, codes: NDArray[Any], orders: NDArray[np.int64], shape: tuple[int, int]) -> NDArray[Any]:
        """Rewrite codes [residuals, n, k / vector_size] so that they look up tables laid out by `orders`.

        `orders` [books, table_count, table_entries] gives, for each new row number, the old one (VQ-LLM, Sec. V-B:
        the most frequent entry gets number 0). `shape` is the weight's [n, k].
        """
        import numpy as np

        numbers = np.argsort(orders, axis=-1).astype(self.codes_dtype)
        renamed = np.empty(codes.shape, self.codes_dtype)
        for book, (rows, columns) in enumerate(self.scope.slices(*shape)):
            vectors = slice(columns.start // self.vector_size, columns.stop // self.vector_size)
            for stage in range(self.residuals):
                table = min(stage, self.table_count - 1)
                old = codes[stage, rows, vectors]
                new = numbers[book, table].take(self.table_rows(old))
                renamed[stage, rows, vectors] = self.replace_rows(old, new)
        return renamed

    def parts(self, n: int, k: int) -> tuple[Part, ...]:
        """Describe the arrays that make a VQ tensor of shape [n, k]."""
        codes = Part("codes", (self.codes_dtype,), (self.residuals, n, k // self.vector_size))
        shape = self.scales.shape(n, k)
        if shape is None:
            return (codes,)
        # Kernels read group scales at half precision, others at single: nothing may be lost on the way.
        dtypes = ("float16",) if self.scales.kind == "group" else ("float32", "float16")
        return (codes, Part("scales", dtypes, shape))

    def bits_per_weight(self, n: int, k: int) -> float:
        """Average the stored bits of an [n, k] tensor: packed codes, codebooks, and scales."""
        codes = self.residuals * n * (k // self.vector_size) * self.code_bits
        scale_bits = 16 if self.scales.dtype == "float16" else 32
        scales = self.scales.count(n, k) * scale_bits
        return (codes + scales + 8 * self.stored_codebook_bytes(n, k)) / (n * k)

    def check_fields(self) -> Iterator[Finding]:
        """Yield fields that contradict each other; needs no shape."""
        group = self.scales.group
        if group is not None and group % self.vector_size:
            yield Finding(
                ("algorithm", "scales", "group"),
                "VQ0309",
                f"scale group {group} is not a multiple of the vector size {self.vector_size}",
                f"a vector has one scale: {_nearest_multiples(group, self.vector_size)}",
            )
        channels = self.scope.channels
        if channels is not None and channels != self.vector_size:
            yield Finding(
                ("algorithm", "scope", "channels"),
                "VQ0304",
                f"groups of {counted(channels, 'channel')} do not hold one vector of {self.vector_size}",
                f"a group of channels has one codebook and is one vector: use {self.vector_size}, or scope: kv_head",
            )
        if self.scope.is_cache and self.scales.kind != "none":
            yield Finding(
                ("algorithm", "scales"),
                "VQ0313",
                f"a KV cache has no scales, got {self.scales.kind}",
                "use scales: none (the default): a token's entries are added as they are",
            )
        cols = self.scope.cols
        if cols is not None and cols % self.vector_size:
            yield Finding(
                ("algorithm", "scope", "cols"),
                "VQ0304",
                f"tile columns {cols} are not a multiple of the vector size {self.vector_size}",
                f"a vector belongs to one tile: {_nearest_multiples(cols, self.vector_size)}; "
                "only the tensor's edges may cut tiles",
            )

    def check(self, n: int, k: int) -> Iterator[Finding]:
        """Yield what makes this algorithm impossible for a weight [n, k]."""
        if self.scope.is_cache:
            yield Finding(
                ("algorithm",),
                "VQ0302",
                f"an algorithm of scope {_in_words(self.scope)} quantizes a KV cache, not a weight",
                "for a weight use a preset such as aqlm-2x8 or vq-x-y-z, or a scope of weights: tensor or {rows, cols}",
            )
            return
        if k % self.vector_size:
            yield Finding(
                ("op", "k"),
                "VQ0303",
                f"k = {k} is not a multiple of the vector size {self.vector_size}",
                f"vectors run along k: {_nearest_multiples(k, self.vector_size)}",
            )
        table = self.scope.books(n, k) * self.table_bytes
        if table > MAX_INDEX:
            yield Finding(
                ("algorithm", "scope"),
                "VQ0307",
                f"{counted(self.scope.books(n, k), 'codebook')} of {self.table_bytes} bytes: {table} bytes in all; "
                f"a 32-bit offset reaches {MAX_INDEX}",
                "use larger tiles, scope: tensor, or fewer entries",
            )

    def check_cache(self, kv_heads: int, head_dim: int) -> Iterator[Finding]:
        """Yield what makes this algorithm impossible for keys or values of `kv_heads` heads of `head_dim` channels."""
        if not self.scope.is_cache:
            yield Finding(
                ("algorithm",),
                "VQ0302",
                f"an algorithm of scope {_in_words(self.scope)} quantizes a weight, not a KV cache",
                "for a cache use a preset such as cq-2 or kv-x-y-z, or a scope of caches: layer, kv_head or "
                "{kv_heads: 1, channels: C}",
            )
            return
        if head_dim % self.vector_size:
            yield Finding(
                ("op", "head_dim"),
                "VQ0303",
                f"head_dim = {head_dim} is not a multiple of the vector size {self.vector_size}",
                f"vectors are neighbouring channels, and fill a head: use a vector size that divides {head_dim}",
            )
            return
        heads, groups = self.scope.cache_books(kv_heads, head_dim // self.vector_size)
        if heads * groups * self.table_bytes > MAX_INDEX:
            yield Finding(
                ("algorithm", "scope"),
                "VQ0307",
                f"{counted(heads * groups, 'codebook')} of {self.table_bytes} bytes pass what a 32-bit offset reaches",
                "use scope: kv_head or layer, or fewer entries",
            )

    def mapping(self) -> dict[str, Any]:
        """Return the full algorithm as a spec writes it: plain JSON values, every field spelt out."""
        return self.model_dump(mode="json", exclude_none=True)


def _in_words(scope: Scope) -> str:
    written = scope.spec()
    return (
        written
        if isinstance(written, str)
        else f"{{{', '.join(f'{key}: {value}' for key, value in written.items())}}}"
    )


def _nearest_multiples(value: int, factor: int) -> str:
    below = value // factor * factor
    return f"use {below} or {below + factor}" if below else f"use {factor}"
