"""A spec file, of one library or of a whole model -> what it says, or everything that is wrong with it at once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from vqcc import gpus
from vqcc.diagnostics import Diagnostic, DiagnosticList, VqccError, did_you_mean
from vqcc.models.dividing import divided
from vqcc.models.fields import LAYER_FIELDS, PARALLEL, SHARED_FIELDS, ModelFields
from vqcc.models.fusing import FUSE, fused
from vqcc.models.model import Layer, Model
from vqcc.models.names import NamedLayer, shared_symbols, wrong_names
from vqcc.ops import OPS
from vqcc.spec.identifier import check_identifier, check_library_name, to_identifier
from vqcc.spec.load import LAYERS, expect_mapping, spec_in
from vqcc.spec.model import SPEC_VERSION
from vqcc.spec.parts import wrong_kind
from vqcc.spec.source import parse_source, read_source
from vqcc.spec.violations import validate
from vqcc.spec.wording import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
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
        wrong_names(source, [*((LAYERS, name) for name in listed), *((FUSE, name) for name in fuse)])
    )
    reader = _Reader(source, 1 if fields is None else fields.tensor_parallel, overrides)
    layers = reader.read_all(listed, found)
    result, wrong = fused(layers, listed, fuse, source, reader.join)
    found.extend(wrong)
    found.extend(_shared_symbols(source, listed, result))
    if fields is None or found.has_errors:
        raise VqccError(*found.in_file_order())
    return Model(fields.name, layers[0].spec.gpu, fields.tensor_parallel, result)


def _shared_symbols(
    source: Source, listed: Mapping[str, Any], layers: Sequence[Layer]
) -> Iterator[Diagnostic]:
    """VQ0208 for libraries whose symbols would be one, whatever else is wrong; `layers` are sound, and fused."""
    # Of parts that could not be fused there will be no libraries.
    parts = _parts(source.data.get(FUSE))
    sound = tuple(layer for layer in layers if layer.name not in parts)
    gpus = sound[0].spec.gpu if sound else ()
    owners = {layer.name for layer in Model("", gpus, 1, sound).libraries}
    named = [
        NamedLayer(FUSE if layer.parts else LAYERS, layer.name, layer.spec.op.kind, layer.name in owners)
        for layer in sound
    ]
    done = {layer.name for layer in sound} | parts
    said: list[Any] = []
    for name, data in listed.items():
        kind = _kind_of(data)
        if kind is not None and name not in done:
            # What two say alike will have the same kernels.
            named.append(NamedLayer(LAYERS, name, kind, data not in said))
        said.append(data)
    # "p", of which symbols are on the pages, in the place of a name that is wrong.
    own = source.data["name"] if _is_name(source.data.get("name"), check_library_name) else "p"
    return shared_symbols(to_identifier(own), named, [gpu.name for gpu in gpus], source)


def _parts(fuse: Any) -> set[str]:
    """Layers that are to become parts of fused ones, even if the file is wrong about them."""
    lists = fuse.values() if isinstance(fuse, dict) else ()
    return {part for parts in lists if isinstance(parts, list) for part in parts if isinstance(part, str)}


def _kind_of(data: Any) -> str | None:
    """The kind of op of a layer that something else may be wrong with; None if it has none."""
    op = data.get("op") if isinstance(data, dict) else None
    kind = op.get("kind") if isinstance(op, dict) else None
    return kind if isinstance(kind, str) and kind in OPS else None


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


def _is_name(name: object, check: Callable[[str, str], str]) -> bool:
    try:
        return isinstance(name, str) and bool(check(name, "a name"))
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
    # What is wrong with one of the two has been told; they may still be too long together.
    are_names = _is_name(top.get("name"), check_library_name) and _is_name(name, check_identifier)
    full_name = f"{top['name']}-{name}" if are_names else "layer"
    merged = {**shared, "name": full_name, **data}
    return replace(source, data=merged, values=values, keys=keys, whole=f"the layer {layer}")
