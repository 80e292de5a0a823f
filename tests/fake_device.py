"""A GPU that is not there, for `vqcc tune`: what it is, and what kernels take on it."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import vqcc.runtime.device
import vqcc.runtime.tuning

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest

    from vqcc.building import Built
    from vqcc.problem import KernelProblem

__all__ = ["FakeBench", "FakeDevice", "fake_device"]


@dataclass
class FakeDevice:
    name: str = "NVIDIA H200"
    sm_count: int = 132
    target: str = "sm_90"
    driver_release: str = "1"


class FakeBench:
    """Says that kernels take less the more predicted; fails at call number `fails_at`."""

    calls = 0
    fails_at = -1
    note_of_last = ""
    device = "Fake GPU, driver 1"

    def __init__(self, _device: Any, *, seed: int, profile: Any = ()) -> None:
        assert (seed, profile) == (0, ())

    def note(self, problem: KernelProblem) -> str:
        return self.note_of_last if "3_" in problem.variant.suffix else ""

    def time(self, built: Built) -> float:
        type(self).calls += 1
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        (plan,) = built.gpus[0].plans
        assert plan.predicted_us is not None
        return 50 - plan.predicted_us


def fake_device(monkeypatch: pytest.MonkeyPatch) -> FakeDevice:
    """The device that commands find, for as long as a test runs."""
    found = FakeDevice()

    @contextmanager
    def opened(**_: object) -> Iterator[FakeDevice]:
        yield found

    monkeypatch.setattr(vqcc.runtime.device, "open_device", opened)
    monkeypatch.setattr(vqcc.runtime.tuning, "WeightBench", FakeBench)
    monkeypatch.setattr(vqcc.runtime.tuning, "CacheBench", FakeBench)
    monkeypatch.setattr(FakeBench, "calls", 0)
    monkeypatch.setattr(FakeBench, "fails_at", -1)
    return found
