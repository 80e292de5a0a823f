"""K-means codebooks (AQLM, GPTVQ and their like): every entry is stored, nothing is computed.

The value of a weight is the sum over residual stages of its vector's entry, times the tensor's scale; an
int8 entry is first multiplied by the scale of its book and stage.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field

from vqcc.algorithms.base import Algorithm, DeviceAlgorithm, Part
from vqcc.diagnostics import Finding, field_error
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.tensors.vq_tensor import VQTensor

CodebookDtype = Literal["float16", "bfloat16", "int8"]

_MAX_ENTRIES = 65536
_ENTRY_TYPES: dict[CodebookDtype, str] = {
    "float16": "vqcc::ElementType::kFloat16",
    "bfloat16": "vqcc::ElementType::kBfloat16",
    "int8": "vqcc::ElementType::kInt8",
}


def _power_of_two(entries: int) -> int:
    if entries > _MAX_ENTRIES:
        raise field_error(
            "VQ0311",
            f"{entries} entries need codes of {(entries - 1).bit_length()} bits; codes have at most 16",
            f"use at most {_MAX_ENTRIES} entries; more residual stages give more values with small codebooks",
        )
    if entries < 2 or entries & (entries - 1):
        above = max(2, 1 << max(entries, 1).bit_length())
        legal = f"use {above // 2} or {above}" if above > 2 else "use a power of two from 2 to 65536"
        raise field_error("VQ0205", f"entries must be a power of two, got {entries}", legal)
    return entries


_ENTRY_COUNTS = {"enum": [2**bits for bits in range(1, 17)]}


class KMeans(Algorithm):
    """Codebooks learnt by k-means, in the spec `family: kmeans`.

    On the device a book is [residuals, entries, entry_elements]: entries are padded with zeros so that each
    can be read in one aligned access.
    """

    stand_ins: ClassVar[dict[str, Any]] = {"entries": 2}
    device_header: ClassVar[str] = "algorithms/kmeans.cuh"
    device_type: ClassVar[str] = "KMeans"

    family: Literal["kmeans"]
    vector_size: Annotated[int, Field(ge=1, le=16)]
    entries: Annotated[int, AfterValidator(_power_of_two), Field(json_schema_extra=_ENTRY_COUNTS)]
    residuals: Annotated[int, Field(ge=1, le=8)] = 1
    codebook_dtype: CodebookDtype = "float16"
    # Checkpoints store wider codes than the entries need; a spec may state the width it means.
    stated_code_bits: Annotated[int | None, Field(alias="code_bits", exclude=True, ge=1, le=16)] = None

    @property
    def element_bytes(self) -> int:
        """Bytes of one element of an entry."""
        return 1 if self.codebook_dtype == "int8" else 2

    @property
    def codebook_type(self) -> str:
        """Type of stored codebook entries."""
        return self.codebook_dtype

    @property
    def entry_elements(self) -> int:
        """Elements of an entry on the device, padding included: 1, 2, 4, 8 or 16."""
        return 1 << (self.vector_size - 1).bit_length()

    @property
    def entry_stride(self) -> int:
        """Bytes between entries of a table on the device."""
        return self.entry_elements * self.element_bytes

    @property
    def stage_bytes(self) -> int:
        """Bytes of one residual stage of one book on the device."""
        return self.entries * self.entry_stride

    @property
    def table_bytes(self) -> int:
        """Bytes of one book on the device, all residual stages, rounded up to 16 for wide copies."""
        return -(-self.residuals * self.stage_bytes // 16) * 16

    @property
    def has_codebook_scales(self) -> bool:
        """Whether entries are integers that a float32 scale per book and stage makes real."""
        return self.codebook_dtype == "int8"

    def exact_in(self, dtype: Literal["float16", "bfloat16"]) -> bool:
        """Whether entries are stored in `dtype`, padding aside."""
        return self.codebook_dtype == dtype and self.entry_elements == self.vector_size

    @property
    def minimum_vectors(self) -> int:
        """Each entry needs a vector to start from."""
        return self.entries

    def stored_codebook_bytes(self, n: int, k: int) -> int:
        """Count the bytes of all codebooks of an [n, k] tensor, their scales included, as stored."""
        stage = self.entries * self.vector_size * self.element_bytes + 4 * self.has_codebook_scales
        return self.scope.books(n, k) * self.residuals * stage

    def device(self) -> DeviceAlgorithm:
        """Name the device header, type and constants of this algorithm."""
        constants: tuple[tuple[str, int | str, str], ...] = (
            ("kVectorSize", self.vector_size, "weights per code"),
            ("kEntries", self.entries, "entries per codebook"),
            ("kResiduals", self.residuals, "codes per vector; their entries are added"),
            ("kCodeBits", self.code_bits, "log2 of entries"),
            ("kEntryStride", self.entry_elements, "elements per stored entry, padding included"),
            ("kEntryType", _ENTRY_TYPES[self.codebook_dtype], "type of a stored element"),
            ("kTableBytes", self.table_bytes, "one book, all residual stages"),
        )
        return DeviceAlgorithm(self.device_header, self.device_type, constants)

    def check_fields(self) -> Iterator[Finding]:
        """Yield fields that contradict each other; needs no shape."""
        yield from super().check_fields()
        if self.scope.is_cache and self.has_codebook_scales:
            yield Finding(
                ("algorithm", "codebook_dtype"),
                "VQ0312",
                "int8 codebooks are not offered for a KV cache",
                "use codebook_dtype: float16 (the default) or bfloat16: a head's codebooks are small",
            )
        stated = self.stated_code_bits
        if stated is not None and stated != self.code_bits:
            yield Finding(
                ("algorithm", "code_bits"),
                "VQ0305",
                f"code_bits is {stated}, but {self.entries} entries are named by {counted(self.code_bits, 'bit')}",
                f"write code_bits: {self.code_bits}, leave it out, or use entries: {2**stated}; "
                "codes that a checkpoint stores wider are narrowed when they are packed",
            )

    def parts(self, n: int, k: int) -> tuple[Part, ...]:
        """Describe the arrays that make a VQ tensor of shape [n, k]."""
        books = self.scope.books(n, k)
        shape = (books, self.residuals, self.entries, self.vector_size)
        own: tuple[Part, ...] = (Part("codebooks", (self.codebook_dtype,), shape),)
        if self.has_codebook_scales:
            own += (Part("codebook_scales", ("float32",), (books, self.residuals)),)
        return super().parts(n, k) + own

    def decode(self, tensor: VQTensor, *, magnitudes: bool = False) -> NDArray[np.float64]:
        """Compute the weights [n, k] in float64, scales applied; or the sums of their terms' magnitudes."""
        import numpy as np

        n, k = tensor.shape
        books = codebook_values(tensor)
        if magnitudes:
            books = np.abs(books)
        weights = np.zeros((n, k))
        for book, (rows, columns) in zip(books, self.scope.slices(n, k), strict=True):
            vectors = slice(columns.start // self.vector_size, columns.stop // self.vector_size)
            for stage, codes in zip(book, tensor.codes[:, rows, vectors], strict=True):
                weights[rows, columns] += stage[codes].reshape(codes.shape[0], -1)
        scales = self.scales.expand(tensor.scales, k)
        weights *= np.abs(scales) if magnitudes else scales
        return weights

    def pack_tables(self, tensor: VQTensor, orders: NDArray[np.int64] | None = None) -> NDArray[np.uint8]:
        """Lay out the tables as the device reads them: bytes [books, table_bytes]; entries in `orders` if given."""
        import numpy as np

        codebooks = tensor.part("codebooks")
        if orders is not None:
            codebooks = np.take_along_axis(codebooks, orders[..., None], axis=2)
        books = codebooks.shape[0]
        padded = np.zeros((*codebooks.shape[:3], self.entry_elements), codebooks.dtype)
        padded[..., : self.vector_size] = codebooks
        tables = np.zeros((books, self.table_bytes), np.uint8)
        tables[:, : self.residuals * self.stage_bytes] = padded.view(np.uint8).reshape(books, -1)
        return tables

    def learn(
        self, name: str, weights: NDArray[np.float32], *, seed: int, progress: Callable[[int, int], None]
    ) -> VQTensor:
        """Learn codebooks by k-means, each residual stage on what the earlier ones left (needs faiss)."""
        from vqcc.tensors.kmeans import learn_kmeans

        return learn_kmeans(self, name, weights, seed=seed, progress=progress)

    def random_tensor(self, rng: np.random.Generator, name: str, n: int, k: int) -> VQTensor:
        """Draw a valid VQ tensor of shape [n, k] with magnitudes like those of LLM weights."""
        import numpy as np

        from vqcc.tensors.vq_tensor import VQTensor, numpy_dtype, random_scales

        codes_part, *_ = self.parts(n, k)
        codes = rng.integers(0, self.entries, codes_part.shape, dtype=np.uint16)
        # Weights of a linear have a deviation near 0.02; scales, where there are any, carry it.
        deviation = 1.0 if self.scales.kind != "none" else 0.02 * 2.0 ** rng.uniform(0, 5)
        shape = (self.scope.books(n, k), self.residuals, self.entries, self.vector_size)
        stages = 0.4 ** np.arange(self.residuals)
        books = rng.standard_normal(shape) * (deviation * stages[:, None, None])
        codebook_scales = None
        if self.has_codebook_scales:
            codebook_scales = (np.abs(books).max(axis=(2, 3)) / 127).astype(np.float32)
            books = np.rint(books / codebook_scales[:, :, None, None].astype(np.float64)).clip(-127, 127)
        return VQTensor(
            name=name,
            algorithm=self,
            shape=(n, k),
            dtype="float16",
            codes=codes.astype(self.codes_dtype),
            codebooks=books.astype(numpy_dtype(self.codebook_dtype)),
            codebook_scales=codebook_scales,
            scales=random_scales(self.scales, rng, n, k),
        )


def codebook_values(tensor: VQTensor) -> NDArray[np.float64]:
    """Values of all entries [books, residuals, entries, vector_size], int8 entries times their scale."""
    import numpy as np

    books = np.asarray(tensor.part("codebooks")).astype(np.float64)
    if tensor.codebook_scales is not None:
        books *= np.asarray(tensor.codebook_scales, dtype=np.float64)[:, :, None, None]
    return books
