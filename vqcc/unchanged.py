"""Recognises a bundle that was built from exactly the inputs at hand, without planning it again.

An unchanged `vqcc compile` is mostly the time to import a validator and a template engine. So the compile cache
also remembers, under a hash of the spec and of all else that shapes a bundle, what the bundle's files hashed to,
and what the files did that the spec names. If all still do, there is nothing to do; in any doubt the answer is no,
and the spec is compiled as usual.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vqcc.codegen.bundle import read_files
from vqcc.codegen.wheels import installed
from vqcc.data_files import add_files, files_below, specs_directory, templates_directory

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from vqcc.codegen.cache import CompileCache
    from vqcc.codegen.toolchain import Toolchain

__all__ = ["PACKAGES", "inputs_key", "recall", "remember", "source_files"]

_FORMAT = 4
#: Packages whose version could show in what is emitted.
PACKAGES = ("jinja2", "pydantic", "pyyaml")
_SOURCES = (".py", ".yaml", ".cuh", ".j2", ".h")


def inputs_key(spec: bytes, options: Mapping[str, Any], toolchain: Toolchain) -> str:
    """Hash of all that a bundle depends on: the spec, options, toolchain, this compiler and its templates.

    Less the files that the spec names: it is not read here, so their hashes are remembered with the bundle's.
    """
    wheels = {name: wheel.version for name, wheel in sorted(installed(PACKAGES).items())}
    request = [_FORMAT, dict(options), toolchain.identity, list(toolchain.options), wheels]
    digest = hashlib.sha256(json.dumps(request).encode())
    digest.update(hashlib.sha256(spec).digest())
    for root in _roots():
        add_files(digest, root, _SOURCES, without=specs_directory())
    return digest.hexdigest()


def source_files() -> Iterator[Path]:
    """Files of the compiler itself, GPU data and templates included, that `inputs_key` covers."""
    for root in _roots():
        yield from files_below(root, _SOURCES, without=specs_directory())


def _roots() -> tuple[Path, Path]:
    return Path(__file__).parent, templates_directory()


def recall(cache: CompileCache, key: str, out: Path, beside: Path) -> dict[str, Any] | None:
    """The summary remembered for `key`, if the bundle it describes lies under `out` and is whole.

    The files that the spec names are looked for relative to `beside`, the spec's directory: they must be what they
    were when the bundle was made.
    """
    payload = cache.get(key)
    if payload is None:
        return None
    try:
        known = json.loads(payload)
        if any(_file_hash(beside / name) != digest for name, digest in known["inputs"].items()):
            return None
        directory = out / known["name"]
        held = {name: hashlib.sha256(data).hexdigest() for name, data in read_files(directory).items()}
        summary: dict[str, Any] = known["summary"]
        return summary if held == known["files"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _file_hash(path: Path) -> str:
    """Hash of an input as it is now. Raises OSError if there is none; waits for no pipe."""
    if not path.is_file():
        raise FileNotFoundError(path)
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remember(
    cache: CompileCache,
    key: str,
    content: Mapping[str, bytes],
    inputs: Mapping[str, str],
    summary: Mapping[str, Any],
) -> None:
    """Note that the inputs of `key` make the bundle `summary` describes, of files `content`, its manifest among them.

    `inputs` are the sha256 of the files that the spec names, by the names it gives them. What was read and made
    counts, not what lies on the disk by now: another process may have put its own there.
    """
    held = {file: hashlib.sha256(data).hexdigest() for file, data in content.items()}
    record = {"name": summary["name"], "inputs": dict(inputs), "files": held, "summary": dict(summary)}
    cache.put(key, json.dumps(record).encode())
