"""`vqcc tune`: candidates timed on this machine's GPU, and recorded beside the spec."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from vqcc.cli.compile import find_toolchain, toolchain_options
from vqcc.cli.support import (
    ANY_PATH,
    cache_options,
    console,
    json_option,
    open_cache,
    print_json,
    reports_errors,
    usable_cpus,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from vqcc.models import Model
    from vqcc.spec.model import Spec
    from vqcc.tuning.session import Step

__all__ = ["command"]

_MOST = 64


@click.command("tune")
@click.argument("spec", type=ANY_PATH)
@click.option("--gpu", metavar="NAME", help="Which of the spec's GPUs this machine has, or another one.")
@click.option(
    "--top",
    type=click.IntRange(1, _MOST),
    default=4,
    show_default=True,
    help="Candidates of each kernel and dataflow that are timed.",
)
@click.option(
    "--again", is_flag=True, help="Time again what the lock file has of this spec, GPU and toolchain."
)
@click.option("--seed", default=0, show_default=True, help="Of random weights, caches and inputs.")
@toolchain_options
@cache_options
@json_option
@reports_errors
def command(
    spec: Path,
    gpu: str | None,
    top: int,
    again: bool,
    seed: int,
    toolchain: str,
    nvcc_path: Path | None,
    cache_dir: Path | None,
    no_cache: bool,
    as_json: bool,
) -> None:
    """Time the cost model's best candidates for SPEC's kernels on this machine's GPU.

    What they take is recorded in NAME.lock.yaml beside SPEC, after each of them: a run that was interrupted goes on
    where it stopped. `vqcc compile` and `vqcc explain` read that file, with or without a GPU. Of a whole model all
    libraries are tuned, one after the other, into one file.
    """
    from vqcc.data_files import lock_path
    from vqcc.models import load_any
    from vqcc.runtime.device import open_device
    from vqcc.runtime.tuning import gpu_of_device
    from vqcc.subjects import subject_of
    from vqcc.tensors.output import write_atomically
    from vqcc.tuning.lock import Lock, load_lock, render_lock
    from vqcc.tuning.session import Tools, tunable, tune

    tools = find_toolchain(toolchain, nvcc_path)
    path = lock_path(spec)
    loaded = load_any(spec, gpu_override=() if gpu is None else (gpu,))
    libraries = tunable(loaded)
    lock = load_lock(path) or Lock()
    with open_device(without="`vqcc compile` needs no times: without them the model chooses") as device:
        chosen = gpu_of_device(loaded.gpu, device, named=gpu is not None)
        skipped = _skipped(loaded)
        if not as_json:
            for layer, level in skipped.items():
                click.echo(f"{layer}: not tuned, its level is {level}")
        steps = tune(
            libraries,
            chosen,
            lock,
            lambda library: subject_of(library).bench(library, device, seed),
            Tools(tools, open_cache(cache_dir, disabled=no_cache), usable_cpus()),
            save=lambda lock: write_atomically(path, render_lock(lock)),
            most=top,
            again=again,
        )
        told = [_tell(step, as_json=as_json) for step in _with_progress(steps)]
    if as_json:
        print_json({"lock": str(path), "gpu": chosen.name, "skipped": skipped, "steps": told})
    else:
        timed = sum(step["us"] is not None and step["reason"] != "known" for step in told)
        click.echo(f"{path}: {timed} of {len(told)} candidates timed now")


def _skipped(spec: Spec | Model) -> dict[str, str]:
    """Layers of a whole model whose level leaves nothing to tune, and the level."""
    from vqcc.models import Model

    layers = spec.libraries if isinstance(spec, Model) else ()
    return {layer.name: layer.spec.level for layer in layers if layer.spec.level != "best"}


def _with_progress(steps: Iterator[Step]) -> Iterator[Step]:
    """The steps, with a bar on a terminal."""
    from rich.progress import Progress

    terminal = console(error=True)
    with Progress(console=terminal, transient=True, disable=not terminal.is_terminal) as progress:
        task = progress.add_task("candidates", total=None)
        for step in steps:
            progress.update(task, completed=step.number, total=step.count)
            yield step


def _tell(step: Step, *, as_json: bool) -> dict[str, Any]:
    if not as_json:
        took = f"{step.us:.2f} us" if step.us is not None else "no time"
        why = f" ({step.reason})" if step.reason else ""
        kernel = step.kernel if step.layer is None else f"{step.layer} {step.kernel}"
        click.echo(
            f"{step.number}/{step.count} {kernel} {step.dataflow}: {took}, {step.predicted_us:.2f} us predicted{why}"
        )
    return asdict(step)
