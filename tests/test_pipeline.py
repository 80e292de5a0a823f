"""From problems to compiled plans: base kernels, slack, re-planning, and what each level has."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matrix import PRESETS, legal_levels
from plans import Compiler, compiler_of, hot_profile, kernel_of, planned, refusal, using
from problems import kmeans, problem, problems

from vqcc.codegen.resources import Resources
from vqcc.diagnostics import ExitCode, VqccError
from vqcc.gpus.occupancy import blocks_per_sm
from vqcc.levels import LEVELS, STRATEGIES
from vqcc.passes.placement import cached_tables, part_tiles
from vqcc.pipeline import plan_base, plan_kernel
from vqcc.plan import Split
from vqcc.problem import Boundaries
from vqcc.search import compile_plans
from vqcc.trial import MAX_REPLANS

if TYPE_CHECKING:
    from collections.abc import Callable

    from vqcc.plan import Decision, Plan
    from vqcc.problem import Problem

BELOW_BEST = tuple(STRATEGIES)


def decision(plan: Plan, name: str) -> Decision:
    """The one decision of that name."""
    (found,) = (each for each in plan.decisions if each.name == name)
    return found


def with_hot_entries(task: Problem, hot: int = 16) -> Problem:
    return replace(task, profile=(hot_profile(task, hot),))


def is_base(name: str) -> bool:
    return re.search(r"_base\d+$", name) is not None


def compiled_with(task: Problem, answer: Callable[[int, str], Resources]) -> tuple[Plan, Compiler]:
    compiler = Compiler(answer)
    _, (plan,), _ = compile_plans([task], compiler)
    return plan, compiler


# ---- What is compiled ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", BELOW_BEST)
def test_base_kernels_have_an_empty_cache(level: str) -> None:
    task = with_hot_entries(problem("vq-4-8-1", level=level))
    compiler = compiler_of(task)
    compile_plans([task], compiler)
    if STRATEGIES[level].caching != "slack":
        assert not any(is_base(name) for names in compiler.kernels for name in names)
        return
    base, final = compiler.sources
    assert compiler.kernels[0] == ("tiny_m1_float16_base0",)
    for constant in ("kRegisterEntries", "kSharedEntries", "kSharedBookBytes"):
        assert re.search(rf"\b{constant} = 0;", base)
        if constant != "kRegisterEntries" or STRATEGIES[level].registers:
            assert not re.search(rf"\b{constant} = 0;", final)


def test_kernels_of_a_library_are_compiled_together() -> None:
    tasks = [problem("aqlm-2x8", level="o2", m=[1, 4, 16], variant=i) for i in range(3)]
    compiler = compiler_of(tasks[0])
    source, plans, compiled = compile_plans(tasks, compiler)
    assert [len(names) for names in compiler.kernels] == [3, 3]
    assert source == compiler.sources[-1]
    assert [plan.kernel for plan in plans] == list(compiler.kernels[-1]) == list(compiled.resources)


def test_kernels_are_named_by_their_source() -> None:
    """A plan whose figures differ makes the same kernel; another shape, another one."""
    few, many = (planned(problem("aqlm-2x8", level="sc"), registers) for registers in (20, 60))
    assert few.kernel == many.kernel
    assert re.fullmatch(r"tiny_m1_float16_[0-9a-f]{8}", few.kernel)
    assert planned(problem("aqlm-2x8", level="sc", n=264)).kernel != few.kernel


def test_the_slack_is_that_of_the_compiled_base_kernel() -> None:
    task = problem("aqlm-2x8", level="o1", n=11008, k=4096)
    for registers in (33, 50, 64):
        plan, compiler = compiled_with(task, lambda number, name, registers=registers: using(registers))  # type: ignore[misc]
        assert plan.slack is not None
        assert decision(plan, "slack").inputs["base_registers"] == registers
        assert plan.tile is not None
        found = blocks_per_sm(task.gpu, 32 * plan.tile.warps, registers, plan.tile.shared_bytes)
        assert plan.slack.blocks_per_sm == found.blocks
        assert len(compiler.sources) == 2


def test_static_shared_memory_of_the_base_kernel_counts() -> None:
    task = problem("aqlm-3", level="o1", n=11008, k=4096)
    slacks = [
        compiled_with(task, lambda number, name, static=static: using(50, static=static))[0].slack  # type: ignore[misc]
        for static in (0, 4096)
    ]
    assert slacks[0] is not None
    assert slacks[1] is not None
    assert slacks[1].shared_bytes < slacks[0].shared_bytes


def test_the_compiler_is_held_to_the_base_kernels_occupancy() -> None:
    task = problem("aqlm-2x8", level="o1", n=11008, k=4096)
    plan, compiler = compiled_with(task, lambda number, name: using(33))
    assert plan.slack is not None
    assert plan.tile is not None
    assert plan.minimum_blocks == decision(plan, "minimum_blocks").value == plan.slack.blocks_per_sm
    bounds = f"__launch_bounds__({32 * plan.tile.warps}, {plan.slack.blocks_per_sm})"
    assert bounds in compiler.sources[-1]


# ---- Re-planning -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["gc", "sc"])
def test_a_kernel_that_spills_gets_the_next_tile(level: str) -> None:
    task = problem("aqlm-2x8", level=level, m=8, n=4096, k=4096)
    for spills in (0, 1, 2):
        plan, _ = compiled_with(
            task, lambda number, name, spills=spills: using(spilled=8 * (number < spills))
        )  # type: ignore[misc]
        wanted = plan_base(task, STRATEGIES[level], spills)
        assert wanted is not None
        assert plan.tile == wanted.tile
        assert plan.resources == using()


@pytest.mark.parametrize(
    "spilled", [Resources(40, 0, 8, 0, 0, 1), Resources(40, 0, 0, 4, 0, 1), Resources(40, 0, 0, 0, 4, 1)]
)
def test_a_stack_frame_or_either_spill_is_one(spilled: Resources) -> None:
    task = problem("aqlm-2x8", level="gc", m=8, n=4096, k=4096)
    plan, compiler = compiled_with(task, lambda number, name: using() if number else spilled)
    assert len(compiler.sources) > 1
    assert plan.tile != plan_base(task, STRATEGIES["gc"]).tile  # type: ignore[union-attr]


SERIALIZED = replace(using(), serialized="insufficient register resources for the wgmma pipeline")


@pytest.mark.parametrize("level", ["gc", "o2"])
def test_a_kernel_whose_multiplies_are_serialized_gets_the_next_tile(level: str) -> None:
    task = problem("aqlm-2x8", level=level, m=8, n=4096, k=4096)
    finals: list[str] = []

    def answer(number: int, name: str) -> Resources:
        if is_base(name):
            return using()
        finals.append(name)
        return SERIALIZED if len(finals) == 1 else using()

    plan, _ = compiled_with(task, answer)
    wanted = plan_base(task, STRATEGIES[level], 1)
    assert wanted is not None
    assert plan.tile == wanted.tile
    assert plan.resources == using()


@pytest.mark.parametrize("level", LEVELS)
def test_a_kernel_that_is_always_serialized_is_the_first_tile_after_all(level: str) -> None:
    task = problem("aqlm-2x8", level=level, m=16)
    plan, _ = compiled_with(task, lambda number, name: SERIALIZED)
    assert plan.resources is not None
    assert plan.resources.serialized
    if level != "best":
        first = plan_base(task, STRATEGIES[level])
        assert first is not None
        assert plan.tile == first.tile


def test_nothing_serialized_is_taken_where_another_tile_will_do() -> None:
    task = problem("aqlm-2x8", level="best", m=16, n=4096, k=4096)
    plan, compiler = compiled_with(task, lambda number, name: using() if number else SERIALIZED)
    assert len(compiler.sources) > 1
    assert plan.resources == using()


@pytest.mark.parametrize("level", LEVELS)
def test_a_kernel_that_always_spills_is_an_error_that_says_so(level: str) -> None:
    task = problem("aqlm-2x8", level=level, m=16)
    with pytest.raises(VqccError) as caught:
        compile_plans([task], Compiler(lambda number, name: using(spilled=8)))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "VQ0607"
    assert caught.value.exit_code == ExitCode.TOOLCHAIN
    assert "tiny_m16_float16" in diagnostic.message
    assert "h200" in diagnostic.message


def test_registers_that_the_spec_asks_for_may_be_what_spills() -> None:
    task = problem("vq-4-8-1", level="o2", boundaries=Boundaries(registers=60))
    with pytest.raises(VqccError) as caught:
        compile_plans([task], Compiler(lambda number, name: using(spilled=0 if is_base(name) else 8)))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "VQ0607"
    assert caught.value.exit_code == ExitCode.INPUT
    assert diagnostic.help is not None
    assert "lower cache.registers" in diagnostic.help


def overrun(times: int, *, spills: bool = False) -> Callable[[int, str], Resources]:
    """A compiler whose first `times` kernels with a cache need more than the slack: more registers, or spills."""
    finals: list[str] = []

    def answer(number: int, name: str) -> Resources:
        if is_base(name):
            return using(50)
        finals.append(name)
        if len(finals) > times:
            return using(50)
        return using(50, spilled=8) if spills else using(96)

    return answer


def too_many_registers(number: int, name: str) -> Resources:
    """96 where the slack has some 64: fewer blocks, whatever is cut."""
    return using(50 if is_base(name) else 96)


@pytest.mark.parametrize("spills", [False, True])
@pytest.mark.parametrize("times", range(MAX_REPLANS))
def test_registers_are_cut_until_the_slack_is_kept(times: int, spills: bool) -> None:
    task = with_hot_entries(problem("vq-4-8-1", level="o2", n=11008, k=4096))
    answer = overrun(times, spills=spills)
    compiler = Compiler(answer, 1 << 30)  # it does not keep to the launch bounds
    _, (plan,), _ = compile_plans([task], compiler)
    first = planned(task).placement
    assert first is not None
    assert plan.placement is not None
    assert first.n_registers[0] >= 4, "there is something to cut"
    assert plan.placement.n_registers == (first.n_registers[0] >> times,)
    occupancy = decision(plan, "occupancy")
    assert occupancy.inputs["replans"] == times
    assert occupancy.reason == "as predicted"
    assert plan.slack is not None
    assert plan.launch is not None
    assert plan.launch.blocks_per_sm == plan.slack.blocks_per_sm
    if times:
        assert "overran" in decision(plan, "n_registers").reason


def test_each_replan_is_another_kernel() -> None:
    task = with_hot_entries(problem("vq-4-8-1", level="o2", n=11008, k=4096))
    compiler = Compiler(overrun(MAX_REPLANS), 1 << 30)
    compile_plans([task], compiler)
    cached = [re.search(r"kRegisterEntries = (\d+);", source) for source in compiler.sources]
    found = [int(each[1]) for each in cached if each is not None][1:]  # the first is the base kernel
    assert found[: MAX_REPLANS + 1] == sorted(found[: MAX_REPLANS + 1], reverse=True)
    assert len(set(found[:MAX_REPLANS])) == MAX_REPLANS


def test_after_the_last_replan_occupancy_is_given_up() -> None:
    """And the plan says so."""
    task = with_hot_entries(problem("vq-4-8-1", level="o2", n=11008, k=4096))
    compiler = Compiler(too_many_registers, 1 << 30)
    _, (plan,), _ = compile_plans([task], compiler)
    occupancy = decision(plan, "occupancy")
    assert occupancy.inputs["replans"] == MAX_REPLANS
    assert occupancy.value == plan.launch.blocks_per_sm  # type: ignore[union-attr]
    assert occupancy.value < occupancy.inputs["predicted_blocks"]
    assert "cannot be held to the base kernel's occupancy: it takes too many registers" in occupancy.reason
    assert occupancy.section == "V-B"
    finals = [names for names in compiler.kernels if not any(map(is_base, names))]
    assert MAX_REPLANS + 1 <= len(finals) <= MAX_REPLANS + 2


def test_without_registers_to_cut_occupancy_is_given_up_at_once() -> None:
    task = problem("vq-4-8-1", level="o1", n=11008, k=4096)
    compiler = Compiler(too_many_registers, 1 << 30)
    _, (plan,), _ = compile_plans([task], compiler)
    assert decision(plan, "occupancy").inputs["replans"] == 1
    assert plan.launch is not None
    assert plan.slack is not None
    assert plan.launch.blocks_per_sm < plan.slack.blocks_per_sm
    assert "cannot be held" in decision(plan, "occupancy").reason
    bounds = re.search(r"__launch_bounds__\(\d+, (\d+)\) tiny_m1", compiler.sources[-1])
    assert bounds is not None
    assert int(bounds[1]) <= plan.slack.blocks_per_sm


def test_what_spills_at_every_cut_gets_the_next_tile() -> None:
    task = with_hot_entries(problem("vq-4-8-1", level="o2", n=11008, k=4096, m=4))
    plan, compiler = compiled_with(task, overrun(MAX_REPLANS + 1, spills=True))
    first = plan_base(task, STRATEGIES["o2"])
    second = plan_base(task, STRATEGIES["o2"], 1)
    assert first is not None
    assert second is not None
    assert plan.tile == second.tile != first.tile
    assert sum(map(is_base, (name for names in compiler.kernels for name in names))) == 2


def test_kernels_are_replanned_apart() -> None:
    """One of three spills: the others keep their plans, and all end in one source."""
    tasks = [problem("aqlm-2x8", level="gc", m=[1, 4, 16], variant=i, n=4096, k=4096) for i in range(3)]
    compiler = Compiler(lambda number, name: using(spilled=8 * (number == 0 and "_m4_" in name)))
    source, plans, _ = compile_plans(tasks, compiler)
    assert source == compiler.sources[-1]
    alone = [planned(task) for task in tasks]
    assert [kernel_of(plan) == kernel_of(other) for plan, other in zip(plans, alone, strict=True)] == [
        True,
        False,
        True,
    ]
    assert all(plan.kernel in source for plan in plans)


@settings(max_examples=60)
@given(problems(), st.sampled_from(LEVELS), st.integers(0, 12), st.integers(24, 255), st.booleans())
def test_whatever_the_compiler_says_plans_end_sound(
    task: Problem, level: str, spills: int, registers: int, has_profile: bool
) -> None:
    if level not in legal_levels(task.algorithm, task.gpu):
        return
    task = replace(task, level=level, profile=(hot_profile(task),) if has_profile else ())  # type: ignore[arg-type]
    compiler = Compiler(
        lambda number, name: using(registers, spilled=8 * (number % 3 < 2 and number < spills))
    )
    error = refusal(lambda: compile_plans([task], compiler))
    if error is not None:
        assert [each.code for each in error.diagnostics] == ["VQ0607"]
        return
    compiler.sources.clear()
    source, (plan,), compiled = compile_plans([task], compiler)
    used = compiled.resources[plan.kernel]
    assert (used.stack_bytes, used.spill_store_bytes, used.spill_load_bytes) == (0, 0, 0)
    assert plan.resources == used
    assert plan.kernel in source
    check_fits(task, plan)


# ---- What plans keep -------------------------------------------------------------------------------------------------


def check_fits(task: Problem, plan: Plan) -> None:
    """What every finished plan keeps."""
    gpu, launch, tile, placement = task.gpu, plan.launch, plan.tile, plan.placement
    assert launch is not None
    assert tile is not None
    assert placement is not None
    assert plan.resources is not None
    assert plan.predicted_us is not None
    shared = tile.shared_bytes + placement.shared_bytes
    assert launch.dynamic_shared_bytes == shared <= gpu.shared_bytes_per_block.integer
    assert launch.threads == 32 * tile.warps <= gpu.threads_per_block.integer
    assert launch.blocks_per_sm >= 1
    assert launch.blocks_per_sm == blocks_per_sm(gpu, launch.threads, plan.resources.registers, shared).blocks
    if placement.n_shared:
        assert max(placement.n_registers) <= placement.n_shared <= task.algorithm.table_entries
    assert len(placement.n_registers) == cached_tables(task, plan)
    if any(placement.n_registers):
        assert part_tiles(task, plan) == placement.resident_tiles == 1
    assert plan.predicted_us > 0


@settings(max_examples=150)
@given(problems(), st.sampled_from(LEVELS), st.booleans(), st.sampled_from([32, 50, 66, 129]))
def test_every_plan_fits_and_says_why(task: Problem, level: str, has_profile: bool, registers: int) -> None:
    if level not in legal_levels(task.algorithm, task.gpu):
        return
    task = replace(task, level=level, profile=(hot_profile(task),) if has_profile else ())  # type: ignore[arg-type]
    plan = planned(task, registers)
    check_fits(task, plan)
    assert plan.level == level
    for each in plan.decisions:
        assert each.name
        assert each.formula, each
        assert each.reason, each
        assert each.inputs, each
        assert all(rejected.reason for rejected in each.rejected)
    names = [each.name for each in plan.decisions]
    assert len(set(names)) == len(names), "a decision stands twice"
    text = json.dumps(plan.to_json())
    assert json.dumps(json.loads(text)) == text == json.dumps(planned(task, registers).to_json())


@settings(max_examples=100)
@given(st.data(), problems(), st.sampled_from(["o1", "o2", "o3", "o4", "best"]))
def test_boundaries_are_kept_or_refused(data: st.DataObject, task: Problem, level: str) -> None:
    entries = task.algorithm.table_entries
    wanted = Boundaries(
        data.draw(st.none() | st.integers(0, min(entries, 8))),
        data.draw(st.none() | st.integers(8, max(8, entries))),
    )
    task = replace(task, level=level, boundaries=wanted)  # type: ignore[arg-type]
    error = refusal(lambda: planned(task))
    if error is not None:
        assert [each.code for each in error.diagnostics] == ["VQ0406"]
        assert wanted != Boundaries()
        return
    plan = planned(task)
    check_fits(task, plan)
    assert plan.strategy.caching == "slack" or wanted == Boundaries()
    assert plan.placement is not None
    if wanted.registers is not None and plan.placement.n_shared == 0:
        assert set(plan.placement.n_registers) == {wanted.registers}
    if wanted.shared is not None and task.algorithm.stage_bytes % 16 == 0:
        unit = max(1, 16 // task.algorithm.entry_stride)
        assert min(wanted.shared, entries) - unit < plan.placement.n_shared <= wanted.shared


def test_a_plan_is_plain_data() -> None:
    plan = planned(with_hot_entries(problem("vq-4-8-1", level="o2")))
    data = json.loads(json.dumps(plan.to_json()))
    assert data["level"] == "o2"
    assert data["strategy"] == {
        "caching": "slack",
        "registers": True,
        "codebook_centric": False,
        "dataflow": "decode",
        "fusion": "none",
        "copies": 1,
    }
    assert data["placement"]["n_registers"][0] > 0
    assert [each["name"] for each in data["decisions"]] == [each.name for each in plan.decisions]
    assert data["resources"]["registers"] == 50


# ---- What levels have ------------------------------------------------------------------------------------------------


def plans_of(task: Problem) -> dict[str, Plan]:
    return {level: planned(replace(task, level=level)) for level in legal_levels(task.algorithm, task.gpu)}  # type: ignore[arg-type]


@settings(max_examples=60)
@given(problems())
def test_without_a_profile_o2_is_o1(task: Problem) -> None:
    """No entry is known to be hot."""
    plans = plans_of(task)
    assert kernel_of(plans["o1"]) == kernel_of(plans["o2"])
    assert plans["o2"].placement is not None
    assert not any(plans["o2"].placement.n_registers)
    assert re.search("no entry is hot|books", decision(plans["o2"], "n_registers").reason)


@settings(max_examples=60)
@given(problems(), st.booleans())
def test_each_level_adds_what_it_is_named_for(task: Problem, has_profile: bool) -> None:
    plans = plans_of(replace(task, profile=(hot_profile(task),) if has_profile else ()))
    gc, o1, o2, o3, o4 = (plans[level] for level in ("gc", "o1", "o2", "o3", "o4"))
    assert gc.placement is not None
    assert (gc.placement.n_shared, any(gc.placement.n_registers)) == (0, False)
    if "sc" in plans:
        assert plans["sc"].placement is not None
        assert plans["sc"].placement.n_shared == task.algorithm.table_entries
    assert o1.placement is not None
    assert not any(o1.placement.n_registers)
    for plan in (gc, o1, o2):
        assert plan.split == Split()
    for plan in (gc, o1, o2, o3):
        assert (plan.exchange.engine, plan.exchange.fusion) == ("fma", "none")
    for name, plan in plans.items():
        assert plan.placement is not None
        assert plan.placement.copies == 1 or name == "best"
    if o3.split == Split():
        assert kernel_of(o3) == kernel_of(o2)
        reason = decision(o3, "split").reason
        assert "a split" in reason or "whole rows" in reason
    assert o4.exchange.fusion in {"none", "register", "shared", "aligned"}
    assert len({plan.layout for name, plan in plans.items() if name != "best"}) == 1


@pytest.mark.parametrize("preset", PRESETS)
def test_engines_by_rows_of_x(preset: str) -> None:
    """A few rows of x are multiplied on the CUDA cores, several on tensor cores; levels below o4 fuse nothing."""
    engines = {
        m: planned(problem(preset, n=1024, k=1024, m=m, level="o4")).exchange.engine for m in (1, 4, 5, 16)
    }
    assert engines == {1: "fma", 4: "fma", 5: "mma", 16: "mma"}


@pytest.mark.parametrize(
    ("algorithm", "why"),
    [
        (kmeans(vector_size=6, entries=64), "no operand of six"),
        (kmeans(vector_size=8, codebook_dtype="int8"), "values that float16 does not have"),
        (kmeans(vector_size=8, codebook_dtype="bfloat16"), "values that float16 does not have"),
        (kmeans(vector_size=8, scales={"group": 64}), "scales inside a row"),
    ],
)
def test_what_tensor_cores_cannot_take(algorithm: dict[str, object], why: str) -> None:
    plan = planned(problem(algorithm, n=1024, k=1536, m=16, level="o4"))
    assert plan.exchange.engine == "fma", why


def test_hot_entries_go_to_registers_from_o2_on() -> None:
    task = with_hot_entries(problem("vq-4-8-1", n=4096, k=4096), 4)
    held = {level: plan.placement.n_registers[0] for level, plan in plans_of(task).items() if plan.placement}
    assert held["gc"] == held["sc"] == held["o1"] == 0
    assert held["o2"] == held["o3"] == 4


def test_splits_appear_at_o3() -> None:
    """One row block of a large table of two stages: parts put idle SMs to work."""
    task = problem("aqlm-3", n=16, k=65536)
    plans = plans_of(task)
    assert {level: plans[level].split.factor for level in ("o1", "o2", "o3", "o4")} == {
        "o1": 1,
        "o2": 1,
        "o3": 2,
        "o4": 2,
    }
    assert plans["o3"].launch is not None
    assert plans["o3"].launch.workspace_bytes > 0


def test_what_cannot_be_split_says_so() -> None:
    for preset in ("quip-4", "aqlm-1x16", "vq-4-8-1"):
        plan = planned(problem(preset, level="o3", n=1024, k=4096))
        found = decision(plan, "split")
        assert found.value == 1
        assert "no axis that is summed over" in found.reason
        assert found.section == "VI-A, Table III"


SECTIONS = {
    "gc": {"Table IV"},
    "sc": {"Table IV"},
    "o1": {"V-A", "V-B, Fig. 10", "V-B"},
    "o2": {"V-A", "V-B, Fig. 10", "V-B"},
    "o3": {"V-A", "V-B, Fig. 10", "V-B", "VI-A"},
    "o4": {"V-A", "V-B, Fig. 10", "V-B", "VI-A", "VI-B, Algorithm 1"},
}


@pytest.mark.parametrize("level", BELOW_BEST)
def test_levels_cite_the_paper(level: str) -> None:
    plan = planned(problem("aqlm-3", level=level, n=4096, k=4096))
    sections = {each.section for each in plan.decisions}
    assert SECTIONS[level] <= sections
    assert decision(plan, "n_shared").section == ("Table IV" if level in {"gc", "sc"} else "V-B, Fig. 10")


@pytest.mark.parametrize(("level", "entries"), [("gc", 0), ("sc", 256)])
def test_what_needs_no_slack_is_planned_without_a_compiler(level: str, entries: int) -> None:
    task = problem("aqlm-2x8", level=level)
    base = plan_base(task, STRATEGIES[level])
    assert base is not None
    plan = plan_kernel(task, base, None)
    assert plan.placement is not None
    assert (plan.slack, plan.placement.n_shared) == (None, entries)


# ---- Launch bounds ---------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(problems(), st.sampled_from(LEVELS), st.booleans(), st.sampled_from([32, 50, 66, 129]))
def test_launch_bounds_are_what_an_sm_can_hold(
    task: Problem, level: str, has_profile: bool, registers: int
) -> None:
    """Blocks that shared memory has no room for would cost registers and give nothing."""
    if level not in legal_levels(task.algorithm, task.gpu):
        return
    task = replace(task, level=level, profile=(hot_profile(task),) if has_profile else ())  # type: ignore[arg-type]
    check_bounds(task, planned(task, registers))


def check_bounds(task: Problem, plan: Plan) -> None:
    assert plan.tile is not None
    assert plan.launch is not None
    shared = plan.launch.dynamic_shared_bytes
    assert plan.minimum_blocks <= max(1, blocks_per_sm(task.gpu, plan.launch.threads, 0, shared).blocks)
    with_cap = blocks_per_sm(task.gpu, plan.launch.threads, plan.tile.register_cap, shared).blocks
    assert plan.minimum_blocks >= with_cap
    if plan.slack is None:
        assert plan.minimum_blocks == max(1, with_cap)
    said = decision(plan, "minimum_blocks")
    assert said.value == plan.minimum_blocks
    assert said.inputs["shared_bytes"] == shared


@settings(max_examples=100)
@given(st.data(), problems(), st.sampled_from(["o1", "o2", "o3", "o4", "best"]))
def test_launch_bounds_know_the_shared_memory_that_a_spec_asks_for(
    data: st.DataObject, task: Problem, level: str
) -> None:
    wanted = Boundaries(shared=data.draw(st.integers(8, max(8, task.algorithm.table_entries))))
    task = replace(task, level=level, boundaries=wanted)  # type: ignore[arg-type]
    if refusal(lambda: planned(task)) is None:
        check_bounds(task, planned(task))


def test_shared_memory_that_a_spec_asks_for_leaves_room_for_fewer_blocks() -> None:
    """86 books of 2 KB: one block fits an SM. It may have all registers, and nothing is planned again for two."""
    task = problem("gptvq-2", level="o1", n=8192, k=22016, boundaries=Boundaries(shared=256))
    plan, compiler = compiled_with(task, lambda number, name: using(64))
    assert len(compiler.sources) == 2
    assert plan.placement is not None
    assert plan.placement.shared_bytes == 86 * 2048
    assert plan.slack is not None
    assert plan.slack.blocks_per_sm == 2
    assert plan.minimum_blocks == 1
    assert "__launch_bounds__(512, 1)" in compiler.sources[-1]
    occupancy = decision(plan, "occupancy")
    assert (occupancy.value, occupancy.inputs["replans"]) == (1, 0)
    assert (occupancy.inputs["base_blocks"], occupancy.inputs["predicted_blocks"]) == (2, 1)
    assert "the spec's cache.shared" in occupancy.reason
    assert "room for 1 of the base kernel's 2 blocks" in occupancy.reason


def test_occupancy_that_is_lost_to_spills_is_said_to_be() -> None:
    """Held to the base kernel's blocks it spills; with fewer it does not."""
    task = problem("vq-4-8-1", level="o2", n=11008, k=4096, m=16, boundaries=Boundaries(registers=40))

    def answer(number: int, name: str) -> Resources:
        if is_base(name):
            return using(60)
        return using(64, spilled=8) if number == 1 else using(128)

    plan, _ = compiled_with(task, answer)
    occupancy = decision(plan, "occupancy")
    assert occupancy.value < occupancy.inputs["predicted_blocks"] == occupancy.inputs["base_blocks"]
    assert "cannot be held to the base kernel's occupancy: it spills" in occupancy.reason
