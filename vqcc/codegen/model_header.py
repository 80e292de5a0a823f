"""The C headers of a whole model: its layers, functions that load and launch all libraries (docs/models.md)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqcc.codegen.contract import contract_values, names_of
from vqcc.codegen.header import gpu_names
from vqcc.codegen.render import environment
from vqcc.codegen.text import Fragment, banner_of, c_identifier, comment, hexadecimal, string_text
from vqcc.outputs import gpu_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.codegen.contract import Header
    from vqcc.models.model import Layer, Model

__all__ = ["render_model_embedded", "render_model_header"]


@dataclass(frozen=True)
class _Library:
    """A library by its C prefixes, the handle's member for it, and where its files are."""

    lp: Fragment
    LP: Fragment
    member: Fragment
    folder: Fragment
    stem: Fragment
    build_id: Fragment
    cubins: tuple[Fragment, ...]
    has_weight: bool
    kind: Fragment

    @classmethod
    def of(cls, layer: Layer, build_id: str) -> _Library:
        spec = layer.spec
        files = (gpu_file(spec.name, gpu.name, "cubin") for gpu in spec.gpu)
        return cls(
            c_identifier(spec.identifier),
            c_identifier(spec.identifier.upper()),
            c_identifier(layer.identifier),
            string_text(layer.name),
            string_text(spec.name),
            hexadecimal(build_id),
            tuple(string_text(f"{layer.name}/{file}") for file in files),
            spec.over_weights is not None,
            c_identifier(_kind_of(layer).upper()),
        )


def _kind_of(layer: Layer) -> Header:
    return "cache" if layer.spec.over_weights is None else "weights"


@dataclass(frozen=True)
class _Part:
    name: Fragment
    first: int
    rows: int


@dataclass(frozen=True)
class _Layer:
    """A layer, and the library that serves it."""

    name: Fragment
    identifier: Fragment
    upper: Fragment
    comma: Fragment
    op: Fragment
    parallel: Fragment
    adds: int
    parts: tuple[_Part, ...]
    has_weight: bool
    folder: Fragment
    lp: Fragment
    LP: Fragment
    member: Fragment

    @classmethod
    def of(cls, layer: Layer, library: _Library, *, last: bool) -> _Layer:
        return cls(
            string_text(layer.name),
            c_identifier(layer.identifier),
            c_identifier(layer.identifier.upper()),
            comment("" if last else ","),
            string_text(layer.spec.op.kind),
            string_text(layer.parallel or ""),
            int(layer.adds),
            tuple(_Part(string_text(part.name), part.first, part.rows) for part in layer.parts),
            layer.spec.over_weights is not None,
            library.folder,
            library.lp,
            library.LP,
            library.member,
        )


def render_model_header(model: Model, build_id: str, build_ids: Mapping[str, str]) -> str:
    """The header of a model; `build_ids` are those of its libraries, by the names of their layers."""
    libraries = {layer.name: _Library.of(layer, build_ids[layer.name]) for layer in model.libraries}
    owners = model.owners
    layers = tuple(
        _Layer.of(layer, libraries[owners[layer.name].name], last=layer is model.layers[-1])
        for layer in model.layers
    )
    weighted = [layer for layer in layers if layer.has_weight]
    kinds = dict.fromkeys(map(_kind_of, model.libraries))
    return (
        environment()
        .get_template("model.h.j2")
        .render(
            **_shared(model, f"{len(layers)} layers by {len(libraries)} libraries"),
            build_id=hexadecimal(build_id),
            ranks=model.ranks,
            gpu_count=len(model.gpu),
            **contract_values("model", gpus=gpu_names(model.gpu)),
            kinds=tuple(
                (c_identifier(kind.upper()), tuple(map(c_identifier, names_of(kind)))) for kind in kinds
            ),
            libraries=tuple(libraries.values()),
            layers=layers,
            weight_lp=weighted[0].lp if weighted else None,
        )
    )


def render_model_embedded(model: Model, build_ids: Mapping[str, str]) -> str:
    """The header that goes with a model's embedded GPU code."""
    return (
        environment()
        .get_template("model_embedded.h.j2")
        .render(
            **_shared(model, "what is embedded of it"),
            libraries=tuple(_Library.of(layer, build_ids[layer.name]) for layer in model.libraries),
        )
    )


def _shared(model: Model, what: str) -> dict[str, Any]:
    return {
        "p": c_identifier(model.identifier),
        "P": c_identifier(model.identifier.upper()),
        "stem": string_text(model.name),
        "banner": banner_of(f"{model.identifier}: {what}"),
    }
