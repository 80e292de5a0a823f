"""Where entries live: no more than the slack, the hottest nearest, and what a spec says instead."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix import GPUS
from plans import EVERY_STRATEGY, hot_profile, is_legal
from problems import changed, kmeans, problem, problems

from vqcc import gpus
from vqcc.algorithms.presets import resolve
from vqcc.diagnostics import ExitCode, VqccError
from vqcc.levels import STRATEGIES, Strategy
from vqcc.passes.placement import (
    RESERVED_FOR_SUMS,
    cached_tables,
    certain_placement,
    part_tiles,
    place_all,
    place_none,
    place_slack,
)
from vqcc.passes.tile import plan_tile
from vqcc.pipeline import analyze
from vqcc.plan import Placement, Plan, Slack, Split
from vqcc.problem import Boundaries

if TYPE_CHECKING:
    from vqcc.problem import Problem

KIB = 1024
#: Strategies that fill the cache from the slack.
FROM_SLACK = [strategy for strategy in EVERY_STRATEGY.values() if strategy.caching == "slack"]
COPIES = Strategy("slack", copies=32)


def placement_of(plan: Plan) -> Placement:
    assert plan.placement is not None
    return plan.placement


def everything(task: Problem) -> Placement:
    return placement_of(place_all(task, analyze(task, STRATEGIES["sc"])))


def nothing(task: Problem) -> Placement:
    return placement_of(place_none(task, analyze(task, STRATEGIES["gc"])))


def tiled(task: Problem, strategy: Strategy) -> Plan:
    plan = analyze(task, strategy)
    plan = plan_tile(task, plan, certain_placement(task, plan))
    assert plan is not None
    return plan


def from_slack(
    task: Problem,
    strategy: Strategy = STRATEGIES["o2"],
    *,
    registers: int = 0,
    shared: int = 0,
    cut: int = 0,
    split: Split | None = None,
) -> Plan:
    """The plan with the cache filled from a slack of so many registers and bytes."""
    plan = tiled(task, strategy)
    plan = replace(plan, slack=Slack(1, registers, shared), split=split or plan.split)
    return place_slack(task, plan, cut)


def refusal(action: Any, *arguments: Any) -> Any:
    with pytest.raises(VqccError) as caught:
        action(*arguments)
    assert caught.value.exit_code == ExitCode.INPUT
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.help
    return diagnostic


# ---- All or nothing --------------------------------------------------------------------------------------------------


def test_gc_caches_nothing() -> None:
    assert nothing(problem("aqlm-2x8")) == Placement((0, 0), 0, 1, 0)
    assert nothing(problem("gptvq-2", k=1024)) == Placement((0,), 0, 4, 0)


def test_sc_caches_everything() -> None:
    assert everything(problem("aqlm-2x8")) == Placement((0, 0), 256, 1, 8192)


def test_a_computed_decoder_caches_its_rows_and_what_signs_do() -> None:
    assert everything(problem("quip-4")) == Placement((0,), 256, 1, 2048)
    assert nothing(problem("quip-2")) == Placement((0,), 0, 1, 0)


def test_aqlm_3_on_a_99_kb_gpu() -> None:
    diagnostic = refusal(everything, problem("aqlm-3", gpu="rtx4090"))
    assert diagnostic.code == "VQ0403"
    assert diagnostic.message == (
        "level sc cannot hold a codebook of VQ<8,12,2> in shared memory on rtx4090: it takes 131072 bytes, "
        f"a block has at most 101376 and needs {RESERVED_FOR_SUMS} for sums"
    )
    assert "use level: o1" in diagnostic.help
    assert f"at least {131072 + RESERVED_FOR_SUMS} bytes" in diagnostic.help


def test_aqlm_3_where_it_fits() -> None:
    for gpu in ("a100", "h100", "h200", "b200"):
        assert everything(problem("aqlm-3", gpu=gpu)) == Placement((0, 0), 4096, 1, 131072)


@pytest.mark.parametrize("gpu", GPUS)
def test_aqlm_1x16_fits_no_gpu(gpu: str) -> None:
    task = problem("aqlm-1x16", gpu=gpu)
    refused = refusal(everything, task)
    assert f"on {gpu}: it takes 1048576 bytes" in refused.message
    assert refused.help == "use level: o1, which caches what fits, or an algorithm with a smaller codebook"
    assert nothing(task).n_shared == 0
    assert placement_of(from_slack(task, shared=64 * KIB)).n_shared == 4096


def test_what_just_fits() -> None:
    size = resolve("aqlm-2x8").table_bytes + RESERVED_FOR_SUMS
    fits, lacks = (problem("aqlm-2x8", gpu=changed("h200", shared_bytes_per_block=size - i)) for i in (0, 1))
    assert everything(fits).resident_tiles == 1
    assert refusal(everything, lacks).code == "VQ0403"


@pytest.mark.parametrize(("columns", "resident"), [(1024, 1), (10 * 1024, 10), (64 * 1024, 47)])
def test_as_many_books_of_a_row_as_fit(columns: int, resident: int) -> None:
    """A book of 256 entries of 4 float16 takes 2 KB; 99 KB less 4 KB for sums hold 47."""
    tiles = kmeans(scope={"rows": 256, "cols": 1024})
    assert everything(problem(tiles, gpu="rtx4090", k=columns)).resident_tiles == resident


def test_the_decision_says_what_and_why() -> None:
    task = problem(kmeans(scope={"rows": 256, "cols": 256}), gpu="rtx4090", k=1024)
    decision = place_all(task, analyze(task, STRATEGIES["sc"])).decisions[-1]
    assert (decision.name, decision.value) == ("n_shared", 256)
    assert decision.inputs == {"book_bytes": 2048, "shared_bytes_per_block": 101376}
    assert "4 of 4 books along a row are resident" in decision.reason
    assert decision.section == "Table IV"


@given(problems())
def test_placements_of_whole_books_fit(task: Problem) -> None:
    none = nothing(task)
    _, tiles = task.algorithm.scope.grid(*task.op.weight_shape)
    assert (any(none.n_registers), none.n_shared, none.shared_bytes, none.resident_tiles) == (
        False,
        0,
        0,
        tiles,
    )
    if not is_legal(task, STRATEGIES["sc"]):
        return
    placement = everything(task)
    assert 1 <= placement.resident_tiles <= tiles
    assert placement.n_shared == task.algorithm.table_entries
    assert placement.shared_book_bytes == task.algorithm.table_bytes
    room = task.gpu.shared_bytes_per_block.integer - RESERVED_FOR_SUMS
    assert placement.shared_bytes <= room
    assert placement.resident_tiles == tiles or placement.shared_bytes + placement.shared_book_bytes > room


# ---- From the slack --------------------------------------------------------------------------------------------------

slacks = {"registers": st.integers(0, 200), "shared": st.integers(0, 230 * KIB)}
strategies = st.sampled_from(FROM_SLACK)


def with_profile(task: Problem, has_profile: bool) -> Problem:
    return replace(task, profile=(hot_profile(task),)) if has_profile else task


def entry_bytes(task: Problem, plan: Plan, entries: int, copies: int = 1) -> int:
    """Shared memory of the books that a part of a row meets, with so many entries of each table."""
    if not entries:
        return 0
    algorithm = task.algorithm
    rows = cached_tables(task, plan) * entries + algorithm.constant_entries
    book = -(-rows * copies * algorithm.entry_stride // 16) * 16
    return part_tiles(task, plan) * book


@settings(max_examples=300)
@given(problems(), strategies, st.booleans(), slacks["registers"], slacks["shared"])
def test_the_cache_takes_no_more_than_the_slack(
    task: Problem, strategy: Strategy, has_profile: bool, registers: int, shared: int
) -> None:
    task = with_profile(task, has_profile)
    plan = from_slack(task, strategy, registers=registers, shared=shared)
    placement, algorithm = placement_of(plan), task.algorithm
    assert placement.shared_bytes == entry_bytes(task, plan, placement.n_shared, placement.copies) <= shared
    assert 0 <= placement.n_shared <= algorithm.table_entries
    assert len(placement.n_registers) == cached_tables(task, plan)
    held = sum(placement.n_registers) * algorithm.entry_words
    assert held <= registers
    if placement.n_shared:
        assert max(placement.n_registers) <= placement.n_shared
    if not (has_profile and strategy.registers) or part_tiles(task, plan) > 1:
        assert not any(placement.n_registers)
    # What is copied to shared memory is whole words of 16 bytes, from where one begins.
    whole = placement.n_shared * algorithm.entry_stride * placement.copies % 16 == 0
    aligned = algorithm.stage_bytes % 16 == 0 or plan.split.stages == 1
    assert (whole and aligned) or placement.n_shared == 0 or placement.n_shared == algorithm.table_entries
    assert aligned or placement.n_shared == 0


@settings(max_examples=200)
@given(problems(), strategies, slacks["shared"])
def test_no_more_entries_would_fit(task: Problem, strategy: Strategy, shared: int) -> None:
    plan = from_slack(task, strategy, shared=shared)
    found, entries = placement_of(plan).n_shared, task.algorithm.table_entries
    if found == entries:
        return
    ends_inside_a_word = task.algorithm.stage_bytes % 16 != 0
    assert ends_inside_a_word or entry_bytes(task, plan, entries) > shared
    unit = max(1, 16 // task.algorithm.entry_stride)
    assert ends_inside_a_word or entry_bytes(task, plan, found + unit) > shared


@settings(max_examples=200)
@given(problems(), strategies, st.booleans(), slacks["registers"], slacks["shared"], st.integers(0, 64 * KIB))
def test_more_slack_holds_no_less(
    task: Problem, strategy: Strategy, has_profile: bool, registers: int, shared: int, more: int
) -> None:
    task = with_profile(task, has_profile)
    small = placement_of(from_slack(task, strategy, registers=registers, shared=shared))
    large = placement_of(from_slack(task, strategy, registers=registers + more // 512, shared=shared + more))
    assert large.n_shared >= small.n_shared
    more_held = zip(small.n_registers, large.n_registers, strict=True)
    assert all(after >= before for before, after in more_held) or (small.n_shared == 0) != (
        large.n_shared == 0
    )


@settings(max_examples=100)
@given(problems(), slacks["registers"], slacks["shared"])
def test_each_cut_halves_what_registers_hold(task: Problem, registers: int, shared: int) -> None:
    task = with_profile(task, has_profile=True)
    plans = [placement_of(from_slack(task, registers=registers, shared=shared, cut=cut)) for cut in range(5)]
    assert len({plan.n_shared for plan in plans}) == 1
    for before, after in pairwise(plans):
        for fewer, held in zip(after.n_registers, before.n_registers, strict=True):
            assert fewer == 0 or fewer < held


@settings(max_examples=200)
@given(problems(), st.sampled_from([1, 4, 32]), slacks["shared"])
def test_copies(task: Problem, most: int, shared: int) -> None:
    placement = placement_of(from_slack(task, Strategy("slack", copies=most), shared=shared))
    copies, stride = placement.copies, task.algorithm.entry_stride
    assert copies & (copies - 1) == 0
    assert 1 <= copies <= most
    assert copies == 1 or 16 <= copies * stride <= 128
    assert copies == 1 or copies * stride % 16 == 0
    assert copies == 1 or stride >= 4, "entries narrower than a bank share it with their copies"
    plain = placement_of(from_slack(task, STRATEGIES["o1"], shared=shared))
    assert placement.n_shared == plain.n_shared, "copies take what entries leave"


def test_hot_entries_go_to_registers() -> None:
    task = with_profile(problem("vq-4-8-1"), has_profile=True)
    (profile,) = task.profile
    hot = round(profile.statistics().hot)
    assert hot == 8
    words = task.algorithm.entry_words
    assert placement_of(from_slack(task, registers=200, shared=KIB)).n_registers == (hot,)
    assert placement_of(from_slack(task, registers=2 * words, shared=KIB)).n_registers == (2,)
    assert placement_of(from_slack(task, registers=words - 1, shared=KIB)).n_registers == (0,)
    assert placement_of(from_slack(task, STRATEGIES["o1"], registers=200, shared=KIB)).n_registers == (0,)
    assert placement_of(from_slack(task, registers=200, shared=0)).n_shared == 0


@pytest.mark.parametrize(
    ("hot", "registers", "held"),
    [
        ((9, 0), 200, (9, 0)),
        ((9, 3), 200, (9, 3)),
        ((9, 3), 4 * 10, (7, 3)),  # an entry takes four registers
        ((9, 3), 4 * 5, (2, 2)),
        ((0, 0), 200, (0, 0)),
    ],
)
def test_each_table_has_its_own_hot_entries(
    hot: tuple[int, int], registers: int, held: tuple[int, int]
) -> None:
    """A stage without any gets none; where registers are few, the most that all tables can have."""
    task = problem("aqlm-2x8")
    task = replace(task, profile=(hot_profile(task, *hot),)) if any(hot) else task
    plan = from_slack(task, registers=registers, shared=64 * KIB)
    assert placement_of(plan).n_registers == held
    decision = next(each for each in plan.decisions if each.name == "n_registers")
    assert decision.value == (", ".join(map(str, held)) if any(held) and held[0] != held[1] else held[0])
    assert decision.inputs["hot"] == ", ".join(map(str, hot))
    cut = placement_of(from_slack(task, registers=registers, shared=64 * KIB, cut=1))
    assert cut.n_registers == tuple(each >> 1 for each in held)


@pytest.mark.parametrize(
    ("split", "held"), [(Split(), (9, 0, 4, 7)), (Split(1, 2), (4, 0)), (Split(1, 4), (0,))]
)
def test_parts_hold_what_is_hot_in_all_of_them(split: Split, held: tuple[int, ...]) -> None:
    """Parts that do other stages run the same code."""
    stages = kmeans(residuals=4)
    task = problem(stages)
    task = replace(task, profile=(hot_profile(task, 9, 0, 4, 7),))
    plan = from_slack(task, STRATEGIES["o3"], registers=200, shared=64 * KIB, split=split)
    assert placement_of(plan).n_registers == held


@pytest.mark.parametrize(
    ("task", "strategy", "registers", "reason"),
    [
        (problem("vq-4-8-1"), STRATEGIES["o1"], 99, "the level keeps no entries in registers"),
        (problem("vq-4-8-1"), STRATEGIES["o2"], 99, "no entry is hot"),
        (problem("gptvq-2", k=1024), STRATEGIES["o2"], 99, "4 books"),
        (with_profile(problem("vq-4-8-1"), has_profile=True), STRATEGIES["o2"], 0, "no register is slack"),
    ],
)  # fmt: skip
def test_why_no_entry_is_in_registers(task: Problem, strategy: Strategy, registers: int, reason: str) -> None:
    plan = from_slack(task, strategy, registers=registers, shared=64 * KIB)
    decision = next(each for each in plan.decisions if each.name == "n_registers")
    assert (decision.value, placement_of(plan).n_registers) == (0, (0,))
    assert reason in decision.reason


def test_a_cut_is_said() -> None:
    task = with_profile(problem("vq-4-8-1"), has_profile=True)
    plan = from_slack(task, registers=200, shared=64 * KIB, cut=1)
    decision = next(each for each in plan.decisions if each.name == "n_registers")
    assert "overran" in decision.reason


def test_shares_of_places_are_said() -> None:
    """Half of the entries of a table: half of the look-ups without a profile, far more with a skewed one."""
    task = problem("vq-4-8-1")
    plan = from_slack(task, shared=KIB)
    assert placement_of(plan).n_shared == 128
    assert "50.0% of the look-ups go to shared memory, 50.0% to global" in said(plan, "n_shared")
    skewed = from_slack(with_profile(task, has_profile=True), shared=KIB)
    assert "50.0%" not in said(skewed, "n_shared")


def said(plan: Plan, name: str) -> str:
    return next(each.reason for each in plan.decisions if each.name == name)


@pytest.mark.parametrize("stages", [1, 2])
def test_tables_that_end_inside_a_word(stages: int) -> None:
    """Two tables of 8 bytes: copied as one book of 16, but not apart."""
    task = problem(kmeans(vector_size=2, entries=2, residuals=2), k=256)
    plan = from_slack(task, STRATEGIES["o3"], shared=64 * KIB, split=Split(1, stages))
    assert placement_of(plan).n_shared == (2 if stages == 1 else 0)


# ---- Boundaries of a spec --------------------------------------------------------------------------------------------


@settings(max_examples=200)
@given(st.data(), problems(), strategies, st.booleans(), slacks["registers"], slacks["shared"])
def test_boundaries_overrule_the_slack_or_are_refused(
    data: st.DataObject, task: Problem, strategy: Strategy, has_profile: bool, registers: int, shared: int
) -> None:
    entries = task.algorithm.table_entries
    wanted = Boundaries(
        data.draw(st.none() | st.integers(0, min(entries, 40))),
        data.draw(st.none() | st.integers(0, entries)),
    )
    task = replace(with_profile(task, has_profile), boundaries=wanted)
    plan = replace(tiled(task, strategy), slack=Slack(1, registers, shared))
    try:
        placement = placement_of(place_slack(task, plan))
    except VqccError as error:
        (diagnostic,) = error.diagnostics
        assert diagnostic.code == "VQ0406"
        needed = entry_bytes(task, plan, wanted.shared or 0) + plan.tile.shared_bytes  # type: ignore[union-attr]
        too_large = needed > task.gpu.shared_bytes_per_block.integer
        held = (wanted.registers or 0) * cached_tables(task, plan) * task.algorithm.entry_words
        too_many = held >= task.gpu.registers_per_thread.integer
        assert too_large or too_many or (wanted.registers and part_tiles(task, plan) > 1)
        return
    unit = max(1, 16 // task.algorithm.entry_stride)
    if wanted.shared is not None:
        ends_inside_a_word = task.algorithm.stage_bytes % 16 != 0 and placement.n_shared == 0
        assert wanted.shared - unit < placement.n_shared <= wanted.shared or ends_inside_a_word
    if wanted.registers is not None:
        most = placement.n_shared or wanted.registers
        assert set(placement.n_registers) == {min(wanted.registers, most)}
    if wanted.shared is not None:
        needed = placement.shared_bytes + plan.tile.shared_bytes  # type: ignore[union-attr]
        assert needed <= task.gpu.shared_bytes_per_block.integer
    if part_tiles(task, plan) > 1:
        assert not any(placement.n_registers), "registers hold entries of one book"


def test_boundaries_that_no_block_can_have() -> None:
    task = problem("aqlm-3", gpu="rtx4090", boundaries=Boundaries(shared=4096))
    diagnostic = refusal(from_slack, task)
    assert diagnostic.code == "VQ0406"
    assert "a block of rtx4090 has at most 101376" in diagnostic.message
    found = re.match(r"lower cache\.shared to (\d+) or less", diagnostic.help or "")
    assert found
    most = int(found.group(1))
    assert from_slack(replace(task, boundaries=Boundaries(shared=most))).placement.n_shared == most
    assert refusal(from_slack, replace(task, boundaries=Boundaries(shared=most + 1))).code == "VQ0406"


def test_registers_of_several_books() -> None:
    for shared in (None, 128):
        diagnostic = refusal(from_slack, problem("gptvq-2", k=1024, boundaries=Boundaries(2, shared)))
        assert diagnostic.code == "VQ0406"
        assert "4 books" in diagnostic.message
        assert "cache.registers: 0" in diagnostic.help


def test_more_entries_than_a_thread_has_registers() -> None:
    """64 entries of 8 float16 take 256 registers."""
    diagnostic = refusal(from_slack, problem("quip-2", boundaries=Boundaries(registers=255)))
    assert "255 entries of 1 table take 255 registers" in diagnostic.message
    task = problem(kmeans(vector_size=8), boundaries=Boundaries(registers=64))
    assert "take 256 registers; a thread of h200 has 255" in refusal(from_slack, task).message
    fitting = problem(kmeans(vector_size=8), boundaries=Boundaries(registers=63))
    assert placement_of(from_slack(fitting)).n_registers == (63,)


def test_boundaries_are_named_in_the_decisions() -> None:
    task = problem("vq-4-8-1", boundaries=Boundaries(3, 64))
    plan = from_slack(task)
    formulas = {each.name: each.formula for each in plan.decisions}
    assert formulas["n_registers"] == "the spec's cache.registers"
    assert formulas["n_shared"] == "the spec's cache.shared"
    assert (placement_of(plan).n_registers, placement_of(plan).n_shared) == ((3,), 64)


def test_why_not_all_entries_are_shared() -> None:
    """The slack may be what is too small, or the spec may ask for fewer than it holds."""
    task = problem("vq-4-8-1", boundaries=Boundaries(shared=64))

    def reason(task: Problem, shared: int) -> str:
        plan = from_slack(task, shared=shared)
        (rejected,) = next(each for each in plan.decisions if each.name == "n_shared").rejected
        assert rejected.value == task.algorithm.table_entries
        return rejected.reason

    assert (
        reason(task, 115 * KIB) == "the spec asks for fewer, though they take 2048 bytes of a slack of 117760"
    )
    assert "more than the slack of 1024" in reason(task, KIB)
    assert "more than the slack of 1024" in reason(problem("vq-4-8-1"), KIB)
    tables = problem(kmeans(vector_size=2, entries=2, residuals=2), k=256)
    plan = from_slack(tables, STRATEGIES["o3"], shared=KIB, split=Split(1, 2))
    (rejected,) = next(each for each in plan.decisions if each.name == "n_shared").rejected
    assert rejected.reason == "a table of 8 bytes cannot be copied by words of 16"


@pytest.mark.parametrize("copies", [1, 4, 32])
def test_copies_of_boundaries_fit_too(copies: int) -> None:
    task = problem("vq-4-8-1", gpu="rtx4090", boundaries=Boundaries(shared=256))
    for shared in (0, 4 * KIB, 64 * KIB):
        plan = from_slack(task, Strategy("slack", copies=copies), shared=shared)
        assert placement_of(plan).n_shared == 256
        assert placement_of(plan).shared_bytes <= max(shared, 2 * KIB)


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
