"""A whole model is tuned library by library, as one session into one lock file."""

from __future__ import annotations

import gc
import itertools
import weakref
from typing import TYPE_CHECKING, Any

import pytest
from libraries import FakeToolchain
from model_specs import attention, linear, model_text
from tuned import FakeBench, run

from vqcc.diagnostics import VqccError
from vqcc.models import Model, parse_any
from vqcc.models.building import BuiltModel, build_model
from vqcc.tuning.lock import Lock, render_lock
from vqcc.tuning.session import Step, Tools, tunable, tune

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.spec.model import Spec

ALGORITHM = "vq-4-4-1"
LAYERS = {
    "q": linear(64, 128, algorithm=ALGORITHM),
    "o": linear(64, 128, algorithm=ALGORITHM),
    "down": linear(64, 64, algorithm=ALGORITHM),
    "attention": attention(),
}


def model_of(layers: dict[str, Any], **more: Any) -> Model:
    model = parse_any(model_text(layers, **{"level": "best", **more}), "small.yaml")
    assert isinstance(model, Model)
    return model


def build(model: Model, lock: Lock | None) -> BuiltModel:
    return build_model(model, toolchain=FakeToolchain(), cache=None, lock=lock)


def constant(us: float) -> FakeBench:
    return FakeBench(lambda _: us)


@pytest.fixture(scope="module")
def model() -> Model:
    return model_of(LAYERS)


@pytest.fixture(scope="module")
def session(model: Model) -> tuple[Lock, list[Step]]:
    return run(model, constant(1.0))


def test_steps_are_numbered_over_all_libraries(session: tuple[Lock, list[Step]]) -> None:
    _, steps = session
    assert [step.number for step in steps] == list(range(1, len(steps) + 1))
    assert {step.count for step in steps} == {len(steps)}
    assert list(dict.fromkeys(step.layer for step in steps)) == ["q", "down", "attention"]


def test_one_lock_is_what_locks_of_the_libraries_are_together(
    model: Model, session: tuple[Lock, list[Step]]
) -> None:
    alone = [run(layer.spec, constant(1.0))[0] for layer in model.libraries]
    assert session[0] == Lock(kernels=tuple(itertools.chain.from_iterable(lock.kernels for lock in alone)))


def test_every_library_is_made_as_measured(model: Model) -> None:
    def slowest_prediction_is_fastest(plan: Any) -> float:
        return 1000.0 - float(plan.predicted_us)

    lock, _ = run(model, FakeBench(slowest_prediction_is_fastest))
    built, plain = build(model, lock), build(model, None)
    assert plain.lock_use is None
    assert built.lock_use is not None
    assert built.lock_use.libraries == {
        "q": {"h200": ("m1_float16",)},
        "down": {"h200": ("m1_float16",)},
        "attention": {"h200": ("b2_float16",)},
    }
    for folder, library in built.libraries.items():
        assert library.fields["build_id"] != plain.libraries[folder].fields["build_id"]
        assert library.gpus[0].plans[0].decisions[0].inputs["measured_us"] > 900
    assert built.fields["build_id"] != plain.fields["build_id"]


def test_a_bench_is_gone_before_the_next_is_made(model: Model) -> None:
    """It holds the weights of its library, which may be larger than what is left of the memory."""
    benches: list[weakref.ref[FakeBench]] = []

    def bench_of(_spec: Spec) -> FakeBench:
        assert all(bench() is None for bench in benches)
        made = constant(1.0)
        benches.append(weakref.ref(made))
        return made

    tools = Tools(FakeToolchain())
    gc.disable()
    try:
        steps = tune(tunable(model), model.gpu[0], Lock(), bench_of, tools, save=lambda _: None, most=1)
        assert all(step.us == 1.0 for step in steps)
    finally:
        gc.enable()
    assert len(benches) == 3


def test_an_interrupted_session_goes_on_in_the_library_where_it_stopped(
    model: Model, session: tuple[Lock, list[Step]]
) -> None:
    whole, steps = session
    inside = sum(step.layer == "q" for step in steps) + 1
    saved = [Lock()]
    tools = Tools(FakeToolchain())
    bench = constant(1.0)
    started: Iterator[Step] = tune(
        tunable(model), model.gpu[0], saved[0], lambda _: bench, tools, save=saved.append, most=3
    )
    list(itertools.islice(started, inside))
    started.close()  # type: ignore[attr-defined]
    assert [kernel.complete for kernel in saved[-1].kernels] == [True, False]
    rest = constant(1.0)
    resumed, again = run(model, rest, saved[-1])
    assert [step.reason for step in again].count("known") == inside
    assert len(rest.seen) == len(steps) - inside
    assert render_lock(resumed) == render_lock(whole)


@pytest.mark.parametrize("again", [False, True])
def test_kernels_that_libraries_share_are_timed_once(again: bool) -> None:
    """One library has a bound more, and so another folder; its first kernel is the other's."""
    few = linear(64, 128, algorithm=ALGORITHM)
    more = {**few, "op": {**few["op"], "m": [1, 3]}}
    model = model_of({"more": more, "few": few})
    assert len(model.libraries) == 2
    lock, _ = run(model, constant(1.0))
    bench = constant(2.0)
    newer, steps = run(model, bench, lock if again else None, again=again)
    assert {step.reason for step in steps if step.layer == "more"} == {""}
    assert {step.reason for step in steps if step.layer == "few"} == {"known"}
    assert {step.us for step in steps} == {2.0}
    assert {each.us for kernel in newer.kernels for each in kernel.measured} == {2.0}
    assert [kernel.kernel for kernel in newer.kernels] == ["m1_float16", "m3_float16"]


def test_what_others_measured_stays(model: Model, session: tuple[Lock, list[Step]]) -> None:
    other = model_of({"up": linear(128, 64, algorithm=ALGORITHM)})
    lock, _ = run(other, constant(3.0))
    newer, _ = run(model, constant(2.0), Lock(kernels=(*lock.kernels, *session[0].kernels)), again=True)
    assert newer.kernels[0] == lock.kernels[0]
    assert {each.us for kernel in newer.kernels[1:] for each in kernel.measured} == {2.0}


def test_only_layers_of_level_best_are_tuned() -> None:
    mixed = model_of({"q": LAYERS["q"], "down": {**LAYERS["down"], "level": "o2"}})
    assert [work.layer for work in tunable(mixed)] == ["q"]
    lock, _ = run(mixed, constant(1.0), most=1)
    use = build(mixed, lock).lock_use
    assert use is not None
    assert list(use.libraries) == ["q"]
    for level, told in (("o1", "levels o1 and o2 leave"), ("o2", "level o2 leaves")):
        paper = model_of({"q": LAYERS["q"], "down": {**LAYERS["down"], "level": "o2"}}, level=level)
        with pytest.raises(VqccError) as caught:
            tunable(paper)
        (item,) = caught.value.diagnostics
        assert (item.code, item.message) == ("VQ0317", f"{told} nothing to tune")
