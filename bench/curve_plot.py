"""The plot of gemv-curves.json: microseconds over m, a panel per shape."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vqcc.report.figure import save_figure

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Row = dict[str, Any]
#: Panels beside each other.
COLUMNS = 3
#: How lines of each kind of library are drawn.
LINES = {"own": "-", "shared": ":"}
LABELS = {"own": "a library for each m", "shared": "one library for m {}"}


def save_curves(path: Path, rows: Sequence[Row], title: str) -> None:
    """Draw `rows`: a line per algorithm and kind of library, cuBLAS dashed. The same rows give the same bytes.

    Raises VqccError: VQ0541 without matplotlib, VQ0542 for another kind of file, VQ0527 if it cannot be written.
    """
    shapes = list(dict.fromkeys((row["n"], row["k"]) for row in rows))
    lines = -(-len(shapes) // COLUMNS)
    save_figure(path, (9, 0.8 + 2.6 * lines), lambda figure: _draw(figure, rows, shapes, title))


def _draw(figure: Figure, rows: Sequence[Row], shapes: Sequence[tuple[int, int]], title: str) -> None:
    columns = min(COLUMNS, len(shapes))
    panels = list(figure.subplots(-(-len(shapes) // columns), columns, squeeze=False).flat)
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    for panel, (n, k) in zip(panels, shapes, strict=False):
        _draw_panel(panel, [row for row in rows if (row["n"], row["k"]) == (n, k)], algorithms)
        panel.set_title(f"{n} x {k}", loc="left")
    for panel in panels[len(shapes) :]:
        panel.set_axis_off()
    _draw_legend(figure, rows, algorithms)
    figure.suptitle(title, fontsize=8)


def _draw_panel(panel: Axes, rows: Sequence[Row], algorithms: Sequence[str]) -> None:
    """Lines of one shape."""
    for index, algorithm in enumerate(algorithms):
        for kind, line in LINES.items():
            own = [row for row in rows if (row["algorithm"], row["kind"]) == (algorithm, kind)]
            times = sorted((row["m"], row["us"]) for row in own)
            panel.plot(*_columns(times), line, color=f"C{index}", linewidth=1)
    dense = sorted({row["m"]: row["baseline_us"] for row in rows if "baseline_us" in row}.items())
    panel.plot(*_columns(dense), "--", color="black", linewidth=1)
    batches = sorted({row["m"] for row in rows})
    panel.set_xticks([m for m in batches if m == 1 or m % 4 == 0])
    panel.set(xlabel="m", ylabel="us")
    panel.set_ylim(bottom=0)


def _draw_legend(figure: Figure, rows: Sequence[Row], algorithms: Sequence[str]) -> None:
    """Beside the panels: colours are algorithms, dashes kinds of library."""
    panel = figure.axes[0]
    for index, algorithm in enumerate(algorithms):
        panel.plot([], [], color=f"C{index}", label=algorithm)
    bounds = sorted({row["bound"] for row in rows if row["kind"] == "shared"})
    for kind, line in LINES.items():
        if any(row["kind"] == kind for row in rows):
            label = LABELS[kind].format(", ".join(map(str, bounds)))
            panel.plot([], [], line, color="gray", linewidth=1, label=label)
    if any("baseline_us" in row for row in rows):
        panel.plot([], [], "--", color="black", linewidth=1, label="cuBLAS fp16, dense weights")
    figure.legend(loc="outside lower center", ncols=4, fontsize=7, frameon=False)


def _columns(pairs: Sequence[tuple[int, float]]) -> tuple[list[int], list[float]]:
    """The first of each pair, and the second."""
    return [m for m, _ in pairs], [us for _, us in pairs]
