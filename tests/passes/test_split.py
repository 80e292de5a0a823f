"""How far a row is split, and when not at all."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plans import EVERY_STRATEGY, hot_profile, is_legal
from problems import kmeans, problem, problems

from vqcc.levels import STRATEGIES, Strategy
from vqcc.passes.axes import find_axes
from vqcc.passes.exchange import plan_exchange
from vqcc.passes.layout import plan_layout
from vqcc.passes.split import SplitCase, best_factor, choose_split, plan_split, weigh_split
from vqcc.pipeline import estimate
from vqcc.plan import Plan, Split

if TYPE_CHECKING:
    from vqcc.problem import Problem

KIB = 1024


#: Four lanes share a row, whatever the rows of x.
ALIGNED = Strategy("slack", codebook_centric=True, fusion="aligned")


def planned(task: Problem, strategy: Strategy = STRATEGIES["o3"]) -> Plan:
    """What bytes propose."""
    plan = plan_layout(task, Plan(task.kernel, "best", strategy))
    return plan_split(task, plan_exchange(task, plan))


def case(**changes: Any) -> SplitCase:
    """Tiles of 256 x 256 over 4096 x 4096: 16 books of 2 KB along a row, 16 bands."""
    base = SplitCase(
        output_bytes=16 * KIB,
        book_bytes=2 * KIB,
        column_tiles=16,
        stages=1,
        row_blocks=256,
        bands=16,
        code_bytes=4096 * KIB,
        slots=528,
        sm_count=132,
    )
    return replace(base, **changes)


@pytest.mark.parametrize(
    ("preset", "shape", "switch", "split"),
    [
        # Table III: R for AQLM, M and N for GPTVQ; of these R and the summed axis may be split.
        ("aqlm-3", (4096, 4096), ("residual",), ("residual",)),
        ("aqlm-2x8", (4096, 4096), ("residual",), ("residual",)),
        ("gptvq-2", (4096, 4096), ("n", "k"), ("k",)),
        ("gptvq-2", (4096, 256), ("n",), ()),
        ("gptvq-2", (256, 4096), ("k",), ("k",)),
        # One stage, or stages that share one computed table: nothing switches.
        ("aqlm-1x16", (4096, 4096), (), ()),
        ("quip-4", (4096, 4096), (), ()),
    ],
)
def test_axes(preset: str, shape: tuple[int, int], switch: tuple[str, ...], split: tuple[str, ...]) -> None:
    axes = find_axes(problem(preset, n=shape[0], k=shape[1]))
    assert axes.all == ("m", "n", "k", "residual")
    assert axes.reduce == ("k", "residual")
    assert (axes.switch, axes.split) == (switch, split)


def test_tiles_with_stages_switch_along_both() -> None:
    tiles = kmeans(residuals=2, scope={"rows": 256, "cols": 256})
    assert find_axes(problem(tiles, n=512, k=1024)).split == ("k", "residual")


@given(st.integers(1, 2**40), st.integers(1, 2**30))
def test_at_the_best_factor_both_traffics_are_equal(codebook: int, output: int) -> None:
    factor = best_factor(codebook, output)
    assert factor >= 1
    if codebook >= output:
        assert math.isclose(factor * output, codebook / factor, rel_tol=1e-9)
    else:
        assert factor == 1


def test_large_outputs_are_not_split() -> None:
    """Table V: 32 KB of output a block of GeMM against 2 KB of codebook; less than 1 KB for GeMV against 32 KB."""
    assert best_factor(2 * KIB, 32 * KIB) == 1
    assert best_factor(32 * KIB, 32 * KIB) == 1
    assert best_factor(32 * KIB, KIB // 2) == 8
    assert choose_split(case(output_bytes=256 * 32 * KIB)) == Split()


def test_parts_share_the_slots() -> None:
    """The paper's original / factor, as long as the GPU is full; a book is loaded once at least."""
    full = case(row_blocks=100_000, bands=1)
    original = full.codebook_bytes()
    assert original == 528 * 32 * KIB
    for tiles in (2, 4, 16):
        assert full.codebook_bytes(Split(tiles)) == original / tiles
    assert case(bands=300).codebook_bytes(Split(16)) == 300 * 32 * KIB
    # 100 row blocks leave slots free: two parts of them load what one did.
    assert case(row_blocks=100).codebook_bytes(Split(2)) == case(row_blocks=100).codebook_bytes()


def test_an_idle_gpu_is_filled() -> None:
    """33 row blocks on 132 SMs: parts that spare no traffic still put SMs to work."""
    small = case(row_blocks=33, bands=1, slots=132, book_bytes=16)
    assert small.codebook_bytes(Split(4)) == small.codebook_bytes()
    assert (small.busy(Split()), small.busy(Split(4))) == (0.25, 1.0)
    assert choose_split(small) == Split(4)


def test_codes_are_read_again_by_parts_of_the_stages() -> None:
    stages = case(column_tiles=1, stages=2, book_bytes=128 * KIB, bands=1, slots=132)
    saved = stages.codebook_bytes() - stages.codebook_bytes(Split(1, 2))
    assert saved == 66 * 128 * KIB
    assert choose_split(stages) == Split(1, 2)
    assert choose_split(replace(stages, code_bytes=saved)) == Split()


def cases() -> st.SearchStrategy[SplitCase]:
    count = st.integers(1, 5000)
    return st.builds(
        SplitCase,
        output_bytes=st.integers(4, 2**24),
        book_bytes=st.integers(16, 2**18),
        column_tiles=st.integers(1, 64),
        stages=st.integers(1, 8),
        row_blocks=count,
        bands=st.integers(1, 64),
        code_bytes=st.integers(1, 2**28),
        slots=count,
        sm_count=st.integers(1, 200),
        smallest_tiles=st.integers(1, 70),
    )


@settings(max_examples=300)
@given(cases())
def test_no_legal_split_is_cheaper(task: SplitCase) -> None:
    split = choose_split(task)
    legal = list(task.legal())
    assert split in legal
    assert all(task.cost(split) <= task.cost(other) for other in legal)
    for each in legal:
        part = -(-task.column_tiles // each.tiles)
        assert (each.tiles - 1) * part < task.column_tiles, "the last part has column tiles"
        assert part >= min(task.smallest_tiles, task.column_tiles)
        assert task.stages % each.stages == 0
        assert each.stages == 1 or each.tiles == max(other.tiles for other in legal)
        assert each.factor == 1 or each.factor <= task.slots
        assert task.codebook_bytes(each) <= task.codebook_bytes()


def test_tiles_are_split_as_the_formula_says() -> None:
    plan = planned(problem("gptvq-2", n=4096, k=4096), ALIGNED)
    assert plan.split == Split(tiles=16)
    decision = plan.decisions[-1]
    assert (decision.name, decision.value, decision.section) == ("split", 16, "VI-A")
    assert decision.inputs["codebook_traffic"] == 256 * 32 * KIB
    assert decision.inputs["output_bytes"] == 16 * KIB
    assert decision.inputs["factor*"] == round(math.sqrt(512), 2)
    assert [each.value for each in decision.rejected] == ["1 x 1", "8 x 1"]


def test_sixteen_rows_of_x_want_fewer_parts() -> None:
    one = planned(problem("gptvq-2", n=4096, k=4096, m=1), ALIGNED).split
    many = planned(problem("gptvq-2", n=4096, k=4096, m=16), ALIGNED).split
    assert 1 < many.tiles < one.tiles


def test_stages_are_split_where_books_outweigh_codes() -> None:
    """AQLM-3 on an H200: 132 blocks load 16.5 MB of codebooks; 4096 x 4096 weights have 6 MB of codes."""
    assert planned(problem("aqlm-3", n=4096, k=4096)).split == Split(1, 2)
    plan = planned(problem("aqlm-3", n=22016, k=8192))
    assert plan.split == Split()
    assert "a split costs more than it spares" in plan.decisions[-1].reason
    assert plan.decisions[-1].rejected[0].value == "1 x 2"


def test_small_books_are_not_split() -> None:
    assert planned(problem("aqlm-2x8", n=11008, k=4096)).split == Split()


@pytest.mark.parametrize("level", ["gc", "sc", "o1", "o2"])
def test_below_o3_rows_are_whole(level: str) -> None:
    plan = planned(problem("gptvq-2", n=4096, k=4096), STRATEGIES[level])
    assert plan.split == Split()
    assert plan.decisions[-1].reason == "the level gives blocks whole rows"


def test_what_does_not_switch_is_not_split() -> None:
    plan = planned(problem("quip-4", n=4096, k=4096))
    assert plan.split == Split()
    decision = plan.decisions[-1]
    assert decision.inputs == {"switch_axes": "none", "reduce_axes": "k, residual"}
    assert "a split would spare no load" in decision.reason


@pytest.mark.parametrize(
    ("smallest", "parts"), [(1, {1, 2, 3, 4, 5, 8, 15}), (4, {1, 2, 3, 4}), (7, {1, 2}), (20, {1})]
)
def test_no_part_is_smaller_than_the_lanes_need(smallest: int, parts: set[int]) -> None:
    """15 column tiles, cut into parts of 15, 8, 5, 4, 3, 2 or 1, of which the last may be shorter."""
    legal = case(column_tiles=15, smallest_tiles=smallest).legal()
    assert {split.tiles for split in legal} == parts


def test_lanes_that_share_a_row_need_codes_of_their_own() -> None:
    """A column tile of 256 has 64 vectors in chunks of 16: four lanes of a tensor core take one tile, 32 take eight."""
    task = problem("gptvq-2", n=4096, k=4096, m=16)
    alone, shared = planned(task), planned(task, ALIGNED)
    assert (alone.exchange.lanes, shared.exchange.lanes) == (32, 4)
    tiles_of = {plan.exchange.lanes: -(-16 // plan.split.tiles) for plan in (alone, shared)}
    assert tiles_of[32] * 64 >= 32 * 16  # type: ignore[operator]
    assert tiles_of[4] * 64 >= 4 * 16


@settings(max_examples=150)
@given(problems())
def test_splits_divide_what_they_cut(task: Problem) -> None:
    split = planned(task).split
    _, column_tiles = task.algorithm.scope.grid(*task.op.weight_shape)
    assert (split.tiles - 1) * -(-column_tiles // split.tiles) < column_tiles
    assert task.algorithm.table_count % split.stages == 0


# ---- Proposal against whole rows -------------------------------------------------------------------------------------


@settings(max_examples=100)
@given(problems(), st.sampled_from([*EVERY_STRATEGY.values()]), st.booleans())
def test_a_split_is_made_only_where_it_is_predicted_to_be_faster(
    task: Problem, strategy: Strategy, has_profile: bool
) -> None:
    if not is_legal(task, strategy):
        return
    task = replace(task, profile=(hot_profile(task),) if has_profile else ())
    free = estimate(task, strategy)
    whole = estimate(task, replace(strategy, codebook_centric=False))
    assert free is not None
    assert whole is not None
    assert free.predicted_us is not None
    assert whole.predicted_us is not None
    if free.split == Split():
        assert free.predicted_us == whole.predicted_us
    else:
        assert free.predicted_us < whole.predicted_us


def test_bytes_propose_a_split_that_is_slower() -> None:
    """Ten parts spare codebooks, and each of the many items pays for its partial sums: whole rows win."""
    task = problem("gptvq-2", level="o3", n=8192, k=22016, m=16)
    proposal = planned(task)
    assert proposal.split.tiles > 1
    plan = estimate(task, STRATEGIES["o3"])
    assert plan is not None
    assert plan.split == Split()
    (decision,) = (each for each in plan.decisions if each.name == "split")
    assert decision.value == 1
    assert decision.inputs["whole_us"] < decision.inputs["split_us"]
    assert f"whole rows are predicted to take {decision.inputs['whole_us']:g} us" in decision.reason
    slower = decision.rejected[0]
    assert slower.value == f"{proposal.split.tiles} x 1"
    assert slower.reason.startswith(f"predicted to take {decision.inputs['split_us']:g} us")
    assert "KB of codebooks" in slower.reason


def test_a_split_that_is_faster_says_by_how_much() -> None:
    task = problem("aqlm-3", n=16, k=65536)
    plan = estimate(task, STRATEGIES["o3"])
    assert plan is not None
    assert plan.split == Split(1, 2)
    (decision,) = (each for each in plan.decisions if each.name == "split")
    assert decision.value == 2
    assert decision.reason.startswith(f"predicted to take {decision.inputs['split_us']:g} us")
    whole = decision.rejected[0]
    assert whole.value == "1 x 1"
    assert whole.reason.startswith(f"predicted to take {decision.inputs['whole_us']:g} us")


def test_the_smaller_split_wins_a_tie_and_what_cannot_be_made_loses() -> None:
    proposal = planned(problem("gptvq-2", n=4096, k=4096), ALIGNED)
    assert proposal.split == Split(tiles=16)
    assert weigh_split(proposal, 5.0, 5.0).split == Split()
    assert weigh_split(proposal, 5.0, 6.0).split == Split(tiles=16)
    one_way = weigh_split(proposal, 5.0, math.inf)
    assert one_way.split == Split(tiles=16)
    assert one_way.decisions[-1].rejected[0].reason.startswith("not possible")
    assert "whole_us" not in one_way.decisions[-1].inputs
    assert weigh_split(proposal, math.inf, 5.0).split == Split()
