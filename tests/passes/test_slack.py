"""Slack costs no occupancy, and there is no more of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from problems import problem

from vqcc import gpus
from vqcc.gpus.occupancy import blocks_per_sm
from vqcc.passes.slack import find_slack, plan_slack
from vqcc.plan import Plan, Slack

if TYPE_CHECKING:
    from vqcc.gpus.model import Gpu

H200, RTX4090 = gpus.load("h200"), gpus.load("rtx4090")
KIB = 1024

any_gpu = st.sampled_from([gpus.load(name) for name in gpus.names()])
threads = st.integers(1, 1024)
registers = st.integers(0, 255)
shared = st.integers(0, 230 * KIB)
laws = settings(max_examples=300)


@laws
@given(any_gpu, threads, registers, shared)
def test_slack_used_up_costs_no_block(gpu: Gpu, threads: int, registers: int, shared: int) -> None:
    base = blocks_per_sm(gpu, threads, registers, shared).blocks
    slack = find_slack(gpu, threads=threads, registers=registers, shared_bytes=shared)
    assert slack.blocks_per_sm == base
    used = blocks_per_sm(gpu, threads, registers + slack.registers, shared + slack.shared_bytes)
    assert used.blocks == base


@laws
@given(any_gpu, threads, registers, shared)
def test_one_more_of_either_costs_a_block(gpu: Gpu, threads: int, registers: int, shared: int) -> None:
    slack = find_slack(gpu, threads=threads, registers=registers, shared_bytes=shared)
    if not slack.blocks_per_sm:
        assert slack == Slack(0, 0, 0)
        return
    more = blocks_per_sm(gpu, threads, registers + slack.registers + 1, shared)
    assert more.blocks < slack.blocks_per_sm
    more = blocks_per_sm(gpu, threads, registers, shared + slack.shared_bytes + 1)
    assert more.blocks < slack.blocks_per_sm


@pytest.mark.parametrize(
    ("gpu", "threads", "registers", "shared", "slack"),
    [
        # 8 blocks of 8 warps fill the SM: 32 registers a thread, 228 KiB / 8 less the reserved one.
        (H200, 256, 32, 0, Slack(8, 0, 27 * KIB + 512)),
        # 65 registers round up to 72: 3 blocks, and 80 would still be 3; a block has 228 / 3 - 1 KiB.
        (H200, 256, 65, 0, Slack(3, 15, 75 * KIB)),
        # One block whatever happens, up to the limits of a block and of a thread.
        (H200, 256, 168, 100 * KIB, Slack(1, 87, 127 * KIB)),
        (RTX4090, 128, 40, 2 * KIB, Slack(12, 0, 5 * KIB + 256)),
        (RTX4090, 256, 64, 12 * KIB, Slack(4, 0, 12 * KIB)),
        (RTX4090, 1056, 32, 0, Slack(0, 0, 0)),
        # docs/passes.md: room for 16 books of 2 KB on both.
        (H200, 256, 80, 128, Slack(3, 0, 76_672)),
        (RTX4090, 256, 80, 128, Slack(3, 0, 32_896)),
    ],
)
def test_points_by_hand(gpu: Gpu, threads: int, registers: int, shared: int, slack: Slack) -> None:
    assert find_slack(gpu, threads=threads, registers=registers, shared_bytes=shared) == slack


def test_the_decision_has_the_numbers() -> None:
    task = problem("aqlm-2x8", gpu="h200")
    plan = plan_slack(task, Plan(task.kernel, "o1"), threads=256, registers=65, shared_bytes=0)
    assert plan.slack == Slack(3, 15, 75 * KIB)
    (decision,) = plan.decisions
    assert (decision.name, decision.value) == ("slack", "15 registers, 76800 bytes")
    assert decision.inputs == {
        "blocks_per_sm": 3,
        "threads": 256,
        "base_registers": 65,
        "base_shared_bytes": 0,
    }
    assert [(each.value, each.reason) for each in decision.rejected] == [
        ("16 registers", "2 blocks per SM instead of 3"),
        ("76928 bytes", "2 blocks per SM instead of 3"),
    ]


def test_limits_of_a_thread_and_a_block_are_named() -> None:
    task = problem("aqlm-2x8", gpu="h200")
    plan = plan_slack(task, Plan(task.kernel, "o1"), threads=256, registers=168, shared_bytes=100 * KIB)
    reasons = [each.reason for each in plan.decisions[-1].rejected]
    assert reasons == ["no block fits the SM", "no block fits the SM"]
