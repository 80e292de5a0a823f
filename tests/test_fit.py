"""Fitting: what made-up times follow from is found again, and the model is left as it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.ops.gemv import fragment_cycles

if TYPE_CHECKING:
    import pytest

RESULTS = Path(__file__).parent.parent / "bench" / "results" / "h200" / "gemv-candidates.json"


def fragment_rows() -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(RESULTS.read_text())["rows"]
    return [
        row for row in rows if row["dataflow"] == "fragment" and row["algorithm"] in {"vq-4-8-1", "gptvq-2"}
    ]


def test_constants_that_made_the_times_are_found(bench: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of a model with other constants: the fit comes back to where predictions are those times."""
    fit = bench("fit")
    cases = list(fit.cases_of(fragment_rows(), "h200"))
    assert len(cases) > 80
    model = fit.Model("fragment")
    now = np.ones(len(model.values))
    before = model.predict(now, cases)
    with monkeypatch.context() as patch:
        patch.setattr(fragment_cycles, "START_CYCLES", 4 * fragment_cycles.START_CYCLES)
        patch.setattr(fragment_cycles, "VISIT_CYCLES", fragment_cycles.VISIT_CYCLES / 2)
        for case in cases:
            case.row["us"] = case.predicted_us()
    made = np.log([case.row["us"] for case in cases])
    off_before, off_after = (
        np.sqrt(np.mean((np.log(predicted) - made) ** 2))
        for predicted in (before, model.predict(fit.fit(model, cases), cases))
    )
    assert off_before > 0.1
    assert off_after < off_before / 5
    assert (model.predict(now, cases) == before).all()


def test_a_tile_that_is_no_more_is_told(bench: Any, capsys: pytest.CaptureFixture[str]) -> None:
    fit = bench("fit")
    row = fragment_rows()[0]
    row["tile"] = {**row["tile"], "kBlocks": 12345}
    assert list(fit.cases_of([row], "h200")) == []
    assert "the op has no such tile" in capsys.readouterr().out
