"""bench/compile_speed.py measures what it says, and pages have the figures of its results file."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from model_specs import linear, model_text

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "bench" / "results" / "compile-speed.json"
#: As they might be.
COUNTS = {"cold": (5, 0), "kernels cached, bundle new": (0, 5), "unchanged": (0, 0)}
ROWS: list[dict[str, Any]] = [
    {"what": "vqcc --help", "seconds": 0.072, "max": 0.088},
    *(
        {
            "what": f"compile llama-3-8b, {state}",
            "seconds": 12.345,
            "max": 12.5,
            "model": "llama-3-8b",
            "state": state,
            "libraries": 5,
            "compiled": compiled,
            "found": found,
        }
        for state, (compiled, found) in COUNTS.items()
    ),
]


def missing(program: ModuleType, rows: list[dict[str, Any]]) -> list[str]:
    """What pages should have of results and have not."""
    performance, models = ((ROOT / "docs" / f"{name}.md").read_text() for name in ("performance", "models"))
    block = "\n".join(map(program.line, rows))
    table = "\n".join(program.model_table(rows))
    summary = program.model_summary(rows, "llama-3-8b")
    found = [] if f"\n```\n{block}\n```\n" in performance else [block]
    found += [] if f"\n\n{table}\n\n" in models else [table]
    return found + ([] if f"\n{summary}\n" in models else [summary])


def test_pages_have_the_results(bench: Callable[[str], ModuleType]) -> None:
    """Once there are any; the page names their file then, and only then."""
    program = bench("compile_speed")
    models = (ROOT / "docs" / "models.md").read_text()
    assert (f"`{RESULTS.relative_to(ROOT)}`" in models) == RESULTS.exists()
    if RESULTS.exists():
        rows = json.loads(RESULTS.read_text())["rows"]
        assert missing(program, rows) == []
        found = {row["state"]: row for row in rows if row.get("model") == "llama-3-8b"}
        sources = found["cold"]["compiled"]
        counts = {state: (row["compiled"], row["found"]) for state, row in found.items()}
        assert counts == dict(zip(COUNTS, ((sources, 0), (0, sources), (0, 0)), strict=True))
        assert found["unchanged"]["seconds"] < 1
    assert len(missing(program, ROWS)) == 3


def test_lines_and_tables(bench: Callable[[str], ModuleType]) -> None:
    program = bench("compile_speed")
    assert program.line(ROWS[0]) == f"vqcc --help{' ' * 49}  0.072 s  (at most 0.088)"
    assert list(program.model_table(ROWS)) == [
        "| model | compiled | seconds | at most | sources compiled | found in the cache |",
        "|---|---|---|---|---|---|",
        "| llama-3-8b | cold | 12.35 | 12.50 | 5 | 0 |",
        "| llama-3-8b | kernels cached, bundle new | 12.35 | 12.50 | 0 | 5 |",
        "| llama-3-8b | unchanged | 12.35 | 12.50 | 0 | 0 |",
    ]
    summary = "  5 libraries in 12.3 s: 5 sources compiled, 0 found in the cache"
    assert program.model_summary(ROWS, "llama-3-8b") == summary


@pytest.mark.full
def test_a_model_is_measured(bench: Callable[[str], ModuleType], tmp_path: Path) -> None:
    spec = tmp_path / "small.yaml"
    layers = {name: linear(n, 64, algorithm="vq-4-4-1") for name, n in (("q", 40), ("down", 64))}
    spec.write_bytes(model_text(layers))
    program = bench("compile_speed")
    rows = list(program.model([sys.executable, "-m", "vqcc"], spec, runs=1))
    assert [(row["state"], row["libraries"], row["compiled"], row["found"]) for row in rows] == [
        ("cold", 2, 2, 0),
        ("kernels cached, bundle new", 2, 0, 2),
        ("unchanged", 2, 0, 0),
    ]
    assert all(0 < row["seconds"] <= row["max"] for row in rows)
