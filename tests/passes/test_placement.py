from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from matrix import GPUS
from problems import changed, kmeans, problem, problems

from vqcc import gpus
from vqcc.algorithms.presets import resolve
from vqcc.diagnostics import ExitCode, VqccError
from vqcc.passes.placement import plan_placement
from vqcc.plan import Placement, Plan

if TYPE_CHECKING:
    from vqcc.problem import Problem


def place(task: Problem) -> Placement:
    placement = plan_placement(task, Plan(task.kernel, task.level)).placement
    assert placement is not None
    return placement


def refusal(task: Problem) -> VqccError:
    with pytest.raises(VqccError) as caught:
        place(task)
    assert caught.value.exit_code == ExitCode.INPUT
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "VQ0403"
    return caught.value


def test_gc_caches_nothing() -> None:
    placement = place(problem("aqlm-2x8", level="gc"))
    assert placement == Placement(0, 0, 1, 8192)
    assert not placement.in_shared


def test_sc_caches_everything() -> None:
    placement = place(problem("aqlm-2x8", level="sc"))
    assert placement == Placement(0, 256, 1, 8192)
    assert placement.in_shared


def test_a_computed_decoder_caches_its_own_table() -> None:
    assert place(problem("quip-4", level="sc")) == Placement(0, 256, 1, 1024)
    assert place(problem("quip-2", level="gc")) == Placement(0, 0, 1, 1024)


def test_aqlm_3_on_a_99_kb_gpu() -> None:
    diagnostic = refusal(problem("aqlm-3", gpu="rtx4090")).diagnostics[0]
    assert diagnostic.message == (
        "level sc cannot hold a codebook of VQ<8,12,2> in shared memory on rtx4090: it takes 131072 bytes, "
        "a block has at most 101376"
    )
    assert diagnostic.help is not None
    assert "use level: gc" in diagnostic.help
    assert "at least 131072 bytes" in diagnostic.help


def test_aqlm_3_where_it_fits() -> None:
    for gpu in ("a100", "h100", "h200", "b200"):
        assert place(problem("aqlm-3", gpu=gpu)) == Placement(0, 4096, 1, 131072)


@pytest.mark.parametrize("gpu", GPUS)
def test_aqlm_1x16_fits_no_gpu(gpu: str) -> None:
    message = refusal(problem("aqlm-1x16", gpu=gpu)).diagnostics[0].message
    assert f"on {gpu}: it takes 1048576 bytes" in message
    assert place(problem("aqlm-1x16", gpu=gpu, level="gc")).n_shared == 0


def test_what_just_fits() -> None:
    size = resolve("aqlm-2x8").table_bytes
    assert place(problem("aqlm-2x8", gpu=changed("h200", shared_bytes_per_block=size))).resident_tiles == 1
    refusal(problem("aqlm-2x8", gpu=changed("h200", shared_bytes_per_block=size - 1)))


@pytest.mark.parametrize(("columns", "resident"), [(1024, 1), (10 * 1024, 10), (64 * 1024, 49)])
def test_as_many_books_of_a_row_as_fit(columns: int, resident: int) -> None:
    """A book of 256 entries of 4 float16 takes 2 KB; 99 KB hold 49."""
    tiles = kmeans(scope={"rows": 256, "cols": 1024})
    assert place(problem(tiles, gpu="rtx4090", k=columns)).resident_tiles == resident


def test_the_decision_says_what_and_why() -> None:
    task = problem(kmeans(scope={"rows": 256, "cols": 256}), gpu="rtx4090", k=1024)
    (decision,) = plan_placement(task, Plan(task.kernel, task.level)).decisions
    assert (decision.name, decision.value) == ("n_shared", 256)
    assert decision.inputs == {"table_bytes": 2048, "shared_bytes_per_block": 101376}
    assert "4 of 4 books along a row are resident" in decision.reason
    assert decision.section == "Table IV"


@given(problems())
def test_placements_fit(task: Problem) -> None:
    placement = place(task)
    limit = task.gpu.shared_bytes_per_block.integer
    _, tiles = task.algorithm.scope.grid(*task.op.weight_shape)
    assert 1 <= placement.resident_tiles <= tiles
    assert placement.table_bytes == task.algorithm.table_bytes
    if task.level == "gc":
        assert not placement.in_shared
        assert placement.resident_tiles == tiles
    else:
        assert placement.n_shared == task.algorithm.table_entries
        held = placement.resident_tiles * placement.table_bytes
        assert held <= limit
        assert placement.resident_tiles == tiles or held + placement.table_bytes > limit


def test_gpus_have_the_limits_that_these_tests_think() -> None:
    found = {name: gpus.load(name).shared_bytes_per_block.integer // 1024 for name in GPUS}
    assert found == {
        "rtx4090": 99,
        "a40": 99,
        "l40s": 99,
        "a100": 163,
        "h100": 227,
        "h200": 227,
        "b200": 227,
        "rtx5090": 99,
    }
