"""Predicted times rank plans: more work takes longer, a faster machine less, and every resource counts."""

from __future__ import annotations

import math
from dataclasses import asdict, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix import PRESETS, changed
from plans import EVERY_STRATEGY, forced, hot_profile, is_legal
from problems import problem, problems

from vqcc.levels import STRATEGIES, Strategy
from vqcc.passes.cost import count, plan_cost, predict
from vqcc.plan import Placement, Plan, Split
from vqcc.problem import Boundaries

if TYPE_CHECKING:
    from vqcc.passes.cost import Counts
    from vqcc.problem import Problem

ALIGNED = Strategy("slack", registers=True, codebook_centric=True, fusion="aligned")
strategies = st.sampled_from(list(EVERY_STRATEGY.values()))


def time_of(task: Problem, strategy: Strategy) -> float:
    found = forced(task, strategy).predicted_us
    assert found is not None
    return found


def counts(task: Problem, strategy: Strategy) -> Counts:
    return count(task, forced(task, strategy))


@settings(max_examples=200)
@given(problems(), strategies, st.booleans())
def test_times_are_positive_and_finite(task: Problem, strategy: Strategy, has_profile: bool) -> None:
    if not is_legal(task, strategy):
        return
    task = replace(task, profile=(hot_profile(task),) if has_profile else ())
    plan = forced(task, strategy)
    found = count(task, plan)
    assert all(math.isfinite(each) and each >= 0 for each in asdict(found).values())
    assert 0 < predict(task, plan, found) < 10
    assert plan.predicted_us == round(1e6 * predict(task, plan, found), 2) > 0


@settings(max_examples=200)
@given(problems(), strategies)
def test_every_byte_is_moved_once_at_least(task: Problem, strategy: Strategy) -> None:
    if not is_legal(task, strategy):
        return
    found = counts(task, strategy)
    n, k = task.op.weight_shape
    algorithm, m = task.algorithm, task.variant.sizes["m"]
    codes = n * (k // algorithm.vector_size) * algorithm.residuals * algorithm.code_bits / 8
    rows = 2 * m * (n + k)
    assert found.dram_bytes >= codes + rows + algorithm.stored_codebook_bytes(n, k)
    assert found.l2_bytes >= codes
    lookups = n * (k // algorithm.vector_size) * algorithm.residuals
    assert found.instructions >= lookups / 32
    seconds = predict(task, forced(task, strategy), found)
    assert seconds > found.dram_bytes / float(task.gpu.dram_bytes_per_second.value) / 1.5


@pytest.mark.parametrize("strategy", [*STRATEGIES.values(), ALIGNED], ids=[*STRATEGIES, "aligned"])
@pytest.mark.parametrize("preset", [name for name in PRESETS if name != "aqlm-1x16"])
def test_more_work_takes_longer(preset: str, strategy: Strategy) -> None:
    def time(n: int, k: int, m: int) -> float:
        return time_of(problem(preset, n=n, k=k, m=m), strategy)

    for m in (1, 16):
        assert time(1024, 4096, m) < time(4096, 4096, m) < time(16384, 4096, m)
        assert time(4096, 1024, m) < time(4096, 4096, m) < time(4096, 16384, m)
    assert time(4096, 4096, 1) < time(4096, 4096, 16)


@pytest.mark.parametrize("strategy", [*STRATEGIES.values(), ALIGNED], ids=[*STRATEGIES, "aligned"])
def test_a_faster_machine_takes_no_longer(strategy: Strategy) -> None:
    """The plan stays the same, its numbers are read against another machine."""
    task = problem("aqlm-2x8", n=11008, k=4096)
    plan = forced(task, strategy)
    found = count(task, plan)
    base = predict(task, plan, found)
    for name in ("dram_bytes_per_second", "boost_hertz", "tensor_flops_fp16"):
        value = 2 * float(task.gpu.facts()[name].value)
        assert predict(replace(task, gpu=changed("h200", **{name: value})), plan, found) <= base
    slower = changed("h200", dram_bytes_per_second=float(task.gpu.dram_bytes_per_second.value) / 100)
    assert predict(replace(task, gpu=slower), plan, found) > 2 * base


def test_where_look_ups_go() -> None:
    """All to global memory, none, or what is cold."""
    task = problem("vq-4-8-1", n=4096, k=4096)
    everywhere, nowhere = counts(task, STRATEGIES["gc"]), counts(task, STRATEGIES["sc"])
    assert everywhere.gather_wavefronts > 0 == everywhere.shared_wavefronts
    assert nowhere.gather_wavefronts == 0 < nowhere.shared_wavefronts
    half = replace(task, boundaries=Boundaries(shared=128))
    some = counts(half, STRATEGIES["o1"])
    assert 0 < some.gather_wavefronts < everywhere.gather_wavefronts
    assert 0 < some.shared_wavefronts < nowhere.shared_wavefronts
    hot = counts(replace(half, profile=(hot_profile(task, 8),)), STRATEGIES["o1"])
    assert hot.gather_wavefronts < some.gather_wavefronts


def test_what_registers_spare() -> None:
    task = problem("vq-4-8-1", n=4096, k=4096)
    task = replace(task, profile=(hot_profile(task, 8),))
    none, some = (
        counts(replace(task, boundaries=Boundaries(registers, 256)), STRATEGIES["o2"]) for registers in (0, 8)
    )
    assert some.shared_wavefronts < none.shared_wavefronts
    assert some.instructions > none.instructions


def with_copies(plan: Plan, copies: int) -> Plan:
    assert plan.placement is not None
    place = plan.placement
    size = place.shared_book_bytes // place.copies * copies
    return replace(plan, placement=Placement((0,), place.n_shared, 1, size, copies))


@pytest.mark.parametrize("preset", ["vq-4-8-1", "vq-2-8-1", "quip-2", "aqlm-2x8"])
def test_more_copies_meet_in_fewer_banks(preset: str) -> None:
    task = problem(preset, n=22016, k=8192)
    plan = forced(task, STRATEGIES["o1"])
    copies = [each for each in (1, 2, 4, 8, 16, 32) if each * task.algorithm.entry_stride <= 128]
    found = [count(task, with_copies(plan, number)).shared_wavefronts for number in copies]
    assert found[-1] < 0.7 * found[0]
    # Two copies of a narrow entry may spare nothing.
    assert all(more <= 1.06 * fewer for fewer, more in pairwise(found))


def test_a_split_spares_books_and_adds_sums() -> None:
    task = problem("gptvq-2", n=4096, k=4096, m=16)
    whole, parted = (forced(task, ALIGNED, split=split) for split in (Split(), Split(4, 1)))
    assert whole.tile is not None
    assert parted.tile is not None
    assert whole.placement is not None
    assert parted.placement is not None
    assert parted.placement.shared_bytes < whole.placement.shared_bytes
    assert parted.tile.workspace_bytes > whole.tile.workspace_bytes
    assert count(task, parted).tensor_multiplies == count(task, whole).tensor_multiplies


def test_stages_are_done_apart_on_tensor_cores() -> None:
    one, two = (counts(problem(preset, n=256, k=4096, m=16), ALIGNED) for preset in ("quip-2", "quip-4"))
    assert two.tensor_multiplies == 2 * one.tensor_multiplies > 0


def test_the_decision_has_the_numbers() -> None:
    task = problem("aqlm-2x8", n=11008, k=4096)
    plan = forced(task, STRATEGIES["o1"])
    decision = plan_cost(task, plan).decisions[-1]
    assert (decision.name, decision.value) == ("predicted_us", plan.predicted_us)
    assert decision.formula
    found = asdict(count(task, plan))
    assert {name: decision.inputs[name] for name in found} == {
        name: round(value) for name, value in found.items()
    }
    assert decision.reason.startswith("bound by ")
    assert f"{decision.reason.removeprefix('bound by ')}_us" in decision.inputs
