"""Two algorithms where a cache has one for its keys and another for its values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from vqcc.algorithms.e8p import E8P
from vqcc.algorithms.kmeans import KMeans

if TYPE_CHECKING:
    from vqcc.algorithms.base import Algorithm

__all__ = ["KeyValue", "sides_of"]

_Side = Annotated[KMeans | E8P, Field(discriminator="family")]


class KeyValue(BaseModel):
    """Algorithms of a KV cache's keys and values; in the spec `algorithm: {key: cq-4, value: cq-2}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    key: Annotated[_Side, Field(description="of keys: a preset's name, or an algorithm in full")]
    value: Annotated[_Side, Field(description="of values: a preset's name, or an algorithm in full")]

    @property
    def label(self) -> str:
        """Both in the paper's notation."""
        return f"{self.key.label} keys, {self.value.label} values"

    def mapping(self) -> dict[str, Any]:
        """Both in full, as a spec writes them."""
        return {"key": self.key.mapping(), "value": self.value.mapping()}


def sides_of(algorithm: Algorithm | KeyValue) -> tuple[Algorithm, Algorithm]:
    """The algorithms of keys and of values: one object twice where a spec gives one."""
    if isinstance(algorithm, KeyValue):
        return algorithm.key, algorithm.value
    return algorithm, algorithm
