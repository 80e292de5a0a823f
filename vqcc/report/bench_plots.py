"""Plots of benchmark rows: a roofline, and the breakdown of levels as VQ-LLM's Fig. 14 has it."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal, get_args

from vqcc.diagnostics import Diagnostic, VqccError
from vqcc.levels import LEVELS
from vqcc.report.figure import check_figure, save_figure

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BENCH_PLOTS", "BenchPlot", "Roofs", "check_bench_plot", "save_bench_plot"]

BenchPlot = Literal["roofline", "levels"]
BENCH_PLOTS: tuple[BenchPlot, ...] = get_args(BenchPlot)

Row = dict[str, Any]
#: What bounds a kernel: bytes per second of DRAM, and operations per second of the tensor cores if known.
Roofs = tuple[float, float | None]

_MARKERS = "osD^vP*X<>"
_BASE_LEVEL = "gc"
_ELEMENT_BYTES = 2
#: Floors are rounded to hundredths of a microsecond, those of tiny kernels to none.
_LEAST_FLOOR = 0.01


def check_bench_plot(kind: BenchPlot, path: Path, levels: Collection[str]) -> None:
    """Refuse a plot that cannot be drawn of kernels of `levels`.

    Raises VqccError: VQ0541 without matplotlib, VQ0542 for another kind of file or levels without gc.
    """
    check_figure(path)
    if kind == "levels" and _BASE_LEVEL not in levels:
        message = (
            f"{path}: levels are drawn against {_BASE_LEVEL}, which is not among {', '.join(sorted(levels))}"
        )
        raise VqccError(Diagnostic("VQ0542", message, help="time a library of level gc among the others"))


def save_bench_plot(kind: BenchPlot, path: Path, rows: Sequence[Row], roofs: Roofs, title: str) -> None:
    """Draw `rows` of a results file.

    Raises VqccError: VQ0541 and VQ0542 as `check_bench_plot`, VQ0527 if the file cannot be written.
    """
    check_bench_plot(kind, path, {row["level"] for row in rows})
    if kind == "roofline":
        save_figure(path, (8, 5), lambda figure: _draw_roofline(figure, rows, roofs, title))
        return
    batches = sorted({row["m"] for row in rows})
    save_figure(
        path, (8, 0.6 + 2.6 * len(batches)), lambda figure: _draw_levels(figure, rows, batches, title)
    )


def _draw_roofline(figure: Figure, rows: Sequence[Row], roofs: Roofs, title: str) -> None:
    """Operations per second over operations per byte that must move; cuBLAS's weights are dense."""
    axes = figure.subplots()
    batches = sorted({row["m"] for row in rows})
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    dense = list({(row["n"], row["k"], row["m"]): row for row in rows if "baseline_us" in row}.values())
    reached = []
    for row in rows:
        floor = max(row["floor_us"], _LEAST_FLOOR)
        place = _operations(row) / (1e-6 * floor * roofs[0]), _operations(row) / row["us"]
        _draw_point(axes, place, _marker(batches, row["m"]), f"C{algorithms.index(row['algorithm'])}", "full")
        reached.append(place[0])
    for row in dense:
        place = _dense_intensity(row), _operations(row) / row["baseline_us"]
        _draw_point(axes, place, _marker(batches, row["m"]), "black", "none")
        reached.append(place[0])
    _draw_roofs(axes, (min(reached) / 2, max(reached) * 2), roofs)
    for index, algorithm in enumerate(algorithms):
        axes.plot([], [], "o", color=f"C{index}", markersize=4, label=algorithm)
    if dense:
        label = "cuBLAS fp16, dense weights"
        axes.plot([], [], "o", color="black", markersize=4, fillstyle="none", label=label)
    for m in batches:
        axes.plot([], [], _marker(batches, m), color="gray", markersize=4, label=f"m = {m}")
    axes.set(xscale="log", yscale="log", xlabel="operations per byte that must move")
    axes.set_ylabel("10^12 operations per second", parse_math=False)
    axes.set_title(title, parse_math=False)
    axes.legend(fontsize=6, frameon=False, loc="upper left")


def _draw_point(
    axes: Axes, place: tuple[float, float], marker: str, color: str, fill: Literal["full", "none"]
) -> None:
    """A kernel at operations per byte and operations per microsecond."""
    axes.plot(place[0], place[1] * 1e-6, marker, color=color, markersize=4, fillstyle=fill)


def _draw_roofs(axes: Axes, ends: tuple[float, float], roofs: Roofs) -> None:
    bandwidth, peak = roofs
    label = f"DRAM, {bandwidth * 1e-12:.2f} TB/s"
    axes.plot(ends, [bandwidth * end * 1e-12 for end in ends], color="gray", linewidth=1, label=label)
    if peak is not None:
        label = "tensor cores, fp16"
        axes.plot(ends, [peak * 1e-12] * 2, color="gray", linewidth=1, linestyle="--", label=label)
    axes.set_xlim(*ends)


def _operations(row: Row) -> float:
    return 2.0 * float(row["m"] * row["n"] * row["k"])


def _dense_intensity(row: Row) -> float:
    m, n, k = float(row["m"]), float(row["n"]), float(row["k"])
    return _operations(row) / (_ELEMENT_BYTES * (n * k + m * n + m * k))


def _marker(batches: Sequence[int], m: int) -> str:
    return _MARKERS[batches.index(m) % len(_MARKERS)]


def _draw_levels(figure: Figure, rows: Sequence[Row], batches: Sequence[int], title: str) -> None:
    """A panel per m, a group of bars per algorithm: latency against gc, mean over shapes."""
    panels = figure.subplots(len(batches), 1, sharex=True, squeeze=False)[:, 0]
    for panel, m in zip(panels, batches, strict=True):
        own = [row for row in rows if row["m"] == m]
        _draw_bars(panel, own)
        panel.set_title(f"m = {m}", loc="left")
    panels[0].legend(ncols=len(LEVELS) + 1, fontsize=6, frameon=False, loc="upper right")
    figure.suptitle(title, fontsize=8)


def _draw_bars(panel: Axes, rows: Sequence[Row]) -> None:
    algorithms = list(dict.fromkeys(row["algorithm"] for row in rows))
    present = {row["level"] for row in rows}
    names: list[str] = [level for level in LEVELS if level in present]
    names += ["cuBLAS"] if any("baseline_us" in row for row in rows) else []
    width = 0.8 / len(names)
    for index, name in enumerate(names):
        heights = [_relative(rows, algorithm, name) for algorithm in algorithms]
        places = [group + (index - (len(names) - 1) / 2) * width for group in range(len(algorithms))]
        panel.bar(places, heights, width, label=name)
    panel.set_xticks(range(len(algorithms)), algorithms)
    panel.axhline(1, color="black", linewidth=0.5)
    panel.set_ylabel(f"latency / {_BASE_LEVEL}")
    panel.margins(y=0.3)  # room for the legend
    panel.set_ylim(bottom=0)


def _relative(rows: Sequence[Row], algorithm: str, name: str) -> float:
    """Mean over shapes of the latency against gc; NaN where a level does not exist."""
    own = [row for row in rows if row["algorithm"] == algorithm]
    base = {(row["n"], row["k"]): row["us"] for row in own if row["level"] == _BASE_LEVEL}
    if name == "cuBLAS":
        ratios = [
            row["baseline_us"] / row["us"]
            for row in own
            if row["level"] == _BASE_LEVEL and "baseline_us" in row
        ]
    else:
        ratios = [
            row["us"] / base[row["n"], row["k"]]
            for row in own
            if row["level"] == name and (row["n"], row["k"]) in base
        ]
    return fmean(ratios) if ratios else float("nan")
