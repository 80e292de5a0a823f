"""Problems for tests of passes and ops: from keywords, and as a hypothesis strategy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st
from matrix import GPUS, changed, legal_levels, random_case

from vqcc import gpus
from vqcc.algorithms import from_mapping
from vqcc.algorithms.presets import resolve
from vqcc.ops import WEIGHT_OPS
from vqcc.ops.gemv import Gemv
from vqcc.problem import Boundaries, Problem

if TYPE_CHECKING:
    from vqcc.gpus.model import Gpu

__all__ = ["changed", "gemv", "kmeans", "problem", "problems"]


def kmeans(**changes: Any) -> dict[str, Any]:
    """A k-means algorithm's mapping."""
    mapping = {"family": "kmeans", "vector_size": 4, "entries": 256, "residuals": 1, "scope": "tensor"}
    return {**mapping, "scales": "none", **changes}


def gemv(n: int = 256, k: int = 1024, m: Any = 1, dtype: Any = "float16") -> Gemv:
    return Gemv.model_validate({"kind": "gemv", "n": n, "k": k, "m": m, "dtype": dtype})


def problem(
    algorithm: Any = "aqlm-2x8",
    *,
    gpu: Gpu | str = "h200",
    level: Any = "sc",
    variant: int = 0,
    boundaries: Boundaries | None = None,
    profile: tuple[Any, ...] = (),
    kind: str = "gemv",
    **op: Any,
) -> Problem:
    """A problem of an op's `kind`; `boundaries` and `profile` are what a spec's `cache` and `profile` become."""
    chosen = resolve(algorithm) if isinstance(algorithm, str) else from_mapping(algorithm)
    shape = {"n": 256, "k": 1024, "m": 1, "dtype": "float16"} | op
    made = WEIGHT_OPS[kind].model_validate({"kind": kind, **shape})
    card = gpus.load(gpu) if isinstance(gpu, str) else gpu
    return Problem(
        "tiny", chosen, made, made.variants()[variant], card, level, boundaries or Boundaries(), profile
    )


def problems() -> st.SearchStrategy[Problem]:
    """Random legal problems: any configuration, shapes small and real, every GPU, any m."""
    return st.builds(
        _problem, st.integers(0, 2**32), st.sampled_from(GPUS), st.integers(1, 16), st.booleans()
    )


def _problem(seed: int, gpu: str, m: int, large: bool) -> Problem:
    case = random_case(seed)
    n, k = (case.n * 300, case.k * 12) if large else (case.n, case.k)
    op, card = gemv(n=n, k=k, m=m, dtype=case.dtype), gpus.load(gpu)
    legal = legal_levels(case.algorithm, card)
    level = case.level if case.level in legal else legal[seed % len(legal)]
    return Problem("kernel", case.algorithm, op, op.variants()[0], card, level)  # type: ignore[arg-type]
