"""A model: its layers as one rank of tensor parallelism has them, and the libraries that serve them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from vqcc.spec.identifier import to_identifier

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.gpus.model import Gpu
    from vqcc.spec.model import Spec

__all__ = ["Layer", "Model", "Part"]


@dataclass(frozen=True)
class Part:
    """A layer of the file that became part of a fused one: rows `first` to `first` + `rows` - 1 of its outputs."""

    name: str
    first: int
    rows: int


@dataclass(frozen=True)
class Layer:
    """A layer as a rank has it.

    `spec` has the rank's shapes, and the name of a library for this layer alone. `parallel` is how ranks share it, None
    where each has all of it; with `adds`, the outputs of all ranks are to be added up. `parts` are what was fused.
    """

    name: str
    spec: Spec
    parallel: str | None
    adds: bool
    parts: tuple[Part, ...] = ()

    @property
    def identifier(self) -> str:
        """The name as a C identifier."""
        return to_identifier(self.name)


@dataclass(frozen=True)
class Model:
    """Layers in the order of the file, fused ones where their first part stood, for `ranks` ranks."""

    name: str
    gpu: tuple[Gpu, ...]
    ranks: int
    layers: tuple[Layer, ...]

    @property
    def identifier(self) -> str:
        """The name as a C identifier."""
        return to_identifier(self.name)

    @cached_property
    def owners(self) -> Mapping[str, Layer]:
        """By each layer's name the one whose library serves it: the first with the same kernels."""
        first: dict[Spec, Layer] = {}
        return {layer.name: first.setdefault(_kernels(layer.spec), layer) for layer in self.layers}

    @property
    def libraries(self) -> tuple[Layer, ...]:
        """Layers that have a library of their own, whose folder bears their name."""
        return tuple(dict.fromkeys(self.owners.values()))


def _kernels(spec: Spec) -> Spec:
    """A spec by what it is, whatever it is called."""
    return spec.model_copy(update={"name": ""})
