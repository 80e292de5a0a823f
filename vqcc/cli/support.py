"""What every subcommand shares: how errors end it, where results go, and common options."""

from __future__ import annotations

import functools
import json
import math
import os
import signal
import sys
import traceback
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import click

from vqcc.cli.signals import Terminated
from vqcc.cli.streams import StandardOutputError, say
from vqcc.diagnostics import Diagnostic, DiagnosticList, ExitCode, VqccError, render_json, render_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rich.console import Console

    from vqcc.codegen.cache import CompileCache

__all__ = [
    "ANY_PATH",
    "CACHE_LIMIT_BYTES",
    "Failures",
    "WordChoice",
    "cache_options",
    "compiled_directory",
    "console",
    "default_cache_directory",
    "finish",
    "json_option",
    "open_cache",
    "print_json",
    "reports_errors",
    "usable_cpus",
]

P = ParamSpec("P")

#: A path of the command line. Click looks at none of them: whoever opens it says what is wrong by a diagnostic, with
#: code, place and help, under `--json` too.
ANY_PATH = click.Path(path_type=Path, readable=False)


class WordChoice(click.Choice[str]):
    """A choice that helps with a word that is none, as a spec does: did you mean 'o2'? use gc, sc or o2."""

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The word. A click usage error, exit code 2, for any other."""
        if value not in self.choices:
            from vqcc.spec.wording import choose, quoted

            self.fail(f"unknown value {quoted(value)}; {choose(value, self.choices)}", param, ctx)
        return value


json_option = click.option("--json", "as_json", is_flag=True, help="Print machine-readable JSON on stdout.")

CACHE_LIMIT_BYTES = 1 << 30


def cache_options(function: Callable[P, None]) -> Callable[P, None]:
    """Options that choose the compile cache."""
    for option in (
        click.option(
            "--cache-dir",
            type=ANY_PATH,
            help="Where compiled kernels are kept between runs.",
        ),
        click.option("--no-cache", is_flag=True, help="Compile everything anew and keep nothing."),
    ):
        function = option(function)
    return function


def default_cache_directory() -> Path:
    """The user's cache folder."""
    import platformdirs

    return Path(platformdirs.user_cache_dir("vqcc", appauthor=False))


def compiled_directory(directory: Path | None) -> Path:
    """Where compiled kernels lie within the cache folder."""
    return (directory or default_cache_directory()) / "compiled"


def open_cache(directory: Path | None, *, disabled: bool) -> CompileCache | None:
    """The compile cache the options ask for; None if they ask for none."""
    from vqcc.codegen.cache import CompileCache

    if disabled:
        return None
    return CompileCache(compiled_directory(directory), CACHE_LIMIT_BYTES)


def color_wanted(stream: Any) -> bool:
    """Whether `stream` is a terminal whose user did not ask for plain text (https://no-color.org)."""
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    return bool(stream.isatty()) and not plain


def console(*, error: bool = False) -> Console:
    """A rich console that colours terminals only, never wraps what a pipe reads and takes text as it is."""
    from rich.console import Console

    stream = sys.stderr if error else sys.stdout
    width = None if stream.isatty() else 200
    return Console(
        file=stream,
        no_color=not color_wanted(stream),
        width=width,
        highlight=False,
        soft_wrap=True,
        markup=False,
        emoji=False,
    )


def usable_cpus() -> int:
    """CPUs that this process may use, which a container or `taskset` may have made fewer than there are."""
    return len(os.sched_getaffinity(0))


def print_json(data: Any) -> None:
    """One JSON document on stdout; numbers that JSON lacks (infinity, NaN) become null."""
    click.echo(json.dumps(_finite(data), indent=2, allow_nan=False))


def _finite(data: Any) -> Any:
    if isinstance(data, dict):
        return {key: _finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_finite(value) for value in data]
    return None if isinstance(data, float) and not math.isfinite(data) else data


class Failures:
    """What some inputs of a command fail with while it goes on with the others; the highest exit code ends it."""

    def __init__(self) -> None:
        self.diagnostics = DiagnosticList()
        self.exit_code = ExitCode.OK

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note the error that ends the block, if one does."""
        try:
            yield
        except VqccError as error:
            self.add(error.diagnostics, error.exit_code)

    def add(self, diagnostics: Iterable[Diagnostic], exit_code: ExitCode) -> None:
        """Note errors, if there are any."""
        found = tuple(diagnostics)
        self.diagnostics.extend(found)
        if found:
            self.exit_code = max(self.exit_code, exit_code)


def finish(
    results: Mapping[str, Any],
    errors: Sequence[Diagnostic],
    exit_code: ExitCode,
    *,
    as_json: bool,
    warnings: Sequence[Diagnostic] = (),
) -> None:
    """End a command that has results and may have errors too: with `--json`, all in one document."""
    told = (*warnings, *errors)
    if as_json:
        print_json({**results, "diagnostics": [item.to_json() for item in told]})
    elif told:
        _print(told, as_json=False)
    if errors:
        sys.exit(int(exit_code))


def reports_errors(function: Callable[P, None]) -> Callable[P, None]:
    """Turn diagnostics into text on stderr, or JSON on stdout, and an exit code; never a traceback."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> None:
        as_json = bool(kwargs.get("as_json"))
        try:
            function(*args, **kwargs)
        except VqccError as error:
            _print(error.diagnostics, as_json=as_json)
            sys.exit(int(error.exit_code))
        except (
            click.exceptions.ClickException,
            click.exceptions.Exit,
            click.exceptions.Abort,
            StandardOutputError,
        ):
            raise
        except Terminated:
            say("terminated")
            sys.exit(128 + signal.SIGTERM)
        except KeyboardInterrupt:
            say("interrupted")
            sys.exit(128 + signal.SIGINT)
        except Exception as error:
            if click.get_current_context().find_root().params.get("traceback"):
                traceback.print_exc()
            _print((_internal(error),), as_json=as_json)
            sys.exit(int(ExitCode.INTERNAL))

    return wrapper


def _internal(error: Exception) -> Diagnostic:
    text = str(error).strip().splitlines() or [""]
    return Diagnostic(
        "VQ0901",
        f"{type(error).__name__}: {text[0][:300]}",
        help="this is a bug in vqcc: please report it with the command and its input; "
        "`vqcc --traceback COMMAND ...` shows where it happened",
    )


def _print(diagnostics: Iterable[Diagnostic], *, as_json: bool) -> None:
    if as_json:
        click.echo(render_json(tuple(diagnostics)))
    else:
        say(render_text(tuple(diagnostics), color=color_wanted(sys.stderr)))
