"""Tuning without a device: a stand-in says what each candidate takes, and compile makes what took least."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from libraries import FakeToolchain
from tuned import CACHE, FakeBench, build, kernels, problems_of, run

import vqcc.tuning.choosing
import vqcc.tuning.lock
import vqcc.tuning.session
from vqcc.building import build_library
from vqcc.diagnostics import Diagnostic, VqccError
from vqcc.flow import CACHES
from vqcc.ops.attention.cluster_tile import ClusterTile
from vqcc.passes.agreement import Agreed
from vqcc.passes.cache.choice import cache_contenders
from vqcc.passes.cache.pipeline import estimate
from vqcc.passes.choice import DATAFLOWS
from vqcc.picks import tile_identity
from vqcc.plan import Rejected
from vqcc.subjects import subject_of
from vqcc.tuning.candidates import candidates_of, possible_dataflows
from vqcc.tuning.choosing import choose
from vqcc.tuning.lock import Lock, load_lock, render_lock
from vqcc.tuning.session import Tools, Work, tune

if TYPE_CHECKING:
    from pathlib import Path

    from tuned import Tunable

    from vqcc.building import Built
    from vqcc.codegen.toolchain import Compiled
    from vqcc.plan import KernelPlan


def slowest_prediction_is_fastest(plan: KernelPlan) -> float:
    assert plan.predicted_us is not None
    return 1000.0 - plan.predicted_us


#: Every dataflow, and nothing that stands against one.
EVERY = tuple(
    Agreed(each, tuple(Rejected(other, "the model's reason") for other in DATAFLOWS if other != each))
    for each in DATAFLOWS
)


def test_compile_makes_what_took_least(of: Tunable) -> None:
    """Not what the model thinks best: every kernel is another one than without the lock, as measured."""
    spec = of.spec()
    bench = FakeBench(slowest_prediction_is_fastest)
    lock, steps = run(spec, bench)
    assert all(step.us is not None for step in steps)
    assert len(bench.seen) == len(steps)
    tuned, plain = build(spec, lock), build(spec, None)
    assert all(mine != its for mine, its in zip(kernels(tuned), kernels(plain), strict=True))
    for plan in tuned.gpus[0].plans:
        (decision, *_) = plan.decisions
        own = [
            each.us
            for kernel in lock.kernels
            if plan.kernel.startswith(f"tiny_{kernel.kernel}")
            for each in kernel.measured
            if each.strategy.dataflow == plan.strategy.dataflow
        ]
        assert decision.inputs["measured_us"] == min(own)
        assert "Fake GPU, driver 1" in decision.reason
    assert tuned.fields["build_id"] != plain.fields["build_id"]


def test_a_library_has_one_dataflow_the_fastest_in_sum(of: Tunable) -> None:
    """Though one of its kernels would be faster with another."""
    spec = of.spec()

    def times(plan: KernelPlan) -> float:
        first = of.first in plan.kernel
        times = {"decode": 5.0 if first else 1.0, of.preferred: 3.0 if first else 4.0}
        return times[plan.strategy.dataflow]

    lock, _ = run(spec, FakeBench(times))
    assert {plan.strategy.dataflow for plan in build(spec, lock).gpus[0].plans} == {"decode"}
    faster = Lock(
        kernels=tuple(
            kernel.model_copy(
                update={
                    "measured": tuple(
                        each.model_copy(
                            update={"us": 1.0 if each.strategy.dataflow == of.preferred else each.us}
                        )
                        for each in kernel.measured
                    )
                }
            )
            for kernel in lock.kernels
        )
    )
    assert {plan.strategy.dataflow for plan in build(spec, faster).gpus[0].plans} == {of.preferred}


def test_an_interrupted_run_goes_on_where_it_stopped(of: Tunable) -> None:
    spec = of.spec()
    whole, steps = run(spec, FakeBench(slowest_prediction_is_fastest))
    saved = [Lock()]
    bench = FakeBench(slowest_prediction_is_fastest)
    tools = Tools(FakeToolchain())
    started = tune((Work(spec),), spec.gpu[0], saved[0], lambda _: bench, tools, save=saved.append, most=3)
    assert len(list(itertools.islice(started, 4))) == 4
    started.close()  # type: ignore[attr-defined]
    assert sum(len(kernel.measured) for kernel in saved[-1].kernels) == 4
    rest = FakeBench(slowest_prediction_is_fastest)
    resumed, again = run(spec, rest, saved[-1])
    assert len(rest.seen) == len(steps) - 4
    assert [step.reason for step in again].count("known") == 4
    assert render_lock(resumed) == render_lock(whole)


def test_another_device_or_toolchain_is_timed_anew_and_kept_apart(of: Tunable) -> None:
    spec = of.spec()
    lock, steps = run(spec, FakeBench(lambda plan: 1.0))
    other = FakeBench(lambda plan: 2.0)
    newer, _ = run(spec, other, lock, toolchain=replace_identity("fake 2.0"))
    assert len(other.seen) == len(steps)
    assert {kernel.toolchain for kernel in newer.kernels} == {"fake 1.0", "fake 2.0"}
    problems = problems_of(spec)
    for toolchain, us in (("fake 1.0", 1.0), ("fake 2.0", 2.0), ("fake 3.0", 2.0)):
        tuned = choose(newer, problems, toolchain, EVERY)
        assert tuned is not None
        assert {pick.us for pick in tuned.picks["h200"].values()} == {us}
    replaced, _ = run(spec, FakeBench(lambda plan: 3.0, device="Other GPU"), lock)
    assert {kernel.device for kernel in replaced.kernels} == {"Fake GPU, driver 1", "Other GPU"}
    tuned = choose(replaced, problems, "fake 1.0", EVERY)
    assert tuned is not None
    assert {pick.us for pick in tuned.picks["h200"].values()} == {3.0}, "the device that was timed last"


def test_other_device_code_is_timed_anew_and_told(of: Tunable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Times of code that is no more are used where there are no others, and the decision says so."""
    spec = of.spec()
    lock, steps = run(spec, FakeBench(slowest_prediction_is_fastest))
    for module in (vqcc.tuning.lock, vqcc.tuning.choosing, vqcc.tuning.session):
        monkeypatch.setattr(module, "templates_identity", lambda: "f" * 12)
    for plan in build(spec, lock).gpus[0].plans:
        assert "the device code has changed since: tune again" in plan.decisions[0].reason
    bench = FakeBench(slowest_prediction_is_fastest)
    newer, _ = run(spec, bench, lock)
    assert len(bench.seen) == len(steps)
    assert "has changed" not in build(spec, newer).gpus[0].plans[0].decisions[0].reason


def test_again_leaves_what_others_measured(of: Tunable) -> None:
    """Another GPU's kernels, another problem's and another toolchain's stay in the file."""
    spec, other = of.spec(), of.spec(**of.elsewhere)
    lock, _ = run(spec, FakeBench(lambda plan: 1.0))
    lock, _ = run(other, FakeBench(lambda plan: 1.0), lock)
    lock, _ = run(of.spec(gpu=of.further_gpu), FakeBench(lambda plan: 1.0), lock)
    lock, steps = run(spec, FakeBench(lambda plan: 2.0), lock, again=True)
    assert all(step.us == 2.0 for step in steps)
    found = {(kernel.gpu, kernel.problem): {each.us for each in kernel.measured} for kernel in lock.kernels}
    assert len(found) == len(lock.kernels) == 6
    assert sorted(found.values(), key=str) == [{1.0}] * 4 + [{2.0}] * 2


def test_an_unfinished_session_does_not_choose(of: Tunable) -> None:
    """One slow candidate of one dataflow says nothing of the others."""
    spec = of.spec()
    saved = [Lock()]
    bench = FakeBench(lambda plan: 999.0)
    tools = Tools(FakeToolchain())
    started = tune((Work(spec),), spec.gpu[0], Lock(), lambda _: bench, tools, save=saved.append, most=3)
    list(itertools.islice(started, 4))
    started.close()  # type: ignore[attr-defined]
    assert choose(saved[-1], problems_of(spec), "fake 1.0", EVERY) is None
    assert kernels(build(spec, saved[-1])) == kernels(build(spec, None))
    whole, _ = run(spec, bench, saved[-1])
    assert all(kernel.complete for kernel in whole.kernels)
    assert choose(whole, problems_of(spec), "fake 1.0", EVERY) is not None


def test_a_gpu_tuned_alone_gives_what_all_gpus_can_have(of: Tunable) -> None:
    """What does not fit an RTX 4090 is not taken: the library has the fastest decoding kernel that was timed."""
    lock, _ = run(of.spec(**of.large), FakeBench(lambda plan: 1.0 + (plan.strategy.dataflow == "decode")))
    tuned = choose(lock, problems_of(of.spec(**of.large)), "fake 1.0", EVERY)
    assert tuned is not None
    assert tuned.agreed.dataflow != "decode"
    both = build(of.spec(**of.large, gpu=["h200", "rtx4090"]), lock)
    plans = {gpu.gpu.name: gpu.plans[0] for gpu in both.gpus}
    assert {plan.strategy.dataflow for plan in plans.values()} == {"decode"}
    assert plans["h200"].decisions[0].inputs["measured_us"] == 2.0


def test_a_kernel_that_is_not_deterministic_is_told_and_left_out(of: Tunable) -> None:
    spec = of.spec(**of.second_only)

    def times(plan: KernelPlan) -> float:
        if plan.strategy.dataflow == of.preferred:
            raise VqccError(Diagnostic("VQ0808", "other bits"))
        return 1.0

    lock, steps = run(spec, FakeBench(times))
    reasons = {step.reason for step in steps if step.dataflow == of.preferred}
    assert reasons == {"gives other bits when it is launched again"}
    assert {each.strategy.dataflow for kernel in lock.kernels for each in kernel.measured} == {"decode"}


def replace_identity(identity: str) -> FakeToolchain:
    return FakeToolchain(identity=identity)


def test_wrong_and_spilling_candidates_are_told_and_not_recorded(of: Tunable) -> None:
    spec = of.spec(**of.second_only)

    class Spilling(FakeToolchain):
        def compile(self, source: str, **options: Any) -> Compiled:
            compiled = super().compile(source, **options)
            if of.mark not in source:
                return compiled
            spilled = {name: replace(each, spill_store_bytes=8) for name, each in compiled.resources.items()}
            return replace(compiled, resources=spilled)

    lock, steps = run(spec, FakeBench(lambda plan: 1.0), toolchain=Spilling())
    assert {step.reason for step in steps if step.dataflow == of.preferred} == {"spills registers"}
    assert {each.strategy.dataflow for kernel in lock.kernels for each in kernel.measured} == {"decode"}
    lock, steps = run(spec, FakeBench(lambda plan: None if plan.strategy.dataflow == of.preferred else 1.0))
    assert {step.reason for step in steps} == {"", "outside its bound of float64"}
    assert {each.strategy.dataflow for kernel in lock.kernels for each in kernel.measured} == {"decode"}


def changed(lock: Lock, kernel: str, **updates: Any) -> Lock:
    """The lock with other fields in all that was measured of one kernel."""
    return Lock(
        kernels=tuple(
            each
            if each.kernel != kernel
            else each.model_copy(
                update={"measured": tuple(one.model_copy(update=updates) for one in each.measured)}
            )
            for each in lock.kernels
        )
    )


def told_of_tuning(built: Built) -> list[str]:
    """What each kernel's first decision says of what was tuned."""
    return [
        each.reason
        for build in built.gpus
        for plan in build.plans
        for each in plan.decisions[0].rejected
        if each.value == "what was tuned"
    ]


def decode_is_fastest(plan: KernelPlan) -> float:
    return 1.0 if plan.strategy.dataflow == "decode" else 9.0


def test_a_tile_that_is_no_more_leaves_all_to_the_model(of: Tunable) -> None:
    """Of one kernel as of all: the dataflow that was tuned has not the times that it was taken for."""
    spec = of.spec()
    lock, _ = run(spec, FakeBench(decode_is_fastest))
    plain = build(spec, None)
    assert {plan.strategy.dataflow for plan in plain.gpus[0].plans} == {of.preferred}
    assert {plan.strategy.dataflow for plan in build(spec, lock).gpus[0].plans} == {"decode"}
    stale = build(spec, changed(lock, of.second, tile={"warps": 77}))
    assert kernels(stale) == kernels(plain)
    gone = f"the tile of {of.second} on h200 is none of today's; run `vqcc tune` again"
    assert told_of_tuning(stale) == [gone, gone]
    for mine, its in zip(stale.gpus[0].plans, plain.gpus[0].plans, strict=True):
        first = mine.decisions[0]
        others = tuple(each for each in first.rejected if each.value != "what was tuned")
        assert (replace(first, rejected=others), *mine.decisions[1:]) == its.decisions


def test_a_strategy_that_is_no_more_leaves_all_to_the_model(of: Tunable) -> None:
    spec = of.spec(**of.second_only)
    lock, _ = run(spec, FakeBench(decode_is_fastest))
    (first, *_) = lock.kernels[0].measured
    never = first.strategy.model_copy(update={"caching": "none", "dataflow": "decode"})
    stale = build(spec, changed(lock, of.second, strategy=never))
    assert kernels(stale) == kernels(build(spec, None))
    (told,) = told_of_tuning(stale)
    assert told == f"the strategy of {of.second} on h200 is none of today's; run `vqcc tune` again"


@pytest.mark.parametrize("alone", [True, False])
def test_what_spills_by_now_leaves_all_to_the_model(of: Tunable, alone: bool) -> None:
    """On a GPU that was tuned what was picked spills, on another one every tile of its dataflow."""
    spec = of.spec(gpu="h200" if alone else ["h200", of.further_gpu])
    lock, _ = run(spec, FakeBench(decode_is_fastest))

    class Spilling(FakeToolchain):
        def compile(self, source: str, **options: Any) -> Compiled:
            compiled = super().compile(source, **options)
            last = self.targets[-1] == ("sm_90" if alone else of.further_target)
            if of.mark in source or not last:
                return compiled
            spilled = {name: replace(each, spill_store_bytes=8) for name, each in compiled.resources.items()}
            return replace(compiled, resources=spilled)

    built = build_library(spec, toolchain=Spilling(), cache=None, lock=lock)
    assert {plan.strategy.dataflow for each in built.gpus for plan in each.plans} == {of.preferred}
    told = set(told_of_tuning(built))
    if alone:
        assert told == {f"the tile of {of.first} on h200 spills registers; run `vqcc tune` again"}
    else:
        assert told == {
            "every tile of decode spills registers on a GPU that was not tuned; run `vqcc tune` again"
        }


def test_dataflows_that_were_tuned_are_compared_by_what_they_took(of: Tunable) -> None:
    """Not by the model, which may think the contrary; those that cannot be had keep their reasons."""
    spec = of.spec(gpu=["h200", of.further_gpu])
    lock, _ = run(spec, FakeBench(decode_is_fastest))
    h200, further = build(spec, lock).gpus
    for plan in (*h200.plans, *further.plans):
        reasons = {each.value: each.reason for each in plan.decisions[0].rejected}
        assert reasons[of.preferred] == "measured 18 us for the 2 tuned kernels together, this one 2 us", (
            "measured"
        )
        refused, why = of.refused
        assert why in reasons[refused]
    assert {plan.decisions[0].formula for plan in further.plans} == {
        "least predicted time of the levels' strategies and those past the paper; one order of codes for the "
        "whole library, the one that took least on the GPUs that were tuned"
    }
    assert {plan.decisions[0].formula for plan in h200.plans} == {
        "least measured time of those that were tuned; one order of codes for the whole library"
    }


def test_levels_of_the_paper_leave_nothing_to_tune(of: Tunable) -> None:
    spec = of.spec(level="o2")
    with pytest.raises(VqccError) as caught:
        run(spec, FakeBench(lambda plan: 1.0))
    assert [item.code for item in caught.value.diagnostics] == ["VQ0317"]
    tuned, _ = run(of.spec(), FakeBench(lambda plan: 1.0))
    assert choose(tuned, problems_of(spec), "fake 1.0", EVERY) is None


def test_what_was_measured_of_another_problem_is_not_used(of: Tunable) -> None:
    lock, _ = run(of.spec(), FakeBench(slowest_prediction_is_fastest), most=1)
    for change in of.others:
        other = of.spec(**change)
        assert kernels(build(other, lock)) == kernels(build(other, None)), change


def test_candidates_are_ranked_and_distinct(of: Tunable) -> None:
    spec = of.spec(**of.second_only)
    (problem,) = problems_of(spec)
    flow = subject_of(spec).flow
    assert set(possible_dataflows(flow, [problem])) == {"decode", of.preferred}
    for dataflow in possible_dataflows(flow, [problem]):
        found = candidates_of(flow, problem, dataflow, 6)
        assert len({each.pick for each in found}) == len(found) > 1
        assert [each.predicted_us for each in found] == sorted(each.predicted_us for each in found)
        assert {each.pick.strategy.dataflow for each in found} == {dataflow}


def test_the_file_comes_back_as_it_was(of: Tunable, tmp_path: Path) -> None:
    lock, _ = run(of.spec(), FakeBench(slowest_prediction_is_fastest))
    path = tmp_path / "tiny.lock.yaml"
    path.write_bytes(render_lock(lock))
    assert load_lock(path) == lock
    assert load_lock(tmp_path / "other.lock.yaml") is None


def test_clusters_are_candidates_too() -> None:
    """Compile makes those that took least, of a strategy that the model would not take."""

    def times(plan: KernelPlan) -> float:
        return slowest_prediction_is_fastest(plan) + (0 if isinstance(plan.tile, ClusterTile) else 1000)

    spec = CACHE.spec()
    assert not any(isinstance(plan.tile, ClusterTile) for plan in build(spec, None).gpus[0].plans)
    lock, steps = run(spec, FakeBench(times), most=64)
    assert len(steps) == sum(len(kernel.measured) for kernel in lock.kernels)
    for plan, kernel in zip(build(spec, lock).gpus[0].plans, lock.kernels, strict=True):
        assert isinstance(plan.tile, ClusterTile)
        best = kernel.best(plan.strategy.dataflow)
        assert best is not None
        assert tile_identity(plan.tile) == tuple(best.tile.items())
        assert plan.decisions[0].inputs["measured_us"] == best.us


def test_candidates_of_whole_books_are_those_that_fit() -> None:
    """On an RTX 4090 the books of a head take more than a block has: level sc would be refused."""
    for gpu, caching in (("h200", {"slack", "global", "all"}), ("rtx4090", {"slack", "global"})):
        (problem,) = problems_of(CACHE.spec(algorithm="cq-2", head_dim=256, batch=16, gpu=gpu))
        found = candidates_of(CACHES, problem, "decode", 64)
        assert {each.pick.strategy.caching for each in found} == caching
        contenders = cache_contenders(problem, estimate, "decode")
        assert {strategy.caching for _, strategy in contenders} == caching


def test_equally_promising_candidates_come_in_the_order_of_proposals() -> None:
    """The first tile of each strategy before any's second."""
    (problem,) = problems_of(CACHE.spec(batch=16))
    found = candidates_of(CACHES, problem, "decode", 4)
    assert len({each.predicted_us for each in found}) == 1
    assert [each.pick.strategy.caching for each in found] == ["all", "slack"] * 2
    tiles = [each.pick.tile for each in found]
    assert tiles[0] == tiles[1] != tiles[2] == tiles[3]


def test_what_launches_are_unlike_is_told_and_kept_apart() -> None:
    """Times of shorter sequences than a kernel is for do not mix with others."""
    spec, note = CACHE.spec(), "sequences of 64 tokens: no room"
    short = FakeBench(lambda plan: 1.0, notes={CACHE.second: note})
    lock, steps = run(spec, short)
    assert {step.reason for step in steps if step.kernel == CACHE.first} == {""}
    assert {step.reason for step in steps if step.kernel == CACHE.second} == {note}
    assert [kernel.device for kernel in lock.kernels] == [short.device, f"{short.device}; {note}"]
    reasons = [plan.decisions[0].reason for plan in build(spec, lock).gpus[0].plans]
    assert [note in reason for reason in reasons] == [False, True]
    whole = FakeBench(lambda plan: 2.0)
    lock, steps = run(spec, whole, lock)
    assert {step.us for step in steps if step.kernel == CACHE.second} == {2.0}
    assert {step.reason for step in steps if step.kernel == CACHE.first} == {"known"}
    assert note not in build(spec, lock).gpus[0].plans[1].decisions[0].reason
