"""How decoded values reach their multiplies at level o4: Algorithm 1 over the lanes that have a token's channels."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from caches import STRATEGY, make_plan, make_problem
from hypothesis import given
from hypothesis import strategies as st
from layouts import mapped

from vqcc import gpus
from vqcc.levels import STRATEGIES
from vqcc.ops.attention.cycles import block_cycles
from vqcc.ops.attention.tile import AttentionTile
from vqcc.passes.cache.exchange import plan_cache_exchange
from vqcc.passes.cache.pipeline import estimate, plan_base
from vqcc.passes.exchange import ThreadLayout
from vqcc.passes.tile import machine_of
from vqcc.plan import CachePlan, Decision, Exchange

if TYPE_CHECKING:
    from typing import Any

    from vqcc.problem import CacheProblem

O4 = STRATEGIES["o4"]


def exchanged(problem: CacheProblem, *clusters: int) -> CachePlan:
    """The plan after the pass, if `clusters` blocks share a head's channels out."""
    return plan_cache_exchange(problem, CachePlan("kernel", "o4", O4, clusters=clusters))


def decision(plan: CachePlan, name: str) -> Decision:
    (found,) = [each for each in plan.decisions if each.name == name]
    return found


def sized(problem: CacheProblem, roundtrip: float) -> CacheProblem:
    """The problem on a GPU whose round trip through shared memory costs so many shuffles."""
    fact = problem.gpu.shared_roundtrip_per_shuffle.model_copy(update={"value": roundtrip})
    return replace(problem, gpu=problem.gpu.model_copy(update={"shared_roundtrip_per_shuffle": fact}))


@pytest.mark.parametrize(
    ("algorithm", "head_dim", "clusters", "fusion", "lanes", "shuffles"),
    [
        ("cq-4", 128, (), "register", 32, 1),
        ("cq-2", 128, (), "register", 32, 3),
        ("cq-2", 64, (), "register", 16, 3),
        ("cq-2", 128, (8,), "register", 4, 3),
        ("kv-4-8-1", 128, (), "register", 32, 3),
        ("cq-1", 128, (), "shared", 16, 0),
        ("cq-1", 64, (), "shared", 8, 0),
        ("cq-16c8b", 64, (), "shared", 4, 0),
        ("kv-8-6-2", 128, (2,), "shared", 8, 0),
    ],
)
def test_what_level_o4_plans(
    algorithm: str, head_dim: int, clusters: tuple[int, ...], fusion: str, lanes: int, shuffles: int
) -> None:
    """Vectors of up to four channels go through registers, of eight through shared memory."""
    exchange = exchanged(make_problem(algorithm, head_dim=head_dim), *clusters).exchange
    assert (exchange.engine, exchange.width, exchange.lanes) == ("fma", 1, lanes)
    assert (exchange.fusion, exchange.shuffles) == (fusion, shuffles)
    size = make_problem(algorithm, head_dim=head_dim).values.vector_size
    if fusion == "register":
        assert exchange.vector_of_lane == mapped(size, ThreadLayout(1, lanes)).vector_of_thread
    else:
        assert exchange.vector_of_lane == tuple(range(lanes))


def test_keys_and_values_are_told_apart() -> None:
    """What keys are does not matter: nothing of them moves."""
    wide, narrow = (exchanged(make_problem(keys, "cq-2", head_dim=128)) for keys in ("cq-1", "cq-4"))
    assert wide.exchange == narrow.exchange
    for plan in (wide, narrow):
        assert decision(plan, "key_fusion").value == "none"
        assert decision(plan, "fusion").inputs["vector_size"] == 4


def test_the_gpu_decides_what_is_cheaper() -> None:
    wide, narrow = make_problem("cq-1", head_dim=128), make_problem("cq-2", head_dim=128)
    assert exchanged(sized(wide, 7.5)).exchange.fusion == "register"
    assert exchanged(sized(wide, 7.5)).exchange.shuffles == 7
    assert exchanged(sized(narrow, 3.0)).exchange.fusion == "shared"
    told = decision(exchanged(sized(narrow, 3.0)), "fusion")
    assert told.facts == ("shared_roundtrip_per_shuffle",)
    assert {each.value for each in told.rejected} == {"register", "none"}


def test_a_vector_past_the_lanes_takes_all_of_them_into_a_mini_warp() -> None:
    """16 channels over four lanes: three of them each get four."""
    exchange = exchanged(sized(make_problem("cq-16c8b"), 100.0)).exchange
    assert (exchange.fusion, exchange.mini_warp, exchange.shuffles) == ("register", 4, 12)


@pytest.mark.parametrize(
    ("algorithm", "clusters", "reason"),
    [
        ("cq-16c8b", (4,), "there is no other to exchange with"),
        ("cq-1c4b", (), "a vector of 1 is no longer than the 1 element the engine wants of a thread"),
    ],
)
def test_what_is_not_exchanged_is_said(algorithm: str, clusters: tuple[int, ...], reason: str) -> None:
    plan = exchanged(make_problem(algorithm), *clusters)
    assert plan.exchange == Exchange()
    assert decision(plan, "fusion").value == "none"
    assert reason in decision(plan, "fusion").reason


@pytest.mark.parametrize("name", [name for name in STRATEGY if name != "o4"])
def test_others_exchange_nothing(name: str) -> None:
    plan = CachePlan("kernel", "best", STRATEGY[name])
    assert plan_cache_exchange(make_problem("cq-2", head_dim=128), plan) == plan


@pytest.mark.parametrize("op", [{}, {"context": 512, "batch": 1}])
def test_o4_is_o3_and_the_exchange(op: dict[str, Any]) -> None:
    """Blocks, clusters and tiles of o3, and its cache, as far as the scratch of the exchange leaves room."""
    for algorithm in ("cq-2", "cq-1"):
        problem = make_problem(algorithm, q_heads=32, kv_heads=32, head_dim=128, **op)
        o3, o4 = (make_plan(problem, STRATEGIES[level]) for level in ("o3", "o4"))
        assert o3.exchange == Exchange()
        assert o4.clusters == o3.clusters
        assert o3.tile is not None
        assert o4.tile is not None
        assert (o4.tile.warps, type(o4.tile)) == (o3.tile.warps, type(o3.tile))
        scratch = 8 * 32 * 4 * o4.tile.warps if o4.exchange.fusion == "shared" else 0
        assert o4.tile.shared_bytes == o3.tile.shared_bytes + scratch


@given(
    algorithm=st.sampled_from(["cq-1", "cq-2", "cq-4", "kv-4-8-1", "kv-8-6-2"]),
    head_dim=st.sampled_from([64, 128, 256]),
    batch=st.sampled_from([1, 8, 64]),
    gpu=st.sampled_from(gpus.names()),
)
def test_an_exchange_takes_time(algorithm: str, head_dim: int, batch: int, gpu: str) -> None:
    """For a token block. So `best`, which may leave elements where they are, never wants one."""
    problem = make_problem(algorithm, head_dim=head_dim, batch=batch, gpu=gpu)
    plans = [estimate(problem, STRATEGIES[level]) for level in ("o3", "o4")]
    tiles = [plan.tile for plan in plans if plan is not None]
    o3, o4 = (
        block_cycles(tile.block_counts, machine_of(problem.gpu))
        for tile in tiles
        if isinstance(tile, AttentionTile)
    )
    assert o4 >= o3


def test_tiles_are_tried_until_there_are_no_more() -> None:
    problem = make_problem("cq-1", head_dim=128)
    plans = [plan_base(problem, O4, attempt) for attempt in range(9)]
    assert plans[0] is not None
    assert plans[-1] is None
