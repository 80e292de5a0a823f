"""How many blocks share a head's channels out: least bytes, where blocks can."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from caches import make_problem

from vqcc.levels import STRATEGIES
from vqcc.passes.cache.split import cluster_sizes, plan_cache_split
from vqcc.plan import CachePlan

if TYPE_CHECKING:
    from vqcc.plan import Decision
    from vqcc.problem import CacheProblem


def split(problem: CacheProblem) -> tuple[CachePlan, Decision]:
    plan = plan_cache_split(problem, CachePlan("kernel", "o3", STRATEGIES["o3"]))
    (decision,) = plan.decisions
    return plan, decision


@pytest.mark.parametrize(
    ("context", "batch", "blocks"), [(64, 1, 8), (512, 1, 4), (4096, 4, 2), (4096, 64, 1)]
)
def test_books_are_weighed_against_partial_scores(context: int, batch: int, blocks: int) -> None:
    """Of 32 heads of CQ-2: the more tokens, the fewer blocks share their scores."""
    problem = make_problem("cq-2", q_heads=32, kv_heads=32, head_dim=128, context=context, batch=batch)
    plan, decision = split(problem)
    assert decision.value == blocks
    assert plan.clusters == (() if blocks == 1 else (blocks,))
    assert {each.value for each in decision.rejected} == {1, 2, 4, 8} - {blocks}


def test_few_long_sequences_do_not_leave_most_sms_idle() -> None:
    """Clusters work on whole sequences: a batch of one on eight heads has 16 blocks of two for 132 SMs."""
    problem = make_problem("cq-2", q_heads=32, kv_heads=8, head_dim=128, context=4096, batch=1)
    plan, decision = split(problem)
    assert plan.clusters == ()
    why = {each.value: each.reason for each in decision.rejected}
    assert {value for value, reason in why.items() if "idle" in reason} == {2, 4, 8}


@pytest.mark.parametrize(
    ("algorithm", "gpu", "reason"),
    [("cq-2", "a100", "a100 has no clusters"), ("cq-1c4b", "h200", "vectors of 1 have none")],
)
def test_what_cannot_be_shared_is_said(algorithm: str, gpu: str, reason: str) -> None:
    problem = make_problem(algorithm, gpu=gpu, head_dim=128, context=64, batch=1)
    assert cluster_sizes(problem, "decode") == ()
    plan, decision = split(problem)
    assert plan.clusters == ()
    assert reason in decision.reason


def test_keys_alone_may_be_single_channels() -> None:
    assert cluster_sizes(make_problem("cq-1c4b", "cq-2", head_dim=128), "decode") == (2, 4, 8)
