"""Tensors spread over several safetensors files: an index says which file holds each, as checkpoints have it.

The index is JSON: `{"metadata": {...}, "weight_map": {TENSOR: FILE}}`; the files lie beside it. Wherever one
safetensors file is read, the path of an index, or of a directory that holds one, may stand instead.
"""

from __future__ import annotations

import json
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, Self

from vqcc.diagnostics import Diagnostic, DiagnosticList, VqccError
from vqcc.tensors.header import TensorFile, name_list, unique_keys, unreadable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from vqcc.tensors.header import Entry

__all__ = ["ShardedFile", "files_of", "open_tensors"]

_SUFFIX = ".index.json"
_MAX_INDEX_BYTES = 100_000_000
_FORM = 'an index is {"metadata": {...}, "weight_map": {TENSOR: FILE}}, its files plain names beside it'


def open_tensors(path: Path) -> TensorFile | ShardedFile:
    """Open a safetensors file, an index (by its name, *.json), or the index of a directory.

    Raises VqccError: VQ05xx for a file or shard that is wrong, VQ0532 to VQ0534 for an index and VQ0535 for
    a directory without one.
    """
    if path.is_dir():
        return ShardedFile(_index_of(path))
    return ShardedFile(path) if path.suffix == ".json" else TensorFile(path)


def files_of(path: Path) -> tuple[Path, ...]:
    """The files that `open_tensors` reads for `path`: itself, or an index and its shards. Raises nothing.

    Of an index that is wrong, which opening it reports, only its own path.
    """
    with suppress(VqccError):
        index = _index_of(path) if path.is_dir() else path
        if index.suffix == ".json":
            return (index, *(index.parent / shard for shard in sorted(set(_read_index(index)[1].values()))))
    return (path,)


class ShardedFile:
    """The open shards of an index, read as if they were one file; only tensors that the index lists are there.

    A context manager: views stay valid after it is closed.
    """

    def __init__(self, path: Path) -> None:
        """Open the index at `path` and every file it names. Raises VqccError with all that is wrong in them."""
        self.path = path
        self._stack = ExitStack()
        self._own_metadata, self._shard_of = _read_index(path)
        try:
            self._shards = self._open_shards()
        except BaseException:
            self._stack.close()
            raise
        self.entries: Mapping[str, Entry] = {
            name: self._shards[shard].entries[name] for name, shard in self._shard_of.items()
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def metadata(self, key: str) -> list[tuple[Path, str]]:
        """What the index and its shards have under `key`, each with the path of its file."""
        own = self._own_metadata.get(key)
        found = [(self.path, own)] if isinstance(own, str) else []
        return found + [item for shard in self._shards.values() for item in shard.metadata(key)]

    def array(self, name: str) -> NDArray[Any]:
        """Map a tensor that the index lists; nothing is read until it is used."""
        return self._shards[self._shard_of[name]].array(name)

    def _open_shards(self) -> dict[str, TensorFile]:
        found = DiagnosticList()
        shards = {}
        for shard in sorted(set(self._shard_of.values())):
            place = self.path.parent / shard
            if not place.is_file():
                found.error("VQ0533", f"{self.path} names '{shard}', which is not beside it", help=_FORM)
                continue
            try:
                shards[shard] = self._stack.enter_context(TensorFile(place))
            except VqccError as error:
                found.extend(error.diagnostics)
        self._report_missing(shards, found)
        self._report_repeated(shards, found)
        found.raise_if_errors()
        return shards

    def _report_missing(self, shards: Mapping[str, TensorFile], found: DiagnosticList) -> None:
        for shard, file in shards.items():
            listed = (name for name, place in self._shard_of.items() if place == shard)
            missing = [name for name in listed if name not in file.entries]
            if missing:
                found.error(
                    "VQ0533",
                    f"{self.path} places tensors in '{shard}' that it does not hold: {name_list(missing)}",
                    help="the index belongs to other files, or a file was replaced",
                )

    def _report_repeated(self, shards: Mapping[str, TensorFile], found: DiagnosticList) -> None:
        first: dict[str, str] = {}
        twice: dict[tuple[str, str], list[str]] = {}
        for shard, file in shards.items():
            for name in file.entries:
                if name in first:
                    twice.setdefault((first[name], shard), []).append(name)
                else:
                    first[name] = shard
        for (one, other), names in twice.items():
            found.error(
                "VQ0534",
                f"{self.path}: '{one}' and '{other}' both hold {name_list(names)}",
                help="each tensor belongs in one file",
            )


def _index_of(directory: Path) -> Path:
    """Return the one index of `directory`. Raises VqccError VQ0535."""
    indexes = sorted(directory.glob("*" + _SUFFIX))
    if len(indexes) == 1:
        return indexes[0]
    held = f"holds {len(indexes)} indexes" if indexes else f"is a directory and holds no *{_SUFFIX}"
    choices = f"name one: {name_list(index.name for index in indexes)}" if indexes else "name a file"
    raise VqccError(Diagnostic("VQ0535", f"{directory} {held}", help=choices))


def _read_index(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return an index's metadata and the file of each tensor. Raises VqccError VQ0501, VQ0532."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_INDEX_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from None
    if len(data) > _MAX_INDEX_BYTES:
        raise _wrong(f"{path} is an index of more than {_MAX_INDEX_BYTES} bytes")
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=unique_keys)
    except (ValueError, RecursionError) as error:
        raise _wrong(f"{path} is not JSON: {str(error)[:200]}") from None
    fields = document if isinstance(document, dict) else {}
    metadata, places = fields.get("metadata") or {}, fields.get("weight_map")
    if not isinstance(metadata, dict) or not isinstance(places, dict) or not places:
        raise _wrong(f"{path} is not the index of a sharded safetensors file")
    wrong = sorted({str(place)[:80] for place in places.values() if not _is_plain(place)})
    if wrong:
        raise _wrong(f"{path} names files that are no plain safetensors names: {name_list(map(repr, wrong))}")
    return metadata, places


def _is_plain(name: object) -> bool:
    """Whether a shard's name stays in the index's own directory."""
    return (
        isinstance(name, str)
        and name.endswith(".safetensors")
        and len(name) <= 255
        and not any(mark in name for mark in "/\\\0")
    )


def _wrong(message: str) -> VqccError:
    return VqccError(Diagnostic("VQ0532", message, help=_FORM))
