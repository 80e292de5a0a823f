"""What `vqcc compile` and `vqcc cubin` write and where: options and checks that both have."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import click

from vqcc.cli.support import ANY_PATH, WordChoice

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from vqcc.codegen.embedding import Machine

__all__ = ["check_machine", "chosen_kinds", "machine_option", "out_dir_option"]

#: Hosts that objects can be made for, by the names that their systems give them.
_MACHINE_NAMES: dict[str, Machine] = {
    "x86_64": "x86_64",
    "amd64": "x86_64",
    "aarch64": "aarch64",
    "arm64": "aarch64",
}
_MACHINES = tuple(dict.fromkeys(_MACHINE_NAMES.values()))
Kind = TypeVar("Kind", bound=str)


def _own_machine() -> Machine | None:
    """The host that runs this program, if objects can be made for it."""
    return _MACHINE_NAMES.get(platform.machine().lower())


machine_option = click.option(
    "--machine",
    type=WordChoice(_MACHINES),
    default=_own_machine,
    show_default="this one's",
    help="Hosts that an emitted object is linked for.",
)


def out_dir_option(help_text: str) -> Callable[[Any], Any]:
    """The option for the directory in which bundles become directories."""
    return click.option(
        "-o",
        "--out-dir",
        type=ANY_PATH,
        default=Path("out"),
        show_default=True,
        help=help_text,
    )


def chosen_kinds(text: str, kinds: Sequence[Kind]) -> tuple[Kind, ...]:
    """What `--emit` asks for, in the order of `kinds`. A usage error for a word that is none, and for none."""
    from vqcc.diagnostics import did_you_mean

    words = [word.strip() for word in text.split(",") if word.strip()]
    for word in words:
        if word not in kinds:
            near = did_you_mean(word, kinds)
            raise click.BadParameter(
                f"'{word}' is none of {', '.join(kinds)}" + (f"; {near}" if near else ""), param_hint="--emit"
            )
    if not words:
        raise click.BadParameter(f"name at least one of {', '.join(kinds)}", param_hint="--emit")
    return tuple(kind for kind in kinds if kind in words)


def check_machine(kinds: Sequence[str], machine: Machine | None) -> None:
    """Raise a usage error for an object that is for no known hosts."""
    if "object" in kinds and machine is None:
        raise click.UsageError(
            f"objects are for {' or '.join(_MACHINES)}: say which with --machine, or emit array"
        )
