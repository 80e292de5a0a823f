"""What generated headers agree on with programs and with each other: its version, statuses, sizes of arguments.

Templates print what is here; docs/header.md has it in words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from vqcc.codegen.text import c_identifier, comment, literal, string_text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.codegen.text import Fragment

__all__ = [
    "ABI_VERSION",
    "ARGS_BYTES",
    "LIBRARIES",
    "STATUSES",
    "Header",
    "HeaderStatus",
    "Status",
    "StatusName",
    "Words",
    "contract_values",
    "names_of",
    "statuses_of",
]

#: Of the contract, in every header: one more when a number, a size or a symbol in any of them becomes another.
ABI_VERSION = 6

#: What a header is of: a library over weights or over a KV cache, a whole model, hand-written kernels.
Header = Literal["weights", "cache", "model", "kernels"]
_ALL: tuple[Header, ...] = get_args(Header)
LIBRARIES: tuple[Header, ...] = ("weights", "cache")
_LAUNCHING: tuple[Header, ...] = (*LIBRARIES, "model")
_OF_CACHES: tuple[Header, ...] = ("cache", "model")

#: sizeof, as C has it, of the arguments that a library's functions take, by their type less the library's prefix.
#: Templates write the members out; a cache's end with a pointer.
ARGS_BYTES: Mapping[Header, Mapping[str, str]] = {
    "weights": {"args": "96"},
    "cache": {"args": "184 + sizeof(void*)", "append_args": "152 + sizeof(void*)"},
}

#: Names of statuses, less a header's prefix: a type, so that Python that returns what a header does is checked.
StatusName = Literal[
    "OK",
    "ERROR_NULL_POINTER",
    "ERROR_SIZE",
    "ERROR_STRIDE",
    "ERROR_MISALIGNED",
    "ERROR_TYPE",
    "ERROR_GPU",
    "ERROR_LOAD",
    "ERROR_SYMBOL",
    "ERROR_SHARED_MEMORY",
    "ERROR_LAUNCH",
    "ERROR_CONTEXT",
    "ERROR_LENGTH",
    "ERROR_CAPACITY",
    "ERROR_PAGE",
    "ERROR_SOFTCAP",
    "ERROR_LAYER",
    "ERROR_BUILD",
    "ERROR_OUT_OF_MEMORY",
]


@dataclass(frozen=True)
class Words:
    """What a header says of a status: beside its enumerator, and as its text, where `{name}` is a fact of it."""

    remark: str
    text: str


@dataclass(frozen=True)
class Status:
    """A status of those headers that have words for it: its number is the same in all of them, and nobody else's."""

    number: int
    name: StatusName
    words: Mapping[Header, Words]


def _status(
    number: int,
    name: StatusName,
    headers: tuple[Header, ...],
    remark: str,
    text: str | None = None,
    others: Mapping[Header, tuple[str, str]] | None = None,
) -> Status:
    """A status of `headers`, whose text is the remark if there is none; those of `others` have words of their own."""
    words = dict.fromkeys(headers, Words(remark, remark if text is None else text))
    own = {header: Words(*each) for header, each in (others or {}).items()}
    return Status(number, name, words | own)


#: By their numbers. A new one gets the next number, whichever headers have it; a number is never given again.
STATUSES: tuple[Status, ...] = (
    _status(0, "OK", _ALL, "", "ok"),
    _status(
        1,
        "ERROR_NULL_POINTER",
        _LAUNCHING,
        "a required pointer is null",
        others={"kernels": ("the handle or an entry of the table is null", "a required pointer is null")},
    ),
    _status(
        2,
        "ERROR_SIZE",
        ("model",),
        "a size is out of range",
        others={
            "weights": ("m is out of range", "m is not between 1 and {max_m}"),
            "cache": (
                "batch or tokens are out of range",
                "batch is not between 1 and {max_batch}, or tokens or page_blocks are not as many as the library takes",
            ),
        },
    ),
    _status(
        3,
        "ERROR_STRIDE",
        ("weights", "model"),
        "a row stride is shorter than a row",
        others={
            "cache": (
                "heads of a token or tokens of a sequence would overlap in the output",
                "heads, tokens or sequences of the output overlap",
            )
        },
    ),
    _status(
        4,
        "ERROR_MISALIGNED",
        ("weights", "model"),
        "a pointer or stride is not aligned as the kernel needs",
        "a pointer or row stride is not aligned as the kernel needs",
        others={"cache": 2 * ("a pointer is not aligned as the kernel needs",)},
    ),
    _status(
        5,
        "ERROR_TYPE",
        _LAUNCHING,
        "no kernel of this element type",
        "the library has no kernel of this element type",
    ),
    _status(
        6,
        "ERROR_GPU",
        LIBRARIES,
        "no such GPU in this library",
        "the library was not compiled for this GPU, but for {gpus}",
        others={
            "model": (
                "no such GPU in the libraries",
                "the model was not compiled for this GPU, but for {gpus}",
            ),
            "kernels": (
                "no cubin is for the device's architecture",
                "the kernels were not compiled for this GPU, but for {gpus}",
            ),
        },
    ),
    _status(7, "ERROR_LOAD", _ALL, "the driver refused the cubin"),
    _status(
        8,
        "ERROR_SYMBOL",
        _LAUNCHING,
        "the cubin holds no such kernel: not this library's",
        "the cubin is not this library's",
        others={
            "kernels": (
                "the driver finds no such kernel in it",
                "the driver finds no such kernel in the cubin",
            )
        },
    ),
    _status(9, "ERROR_SHARED_MEMORY", _LAUNCHING, "the driver refused the kernel's shared memory"),
    _status(10, "ERROR_LAUNCH", _LAUNCHING, "the driver refused the launch"),
    _status(
        11,
        "ERROR_CONTEXT",
        _ALL,
        "no context is current, or its device is not known",
        "the driver has no current context, or does not know its device",
    ),
    _status(
        12,
        "ERROR_LENGTH",
        ("model",),
        "a length is negative or past the context",
        others={
            "cache": (
                "a length is negative or past the context",
                "a length is negative or more than {max_context}",
            )
        },
    ),
    _status(13, "ERROR_CAPACITY", _OF_CACHES, "a sequence has more tokens than its pages hold"),
    _status(14, "ERROR_PAGE", _OF_CACHES, "the page table names a page that there is not"),
    _status(
        15,
        "ERROR_SOFTCAP",
        _OF_CACHES,
        "the library caps scores, and softcap is not more than 0",
        "softcap is not more than 0, in a library that caps scores",
    ),
    _status(
        16,
        "ERROR_LAYER",
        ("model",),
        "no such layer, or one of another op",
        "the model has no such layer of this op",
    ),
    _status(
        17,
        "ERROR_BUILD",
        ("model",),
        "a library's header is of another compilation than this one",
        "the header of a library is not of the model's compilation",
    ),
    _status(18, "ERROR_OUT_OF_MEMORY", _ALL, "the driver has not the memory to load or launch"),
)


@dataclass(frozen=True)
class HeaderStatus:
    """A status as templates print it after a header's prefix: its name, its enumerator with a remark; and its text."""

    name: Fragment
    enumerator: Fragment
    text: Fragment


def names_of(header: Header) -> tuple[StatusName, ...]:
    """Names of the statuses that a `header` has, by their numbers."""
    return tuple(status.name for status in STATUSES if header in status.words)


def statuses_of(header: Header, facts: Mapping[str, int | str]) -> tuple[HeaderStatus, ...]:
    """The statuses of a `header`, by their numbers. Raises KeyError if a fact that their texts name is missing."""
    own = [status for status in STATUSES if header in status.words]
    enumerators = [f"{each.name} = {each.number}{',' if each is not own[-1] else ''}" for each in own]
    width = max(map(len, enumerators))
    found = []
    for status, enumerator in zip(own, enumerators, strict=True):
        words = status.words[header]
        remark = f"{enumerator:<{width}} /* {comment(words.remark)} */" if words.remark else enumerator
        text = string_text(words.text.format_map(facts))
        found.append(HeaderStatus(c_identifier(status.name), literal(remark), text))
    return tuple(found)


def contract_values(header: Header, **facts: int | str) -> dict[str, Any]:
    """What the templates of a `header` print of the contract; `facts` stand in texts of its statuses."""
    sizes = ARGS_BYTES.get(header, {})
    return {
        "abi_version": ABI_VERSION,
        "statuses": statuses_of(header, facts),
        "args_sizes": tuple((c_identifier(name), literal(size)) for name, size in sizes.items()),
    }
