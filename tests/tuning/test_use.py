"""What is told of a lock file: what was made by it, and what of it is old or could not be used."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from tuned import FakeBench, build, run

import vqcc.tuning.choosing
import vqcc.tuning.use
from vqcc.tuning.lock import Lock
from vqcc.tuning.use import LockUse, ModelLockUse, joined, lock_warnings

if TYPE_CHECKING:
    from pathlib import Path

    from tuned import Tunable

    from vqcc.spec.model import Spec


def tuned(spec: Spec) -> Lock:
    return run(spec, FakeBench(lambda plan: 1.0), most=1)[0]


def use(of: Tunable, lock: Lock | None, **changes: Any) -> LockUse | None:
    return build(of.spec(**changes), lock).lock_use


@pytest.fixture(scope="module")
def lock(of: Tunable) -> Lock:
    return tuned(of.spec())


@pytest.fixture(scope="module")
def both(of: Tunable) -> tuple[str, str]:
    return (of.first, of.second)


def test_what_was_made_by_it(of: Tunable, lock: Lock, both: tuple[str, str]) -> None:
    assert use(of, lock) == LockUse({"h200": both})
    assert use(of, lock, gpu=["a100", "h200"]) == LockUse({"h200": both}), "a100 is nobody's fault"
    assert use(of, lock, gpu="a100") == LockUse()
    assert use(of, lock, level="gc") is None
    assert use(of, None) is None


def test_a_file_that_serves_several_specs_is_as_good(of: Tunable, lock: Lock, both: tuple[str, str]) -> None:
    other = tuned(of.spec(**of.elsewhere))
    assert use(of, Lock(kernels=(*other.kernels, *lock.kernels))) == LockUse({"h200": both})


def test_nothing_of_the_spec_is_told(of: Tunable, lock: Lock) -> None:
    for found in (lock, Lock()):
        assert use(of, found, **of.elsewhere) == LockUse({}, ("it has no kernel of this spec",))


def test_a_kernel_without_times_is_told(of: Tunable, lock: Lock) -> None:
    told = f"on h200 it lacks times of {of.second}, without which the others are of no use"
    assert use(of, Lock(kernels=lock.kernels[:1])) == LockUse({}, (told,))


def test_an_unfinished_session_is_told(of: Tunable, lock: Lock) -> None:
    started = tuple(kernel.model_copy(update={"complete": False}) for kernel in lock.kernels)
    told = f"on h200 the session of {of.first} and {of.second} was not completed"
    assert use(of, Lock(kernels=started)) == LockUse({}, (told,))
    told = f"on h200 the session of {of.second} was not completed"
    assert use(of, Lock(kernels=(*lock.kernels[:1], *started[1:]))) == LockUse({}, (told,))


def test_other_device_code_is_told_and_used(
    of: Tunable, lock: Lock, both: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (vqcc.tuning.choosing, vqcc.tuning.use):
        monkeypatch.setattr(module, "templates_identity", lambda: "f" * 12)
    told = f"on h200 the device code has changed since the times of {of.first} and {of.second}"
    assert use(of, lock) == LockUse({"h200": both}, (told,))


def test_what_cannot_be_made_is_told(of: Tunable, lock: Lock) -> None:
    def moved(kernel: Any) -> Any:
        measured = tuple(each.model_copy(update={"tile": {"warps": 77}}) for each in kernel.measured)
        return kernel.model_copy(update={"measured": measured})

    stale = Lock(kernels=tuple(map(moved, lock.kernels)))
    assert use(of, stale) == LockUse({}, (f"the tile of {of.first} on h200 is none of today's",))


def test_kernels_that_share_no_dataflow_are_told(of: Tunable, lock: Lock) -> None:
    (first, second) = lock.kernels

    def only(kernel: Any, dataflow: str) -> Any:
        measured = tuple(each for each in kernel.measured if each.strategy.dataflow == dataflow)
        assert measured
        return kernel.model_copy(update={"measured": measured})

    apart = Lock(kernels=(only(first, "decode"), only(second, of.preferred)))
    told = "no dataflow that the library can have was timed for all of its kernels"
    assert use(of, apart) == LockUse({}, (told,))


NOTHING = LockUse({}, ("it has no kernel of this spec",))
MADE = LockUse({"h200": ("m1_float16",)})
NO_TIMES = LockUse()
OLD = LockUse({"h200": ("m1_float16",)}, ("it is old",))


@pytest.mark.parametrize(
    ("uses", "complaints"),
    [
        ({"q": MADE, "down": MADE}, ()),
        ({"q": MADE, "down": NOTHING}, ()),
        ({"q": MADE, "down": NOTHING, "up": OLD}, ("up: it is old",)),
        ({"q": OLD, "down": OLD}, ("q: it is old", "down: it is old")),
        ({"q": NOTHING, "down": NOTHING, "up": None}, NOTHING.complaints),
        ({"q": NOTHING, "down": NO_TIMES}, ()),
    ],
)
def test_what_libraries_of_a_model_take_is_told_together(
    uses: dict[str, LockUse | None], complaints: tuple[str, ...]
) -> None:
    """A library that was never tuned is a complaint only where nothing was."""
    kernels = {folder: use.kernels for folder, use in uses.items() if use is not None}
    assert joined(uses) == ModelLockUse(kernels, complaints)


def test_a_model_of_the_papers_levels_takes_nothing() -> None:
    assert joined({"q": None, "down": None}) is None


def test_the_warning_names_file_and_command(tmp_path: Path) -> None:
    spec = tmp_path / "tiny.yaml"
    (item,) = lock_warnings(tmp_path / "tiny.lock.yaml", spec, ["it has no kernel of this spec"])
    assert (item.code, item.severity) == ("VQ0318", "warning")
    assert item.message == f"{tmp_path / 'tiny.lock.yaml'}: it has no kernel of this spec"
    assert item.help is not None
    assert item.help.startswith(f"run `vqcc tune {spec}` on the GPU")
