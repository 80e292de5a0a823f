"""From a model to the files of its directory: every library, and the headers that join them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqcc.assembling import in_parallel
from vqcc.building import EMITTED, build_library
from vqcc.codegen.manifest import NAME, make_manifest
from vqcc.codegen.model_header import render_model_embedded, render_model_header
from vqcc.diagnostics import DiagnosticList, VqccError
from vqcc.tuning.use import joined

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vqcc.building import Built
    from vqcc.codegen.cache import CompileCache
    from vqcc.codegen.embedding import Machine
    from vqcc.codegen.toolchain import Toolchain
    from vqcc.compiling import Emit
    from vqcc.models.model import Layer, Model
    from vqcc.tuning.lock import Lock
    from vqcc.tuning.use import ModelLockUse

__all__ = ["BuiltModel", "build_model"]


@dataclass(frozen=True)
class BuiltModel:
    """A model in memory: files by their names in its directory, and what its manifest says beside them."""

    model: Model
    libraries: Mapping[str, Built]
    files: Mapping[str, bytes]
    fields: Mapping[str, Any]

    @property
    def lock_use(self) -> ModelLockUse | None:
        """What was made of a lock file; None without one, or where no library takes anything of it."""
        return joined({folder: library.lock_use for folder, library in self.libraries.items()})


def build_model(
    model: Model,
    *,
    toolchain: Toolchain,
    cache: CompileCache | None,
    emit: Sequence[Emit] = EMITTED,
    jobs: int = 1,
    lock: Lock | None = None,
    machine: Machine | None = None,
    made: Callable[[Layer], None] = lambda _: None,
) -> BuiltModel:
    """Build every library of a model, up to `jobs` at a time, each in a folder of its layer's name.

    One `lock` serves all of them: its kernels are told apart by what they are made for, not by names of libraries.
    `made` is told of each that is done, by any thread. Diagnostics of all libraries are raised together, as
    vqcc.building.build_library raises them; libraries that are done then wait in the cache.
    """
    libraries = model.libraries
    inner = max(1, jobs // len(libraries))

    def build(layer: Layer) -> Built | VqccError:
        try:
            built = build_library(
                layer.spec,
                toolchain=toolchain,
                cache=cache,
                emit=emit,
                jobs=inner,
                lock=lock,
                machine=machine,
            )
        except VqccError as error:
            return error
        made(layer)
        return built

    outcomes = in_parallel(build, libraries, jobs)
    built = dict(zip((layer.name for layer in libraries), _all_built(outcomes), strict=True))
    return _assemble(model, built, toolchain, emit)


def _all_built(outcomes: Iterable[Built | VqccError]) -> list[Built]:
    """What was built. Raises VqccError with all diagnostics if something was not."""
    outcomes = list(outcomes)
    errors = [outcome for outcome in outcomes if isinstance(outcome, VqccError)]
    if errors:
        found = DiagnosticList(item for error in errors for item in error.diagnostics)
        raise VqccError(*found.in_file_order(), exit_code=max(error.exit_code for error in errors))
    return [outcome for outcome in outcomes if not isinstance(outcome, VqccError)]


def _assemble(
    model: Model, built: Mapping[str, Built], toolchain: Toolchain, emit: Sequence[Emit]
) -> BuiltModel:
    files = {
        f"{folder}/{name}": data
        for folder, library in built.items()
        for name, data in {
            **library.files,
            NAME: make_manifest(library.fields, library.files),
        }.items()
    }
    build_ids = {folder: library.fields["build_id"] for folder, library in built.items()}
    blank = render_model_header(model, "0", build_ids)
    build_id = hashlib.sha256(json.dumps([toolchain.identity, blank]).encode()).hexdigest()[:16]
    if "header" in emit:
        files[f"{model.name}.h"] = render_model_header(model, build_id, build_ids).encode()
    if {"object", "array"} & set(emit):
        files[f"{model.name}.embedded.h"] = render_model_embedded(model, build_ids).encode()
    owners = model.owners
    fields = {
        "name": model.name,
        "build_id": build_id,
        "toolchain": toolchain.identity,
        "tensor_parallel": model.ranks,
        "gpus": [gpu.name for gpu in model.gpu],
        "libraries": build_ids,
        "layers": {
            layer.name: {
                "library": owners[layer.name].name,
                "parallel": layer.parallel,
                "adds": layer.adds,
                "parts": {part.name: [part.first, part.rows] for part in layer.parts},
            }
            for layer in model.layers
        },
    }
    return BuiltModel(model, built, files, fields)
