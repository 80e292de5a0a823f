"""Names that may reach emitted code: C identifiers that no C, C++ or CUDA compiler reserves."""

from __future__ import annotations

import re

from vqcc.diagnostics import field_error

MAX_LENGTH = 63
_OWN = "vqcc"

# Keywords of C23 and C++26, macros and names that compilers predefine, and CUDA's own.
_RESERVED_WORDS = (
    "alignas alignof and and_eq asm atomic_cancel atomic_commit atomic_noexcept auto bitand bitor "
    "blockdim blockidx bool break case catch char char16_t char32_t char8_t class co_await co_return "
    "co_yield compl concept const const_cast consteval constexpr constinit continue contract_assert "
    "decltype default defined delete dim3 do double dynamic_cast elif else endif enum errno error "
    "explicit export extern false float for friend goto griddim half half2 if ifdef ifndef include "
    "inline int line linux long main mutable namespace new noexcept not not_eq nullptr operator or "
    "or_eq pragma private protected public reflexpr register reinterpret_cast requires restrict return "
    "short signed sizeof static static_assert static_cast std struct switch synchronized template this "
    "thread_local threadidx throw true try typedef typeid typename typeof typeof_unqual uint3 undef "
    "union unix unsigned using virtual void volatile warning warpsize wchar_t while xor xor_eq "
)
_RESERVED = frozenset(_RESERVED_WORDS.split())


def to_identifier(name: str) -> str:
    """Return the C identifier of a name."""
    return name.replace("-", "_")


def pattern(separators: str) -> str:
    """Regular expression of words of a-z and 0-9 joined by single separators."""
    return f"^[a-z][a-z0-9]*([{separators}][a-z0-9]+)*$"


def check_identifier(name: str, what: str, *, separators: str = "_-") -> str:
    """Return `name` if it is words of a-z and 0-9 joined by single separators and is not reserved.

    Names become parts of file names and C symbols. Two separators in a row, or one at an end, would make
    `__`, which C++ reserves. Raises the error that a pydantic validator reports (VQ0207, VQ0208).
    """
    if len(name) > MAX_LENGTH:
        raise field_error("VQ0207", f"{what} has {len(name)} characters", f"use at most {MAX_LENGTH}")
    if not re.fullmatch(pattern(separators), name):
        # Escaped: the name may hold anything at all.
        raise field_error("VQ0207", f"{what} cannot be {name!a}", _suggestion(name, separators))
    if to_identifier(name) in _RESERVED:
        message = f"{what} cannot be '{name}': C, C++ or CUDA reserves it"
        raise field_error("VQ0208", message, f"use {name}{_separator(name, separators)}kernels or the like")
    return name


def check_library_name(name: str, what: str) -> str:
    """Return `name` if `check_identifier` does and C symbols may begin with it.

    Those of the headers that come with vqcc begin with its own name, and so do their include guards: the header of a
    library `vqcc-weights` would take the place of vqcc/weights.h. Raises as `check_identifier`.
    """
    check_identifier(name, what)
    if name.startswith(_OWN):
        message = f"{what} cannot be '{name}': symbols of vqcc's own headers begin with {_OWN}"
        raise field_error("VQ0208", message, "begin with another word")
    return name


def _suggestion(name: str, separators: str) -> str:
    rule = f"use lower-case words of a-z and 0-9 joined by single {' or '.join(separators)}, a letter first"
    words = re.findall("[a-z0-9]+", name.lower())
    if not words:
        return rule
    if words[0][0].isdigit():
        words.insert(0, "vq")
    return f"{rule}, such as {_separator(name, separators).join(words)[:MAX_LENGTH]}"


def _separator(name: str, separators: str) -> str:
    return "-" if "-" in name and "-" in separators else "_"
