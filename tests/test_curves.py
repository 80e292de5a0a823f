"""Curves of latency over m, on made-up rows: which steps are cliffs or dips, and what is drawn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest

if TYPE_CHECKING:
    from pathlib import Path

SVG = "{http://www.w3.org/2000/svg}"


def rows_of(times: dict[int, float], **fields: Any) -> list[dict[str, Any]]:
    """The rows of one curve, of microseconds by m."""
    row = {"algorithm": "quip-4", "n": 4096, "k": 4096, "kind": "own"} | fields
    return [{**row, "m": m, "us": us, "bound": m, "baseline_us": 12.0} for m, us in times.items()]


def test_steps_are_cliffs_past_a_quarter(bench: Any) -> None:
    module = bench("cliffs")
    (curve,) = module.cliffs(rows_of({1: 8.0, 2: 10.0, 3: 12.6, 4: 16.0, 5: 16.0}))
    assert [(step.m, step.ratio) for step in curve.steps] == [
        (1, 1.25),
        (2, pytest.approx(1.26)),
        (3, pytest.approx(16 / 12.6)),
        (4, 1.0),
    ]
    assert [step.m for step in curve.cliffs] == [2, 3]
    assert curve.largest.m == 3
    assert curve.dips == ()


def test_a_library_for_more_rows_that_is_faster_is_a_dip(bench: Any) -> None:
    (curve,) = bench("cliffs").cliffs(rows_of({8: 10.0, 9: 9.0, 10: 8.0, 11: 7.9}))
    assert [(step.m, step.ratio) for step in curve.dips] == [(9, pytest.approx(8 / 9))]
    assert curve.cliffs == ()
    assert curve.largest.m == 10


def test_a_step_needs_both_of_its_m(bench: Any) -> None:
    module = bench("cliffs")
    (curve,) = module.cliffs(rows_of({16: 40.0, 1: 5.0, 2: 5.5, 4: 20.0, 15: 30.0}))
    assert [step.m for step in curve.steps] == [1, 15]
    assert [step.m for step in curve.cliffs] == [15]
    assert module.cliffs(rows_of({1: 5.0, 4: 20.0})) == []
    assert module.cliffs([]) == []


def test_curves_are_apart_by_algorithm_shape_and_kind(bench: Any) -> None:
    rows = [
        *rows_of({1: 5.0, 2: 10.0}),
        *rows_of({1: 10.0, 2: 11.0}, kind="shared"),
        *rows_of({1: 5.0, 2: 4.0}, k=11008),
        *rows_of({1: 20.0, 2: 20.0}, algorithm="gptvq-2"),
    ]
    rows.sort(key=lambda row: row["m"])  # as if they were measured in turns
    found = {
        (curve.algorithm, curve.n, curve.k, curve.kind): (len(curve.cliffs), len(curve.dips))
        for curve in bench("cliffs").cliffs(rows)
    }
    assert found == {
        ("quip-4", 4096, 4096, "own"): (1, 0),
        ("quip-4", 4096, 4096, "shared"): (0, 0),
        ("quip-4", 4096, 11008, "own"): (0, 1),
        ("gptvq-2", 4096, 4096, "own"): (0, 0),
    }


def drawn(count: int) -> list[dict[str, Any]]:
    """Rows of so many shapes."""
    times = {m: 4.0 + m for m in range(1, 17)}
    return [
        row
        for k in range(1024, 1024 * (count + 1), 1024)
        for algorithm in ("quip-4", "aqlm-2x8")
        for kind in ("own", "shared")
        for row in rows_of(times, k=k, algorithm=algorithm, kind=kind)
    ]


@pytest.mark.parametrize("count", [1, 3, 4])
def test_curves_have_a_panel_per_shape(bench: Any, tmp_path: Path, count: int) -> None:
    path = tmp_path / "curves.svg"
    bench("curve_plot").save_curves(path, drawn(count), "a_$1$")
    ids = {node.get("id") for node in ET.parse(path).getroot().iter(SVG + "g")}
    axes = {name for name in ids if name is not None and name.startswith("axes_")}
    assert len(axes) == {1: 1, 3: 3, 4: 6}[count], "those past the last shape are empty"
    text = path.read_text()
    assert all(f"4096 x {1024 * (number + 1)}" in text for number in range(count))
    assert all(label in text for label in ("quip-4", "a library for each m", "cuBLAS fp16, dense weights"))


def test_without_cublas_it_is_not_in_the_legend(bench: Any, tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "baseline_us"} for row in drawn(1)]
    bench("curve_plot").save_curves(tmp_path / "curves.svg", rows, "gemv")
    assert "cuBLAS" not in (tmp_path / "curves.svg").read_text()


def test_the_same_rows_give_the_same_bytes(bench: Any, tmp_path: Path) -> None:
    made = []
    for name in ("a.svg", "b.svg"):
        bench("curve_plot").save_curves(tmp_path / name, drawn(2), "gemv")
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]
