"""Algorithm 1: after mapping and exchange every thread holds exactly its elements; Fig. 12's example comes out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from layouts import (
    ELEMENT_LAYOUT,
    FRAGMENT_LAYOUT,
    FragmentTile,
    SequentialTile,
    columns_for,
    exchange_registers,
    mapped,
)
from matrix import PRESETS
from problems import problem

from vqcc import gpus
from vqcc.code_layouts import PackedLayout
from vqcc.levels import STRATEGIES, Strategy
from vqcc.ops.base import ComputeLayout
from vqcc.passes.exchange import (
    MiniWarp,
    ThreadLayout,
    choose_fusion,
    find_mini_warps,
    map_threads,
    plan_exchange,
    shuffle_count,
)
from vqcc.plan import Exchange, Plan

if TYPE_CHECKING:
    from vqcc.problem import Problem

LAYOUTS = {"element": ELEMENT_LAYOUT, "fragment": FRAGMENT_LAYOUT}
VECTOR_SIZES = (2, 4, 8, 16)


@given(st.integers(1, 16), st.sampled_from([1, 2, 4, 8, 32]), st.integers(0, 5000))
def test_a_layout_is_a_bijection(width: int, lanes: int, column: int) -> None:
    layout = ThreadLayout(width, lanes)
    thread, register = layout.thread_of(column), layout.register_of(column)
    assert 0 <= thread < lanes
    assert layout.column_of(thread, register) == column
    assert layout.thread_of(layout.column_of(thread, register)) == thread


def test_registers_of_a_thread_ascend_by_column() -> None:
    for layout in LAYOUTS.values():
        columns = [layout.column_of(0, register) for register in range(4 * layout.width)]
        assert columns == sorted(columns)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("vector_size", VECTOR_SIZES)
def test_every_thread_ends_with_exactly_its_elements(vector_size: int, layout: str) -> None:
    """Exhaustive: over one period of columns, thread by thread and register by register."""
    compute = LAYOUTS[layout]
    mapping = mapped(vector_size, compute)
    decoded = [columns_for(mapping, thread) for thread in range(compute.lanes)]
    for thread, parts in enumerate(decoded):
        vector = mapping.vector_of_thread[thread]
        assert sorted(sum(parts, ())) == list(range(vector * vector_size, (vector + 1) * vector_size))
    assert sorted(mapping.vector_of_thread) == list(range(compute.lanes))
    exchanged = exchange_registers(decoded, mapping.size)
    for thread, parts in enumerate(exchanged):
        assert list(sum(parts, ())) == [compute.column_of(thread, r) for r in range(vector_size)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("vector_size", VECTOR_SIZES)
def test_the_exchange_moves_one_amount_between_any_two_threads(vector_size: int, layout: str) -> None:
    """What `data[j]` holds has one size for all threads and peers, so that one shuffle moves it."""
    mapping = mapped(vector_size, LAYOUTS[layout])
    sizes = {len(part) for thread in range(mapping.compute.lanes) for part in columns_for(mapping, thread)}
    assert sizes == {vector_size // mapping.size}


@pytest.mark.parametrize(
    ("vector_size", "layout", "size", "shuffles", "vectors"),
    [
        (2, "fragment", 1, 0, (0, 1, 2, 3)),
        (4, "fragment", 2, 1, (0, 2, 1, 3)),
        (8, "fragment", 4, 3, (0, 1, 2, 3)),
        # Four threads share a vector of eight pairs: each has two pairs for each of the others.
        (16, "fragment", 4, 6, (0, 1, 2, 3)),
        (2, "element", 2, 1, (0, 16, 1, 17, 2, 18)),
        (4, "element", 4, 3, (0, 8, 16, 24, 1, 9)),
        (8, "element", 8, 7, (0, 4, 8, 12, 16, 20)),
        (16, "element", 16, 15, (0, 2, 4, 6, 8, 10)),
    ],
)
def test_mini_warps(
    vector_size: int, layout: str, size: int, shuffles: int, vectors: tuple[int, ...]
) -> None:
    mapping = mapped(vector_size, LAYOUTS[layout])
    assert mapping.size == size
    assert mapping.vector_of_thread[: len(vectors)] == vectors
    assert mapping.shuffles(2 if layout == "fragment" else 1) == shuffles


@pytest.mark.parametrize("vector_size", VECTOR_SIZES)
def test_a_warp_fills_operand_b(vector_size: int) -> None:
    """Quad g of the warp decodes row g: registers fall into those of the multiplies, 16 columns after 16."""
    mapping = mapped(vector_size, FRAGMENT_LAYOUT)
    tile = FragmentTile(8)
    for row in range(8):
        decoded = [columns_for(mapping, thread) for thread in range(4)]
        exchanged = exchange_registers(decoded, mapping.size)
        for thread, parts in enumerate(exchanged):
            for register, column in enumerate(sum(parts, ())):
                assert tile.thread_of(row, column % 16) == 4 * row + thread
                assert tile.register_of(row, column % 16) == register % 4
                assert column // 16 == register // 4


def test_fragments_are_those_of_the_ptx_isa() -> None:
    """Its formulas of a row and a column for each lane and register, for m16n8k16 of 16-bit types."""
    for lane in range(32):
        group, quad = lane // 4, lane % 4
        for i in range(8):
            row = group if i < 2 or 4 <= i < 6 else group + 8
            column = quad * 2 + i % 2 + (0 if i < 4 else 8)
            assert FragmentTile(16).thread_of(row, column) == lane
            assert FragmentTile(16).register_of(row, column) == i
        for i in range(4):
            k, n = quad * 2 + i % 2 + (0 if i < 2 else 8), group
            assert FragmentTile(8).thread_of(n, k) == lane
            assert FragmentTile(8).register_of(n, k) == i


# Fig. 12: vectors of 8 of a 16 x 16 tile, operand A of the multiply, dealt to the warp in the order of storage.
SEQUENTIAL, OPERAND = SequentialTile(vector_size=8, columns=16), FragmentTile(16)
ELEMENTS = [(row, column) for row in range(16) for column in range(16)]


def test_fig_12_without_a_mapping() -> None:
    """data[8, 0:8] is thread 16's and needed by 0 to 3, whose own vectors are for 0 to 7: all get involved."""
    needed_by = {
        thread: {
            OPERAND.thread_of(*element) for element in ELEMENTS if SEQUENTIAL.thread_of(*element) == thread
        }
        for thread in range(32)
    }
    assert {SEQUENTIAL.thread_of(8, column) for column in range(8)} == {16}
    assert needed_by[16] == {0, 1, 2, 3}
    assert set().union(*(needed_by[thread] for thread in range(4))) == set(range(8))
    involved = {16}
    while (more := involved.union(*(needed_by[thread] for thread in involved))) != involved:
        involved = more
    assert involved == set(range(32))


def test_fig_12_with_the_mapping() -> None:
    """Threads 0, 1, 16, 17 are one mini-warp; threads 2 and 3 take over the work of 16 and 17."""
    groups = find_mini_warps((SEQUENTIAL.thread_of(*each), OPERAND.thread_of(*each)) for each in ELEMENTS)
    assert groups[0] == MiniWarp(threads=(0, 1, 2, 3), vectors=(0, 1, 16, 17))
    assert dict(zip(groups[0].threads, groups[0].vectors, strict=True)) == {0: 0, 1: 1, 2: 16, 3: 17}
    assert len(groups) == 8
    assert all(group.is_closed for group in groups)


def test_fig_12_after_the_exchange() -> None:
    """Every lane has its fragment of operand A, from three shuffles of pairs."""
    groups = find_mini_warps((SEQUENTIAL.thread_of(*each), OPERAND.thread_of(*each)) for each in ELEMENTS)
    decoded: list[list[list[tuple[int, int]]]] = [[] for _ in range(32)]
    for group in groups:
        for thread, vector in zip(group.threads, group.vectors, strict=True):
            own = [each for each in ELEMENTS if SEQUENTIAL.thread_of(*each) == vector]
            decoded[thread] = [[e for e in own if OPERAND.thread_of(*e) == peer] for peer in group.threads]
    for lane, parts in enumerate(exchange_registers(decoded, 4)):
        held = [element for part in parts for element in part]
        assert {OPERAND.thread_of(*element) for element in held} == {lane}
        assert sorted(OPERAND.register_of(*element) for element in held) == list(range(8))


def test_the_swaps_are_those_of_the_paper() -> None:
    """Sec. VI-B lists six exchanges of thread.[register] in three steps; together they transpose."""
    steps = (
        (((0, 1), (1, 0)), ((2, 3), (3, 2))),
        (((0, 2), (2, 0)), ((1, 3), (3, 1))),
        (((0, 3), (3, 0)), ((2, 1), (1, 2))),
    )
    data = [[f"{thread}.{register}" for register in range(4)] for thread in range(4)]
    swapped = [list(registers) for registers in data]
    for step in steps:
        for (thread, register), (other, place) in step:
            swapped[thread][register], swapped[other][place] = (
                swapped[other][place],
                swapped[thread][register],
            )
    assert exchange_registers(data, 4) == swapped
    assert [swapped[0][i] for i in range(4)] == ["0.0", "1.0", "2.0", "3.0"]


@given(st.sampled_from([1, 2, 4, 8, 16, 32]))
def test_the_exchange_undoes_itself(size: int) -> None:
    data = [[(thread, register) for register in range(size)] for thread in range(32)]
    once = exchange_registers(data, size)
    assert all(once[t][j] == (t - t % size + j, t % size) for t in range(32) for j in range(size))
    assert exchange_registers(once, size) == data


@pytest.mark.parametrize(
    ("source", "target", "count"),
    [(8, 2, 3), (8, 1, 7), (4, 2, 1), (4, 1, 3), (2, 2, 0), (1, 2, 0), (16, 2, 7), (16, 1, 15), (3, 2, 1)],
)
def test_shuffle_counts(source: int, target: int, count: int) -> None:
    assert shuffle_count(source, target) == count


@pytest.mark.parametrize("ratio", [1, 2, 4, 8])
def test_three_readings_of_the_threshold_agree(ratio: int) -> None:
    """Algorithm 2 counts ratio and allows 5; Table V counts ratio - 1; the text says fewer than five of them."""
    chosen = choose_fusion(shuffle_count(ratio, 1), 5.0) == "register"
    assert chosen == (ratio <= 5) == (ratio - 1 <= 5) == (ratio - 1 < 5)


@pytest.mark.parametrize("vector_size", [3, 5, 6, 7, 12])
def test_vectors_that_are_no_power_of_two_form_no_mini_warps(vector_size: int) -> None:
    for compute in LAYOUTS.values():
        assert map_threads(ThreadLayout(vector_size, compute.lanes), compute) is None


def test_vectors_narrower_than_wanted_are_dequantized_several_at_a_time() -> None:
    mapping = mapped(1, FRAGMENT_LAYOUT)
    assert (mapping.size, mapping.run, mapping.shuffles()) == (1, 2, 0)
    assert columns_for(mapping, 3) == ((6, 7),)


def test_layouts_over_different_threads_are_refused() -> None:
    with pytest.raises(ValueError, match="8 and 32 threads"):
        map_threads(ThreadLayout(8, 8), ELEMENT_LAYOUT)


def test_threads_that_are_no_block_are_not_closed() -> None:
    assert not MiniWarp((1, 2), (0, 1)).is_closed
    assert not MiniWarp((0, 1, 2), (0, 1, 2)).is_closed
    assert not MiniWarp((0, 1), (0, 1, 2)).is_closed
    assert not MiniWarp((0, 2), (0, 1)).is_closed


def task(vector_size: int, compute: ComputeLayout, **facts: Any) -> Any:
    """A problem of stand-ins: an algorithm and an op of which the pass asks plain facts.

    The op wants `compute`, or single elements where tensor cores would not get the exact values.
    """

    def layout(variant: Any, *, vector_size: int, exact: bool, aligned: bool) -> ComputeLayout:
        return compute if exact else FMA

    card = gpus.load("rtx4090")
    number = facts.get("roundtrip", 5.0)
    fact = card.shared_roundtrip_per_shuffle.model_copy(update={"value": number})
    return SimpleNamespace(
        algorithm=SimpleNamespace(
            vector_size=vector_size,
            exact_in=lambda dtype: dtype == facts.get("exact", "float16"),
            scales=SimpleNamespace(kind=facts.get("scales", "row")),
        ),
        op=SimpleNamespace(compute_layout=layout, staged=lambda _: False),
        variant=SimpleNamespace(dtype="float16"),
        gpu=card.model_copy(update={"shared_roundtrip_per_shuffle": fact}),
    )


FMA, MMA = ComputeLayout("fma", 1, 32), ComputeLayout("mma", 2, 4)
ALIGNED = Strategy("slack", fusion="aligned")


def planned(problem: Any, strategy: Strategy = STRATEGIES["o4"], chunk_vectors: int = 8) -> Plan:
    layout = PackedLayout(512, 1, 8, chunk_vectors, 2)
    return plan_exchange(problem, Plan("kernel", "o4", strategy, layout=layout))


@pytest.mark.parametrize(
    ("vector_size", "compute", "fusion", "mini_warp", "shuffles"),
    [
        (2, FMA, "register", 2, 1),
        (4, FMA, "register", 4, 3),
        (8, FMA, "shared", 1, 0),
        (16, FMA, "shared", 1, 0),
        (4, MMA, "register", 2, 1),
        (8, MMA, "register", 4, 3),
        (16, MMA, "shared", 1, 0),
    ],
)
def test_what_level_o4_plans(
    vector_size: int, compute: ComputeLayout, fusion: str, mini_warp: int, shuffles: int
) -> None:
    exchange = planned(task(vector_size, compute)).exchange
    assert (exchange.engine, exchange.width, exchange.lanes) == (compute.engine, compute.width, compute.lanes)
    assert (exchange.fusion, exchange.mini_warp, exchange.shuffles) == (fusion, mini_warp, shuffles)
    assert sorted(exchange.vector_of_lane) == list(range(compute.lanes))
    if fusion == "register":
        mapping = mapped(vector_size, ThreadLayout(compute.width, compute.lanes))
        assert exchange.vector_of_lane == mapping.vector_of_thread
    else:
        assert exchange.vector_of_lane == tuple(range(compute.lanes))


def test_the_gpu_decides_what_is_cheaper() -> None:
    assert planned(task(8, FMA, roundtrip=7.5)).exchange.fusion == "register"
    assert planned(task(8, FMA, roundtrip=7.5)).exchange.shuffles == 7
    assert planned(task(4, FMA, roundtrip=3.0)).exchange.fusion == "shared"


def test_vectors_longer_than_a_mini_warp_move_by_more_shuffles() -> None:
    exchange = planned(task(16, MMA, roundtrip=100.0)).exchange
    assert (exchange.fusion, exchange.mini_warp, exchange.shuffles) == ("register", 4, 6)


@pytest.mark.parametrize("vector_size", [1, 3, 6, 12])
def test_vectors_that_cannot_be_exchanged_are_multiplied_where_they_are(vector_size: int) -> None:
    plan = planned(task(vector_size, FMA))
    assert plan.exchange == Exchange()
    assert plan.decisions[-1].value == "none"


def test_vectors_as_long_as_wanted_need_no_exchange() -> None:
    exchange = planned(task(2, MMA)).exchange
    assert exchange == Exchange("mma", "aligned", 2, 4, 1, 0, (0, 1, 2, 3))


@pytest.mark.parametrize(
    ("vector_size", "chunk_vectors", "facts", "engine"),
    [
        (8, 8, {}, "mma"),
        (8, 8, {"exact": "bfloat16"}, "fma"),  # entries would be rounded
        (8, 8, {"scales": "group"}, "fma"),  # scales within a row are applied in fp32
        (2, 8, {}, "mma"),
        (2, 7, {}, "fma"),  # vectors of two make operands in pairs
        (8, 7, {}, "mma"),
    ],
)
def test_tensor_cores_get_what_they_hold_exactly(
    vector_size: int, chunk_vectors: int, facts: dict[str, str], engine: str
) -> None:
    plan = planned(task(vector_size, MMA, **facts), chunk_vectors=chunk_vectors)
    assert plan.exchange.engine == engine


def test_below_o4_nothing_moves() -> None:
    for level in ("gc", "sc", "o1", "o2", "o3"):
        plan = planned(task(8, MMA), STRATEGIES[level])
        assert plan.exchange == Exchange()
        assert (plan.decisions[-1].name, plan.decisions[-1].value) == ("fusion", "none")


def test_aligned_takes_the_layout_without_shuffles() -> None:
    exchange = planned(task(8, MMA), ALIGNED).exchange
    assert exchange == Exchange("mma", "aligned", 2, 4, 1, 0, (0, 1, 2, 3))


def test_aligned_multiply_adds_are_what_the_default_is() -> None:
    assert planned(task(8, FMA), ALIGNED).exchange == Exchange()


@pytest.mark.parametrize("compute", [FMA, MMA], ids=["fma", "mma"])
@pytest.mark.parametrize("vector_size", [1, 2, 3, 4, 8, 16])
@pytest.mark.parametrize("strategy", [*STRATEGIES.values(), ALIGNED])
def test_the_decision_says_what_the_plan_has(
    vector_size: int, compute: ComputeLayout, strategy: Strategy
) -> None:
    plan = planned(task(vector_size, compute), strategy)
    (decision,) = plan.decisions
    assert (decision.name, decision.value) == ("fusion", plan.exchange.fusion)
    assert ("free axis is permuted" in decision.reason) <= (plan.exchange.fusion == "aligned")


def test_the_decision_has_its_alternatives() -> None:
    (decision,) = planned(task(4, FMA)).decisions
    assert (decision.name, decision.value) == ("fusion", "register")
    assert decision.inputs["shuffles"] == 3
    assert decision.inputs["shared_roundtrip_per_shuffle"] == 5.0
    assert [each.value for each in decision.rejected] == ["shared", "none"]
    assert "VI-B" in decision.section
    (decision,) = planned(task(8, FMA)).decisions
    assert [each.value for each in decision.rejected] == ["register", "none"]
    assert "7 shuffles a vector cost more than a round trip, 5" in decision.rejected[0].reason


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("m", [1, 16])
def test_layouts_that_ops_ask_for_are_exchanged_right(preset: str, m: int) -> None:
    """Whatever an op wants of a preset's vectors, the plan's mapping brings to its threads."""
    made: Problem = problem(preset, gpu="rtx4090", level="o4", m=m)
    exchange = planned(made).exchange
    if exchange.fusion == "register":
        mapping = mapped(made.algorithm.vector_size, ThreadLayout(exchange.width, exchange.lanes))
        assert exchange.vector_of_lane == mapping.vector_of_thread
        assert exchange.mini_warp == mapping.size > 1
    else:
        assert exchange.fusion in {"shared", "aligned"}
        assert exchange.vector_of_lane == tuple(range(exchange.lanes))
