"""The k-means family: its derived numbers, its checks, and its tables on the device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vqcc.algorithms import KMeans, presets
from vqcc.tensors.vq_tensor import VQTensor


def kmeans(**fields: Any) -> KMeans:
    return KMeans.model_validate({"family": "kmeans", "vector_size": 4, "entries": 256, **fields})


@pytest.mark.parametrize(
    ("fields", "label", "dtype", "stride", "stage", "table"),
    [
        ({}, "VQ<4,8,1>", "uint8", 8, 2048, 2048),
        ({"vector_size": 8, "entries": 4096, "residuals": 2}, "VQ<8,12,2>", "uint16", 16, 65536, 131072),
        ({"vector_size": 3, "entries": 2}, "VQ<3,1,1>", "uint8", 8, 16, 16),
        ({"vector_size": 1, "entries": 2, "residuals": 3}, "VQ<1,1,3>", "uint8", 2, 4, 16),
        ({"vector_size": 5, "entries": 16, "codebook_dtype": "int8"}, "VQ<5,4,1>", "uint8", 8, 128, 128),
        ({"vector_size": 9, "entries": 2, "codebook_dtype": "bfloat16"}, "VQ<9,1,1>", "uint8", 32, 64, 64),
        ({"vector_size": 16, "entries": 65536}, "VQ<16,16,1>", "uint16", 32, 2**21, 2**21),
        ({"vector_size": 1, "entries": 4, "codebook_dtype": "int8"}, "VQ<1,2,1>", "uint8", 1, 4, 16),
    ],
)
def test_derived_numbers(
    fields: dict[str, Any], label: str, dtype: str, stride: int, stage: int, table: int
) -> None:
    algorithm = kmeans(**fields)
    assert algorithm.label == label
    assert algorithm.codes_dtype == dtype
    assert algorithm.entry_stride == stride
    assert algorithm.stage_bytes == stage
    assert algorithm.table_bytes == table
    assert algorithm.table_entries == algorithm.entries
    assert algorithm.minimum_vectors == algorithm.entries


def test_device_constants() -> None:
    device = kmeans(vector_size=3, entries=16, residuals=2, codebook_dtype="bfloat16").device()
    assert (device.header, device.type_name) == ("algorithms/kmeans.cuh", "KMeans")
    assert {name: value for name, value, _ in device.constants} == {
        "kVectorSize": 3,
        "kEntries": 16,
        "kResiduals": 2,
        "kCodeBits": 4,
        "kEntryStride": 4,
        "kEntryType": "vqcc::ElementType::kBfloat16",
        "kTableBytes": 256,
    }


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        # Codes, then codebooks and scales over the weights of a 4096 x 4096 matrix.
        ("vq-4-8-1", 2 + (256 * 4 * 16 + 4096 * 32) / 4096**2),
        ("aqlm-3", 3 + (2 * 4096 * 8 * 16 + 4096 * 32) / 4096**2),
        ("gptvq-2", 2 + 256 * 4 * 16 / 65536),
        ("quip-4", 4 + 32 / 4096**2),
    ],
)
def test_bits_per_weight(name: str, bits: float) -> None:
    assert presets.resolve(name).bits_per_weight(4096, 4096) == pytest.approx(bits)


def test_int8_books_count_their_scales() -> None:
    algorithm = kmeans(codebook_dtype="int8", residuals=2, scope={"rows": 8, "cols": 8})
    assert algorithm.stored_codebook_bytes(16, 16) == 4 * 2 * (256 * 4 + 4)


@pytest.mark.parametrize(
    ("fields", "path", "code", "message", "help_text"),
    [
        ({"code_bits": 7}, ("algorithm", "code_bits"), "VQ0305", "256 entries", "entries: 128"),
        ({"code_bits": 16}, ("algorithm", "code_bits"), "VQ0305", "code_bits is 16", "code_bits: 8"),
        ({"scales": {"group": 6}}, ("algorithm", "scales", "group"), "VQ0309", "group 6", "use 4 or 8"),
        ({"scales": {"group": 2}}, ("algorithm", "scales", "group"), "VQ0309", "group 2", "use 4"),
        ({"scope": {"rows": 1, "cols": 30}}, ("algorithm", "scope", "cols"), "VQ0304", "30", "use 28 or 32"),
    ],
)
def test_fields_that_contradict(
    fields: dict[str, Any], path: tuple[str, ...], code: str, message: str, help_text: str
) -> None:
    (problem,) = kmeans(**fields).check_fields()
    assert (problem.path, problem.code) == (path, code)
    assert message in problem.message
    assert help_text in (problem.help or "")
    assert problem.diagnostic().code == code


def test_a_stated_code_width_may_agree() -> None:
    algorithm = kmeans(code_bits=8, scales={"group": 8}, scope={"rows": 3, "cols": 4})
    assert list(algorithm.check_fields()) == []
    assert "code_bits" not in algorithm.mapping()


def test_k_must_be_a_multiple_of_the_vector_size() -> None:
    (problem,) = kmeans().check(8, 30)
    assert (problem.path, problem.code) == (("op", "k"), "VQ0303")
    assert "use 28 or 32" in (problem.help or "")
    assert list(kmeans().check(8, 32)) == []


def test_codebooks_that_32_bits_cannot_index() -> None:
    (problem,) = kmeans(scope={"rows": 1, "cols": 4}).check(4096, 4096)
    assert (problem.path, problem.code) == (("algorithm", "scope"), "VQ0307")
    assert "larger tiles" in (problem.help or "")


def test_decode_adds_stages_and_applies_both_scales() -> None:
    algorithm = kmeans(
        vector_size=2,
        entries=4,
        residuals=2,
        scope={"rows": 1, "cols": 4},
        scales={"group": 2},
        codebook_dtype="int8",
    )
    books = np.arange(2 * 2 * 2 * 4 * 2).reshape(4, 2, 4, 2).astype(np.int8)
    tensor = VQTensor(
        name="w",
        algorithm=algorithm,
        shape=(2, 6),
        dtype="float32",
        codes=np.array([[[0, 1, 2], [3, 2, 1]], [[3, 3, 0], [1, 0, 2]]], np.uint8),
        codebooks=books,
        codebook_scales=np.array([[1, 10], [1, 10], [2, 20], [0.5, 0]], np.float32),
        scales=np.array([[1, 2, 4], [1, -1, 0.5]], np.float16),
    )
    tensor.validate()
    expected = np.zeros((2, 6))
    for row in range(2):
        for vector in range(3):
            book = 2 * row + vector // 2
            for stage in range(2):
                entry = books[book, stage, tensor.codes[stage, row, vector]].astype(float)
                expected[row, 2 * vector : 2 * vector + 2] += entry * tensor.codebook_scales[book, stage]
            expected[row, 2 * vector : 2 * vector + 2] *= float(tensor.scales[row, vector])
    assert np.array_equal(tensor.decode(), expected)


def test_tables_are_padded_per_entry_and_to_16_bytes() -> None:
    algorithm = kmeans(vector_size=3, entries=2, residuals=1, codebook_dtype="int8")
    tensor = algorithm.random_tensor(np.random.default_rng(0), "w", 4, 12)
    (table,) = algorithm.pack_tables(tensor)
    assert table.dtype == np.uint8
    assert len(table) == algorithm.table_bytes == 16
    assert np.array_equal(table[:8].view(np.int8).reshape(2, 4)[:, :3], tensor.codebooks[0, 0])
    assert not table[3]
    assert not table[7]
    assert not table[8:].any()
