"""Plots of benchmark rows: every kernel is a point, every level a bar; refused before anything is timed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

from vqcc.diagnostics import VqccError
from vqcc.report.bench_plots import BENCH_PLOTS, save_bench_plot

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.report.bench_plots import BenchPlot

SVG = "{http://www.w3.org/2000/svg}"
ROOFS = (4e12, 9e14)


def rows(levels: tuple[str, ...], baseline: bool = True) -> list[dict[str, Any]]:
    shapes = [(m, n) for m in (1, 16) for n in (1024, 2048)]
    cublas = {"baseline": "cublas_fp16", "baseline_us": 9.0} if baseline else {}
    return [
        {"algorithm": name, "level": level, "m": m, "n": n, "k": 512, "us": 7.0, "floor_us": 2.0, **cublas}
        for name in ("vq-4-8-1", "aqlm-3")
        for level in levels
        for m, n in shapes
    ]


def points(path: Path) -> int:
    """Single markers of a plot; every tick of an axis has one too."""
    return sum(1 for _ in ET.parse(path).getroot().iter(SVG + "use"))


@pytest.mark.parametrize("baseline", [True, False])
def test_roofline_has_a_point_per_kernel(tmp_path: Path, baseline: bool) -> None:
    one, two = tmp_path / "one.svg", tmp_path / "two.svg"
    save_bench_plot("roofline", one, rows(("best",), baseline), ROOFS, "gemv")
    save_bench_plot("roofline", two, rows(("best", "sc"), baseline), ROOFS, "gemv")
    assert points(two) - points(one) == len(rows(("sc",)))
    text = one.read_text()
    assert all(label in text for label in ("DRAM, 4.00 TB/s", "tensor cores, fp16", "aqlm-3", "m = 16"))
    assert ("cuBLAS fp16, dense weights" in text) == baseline


def test_roofline_without_a_known_peak(tmp_path: Path) -> None:
    save_bench_plot("roofline", tmp_path / "plot.svg", rows(("best",)), (4e12, None), "gemv")
    assert "tensor cores" not in (tmp_path / "plot.svg").read_text()


def test_levels_have_a_panel_per_m(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    save_bench_plot("levels", path, rows(("gc", "sc", "best")), ROOFS, "a_$1$")
    root = ET.parse(path).getroot()
    assert {"axes_1", "axes_2"} <= {node.get("id") for node in root.iter(SVG + "g")}
    assert "axes_3" not in {node.get("id") for node in root.iter(SVG + "g")}
    assert "cuBLAS" in path.read_text()


@pytest.mark.parametrize("kind", BENCH_PLOTS)
def test_the_same_rows_give_the_same_bytes(tmp_path: Path, kind: BenchPlot) -> None:
    made = []
    for name in ("a.png", "b.png"):
        save_bench_plot(kind, tmp_path / name, rows(("gc", "best")), ROOFS, "gemv")
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]


def test_levels_need_a_level_to_be_drawn_against(tmp_path: Path) -> None:
    with pytest.raises(VqccError) as caught:
        save_bench_plot("levels", tmp_path / "plot.svg", rows(("best", "sc")), ROOFS, "gemv")
    (found,) = caught.value.diagnostics
    assert (found.code, found.help) == ("VQ0542", "time a library of level gc among the others")
    assert "not among best, sc" in found.message
    assert not list(tmp_path.iterdir())
