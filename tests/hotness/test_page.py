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


def test_which_codes_reach_a_gigabyte_per_second() -> None:
    """The page names them, and what the others miss."""
    page = " ".join((ROOT / "docs" / "profile.md").read_text().split())
    speeds = {row["preset"]: row["profile_one_core"] for row in results("profile-speed")["rows"]}
    assert {preset for preset, speed in speeds.items() if speed >= 1} == {"aqlm-3", "quip-4"}
    assert "reaches 1 GB/s on one core only for uint16 codes of 4,096 entries and E8P" in page
    assert 0.98 <= speeds["vq-4-8-1"] < 1
    assert f"by {1 - speeds['aqlm-1x16']:.0%} for 65,536 entries".replace("%", " %") in page
    assert 0.45 <= speeds["gptvq-2"] <= 0.55
