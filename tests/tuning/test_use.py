"""What is told of a lock file: what was made by it, and what of it is old or could not be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from libraries import FakeToolchain, make_spec

import vqcc.tuning.choosing
import vqcc.tuning.use
from vqcc.building import build_library
from vqcc.tuning.lock import Lock
from vqcc.tuning.session import Tools, tune
from vqcc.tuning.use import LockUse, lock_warnings

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.building import Built
    from vqcc.spec.model import Spec

SPEC = {"algorithm": "vq-4-4-1", "n": 64, "k": 128, "m": [1, 3], "level": "best"}
BOTH = ("m1_float16", "m3_float16")


class Bench:
    device = "Fake GPU, driver 1"

    def time(self, _built: Built) -> float:
        return 1.0


def tuned(spec: Spec) -> Lock:
    saved = [Lock()]
    list(tune(spec, spec.gpu[0], saved[0], Bench(), Tools(FakeToolchain()), save=saved.append, most=1))
    return saved[-1]


def use(lock: Lock | None, **changes: Any) -> LockUse | None:
    spec = make_spec(**{**SPEC, **changes})
    return build_library(spec, toolchain=FakeToolchain(), cache=None, lock=lock).lock_use


@pytest.fixture(scope="module")
def lock() -> Lock:
    return tuned(make_spec(**SPEC))


def test_what_was_made_by_it(lock: Lock) -> None:
    assert use(lock) == LockUse({"h200": BOTH})
    assert use(lock, gpu=["a100", "h200"]) == LockUse({"h200": BOTH}), "a100 is nobody's fault"
    assert use(lock, gpu="a100") == LockUse()
    assert use(lock, level="gc") is None
    assert use(None) is None


def test_a_file_that_serves_several_specs_is_as_good(lock: Lock) -> None:
    other = tuned(make_spec(**{**SPEC, "n": 32}))
    assert use(Lock(kernels=(*other.kernels, *lock.kernels))) == LockUse({"h200": BOTH})


@pytest.mark.parametrize("change", [{"n": 32}, {"m": 2}, {"algorithm": "vq-4-8-1"}])
def test_nothing_of_the_spec_is_told(lock: Lock, change: dict[str, Any]) -> None:
    assert use(lock, **change) == LockUse({}, ("it has no kernel of this spec",))
    assert use(Lock(), **change) == LockUse({}, ("it has no kernel of this spec",))


def test_a_kernel_without_times_is_told(lock: Lock) -> None:
    told = "on h200 it lacks times of m3_float16, without which the others are of no use"
    assert use(Lock(kernels=lock.kernels[:1])) == LockUse({}, (told,))


def test_an_unfinished_session_is_told(lock: Lock) -> None:
    started = tuple(kernel.model_copy(update={"complete": False}) for kernel in lock.kernels)
    told = "on h200 the session of m1_float16 and m3_float16 was not completed"
    assert use(Lock(kernels=started)) == LockUse({}, (told,))
    told = "on h200 the session of m3_float16 was not completed"
    assert use(Lock(kernels=(*lock.kernels[:1], *started[1:]))) == LockUse({}, (told,))


def test_other_device_code_is_told_and_used(lock: Lock, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (vqcc.tuning.choosing, vqcc.tuning.use):
        monkeypatch.setattr(module, "templates_identity", lambda: "f" * 12)
    told = "on h200 the device code has changed since the times of m1_float16 and m3_float16"
    assert use(lock) == LockUse({"h200": BOTH}, (told,))


def test_what_cannot_be_made_is_told(lock: Lock) -> None:
    def moved(kernel: Any) -> Any:
        measured = tuple(each.model_copy(update={"tile": {"warps": 77}}) for each in kernel.measured)
        return kernel.model_copy(update={"measured": measured})

    stale = Lock(kernels=tuple(map(moved, lock.kernels)))
    assert use(stale) == LockUse({}, ("the tile of m1_float16 on h200 is none of today's",))


def test_kernels_that_share_no_dataflow_are_told(lock: Lock) -> None:
    (first, second) = lock.kernels

    def only(kernel: Any, dataflow: str) -> Any:
        measured = tuple(each for each in kernel.measured if each.strategy.dataflow == dataflow)
        assert measured
        return kernel.model_copy(update={"measured": measured})

    apart = Lock(kernels=(only(first, "decode"), only(second, "fragment")))
    told = "no dataflow that the library can have was timed for all of its kernels"
    assert use(apart) == LockUse({}, (told,))


def test_the_warning_names_file_and_command(tmp_path: Path) -> None:
    spec = tmp_path / "tiny.yaml"
    (item,) = lock_warnings(tmp_path / "tiny.lock.yaml", spec, ["it has no kernel of this spec"])
    assert (item.code, item.severity) == ("VQ0318", "warning")
    assert item.message == f"{tmp_path / 'tiny.lock.yaml'}: it has no kernel of this spec"
    assert item.help is not None
    assert item.help.startswith(f"run `vqcc tune {spec}` on the GPU")
