"""Level `best` takes what is predicted to be fastest of all that is legal, and says against what."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix import PRESETS
from plans import EVERY_STRATEGY, Compiler, compiler_of, forced, hot_profile, is_legal, planned, using
from problems import changed, kmeans, problem, problems

from vqcc import pipeline
from vqcc.code_layouts import CODE_LAYOUTS
from vqcc.diagnostics import VqccError
from vqcc.levels import CODE_ORDERS, DATAFLOW_WORDS, STRATEGIES
from vqcc.ops.gemm import Gemm
from vqcc.ops.gemv import Gemv
from vqcc.ops.linear.model import Linear
from vqcc.passes.agreement import DOUBT, Agreed, agree
from vqcc.passes.choice import DATAFLOWS, PAST_THE_PAPER, contenders, describe, explain_choice, predicted
from vqcc.passes.placement import part_tiles
from vqcc.pipeline import estimate
from vqcc.problem import Boundaries
from vqcc.search import compile_plans
from vqcc.tensors import packing

if TYPE_CHECKING:
    from vqcc.plan import Decision, Plan
    from vqcc.problem import Problem


def best(task: Problem) -> Problem:
    return replace(task, level="best")


def strategy_decision(plan: Plan) -> Decision:
    (decision,) = (each for each in plan.decisions if each.name == "strategy")
    return decision


@settings(max_examples=60)
@given(problems(), st.booleans())
def test_contenders_are_legal_distinct_and_ranked(task: Problem, has_profile: bool) -> None:
    task = replace(best(task), profile=(hot_profile(task),) if has_profile else ())
    found = contenders(task, estimate)
    assert found
    strategies = [strategy for _, strategy in found]
    assert len(set(strategies)) == len(strategies)
    assert set(strategies) <= set(EVERY_STRATEGY.values())
    assert all(is_legal(task, strategy) for strategy in strategies)
    # The last one may be there only in case nothing else compiles.
    times = [time for time, _ in found]
    assert times[:-1] == sorted(times[:-1])
    assert min(times) == times[0]
    assert any(strategy.fusion == "none" for strategy in strategies)


@settings(max_examples=60)
@given(problems())
def test_no_strategy_is_estimated_to_be_faster(task: Problem) -> None:
    """What the first contender is estimated to take, no other undercuts by its own estimate."""
    task = best(task)
    alone = []
    for strategy in EVERY_STRATEGY.values():
        if is_legal(task, strategy):
            one = contenders(
                task, lambda each, its, only=strategy: estimate(each, its) if its == only else None
            )  # type: ignore[misc]
            alone.append(one[0][0])
    assert contenders(task, estimate)[0][0] == min(alone)


@settings(max_examples=40)
@given(problems(), st.booleans())
def test_best_takes_the_fastest_of_what_it_compiled(task: Problem, has_profile: bool) -> None:
    task = replace(best(task), profile=(hot_profile(task),) if has_profile else ())
    plan = planned(task)
    decision = strategy_decision(plan)
    assert plan.decisions[0] is decision
    assert decision.value == describe(plan.strategy)
    assert decision.inputs["predicted_us"] == predicted(plan)
    assert is_legal(task, plan.strategy)
    for rejected in decision.rejected:
        assert rejected.value != decision.value
        if rejected.value in DATAFLOWS:  # which the whole library does without
            continue
        assert float(rejected.reason.split()[0]) >= predicted(plan)


@pytest.mark.parametrize("m", [1, 16])
@pytest.mark.parametrize("preset", PRESETS)
def test_best_is_predicted_to_be_no_slower_than_any_level(preset: str, m: int) -> None:
    """By the same compiler's word; what was never compiled was estimated to be slower."""
    task = problem(preset, n=4096, k=4096, m=m, level="best")
    chosen = predicted(planned(task))
    slower = []
    for level in STRATEGIES:
        if is_legal(task, STRATEGIES[level]):
            other = planned(replace(task, level=level))  # type: ignore[arg-type]
            slower.append(predicted(other) / chosen)
    assert min(slower) > 0.97


def test_a_level_leaves_no_choice() -> None:
    for level in STRATEGIES:
        plan = planned(problem("aqlm-2x8", level=level))
        assert plan.strategy == STRATEGIES[level]
        assert not [each for each in plan.decisions if each.name == "strategy"]


@pytest.mark.parametrize(
    ("algorithm", "boundaries"),
    [
        ("aqlm-2x8", Boundaries(shared=64)),
        ("aqlm-2x8", Boundaries(registers=2)),
        ("vq-4-8-1", Boundaries(3, 128)),
        ("quip-4", Boundaries(0, 0)),
        ("gptvq-2", Boundaries(shared=128)),
    ],
)
@pytest.mark.parametrize("m", [1, 16])
def test_best_obeys_boundaries(algorithm: str, boundaries: Boundaries, m: int) -> None:
    task = problem(algorithm, n=1024, k=1024, m=m, level="best", boundaries=boundaries)
    plan = planned(task)
    assert plan.strategy.caching == "slack"
    assert plan.placement is not None
    assert boundaries.registers is None or set(plan.placement.n_registers) == {boundaries.registers}
    assert boundaries.shared in {None, plan.placement.n_shared}


def test_boundaries_that_only_parts_of_rows_can_have() -> None:
    """Registers hold entries of one book: a row that meets two has to be split between them."""
    tiles = kmeans(scope={"rows": 256, "cols": 2048})
    task = problem(tiles, n=256, k=4096, m=16, level="best", boundaries=Boundaries(registers=2))
    with pytest.raises(VqccError, match="2 books"):
        planned(replace(task, level="o1"))
    plan = planned(task)
    assert plan.strategy.codebook_centric
    assert plan.split.tiles == 2
    assert part_tiles(task, plan) == 1
    assert plan.placement is not None
    assert plan.placement.n_registers == (2,)


def test_boundaries_that_nothing_can_have() -> None:
    task = problem("aqlm-1x16", gpu="rtx4090", level="best", boundaries=Boundaries(shared=8192))
    with pytest.raises(VqccError) as caught:
        planned(task)
    assert [each.code for each in caught.value.diagnostics] == ["VQ0406"]


@pytest.mark.parametrize("level", ["gc", "o1", "o4", "best"])
def test_a_gpu_without_any_tile_is_refused(level: str) -> None:
    """Not even a warp of such a block gets the registers that multiply-adds need."""
    gpu = changed("h200", registers_per_block=1024)
    with pytest.raises(VqccError) as caught:
        planned(problem(kmeans(codebook_dtype="int8"), gpu=gpu, level=level, m=16))
    assert [each.code for each in caught.value.diagnostics] == ["VQ0607"]


@pytest.mark.parametrize("spills", [0, 1, 2, 3, 4, 6, 9])
@pytest.mark.parametrize(("preset", "m"), [("aqlm-2x8", 1), ("vq-4-8-1", 16), ("gptvq-2", 16), ("quip-4", 1)])
def test_what_is_slower_once_compiled_loses(preset: str, m: int, spills: int) -> None:
    """Tiles that spill are not used; where they were all of a strategy's, or the others are slow, another one wins."""
    task = problem(preset, n=4096, k=4096, m=m, level="best")
    agreed = agree([task], estimate)
    order = [strategy for each in agreed for _, strategy in contenders(task, estimate, each.dataflow)]
    compiler = Compiler(lambda number, name: using(40, spilled=8 if number < spills else 0))
    _, (plan,), compiled = compile_plans([task], compiler)
    assert plan.strategy in order
    assert compiled.resources[plan.kernel].spill_store_bytes == 0
    decision = strategy_decision(plan)
    assert decision.value == describe(plan.strategy)
    assert decision.inputs["predicted_us"] == predicted(plan)
    losers = [rejected for rejected in decision.rejected if rejected.value not in DATAFLOWS]
    spilled = {rejected.value for rejected in losers if "spills registers" in rejected.reason}
    others = [
        each.reason.split()[0] for each in decision.rejected if each.value not in {*spilled, *DATAFLOWS}
    ]
    assert all(float(time) >= predicted(plan) for time in others)
    assert len(spilled) == decision.inputs["spilled"]


def test_what_compiled_cleanly_wins_though_all_else_spills() -> None:
    """The first contender is no longer the fastest once it is compiled, and no other has a tile that compiles."""
    task = problem("aqlm-3", n=4096, k=4096, m=1, level="best")
    compiler = Compiler(lambda number, name: using(64, spilled=8 if number >= 2 else 0))
    source, (plan,), compiled = compile_plans([task], compiler, Agreed("decode"))
    first, *others = [strategy for _, strategy in contenders(task, estimate)]
    assert others, "there is a race"
    assert len(compiler.sources) > 2, "another contender was compiled"
    assert plan.strategy == first
    assert (source, list(compiled.resources)) == (compiler.sources[1], [plan.kernel])
    decision = strategy_decision(plan)
    spilled = [
        each.value for each in decision.rejected if each.reason == "each of its tiles spills registers"
    ]
    assert spilled == [describe(strategy) for strategy in others[: len(spilled)]]
    assert len(spilled) == decision.inputs["spilled"] > 0
    assert decision.inputs["compiled"] == 1


def test_a_variant_whose_tiles_run_out_leaves_the_others_alone() -> None:
    """Variants race together; what spills for one of them is no loss of the other's."""
    tasks = [problem("aqlm-3", n=4096, k=4096, m=[1, 16], variant=i, level="best") for i in (0, 1)]
    compiler = Compiler(lambda number, name: using(64, spilled=8 if number >= 1 and "_m1_" in name else 0))
    with pytest.raises(VqccError, match=r"tiny_m1_float16 spills"):
        compile_plans(tasks, compiler, Agreed("decode"))
    compiler = Compiler(lambda number, name: using(64, spilled=8 if number >= 2 and "_m1_" in name else 0))
    _, plans, compiled = compile_plans(tasks, compiler, Agreed("decode"))
    assert list(compiled.resources) == [plan.kernel for plan in plans]
    alone = compile_plans([tasks[1]], Compiler(lambda number, name: using(64)), Agreed("decode"))[1][0]
    assert plans[1].strategy == alone.strategy


def test_a_loser_is_named() -> None:
    task = problem("aqlm-2x8", n=4096, k=4096, m=1, level="best")
    winners = set()
    for spills in range(8):
        compiler = Compiler(
            lambda number, name, spills=spills: using(40, spilled=8 if number < spills else 0)
        )  # type: ignore[misc]
        _, (plan,), _ = compile_plans([task], compiler)
        decision = strategy_decision(plan)
        winners.add(decision.value)
        losers = [rejected.reason for rejected in decision.rejected]
        assert sum("as compiled" in reason for reason in losers) == decision.inputs["compiled"] - 1
        assert sum("as estimated" in reason for reason in losers) == decision.inputs["estimated"]
    assert len(winners) > 1


def test_what_is_compiled_is_compiled_under_the_kernels_own_name() -> None:
    compiler = compiler_of(problem("aqlm-2x8"))
    source, (plan,), _ = compile_plans([problem("aqlm-2x8", level="best")], compiler)
    assert plan.kernel in source
    assert compiler.sources[-1] == source or source in compiler.sources


def test_variants_choose_for_themselves() -> None:
    one, many = (problem("quip-4", n=4096, k=4096, m=[1, 16], variant=i, level="best") for i in (0, 1))
    _, plans, _ = compile_plans([one, many], compiler_of(one))
    alone = [planned(problem("quip-4", n=4096, k=4096, m=m, level="best")).strategy for m in (1, 16)]
    assert [plan.strategy for plan in plans] == alone


def test_words_for_strategies() -> None:
    assert {describe(STRATEGIES[level]) for level in STRATEGIES} == set(STRATEGIES)
    assert len({describe(strategy) for strategy in PAST_THE_PAPER}) == len(PAST_THE_PAPER)
    assert not set(map(describe, PAST_THE_PAPER)) & set(STRATEGIES)


def test_the_explanation_names_the_losers() -> None:
    decision = explain_choice([(STRATEGIES["o1"], 7.5), (STRATEGIES["sc"], 6.25)], [(9.0, STRATEGIES["gc"])])
    assert (decision.name, decision.value) == ("strategy", "sc")
    assert decision.inputs["predicted_us"] == 6.25
    assert [(each.value, each.reason) for each in decision.rejected] == [
        ("o1", "7.5 us as compiled"),
        ("gc", "9 us as estimated"),
    ]
    alone = explain_choice([(STRATEGIES["o1"], 7.5)], [])
    assert alone.rejected == ()
    assert alone.reason


@pytest.mark.parametrize("m", [1, 16])
def test_dataflows_are_compared_by_estimates_and_say_so(m: int) -> None:
    """Both numbers are from before a compilation, each with the factor that it was weighed with."""
    task = problem("aqlm-2x8", n=4096, k=4096, m=m, level="best")
    agreed = agree([task], estimate)
    totals = {each.dataflow: contenders(task, estimate, each.dataflow)[0][0] for each in agreed}
    assert len(totals) > 1
    totals["decode"] *= DOUBT["decode"]
    for each in agreed:
        compared = [other for other in each.others if other.value in totals]
        assert {other.value for other in compared} == set(totals) - {each.dataflow}
        for other in compared:
            told = re.fullmatch(r"estimated (.*), this one (.*), before compiling either", other.reason)
            assert told is not None
            for name, words in zip((other.value, each.dataflow), told.groups(), strict=True):
                factor = " (1.1 times what is predicted)" * (name == "decode")
                assert words == f"{totals[name]:.5g} us{factor}"


def test_forced_plans_are_what_the_pipeline_makes() -> None:
    """The tests' own way to a plan of a strategy gives the kernel that its level has."""
    for level in STRATEGIES:
        task = problem("aqlm-2x8", n=1024, k=4096, level=level)
        mine, theirs = forced(task, STRATEGIES[level]), planned(task)
        assert (mine.tile, mine.placement, mine.split, mine.exchange, mine.launch) == (
            theirs.tile,
            theirs.placement,
            theirs.split,
            theirs.exchange,
            theirs.launch,
        )


def test_whatever_is_by_dataflow_has_all_of_them() -> None:
    """A dataflow that is added has words, passes and, of gemv or gemm, kernels."""
    past = set(DATAFLOWS) - {"decode"}
    assert set(DATAFLOW_WORDS) == past
    assert set(pipeline._PASSES) == past
    assert set(CODE_ORDERS) == set(DATAFLOWS)
    assert set(CODE_ORDERS.values()) == set(CODE_LAYOUTS)
    assert set(Gemv.dataflow_rows) | set(Gemm.dataflow_rows) == set(Linear.dataflow_rows) == past
    for op in (Gemv, Gemm, Linear):
        assert set(op.tile_types) == {"decode", *op.dataflow_rows} == {"decode", *op.dataflows}
        assert set(op.dataflow_rows) < set(op.engines)
    assert set(CODE_LAYOUTS.values()) == set(packing._PACKERS)
