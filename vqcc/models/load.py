"""A spec file, of one library or of a whole model -> what it says, or everything that is wrong with it at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from vqcc import gpus
from vqcc.diagnostics import DiagnosticList, VqccError
from vqcc.models.dividing import divided
from vqcc.models.fields import ModelFields
from vqcc.models.fusing import fused
from vqcc.models.model import Layer, Model
from vqcc.ops import OPS
from vqcc.spec.identifier import check_identifier, to_identifier
from vqcc.spec.load import LAYERS, expect_mapping, spec_in
from vqcc.spec.parts import wrong_kind
from vqcc.spec.source import parse_source, read_source
from vqcc.spec.violations import validate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from vqcc.diagnostics import Span
    from vqcc.spec.events import FieldPath
    from vqcc.spec.model import Spec
    from vqcc.spec.source import Source

__all__ = ["load_any", "parse_any"]

#: What the file says once for all layers.
_SHARED = ("vqcc", "gpu", "level")
#: Layers whose functions would be called as the model's own.
_RESERVED = {"layer", "library", "linear"}


def load_any(
    path: Path, *, gpu_override: tuple[str, ...] = (), level_override: str | None = None
) -> Spec | Model:
    """Read, validate and check a spec file. Arguments and errors are those of vqcc.spec.load.load_spec."""
    return _any_in(read_source(path), gpu_override, level_override)


def parse_any(
    data: bytes, path: str, *, gpu_override: tuple[str, ...] = (), level_override: str | None = None
) -> Spec | Model:
    """Do the same for a spec held in memory; `path` is what diagnostics show."""
    return _any_in(parse_source(data, path), gpu_override, level_override)


def _any_in(source: Source, gpu_override: tuple[str, ...], level_override: str | None) -> Spec | Model:
    expect_mapping(source)
    overrides: dict[str, Any] = {"gpu_override": gpu_override, "level_override": level_override}
    if LAYERS not in source.data:
        return spec_in(source, **overrides)
    return _model_in(source, overrides)


def _model_in(source: Source, overrides: Mapping[str, Any]) -> Model:
    """A model of a parsed file. Raises VqccError with all that is wrong with any of its layers."""
    found = DiagnosticList()
    read = validate(ModelFields, source.data, source)
    fields = None if isinstance(read, DiagnosticList) else read
    if isinstance(read, DiagnosticList):
        found.extend(read)
    reader = _Reader(source, 1 if fields is None else fields.tensor_parallel, overrides)
    layers = reader.read_all(found)
    if fields is None or found.has_errors:
        raise VqccError(*found.in_file_order())
    result = fused(layers, fields.fuse, source, reader.join)
    return Model(fields.name, layers[0].spec.gpu, fields.tensor_parallel, result)


class _Reader:
    """Reads the layers of a file, each as the spec of a library."""

    def __init__(self, source: Source, ranks: int, overrides: Mapping[str, Any]) -> None:
        self._source, self._ranks, self._overrides = source, ranks, overrides
        self._shares: dict[str, dict[str, Any]] = {}  # what a rank has of each layer's mapping

    def read_all(self, found: DiagnosticList) -> tuple[Layer, ...]:
        """Each layer as a rank has it; what is wrong is added to `found`, and the others are still looked at."""
        listed = self._source.data[LAYERS]
        layers = []
        taken: dict[str, str] = {}
        for name, data in listed.items() if isinstance(listed, dict) else ():
            found.extend(_wrong_name(self._source, name, taken))
            if not isinstance(data, dict):
                found.extend(wrong_kind(self._source, data, (LAYERS, name), "a mapping"))
                continue
            try:
                layers.append(self._read(name, data))
            except VqccError as error:
                found.extend(error.diagnostics)
        return tuple(layers)

    def join(self, first: str, size: int, name: str) -> Spec:
        """The spec of a fused layer `name` of `size` outputs, else as its `first` part."""
        data = self._shares[first]
        field = OPS[data["op"]["kind"]].fused_field
        return self._spec(first, {**data, "op": {**data["op"], field: size}}, name)

    def _read(self, name: str, data: Mapping[str, Any]) -> Layer:
        own = dict(data)
        parallel = own.pop("parallel", None)
        division, self._shares[name] = divided(self._source, name, own, parallel, self._ranks)
        spec = self._spec(name, self._shares[name], name)
        if division is None:
            return Layer(name, spec, None, adds=False)
        return Layer(name, spec, parallel, adds=division.adds and self._ranks > 1)

    def _spec(self, layer: str, data: Mapping[str, Any], name: str) -> Spec:
        return spec_in(_layer_source(self._source, layer, data, name), **self._overrides)


def _wrong_name(source: Source, name: str, taken: dict[str, str]) -> DiagnosticList:
    """What is wrong with a layer's name: VQ0207, VQ0208, or VQ0210 if another layer is called so in C."""
    found = DiagnosticList()
    span = source.key_span((LAYERS, name))
    identifier = to_identifier(name)
    try:
        check_identifier(name, "a layer's name")
    except PydanticCustomError as error:
        context = error.context or {}
        found.error(error.type, context["text"], span=span, help=context["help"])
    if identifier in _RESERVED:
        message = f"a layer cannot be called '{name}': functions of the model itself are"
        found.error("VQ0208", message, span=span, help=f"use {name}_proj or the like")
    if identifier in taken:
        message = f"the layers {taken[identifier]} and {name} are both {identifier} in C"
        found.error("VQ0210", message, span=span, help="rename one: in C symbols - and _ are one")
    taken[identifier] = name
    return found


def _is_name(name: object) -> bool:
    try:
        return isinstance(name, str) and bool(check_identifier(name, "a name"))
    except PydanticCustomError:
        return False


def _layer_source(source: Source, layer: str, data: Mapping[str, Any], name: str) -> Source:
    """A layer as the spec of a library: what the file says of it, and once for all, at the places where it does."""
    top = source.data
    shared = {field: top[field] for field in _SHARED if field in top}
    if "gpu" not in shared:
        shared["gpu"] = gpus.names()[0]  # in its place: that it is missing has been told
    prefix = (LAYERS, layer)

    def moved(places: Mapping[FieldPath, Span]) -> dict[FieldPath, Span]:
        kept = {where: place for where, place in places.items() if where and where[0] in shared}
        return kept | {where[2:]: place for where, place in places.items() if where[:2] == prefix}

    values, keys = moved(source.values), moved(source.keys)
    values["name",] = source.key_span(prefix)
    names = [top.get("name"), name]
    # What is wrong with one of the two has been told; they may still be too long together.
    full_name = f"{names[0]}-{name}" if all(map(_is_name, names)) else "layer"
    merged = {**shared, "name": full_name, **data}
    return replace(source, data=merged, values=values, keys=keys, whole=f"the layer {layer}")
