"""The profile file: what is written is read, the same codes give the same bytes, and damage is named."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix import random_case

from vqcc.algorithms import presets
from vqcc.diagnostics import VqccError
from vqcc.hotness import TensorProfile, file, load_profile, profile_tensor, save_profile

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Document = dict[str, Any]


def profile_of(preset: str = "vq-4-4-2", name: str = "w", n: int = 8, k: int = 32) -> TensorProfile:
    algorithm = presets.resolve(preset)
    return profile_tensor(algorithm.random_tensor(np.random.default_rng(0), name, n, k))


def good(tmp_path: Path) -> tuple[Path, Document]:
    path = tmp_path / "hotness.json"
    save_profile(path, [profile_of()])
    return path, json.loads(path.read_text())


def refused(path: Path) -> list[tuple[str, str]]:
    with pytest.raises(VqccError) as caught:
        load_profile(path)
    assert caught.value.exit_code == 1
    assert all(str(path) in item.message and item.help for item in caught.value.diagnostics)
    return [(item.code, f"{item.message} | {item.help}") for item in caught.value.diagnostics]


@settings(max_examples=30)
@given(st.integers(0, 10_000))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, seed: int) -> None:
    case = random_case(seed)
    tensor = case.algorithm.random_tensor(np.random.default_rng(seed), "a \u00e9\n", case.n, case.k)
    written = profile_tensor(tensor)
    path = tmp_path_factory.mktemp("profile") / "hotness.json"
    sha256 = save_profile(path, [written])
    assert sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    profile = load_profile(path)
    assert profile.sha256 == sha256
    (read,) = profile.tensors
    assert (read.name, read.shape, read.codes_sha256) == (tensor.name, tensor.shape, written.codes_sha256)
    assert read.algorithm == tensor.algorithm
    assert read.counts.dtype == np.int64
    assert np.array_equal(read.counts, written.counts)
    assert read.parts is None


def test_counts_are_little_endian_base64(tmp_path: Path) -> None:
    """As docs/profile.md has it, decoded without vqcc."""
    path, document = good(tmp_path)
    counts = document["tensors"][0]["counts"]
    assert list(counts) == ["shape", "type", "base64"]
    array = np.frombuffer(base64.b64decode(counts["base64"]), np.dtype(counts["type"]).newbyteorder("<"))
    assert np.array_equal(array.reshape(counts["shape"]), profile_of().counts)
    assert path.read_text().isascii()


@pytest.mark.parametrize(
    ("largest", "kind"), [(255, "uint8"), (256, "uint16"), (65536, "uint32"), (2**32, "uint64")]
)
def test_the_narrowest_type_is_taken(largest: int, kind: str, tmp_path: Path) -> None:
    # A weight of as many codes as the counts say: no array of them is made.
    counts = np.zeros((1, 1, 2), np.int64)
    counts[0, 0] = largest, 0
    profile = TensorProfile("w", presets.resolve("vq-1-1-1"), (1, largest), "0" * 64, counts)
    if largest >= 2**31:
        profile = TensorProfile("w", presets.resolve("vq-1-1-1"), (4, largest // 4), "0" * 64, counts)
    save_profile(tmp_path / "p", [profile])
    assert json.loads((tmp_path / "p").read_text())["tensors"][0]["counts"]["type"] == kind
    assert np.array_equal(load_profile(tmp_path / "p").tensors[0].counts, counts)


def test_the_same_codes_give_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_profile(tmp_path / name, [profile_of(), profile_of("quip-4", "x", 16, 64)])
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_thousands_of_books_are_compact(tmp_path: Path) -> None:
    algorithm = presets.resolve("gptvq-2").model_copy(update={"scope": presets.resolve("gptvq-2").scope})
    counts = np.full((2752, 1, 256), 64)
    profile = TensorProfile("w", algorithm, (22016, 8192), "0" * 64, counts)
    save_profile(tmp_path / "p", [profile])
    assert (tmp_path / "p").stat().st_size < 2752 * 256 * 1.4
    assert np.array_equal(load_profile(tmp_path / "p").tensors[0].counts, counts)


def test_two_tensors_of_one_name_are_not_written(tmp_path: Path) -> None:
    with pytest.raises(VqccError) as caught:
        save_profile(tmp_path / "p", [profile_of(), profile_of()])
    assert caught.value.diagnostics[0].code == "VQ0529"
    assert list(tmp_path.iterdir()) == []


def test_a_profile_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(VqccError) as caught:
        save_profile(tmp_path / "missing" / "p", [profile_of()])
    assert caught.value.diagnostics[0].code == "VQ0527"


def change(**fields: Any) -> Callable[[Document], None]:
    return lambda document: document["tensors"][0].update(fields)


def count(**fields: Any) -> Callable[[Document], None]:
    return lambda document: document["tensors"][0]["counts"].update(fields)


def recount(change: Callable[[np.ndarray], None]) -> Callable[[Document], None]:
    def apply(document: Document) -> None:
        counts = document["tensors"][0]["counts"]
        array = (
            np.frombuffer(base64.b64decode(counts["base64"]), counts["type"]).reshape(counts["shape"]).copy()
        )
        change(array)
        counts["base64"] = base64.b64encode(array.tobytes()).decode()

    return apply


def set_first(array: np.ndarray) -> None:
    array[0, 1, 3] += 1


def wrap_around(array: np.ndarray) -> None:
    """As many in all as there should be, but some of them more than there are codes."""
    array[0, 0, :] = 0
    array[0, 0, :4] = [255, 255, 255, 255]


ALGORITHM = presets.resolve("vq-4-4-2").mapping()
BAD: dict[str, tuple[Callable[[Document], Any], str, str]] = {
    "no version": (lambda d: d.pop("vqcc_profile"), "VQ0537", "no profile"),
    "another version": (lambda d: d.update(vqcc_profile=2), "VQ0538", "format 2"),
    "version true": (lambda d: d.update(vqcc_profile=True), "VQ0538", "format True"),
    "no tensors": (lambda d: d.pop("tensors"), "VQ0539", "'tensors'"),
    "empty": (lambda d: d.update(tensors=[]), "VQ0539", "at least one"),
    "more keys": (lambda d: d.update(more=1), "VQ0539", "'tensors'"),
    "tensor no object": (lambda d: d.update(tensors=[1]), "VQ0539", "tensors[0] must be an object"),
    "missing key": (lambda d: d["tensors"][0].pop("shape"), "VQ0539", "codes_sha256"),
    "one tensor twice": (
        lambda d: d["tensors"].append(d["tensors"][0]),
        "VQ0539",
        "two tensors are named 'w'",
    ),
    "name": (change(name=1), "VQ0539", "name must be text"),
    "shape": (change(shape=[8]), "VQ0539", "two positive integers"),
    "shape of zero": (change(shape=[0, 32]), "VQ0539", "two positive integers"),
    "shape of truth": (change(shape=[True, 32]), "VQ0539", "two positive integers"),
    "shape too large": (change(shape=[2**40, 32]), "VQ0539", "two positive integers"),
    "hash": (change(codes_sha256="ABC"), "VQ0539", "64 hexadecimal digits"),
    "algorithm": (change(algorithm="vq-4-4-2"), "VQ0539", "must be a mapping"),
    "family": (change(algorithm={"family": "mant"}), "VQ0539", "use kmeans or e8p"),
    "field": (change(algorithm=ALGORITHM | {"entries": 17}), "VQ0539", "use 16 or 32"),
    "fields that contradict": (
        change(algorithm=ALGORITHM | {"scales": {"group": 6}}),
        "VQ0539",
        "use 4 or 8",
    ),
    "k": (change(shape=[8, 31]), "VQ0539", "use 28 or 32"),
    "counts": (change(counts=[1]), "VQ0539", "counts must have"),
    "counts more": (count(more=1), "VQ0539", "counts must have"),
    "type": (count(type="int64"), "VQ0539", "uint8, uint16, uint32, uint64"),
    "text": (count(base64=7), "VQ0539", "counts must have"),
    "counts of others": (count(shape=[1, 2, 256]), "VQ0539", "VQ<4,4,2> has [1, 2, 16]"),
    "counts of many": (count(shape=[1] * 100_000), "VQ0539", "VQ<4,4,2> has [1, 2, 16]"),
    "not base64": (count(base64="!" * 44), "VQ0539", "not base64 of 32 bytes"),
    "too short": (count(base64="AAAA"), "VQ0539", "not base64 of 32 bytes"),
    "too long": (count(base64="A" * 10_000), "VQ0539", "not base64 of 32 bytes"),
    "one count more": (recount(set_first), "VQ0539", "book 0, table 1 add up to 65, but it has 64 codes"),
    "counts past the codes": (recount(wrap_around), "VQ0539", "table 0 add up to 1020"),
}


@pytest.mark.parametrize("case", BAD)
def test_damaged(tmp_path: Path, case: str) -> None:
    damage, code, text = BAD[case]
    path, document = good(tmp_path)
    damage(document)
    path.write_text(json.dumps(document))
    ((found, message),) = refused(path)
    assert found == code
    assert text in message
    assert len(message) < 500


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"\xff\xfe\x00", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"vqcc_profile": 1, "vqcc_profile": 1}', "stands twice"),
        (b"[]", "no object"),
        (b"{}", "no object"),
    ],
)
def test_foreign_files(tmp_path: Path, data: bytes, text: str) -> None:
    path = tmp_path / "p"
    path.write_bytes(data)
    ((code, message),) = refused(path)
    assert code == "VQ0537"
    assert text in message


def test_everything_wrong_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "p"
    save_profile(path, [profile_of(name=name) for name in "abc"])
    document = json.loads(path.read_text())
    document["tensors"][0] |= {"name": 3, "codes_sha256": ""}
    document["tensors"][2]["counts"] = {}
    path.write_text(json.dumps(document))
    found = refused(path)
    assert [code for code, _ in found] == ["VQ0539"] * 3
    assert ["tensors[0]" in message for _, message in found] == [True, True, False]


def test_a_weight_whose_sums_would_overflow(tmp_path: Path) -> None:
    counts = np.zeros((1, 1, 65536), np.int64)
    counts[0, 0, 0] = 2**31 - 8
    profile = TensorProfile("w", presets.resolve("aqlm-1x16"), (8, 2**31 - 8), "0" * 64, counts)
    save_profile(tmp_path / "p", [profile])
    assert load_profile(tmp_path / "p").tensors[0].shape == (8, 2**31 - 8)
    document = json.loads((tmp_path / "p").read_text())
    document["tensors"][0]["shape"] = [2**31 - 8, 2**31 - 8]
    (tmp_path / "p").write_text(json.dumps(document))
    assert "too large" in refused(tmp_path / "p")[0][1]


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "pipe", tmp_path / "\0", tmp_path / ("x" * 300)):
        assert [code for code, _ in refused(path)] == ["VQ0536"]
    path, _ = good(tmp_path)
    monkeypatch.setattr(file, "MAX_BYTES", 100)
    assert "more than 100 bytes" in refused(path)[0][1]


@settings(max_examples=60)
@given(st.data())
def test_mutated_files_never_cause_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("mutated") / "p"
    save_profile(path, [profile_of()])
    changed = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(changed)
    with suppress(VqccError):
        load_profile(path)
