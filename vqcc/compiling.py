"""Spec files to bundles: what `vqcc compile` does with each of its arguments.

Heavy modules are imported only past the point where a bundle is known to be unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from vqcc.diagnostics import Diagnostic, VqccError

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.building import Built
    from vqcc.codegen.cache import CompileCache
    from vqcc.codegen.toolchain import Toolchain

__all__ = ["EMITTABLE", "Emit", "Options", "compile_file"]

Emit = Literal["cu", "ptx", "cubin", "header", "plan"]
EMITTABLE: tuple[Emit, ...] = ("cu", "ptx", "cubin", "header", "plan")

#: Of a spec that is looked up before it is parsed; no larger one is accepted (vqcc.spec.source).
_MAX_BYTES = 1_000_000


@dataclass(frozen=True)
class Options:
    """How specs are compiled: where to, which of their levels and GPUs instead of their own, what is written."""

    out: Path
    level: str | None = None
    gpus: tuple[str, ...] = ()
    emit: tuple[Emit, ...] = ("cu", "cubin", "header", "plan")
    dry_run: bool = False
    jobs: int = 1


def compile_file(
    path: Path, options: Options, toolchain: Toolchain, cache: CompileCache | None, taken: dict[str, Path]
) -> dict[str, Any]:
    """Compile one spec to `options.out/<name>` and say what was made.

    `taken` maps the names of libraries already written to their specs. Raises VqccError with every diagnostic
    of the spec; then nothing is written.
    """
    from vqcc.unchanged import inputs_key, recall, remember

    data = None if cache is None or options.dry_run else _read(path)
    if cache is None or data is None:
        return _compile(path, data, options, toolchain, cache, taken)[0]
    shape = {"level": options.level, "gpus": options.gpus, "emit": options.emit}
    key = inputs_key(data, shape, toolchain)
    summary = recall(cache, key, options.out)
    if summary is not None:
        _take(summary["identifier"], path, taken)
        directory = options.out / summary["name"]
        return {**summary, "spec": str(path), "directory": str(directory), "state": "unchanged"}
    result, content = _compile(path, data, options, toolchain, cache, taken)
    remember(cache, key, result["name"], content, result)
    return result


def _read(path: Path) -> bytes | None:
    """The spec's bytes; None if it cannot be read or is too large for one, which loading it then reports."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError):
        return None
    return data if len(data) <= _MAX_BYTES else None


def _compile(
    path: Path,
    data: bytes | None,
    options: Options,
    toolchain: Toolchain,
    cache: CompileCache | None,
    taken: dict[str, Path],
) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Compile the spec in `data`, or the one that `path` holds; its summary and its bundle's files."""
    from vqcc.building import build_library, write_library
    from vqcc.codegen import manifest
    from vqcc.spec.load import load_spec, parse_spec

    overrides: dict[str, Any] = {"gpu_override": options.gpus, "level_override": options.level}
    spec = load_spec(path, **overrides) if data is None else parse_spec(data, str(path), **overrides)
    _take(spec.identifier, path, taken)
    built = build_library(spec, toolchain=toolchain, cache=cache, emit=options.emit, jobs=options.jobs)
    directory = options.out / built.name
    changed = not options.dry_run and write_library(built, directory)
    state = "would be written" if options.dry_run else "written" if changed else "unchanged"
    content = {**built.files, manifest.NAME: manifest.make_manifest(built.fields, built.files)}
    return {**_summary(built), "spec": str(path), "directory": str(directory), "state": state}, content


def _take(name: str, path: Path, taken: dict[str, Path]) -> None:
    """Claim a library's C identifier for `path`. Raises VQ0709 if another spec has it."""
    if name in taken:
        raise VqccError(
            Diagnostic(
                "VQ0709",
                f"{path} and {taken[name]} both make a library {name}",
                help="a library's directory and C symbols bear its name, in which - and _ are one: rename one",
            )
        )
    taken[name] = path


def _summary(built: Built) -> dict[str, Any]:
    """What is shown of a library and its kernels."""
    return {
        "name": built.name,
        "identifier": built.name.replace("-", "_"),
        "build_id": built.fields["build_id"],
        "files": {name: len(content) for name, content in sorted(built.files.items())},
        "gpus": {
            build.gpu.name: [
                {
                    "kernel": plan.kernel,
                    "registers": plan.resources.registers,
                    "shared_bytes": plan.launch.dynamic_shared_bytes,
                    "grid": plan.launch.grid,
                    "threads": plan.launch.threads,
                    "blocks_per_sm": plan.launch.blocks_per_sm,
                }
                for plan in build.plans
                if plan.resources is not None and plan.launch is not None
            ]
            for build in built.gpus
        },
    }
