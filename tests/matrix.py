"""Problems for the tests that run whole kernels: every preset, and random legal configurations."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc import gpus
from vqcc.algorithms import Algorithm, from_mapping
from vqcc.levels import LEVELS
from vqcc.ops import WEIGHT_OPS
from vqcc.passes.placement import check_placement
from vqcc.problem import Boundaries, Problem

if TYPE_CHECKING:
    from vqcc.gpus.model import Gpu
    from vqcc.tensors.vq_tensor import VQTensor

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
#: Registers of a compiled base kernel that leave some slack at 8 or 16 warps a block, and some that leave much.
REGISTERS = (50, 66, 129)
#: Codebooks of a case with several of them: more would take the tests long to draw and to decode.
MOST_BOOK_BYTES = 4 << 20
#: More than the sums and the scratch of any block take.
ROOM_FOR_SUMS = 48 * 1024


@dataclass(frozen=True)
class Case:
    """A weight and the libraries to emit and run for it: shape, bounds on m, types, GPU, boundaries of the cache.

    `level` is one of the legal ones. `limits` are numbers of the GPU that are changed; with `skewed` codes there is a
    profile of them, but those of the last `even_stages` are drawn evenly; `registers` is what the compiler says that a
    base kernel needs.
    """

    algorithm: Algorithm
    n: int
    k: int
    m: tuple[int, ...]
    dtype: tuple[str, ...]
    level: str
    gpu: str
    limits: tuple[tuple[str, float], ...] = ()
    skewed: bool = False
    even_stages: int = 0
    registers: int = REGISTERS[0]
    boundaries: Boundaries = field(default=Boundaries())
    kind: str = "gemv"

    @property
    def card(self) -> Gpu:
        """The GPU, with its changed numbers."""
        return changed(self.gpu, **dict(self.limits))

    def problems(self, level: str, profile: tuple[Any, ...] = ()) -> list[Problem]:
        """The kernels of one level's library."""
        shape = {"m": self.m, "n": self.n, "k": self.k, "dtype": self.dtype}
        op = WEIGHT_OPS[self.kind].model_validate({"kind": self.kind, **shape})
        boundaries = self.boundaries if level not in {"gc", "sc"} else Boundaries()
        return [
            Problem("kernel", self.algorithm, op, variant, self.card, level, boundaries, profile)  # type: ignore[arg-type]
            for variant in op.variants()
        ]

    def draw_tensor(self, rng: np.random.Generator) -> VQTensor:
        """Random weights; a few codes of each table are drawn often if codes are to be skewed."""
        tensor = self.algorithm.random_tensor(rng, "w", self.n, self.k)
        if not self.skewed:
            return tensor
        return replace(tensor, codes=skewed_codes(self.algorithm, tensor.codes, rng, self.even_stages))


def changed(gpu: Gpu | str, **limits: Any) -> Gpu:
    """A GPU with other numbers."""
    base = gpus.load(gpu) if isinstance(gpu, str) else gpu
    facts = base.facts()
    numbers = {name: facts[name].model_copy(update={"value": value}) for name, value in limits.items()}
    return base.model_copy(update=numbers)


def legal_levels(algorithm: Algorithm, gpu: Gpu) -> tuple[str, ...]:
    """Levels that the GPU can have."""
    return tuple(level for level in LEVELS if not any(check_placement(algorithm, gpu, level)))


def skewed_codes(algorithm: Algorithm, codes: Any, rng: np.random.Generator, even_stages: int = 0) -> Any:
    """Codes of the same shape that look up rows of their table by Zipf's law, in an order of each stage's own.

    The last `even_stages` look up each row as often as any other, or once more: none of theirs is hot.
    """
    rows = algorithm.table_entries
    ranks = np.minimum(rng.zipf(1.5, codes.shape), rows) - 1
    for stage in range(len(ranks) - even_stages, len(ranks)):
        ranks[stage] = rng.permutation(ranks[stage].size).reshape(ranks[stage].shape) % rows
    skewed = np.stack([rng.permutation(rows)[stage] for stage in ranks])
    return algorithm.replace_rows(codes, skewed.astype(codes.dtype))


def random_case(seed: int) -> Case:
    """A legal case; shapes are ragged more often than not, and half of the entries suit tensor cores."""
    rng = np.random.default_rng([seed, 7])
    dtype = str(rng.choice(["float16", "bfloat16"]))
    suited = bool(rng.random() < 0.5)
    x = int(rng.choice([2, 4, 8, 8, 16] if suited else [1, 3, 5, 6, 7, 8, 9, 10, 12, 13, 15]))
    bits = int(rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 8, 8, 9, 10, 11, 12, 16]))
    residuals = int(rng.choice([1, 1, 1, 2, 2, 3, 4, 5, 6, 8]))
    k = x * int(rng.integers(1, 1 + max(2, 900 // x)))
    n = int(rng.choice([1, 2, 7, 17, 33, 40, 61, 150]))
    mapping: dict[str, Any] = {
        "family": "kmeans",
        "vector_size": x,
        "entries": 1 << bits,
        "residuals": residuals,
        "scope": _scope(rng, x, n, k),
        "scales": str(rng.choice(["none", "tensor", "row"])) if suited else _scales(rng, x, k),
        "codebook_dtype": dtype if suited else str(rng.choice(["float16", "bfloat16", "int8"])),
    }
    if x == 8 and rng.random() < 0.3:
        kind = str(rng.choice(["none", "tensor", "row"]))
        mapping = {"family": "e8p", "residuals": 1 + residuals % 2, "scales": kind}
    algorithm = from_mapping(mapping)
    if algorithm.scope.books(n, k) * algorithm.table_bytes > MOST_BOOK_BYTES:
        algorithm = from_mapping({**mapping, "scope": "tensor"})
    gpu = str(rng.choice(GPUS))
    return Case(
        algorithm,
        n,
        k,
        tuple(sorted({int(rng.integers(1, 17)), int(rng.choice([1, 2, 4, 5, 16]))})),
        (dtype,),
        str(rng.choice(legal_levels(algorithm, gpus.load(gpu)))),
        gpu,
        limits=_limits(rng),
        skewed=bool(rng.random() < 0.5),
        registers=int(rng.choice(REGISTERS)),
        boundaries=_boundaries(rng, algorithm, (n, k), gpu),
    )


def _scope(rng: np.random.Generator, x: int, n: int, k: int) -> Any:
    if rng.random() < 0.5:
        return "tensor"
    return {
        "rows": int(rng.integers(1, n + 8)),
        "cols": x * int(rng.integers(max(1, k // x // 12), k // x + 3)),
    }


def _scales(rng: np.random.Generator, x: int, k: int) -> Any:
    kind = str(rng.choice(["none", "tensor", "row", "group"]))
    return {"group": x * int(rng.integers(1, k // x + 2))} if kind == "group" else kind


def _limits(rng: np.random.Generator) -> tuple[tuple[str, float], ...]:
    """Few SMs, so that a block does several items; either way to exchange elements."""
    limits: dict[str, float] = {}
    if rng.random() < 0.7:
        limits["sm_count"] = int(rng.integers(1, 6))
    if rng.random() < 0.5:
        limits["shared_roundtrip_per_shuffle"] = float(rng.choice([0.5, 100.0]))
    return tuple(limits.items())


def _boundaries(
    rng: np.random.Generator, algorithm: Algorithm, shape: tuple[int, int], gpu: str
) -> Boundaries:
    """What a spec may say of the cache and a block can hold: neither boundary, one, or both, in order."""
    if rng.random() < 0.6:
        return Boundaries()
    column_tiles = algorithm.scope.grid(*shape)[1]
    room = gpus.load(gpu).shared_bytes_per_block.integer - ROOM_FOR_SUMS
    of_a_book = room // column_tiles - algorithm.constant_entries * algorithm.entry_stride
    fitting = of_a_book // (algorithm.entry_stride * algorithm.table_count)
    most = max(0, min(algorithm.table_entries, fitting))
    shared = int(rng.choice([0, most, rng.integers(0, most + 1)])) if rng.random() < 0.8 else None
    hottest = min(4, algorithm.table_entries if shared is None else shared)
    has_registers = rng.random() < 0.5 and column_tiles == 1
    return Boundaries(int(rng.integers(0, hottest + 1)) if has_registers else None, shared)
