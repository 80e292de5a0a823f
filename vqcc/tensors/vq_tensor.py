"""A quantized weight: codes, codebooks and scales, with the algorithm that gives them their meaning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import DiagnosticList

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.algorithms.base import Algorithm, Part, Scales

PART_NAMES = ("codes", "codebooks", "codebook_scales", "scales")


@dataclass(frozen=True, eq=False)
class VQTensor:
    """A weight W [n, k] as an algorithm stores it; arrays may be read-only views of a file.

    codes [residuals, n, k / vector_size], uint8 or uint16; codebooks [books, residuals, entries,
    vector_size], books in row-major order of the tiles, None where entries are computed; codebook_scales
    float32 [books, residuals] for int8 books; scales [1] (tensor), [n] (row) or [n, ceil(k / G)] (group).
    `dtype` is the type the weight had; `relative_error` is ||W - decode|| / ||W|| where it is known.
    """

    name: str
    algorithm: Algorithm
    shape: tuple[int, int]
    dtype: str
    codes: NDArray[Any]
    codebooks: NDArray[Any] | None = None
    codebook_scales: NDArray[np.float32] | None = None
    scales: NDArray[Any] | None = None
    relative_error: float | None = None

    @property
    def stored_bits(self) -> float:
        """Bits of a weight as stored: codes, codebooks and scales."""
        return self.algorithm.bits_per_weight(*self.shape)

    def arrays(self) -> Iterator[tuple[str, NDArray[Any]]]:
        """Yield each array that is present with the name of its part."""
        for name in PART_NAMES:
            array = getattr(self, name)
            if array is not None:
                yield name, array

    def part(self, name: str) -> NDArray[Any]:
        """Return the array of a part that the algorithm has; `validate` tells whether it is there."""
        array = getattr(self, name)
        if array is None:
            raise ValueError(f"VQ tensor {self.name} has no {name}")
        result: NDArray[Any] = array
        return result

    def decode(self) -> NDArray[np.float64]:
        """Compute the weights [n, k] in float64, scales applied."""
        return self.algorithm.decode(self)

    def validate(self, *, check_codes: bool = True) -> None:
        """Check shapes, types and values of every part; raise VqccError (VQ05xx) with all that is wrong.

        Without `check_codes` the values of the codes are left to whoever reads them next (`check_codes`).
        """
        found = DiagnosticList()
        for problem in (*self.algorithm.check_fields(), *self.algorithm.check(*self.shape)):
            found.error(problem.code, f"tensor {self.name}: {problem.message}", help=problem.help)
        # Shapes mean nothing for an algorithm that does not fit the weight.
        found.raise_if_errors()
        parts = {part.name: part for part in self.algorithm.parts(*self.shape)}
        arrays = dict(self.arrays())
        for part in parts.values():
            if part.name not in arrays:
                found.error(
                    "VQ0517",
                    f"tensor {self.name} has no {part.name}",
                    help=f"store {self.name}.{part.name} {_type_text(part)}",
                )
        for name, array in arrays.items():
            expected = parts.get(name)  # type: ignore[call-overload]
            if expected is None:
                found.error(
                    "VQ0518",
                    f"tensor {self.name} has {name}, which its algorithm does not use",
                    help=f"leave {self.name}.{name} out, or describe the algorithm that uses it",
                )
            elif self._check_type(expected, array, found) and (check_codes or name != "codes"):
                self._check_values(expected, array, found)
        found.raise_if_errors()

    def check_codes(self) -> None:
        """Check that every code names an entry. Raises VqccError VQ0521 with the first that does not."""
        found = DiagnosticList()
        codes = next(part for part in self.algorithm.parts(*self.shape) if part.name == "codes")
        self._check_values(codes, self.codes, found)
        found.raise_if_errors()

    def _check_type(self, part: Part, array: NDArray[Any], found: DiagnosticList) -> bool:
        before = len(found)
        where = f"{self.name}.{part.name}"
        if array.dtype.name not in part.dtypes:
            found.error("VQ0519", f"{where} is {array.dtype.name}", help=f"expected {_type_text(part)}")
        if array.shape != part.shape:
            found.error(
                "VQ0520",
                f"{where} has shape {_shape_text(array.shape)}, expected {_shape_text(part.shape)}",
                help=f"weight {_shape_text(self.shape)}, {self.algorithm.label}",
            )
        return len(found) == before

    def _check_values(self, part: Part, array: NDArray[Any], found: DiagnosticList) -> None:
        where = f"{self.name}.{part.name}"
        if part.name == "codes":
            entries = self.algorithm.entries
            place = _first_above(array, entries - 1)
            if place is not None:
                found.error(
                    "VQ0521",
                    f"{where}{list(place)} is {int(array[place])}, but there are {entries} entries",
                    help=f"codes are 0 to {entries - 1}; the axes are [stage, row, vector]",
                )
        elif array.dtype.kind != "i":
            place = _first_not_finite(array)
            if place is not None:
                code = "VQ0522" if part.name == "codebooks" else "VQ0523"
                found.error(
                    code, f"{where}{list(place)} is {float(array[place])}", help="values must be finite"
                )


def numpy_dtype(name: str) -> np.dtype[Any]:
    """Return the NumPy type of a name; NumPy has no bfloat16 of its own."""
    import numpy as np

    if name == "bfloat16":
        import ml_dtypes

        bfloat16: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return bfloat16
    return np.dtype(name)


def random_scales(scales: Scales, rng: np.random.Generator, n: int, k: int) -> NDArray[Any] | None:
    """Draw positive scales such as the rows of an LLM's weights have, in the type vqcc writes."""
    import numpy as np

    shape = scales.shape(n, k)
    if shape is None:
        return None
    values: NDArray[Any] = 0.02 * np.exp(0.5 * rng.standard_normal(shape))
    return values.astype(scales.dtype)


def _shape_text(shape: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def _type_text(part: Part) -> str:
    return f"{' or '.join(part.dtypes)} {_shape_text(part.shape)}"


def _first_above(array: NDArray[Any], limit: int) -> tuple[int, ...] | None:
    """Index of the first element above `limit`, found a slice at a time: codes may be a large mapped file."""
    import numpy as np

    if limit >= np.iinfo(array.dtype).max:
        return None
    return _first(array, lambda block: block > limit)


def _first_not_finite(array: NDArray[Any]) -> tuple[int, ...] | None:
    import numpy as np

    return _first(array, lambda block: ~np.isfinite(block.astype(np.float32)))


def _first(array: NDArray[Any], wrong: Any, block: int = 1 << 22) -> tuple[int, ...] | None:
    import numpy as np

    flat = array.reshape(-1)
    for start in range(0, flat.size, block):
        found = wrong(flat[start : start + block])
        if found.any():
            place = np.unravel_index(start + int(found.argmax()), array.shape)
            return tuple(int(index) for index in place)
    return None
