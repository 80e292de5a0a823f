"""Quantized keys or values of a KV cache: codes and codebooks, with the algorithm that gives them their meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.diagnostics import DiagnosticList
from vqcc.tensors.vq_tensor import numpy_dtype

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from vqcc.algorithms.base import Algorithm

__all__ = ["CacheTensor"]


@dataclass(frozen=True, eq=False)
class CacheTensor:
    """Keys or values [kv_heads, tokens, head_dim] of a layer, quantized; arrays may be read-only views of a file.

    codes [sequences, kv_heads, tokens, head_dim / x, residuals], uint8 or uint16; codebooks [kv_heads, head_dim / x,
    residuals, entries, x], the leading axes 1 where the scope is wider. `shape` and `dtype` are those of the
    activations that they were learnt from; `relative_error` is ||A - decode|| / ||A|| where it is known.
    """

    name: str
    algorithm: Algorithm
    shape: tuple[int, int, int]
    dtype: str
    codes: NDArray[Any]
    codebooks: NDArray[Any]
    relative_error: float | None = None

    @property
    def stored_bits(self) -> float:
        """Bits of codes for a channel of a token; codebooks are there once for all tokens."""
        return self.algorithm.residuals * self.algorithm.code_bits / self.algorithm.vector_size

    @property
    def groups(self) -> int:
        """Channel groups of a kv-head."""
        return self.shape[2] // self.algorithm.vector_size

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield each array with the name of its part."""
        yield "codes", self.codes
        yield "codebooks", self.codebooks

    def book_of(self, head: int, group: int) -> NDArray[Any]:
        """The codebook [residuals, entries, x] of a channel group of a kv-head."""
        heads, groups = self.codebooks.shape[:2]
        book: NDArray[Any] = self.codebooks[head if heads > 1 else 0, group if groups > 1 else 0]
        return book

    def decode(self) -> NDArray[np.float64]:
        """What the codes stand for [sequences, kv_heads, tokens, head_dim], in float64."""
        sequences, heads, tokens, groups, _ = self.codes.shape
        size = self.algorithm.vector_size
        decoded = np.zeros((sequences, heads, tokens, groups, size))
        for head in range(heads):
            for group in range(groups):
                for stage, entries in enumerate(self.book_of(head, group).astype(np.float64)):
                    decoded[:, head, :, group] += entries[self.codes[:, head, :, group, stage]]
        return decoded.reshape(sequences, heads, tokens, groups * size)

    def validate(self) -> None:
        """Check shapes, types and values. Raises VqccError: VQ03xx and VQ05xx with all that is wrong."""
        found = DiagnosticList()
        heads, _, head_dim = self.shape
        for problem in (*self.algorithm.check_fields(), *self.algorithm.check_cache(heads, head_dim)):
            found.error(problem.code, f"tensor {self.name}: {problem.message}", help=problem.help)
        found.raise_if_errors()
        for name, array, dtype, shape in self._expected():
            where = f"{self.name}.{name}"
            if array.dtype != numpy_dtype(dtype):
                found.error("VQ0519", f"{where} is {array.dtype.name}", help=f"expected {dtype}")
            if array.shape[-len(shape) :] != shape or array.ndim != 5:
                wanted = [*(["any"] * (5 - len(shape))), *map(str, shape)]
                message = f"{where} has shape {list(array.shape)}, expected [{', '.join(wanted)}]"
                found.error("VQ0520", message, help=f"activations {list(self.shape)}, {self.algorithm.label}")
        found.raise_if_errors()
        entries = self.algorithm.entries
        if self.codes.size and int(self.codes.max()) >= entries:
            place = np.unravel_index(int(self.codes.argmax()), self.codes.shape)
            message = f"{self.name}.codes{[int(index) for index in place]} is {int(self.codes.max())}"
            found.error(
                "VQ0521", f"{message}, but there are {entries} entries", help=f"codes are 0 to {entries - 1}"
            )
        finite = np.isfinite(self.codebooks.astype(np.float32))
        if not finite.all():
            place = np.unravel_index(int(finite.argmin()), finite.shape)
            message = f"{self.name}.codebooks{[int(index) for index in place]} is not finite"
            found.error("VQ0522", message, help="values must be finite")
        found.raise_if_errors()

    def _expected(self) -> Iterator[tuple[str, NDArray[Any], str, tuple[int, ...]]]:
        """Parts with their type and the last axes of their shape."""
        algorithm, (heads, _, _) = self.algorithm, self.shape
        stages = algorithm.residuals
        yield "codes", self.codes, algorithm.codes_dtype, (self.groups, stages)
        books = algorithm.scope.cache_books(heads, self.groups)
        shape = (*books, stages, algorithm.entries, algorithm.vector_size)
        assert algorithm.codebook_type is not None  # computed points have no scope of a cache
        yield "codebooks", self.codebooks, algorithm.codebook_type, shape
