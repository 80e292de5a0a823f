"""`vqcc explain`: the decisions behind kernels, or what an error code means."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import click

from vqcc.cli.compile import find_toolchain, toolchain_options
from vqcc.cli.decisions import show_plans
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

    WHAT is a compiled library, a spec (compiled in memory), or a diagnostic's code such as VQ0403.
    """
    if re.fullmatch(r"VQ\d{4}", what, re.IGNORECASE):
        _explain_code(what.upper(), as_json=as_json)
        return
    path = Path(what)
    warnings: list[Diagnostic] = []
    if path.is_dir():
        if level is not None:
            raise click.UsageError("a compiled library has its level: give --level with a spec")
        plans = _plans_of_library(path, gpus)
    else:
        _check_spec(path)
        tools = find_toolchain(toolchain, nvcc_path)
        plans, warnings = _plans_of_spec(path, gpus, level, tools, cache_dir, no_cache)
    if not as_json:
        show_plans(plans)
    finish({"gpus": plans}, (), ExitCode.OK, as_json=as_json, warnings=warnings)


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


def _plans_of_library(path: Path, gpus: tuple[str, ...]) -> dict[str, Any]:
    from vqcc.diagnostics import VqccError
    from vqcc.library import load_library, select_gpus

    library = load_library(path)
    plans = {}
    for gpu in select_gpus(library, gpus):
        name = f"{library.name}.{gpu}.plan.json"
        if name not in library.bundle.files:
            raise VqccError(
                Diagnostic(
                    "VQ0802",
                    f"{path} holds no plan for {gpu}",
                    help="compile with --emit plan among the others",
                )
            )
        plans[gpu] = json.loads(library.bundle.read_file(name))
    return plans


def _plans_of_spec(
    path: Path, gpus: tuple[str, ...], level: str | None, tools: Any, cache_dir: Path | None, no_cache: bool
) -> tuple[dict[str, Any], list[Diagnostic]]:
    """Plans by GPU, and what is to be said of the lock file beside the spec."""
    from vqcc.building import build_library
    from vqcc.data_files import lock_path
    from vqcc.explaining import explain_plans
    from vqcc.spec.load import load_spec
    from vqcc.tuning.lock import load_lock
    from vqcc.tuning.use import lock_warnings

    spec = load_spec(path, gpu_override=gpus, level_override=level)
    cache = open_cache(cache_dir, disabled=no_cache)
    beside = lock_path(path)
    built = build_library(spec, toolchain=tools, cache=cache, jobs=usable_cpus(), lock=load_lock(beside))
    found = () if built.lock_use is None else built.lock_use.complaints
    plans = {build.gpu.name: explain_plans(build.gpu, build.plans) for build in built.gpus}
    return plans, lock_warnings(beside, path, found)
