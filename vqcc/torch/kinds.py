"""The kinds of library that there are, and refusals of what is of the other kind, or of none, by what would fit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from vqcc.torch.library import TorchLibrary
    from vqcc.torch.packed import PackedModule

__all__ = ["ATTENTION", "LINEAR", "Kind", "check_library", "check_packed", "refuse_packed", "type_name"]


class Kind(NamedTuple):
    """What libraries of a kind are of, the class of vqcc.torch that runs them, and what packed data they have."""

    serves: str
    layer: str
    packed: str
    #: The library's method that reads packed data.
    reader: str


LINEAR = Kind("linear layers", "Linear", "Weight", "weight")
ATTENTION = Kind("attention", "Attention", "Books", "books")


def check_library(user: str, library: TorchLibrary[Any], kind: Kind) -> None:
    """Raise TypeError for what is no library of the kind that `user`, a class of vqcc.torch, is for."""
    found: object = getattr(library, "kind", None)
    if found is kind:
        return
    if not isinstance(found, Kind):
        given = f"{type_name(library)} is none; vqcc.torch.load() gives one"
    else:
        use = found.packed if user == kind.packed else found.layer
        given = f"{library.name} is a library of {found.serves}, which vqcc.torch.{use} is for"
    raise TypeError(f"vqcc.torch.{user} is for libraries of {kind.serves}: {given}")


def check_packed(library: TorchLibrary[Any], packed: PackedModule) -> None:
    """Raise TypeError for what is not packed data of the kind that `library` is of."""
    if getattr(packed, "library_kind", None) is not library.kind:
        raise refuse_packed(library, packed)


def refuse_packed(library: TorchLibrary[Any], packed: Any) -> TypeError:
    """For what is not packed data of a library's kind."""
    kind, found = library.kind, getattr(packed, "library_kind", None)
    given = type_name(packed)
    if isinstance(found, Kind):
        given += f" of library {packed.library.name}, which vqcc.torch.{found.layer} is for"
    return TypeError(
        f"library {library.name}, of {kind.serves}, takes a {kind.packed}, which library.{kind.reader}() reads, "
        f"not {given}"
    )


def type_name(value: object) -> str:
    """The type of something, with the module that it is from."""
    kind = type(value)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
