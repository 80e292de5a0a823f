"""Figures as SVG or PNG files: what all plots share. The same data give the same bytes."""

from __future__ import annotations

import io
import warnings
from typing import TYPE_CHECKING, Any

from vqcc.diagnostics import Diagnostic, ExitCode, VqccError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from matplotlib.figure import Figure

__all__ = ["check_figure", "save_figure"]

# No dates, versions or random identifiers: bytes depend on the data and on matplotlib alone.
_METADATA: dict[str, dict[str, Any]] = {"svg": {"Date": None, "Creator": None}, "png": {"Software": None}}
_STYLE = {"svg.hashsalt": "vqcc", "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8}


def check_figure(path: Path) -> None:
    """Refuse a figure that cannot be made.

    Raises VqccError: VQ0541 without matplotlib, VQ0542 for another kind of file.
    """
    if _kind(path) not in _METADATA:
        raise VqccError(
            Diagnostic(
                "VQ0542",
                f"{path}: plots are .svg or .png files",
                help=f"name the plot so, as {path.stem}.svg",
            )
        )
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        raise VqccError(
            Diagnostic(
                "VQ0541", "plots need matplotlib, which is not installed", help="pip install 'vqcc[report]'"
            ),
            exit_code=ExitCode.TOOLCHAIN,
        ) from None


def save_figure(path: Path, size: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    """Have `draw` fill a figure of `size` inches, and write it.

    Raises VqccError: VQ0541 and VQ0542 as `check_figure`, VQ0527 if the file cannot be written.
    """
    check_figure(path)
    from matplotlib import style
    from matplotlib.figure import Figure

    from vqcc.tensors.output import write_atomically

    data = io.BytesIO()
    with style.context(["default", _STYLE]), warnings.catch_warnings():
        # Names may have characters that the font lacks: they are drawn as boxes.
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        draw(figure)
        figure.savefig(data, format=_kind(path), metadata=_METADATA[_kind(path)])
    write_atomically(path, data.getvalue())


def _kind(path: Path) -> str:
    return path.suffix.lower().lstrip(".")
