"""Tiles that are tried for attention: they fit the GPU, and cover all query rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from caches import STRATEGY, make_problem
from hypothesis import given
from hypothesis import strategies as st

from vqcc import gpus
from vqcc.ops.attention.proposals import propose_tiles
from vqcc.passes.cache.dataflow import CACHE_DATAFLOWS, cache_refusals
from vqcc.passes.cache.layout import plan_cache_layout
from vqcc.passes.cache.tile import plan_cache_tile, work_of
from vqcc.passes.tile import machine_of
from vqcc.plan import CachePlan

if TYPE_CHECKING:
    from vqcc.levels import Dataflow


@given(
    dataflow=st.sampled_from(CACHE_DATAFLOWS),
    algorithm=st.sampled_from(["cq-1", "cq-2", "cq-4", "kv-4-8-1"]),
    group=st.integers(1, 16),
    query_tokens=st.integers(1, 8),
    head_dim=st.sampled_from([64, 128, 256]),
    batch=st.integers(1, 1024),
    gpu=st.sampled_from(gpus.names()),
)
def test_tiles_fit(
    dataflow: Dataflow, algorithm: str, group: int, query_tokens: int, head_dim: int, batch: int, gpu: str
) -> None:
    op = {"q_heads": 2 * group, "query_tokens": query_tokens, "head_dim": head_dim, "batch": batch}
    problem = make_problem(algorithm, gpu=gpu, **op)
    if list(cache_refusals(problem, dataflow)):
        return
    plan = plan_cache_layout(
        problem, CachePlan("kernel", "best", STRATEGY["gc" if dataflow == "decode" else dataflow])
    )
    machine = machine_of(problem.gpu)
    for tile, decisions in propose_tiles(dataflow, work_of(problem, plan), machine):
        assert tile.shared_bytes <= machine.shared_bytes_per_block
        assert 32 * tile.warps <= machine.threads_per_block
        assert 32 * tile.warps * tile.register_cap <= machine.registers_per_block
        assert tile.rows * tile.row_sets >= problem.op.query_rows
        units = tile.work.sequence_blocks * tile.work.layout.heads * tile.work.batch * tile.row_sets
        assert 1 <= tile.blocks <= units
        assert tile.roundings > problem.op.context
        assert {each.name for each in decisions} == {"query_rows", "warps", "shares"}


@pytest.mark.parametrize("dataflow", CACHE_DATAFLOWS)
def test_there_are_tiles_for_spills_to_go_on_with(dataflow: Dataflow) -> None:
    problem = make_problem("cq-2", q_heads=8, head_dim=128)
    plan = plan_cache_layout(
        problem, CachePlan("kernel", "best", STRATEGY["gc" if dataflow == "decode" else dataflow])
    )
    caps = []
    while (tried := plan_cache_tile(problem, plan, len(caps))) is not None:
        assert tried.tile is not None
        caps.append((tried.tile.warps, tried.tile.register_cap))
    assert len(caps) > 1
