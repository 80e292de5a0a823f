"""Plots of profiles like VQ-LLM's Figs. 8 and 9, to SVG or PNG; the same profile gives the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, VqccError
from vqcc.report.figure import check_figure, save_figure
from vqcc.report.text import counted, printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from vqcc.hotness import TensorProfile

__all__ = ["check_plot", "save_plot"]

_MOST_TENSORS = 8
# Entries that the heat map has room for, one pixel or more each.
_MOST_COLUMNS = 512


def check_plot(path: Path, tensors: int) -> None:
    """Refuse a plot that cannot be drawn. Raises VqccError: VQ0541 without matplotlib, VQ0542 for what is asked."""
    if tensors > _MOST_TENSORS:
        message = f"a plot has room for {_MOST_TENSORS} tensors, not {tensors}"
        raise VqccError(Diagnostic("VQ0542", message, help="choose some with --tensor NAME"))
    check_figure(path)


def save_plot(path: Path, profiles: Sequence[TensorProfile]) -> None:
    """Draw a row for each of `profiles`: frequencies as in Fig. 8, parts as in Fig. 9 where they were counted.

    Raises VqccError: VQ0541 and VQ0542 as `check_plot`, VQ0527 if the file cannot be written.
    """
    check_plot(path, len(profiles))

    def draw(figure: Figure) -> None:
        axes = figure.subplots(len(profiles), 2, squeeze=False)
        for row, profile in zip(axes, profiles, strict=True):
            _draw_frequencies(row[0], profile)
            _draw_parts(row[1], profile)

    save_figure(path, (10, 0.4 + 2.6 * len(profiles)), draw)


def _draw_frequencies(axes: Axes, profile: TensorProfile) -> None:
    """Draw look-ups of the entries of each table of book 0, most frequent first, with mean and mean + 3 sigma."""
    import numpy as np

    books, tables, entries = profile.counts.shape
    for table, counts in enumerate(profile.counts[0]):
        color = f"C{table}"
        label = f"table {table}: " if tables > 1 else ""
        mean, limit = float(counts.mean()), float(counts.mean() + 3 * counts.std())
        # An outline of at most a few hundred steps looks the same as one of 65,536.
        places = np.unique(np.geomspace(1, entries, 400).astype(int)) - 1
        axes.step(places + 1, -np.sort(-counts)[places], where="mid", color=color, linewidth=1)
        axes.axhline(mean, color=color, linewidth=0.8, linestyle="--", label=f"{label}mean {mean:,.0f}")
        axes.axhline(
            limit, color=color, linewidth=0.8, linestyle=":", label=f"{label}mean + 3 sigma {limit:,.0f}"
        )
    axes.set_xscale("log")
    axes.set_xlim(1, entries)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("entry, most frequent first" + (f" (book 0 of {books:,})" if books > 1 else ""))
    axes.set_ylabel("look-ups")
    if tables <= 4:
        axes.legend(fontsize=6, frameon=False)
    name = profile.name if len(profile.name) <= 60 else profile.name[:57] + "..."
    axes.set_title(f"{printable(name)}, {profile.algorithm.label}", parse_math=False)


def _draw_parts(axes: Axes, profile: TensorProfile) -> None:
    """Draw look-ups of entries (columns) by parts (rows) over their mean in the part: light ones are frequent."""
    import numpy as np
    from matplotlib.ticker import MaxNLocator

    if profile.parts is None:
        axes.set_axis_off()
        return
    counts = profile.parts.first_book[:, 0]
    entries = counts.shape[1]
    shown = np.arange(entries)
    which = "entry"
    if entries > _MOST_COLUMNS:
        shown = np.sort(profile.orders()[0, 0, :_MOST_COLUMNS])
        which = f"the {_MOST_COLUMNS} most frequent of {entries:,} entries, in the codebook's order"
    share = counts[:, shown] / np.maximum(counts.mean(axis=1, keepdims=True), 1e-9)
    top = max(1.0, float(np.quantile(share, 0.995)))
    image = axes.imshow(share, aspect="auto", cmap="gray", vmin=0, vmax=top, interpolation="nearest")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.set_xlabel(which)
    axes.set_ylabel(f"part of {counted(profile.parts.rows, 'row')}")
    table = f"table 0 of {profile.counts.shape[1]}, " if profile.counts.shape[1] > 1 else ""
    axes.set_title(f"{table}look-ups over the part's mean")
    axes.figure.colorbar(image, ax=axes, pad=0.01)
