"""Wherever vqcc packs for a library that was built from a profile, entry 0 is the one looked up most."""

from __future__ import annotations

import importlib
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from libraries import FakeToolchain, build_fake, make_profile
from matrix import skewed_codes

from vqcc.algorithms.presets import resolve
from vqcc.building import write_library
from vqcc.library import load_library
from vqcc.runtime.bench import packed_weights, random_weights
from vqcc.tensors.packing import unpack_codes
from vqcc.verify.harness import validate

if TYPE_CHECKING:
    from types import ModuleType

    from conftest import FakeDriver

    from vqcc.library import Library
    from vqcc.tensors.vq_tensor import VQTensor

ROOT = Path(__file__).parent.parent.parent
SHAPE = (24, 64)


@pytest.fixture(params=[True, False], ids=["profile", "no profile"])
def built(request: pytest.FixtureRequest, tmp_path: Path) -> Library:
    """A library, and one that was built from a profile of other codes."""
    profile = tmp_path / "hotness.json"
    make_profile(profile, "vq-4-4-1", SHAPE)
    options = {"profile": profile} if request.param else {}
    write_library(build_fake("vq-4-4-1", n=SHAPE[0], k=SHAPE[1], **options), tmp_path / "tiny")
    return load_library(tmp_path / "tiny")


def is_ordered(library: Library, words: Any) -> bool:
    counts = np.bincount(unpack_codes(words, library.layout).reshape(-1), minlength=16)
    return bool((np.diff(counts) <= 0).all())


def draw() -> VQTensor:
    algorithm, rng = resolve("vq-4-4-1"), np.random.default_rng(3)
    tensor = algorithm.random_tensor(rng, "w", *SHAPE)
    return replace(tensor, codes=skewed_codes(algorithm, tensor.codes, rng))


@pytest.mark.parametrize("given", [True, False], ids=["tensors", "random"])
def test_validation(given: bool, built: Library) -> None:
    """Of given tensors, which need not be those that were profiled, and of random ones."""
    launched = []

    class Recorder:
        name = "recorder"

        def load(self, _library: Library, _gpu: str) -> Recorder:
            return self

        def run(self, _kernel: Any, inputs: Any, *_others: Any) -> None:
            launched.append(inputs["codes"])

    tensors = (draw(),) if given else ()
    list(validate(built, Recorder(), tensors=tensors))  # type: ignore[arg-type]
    assert launched
    assert all(is_ordered(built, words) is bool(built.profile_codes) for words in launched)


def test_timing(built: Library) -> None:
    tensor = draw()
    for weights in (random_weights(built), packed_weights(built, tensor)):
        assert is_ordered(built, weights.packed["codes"]) is bool(built.profile_codes)
    assert np.array_equal(packed_weights(built, tensor).decoded[0], tensor.decode())


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """bench/gemv_levels.py, whose compiler and clock are stand-ins."""
    monkeypatch.syspath_prepend(ROOT / "bench")
    from vqcc.runtime import bench
    from vqcc.runtime.timing import Timing

    monkeypatch.setattr(bench, "time_kernel", lambda *_: Timing(2.0, 1.5, 4.0))
    monkeypatch.setattr(bench.Baselines, "cublas", lambda *_: None)
    program = importlib.import_module("gemv_levels")
    monkeypatch.setattr(program, "find", lambda _: FakeToolchain())
    monkeypatch.delitem(sys.modules, "gemv_levels")
    return program


@pytest.mark.parametrize("preset", ["quip-4", "aqlm-3", "aqlm-2x8"])
def test_levels_of_skewed_codes(preset: str, bench: ModuleType, driver: FakeDriver, tmp_path: Path) -> None:
    """With `--codes zipf` level o2 has entries in registers, and o1 none; with uniform codes neither has.

    A kernel of the stand-in driver computes nothing, so that no row is within its bound.
    """
    from vqcc.runtime.device import open_device

    groups = [(preset, (128, 512))]
    for kind in ("zipf", "uniform"):
        (tmp_path / kind).mkdir()
        with open_device() as device:
            codes = bench.Codes(kind, tmp_path / kind)
            kernels = [(level, m) for level in ("o1", "o2") for m in (1, 16)]
            rows = list(bench.measure(groups, kernels, "h200", tmp_path / kind, device, codes))
        assert [(row["level"], row["m"]) for row in rows] == [("o1", 1), ("o1", 16), ("o2", 1), ("o2", 16)]
        for row in rows:
            assert row["codes"] == kind
            assert (row["register_entries"] > 0) == (kind == "zipf" and row["level"] == "o2")
            bench.show(row)


def test_zipf(bench: ModuleType) -> None:
    """The entry of rank i is looked up about 1 / i as often as the first, in every table; orders are drawn."""
    from vqcc.hotness import count_codes

    for preset in ("gptvq-2", "quip-4", "aqlm-2x8"):
        tensor = bench.zipf_tensor(resolve(preset), 256, 4096)
        tensor.check_codes()
        counts = count_codes(tensor)
        for table in range(counts.shape[1]):
            total = counts[:, table].sum(axis=0)
            ordered = np.sort(total)[::-1]
            for rank in (2, 4, 8):
                assert ordered[rank - 1] / ordered[0] == pytest.approx(1 / rank, rel=0.1)
            assert not np.array_equal(ordered, total)
