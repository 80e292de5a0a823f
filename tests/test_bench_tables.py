"""Tables and sentences of results, on made-up rows: what is counted, and which row is the worst."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from vqcc.passes.choice import DATAFLOWS

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = {"op": "gemv", "level": "best", "dtype": "float16", "dataflow": "fragment"}


def random_rows() -> list[dict[str, Any]]:
    """Two algorithms, three shapes, m 1 and 16; quip-4 loses at m = 16 and one shape."""
    return [
        {
            **FIELDS, "algorithm": algorithm, "n": n, "k": k, "m": m, "predicted_us": 9.0, "us": us,
            "baseline": "cublas_fp16", "baseline_us": 15.0,
        }
        for algorithm, by_m in (
            ("aqlm-2x8", {1: (5.0, 6.0, 7.5), 16: (10.0, 10.0, 10.0)}),
            ("quip-4", {1: (10.0, 10.0, 12.5), 16: (12.5, 30.0, 10.0)}),
        )
        for m, times in by_m.items()
        for (n, k), us in zip(((1001, 4096), (2002, 8192), (3003, 1024)), times, strict=True)
    ]  # fmt: skip


def curve_rows(**changes: float) -> list[dict[str, Any]]:
    """One algorithm and shape, m 1 to 16, own and shared: steps of two percent, and a cliff after m = 8 of both."""
    found = []
    for kind in ("own", "shared"):
        for m in range(1, 17):
            bound = m if kind == "own" else min(each for each in (1, 4, 8, 16) if each >= m)
            us = 10.0 * 1.02**bound * (1.3 if bound > 8 else 1.0) * changes.get(f"{kind}{m}", 1.0)
            found.append(
                {
                    **FIELDS, "algorithm": "quip-4", "n": 4096, "k": 11008, "m": m, "kind": kind, "bound": bound,
                    "predicted_us": us, "us": us, "baseline": "cublas_fp16", "baseline_us": 15.0, "floor_us": 1.0,
                }
            )  # fmt: skip
    return found


def attention_rows() -> list[dict[str, Any]]:
    """CQ-2 of two pairs of heads, at gc, best and best with rotated keys; and two kernels that append."""
    common = {"algorithm": "cq-2", "batch": 8, "context": 1024, "baseline_us": 40.0, "floor_us": 2.0}
    attended = [
        {
            **common,
            "op": "attention_decode",
            "q_heads": 32,
            "kv_heads": heads,
            "level": level,
            "rope": rope,
            "us": us,
        }
        for heads, times in ((32, (20.0, 10.0, 30.0)), (8, (40.0, 8.0, 40.0)))
        for (level, rope), us in zip((("gc", "none"), ("best", "none"), ("best", "half")), times, strict=True)
    ]
    appended = [
        {**common, "op": "kv_append", "q_heads": 32, "kv_heads": 8, "batch": batch, "us": us}
        for batch, us in ((8, 3.0), (8, 5.0), (8, 4.0), (32, 4.5))
    ]
    return attended + appended


def overlap_rows() -> list[dict[str, Any]]:
    return [
        {**FIELDS, "algorithm": algorithm, "n": n, "k": 4096, "m": 1, "us": us, "floor_us": 1.0, **extra}
        for n in (4096, 11008)
        for algorithm, alone, after in (("aqlm-2x8", 6.0, 5.1), ("quip-2", n / 1024, n / 1024 - 0.4))
        for us, extra in ((alone, {}), (after, {"overlap": True}))
    ]


def test_random_shapes_by_preset_and_m(bench: Any) -> None:
    lines = list(bench("tables").tables(random_rows()))
    assert lines[0] == ""
    assert lines[3:] == [
        "| aqlm-2x8 | 1 | 3 | 2.50 | 2.05 to 2.95 | 2.00 | 3003 x 1024 | 100% | 1.23 to 1.77 |",
        "| aqlm-2x8 | 16 | 3 | 1.50 | 1.50 to 1.50 | 1.50 | 1001 x 4096 | 100% | 0.90 to 0.90 |",
        "| quip-4 | 1 | 3 | 1.50 | 1.23 to 1.50 | 1.20 | 3003 x 1024 | 100% | 0.74 to 0.90 |",
        "| quip-4 | 16 | 3 | 1.20 | 0.57 to 1.47 | 0.50 | 2002 x 8192 | 67% | 0.34 to 0.88 |",
    ]


def test_every_dataflow_has_a_mark(bench: Any) -> None:
    assert set(bench("tables").MARKS) == set(DATAFLOWS)


def test_runs_over_random_shapes_are_put_together(bench: Any) -> None:
    program = bench("random_shapes")
    meta = {"commit": "a", "gpu": "g", "date": "1", "command": "first"}
    earlier = {"meta": meta, "rows": [1]}
    later = {"meta": {**meta, "date": "2", "command": "second"}, "rows": [2]}
    whole = program.extended(earlier, later)
    assert whole == {"meta": {**meta, "date": "2", "command": "first && second"}, "rows": [1, 2]}
    with pytest.raises(SystemExit, match="commit"):
        program.extended(earlier, {**later, "meta": {**later["meta"], "commit": "b"}})
    shapes = program.drawn_shapes()
    assert len(set(shapes)) == len(shapes) > 100


def test_random_shapes_in_words(bench: Any) -> None:
    claims = bench("claims")
    found = dict(claims.random_shapes(random_rows()))
    assert found == {
        "random shapes": "At 3 shapes drawn at random 11 of 12 rows are faster than cuBLAS fp16 at the same m; the "
        "median is 1.50 times as fast, the worst 0.50 (quip-4 2002 x 8192 m 16).",
        "random shapes, m = 1": "At m = 1 100% are faster; the median is 1.75 times as fast, the worst 1.20 "
        "(quip-4 3003 x 1024 m 1).",
        "random shapes, m = 16": "At m = 16 83% are faster; the median is 1.50 times as fast, the worst 0.50 "
        "(quip-4 2002 x 8192 m 16).",
    }


def test_curves_by_preset_and_shape(bench: Any) -> None:
    (_, head, _, line) = bench("tables").tables(curve_rows(own5=1.5))
    assert line.count("|") == head.count("|")
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert cells[:3] == ["quip-4", "4096 x 11008", "10.2 (1.47)"]
    # Up to m = 5, down from it, and up after m = 8; the shared library has a kernel for 4, 8 and 16.
    assert cells[7:10] == ["1.53 (m = 4 to 5)", "2", "1"]
    assert cells[10:] == ["1.03", "1.15 (m = 9)", "1.52 (m = 8 to 9)", "1"]


def test_curves_without_some_m_or_a_shared_library(bench: Any) -> None:
    few = [row for row in curve_rows() if row["m"] in {1, 4}]
    (*_, line) = bench("tables").tables(few)
    assert "| 10.2 (1.47) | - | 10.8 (1.39) | - | - | - | - | - | 1.00 | 1.00 (m = 1) | - | - |" in line
    own = [row for row in curve_rows() if row["kind"] == "own"]
    (*_, line) = bench("tables").tables(own)
    assert line.endswith("| 1.33 (m = 8 to 9) | 1 | 0 | - | - | - | - |")


def test_curves_in_words(bench: Any) -> None:
    found = dict(bench("claims").curves(curve_rows(shared16=1.1)))
    assert found["curves"] == (
        "With a library for each m 8 of 16 rows are faster than cuBLAS fp16 at the same m; the median is "
        "1.12 times as fast, the worst 0.84 (quip-4 4096 x 11008 m 16)."
    )
    assert found["cliffs"] == (
        "With a library for each m 1 of 15 steps from one m to the next takes more than 1.25 times as long (1 from "
        "m = 8 to 9), the largest 1.33 times (quip-4 4096 x 11008, m = 8 to 9); none takes less than 0.9 times as "
        "long."
    )
    assert found["one library"] == (
        "One library for m 1, 4, 8 and 16 takes 1.04 times as long as a library for each m in the median, 1.15 times "
        "in the worst row (quip-4 4096 x 11008 m 9); at these m 1.00 times, 1.10 in the worst (quip-4 4096 x 11008 "
        "m 16)."
    )
    assert found["cliffs of one library"].startswith("With one library 1 of 15 steps")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "none takes less than 0.9 times as long."),
        (
            {"own4": 1.2},
            "; 1 takes less than 0.9 times as long: quip-4 4096 x 11008, m = 4 to 5 (0.85).",
        ),
        (
            {f"own{m}": 1.2 + m / 100 for m in (1, 3, 5, 7, 11, 13)},
            "; 6 take less than 0.9 times as long: among them quip-4 4096 x 11008, m = 13 to 14 (0.77), ",
        ),
    ],
)
def test_dips_in_words(bench: Any, changes: dict[str, float], words: str) -> None:
    rows = [row for row in curve_rows(**changes) if row["kind"] == "own"]
    text = bench("claims").steps(rows)
    assert words in text
    assert text.count("(0.") == min(5, len(changes))


def test_no_cliffs_in_words(bench: Any) -> None:
    rows = [row for row in curve_rows() if row["kind"] == "own" and row["m"] <= 8]
    text = bench("claims").steps(rows)
    assert text.startswith(
        "none of 7 steps from one m to the next takes more than 1.25 times as long, the largest 1.02 times ("
    )


def test_overlapping_launches(bench: Any) -> None:
    lines = list(bench("tables").tables(overlap_rows()))
    assert lines == [
        "",
        "| m = 1 | 4096 x 4096 | 11008 x 4096 |",
        "|---|---|---|",
        "| aqlm-2x8 | 6.0, overlapping 5.1 (-15%) | 6.0, overlapping 5.1 (-15%) |",
        "| quip-2 | 4.0, overlapping 3.6 (-10%) | 10.8, overlapping 10.3 (-4%) |",
    ]
    ((_, text),) = bench("claims").overlapping(overlap_rows())
    assert text == (
        "Overlapping spares 0.7 us a launch in the median, 12% of it; 0.4 us (quip-2 4096 x 4096 m 1) to 0.9 us "
        "(aqlm-2x8 4096 x 4096 m 1)."
    )


def test_attention_tables(bench: Any) -> None:
    """By heads, MHA first, each level in its column; and what appending takes, the median of contexts."""
    text = "\n".join(bench("tables").tables(attention_rows()))
    own, shared, appended = (table.splitlines() for table in text.strip().split("\n\n"))
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in (own[-1], shared[-1])]
    assert own[0].startswith("| 32/32 | batch x context | gc | sc |")
    assert cells[0] == [
        "cq-2", "8 x 1024", "20.0", "-", "-", "-", "-", "-", "10.0", "40.0", "-", "-50%", "4.00", "20%",
    ]  # fmt: skip
    assert cells[1][2] == "40.0"
    assert cells[1][-3:] == ["-80%", "5.00", "25%"]
    assert appended == [
        "| append one token | heads | batch 8 | batch 32 |",
        "|---|---|---|---|",
        "| cq-2 | 32/8 | 4.00 | 4.50 |",
    ]


def test_rotated_keys_have_a_table_of_their_own(bench: Any) -> None:
    """Algorithms side by side, beside cuDNN."""
    rotated = [row for row in attention_rows() if row.get("rope") == "half"]
    other = [{**row, "algorithm": "cq-4", "us": 80.0} for row in rotated if row["kv_heads"] == 8]
    (table,) = "\n".join(bench("tables").tables(rotated + other)).strip().split("\n\n")
    assert table.splitlines() == [
        "| rotated keys | batch x context | cq-2 | cq-4 | cuDNN fp16 | cuDNN / cq-2 | cuDNN / cq-4 |",
        "|---|---|---|---|---|---|---|",
        "| 32/32 | 8 x 1024 | 30.0 | - | 40.0 | 1.33 | - |",
        "| 32/8 | 8 x 1024 | 40.0 | 80.0 | 40.0 | 1.00 | 0.50 |",
    ]


def test_attention_claims(bench: Any) -> None:
    found = dict(bench("claims").attended(attention_rows()))
    assert found["attention against gc"] == (
        "Level best takes 65% less time than gc on average over 2 problems, 50% in the least."
    )
    assert "4.50 times as fast" in found["attention against cuDNN"]
    assert "4.00 to 5.00 times" in found["attention against cuDNN"]


def test_claims_are_made_of_the_results_that_there_are(
    bench: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    claims = bench("claims")
    for path in claims.RESULTS.glob("*.json"):
        if path.stem not in claims.LATER:
            (tmp_path / path.name).symlink_to(path)
    monkeypatch.setattr(claims, "RESULTS", tmp_path)
    without = claims.claims()
    made = {
        "gemv-random": random_rows(),
        "gemv-curves": curve_rows(),
        "gemv-overlap": overlap_rows(),
        "attention-levels": attention_rows(),
    }
    assert set(made) == set(claims.LATER)
    for name, rows in made.items():
        (tmp_path / f"{name}.json").write_text(json.dumps({"meta": {}, "rows": rows}))
    more = claims.claims()
    assert len(more) == len(without) + 3 + 4 + 1 + 2
    assert without.items() <= more.items()
