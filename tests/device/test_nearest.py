"""The search for nearest entries: NumPy's codes where scores are far from exact, and a threshold that cuts none off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np
import pytest

from vqcc.emulator import Buffer
from vqcc.tensors.cache_codes import nearest_codes

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vqcc.emulator import Emulated

TYPES = {"Float16": np.float16, "Bfloat16": ml_dtypes.bfloat16}
VECTORS = 32


@dataclass(frozen=True)
class Search:
    """2^bits entries of `size` channels of a type, for vectors of `element`, or for what is left of them."""

    size: int
    bits: int
    entry: str = "Float16"
    element: str = "Float16"
    rest: bool = False

    @property
    def staged(self) -> bool:
        """Whether a block may have the book in shared memory: sheets are whole."""
        sheet = 16 * 8 // min(8, self.size) * (4 if self.size == 16 else 8)
        return 2 * 16 * 8 // min(8, self.size) <= 1 << self.bits and (
            sheet <= 1 << self.bits or self.bits >= 8
        )

    @property
    def parts(self) -> int:
        return 2 if self.rest or (self.element, self.entry) == ("Float16", "Bfloat16") else 1


SEARCHES = {
    "one sheet": Search(4, 8),
    "several sheets": Search(8, 9),
    "deep": Search(16, 7),
    "deep, of parts": Search(16, 7, rest=True),
    "pairs": Search(2, 8),
    "pairs of parts": Search(2, 8, rest=True),
    "single channels": Search(1, 8),
    "less than a sheet": Search(4, 3),
    "two entries": Search(2, 1, rest=True),
    "bfloat16 vectors": Search(4, 8, element="Bfloat16"),
    "bfloat16 entries": Search(4, 8, entry="Bfloat16"),
    "bfloat16": Search(8, 8, entry="Bfloat16", element="Bfloat16"),
}


def source(search: Search) -> str:
    stages = 2 if search.rest else 1
    return f"""
struct Codes {{
  static constexpr int kVectorSize = {search.size}, kEntries = {1 << search.bits}, kResiduals = {stages};
  static constexpr int kCodeBits = {search.bits}, kEntryStride = {search.size};
  static constexpr int kTableBytes = {-(-stages * (2 * search.size << search.bits) // 16) * 16};
  static constexpr ElementType kEntryType = ElementType::k{search.entry};
}};
using Algorithm = KMeans<Codes>;

template <Space kSpace>
__device__ void search(const float* vectors, const StageEntries<kSpace>& entries, uint8* scratch, int* codes) {{
  float own[{search.size}];
  for (int c = 0; c < {search.size}; ++c) own[c] = vectors[lane_index() * {search.size} + c];
  const NearestEntries<Algorithm, ElementType::k{search.element}, {VECTORS}, kSpace> nearest(scratch);
  nearest.take(own);
  nearest.find(entries, ~0u, [=](int vector, uint32 code) {{ codes[vector] = static_cast<int>(code); }});
}}

extern "C" __global__ void from_global(const float* vectors, const uint8* book, int* codes) {{
  search<Space::kGlobal>(vectors, {{book, nullptr}}, dynamic_shared(), codes);
}}

extern "C" __global__ void from_shared(const float* vectors, const uint8* book, int* codes) {{
  using Staged = StagedBooks<Algorithm, 1, kWarpSize>;
  if constexpr (Staged::kPossible) {{
    Staged(book).store_to(dynamic_shared());
    block_barrier();
    search(vectors, Staged::stage(dynamic_shared(), 0, 0), dynamic_shared() + Staged::kBytes, codes);
  }}
}}
"""


@pytest.fixture(scope="module", params=SEARCHES)
def case(request: pytest.FixtureRequest, emulate_device: Callable[..., Emulated]) -> tuple[Search, Emulated]:
    search = SEARCHES[request.param]
    return search, emulate_device(("attention/nearest.cuh", "algorithms/kmeans.cuh"), source(search))


def check(case: tuple[Search, Emulated], vectors: NDArray[Any], book: NDArray[Any]) -> None:
    """Codes of `vectors` [32, size] among `book` [entries, size], from global and from shared memory."""
    search, emulated = case
    element = np.float32 if search.rest else TYPES[search.element]
    with np.errstate(all="ignore"):
        vectors = vectors.astype(element).astype(np.float32)
        entries = book.astype(TYPES[search.entry])
        expected = nearest_codes(vectors, entries[None])[..., 0]
    stages = 2 if search.rest else 1
    packed = np.zeros(-(-stages * entries.nbytes // 16) * 16, np.uint8)
    packed[: entries.nbytes] = entries.reshape(-1).view(np.uint8)
    for kernel in ("from_global", *(("from_shared",) if search.staged else ())):
        codes = np.full(VECTORS, -1, np.int32)
        emulated.launch(
            kernel,
            (1, 1, 1),
            (32, 1, 1),
            64 * 1024,
            [Buffer("vectors", vectors, "input"), Buffer("book", packed, "input"), Buffer("codes", codes, "output")],
        )  # fmt: skip
        np.testing.assert_array_equal(codes, expected)


def drawn(search: Search, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    return rng.standard_normal((VECTORS, search.size)), rng.standard_normal((1 << search.bits, search.size))


def test_random(case: tuple[Search, Emulated]) -> None:
    check(case, *drawn(case[0]))


def test_equal_entries_go_to_the_lowest(case: tuple[Search, Emulated]) -> None:
    vectors, book = drawn(case[0])
    book[:] = book[: max(1, len(book) // 4)].repeat(4, axis=0)[: len(book)][::-1]
    check(case, vectors, book)
    check(case, vectors, np.ones_like(book))


def test_entries_at_equal_distances(case: tuple[Search, Emulated]) -> None:
    """Vectors between two entries, on a grid where every distance is exact, and where the last bit decides."""
    rng = np.random.default_rng(1)
    shape = (1 << case[0].bits, case[0].size)
    grid = rng.integers(-2, 3, shape)
    between = rng.integers(-2, 3, (VECTORS, case[0].size)) + 0.5
    check(case, between, grid)
    check(case, between / 3, grid / 3)
    check(case, between, grid + rng.integers(-2, 3, shape) * 2.0**-10)


def test_far_from_the_origin(case: tuple[Search, Emulated]) -> None:
    """Scores of entries that lie near one another cancel: their differences are rounding."""
    vectors, book = drawn(case[0])
    for offset in (16.0, 1000.0):
        check(case, vectors + offset, book + offset)
        check(case, vectors, book + offset)
        check(case, vectors + offset, book)


@pytest.mark.parametrize("exponent", [-23, -15, -10, 10, 14])
def test_small_and_large_numbers(case: tuple[Search, Emulated], exponent: int) -> None:
    vectors, book = drawn(case[0])
    scale = 2.0**exponent
    check(case, vectors * scale, book * scale)
    check(case, vectors * scale, book)
    check(case, vectors, book * scale)


def test_numbers_that_overflow_and_none(case: tuple[Search, Emulated]) -> None:
    """Vectors among others that are infinite, none, zero, or too large for 16 bits; entries likewise."""
    vectors, book = drawn(case[0])
    odd = vectors.copy()
    odd[::5], odd[1::7, 0], odd[2::9, -1] = 0.0, np.nan, np.inf
    odd[3::8] *= 60000.0
    odd[4::11] = -np.inf
    check(case, odd, book)
    check(case, odd * 1e18, book)
    check(case, odd * 1e-30, book)
    strange = book.copy()
    strange[::3, 0], strange[1::5], strange[len(book) // 2, -1] = np.inf, np.nan, -np.inf
    check(case, vectors, strange)
    check(case, odd, strange)
    check(case, vectors, np.full_like(book, np.inf))
    check(case, vectors, np.full_like(book, np.nan))


@pytest.mark.parametrize(
    "name", ["one sheet", "several sheets", "deep, of parts", "pairs", "bfloat16 entries"]
)
def test_no_nearest_entry_is_above_the_threshold(name: str) -> None:
    """Scores as far off as tensor cores may be, to the worse side of each: the nearest entry still is a candidate."""
    search = SEARCHES[name]
    depth = 16 if search.size == 16 else 8
    unit, roundings = 2.0**-24, search.size + 2 * (depth + 2) * search.parts
    rng = np.random.default_rng(2)
    room = []
    for scale in (0.01, 1.0, 30.0):
        for offset in (0.0, 1.0, 50.0):
            vectors = (rng.standard_normal((400, search.size)) + offset) * scale
            book = (rng.standard_normal((1 << search.bits, search.size)) * 2.0**-8 + offset) * scale
            element = np.float32 if search.rest else TYPES[search.element]
            x = vectors.astype(element).astype(np.float64)
            entries = book.astype(TYPES[search.entry]).astype(np.float64)
            left = 2 * x
            for _ in range(search.parts):
                left = left - left.astype(TYPES[search.entry]).astype(np.float64)
            terms = np.concatenate([np.square(entries) + 0 * x[:, None], -2 * x[:, None] * entries], axis=-1)
            scores = terms.sum(-1)
            off = roundings * unit * np.abs(terms).sum(-1) + np.abs(left[:, None] * entries).sum(-1)
            codes = nearest_codes(x.astype(np.float32), entries[None].astype(TYPES[search.entry]))[:, 0]
            least = (scores - off).min(-1)
            above = (scores + off)[np.arange(len(x)), codes] - least
            error = (roundings + 4) * unit
            limit = (
                40 * error * np.square(x).sum(-1) + 10 * error * least + 3 / error * np.square(left).sum(-1)
            )
            assert (above <= limit + 2.0**-99).all()
            room.append((1 - above / limit).min())
    assert min(room) < 0.9, "the cases are hard: what is allowed is made use of"
