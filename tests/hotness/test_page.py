"""The tables of docs/hotness.md and docs/profile.md are those of the results files, as their programs print them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    import pytest

ROOT = Path(__file__).parent.parent.parent


def program(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "bench" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def results(name: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((ROOT / "bench" / "results" / f"{name}.json").read_text())
    return document


def test_hotness_of_presets(capsys: pytest.CaptureFixture[str]) -> None:
    page = (ROOT / "docs" / "hotness.md").read_text()
    bench, document = program("hotness"), results("hotness")
    names = list(dict.fromkeys(row["tensor"] for row in document["rows"]))
    bench.print_hot(document["rows"], names)
    bench.print_details(document["rows"], max(document["rows"], key=lambda row: row["codes"])["tensor"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2 * (len(bench.PRESETS) + 2)
    for line in lines:
        assert f"{line}\n" in page
    assert {preset for preset, _ in document["left_out"]} == {"aqlm-1x16"}


def test_speed() -> None:
    page = (ROOT / "docs" / "profile.md").read_text()
    for row in results("profile-speed")["rows"]:
        numbers = [row[key] for key in ("counting_one_core", "profile_one_core", "profile_two_cores")]
        cells = [row["codes"], *(f"{number:.2f}" for number in numbers), f"{row['peak_mib']:.0f}"]
        assert f"| {' | '.join(cells)} |\n" in page
