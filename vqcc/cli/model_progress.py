"""What is shown of a whole model that is compiled: a bar on a terminal meanwhile, and what it took."""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vqcc.cli.support import console
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from vqcc.codegen.cache import CompileCache, CompileCounts

__all__ = ["Timed", "model_progress", "show_timed"]


@dataclass(frozen=True)
class Timed:
    """When compiling a spec began, and what the cache had been asked for by then."""

    cache: CompileCache | None
    seconds: float = field(default_factory=time.monotonic)
    counts: CompileCounts | None = None

    @classmethod
    def begin(cls, cache: CompileCache | None) -> Timed:
        """From now on."""
        return cls(cache, counts=None if cache is None else cache.compiled)

    def summary(self, result: Mapping[str, Any]) -> dict[str, Any]:
        """Seconds since then, libraries of the model, and sources compiled and found; None without a cache."""
        counts = None if self.cache is None or self.counts is None else self.cache.compiled.since(self.counts)
        return {
            "seconds": round(time.monotonic() - self.seconds, 2),
            "libraries": len(result["libraries"]),
            "compiled": None if counts is None else counts.made,
            "found": None if counts is None else counts.found,
        }


def show_timed(summary: Mapping[str, Any]) -> str:
    """A summary as a line."""
    libraries = counted(summary["libraries"], "library", "libraries")
    line = f"  {libraries} in {summary['seconds']:.1f} s"
    if summary["compiled"] is None:
        return line
    return f"{line}: {counted(summary['compiled'], 'source')} compiled, {summary['found']} found in the cache"


@contextmanager
def model_progress() -> Iterator[Callable[[str, int], None]]:
    """A function to be told of each library that is done, and how many there are; it draws a bar on a terminal."""
    if not sys.stderr.isatty():
        yield lambda _name, _total: None
        return
    from rich.progress import Progress

    progress = Progress(console=console(error=True), transient=True)
    task = progress.add_task("libraries", total=None)

    def note(name: str, total: int) -> None:
        progress.start()  # with the first one, so that nothing is drawn where no model is compiled
        progress.update(task, description=name, advance=1, total=total)

    try:
        yield note
    finally:
        progress.stop()
