"""`vqcc calibrate` where there is no device; tests/runtime runs it on a stand-in for one."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from command import run

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_without_a_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    done = run("calibrate", "-o", tmp_path / "gpu.yaml", "--json")
    assert (done.exit_code, done.codes) == (5, ["VQ0806"])
    assert "as they are" in done.json["diagnostics"][0]["help"], "what goes without it"
    assert not list(tmp_path.iterdir())


def test_an_unknown_gpu_is_told_before_a_device_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    done = run("calibrate", "--gpu", "h20")
    assert done.exit_code == 1
    assert "did you mean 'h200'?" in done.stderr
