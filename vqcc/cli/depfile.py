"""`--depfile` of `vqcc compile` and `vqcc cubin`: what bundles were made of, for make and ninja."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from vqcc.cli.support import ANY_PATH

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vqcc.codegen.toolchain import Toolchain

__all__ = ["Depended", "Depfile", "depfile_options"]


def depfile_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that ask for a dependency file."""
    for option in (
        click.option(
            "--depfile-target",
            metavar="NAME",
            help="What that file calls the output, such as a stamp. [default: each bundle's header or first file]",
        ),
        click.option(
            "--depfile",
            type=ANY_PATH,
            help="Write what the bundles depend on, for make and ninja (as gcc -MD -MF FILE).",
        ),
    ):
        function = option(function)
    return function


@dataclass(frozen=True)
class Depended:
    """A bundle that was made, the file that stands for all of it, and what it was made of beside the compiler."""

    directory: Path
    main: str
    inputs: Sequence[Path]


@dataclass(frozen=True)
class Depfile:
    """A dependency file that is wanted, and what it calls the output: each bundle's main file if None."""

    path: Path
    target: str | None

    @classmethod
    def wanted(cls, path: Path | None, target: str | None, inputs: Sequence[Path]) -> Depfile | None:
        """What the options ask for. Raises a usage error for a target alone, VQ0711 for a file that is an input."""
        if path is None:
            if target is not None:
                raise click.UsageError("--depfile-target names an output in a --depfile: give that too")
            return None
        from vqcc.tensors.output import check_outputs

        check_outputs([path], inputs)
        return cls(path, target)

    def write(self, bundles: Sequence[Depended], toolchain: Toolchain) -> None:
        """Write it for what was made.

        Raises VqccError: VQ0711 if it would lie in one of them or is what one was made of, VQ0701 if it cannot be
        written or cannot name a file.
        """
        from vqcc.dependencies import compiler_files
        from vqcc.depfile import Rule, UnnamableError, render
        from vqcc.diagnostics import Diagnostic, VqccError
        from vqcc.tensors.output import write_atomically

        compiler = compiler_files(toolchain)
        rules = []
        for bundle in bundles:
            self._check(bundle)
            target = self.target or str(bundle.directory / bundle.main)
            rules.append(Rule(target, (*bundle.inputs, *compiler)))
        try:
            data = render(rules)
        except UnnamableError as error:
            help_text = "all else is written; rename what make or ninja would misread"
            message = f"cannot write {self.path}: {error}"
            raise VqccError(Diagnostic("VQ0701", message, help=help_text)) from None
        write_atomically(self.path, data, code="VQ0701")

    def _check(self, bundle: Depended) -> None:
        """Raise VQ0711 if the file would be one more in a bundle, or replace what it names."""
        from vqcc.diagnostics import Diagnostic, VqccError

        place = Path(os.path.realpath(self.path))
        if place in [Path(os.path.realpath(path)) for path in bundle.inputs]:
            clash = f"is an input of {bundle.directory}"
        elif Path(os.path.realpath(bundle.directory)) in place.parents:
            clash = f"would lie in the bundle {bundle.directory}"
        else:
            return
        help_text = "all else is written, the dependency file is not: name another one"
        raise VqccError(Diagnostic("VQ0711", f"{self.path} {clash}", help=help_text))
