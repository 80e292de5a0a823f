"""The thread mapping of a plan is the one that its kernel has: another one does not compile."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from plans import forced
from problems import changed, problem

from vqcc.codegen.render import render_source
from vqcc.diagnostics import VqccError
from vqcc.emulator import build
from vqcc.levels import STRATEGIES

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.plan import Plan
    from vqcc.problem import Problem

#: Engine, way, preset, rows of x, shuffles that a round trip to shared memory costs.
EXCHANGES = [
    ("fma", "register", "gptvq-4", 1, 100.0),
    ("fma", "shared", "quip-2", 1, 0.5),
    ("mma", "register", "vq-4-8-1", 16, 100.0),
    ("mma", "register", "aqlm-2x8", 16, 100.0),
    ("mma", "shared", "quip-2", 16, 0.5),
]
exchanges = pytest.mark.parametrize(("engine", "fusion", "preset", "m", "roundtrip"), EXCHANGES)


def planned(preset: str, m: int, roundtrip: float) -> tuple[Problem, Plan]:
    card = changed("h200", shared_roundtrip_per_shuffle=roundtrip)
    task = problem(preset, gpu=card, level="o4", n=32, k=512, m=m)
    return task, forced(task, STRATEGIES["o4"])


@exchanges
def test_the_source_has_the_plans_mapping(
    engine: str, fusion: str, preset: str, m: int, roundtrip: float
) -> None:
    task, plan = planned(preset, m, roundtrip)
    exchange = plan.exchange
    assert (exchange.engine, exchange.fusion) == (engine, fusion)
    source = render_source([task], [plan])
    for name, value in (
        ("kExchangeLanes", exchange.lanes),
        ("kExchangeWidth", exchange.width),
        ("kMiniWarp", exchange.mini_warp),
        ("kShuffles", exchange.shuffles),
    ):
        assert f"static constexpr int {name} = {value};" in source
    (vectors,) = [each.split("};")[0] for each in source.split("kVectors[] = {")[1:]]
    assert tuple(int(each) for each in vectors.split(",") if each.strip()) == exchange.vector_of_lane


@exchanges
def test_another_mapping_does_not_compile(
    engine: str, fusion: str, preset: str, m: int, roundtrip: float, cache_directory: Path
) -> None:
    task, plan = planned(preset, m, roundtrip)
    exchange = plan.exchange
    vectors = exchange.vector_of_lane
    wrong: list[dict[str, Any]] = [
        {"vector_of_lane": (vectors[1], vectors[0], *vectors[2:])},
        {"mini_warp": 2 * exchange.mini_warp},
        {"shuffles": exchange.shuffles + 1},
        {"width": exchange.width + 1},
    ]
    assert build(render_source([task], [plan]), cache_directory=cache_directory / "emulator")
    for change in wrong:
        other = replace(plan, exchange=replace(exchange, **change))
        with pytest.raises(VqccError, match="the plan's thread mapping is the one of the layout"):
            build(render_source([task], [other]), cache_directory=cache_directory / "emulator")
