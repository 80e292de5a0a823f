"""Counting the look-ups of a VQ tensor, in one pass over codes that may be a large mapped file.

A window of rows at a time is counted, hashed by a second thread meanwhile, and given back to the system: memory
does not grow with the file. Codes are checked by being counted.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event
from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import Diagnostic, VqccError
from vqcc.hotness.consistency import measure
from vqcc.hotness.model import Parts, TensorProfile
from vqcc.tensors.header import release_pages

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    from numpy.typing import NDArray

    from vqcc.algorithms.base import Algorithm
    from vqcc.tensors.vq_tensor import VQTensor

__all__ = ["codes_sha256", "count_codes", "profile_tensor"]

_WINDOW_BYTES = 8 << 20
# Parts of a book: enough of them to compare, each with enough codes that chance does not decide what is hot.
_FEWEST_PARTS, _MOST_PARTS, _CODES_PER_ENTRY = 2, 32, 8
# Books whose parts are compared, evenly spaced, and the counts that their parts may have: 64 MB.
_SAMPLED_BOOKS = 64
_MOST_PART_COUNTS = 1 << 23


def profile_tensor(
    tensor: VQTensor,
    *,
    part_rows: int | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,  # noqa: ARG005
) -> TensorProfile:
    """Count the look-ups of `tensor`, whose codes need not have been checked.

    A part of it is `part_rows` rows of a tile of the scope; by default a tile is cut into 2 to 32 equal parts,
    as many as leave each 8 codes per table entry. `progress` is called with (bytes done, bytes in all). Raises
    VqccError: VQ0521 for a code that names no entry, VQ0543 for parts that are too small.
    """
    sample = _sample(tensor.algorithm, tensor.shape, part_rows)
    digest = hashlib.sha256()
    counts, parts = _count(tensor, sample, digest.update, progress)
    return TensorProfile(
        name=tensor.name,
        algorithm=tensor.algorithm,
        shape=tensor.shape,
        codes_sha256=digest.hexdigest(),
        counts=counts,
        parts=Parts(sample.rows, parts[0], measure(parts.values())),
    )


def count_codes(tensor: VQTensor) -> NDArray[np.int64]:
    """Count the look-ups of each table entry: int64 [books, tables, entries]. Raises VqccError VQ0521."""
    return _count(tensor, None, None, lambda done, total: None)[0]  # noqa: ARG005


def codes_sha256(tensor: VQTensor) -> str:
    """Return the SHA-256 (hex) of the bytes of the codes in C order, as a profile has it."""
    digest = hashlib.sha256()
    for stage, rows in _windows(tensor.codes):
        digest.update(_bytes_of(tensor.codes[stage, rows]))
        release_pages(tensor.codes[stage, rows])
    return digest.hexdigest()


@dataclass(frozen=True)
class _Sample:
    """Which books are counted by parts of `rows` rows."""

    rows: int
    books: frozenset[int]


def _sample(algorithm: Algorithm, shape: tuple[int, int], part_rows: int | None) -> _Sample:
    rows, columns = (min(pair) for pair in zip(algorithm.scope.tile(*shape), shape, strict=True))
    books = algorithm.scope.books(*shape)
    book_entries = algorithm.table_count * algorithm.table_entries
    table_codes = rows * (columns // algorithm.vector_size) * (algorithm.residuals // algorithm.table_count)
    wanted = table_codes // (_CODES_PER_ENTRY * algorithm.table_entries)
    parts = max(_FEWEST_PARTS, min(wanted, _MOST_PARTS, _MOST_PART_COUNTS // book_entries))
    height = min(part_rows or -(-rows // parts), rows)
    size = -(-rows // height) * book_entries
    if size > _MOST_PART_COUNTS:
        most = _MOST_PART_COUNTS // book_entries
        raise VqccError(
            Diagnostic(
                "VQ0543",
                f"parts of {height} rows cut a tile of {rows} rows of {algorithm.label} into {-(-rows // height)}",
                help=f"at most {most} are counted: use --part-rows {-(-rows // most)} or more",
            )
        )
    sampled = min(books, _SAMPLED_BOOKS, _MOST_PART_COUNTS // size)
    return _Sample(height, frozenset(index * books // sampled for index in range(sampled)))


def _count(
    tensor: VQTensor,
    sample: _Sample | None,
    update: Callable[[memoryview], None] | None,
    progress: Callable[[int, int], None],
) -> tuple[NDArray[np.int64], dict[int, NDArray[np.int64]]]:
    """Count all tables, and the sampled books by parts: [books, tables, entries], {book: [parts, ...]}."""
    from vqcc.hotness.histogram import OutOfRangeError

    codes, tables = tensor.codes, _Tables(tensor, sample)
    done, hashing = 0, Event()

    def hash_window(data: memoryview) -> None:
        assert update is not None
        hashing.set()
        update(data)

    with ThreadPoolExecutor(max_workers=1) as pool:
        for stage, rows in _windows(codes):
            window = codes[stage, rows]
            hashed = None
            if update is not None:
                hashing.clear()
                hashed = pool.submit(hash_window, _bytes_of(window))
                # Counting keeps the interpreter's lock, hashing gives it back: it must have it first.
                hashing.wait()
            try:
                tables.add(stage, rows, window)
            except OutOfRangeError:
                tensor.check_codes()
                raise
            if hashed is not None:
                hashed.result()
            release_pages(window)
            done += window.nbytes
            progress(done, codes.nbytes)
    return tables.counts, tables.parts


class _Tables:
    """The counts of a tensor while its windows pass by."""

    def __init__(self, tensor: VQTensor, sample: _Sample | None) -> None:
        import numpy as np

        from vqcc.hotness.histogram import Histogram

        algorithm, (n, k) = tensor.algorithm, tensor.shape
        self.algorithm = algorithm
        self.histogram = Histogram(algorithm.table_entries)
        self.tile_rows, columns = algorithm.scope.tile(n, k)
        starts = range(0, k, columns)
        size = algorithm.vector_size
        self.columns = [slice(left // size, min(left + columns, k) // size) for left in starts]
        shape = (algorithm.table_count, algorithm.table_entries)
        self.counts = np.zeros((algorithm.scope.books(n, k), *shape), np.int64)
        self.part_rows = sample.rows if sample else 0
        self.parts = {
            book: np.zeros((-(-self._height(book, n) // self.part_rows), *shape), np.int64)
            for book in sorted(sample.books if sample else ())
        }

    def _height(self, book: int, n: int) -> int:
        """Rows of a book's tile, which the tensor's edge may cut."""
        top = book // len(self.columns) * self.tile_rows
        return min(self.tile_rows, n - top)

    def add(self, stage: int, rows: slice, window: NDArray[Any]) -> None:
        """Count codes [rows, vectors] of a stage, rows `rows` of the tensor. Raises OutOfRangeError."""
        algorithm = self.algorithm
        table = min(stage, algorithm.table_count - 1)
        for band in range(rows.start // self.tile_rows, -(-rows.stop // self.tile_rows)):
            top = band * self.tile_rows
            first, last = max(rows.start, top), min(rows.stop, top + self.tile_rows)
            found = algorithm.table_rows(window[first - rows.start : last - rows.start])
            books = slice(band * len(self.columns), (band + 1) * len(self.columns))
            if len(self.columns) == 1 and books.start in self.parts:
                self.counts[books.start, table] += self._add_parts(books.start, table, first - top, found)
                continue
            self.counts[books, table] += self.histogram.count_tiles(found, self.columns)
            for book in self.parts.keys() & range(books.start, books.stop):
                self._add_parts(book, table, first - top, found[:, self.columns[book - books.start]])

    def _add_parts(self, book: int, table: int, top: int, rows: NDArray[Any]) -> NDArray[np.int64]:
        """Count rows of a book, the first being row `top` of its tile, by parts; return their sum [entries]."""
        import numpy as np

        total = np.zeros(self.algorithm.table_entries, np.int64)
        start = 0
        while start < len(rows):
            part = (top + start) // self.part_rows
            stop = min((part + 1) * self.part_rows - top, len(rows))
            found = self.histogram.count(rows[start:stop])
            self.parts[book][part, table] += found
            total += found
            start = stop
        return total


def _windows(codes: NDArray[Any]) -> Iterator[tuple[int, slice]]:
    """Yield (stage, rows) of windows of about 8 MB that cover `codes` [residuals, n, vectors] in C order."""
    stages, n, _ = codes.shape
    row_bytes = max(1, codes.nbytes // (stages * n))
    height = max(1, _WINDOW_BYTES // row_bytes)
    for stage in range(stages):
        for start in range(0, n, height):
            yield stage, slice(start, min(start + height, n))


def _bytes_of(codes: NDArray[Any]) -> memoryview:
    import numpy as np

    return np.ascontiguousarray(codes).reshape(-1).view(np.uint8).data
