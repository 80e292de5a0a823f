"""Names of layers and libraries: what is wrong with each by itself, and the symbols that headers have of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic_core import PydanticCustomError

from vqcc.codegen.symbols import library_headers, model_headers, shared_symbol
from vqcc.diagnostics import Diagnostic, DiagnosticList
from vqcc.models.model import Model
from vqcc.ops import OPS, WEIGHT_OPS
from vqcc.spec.identifier import check_identifier, to_identifier

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vqcc.codegen.contract import Header
    from vqcc.codegen.symbols import Headers
    from vqcc.spec.model import Spec
    from vqcc.spec.source import Source

__all__ = ["NamedLayer", "headers_of", "shared_symbols", "wrong_names"]


def headers_of(spec: Spec | Model) -> tuple[Headers, ...]:
    """The headers of a library; of a model its own first, then those of each of its libraries."""
    gpus = [gpu.name for gpu in spec.gpu]
    if not isinstance(spec, Model):
        return (_library(spec.identifier, spec.op.kind, gpus),)
    weighted = [layer.identifier for layer in spec.layers if layer.spec.over_weights is not None]
    return (
        model_headers(spec.identifier, [layer.identifier for layer in spec.layers], weighted),
        *(
            _library(f"{spec.identifier}_{layer.identifier}", layer.spec.op.kind, gpus)
            for layer in spec.libraries
        ),
    )


def _library(identifier: str, op: str, gpus: Sequence[str]) -> Headers:
    """The headers of a library whose op is of this kind."""
    of: Header = "weights" if op in WEIGHT_OPS else "cache"
    return library_headers(identifier, of, OPS[op].header_template, gpus)


def wrong_names(source: Source, places: Iterable[tuple[str, str]]) -> DiagnosticList:
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
        if identifier in taken and taken[identifier] != name:
            message = f"the layers {taken[identifier]} and {name} are both {identifier} in C"
            found.error("VQ0210", message, span=span, help="rename one: in C symbols - and _ are one")
        taken.setdefault(identifier, name)
    return found


@dataclass(frozen=True)
class NamedLayer:
    """A layer by its name, the kind of its op, and the field of the file that it stands in: `layers` or `fuse`.

    Without `has_library` another layer's library serves it.
    """

    field: str
    name: str
    kind: str
    has_library: bool

    @property
    def identifier(self) -> str:
        """The name as a C identifier."""
        return to_identifier(self.name)


def shared_symbols(
    model: str, layers: Iterable[NamedLayer], gpus: Sequence[str], source: Source
) -> Iterator[Diagnostic]:
    """VQ0208 for each library that would define a symbol of the model's own headers, or of a library before it.

    `model` is its C name, and `gpus` are the names of its GPUs. What is found stands at the later of two layers.
    """
    spans = {layer: source.key_span((layer.field, layer.name)) for layer in layers}
    in_order = sorted(spans, key=lambda layer: (spans[layer].line, spans[layer].column))
    weighted = [layer.identifier for layer in in_order if layer.kind in WEIGHT_OPS]
    own = model_headers(model, [layer.identifier for layer in in_order], weighted)
    before: list[tuple[NamedLayer, Headers]] = []
    for layer in in_order:
        if not layer.has_library:
            continue
        headers = _library(f"{model}_{layer.identifier}", layer.kind, gpus)
        symbol = shared_symbol(own, headers)
        if symbol is not None:
            message = f"a layer cannot be called '{layer.name}': its header and the model's would both define {symbol}"
            yield Diagnostic("VQ0208", message, spans[layer], help=f"use {layer.name}_proj or the like")
        for earlier, of_earlier in before:
            # Names that are one in C have been told of.
            same = earlier.identifier == layer.identifier
            symbol = None if same else shared_symbol(of_earlier, headers)
            if symbol is not None:
                message = (
                    f"the headers of the layers {earlier.name} and {layer.name} would both define {symbol}"
                )
                help_text = "rename one of the two: a library's symbols begin with its name"
                yield Diagnostic("VQ0208", message, spans[layer], help=help_text)
        before.append((layer, headers))
