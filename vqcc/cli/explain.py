"""`vqcc explain`: the decisions behind kernels, or what an error code means."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vqcc.cli.compile import find_toolchain, toolchain_options
from vqcc.cli.decisions import show_plans
from vqcc.cli.model_progress import model_progress
from vqcc.cli.support import (
    WordChoice,
    cache_options,
    finish,
    json_option,
    open_cache,
    print_json,
    reports_errors,
    usable_cpus,
)
from vqcc.diagnostics import Diagnostic, ExitCode
from vqcc.levels import LEVELS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vqcc.building import Built
    from vqcc.codegen.cache import CompileCache
    from vqcc.codegen.toolchain import Toolchain
    from vqcc.library import CacheLibrary, Library
    from vqcc.models.building import BuiltModel

__all__ = ["command"]


@click.command("explain")
@click.argument("what", metavar="OUT/<name> | SPEC | CODE")
@click.option("--gpu", "gpus", multiple=True, metavar="NAME", help="Only these GPUs.")
@click.option("--level", type=WordChoice(LEVELS), help="Override a spec's level.")
@toolchain_options
@cache_options
@json_option
@reports_errors
def command(
    what: str,
    gpus: tuple[str, ...],
    level: str | None,
    toolchain: str,
    nvcc_path: Path | None,
    cache_dir: Path | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Print each decision of a library's kernels: value, formula, inputs, reason, what was passed over and why.

    WHAT is a compiled library or whole model, a spec of either (compiled in memory), or a diagnostic's code such as
    VQ0403. Of a model, libraries are told of one after the other, with the layers that each serves.
    """
    if re.fullmatch(r"VQ\d{4}", what, re.IGNORECASE):
        _explain_code(what.upper(), as_json=as_json)
        return
    path = Path(what)
    warnings: list[Diagnostic] = []
    if path.is_dir():
        if level is not None:
            raise click.UsageError("a compiled library has its level: give --level with a spec")
        explained = _explained_directory(path, gpus)
    else:
        _check_spec(path)
        tools = find_toolchain(toolchain, nvcc_path)
        cache = open_cache(cache_dir, disabled=no_cache)
        explained, warnings = _explained_spec(path, gpus, level, tools, cache)
    if not as_json:
        _show(explained)
    finish(explained, (), ExitCode.OK, as_json=as_json, warnings=warnings)


def _show(explained: dict[str, Any]) -> None:
    """Print the plans of a library, or of each of a model's libraries, after the layers that it serves."""
    from vqcc.spec.wording import either

    if "gpus" in explained:
        show_plans(explained["gpus"])
        return
    for library in explained["libraries"].values():
        layers = library["layers"]
        click.echo(f"layer {layers[0]}" if len(layers) == 1 else f"layers {either(layers, 'and')}")
        show_plans(library["gpus"])


def _check_spec(path: Path) -> None:
    """Raise VQ0101 for what is no spec, library or code, VQ0704 for a file within a library."""
    from vqcc.codegen import manifest
    from vqcc.diagnostics import CODES, VqccError, did_you_mean

    if not path.exists():
        near = did_you_mean(str(path).upper(), CODES)
        help_text = f"{near} else give " if near else "give "
        help_text += "a spec's file, a library (OUT/<name>) or a code such as VQ0403"
        raise VqccError(
            Diagnostic("VQ0101", f"'{path}' is neither a spec, a library nor a code", help=help_text)
        )
    if path.suffix not in {".yaml", ".yml"} and (path.parent / manifest.NAME).is_file():
        help_text = f"give the library: vqcc explain {path.parent}"
        raise VqccError(Diagnostic("VQ0704", f"{path} is a file of a library", help=help_text))


def _explain_code(code: str, *, as_json: bool) -> None:
    from vqcc.diagnostics import CODES, VqccError, did_you_mean
    from vqcc.diagnostics.reasons import REASONS

    if code not in CODES:
        near = did_you_mean(code, CODES)
        raise VqccError(
            Diagnostic("VQ0710", f"there is no code {code}", help=near or "codes run from VQ0101")
        )
    reason = REASONS[code]
    if as_json:
        print_json({"code": code, "title": CODES[code], "cause": reason.cause, "help": reason.help})
    else:
        click.echo(f"{code}: {CODES[code]}\n  cause: {reason.cause}\n  help: {reason.help}")


def _explained_directory(path: Path, gpus: tuple[str, ...]) -> dict[str, Any]:
    """Plans of a library by GPU, as `gpus`, or of a whole model's `libraries`. Raises VQ07xx, VQ0802, VQ0805."""
    from vqcc.library import ModelBundleError, layer_folders, load_library

    try:
        return {"gpus": _plans_of(load_library(path), gpus)}
    except ModelBundleError:
        owners = layer_folders(path)
    return _of_libraries(owners, lambda folder: _plans_of(load_library(path / folder), gpus))


def _of_libraries(owners: Mapping[str, str], plans_of: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
    """What is said of a whole model: by folder each library's layers and plans; `owners` are folders by layer."""
    return {
        "libraries": {
            folder: {
                "layers": [layer for layer, owner in owners.items() if owner == folder],
                "gpus": plans_of(folder),
            }
            for folder in dict.fromkeys(owners.values())
        }
    }


def _plans_of(library: Library | CacheLibrary, gpus: tuple[str, ...]) -> dict[str, Any]:
    from vqcc.diagnostics import VqccError
    from vqcc.library import select_gpus

    plans = {}
    for gpu in select_gpus(library, gpus):
        name = f"{library.name}.{gpu}.plan.json"
        if name not in library.bundle.files:
            raise VqccError(
                Diagnostic(
                    "VQ0802",
                    f"{library.bundle.directory} holds no plan for {gpu}",
                    help="compile with --emit plan among the others",
                )
            )
        plans[gpu] = json.loads(library.bundle.read_file(name))
    return plans


def _explained_spec(
    path: Path, gpus: tuple[str, ...], level: str | None, tools: Toolchain, cache: CompileCache | None
) -> tuple[dict[str, Any], list[Diagnostic]]:
    """The same of a spec, and what is to be said of the lock file beside it."""
    from vqcc.building import build_library
    from vqcc.data_files import lock_path
    from vqcc.explaining import explain_built
    from vqcc.models import Model, load_any
    from vqcc.models.building import build_model
    from vqcc.tuning.lock import load_lock
    from vqcc.tuning.use import lock_warnings

    spec = load_any(path, gpu_override=gpus, level_override=level)
    beside = lock_path(path)
    options: dict[str, Any] = {
        "toolchain": tools,
        "cache": cache,
        "jobs": usable_cpus(),
        "lock": load_lock(beside),
    }
    built: Built | BuiltModel
    if isinstance(spec, Model):
        total = len(spec.libraries)
        with model_progress() as progress:
            built = build_model(spec, **options, made=lambda layer: progress(layer.spec.name, total))
        owners = {layer: owner.name for layer, owner in spec.owners.items()}
        libraries = built.libraries
        explained = _of_libraries(owners, lambda folder: explain_built(libraries[folder]))
    else:
        built = build_library(spec, **options)
        explained = {"gpus": explain_built(built)}
    found = () if built.lock_use is None else built.lock_use.complaints
    return explained, lock_warnings(beside, path, found)
