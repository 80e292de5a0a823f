"""Standard output and error as commands find them: full, closed, or with a reader that has gone away."""

from __future__ import annotations

import errno
import os
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["StandardOutputError", "guarded_output", "say"]


class StandardOutputError(Exception):
    """Standard output did not take what a command printed; `number` is the system's error."""

    def __init__(self, error: OSError) -> None:
        super().__init__(f"standard output: {error.strerror or error}")
        self.number = error.errno

    @property
    def is_quiet(self) -> bool:
        """Whether only the reader has gone, as in `vqcc ... | head`: then nothing is left to say."""
        return self.number == errno.EPIPE


class _Guarded:
    """A stream whose errors are told from those of files: both are OSError, and a file's may be bugs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        try:
            return self._stream.write(text)
        except OSError as error:
            raise StandardOutputError(error) from error

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            raise StandardOutputError(error) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def guarded_output() -> Iterator[None]:
    """Let standard output raise StandardOutputError. A stream that was closed before the start swallows all."""
    if sys.stdout is None or sys.stderr is None:
        _open_missing()
    stream = sys.stdout
    sys.stdout = cast("TextIO", _Guarded(stream))
    try:
        yield
    except StandardOutputError:
        _silence(stream)
        raise
    finally:
        sys.stdout = stream


def say(text: str) -> None:
    """Print a text on stderr; where that takes none there is nowhere to say so."""
    import click

    try:
        click.echo(text, err=True)
    except OSError:
        _silence(sys.stderr)


def _silence(stream: TextIO) -> None:
    """Let what a stream still holds go nowhere: at exit Python would try to write it again."""
    with suppress(OSError, ValueError):  # in memory, it has no descriptor
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, stream.fileno())
        os.close(descriptor)


def _open_missing() -> None:
    """Open the standard descriptors that are closed, lest a file that is opened next is printed into."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
