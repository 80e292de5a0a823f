"""C symbols that headers define. Each begins with a name, so that headers of two names may define the same ones.

That is so where one name goes on as symbols of the other do: `attention` defines ATTENTION_SLIDING_WINDOW, and so does
`attention_sliding`, whose WINDOW it is (docs/header.md).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from typing import TYPE_CHECKING

from vqcc.codegen.contract import LIBRARIES, names_of
from vqcc.data_files import templates_directory

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from vqcc.codegen.contract import Header

__all__ = [
    "Headers",
    "image_symbol",
    "kernel_headers",
    "library_headers",
    "may_share",
    "model_headers",
    "shared_symbol",
]

#: What a template makes of a prefix, in small letters or capitals: words, and places for names of GPUs, layers,
#: kernels or statuses. Not "P_LAYER_...", of which a comment speaks.
_SYMBOL = re.compile(r"\$\{ ([pP]) \}_((?>(?:\w|\$\{ [^}]+ \})+))(?!\.\.\.)")
_PLACE = re.compile(r"\$\{ ([^}]+) \}")
_PART = re.compile(r'^//% (?:extends|include) "([\w.-]+\.j2)"$', re.MULTILINE)


@dataclass(frozen=True)
class Headers:
    """All headers under one C name: of a library, a model or hand-written kernels.

    `templates` are what they are made of, `names` what stands in each of their places, in capitals, and `images` the
    symbols of embedded GPU code.
    """

    identifier: str
    templates: tuple[str, ...]
    names: Mapping[str, tuple[str, ...]]
    images: tuple[str, ...] = ()

    @cached_property
    def symbols(self) -> frozenset[str]:
        """What they define: macros and enumerators in capitals, functions and types in small letters.

        Whatever stands in a template counts, also where a library of today is without it: a name that will do goes on
        doing when a layout changes, or what is emitted.
        """
        prefixes = {"p": self.identifier, "P": self.identifier.upper()}
        patterns = frozenset[tuple[str, str]]().union(*map(_patterns, self.templates))
        written = (
            f"{prefixes[prefix]}_{symbol}"
            for prefix, pattern in patterns
            for symbol in _filled(pattern, self.names)
        )
        return frozenset((*written, *self.images))


def library_headers(identifier: str, kind: Header, template: str, gpus: Iterable[str]) -> Headers:
    """Those of a library: one of its op's `template`, and one for embedded code, PTX too, of GPUs of these names.

    `kind` is weights or cache.
    """
    gpus = tuple(gpus)
    images = tuple(image_symbol(identifier, gpu, kind) for gpu, kind in product(gpus, ("cubin", "ptx")))
    names = {"gpu.upper": tuple(map(str.upper, gpus)), "status.name": names_of(kind)}
    return Headers(identifier, (template, "embedded.h.j2"), names, images)


def model_headers(identifier: str, layers: Iterable[str], weighted: Iterable[str]) -> Headers:
    """A model's own, over layers of these C names, of which those `weighted` have a weight: not its libraries'."""
    names = {
        "kind": tuple(map(str.upper, LIBRARIES)),
        "layer.upper": tuple(map(str.upper, layers)),
        "status.name": names_of("model"),
        "weighted.upper": tuple(map(str.upper, weighted)),
    }
    return Headers(identifier, ("model.h.j2", "model_embedded.h.j2"), names)


def kernel_headers(identifier: str, kernels: Iterable[str], targets: Iterable[str]) -> Headers:
    """That of hand-written kernels of these names, embedded for architectures `targets` ("sm_90")."""
    images = tuple(image_symbol(identifier, target, "cubin") for target in targets)
    names = {"kernel.upper": tuple(map(str.upper, kernels)), "status.name": names_of("kernels")}
    return Headers(identifier, ("cubin.h.j2",), names, images)


def image_symbol(identifier: str, gpu: str, kind: str) -> str:
    """The symbol of what is embedded for a GPU or an architecture, of `kind` cubin or ptx."""
    return f"{identifier}_{gpu}_{kind}"


def shared_symbol(one: Headers, other: Headers) -> str | None:
    """A symbol that both define, a macro if there is one; None if there is none."""
    if not may_share(one.identifier, other.identifier):
        return None
    return min(one.symbols & other.symbols, default=None)


def may_share(one: str, other: str) -> bool:
    """Whether headers of two C names may define one symbol: if one name is the other, or is that, _ and more."""
    return f"{one}_".startswith(f"{other}_") or f"{other}_".startswith(f"{one}_")


def _filled(pattern: str, names: Mapping[str, tuple[str, ...]]) -> Iterable[str]:
    """The symbols of a pattern, one for each name in each of its places.

    None for a place that has no names: what stands there is also written out where templates speak of it, as launches
    are, or has a place with names, as statuses have.
    """
    words = _PLACE.split(pattern)  # places are those of odd number
    choices = [names.get(word, ()) if number % 2 else (word,) for number, word in enumerate(words)]
    return map("".join, product(*choices))


@cache
def _patterns(template: str) -> frozenset[tuple[str, str]]:
    """What a template, and those that it is made of, say after `p` and after `P`."""
    text = (templates_directory() / "host" / template).read_text()
    return frozenset(_SYMBOL.findall(text)).union(*map(_patterns, _PART.findall(text)))
