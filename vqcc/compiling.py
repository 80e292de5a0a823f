"""Spec files to bundles: what `vqcc compile` does with each of its arguments.

Heavy modules are imported only past the point where a bundle is known to be unchanged.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vqcc.claims import claim

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from vqcc.building import Built
    from vqcc.claims import Claim
    from vqcc.codegen.cache import CompileCache
    from vqcc.codegen.embedding import Machine
    from vqcc.codegen.symbols import Headers
    from vqcc.codegen.toolchain import Resources, Toolchain
    from vqcc.models import Model
    from vqcc.plan import Launch
    from vqcc.spec.model import Spec
    from vqcc.tuning.lock import Lock

__all__ = ["EMITTABLE", "Emit", "Options", "compile_file"]

Emit = Literal["cu", "ptx", "cubin", "header", "plan", "object", "array"]
EMITTABLE: tuple[Emit, ...] = ("cu", "ptx", "cubin", "header", "plan", "object", "array")

#: Of a spec that is looked up before it is parsed; no larger one is accepted (vqcc.spec.source).
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Options:
    """How specs are compiled: where to, which of their levels and GPUs instead of their own, what is written.

    With `explain`, what is said of a library holds the decisions behind its kernels. An object is for hosts of
    `machine`. `progress` is told the name of each library of a model that is done, and how many there are.
    """

    out: Path
    level: str | None = None
    gpus: tuple[str, ...] = ()
    emit: tuple[Emit, ...] = ("cu", "cubin", "header", "plan")
    dry_run: bool = False
    jobs: int = 1
    explain: bool = False
    machine: Machine | None = None
    progress: Callable[[str, int], None] = lambda _name, _total: None


def compile_file(
    path: Path, options: Options, toolchain: Toolchain, cache: CompileCache | None, taken: dict[str, Claim]
) -> dict[str, Any]:
    """Compile one spec to `options.out/<name>` and say what was made.

    `taken` has what is made already, by its C names. Raises VqccError with every diagnostic of the spec; then nothing
    is written.
    """
    from vqcc.data_files import MAX_LOCK_BYTES, has_lock, lock_path
    from vqcc.unchanged import inputs_key, recall, remember

    data = None if cache is None or options.dry_run or options.explain else _read(path)
    if cache is None or data is None:
        return _compile(path, data, options, toolchain, cache, taken).summary
    beside = lock_path(path)
    lock = _read(beside, MAX_LOCK_BYTES)
    if lock is None and has_lock(beside):  # which is then refused, whatever the cache knows
        return _compile(path, data, options, toolchain, cache, taken).summary
    locked = None if lock is None else hashlib.sha256(lock).hexdigest()
    shape = {
        "level": options.level,
        "gpus": options.gpus,
        "emit": options.emit,
        "machine": options.machine,
        "lock": locked,
    }
    key = inputs_key(data, shape, toolchain)
    summary = recall(cache, key, options.out, path.parent)
    if summary is not None:
        claim(_identifiers(summary), lambda: _headers(_load(path, data, options)), path, taken)
        directory = options.out / summary["name"]
        here = {"spec": str(path), "directory": str(directory), "state": "unchanged"}
        return {**summary, **here, "lock": _lock_summary(path, summary["lock"])}
    made = _compile(path, data, options, toolchain, cache, taken)
    remember(cache, key, made.content, made.inputs, made.summary)
    return made.summary


@dataclass(frozen=True)
class _Made:
    """What is said of a library, its bundle's files, and the sha256 of the files that its spec names."""

    summary: dict[str, Any]
    content: dict[str, bytes]
    inputs: dict[str, str]


def _read(path: Path, most_bytes: int = _MAX_BYTES) -> bytes | None:
    """The file's bytes; None if it cannot be read or is too large, which loading it then reports."""
    try:
        with path.open("rb") as file:
            data = file.read(most_bytes + 1)
    except (OSError, ValueError):
        return None
    return data if len(data) <= most_bytes else None


def _load(path: Path, data: bytes | None, options: Options) -> Spec | Model:
    """The spec in `data`, or the one that `path` holds."""
    from vqcc.models import load_any, parse_any

    overrides: dict[str, Any] = {"gpu_override": options.gpus, "level_override": options.level}
    return load_any(path, **overrides) if data is None else parse_any(data, str(path), **overrides)


def _headers(spec: Spec | Model) -> Sequence[Headers]:
    from vqcc.models.names import headers_of

    return headers_of(spec)


def _compile(
    path: Path,
    data: bytes | None,
    options: Options,
    toolchain: Toolchain,
    cache: CompileCache | None,
    taken: dict[str, Claim],
) -> _Made:
    """Compile the spec in `data`, or the one that `path` holds."""
    from vqcc.building import build_library, write_library
    from vqcc.codegen import manifest
    from vqcc.data_files import lock_path
    from vqcc.explaining import explain_built
    from vqcc.models import Model
    from vqcc.tuning.lock import load_lock

    spec = _load(path, data, options)
    headers = _headers(spec)
    claim([each.identifier for each in headers], lambda: headers, path, taken)
    lock = load_lock(lock_path(path))
    if isinstance(spec, Model):
        return _compile_model(spec, lock, path, options, toolchain, cache)
    built = build_library(
        spec,
        toolchain=toolchain,
        cache=cache,
        emit=options.emit,
        jobs=options.jobs,
        lock=lock,
        machine=options.machine,
    )
    directory = options.out / built.name
    changed = not options.dry_run and write_library(built, directory)
    state = "would be written" if options.dry_run else "written" if changed else "unchanged"
    content = {**built.files, manifest.NAME: manifest.make_manifest(built.fields, built.files)}
    summary = {**_summary(built), "spec": str(path), "directory": str(directory), "state": state}
    summary["lock"] = _lock_summary(path, None if built.lock_use is None else built.lock_use.to_json())
    if options.explain:
        summary["plans"] = explain_built(built)
    profile = spec.profile
    summary["profile"] = (
        None if profile is None else profile.file
    )  # as the spec names it: recalled for any place
    return _Made(summary, content, {} if profile is None else {profile.file: profile.sha256})


def _compile_model(
    model: Model,
    lock: Lock | None,
    path: Path,
    options: Options,
    toolchain: Toolchain,
    cache: CompileCache | None,
) -> _Made:
    """Compile all libraries of a model to one directory; written only if all of them can be made."""
    from vqcc.codegen import manifest
    from vqcc.codegen.bundle import write_bundle
    from vqcc.explaining import explain_plans
    from vqcc.models.building import build_model

    total = len(model.libraries)
    built = build_model(
        model,
        toolchain=toolchain,
        cache=cache,
        emit=options.emit,
        jobs=options.jobs,
        lock=lock,
        machine=options.machine,
        made=lambda layer: options.progress(layer.spec.name, total),
    )
    directory = options.out / model.name
    changed = not options.dry_run and write_bundle(directory, built.files, fields=built.fields)
    state = "would be written" if options.dry_run else "written" if changed else "unchanged"
    content = {**built.files, manifest.NAME: manifest.make_manifest(built.fields, built.files)}
    libraries = [_summary(library) for library in built.libraries.values()]
    lock_use = built.lock_use
    profiles = {layer.spec.profile.file: layer.spec.profile for layer in model.layers if layer.spec.profile}
    summary: dict[str, Any] = {
        "name": model.name,
        "identifier": model.identifier,
        "build_id": built.fields["build_id"],
        "files": {name: len(data) for name, data in sorted(built.files.items())},
        "gpus": {
            gpu.name: [kernel for library in libraries for kernel in library["gpus"][gpu.name]]
            for gpu in model.gpu
        },
        "layers": built.fields["layers"],
        "libraries": {folder: library.name for folder, library in built.libraries.items()},
        "spec": str(path),
        "directory": str(directory),
        "state": state,
        "lock": _lock_summary(path, None if lock_use is None else lock_use.to_json()),
        "profile": None,
        "profiles": list(profiles),
    }
    if options.explain:
        summary["plans"] = {
            gpu.name: explain_plans(
                gpu, [plan for library in built.libraries.values() for plan in library.gpus[number].plans]
            )
            for number, gpu in enumerate(model.gpu)
        }
    return _Made(summary, content, {profile.file: profile.sha256 for profile in profiles.values()})


def _lock_summary(spec: Path, use: dict[str, Any] | None) -> dict[str, Any] | None:
    """What is shown of the lock file beside a spec; None where there is none, or the level takes nothing of it."""
    from vqcc.data_files import lock_path

    return None if use is None else {**use, "file": str(lock_path(spec))}


def _identifiers(summary: Mapping[str, Any]) -> list[str]:
    """The C identifiers of a library, or of a model and its libraries."""
    return [
        summary["identifier"],
        *(name.replace("-", "_") for name in summary.get("libraries", {}).values()),
    ]


def _kernel_summary(kernel: str, resources: Resources | None, launch: Launch | None) -> dict[str, Any]:
    assert resources is not None
    assert launch is not None
    return {
        "kernel": kernel,
        "registers": resources.registers,
        "shared_bytes": launch.dynamic_shared_bytes,
        "grid": launch.grid,
        "threads": launch.threads,
        "blocks_per_sm": launch.blocks_per_sm,
        "workspace_bytes": launch.workspace_bytes,
        **({"serialized": resources.serialized} if resources.serialized else {}),
    }


def _summary(built: Built) -> dict[str, Any]:
    """What is shown of a library and its kernels."""
    return {
        "name": built.name,
        "identifier": built.name.replace("-", "_"),
        "build_id": built.fields["build_id"],
        "files": {name: len(content) for name, content in sorted(built.files.items())},
        "gpus": {
            build.gpu.name: [
                *(_kernel_summary(plan.kernel, plan.resources, plan.launch) for plan in build.plans),
                *(_kernel_summary(plan.kernel, plan.resources, plan.launch) for plan in build.appends),
            ]
            for build in built.gpus
        },
    }
