"""Problems for the tests that run whole kernels: every preset, and random legal configurations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from vqcc.algorithms import Algorithm, from_mapping

PRESETS = (
    "aqlm-2x8",
    "aqlm-1x16",
    "aqlm-3",
    "gptvq-2",
    "gptvq-4",
    "quip-2",
    "quip-4",
    "vq-4-8-1",
    "vq-2-8-1",
)
GPUS = ("rtx4090", "a40", "l40s", "a100", "h100", "h200", "b200", "rtx5090")


@dataclass(frozen=True)
class Case:
    """A library to emit and run: algorithm mapping, shape, bounds on m, types, level, GPU."""

    algorithm: Algorithm
    n: int
    k: int
    m: tuple[int, ...]
    dtype: tuple[str, ...]
    level: str
    gpu: str


def random_case(seed: int) -> Case:
    """A legal case; shapes are ragged more often than not."""
    rng = np.random.default_rng([seed, 7])
    x = int(rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 9, 10, 12, 13, 15, 16]))
    bits = int(rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 9, 10, 11, 12, 16]))
    residuals = int(rng.choice([1, 1, 1, 2, 2, 3, 4, 5, 8]))
    k = x * int(rng.integers(1, 1 + max(2, 700 // x)))
    n = int(rng.choice([1, 2, 7, 17, 33, 40, 61]))
    mapping: dict[str, Any] = {
        "family": "kmeans",
        "vector_size": x,
        "entries": 1 << bits,
        "residuals": residuals,
        "scope": _scope(rng, x, n, k),
        "scales": _scales(rng, x, k),
        "codebook_dtype": str(rng.choice(["float16", "bfloat16", "int8"])),
    }
    algorithm = from_mapping(mapping)
    fits = algorithm.table_bytes <= 99 * 1024
    return Case(
        algorithm,
        n,
        k,
        tuple(sorted({int(rng.integers(1, 17)), int(rng.choice([1, 2, 4, 16]))})),
        (str(rng.choice(["float16", "bfloat16"])),),
        str(rng.choice(["gc", "sc"])) if fits else "gc",
        str(rng.choice(GPUS)),
    )


def _scope(rng: np.random.Generator, x: int, n: int, k: int) -> Any:
    if rng.random() < 0.5:
        return "tensor"
    return {
        "rows": int(rng.integers(1, n + 8)),
        "cols": x * int(rng.integers(max(1, k // x // 6), k // x + 3)),
    }


def _scales(rng: np.random.Generator, x: int, k: int) -> Any:
    kind = str(rng.choice(["none", "tensor", "row", "group"]))
    return {"group": x * int(rng.integers(1, k // x + 2))} if kind == "group" else kind
