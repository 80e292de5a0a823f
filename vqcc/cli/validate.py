"""`vqcc validate`: a library against float64."""

from __future__ import annotations

import shutil
import tempfile
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vqcc.cli.support import (
    ANY_PATH,
    Failures,
    WordChoice,
    default_cache_directory,
    finish,
    json_option,
    reports_errors,
)
from vqcc.diagnostics import Diagnostic, VqccError
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from vqcc.library import CacheLibrary, Library
    from vqcc.tensors.cache_tensor import CacheTensor
    from vqcc.tensors.vq_tensor import VQTensor
    from vqcc.verify.backends import Backend
    from vqcc.verify.harness import CaseResult

__all__ = ["command"]

_HELP = "this is a bug in vqcc or a damaged toolchain: please report the spec and `vqcc doctor`"
_PACKED_HELP = "the packed file may hold other weights than --tensors; without --packed they are packed anew"


@click.command("validate")
@click.argument("libraries", nargs=-1, required=True, type=ANY_PATH)
@click.option("--tensors", type=ANY_PATH, help="VQ tensors; random data if not given.")
@click.option(
    "--packed",
    "packed_path",
    type=ANY_PATH,
    help="Run on these packed weights; the tensors of --tensors are what they must decode to.",
)
@click.option("--tensor", "names", multiple=True, metavar="NAME", help="Only these tensors of the file.")
@click.option("--keys", metavar="NAME", help="The tensor of keys, for libraries over a KV cache.")
@click.option("--values", metavar="NAME", help="The tensor of values of the same layer.")
@click.option(
    "--backend",
    type=WordChoice(["emulate", "cuda"]),
    default="emulate",
    show_default=True,
    help="Run the emitted source on the CPU, or the cubin on the GPU of this machine.",
)
@click.option("--gpu", "gpus", multiple=True, metavar="NAME", help="Only the kernels for these GPUs.")
@click.option(
    "--rows",
    "most_rows",
    type=click.IntRange(min=1),
    metavar="N",
    help="Launches of at most N rows of x: kernels for many take long on the emulator.",
)
@click.option("--seed", default=0, show_default=True, help="Of random weights and inputs.")
@json_option
@reports_errors
def command(
    libraries: tuple[Path, ...],
    tensors: Path | None,
    packed_path: Path | None,
    names: tuple[str, ...],
    keys: str | None,
    values: str | None,
    backend: str,
    gpus: tuple[str, ...],
    most_rows: int | None,
    seed: int,
    as_json: bool,
) -> None:
    """Run every kernel of LIBRARIES and compare it with float64.

    Prints, per launch, the relative error ||computed - exact|| / ||exact||, the largest error of an element,
    and how near an element came to the bound that its rounding allows; of kernels that append to a KV cache, whether
    every byte is as the reference has it. Of a whole model, all libraries are run. Exit code 4 if anything is not. A
    library that cannot be read or run is reported, and the others are still validated.
    """
    from vqcc.diagnostics import ExitCode
    from vqcc.library import load_libraries

    sides = _checked_sides(keys, values, tensors, names)
    if names and tensors is None:
        raise click.UsageError("--tensor picks from a file: give it with --tensors")
    if packed_path is not None and tensors is None:
        raise click.UsageError("--packed needs the tensors that were packed: give them with --tensors")
    failures = Failures()
    warnings: list[Diagnostic] = []
    loaded: list[Library | CacheLibrary] = []
    for path in libraries:
        with failures.noted():
            own = load_libraries(path)
            _check_model(path, own, tensors, names)
            loaded += own
    results: list[CaseResult] = []
    with failures.noted():
        inputs = _Inputs(
            () if sides is not None else _load_tensors(tensors, names),
            None if tensors is None or sides is None else _load_sides(tensors, sides),
            packed_path,
            gpus,
            seed,
            most_rows,
        )
        if loaded:
            with _open_backend(backend, warnings) as running:
                for library in loaded:
                    for result in _run(library, running, inputs, failures, warnings):
                        results.append(result)
                        if not as_json:
                            _show(result)
    failed = [result for result in results if not result.comparison.passed]
    if results and not as_json:
        launches = counted(len(results), "launch", "launches")
        whose = "its" if len(results) == 1 else "their"
        click.echo(f"{len(results) - len(failed)} of {launches} within {whose} bounds of float64")
    failures.add(_mismatches(failed, packed=packed_path is not None), ExitCode.MISMATCH)
    summary = {"backend": backend, "results": [result.to_json() for result in results]}
    told = tuple(failures.diagnostics)
    finish(summary, told, failures.exit_code, as_json=as_json, warnings=warnings)


def _checked_sides(
    keys: str | None, values: str | None, tensors: Path | None, names: tuple[str, ...]
) -> tuple[str, str] | None:
    """Names of the tensors of keys and of values. Raises a usage error for one of them, or without a file."""
    if keys is None and values is None:
        return None
    if keys is None or values is None:
        raise click.UsageError("a KV cache has keys and values: give --keys NAME and --values NAME")
    if tensors is None or names:
        raise click.UsageError("--keys and --values pick from the file of --tensors, instead of --tensor")
    return keys, values


@dataclass(frozen=True)
class _Inputs:
    """What libraries are validated on."""

    tensors: tuple[VQTensor, ...]
    sides: tuple[CacheTensor, CacheTensor] | None
    packed: Path | None
    gpus: tuple[str, ...]
    seed: int
    most_rows: int | None


def _load_tensors(path: Path | None, names: tuple[str, ...]) -> tuple[VQTensor, ...]:
    from vqcc.tensors.container import load, load_all

    if path is None:
        return ()
    return tuple(load(path, name) for name in names) if names else load_all(path)


def _check_model(
    path: Path,
    libraries: Sequence[Library | CacheLibrary],
    tensors: Path | None,
    names: tuple[str, ...],
) -> None:
    """Refuse a whole model where tensors are those of one of its libraries. Raises VQ0704, which names the folder.

    Tensors that cannot be read, or that fit all of its libraries, are left to what follows.
    """
    from vqcc.library import Library
    from vqcc.verify.harness import check_tensors

    if tensors is None or len(libraries) < 2:
        return
    try:
        given = _load_tensors(tensors, names)
    except VqccError:
        return
    fitting = []
    for library in libraries:
        if isinstance(library, Library):
            with suppress(VqccError):
                check_tensors(library, given)
                fitting.append(str(library.bundle.directory))
    if len(fitting) == len(libraries):
        return
    whose = " or ".join(fitting)
    help_text = (
        f"give the library that they are of: {whose}" if fitting else "none of its libraries takes them all"
    )
    listed = ", ".join(tensor.name for tensor in given[:3]) + (", ..." if len(given) > 3 else "")
    raise VqccError(
        Diagnostic(
            "VQ0704",
            f"{path} is a whole model, and {listed} of {tensors} fit not all of its libraries",
            help=help_text,
        )
    )


def _load_sides(path: Path, names: tuple[str, str]) -> tuple[CacheTensor, CacheTensor]:
    from vqcc.tensors.container import load_cache

    return load_cache(path, names[0]), load_cache(path, names[1])


def _run(
    library: Library | CacheLibrary,
    backend: Backend,
    inputs: _Inputs,
    failures: Failures,
    warnings: list[Diagnostic],
) -> Iterator[CaseResult]:
    """The launches of one library; what ends them is noted."""
    from vqcc.library import CacheLibrary

    if isinstance(library, CacheLibrary):
        yield from _run_cache(library, backend, inputs, failures)
    else:
        yield from _run_weights(library, backend, inputs, failures, warnings)


def _run_cache(
    library: CacheLibrary, backend: Backend, inputs: _Inputs, failures: Failures
) -> Iterator[CaseResult]:
    from vqcc.tensors.cache_packed_file import load_packed_books
    from vqcc.verify.cache_harness import check_cache_tensors, validate_cache

    with failures.noted():
        if inputs.tensors:
            raise VqccError(
                Diagnostic(
                    "VQ0713",
                    f"library {library.name} is over a KV cache: which of the tensors are keys, which are values?",
                    help="give --keys NAME and --values NAME with --tensors",
                )
            )
        chosen = backend.gpus(library, inputs.gpus)
        layers: list[Mapping[str, NDArray[Any]] | None] = [None]
        if inputs.packed is not None and inputs.sides is not None:
            check_cache_tensors(library, *inputs.sides)
            layers = [*load_packed_books(inputs.packed, library).values()]
        for packed in layers:
            yield from validate_cache(
                library, backend, tensors=inputs.sides, packed=packed, gpus=chosen, seed=inputs.seed
            )


def _run_weights(
    library: Library, backend: Backend, inputs: _Inputs, failures: Failures, warnings: list[Diagnostic]
) -> Iterator[CaseResult]:
    """The same over weights; packed ones that are other ones are noted before they run."""
    from vqcc.diagnostics import ExitCode
    from vqcc.tensors.packed_file import check_contents, check_order, load_packed
    from vqcc.verify.harness import check_tensors, validate

    with failures.noted():
        chosen, packed = backend.gpus(library, inputs.gpus), None
        if inputs.packed is not None:
            check_tensors(library, inputs.tensors)
            packed = load_packed(inputs.packed, library)
            warnings += check_order(inputs.packed, library)
            altered = check_contents(inputs.packed, library, packed, inputs.tensors)
            failures.add(altered, ExitCode.MISMATCH)
        yield from validate(
            library,
            backend,
            tensors=inputs.tensors,
            packed=packed,
            gpus=chosen,
            seed=inputs.seed,
            most_rows=inputs.most_rows,
        )


@contextmanager
def _open_backend(name: str, warnings: list[Diagnostic]) -> Iterator[Backend]:
    from vqcc.verify.backends import EmulatorBackend

    if name == "cuda":
        from vqcc.runtime.backend import CudaBackend
        from vqcc.runtime.device import open_device

        with open_device() as device:
            yield CudaBackend(device)
        return
    compiler = next(filter(None, map(shutil.which, ("g++", "clang++", "c++"))), None)
    with _cache_or_scratch(default_cache_directory() / "emulator", warnings) as directory:
        yield EmulatorBackend(directory, compiler)


@contextmanager
def _cache_or_scratch(directory: Path, warnings: list[Diagnostic]) -> Iterator[Path]:
    """`directory` if modules can be kept there, else, with a warning VQ0702, one that is removed at the end."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            pass
    except OSError as error:
        help_text = "validation goes on without it; set XDG_CACHE_HOME to a writable directory of your own"
        message = f"cannot write to {directory}: {error.strerror}"
        warnings.append(Diagnostic("VQ0702", message, help=help_text, severity="warning"))
        with tempfile.TemporaryDirectory(prefix="vqcc-emulator-") as scratch:
            yield Path(scratch)
    else:
        yield directory


def _show(result: CaseResult) -> None:
    found = result.comparison
    verdict = "ok" if found.passed else "MISMATCH"
    sizes = ", ".join(f"{name} = {value}" for name, value in result.sizes.items())
    click.echo(f"{verdict:8}  {result.gpu}: {result.kernel}, {sizes}, {result.tensor}")
    if result.exact:
        held = "every byte is" if found.passed else "not every byte is"
        click.echo(f"{'':8}  {held} as the reference has it")
        return
    worst = found.worst * found.max_bound
    click.echo(
        f"{'':8}  relative error {found.relative_error:.2e} of {found.relative_limit:.2e} allowed, "
        f"max error {found.max_error:.2e}; "
        f"worst element {worst:.2e} of {found.max_bound:.2e} allowed"
    )


def _mismatches(failed: Iterable[CaseResult], *, packed: bool) -> list[Diagnostic]:
    return [
        Diagnostic(
            "VQ0801",
            f"{result.gpu}: {result.kernel}: {_what_is_wrong(result)}",
            help=_PACKED_HELP if packed else _HELP,
        )
        for result in failed
    ]


def _what_is_wrong(result: CaseResult) -> str:
    """The worst element where one is outside its bound, else that all together are too far off."""
    found = result.comparison
    if result.exact:
        return f"{result.tensor} are not the reference's, from byte {list(found.position)} on"
    if found.worst <= 1:
        return (
            f"{result.tensor}: the relative error {found.relative_error:.3g} of all elements together is more than the "
            f"{found.relative_limit:.3g} that rounding explains"
        )
    return (
        f"element {list(found.position)} of {result.tensor} is {found.worst:.3g} times its bound "
        f"{found.max_bound:.3g} from float64"
    )
