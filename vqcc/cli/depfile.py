"""`--depfile` of `vqcc compile`: what its libraries were made of, for make and ninja."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from vqcc.codegen.toolchain import Toolchain
    from vqcc.compiling import Emit

__all__ = ["Depfile", "depfile_options"]


def depfile_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Options that ask for a dependency file."""
    for option in (
        click.option(
            "--depfile-target",
            metavar="NAME",
            help="What that file calls the output, such as a stamp. [default: each bundle's header]",
        ),
        click.option(
            "--depfile",
            type=click.Path(path_type=Path, dir_okay=False),
            help="Write what the bundles depend on, for make and ninja (as gcc -MD -MF FILE).",
        ),
    ):
        function = option(function)
    return function


@dataclass(frozen=True)
class Depfile:
    """A dependency file that is wanted, and what it calls the output: each bundle's first file if None."""

    path: Path
    target: str | None

    @classmethod
    def wanted(cls, path: Path | None, target: str | None, specs: Sequence[Path]) -> Depfile | None:
        """What the options ask for. Raises a usage error for a target alone, VQ0711 for a file that is an input."""
        if path is None:
            if target is not None:
                raise click.UsageError("--depfile-target names an output in a --depfile: give that too")
            return None
        from vqcc.data_files import lock_path
        from vqcc.tensors.output import check_outputs

        check_outputs([path], [*specs, *map(lock_path, specs)])
        return cls(path, target)

    def write(
        self, results: Sequence[Mapping[str, Any]], emit: Collection[Emit], toolchain: Toolchain
    ) -> None:
        """Write it for libraries as `compile_file` tells of them.

        Raises VqccError: VQ0711 if it would lie in one of them or is a profile, VQ0701 if it cannot be written or
        cannot name a file.
        """
        from vqcc.dependencies import compiler_files, spec_files
        from vqcc.depfile import Rule, UnnamableError, render
        from vqcc.diagnostics import Diagnostic, VqccError
        from vqcc.tensors.output import write_atomically

        compiler = compiler_files(toolchain)
        rules = []
        for result in results:
            own = spec_files(Path(result["spec"]), _profiles_of(result))
            directory = Path(result["directory"])
            self._check(directory, own)
            output = directory / _main_file(result, emit)
            rules.append(Rule(self.target or str(output), (*own, *compiler)))
        try:
            data = render(rules)
        except UnnamableError as error:
            help_text = "the libraries are written; rename what make or ninja would misread"
            message = f"cannot write {self.path}: {error}"
            raise VqccError(Diagnostic("VQ0701", message, help=help_text)) from None
        write_atomically(self.path, data, code="VQ0701")

    def _check(self, directory: Path, inputs: Sequence[Path]) -> None:
        """Raise VQ0711 if the file would be one more in a bundle, or replace what it names."""
        from vqcc.diagnostics import Diagnostic, VqccError

        place = Path(os.path.realpath(self.path))
        if place in [Path(os.path.realpath(path)) for path in inputs]:
            clash = f"is an input of {directory}"
        elif Path(os.path.realpath(directory)) in place.parents:
            clash = f"would lie in the library {directory}"
        else:
            return
        help_text = "the libraries are written, the dependency file is not: name another one"
        raise VqccError(Diagnostic("VQ0711", f"{self.path} {clash}", help=help_text))


def _profiles_of(result: Mapping[str, Any]) -> list[str]:
    """The profiles that a spec names, its own or its layers'."""
    return [name for name in (result["profile"], *result.get("profiles", ())) if name is not None]


def _main_file(result: Mapping[str, Any], emit: Collection[Emit]) -> str:
    """The file of a bundle that stands for all of it."""
    from vqcc.outputs import main_file, model_files

    if "layers" not in result:
        return main_file(result["name"], result["gpus"], emit)
    return model_files(result["name"], result["libraries"], result["gpus"], emit)[0]
