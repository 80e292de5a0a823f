"""Kernels whose op counts their cycles: what times their prediction is made of, by the GPU's measured numbers."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from dealing import dealt
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix import changed
from problems import problem

from vqcc.gpus.estimates import ESTIMATES
from vqcc.passes.phases import plan_phase_cost

if TYPE_CHECKING:
    from vqcc.levels import Dataflow
    from vqcc.plan import Plan

#: Kernels in which parts of a row are added up.
SIZES: dict[Dataflow, dict[str, int]] = {
    "score": {"n": 1024, "k": 16384, "m": 1},
    "fragment": {"n": 256, "k": 16384, "m": 16},
}
#: Whether a kernel takes longer or less long as a number grows.
LONGER = {
    "dram_bytes_per_second": False,
    "l2_bytes_per_cycle": False,
    "sustained_hertz": False,
    "launch_seconds": True,
    "dram_latency_cycles": True,
    "multiply_cycles": True,
    "integer_cycles": True,
}
#: Numbers by which a dataflow's cycles are not counted: its look-ups and multiplies are fitted as a whole.
UNUSED = {"score": {"dram_latency_cycles", "multiply_cycles", "integer_cycles"}, "fragment": set()}


def predicted(dataflow: Dataflow, **facts: float) -> tuple[Plan, float]:
    """The prediction for one plan, its numbers read against a GPU with other `facts`."""
    task = problem("aqlm-2x8", level="best", **SIZES[dataflow])
    plan = plan_phase_cost(replace(task, gpu=changed("h200", **facts)), dealt(task, dataflow))
    assert plan.predicted_us is not None
    return plan, plan.predicted_us


def value(name: str) -> float:
    return float(changed("h200").facts()[name].value)


@pytest.mark.parametrize("dataflow", SIZES)
@pytest.mark.parametrize("name", LONGER)
@settings(max_examples=6, deadline=None)
@given(factor=st.floats(1.5, 8))
def test_a_number_moves_the_prediction_its_way(dataflow: Dataflow, name: str, factor: float) -> None:
    slow = 1.0 if LONGER[name] else -1.0
    by_exponent = (-slow, 0.0, slow)
    fast, same, slow_us = (predicted(dataflow, **{name: factor**e * value(name)})[1] for e in by_exponent)
    assert fast <= same <= slow_us
    assert predicted(dataflow)[1] == same
    much = predicted(dataflow, **{name: 50**slow * value(name)})[1]
    assert (much == same) if name in UNUSED[dataflow] else (much > same)


@pytest.mark.parametrize("dataflow", SIZES)
def test_a_launch_is_added_as_it_is(dataflow: Dataflow) -> None:
    _, base = predicted(dataflow)
    assert predicted(dataflow, launch_seconds=value("launch_seconds") + 5e-6)[1] == pytest.approx(
        base + 5, abs=0.02
    )


@pytest.mark.parametrize("dataflow", SIZES)
def test_the_decision_names_what_calibration_measures(dataflow: Dataflow) -> None:
    plan, _ = predicted(dataflow)
    decision = next(each for each in reversed(plan.decisions) if each.name == "predicted_us")
    assert set(decision.facts) >= set(ESTIMATES)
    assert "boost_hertz" not in decision.facts
    assert decision.inputs["launch_us"] == round(1e6 * value("launch_seconds"), 2)
    assert decision.inputs["sustained_hertz"] == value("sustained_hertz")
