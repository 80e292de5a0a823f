"""Specs of each subject to tune, and a stand-in for the device that says what each candidate takes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cache_libraries import cache_spec_text
from libraries import FakeToolchain, spec_text

from vqcc.building import build_library
from vqcc.picks import tile_identity
from vqcc.spec.load import parse_spec
from vqcc.subjects import subject_of
from vqcc.tuning.lock import Lock
from vqcc.tuning.session import Tools, tunable, tune

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vqcc.building import Built
    from vqcc.levels import Dataflow
    from vqcc.models import Model
    from vqcc.plan import KernelPlan
    from vqcc.problem import KernelProblem
    from vqcc.spec.model import Spec
    from vqcc.tuning.session import Step

__all__ = ["CACHE", "TUNABLE", "WEIGHT", "FakeBench", "Tunable", "build", "kernels", "problems_of", "run"]


@dataclass(frozen=True)
class Tunable:
    """A spec of level `best` with two kernels for an H200, and what tests of all subjects must know of it.

    Its kernels can decode, and have `preferred`, which the model takes; `refused` is a dataflow that they cannot have,
    and why. `mark` stands in sources of kernels of `preferred`. The library can also be for `further_gpu`, compiled for
    `further_target`. Of changes to the spec, `second_only` leaves the second kernel, `elsewhere` makes another library,
    `large` one whose dataflows past the paper do not fit an RTX 4090, and each of `others` makes what was measured
    useless.
    """

    text: Callable[..., str]
    fields: Mapping[str, Any]
    first: str
    second: str
    preferred: Dataflow
    refused: tuple[Dataflow, str]
    mark: str
    further_gpu: str
    further_target: str
    second_only: Mapping[str, Any]
    elsewhere: Mapping[str, Any]
    large: Mapping[str, Any]
    others: tuple[Mapping[str, Any], ...]

    def spec(self, **changes: Any) -> Spec:
        """The spec with other fields."""
        return parse_spec(self.text(**{**self.fields, **changes}).encode(), "spec.yaml")


WEIGHT = Tunable(
    spec_text,
    {"algorithm": "aqlm-2x8", "n": 2048, "k": 2048, "m": [1, 16], "level": "best", "name": "tiny"},
    "m1_float16",
    "m16_float16",
    "fragment",
    ("score", "serves 4 rows of inputs, not 16"),
    "FragmentGemv<plan",
    "rtx4090",
    "sm_89",
    {"m": 16},
    {"n": 4096},
    {"algorithm": "aqlm-1x16", "n": 4096, "k": 4096, "m": 1},
    ({"k": 1024}, {"algorithm": "gptvq-2"}, {"m": [1, 8]}, {"gpu": "h100"}),
)
CACHE = Tunable(
    cache_spec_text,
    {"algorithm": "cq-2", "q_heads": 8, "batch": [1, 16], "context": 8192, "level": "best", "name": "tiny"},
    "b1_float16",
    "b16_float16",
    "score",
    ("fragment", "16 channel groups for the 32 lanes"),
    "RowAttention<vqcc::HeadScores",
    "b200",
    "sm_100",
    {"batch": 16},
    {"context": 4096},
    {},
    (
        {"context": 4096},
        {"algorithm": {"key": "cq-2", "value": "kv-4-8-1"}},
        {"batch": [1, 32]},
        {"window": 64},
        {"gpu": "h100"},
    ),
)
TUNABLE = {"weight": WEIGHT, "cache": CACHE}


@dataclass
class FakeBench:
    """Takes `times(plan)` microseconds for a kernel, and remembers what it was asked for."""

    times: Any
    device: str = "Fake GPU, driver 1"
    notes: Mapping[str, str] = field(default_factory=dict)
    seen: list[KernelPlan] = field(default_factory=list)

    def note(self, problem: KernelProblem) -> str:
        return self.notes.get(problem.variant.suffix, "")

    def time(self, built: Built) -> float | None:
        (plan,) = built.gpus[0].plans
        self.seen.append(plan)
        us: float | None = self.times(plan)
        return us


def run(
    spec: Spec | Model,
    bench: FakeBench,
    lock: Lock | None = None,
    *,
    most: int = 3,
    toolchain: Any = None,
    again: bool = False,
) -> tuple[Lock, list[Step]]:
    """All steps, and the lock as it was saved last."""
    saved = [lock or Lock()]
    tools = Tools(toolchain or FakeToolchain())
    steps = list(
        tune(
            tunable(spec),
            spec.gpu[0],
            saved[0],
            lambda _: bench,
            tools,
            save=saved.append,
            most=most,
            again=again,
        )
    )
    return saved[-1], steps


def build(spec: Spec, lock: Lock | None) -> Built:
    return build_library(spec, toolchain=FakeToolchain(), cache=None, lock=lock)


def kernels(built: Built) -> list[tuple[Any, Any]]:
    """Strategy and tile of each kernel on the first GPU."""
    return [
        (plan.strategy, tile_identity(plan.tile)) for plan in built.gpus[0].plans if plan.tile is not None
    ]


def problems_of(spec: Spec) -> tuple[KernelProblem, ...]:
    """The kernels on the first GPU."""
    found: tuple[KernelProblem, ...] = subject_of(spec).problems_of(spec, spec.gpu[0])
    return found
