"""Layers of the same inputs -> one layer, whose outputs are theirs side by side."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import DiagnosticList, VqccError
from vqcc.models.model import Layer, Part
from vqcc.spec.wording import choose, either, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from vqcc.spec.model import Spec
    from vqcc.spec.source import Source

__all__ = ["fused"]

FUSE = "fuse"

#: The spec of a fused layer: from its first part's name, the sum of that field, and its own name.
Join = Callable[[str, int, str], "Spec"]


def fused(
    layers: Sequence[Layer], fuse: Mapping[str, tuple[str, ...]], source: Source, join: Join
) -> tuple[Layer, ...]:
    """The layers, those that `fuse` lists as one where the first of them stood.

    Raises VqccError with all that forbids it: VQ0218, and whatever is wrong with a fused layer's spec.
    """
    found = DiagnosticList()
    own = {layer.name: layer for layer in layers}
    made: dict[str, Layer] = {}  # by the name of each part
    for name, parts in fuse.items():
        reason = _obstacle(name, parts, own, made)
        if reason is not None:
            message, help_text = reason
            found.error("VQ0218", message, span=source.key_span((FUSE, name)), help=help_text)
            continue
        try:
            layer = _joined(name, [own[part] for part in parts], join)
        except VqccError as error:
            found.extend(error.diagnostics)
        else:
            made |= dict.fromkeys(parts, layer)
    if found.has_errors:
        raise VqccError(*found.in_file_order())
    return tuple(dict.fromkeys(made.get(layer.name, layer) for layer in layers))


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
    name: str, parts: Sequence[str], own: Mapping[str, Layer], made: Mapping[str, Layer]
) -> tuple[str, str] | None:
    """Why layers cannot be fused, and what helps."""
    unknown = [part for part in parts if part not in own]
    taken = [part for part in parts if part in made]
    if name in own:
        return f"the fused layer {name} has the name of one of the layers", "call it otherwise"
    if unknown:
        return f"{name} fuses {quoted(unknown[0])}, which is no layer", choose(unknown[0], own)
    if taken:
        return f"{name} fuses {taken[0]}, which {made[taken[0]].name} does", "leave it out of one of them"
    first, *others = (own[part] for part in parts)
    return next(filter(None, (_misfit(name, first, layer) for layer in (first, *others))), None)


def _misfit(name: str, first: Layer, layer: Layer) -> tuple[str, str] | None:
    """What keeps a layer out of the fused layer `name`, whose first part is `first`."""
    kind = layer.spec.op.kind
    if layer.spec.op.fused_field is None:
        return (
            f"{name} fuses {layer.name}, a layer of {kind}",
            f"leave it out: {kind} has nothing to put side by side",
        )
    if layer.adds:
        return (
            f"{name} fuses {layer.name}, of which ranks have other inputs each",
            "leave it out, or divide it otherwise",
        )
    different = _differences(first, layer)
    if not different:
        return None
    what = f"{name} cannot fuse {first.name} and {layer.name}: they differ in {either(different, 'and')}"
    return what, "only the number of outputs may differ"


def _differences(first: Layer, second: Layer) -> list[str]:
    """Fields, other than the one that adds up, in which two layers differ."""
    one, two = (_flat(layer) for layer in (first, second))
    return [field for field in dict.fromkeys((*one, *two)) if one.get(field) != two.get(field)]


def _flat(layer: Layer) -> dict[str, Any]:
    spec = layer.spec
    op = {f"op.{field}": value for field, value in spec.op if field != spec.op.fused_field}
    rest = {"algorithm": spec.algorithm, "level": spec.level, "profile": spec.profile, "cache": spec.cache}
    return {**rest, **op, "parallel": layer.parallel}
