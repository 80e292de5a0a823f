"""Options of `vqcc bench`; tests/runtime runs it on a stand-in for a device."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from command import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("plot", "words"),
    [
        ("roofline", "write roofline=FILE or levels=FILE"),
        ("roofline=", "write roofline=FILE or levels=FILE"),
        ("rofline=x.svg", "roofline"),
        ("bars=x.svg", "write roofline=FILE or levels=FILE"),
    ],
)
def test_plots_are_named_by_kind_and_file(tmp_path: Path, plot: str, words: str) -> None:
    done = run("bench", tmp_path, "--plot", plot)
    assert done.exit_code == 2
    assert words in " ".join(done.stderr.split())


@pytest.mark.parametrize("plot", ["roofline=plot.pdf", "levels=plot.svg"])
def test_plots_are_refused_before_a_device_is_opened(
    compiled: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, plot: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("bench", compiled, "--plot", plot, "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0542"])
    assert not list(tmp_path.iterdir())
