"""Runs the command line in this process, as the console script does, and catches what it prints."""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vqcc.cli import main

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Done:
    """How a command ended and what it printed."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """Standard output as the one strict JSON document that it must be."""

        def refuse(word: str) -> None:
            raise AssertionError(f"{word} is not JSON")

        return json.loads(self.stdout, parse_constant=refuse)

    @property
    def codes(self) -> list[str]:
        """Codes of the diagnostics of a command run with --json."""
        return [item["code"] for item in self.json["diagnostics"]]


def run(*arguments: str | Path | int) -> Done:
    """Run `vqcc ARGUMENTS...`."""
    out, err = io.StringIO(), io.StringIO()
    environment, threshold = dict(os.environ), gc.get_threshold()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main([str(argument) for argument in arguments])
                code: Any = 0
            except SystemExit as ended:
                code = ended.code
    finally:
        os.environ.clear()
        os.environ.update(environment)
        gc.set_threshold(*threshold)
    return Done(code or 0, out.getvalue(), err.getvalue())
