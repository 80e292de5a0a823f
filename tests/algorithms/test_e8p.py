"""QuIP#'s codebook against published test vectors and hashes of its tables."""

from __future__ import annotations

from hashlib import sha256
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from vqcc.algorithms import E8P
from vqcc.algorithms.e8p import absolute_rows, grid, odd_rows, packed_table, sign_masks

TABLE_SHA256 = "efc2c03c60acd955dc812ff2bade9ec6cc31259807e48473506161f3a9a230ce"
GRID_SHA256 = "fc8e597645925855da14ee1cfbc53882be2868d46c49960831dd934fe3431800"


def e8p(**fields: Any) -> E8P:
    return E8P.model_validate({"family": "e8p", **fields})


def test_table_has_the_published_hash() -> None:
    assert sha256(packed_table().astype("<u4").tobytes()).hexdigest() == TABLE_SHA256


def test_grid_has_the_published_hash() -> None:
    assert sha256(grid().astype("<f2").tobytes()).hexdigest() == GRID_SHA256


def test_first_and_last_words_of_the_table() -> None:
    first = [0x99999999, 0x59999999, 0xD9999999, 0x7999B999, 0xB999B999, 0x3999B999, 0x9999D999, 0x5999D999]
    assert packed_table()[:8].tolist() == first
    assert packed_table()[255] == 0x7B9BBB9B


@pytest.mark.parametrize(
    ("code", "values"),
    [
        (0x0000, (0.75,) * 8),
        (0x0001, (0.25,) * 8),
        (0x00FF, (-0.25,) * 8),
        (0x0180, (-0.75, 0.25, 0.25, 0.25, 0.25, 0.25, 0.25, 1.25)),
        (0x1234, (-0.75, -0.75, 0.25, -0.75, -1.75, 0.25, 0.25, 1.25)),
        (0xE300, (1.75, 0.75, 0.75, 0.75, 1.75, 1.75, 1.75, -1.25)),
        (0xFFFF, (-1.25, -1.25, -0.25, -0.25, -1.25, -1.25, -1.25, 0.75)),
    ],
)
def test_code_decodes_to_published_values(code: int, values: tuple[float, ...]) -> None:
    assert tuple(grid()[code]) == values


def test_rows_have_the_published_lengths() -> None:
    lengths, counts = np.unique((absolute_rows() ** 2).sum(axis=1), return_counts=True)
    assert dict(zip(lengths.tolist(), counts.tolist(), strict=True)) == {
        2: 1,
        4: 8,
        6: 28,
        8: 64,
        10: 126,
        12: 29,
    }
    assert odd_rows().sum() == 149


def test_entries_are_distinct_and_exact_in_float16() -> None:
    values = grid()
    assert len(np.unique(values, axis=0)) == 65536
    assert np.array_equal(values.astype(np.float16).astype(np.float32), values)
    lengths = (values.astype(np.float64) ** 2).sum(axis=1)
    assert (lengths.min(), lengths.max()) == (0.5, 16.5)
    assert lengths.mean() / 8 == pytest.approx(1.1963, abs=1e-4)


def test_decode_against_bit_arithmetic_of_one_code_at_a_time() -> None:
    algorithm = e8p(residuals=2, scales="row")
    tensor = algorithm.random_tensor(np.random.default_rng(1), "w", 5, 24)
    table = [int(word) for word in packed_table()]
    expected = np.zeros((5, 24))
    for stage, divisor in ((0, 1.0), (1, 3.45)):
        for row in range(5):
            for vector in range(3):
                code = int(tensor.codes[stage, row, vector])
                signs, word = code & 255, table[code >> 8]
                odd = signs.bit_count() % 2
                signs ^= odd
                for element, bit in enumerate((0, 4, 1, 5, 2, 6, 3, 7)):
                    value = ((word >> 4 * bit & 15) - 8) / 2
                    value = (-value if signs >> bit & 1 else value) + (-0.25 if odd else 0.25)
                    expected[row, 8 * vector + element] += value / divisor
    expected *= tensor.scales.astype(float)[:, None]
    assert np.array_equal(algorithm.decode(tensor), expected)


@pytest.mark.parametrize("residuals", [1, 2])
def test_table_of_the_device_does_not_depend_on_stages(residuals: int) -> None:
    algorithm = e8p(residuals=residuals)
    tensor = algorithm.random_tensor(np.random.default_rng(0), "w", 4, 16)
    tables = algorithm.pack_tables(tensor)
    assert tables.shape == (1, algorithm.table_bytes) == (1, 2048)
    assert np.array_equal(tables[0].view("<u4")[:256], packed_table())
    assert np.array_equal(tables[0].view("<u4")[256:], sign_masks())
    assert (algorithm.entry_stride, algorithm.stage_bytes, algorithm.table_entries) == (4, 1024, 256)
    assert algorithm.stored_codebook_bytes(4, 16) == 0
    assert algorithm.minimum_vectors == 0


def test_masks_apply_signs_and_shift() -> None:
    """Every entry is its row xor the mask of its low byte: nibble f is f / 2 - 4 + 1/4."""
    codes = np.arange(65536)
    words = packed_table()[codes >> 8] ^ sign_masks()[codes & 255]
    for element, nibble in enumerate((0, 4, 1, 5, 2, 6, 3, 7)):
        values = (words >> np.uint32(4 * nibble) & 15) / 2 - 4 + 0.25
        assert np.array_equal(values, grid()[:, element])


def test_device_constants() -> None:
    device = e8p(residuals=2).device()
    assert (device.header, device.type_name) == ("algorithms/e8p.cuh", "E8P")
    assert {name: value for name, value, _ in device.constants} == {
        "kVectorSize": 8,
        "kEntries": 65536,
        "kResiduals": 2,
        "kCodeBits": 16,
        "kTableBytes": 2048,
    }


@pytest.mark.parametrize(
    ("fields", "location", "kind"),
    [
        ({"residuals": 3}, ("residuals",), "less_than_equal"),
        ({"scope": {"rows": 8, "cols": 8}}, ("scope",), "VQ0312"),
        ({"scope": "tensors"}, ("scope",), "VQ0312"),
        ({"scales": {"group": 8}}, ("scales",), "VQ0313"),
        ({"scales": "rows"}, ("scales",), "VQ0206"),
        ({"vector_size": 4}, ("vector_size",), "literal_error"),
        ({"entries": 256}, ("entries",), "literal_error"),
        ({"direction": "out"}, ("direction",), "VQ0310"),
        ({"codebook_dtype": "int8"}, ("codebook_dtype",), "extra_forbidden"),
    ],
)
def test_wrong_value(fields: dict[str, Any], location: tuple[str, ...], kind: str) -> None:
    with pytest.raises(ValidationError) as caught:
        e8p(**fields)
    (found,) = caught.value.errors()
    assert (found["loc"], found["type"]) == (location, kind)


def test_k_must_be_a_multiple_of_eight() -> None:
    (problem,) = e8p().check(4, 12)
    assert problem.code == "VQ0303"
    assert "use 8 or 16" in (problem.help or "")
