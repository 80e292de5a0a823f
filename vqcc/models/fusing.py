"""Layers of the same inputs -> one layer, whose outputs are theirs side by side."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqcc.algorithms import KeyValue
from vqcc.algorithms.presets import name_of
from vqcc.diagnostics import DiagnosticList, VqccError
from vqcc.models.model import Layer, Part
from vqcc.spec.wording import choose, either, quoted

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from vqcc.spec.model import Spec
    from vqcc.spec.source import Source

__all__ = ["FUSE", "fused"]

FUSE = "fuse"

#: The spec of a fused layer: from its first part's name, the sum of that field, and its own name.
Join = Callable[[str, int, str], "Spec"]


def fused(
    layers: Sequence[Layer],
    listed: Collection[str],
    fuse: Mapping[str, tuple[str, ...]],
    source: Source,
    join: Join,
) -> tuple[tuple[Layer, ...], DiagnosticList]:
    """The layers, those that `fuse` lists as one where the first of them stood; and what forbids it.

    That is VQ0218, and whatever is wrong with a fused layer's spec. `listed` are all names of layers: those that are
    not among `layers` are wrong themselves, and what is fused of them is left alone.
    """
    found = DiagnosticList()
    own = {layer.name: layer for layer in layers}
    made: dict[str, Layer | None] = {}  # by the name of each part
    for name, parts in fuse.items():
        misfit = _obstacle(name, parts, listed, own, made)
        if misfit is not None:
            place = (FUSE, name) if misfit.part is None else (FUSE, name, parts.index(misfit.part))
            span = source.key_span(place) if misfit.part is None else source.span(place)
            found.error("VQ0218", misfit.message, span=span, help=misfit.help)
            continue
        layer = None
        if all(part in own for part in parts):
            try:
                layer = _joined(name, [own[part] for part in parts], join)
            except VqccError as error:
                found.extend(error.diagnostics)
        made |= dict.fromkeys(parts, layer)
    result = tuple(dict.fromkeys(made.get(layer.name) or layer for layer in layers))
    return result, found


@dataclass(frozen=True)
class _Misfit:
    """Why layers cannot be fused, what helps, and the part that is at fault if one is."""

    message: str
    help: str
    part: str | None = None


def _joined(name: str, layers: Sequence[Layer], join: Join) -> Layer:
    first = layers[0]
    parts = []
    rows = 0
    for layer in layers:
        own = _size(layer.spec)
        parts.append(Part(layer.name, rows, own))
        rows += own
    return Layer(name, join(first.name, rows, name), first.parallel, first.adds, tuple(parts))


def _size(spec: Spec) -> int:
    field = spec.op.fused_field
    assert field is not None
    return int(getattr(spec.op, field))


def _obstacle(
    name: str,
    parts: Sequence[str],
    listed: Collection[str],
    own: Mapping[str, Layer],
    made: Mapping[str, Layer | None],
) -> _Misfit | None:
    """Why layers cannot be fused."""
    if name in listed:
        return _Misfit(f"the fused layer {name} has the name of one of the layers", "call it otherwise")
    for part in parts:
        if part not in listed:
            return _Misfit(f"{name} fuses {quoted(part)}, which is no layer", choose(part, listed), part)
        if part in made:
            return _Misfit(
                f"{name} fuses {part}, which is fused already", "leave it out of one of them", part
            )
    sound = [own[part] for part in parts if part in own]
    return next(filter(None, (_misfit(name, sound[0], layer) for layer in sound)), None)


def _misfit(name: str, first: Layer, layer: Layer) -> _Misfit | None:
    """What keeps a layer out of the fused layer `name`, whose first part is `first`."""
    kind = layer.spec.op.kind
    if layer.spec.op.fused_field is None:
        message = f"{name} fuses {layer.name}, a layer of {kind}"
        return _Misfit(message, f"leave it out: {kind} has nothing to put side by side", layer.name)
    if layer.adds:
        message = f"{name} fuses {layer.name}, of which ranks have other inputs each"
        return _Misfit(message, "leave it out, or divide it otherwise", layer.name)
    one, two = _flat(first), _flat(layer)
    different = [field for field in dict.fromkeys((*one, *two)) if one.get(field) != two.get(field)]
    if not different:
        return None
    shown = [f"{field} ({one.get(field)} and {two.get(field)})" for field in different]
    message = f"{name} cannot fuse {first.name} and {layer.name}: they differ in {either(shown, 'and')}"
    return _Misfit(message, "only the number of outputs may differ", layer.name)


def _flat(layer: Layer) -> dict[str, Any]:
    """Fields of a layer, as messages show them, but for the one that adds up."""
    spec = layer.spec
    op = {f"op.{field}": value for field, value in spec.op if field != spec.op.fused_field}
    profile = None if spec.profile is None else spec.profile.file
    rest = {"algorithm": _label(spec), "level": spec.level, "profile": profile, "cache": spec.cache}
    return {**rest, **op, "parallel": layer.parallel}


def _label(spec: Spec) -> str:
    """An algorithm by its preset's name, or in full."""
    algorithm = spec.algorithm
    if isinstance(algorithm, KeyValue):
        return f"{algorithm.key.mapping()} and {algorithm.value.mapping()}"
    return name_of(algorithm) or str(algorithm.mapping())
