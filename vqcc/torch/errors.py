"""What is wrong, as Python exceptions whose text has the reason and what to do about it."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import ExitCode, VqccError
from vqcc.torch.kinds import type_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from vqcc.torch.library import TorchLibrary

__all__ = ["refuse_gradients", "refuse_operands", "reported", "require_gpu"]

#: Operands that place tokens.
_INTEGERS = ("lengths", "page_table", "counts")
_OPTIONAL = ("page_table", "counts", "bias")


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


def refuse_operands(library: TorchLibrary[Any], **operands: object) -> TypeError:
    """For the first of a call's operands that is no tensor."""
    import torch

    what, given = next(
        (what, given)
        for what, given in operands.items()
        if not (isinstance(given, torch.Tensor) or (given is None and what in _OPTIONAL))
    )
    wanted = "torch.int32" if what in _INTEGERS else " or ".join(map(str, library.dtypes))
    return TypeError(f"{what} is {type_name(given)}; library {library.name} takes a torch.Tensor of {wanted}")


def require_gpu(device: torch.device) -> None:
    """Raise RuntimeError for a GPU where PyTorch can use none, whose own error has no word of the emulator."""
    import torch

    if device.type == "cuda" and not torch.cuda.is_available():
        reason = "was built without CUDA" if torch.version.cuda is None else "finds no NVIDIA driver or GPU"
        raise RuntimeError(
            f"nothing can be on {device}: PyTorch {torch.__version__} {reason}. Run `vqcc doctor`; with device='cpu' "
            "the emulator runs the kernels"
        )
