"""`vqcc doctor`: whether this installation is whole."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from vqcc.cli.support import (
    ANY_PATH,
    CACHE_LIMIT_BYTES,
    compiled_directory,
    json_option,
    print_json,
    reports_errors,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["command"]

_MARKS = {"ok": "ok", "warning": "--", "missing": "MISSING"}


@click.command("doctor")
@click.option("--cache-dir", type=ANY_PATH, help="The compile cache to look at.")
@json_option
@reports_errors
def command(cache_dir: Path | None, as_json: bool) -> None:
    """Check compiler, headers, optional parts, GPU and cache, and say how to mend what is missing."""
    from vqcc.doctor import diagnose

    checks = diagnose(
        path=os.environ.get("PATH", ""),
        cache_directory=compiled_directory(cache_dir),
        cache_limit_bytes=CACHE_LIMIT_BYTES,
    )
    if as_json:
        print_json({"checks": [asdict(check) for check in checks]})
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            click.echo(f"{_MARKS[check.status]:8} {check.name:{width}}  {check.detail}")
            if check.help and check.status != "ok":
                click.echo(f"{'':8} {'':{width}}  {check.help}")
    if any(check.status == "missing" for check in checks):
        sys.exit(3)
