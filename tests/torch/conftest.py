"""What tests of vqcc.torch share: small libraries, and packed files for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

# A module of it: this directory alone would pass for the package.
pytest.importorskip("torch.library")

from cache_libraries import build_fake_cache
from libraries import build_fake

from vqcc.building import write_library
from vqcc.library import load_cache_library, load_weight_library
from vqcc.tensors.cache_packed_file import save_packed_books
from vqcc.tensors.packed_file import save_packed
from vqcc.verify.cache_harness import random_sides

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.tensors.cache_tensor import CacheTensor
    from vqcc.tensors.vq_tensor import VQTensor


class WeightFiles:
    """A bundle, and a packed weight for it; `tensor` is what was packed."""

    def __init__(self, directory: Path, **options: object) -> None:
        built = build_fake(**options)
        self.bundle, self.packed = directory / built.name, directory / f"{built.name}.safetensors"
        write_library(built, self.bundle)
        self.library = load_weight_library(self.bundle)
        self.tensor: VQTensor = self.library.algorithm.random_tensor(
            np.random.default_rng(0), "w", *self.library.op.weight_shape
        )
        save_packed(self.packed, self.library, [(self.tensor, self.library.pack(self.tensor))])


class CacheFiles:
    """A bundle over a KV cache, and packed books of random keys and values."""

    def __init__(self, directory: Path, **options: object) -> None:
        built = build_fake_cache(**options)
        self.bundle, self.packed = directory / built.name, directory / f"{built.name}.safetensors"
        write_library(built, self.bundle)
        self.library = load_cache_library(self.bundle)
        self.sides: tuple[CacheTensor, CacheTensor] = random_sides(self.library, np.random.default_rng(0))
        save_packed_books(self.packed, self.library, "layer", *self.sides, self.library.pack(*self.sides))


@pytest.fixture(scope="session")
def gate(tmp_path_factory: pytest.TempPathFactory) -> WeightFiles:
    """A product of up to four rows, in both types."""
    options = {
        "name": "gate",
        "m": [1, 4],
        "n": 72,
        "k": 264,
        "dtype": ["float16", "bfloat16"],
        "level": "o4",
    }
    return WeightFiles(tmp_path_factory.mktemp("gate"), **options)


@pytest.fixture(scope="session")
def paged(tmp_path_factory: pytest.TempPathFactory) -> CacheFiles:
    """Attention over pages, with a window and keys that are rotated once decoded."""
    options = {
        "name": "paged",
        "level": "gc",
        "page_size": 32,
        "window": 8,
        "rope": "half",
        "query_tokens": 2,
    }
    return CacheFiles(tmp_path_factory.mktemp("paged"), **options)


@pytest.fixture(scope="session")
def several(tmp_path_factory: pytest.TempPathFactory) -> CacheFiles:
    """Attention over pages of two sizes."""
    options = {"name": "several", "level": "gc", "page_size": [32, 64], "window": 8}
    return CacheFiles(tmp_path_factory.mktemp("several"), **options)


@pytest.fixture(scope="session")
def contiguous(tmp_path_factory: pytest.TempPathFactory) -> CacheFiles:
    """Attention over a contiguous cache."""
    return CacheFiles(tmp_path_factory.mktemp("contiguous"), name="contiguous", level="best", context=64)
