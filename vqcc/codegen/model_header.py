"""The C headers of a whole model: its layers, functions that load and launch all libraries (docs/models.md)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from vqcc.codegen.contract import LIBRARIES, contract_values, names_of
from vqcc.codegen.header import gpu_names
from vqcc.codegen.render import environment
from vqcc.codegen.text import Fragment, banner_of, c_identifier, comment, hexadecimal, string_text
from vqcc.data_files import templates_directory
from vqcc.outputs import gpu_file

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.codegen.contract import Header
    from vqcc.models.model import Layer, Model

__all__ = ["is_taken", "render_model_embedded", "render_model_header"]

#: Symbols that templates make of a prefix, less the prefix: all of one, or what comes before a layer's or GPU's name.
_SYMBOL = re.compile(r"\$\{ [pP] \}_(\w+)")
_INCLUDE = re.compile(r'^//% include "([^"]+\.j2)"$', re.MULTILINE)
_OF_MODELS = ("model.h.j2", "model_embedded.h.j2")


def is_taken(identifier: str) -> bool:
    """Whether symbols of the library of a layer with this C name may be symbols of the model's own header.

    The library's prefix is the model's and the name, so that is where a symbol of the model begins with the name, and
    goes on as symbols of libraries do. Capitals do not count: guards and types have the same words.
    """
    own, libraries = _symbols_of_templates()
    rest = [symbol.removeprefix(f"{identifier}_") for symbol in own if symbol.startswith(f"{identifier}_")]
    return any(part in libraries or part == "" for part in rest)


@cache
def _symbols_of_templates() -> tuple[frozenset[str], frozenset[str]]:
    """Symbols of a model's headers, and of libraries' headers, in small letters."""
    files = sorted(file.name for file in (templates_directory() / "host").glob("*.j2"))
    found: tuple[set[str], set[str]] = (set(), set())
    for file in files:
        found[file not in _OF_MODELS].update(_symbols_of(file))
    # Their templates print names of statuses from the table.
    found[0].update(map(str.lower, names_of("model")))
    found[1].update(name.lower() for header in LIBRARIES for name in names_of(header))
    return frozenset(found[0]), frozenset(found[1])


def _symbols_of(template: str) -> set[str]:
    """Symbols of a template and of the parts that it includes, in small letters."""
    text = (templates_directory() / "host" / template).read_text()
    found = set(map(str.lower, _SYMBOL.findall(text)))
    return found.union(*map(_symbols_of, _INCLUDE.findall(text)))


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
