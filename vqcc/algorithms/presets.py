"""Algorithms by name, each with the parameters its paper or checkpoints use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import Diagnostic, VqccError, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.algorithms.base import Algorithm


def _kmeans(vector_size: int, entries: int, residuals: int, **other: Any) -> dict[str, Any]:
    shape = {"vector_size": vector_size, "entries": entries, "residuals": residuals}
    rest = {"scope": "tensor", "scales": "row", "codebook_dtype": "float16", **other}
    return {"family": "kmeans", **shape, **rest}


def _gptvq(vector_size: int) -> dict[str, Any]:
    # One codebook per 65,536 weights, GPTVQ's largest group: 0.25 bits a weight at vector size 4.
    return _kmeans(vector_size, 256, 1, scope={"rows": 256, "cols": 256}, scales="none")


def _e8p(residuals: int) -> dict[str, Any]:
    return {"family": "e8p", "residuals": residuals, "scope": "tensor", "scales": "tensor"}


_PRESETS: Mapping[str, dict[str, Any]] = {
    "aqlm-2x8": _kmeans(8, 256, 2),
    "aqlm-1x16": _kmeans(8, 65536, 1),
    "aqlm-3": _kmeans(8, 4096, 2),
    "gptvq-2": _gptvq(4),
    "gptvq-4": _gptvq(2),
    "quip-2": _e8p(1),
    "quip-4": _e8p(2),
}
_PARAMETRIC = re.compile(r"vq-([0-9]{1,2})-([0-9]{1,2})-([0-9]{1,2})")
_CACHE = re.compile(r"cq-[0-9]+(c[0-9]+b)?|kv-[0-9]+-[0-9]+-[0-9]+")

# What a JSON Schema says of a preset's name; numbers in vq-x-y-z within the family's ranges.
PATTERN = (
    "^(" + "|".join(_PRESETS) + "|vq-([1-9]|1[0-6])-([1-9]|1[0-6])-[1-8]" + ")$"
)  # fmt: skip


def names() -> tuple[str, ...]:
    """Every preset's name; `vq-x-y-z` stands for vector size x, 2^y entries, z residual stages."""
    return (*_PRESETS, "vq-x-y-z")


def preset(name: str) -> dict[str, Any]:
    """Return the mapping that a preset stands for, as a spec would write it.

    Raises VqccError: VQ0301 for a name that is no preset or has a number out of range, VQ0302 for one
    that quantizes a KV cache.
    """
    if name in _PRESETS:
        return dict(_PRESETS[name])
    match = _PARAMETRIC.fullmatch(name)
    if match is None:
        raise VqccError(_unknown(name))
    vector_size, bits, residuals = (int(number) for number in match.groups())
    wrong = [
        f"{what} {value} is not 1 to {most}"
        for what, value, most in (
            ("vector size", vector_size, 16),
            ("log2 of entries", bits, 16),
            ("residual stages", residuals, 8),
        )
        if not 1 <= value <= most
    ]
    if wrong or name != f"vq-{vector_size}-{bits}-{residuals}":
        message = f"preset '{name}': {', '.join(wrong) or 'numbers have no leading zeros'}"
        raise VqccError(Diagnostic("VQ0301", message, help=_PARAMETRIC_HELP))
    return _kmeans(vector_size, 2**bits, residuals)


_PARAMETRIC_HELP = (
    "vq-x-y-z has vector size x (1 to 16), 2^y entries (y 1 to 16) and "
    "z residual stages (1 to 8), as in vq-4-8-1"
)


def _unknown(name: str) -> Diagnostic:
    if _CACHE.fullmatch(name):
        return Diagnostic(
            "VQ0302",
            f"preset '{name}' quantizes a KV cache, not a weight",
            help=f"for a weight use {', '.join(_PRESETS)} or vq-x-y-z",
        )
    near = did_you_mean(name, (*_PRESETS, "vq-4-8-1", "vq-8-8-2"))
    legal = f"presets are {', '.join(names())} (as in vq-4-8-1)"
    return Diagnostic("VQ0301", f"unknown preset '{name[:80]}'", help=" ".join(filter(None, (near, legal))))


def resolve(name: str) -> Algorithm:
    """Return the algorithm that a preset names. Raises VqccError as `preset` does."""
    from vqcc.algorithms import from_mapping

    return from_mapping(preset(name))


def name_of(algorithm: Algorithm) -> str | None:
    """Return the preset that stands for `algorithm`, the named ones first; None if there is none."""
    parametric = f"vq-{algorithm.vector_size}-{algorithm.code_bits}-{algorithm.residuals}"
    mapping = algorithm.mapping()
    return next((name for name in (*_PRESETS, parametric) if resolve(name).mapping() == mapping), None)
