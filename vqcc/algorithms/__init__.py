"""Vector-quantization algorithms: one file per family, and presets that name their members."""

from __future__ import annotations

from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field, TypeAdapter

from vqcc.algorithms.base import (
    Algorithm,
    DeviceAlgorithm,
    Part,
    Scales,
    Scope,
)
from vqcc.algorithms.e8p import E8P
from vqcc.algorithms.key_value import KeyValue, sides_of
from vqcc.algorithms.kmeans import KMeans

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "E8P",
    "FAMILIES",
    "Algorithm",
    "AnyAlgorithm",
    "DeviceAlgorithm",
    "KMeans",
    "KeyValue",
    "Part",
    "Scales",
    "Scope",
    "from_mapping",
    "sides_of",
]

FAMILIES: Mapping[str, type[Algorithm]] = MappingProxyType({"kmeans": KMeans, "e8p": E8P})

AnyAlgorithm = Annotated[KMeans | E8P, Field(discriminator="family")]


@cache
def _adapter() -> TypeAdapter[KMeans | E8P]:
    return TypeAdapter(AnyAlgorithm)


def from_mapping(mapping: Mapping[str, Any]) -> Algorithm:
    """Make an algorithm of what a spec or a tensor file says of it. Raises pydantic.ValidationError."""
    return _adapter().validate_python(dict(mapping))
