"""Plans as text: a summary of each kernel, its decisions, and the GPU's numbers that nobody measured."""

from __future__ import annotations

from typing import Any

import pytest

from vqcc.cli.decisions import show_plans

PLAN: dict[str, Any] = {
    "kernel": "tiny_m1_float16_0123abcd",
    "level": "o4",
    "decisions": [],
    "split": {"tiles": 1, "stages": 1},
    "exchange": {"engine": "fma", "fusion": "none", "shuffles": 0, "mini_warp": 1},
    "placement": {"n_registers": [0], "n_shared": 0},
    "launch": {
        "grid": 132,
        "threads": 256,
        "blocks_per_sm": 4,
        "limited_by": "registers",
        "workspace_bytes": 0,
    },
    "predicted_us": None,
}


def shown(capsys: pytest.CaptureFixture[str], plan: dict[str, Any], *facts: dict[str, Any]) -> list[str]:
    show_plans({"h200": {"kernels": [{**PLAN, **plan}], "uncalibrated": facts}})
    return capsys.readouterr().out.splitlines()


def test_the_plainest_kernel(capsys: pytest.CaptureFixture[str]) -> None:
    assert shown(capsys, {}) == [
        "h200: tiny_m1_float16_0123abcd, level o4",
        "  fma, fusion none; no entries cached; no split; 132 blocks of 256 threads, 4 per SM (registers)",
    ]


def test_all_that_a_kernel_may_have(capsys: pytest.CaptureFixture[str]) -> None:
    plan = {
        "split": {"tiles": 4, "stages": 2},
        "exchange": {"engine": "mma", "fusion": "register", "shuffles": 3, "mini_warp": 4},
        "placement": {"n_registers": [8, 8], "n_shared": 256},
        "launch": {**PLAN["launch"], "workspace_bytes": 1048576},
        "predicted_us": 12.345,
    }
    (_, summary) = shown(capsys, plan)
    assert summary.split("; ") == [
        "  mma, fusion register (3 shuffles in mini-warps of 4)",
        "entries [0, 8) in registers, [8, 256) in shared memory",
        "split 8 ways (4 of columns x 2 of stages)",
        "132 blocks of 256 threads, 4 per SM (registers)",
        "1,048,576 bytes of workspace",
        "12.3 us predicted",
    ]


@pytest.mark.parametrize(
    ("registers", "shared", "text"),
    [
        ([0], 16, "entries [0, 16) in shared memory"),
        ([16, 16], 16, "entries [0, 16) in registers"),
        ([16], 0, "entries [0, 16) in registers"),
        (
            [9, 0],
            16,
            "entries by table: [0, 9) in registers, [9, 16) in shared memory | [0, 16) in shared memory",
        ),
        ([9, 0], 0, "entries by table: [0, 9) in registers | none cached"),
    ],
)
def test_where_entries_are(
    registers: list[int], shared: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (_, summary) = shown(capsys, {"placement": {"n_registers": registers, "n_shared": shared}})
    assert f"; {text}; " in summary


def test_one_shuffle(capsys: pytest.CaptureFixture[str]) -> None:
    exchange = {"engine": "mma", "fusion": "register", "shuffles": 1, "mini_warp": 2}
    (_, summary) = shown(capsys, {"exchange": exchange})
    assert summary.startswith("  mma, fusion register (1 shuffle in mini-warps of 2); ")


def test_a_decision_with_what_it_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    decision = {
        "name": "split",
        "value": 4,
        "formula": "sqrt(codebook bytes / output bytes)",
        "inputs": {"codebook_bytes": 131072, "ratio": 1 / 3},
        "reason": "the least traffic",
        "section": "Sec. VI-A",
        "rejected": [{"value": 8, "reason": "partial sums weigh more"}, {"value": 1, "reason": "idle SMs"}],
    }
    bare = {**decision, "inputs": {}, "section": "", "rejected": [], "value": 0.1 + 0.2}
    assert shown(capsys, {"decisions": [decision, bare]})[2:] == [
        "  split = 4  [Sec. VI-A]",
        "      sqrt(codebook bytes / output bytes)",
        "      with codebook_bytes = 131072, ratio = 0.333333",
        "      the least traffic",
        "      instead of 8: partial sums weigh more",
        "      instead of 1: idle SMs",
        "  split = 0.3",
        "      sqrt(codebook bytes / output bytes)",
        "      the least traffic",
    ]


def test_numbers_that_nobody_measured(capsys: pytest.CaptureFixture[str]) -> None:
    facts = [
        {"name": "l2_bytes", "value": 62914560, "confidence": "memory", "source": "from memory"},
        {"name": "dram_bytes_per_second", "value": 4.8e12, "confidence": "datasheet", "source": "NVIDIA"},
    ]
    assert shown(capsys, {}, *facts)[2:] == [
        "h200: uncalibrated: l2_bytes = 62914560 (memory: from memory)",
        "h200: uncalibrated: dram_bytes_per_second = 4.8e+12 (datasheet: NVIDIA)",
    ]
