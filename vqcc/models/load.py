"""A spec file, of one library or of a whole model -> what it says, or everything that is wrong with it at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from vqcc import gpus
from vqcc.codegen.model_header import is_taken
from vqcc.diagnostics import Diagnostic, DiagnosticList, VqccError, did_you_mean
from vqcc.models.dividing import divided
from vqcc.models.fields import LAYER_FIELDS, PARALLEL, SHARED_FIELDS, ModelFields
from vqcc.models.fusing import FUSE, fused
from vqcc.models.model import Layer, Model
from vqcc.ops import OPS
from vqcc.spec.identifier import check_identifier, to_identifier
from vqcc.spec.load import LAYERS, expect_mapping, spec_in
from vqcc.spec.model import SPEC_VERSION
from vqcc.spec.parts import wrong_kind
from vqcc.spec.source import parse_source, read_source
from vqcc.spec.violations import validate
from vqcc.spec.wording import quoted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from vqcc.diagnostics import Span
    from vqcc.models.dividing import Share
    from vqcc.spec.events import FieldPath
    from vqcc.spec.model import Spec
    from vqcc.spec.source import Source

__all__ = ["load_any", "parse_any"]

#: What the file says once, and each layer's spec says with it.
_SHARED = ("vqcc", "gpu", "level")


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
    listed = source.data[LAYERS] if isinstance(source.data[LAYERS], dict) else {}
    fuse = {} if fields is None else fields.fuse
    found.extend(
        _wrong_names(source, [*((LAYERS, name) for name in listed), *((FUSE, name) for name in fuse)])
    )
    reader = _Reader(source, 1 if fields is None else fields.tensor_parallel, overrides)
    layers = reader.read_all(listed, found)
    result, wrong = fused(layers, listed, fuse, source, reader.join)
    found.extend(wrong)
    if fields is None or found.has_errors:
        raise VqccError(*found.in_file_order())
    return Model(fields.name, layers[0].spec.gpu, fields.tensor_parallel, result)


class _Reader:
    """Reads the layers of a file, each as the spec of a library."""

    def __init__(self, source: Source, ranks: int, overrides: Mapping[str, Any]) -> None:
        self._source, self._ranks, self._overrides = source, ranks, overrides
        self._shares: dict[str, Share] = {}

    def read_all(self, listed: Mapping[str, Any], found: DiagnosticList) -> tuple[Layer, ...]:
        """Each sound layer as a rank has it; what is wrong with others is added to `found`."""
        layers = []
        for name, data in listed.items():
            if not isinstance(data, dict):
                found.extend(wrong_kind(self._source, data, (LAYERS, name), "a mapping"))
                continue
            wrong = DiagnosticList(_unknown_fields(self._source, name, data))
            layer = self._read(name, {field: data[field] for field in data if field in LAYER_FIELDS}, wrong)
            found.extend(wrong)
            if layer is not None and not wrong.has_errors:
                layers.append(layer)
        return tuple(layers)

    def join(self, first: str, size: int, name: str) -> Spec:
        """The spec of a fused layer `name` of `size` outputs, else as its `first` part."""
        data = self._shares[first].data
        field = OPS[data["op"]["kind"]].fused_field
        return spec_in(
            _layer_source(self._source, first, {**data, "op": {**data["op"], field: size}}, name),
            **self._overrides,
        )

    def _read(self, name: str, data: Mapping[str, Any], wrong: DiagnosticList) -> Layer | None:
        own = dict(data)
        parallel = own.pop(PARALLEL, None)
        share = self._shares[name] = divided(self._source, name, own, parallel, self._ranks)
        wrong.extend(share.wrong)
        try:
            spec = spec_in(_layer_source(self._source, name, share.data, name), **self._overrides)
        except VqccError as error:
            wrong.extend(share.explained(error.diagnostics))
            return None
        if share.division is None:
            return Layer(name, spec, None, adds=False)
        return Layer(name, spec, str(parallel), adds=share.division.adds and self._ranks > 1)


def _unknown_fields(source: Source, name: str, data: Mapping[str, Any]) -> Iterator[Diagnostic]:
    """VQ0201 for each field that a layer does not have: of no spec, or said once for all layers."""
    for field in data:
        if field in LAYER_FIELDS:
            continue
        known = f"a layer has {', '.join(LAYER_FIELDS)}"
        of_model = f"{field} is the model's: all layers have the same"
        help_text = of_model if field in SHARED_FIELDS else did_you_mean(field, LAYER_FIELDS) or known
        message = f"the layer {name} has no field {quoted(field)}"
        yield Diagnostic(
            "VQ0201", message, source.key_span((LAYERS, name, field)), help=help_text, label="unknown field"
        )


def _wrong_names(source: Source, places: Iterable[tuple[str, str]]) -> DiagnosticList:
    """What is wrong with names of layers, fused ones too: VQ0207, VQ0208, or VQ0210 if two are one in C."""
    found = DiagnosticList()
    taken: dict[str, str] = {}
    for where in places:
        name, span = where[1], source.key_span(where)
        identifier = to_identifier(name)
        try:
            check_identifier(name, "a layer's name")
        except PydanticCustomError as error:
            context = error.context or {}
            found.error(error.type, context["text"], span=span, help=context["help"])
        if is_taken(identifier):
            message = (
                f"a layer cannot be called '{name}': symbols of the model's own header would be its library's"
            )
            found.error("VQ0208", message, span=span, help=f"use {name}_proj or the like")
        if identifier in taken and taken[identifier] != name:
            message = f"the layers {taken[identifier]} and {name} are both {identifier} in C"
            found.error("VQ0210", message, span=span, help="rename one: in C symbols - and _ are one")
        taken.setdefault(identifier, name)
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
    # In the place of what is missing, which has been told.
    shared = {"vqcc": SPEC_VERSION, "gpu": gpus.names()[0], **shared}
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
