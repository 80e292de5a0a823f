"""The `vqcc` command. Each subcommand is a module of its own, imported when it is called."""

from __future__ import annotations

import gc
import os
import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

import vqcc
from vqcc.cli.signals import ended_by_sigterm
from vqcc.cli.streams import StandardOutputError, guarded_output, say

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["main"]

#: Subcommands: module under vqcc.cli and one line of help. Listed here so that `--help` imports none of them.
_COMMANDS: Mapping[str, tuple[str, str]] = {
    "compile": ("compile", "Compile specs to kernel libraries: .cu, .cubin, C header, manifest."),
    "outputs": ("outputs", "List the files that a compilation writes, at once."),
    "cubin": ("cubin", "Compile hand-written kernels to cubins, without a CUDA toolkit."),
    "quantize": ("quantize", "Quantize a weight to codes and codebooks."),
    "profile": ("profile", "Count how often codebook entries are looked up."),
    "pack": ("pack", "Pack a quantized weight for a compiled library."),
    "validate": ("validate", "Run a library against float64, on the CPU emulator or on a GPU."),
    "bench": ("bench", "Time libraries on the GPU beside cuBLAS."),
    "tune": ("tune", "Time the best candidates on the GPU and record them beside the spec."),
    "calibrate": ("calibrate", "Measure the cost model's constants on the GPU, for its data file."),
    "explain": ("explain", "Print the decisions behind a library's kernels, or what an error code means."),
    "list": ("listing", "List algorithms, ops, GPUs or levels."),
    "schema": ("schema", "Print the JSON Schema of specs."),
    "cmake-dir": ("cmake_dir", "Print the folder of the CMake package, for -Dvqcc_DIR."),
    "include-dir": ("include_dir", "Print the folder of headers for host programs."),
    "doctor": ("doctor", "Check this installation."),
}


class _LazyGroup(click.Group):
    """A group that imports a subcommand's module only to run it or to print its own help."""

    def list_commands(self, _context: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, _context: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module = import_module(f"vqcc.cli.{_COMMANDS[name][0]}")
        command: click.Command = module.command
        return command

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from vqcc.diagnostics import did_you_mean

            near = did_you_mean(args[0], _COMMANDS)
            context.fail(f"no such command '{args[0]}'" + (f"; {near}" if near else ""))
        return super().resolve_command(context, args)

    def format_commands(self, _context: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in _COMMANDS.items()])


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(vqcc.__version__, prog_name="vqcc")
@click.option("--traceback", is_flag=True, help="Show the Python traceback of an internal error.")
def _vqcc(traceback: bool) -> None:
    """Compile vector-quantization specs to CUDA kernel libraries."""


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; exits the process."""
    # A command is short-lived and start-up counts: no third party's pydantic plugins are looked up, and the
    # collector does not walk the modules' objects again and again while they are imported.
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")
    gc.set_threshold(100_000)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")
    try:
        with guarded_output(), ended_by_sigterm():
            return _vqcc.main(arguments, prog_name="vqcc")
    except StandardOutputError as error:
        _report(error)
        sys.exit(1)


def _report(error: StandardOutputError) -> None:
    """Say on stderr, with or without `--json`, that standard output takes no more."""
    if error.is_quiet:
        return
    from vqcc.diagnostics import Diagnostic, render_text

    help_text = "results were not all printed; files that the command writes are whole or not there"
    say(render_text([Diagnostic("VQ0701", str(error), help=help_text)], color=False))
