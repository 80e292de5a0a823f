"""Compiled libraries over KV caches, by a toolchain that says what every kernel needs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from libraries import FakeToolchain

from vqcc.building import build_library, write_library
from vqcc.library import load_cache_library
from vqcc.spec.load import parse_spec

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.assembling import Built
    from vqcc.cache_library import CacheLibrary

__all__ = ["build_fake_cache", "cache_spec_text", "fake_cache_library"]

#: Two kv-heads of 64 channels, each for two query heads.
OP: dict[str, Any] = {
    "kind": "attention_decode", "q_heads": 4, "kv_heads": 2, "head_dim": 64, "batch": 2, "context": 256,
}  # fmt: skip


def cache_spec_text(
    algorithm: Any = "cq-2", *, name: str = "cache", gpu: Any = "h200", level: str = "best", **op: Any
) -> str:
    """A spec; JSON is YAML. `op` overrides fields of the op."""
    spec = {"vqcc": 1, "name": name, "algorithm": algorithm, "op": {**OP, **op}, "gpu": gpu, "level": level}
    return json.dumps(spec, indent=1)


def build_fake_cache(
    algorithm: Any = "cq-2", *, toolchain: FakeToolchain | None = None, jobs: int = 1, **options: Any
) -> Built:
    """A library whose cubins are not."""
    spec = parse_spec(cache_spec_text(algorithm, **options).encode(), "spec.yaml")
    return build_library(spec, toolchain=toolchain or FakeToolchain(), cache=None, jobs=jobs)


def fake_cache_library(directory: Path, algorithm: Any = "cq-2", **options: Any) -> CacheLibrary:
    """The same, written and loaded."""
    built = build_fake_cache(algorithm, **options)
    write_library(built, directory / built.name)
    return load_cache_library(directory / built.name)
