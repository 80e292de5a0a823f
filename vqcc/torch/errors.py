"""What is wrong, as Python exceptions whose text has the reason and what to do about it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from vqcc.diagnostics import ExitCode, VqccError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["refuse_gradients", "reported"]


@contextmanager
def reported() -> Iterator[None]:
    """Turn diagnostics into ValueError, or RuntimeError where no input is at fault, with all of their text."""
    try:
        yield
    except VqccError as error:
        kind = ValueError if error.exit_code == ExitCode.INPUT else RuntimeError
        lines = (
            f"[{item.code}] {item.message}" + (f". Help: {item.help}" if item.help else "")
            for item in error.diagnostics
        )
        raise kind("\n".join(lines)) from error


def refuse_gradients(what: str, *, plural: bool = False) -> RuntimeError:
    """For an operand that requires a gradient while gradients are recorded; `plural` is what its name is."""
    return RuntimeError(
        f"{what} {'require' if plural else 'requires'} a gradient, and kernels over quantized data have none: call "
        f"them under torch.no_grad() or torch.inference_mode(), or pass {what}.detach()"
    )
