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


def _coupled(channels: int, entries: int) -> dict[str, Any]:
    # Coupled quantization (CQ): a codebook for each group of neighbouring channels of each kv-head.
    return _kmeans(channels, entries, 1, scope={"kv_heads": 1, "channels": channels}, scales="none")


#: One codebook for all channel groups and heads of a layer, as VecInfer has.
_LAYER: Mapping[str, Any] = {"scope": "layer", "scales": "none"}

_PRESETS: Mapping[str, dict[str, Any]] = {
    "aqlm-2x8": _kmeans(8, 256, 2),
    "aqlm-1x16": _kmeans(8, 65536, 1),
    "aqlm-3": _kmeans(8, 4096, 2),
    "gptvq-2": _gptvq(4),
    "gptvq-4": _gptvq(2),
    "quip-2": _e8p(1),
    "quip-4": _e8p(2),
    "cq-2": _coupled(4, 256),
    "cq-4": _coupled(2, 256),
    "cq-1": _coupled(8, 256),
}
_PARAMETRIC = re.compile(r"(vq|kv)-([0-9]{1,2})-([0-9]{1,2})-([0-9]{1,2})")
_COUPLED = re.compile(r"cq-([0-9]{1,2})c([0-9]{1,2})b")

# What a JSON Schema says of a preset's name; numbers in it within the family's ranges.
_NUMBER = "([1-9]|1[0-6])"
PATTERN = (
    "^(" + "|".join(_PRESETS) + f"|(vq|kv)-{_NUMBER}-{_NUMBER}-[1-8]|cq-{_NUMBER}c{_NUMBER}b" + ")$"
)  # fmt: skip


#: Names with numbers: vector size x, log2 of entries y and residual stages z, or X and Y; and a member of each.
PARAMETRIC: Mapping[str, str] = {"vq-x-y-z": "vq-4-8-1", "kv-x-y-z": "kv-4-8-1", "cq-XcYb": "cq-8c10b"}


def named() -> tuple[str, ...]:
    """Names of the presets that have no numbers to choose."""
    return tuple(_PRESETS)


def names() -> tuple[str, ...]:
    """Every preset's name, those with numbers last."""
    return (*_PRESETS, *PARAMETRIC)


def preset(name: str) -> dict[str, Any]:
    """Return the mapping that a preset stands for, as a spec would write it.

    Raises VqccError: VQ0301 for a name that is no preset or has a number out of range.
    """
    if name in _PRESETS:
        return dict(_PRESETS[name])
    coupled, match = _COUPLED.fullmatch(name), _PARAMETRIC.fullmatch(name)
    if coupled is not None:
        kind, vector_size, bits, residuals = "cq", int(coupled[1]), int(coupled[2]), 1
    elif match is not None:
        kind, vector_size, bits, residuals = match[1], *(int(number) for number in match.groups()[1:])
    else:
        raise VqccError(_unknown(name))
    wrong = [
        f"{what} {value} is not 1 to {most}"
        for what, value, most in (
            ("vector size", vector_size, 16),
            ("log2 of entries", bits, 16),
            ("residual stages", residuals, 8),
        )
        if not 1 <= value <= most
    ]
    if wrong or name != _written(kind, vector_size, bits, residuals):
        message = f"preset '{name}': {', '.join(wrong) or 'numbers have no leading zeros'}"
        raise VqccError(Diagnostic("VQ0301", message, help=_PARAMETRIC_HELP))
    if kind == "cq":
        return _coupled(vector_size, 2**bits)
    return _kmeans(vector_size, 2**bits, residuals, **(_LAYER if kind == "kv" else {}))


_PARAMETRIC_HELP = (
    "vq-x-y-z and kv-x-y-z have vector size x (1 to 16), 2^y entries (y 1 to 16) and "
    "z residual stages (1 to 8), as in vq-4-8-1; cq-XcYb has groups of X channels and codes of Y bits, as in cq-8c10b"
)


def _written(kind: str, vector_size: int, bits: int, residuals: int) -> str:
    """The name of a preset with numbers."""
    return f"cq-{vector_size}c{bits}b" if kind == "cq" else f"{kind}-{vector_size}-{bits}-{residuals}"


def _unknown(name: str) -> Diagnostic:
    near = did_you_mean(name, (*_PRESETS, "vq-4-8-1", "vq-8-8-2"))
    legal = f"presets are {', '.join(names())} (as in vq-4-8-1)"
    return Diagnostic("VQ0301", f"unknown preset '{name[:80]}'", help=" ".join(filter(None, (near, legal))))


def resolve(name: str) -> Algorithm:
    """Return the algorithm that a preset names. Raises VqccError as `preset` does."""
    from vqcc.algorithms import from_mapping

    return from_mapping(preset(name))


def name_of(algorithm: Algorithm) -> str | None:
    """Return the preset that stands for `algorithm`, the named ones first; None if there is none."""
    numbers = (algorithm.vector_size, algorithm.code_bits, algorithm.residuals)
    parametric = [_written(kind, *numbers) for kind in ("vq", "kv", "cq")]
    mapping = algorithm.mapping()
    return next((name for name in (*_PRESETS, *parametric) if resolve(name).mapping() == mapping), None)
