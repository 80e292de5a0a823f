"""What passes predict of a kernel is what the emulator counts when it runs."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from launches import Kernels
from matrix import changed, skewed_codes
from plans import forced
from problems import kmeans, problem
from sampling import every_other

from vqcc.hotness import profile_tensor
from vqcc.levels import STRATEGIES, Strategy
from vqcc.ops.linear.tile import LinearTile
from vqcc.passes.cost import count
from vqcc.passes.hotness import covered
from vqcc.passes.wavefronts import copied_wavefronts
from vqcc.plan import Exchange, Placement, Plan, Split
from vqcc.problem import Boundaries

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.emulator import Counters
    from vqcc.problem import Problem

#: One that gives a kernel whole rows of entries, one that splits nothing.
O4_UNSPLIT = Strategy("slack", registers=True, fusion="exchange")
ALIGNED = Strategy("slack", registers=True, fusion="aligned")
#: Of the weights: enough look-ups for an expectation to be met.
ROWS = 32


def counted(
    task: Problem, plans: list[Plan], cache_directory: Path, *, skewed: bool = False, even_stages: int = 0
) -> list[Counters]:
    """What plans of one problem cost, on the same weights and inputs; results are checked on the way."""
    rng = np.random.default_rng(5)
    n, k = task.op.weight_shape
    tensor = task.algorithm.random_tensor(rng, "w", n, k)
    if skewed:
        codes = skewed_codes(task.algorithm, tensor.codes, rng, even_stages)
        tensor = replace(tensor, codes=codes)
        task = replace(task, profile=(profile_tensor(tensor),))
    kernels = Kernels([(task, plan) for plan in plans], tensor, cache_directory, by_frequency=skewed)
    inputs = kernels.draw(task, task.variant.sizes["m"], rng, bias=True)
    found = []
    for kernel in kernels.kernels:
        outcome = kernels.run(kernel, inputs, count=True)
        assert outcome.comparison.passed
        assert outcome.counters is not None
        found.append(outcome.counters)
    return found


def whole(task: Problem, plan: Plan) -> Plan:
    """The plan, if no warp repeats a row and no lane lacks a vector: counts are then exact."""
    assert isinstance(plan.tile, LinearTile)
    assert plan.layout is not None
    rows, _ = task.op.weight_shape
    assert plan.tile.row_blocks * plan.tile.rows_per_block == rows
    assert plan.layout.tail_lanes == 0
    return plan


def without_exchange(plan: Plan) -> Plan:
    """The same tile, elements multiplied where they are decoded."""
    exchange = plan.exchange
    return replace(
        plan, exchange=Exchange(exchange.engine, "none" if exchange.engine == "fma" else "aligned")
    )


def without_cache(plan: Plan) -> Plan:
    """The same tile, all look-ups global."""
    assert plan.placement is not None
    return replace(plan, placement=Placement((0,), 0, plan.placement.resident_tiles, 0))


EXCHANGES = [
    # Engine and way, preset, rows of x, shuffles that a round trip to shared memory costs.
    ("fma", "register", "gptvq-4", 1, 100.0),
    ("fma", "register", "aqlm-2x8", 4, 100.0),
    ("fma", "shared", "quip-4", 1, 0.5),
    ("fma", "shared", "vq-2-8-1", 2, 0.5),
    ("mma", "register", "aqlm-2x8", 16, 100.0),
    ("mma", "register", "vq-4-8-1", 5, 100.0),
    ("mma", "register", "quip-4", 8, 100.0),
    ("mma", "shared", "quip-4", 16, 0.5),
    ("mma", "shared", "vq-4-8-1", 16, 0.5),
]


@pytest.mark.parametrize(("engine", "fusion", "preset", "m", "roundtrip"), EXCHANGES)
def test_what_an_exchange_costs(
    engine: str, fusion: str, preset: str, m: int, roundtrip: float, cache_directory: Path
) -> None:
    """Shuffles are the exchange pass's count per vector; a way through shared memory meets no bank conflicts."""
    card = changed("h200", shared_roundtrip_per_shuffle=roundtrip)
    task = problem(preset, gpu=card, level="o4", n=ROWS, k=2048, m=m)
    plan = whole(task, forced(task, O4_UNSPLIT))
    assert (plan.exchange.engine, plan.exchange.fusion) == (engine, fusion)
    exchanged, plain = counted(task, [plan, without_exchange(plan)], cache_directory)
    predicted, base = count(task, plan), count(task, without_exchange(plan))
    # Multiply-adds exchange a decoded vector, tensor cores what each of its stages gives.
    stages = task.algorithm.residuals if engine == "mma" else 1
    vectors = ROWS * 2048 // task.algorithm.vector_size * stages
    assert exchanged.shuffles - plain.shuffles == plan.exchange.shuffles * vectors // 32 == predicted.shuffles
    assert base.shuffles == 0
    assert (predicted.shuffles > 0) == (fusion == "register")
    if fusion == "shared":
        wavefronts = shared_wavefronts(exchanged) - shared_wavefronts(plain)
        assert wavefronts == pytest.approx(predicted.shared_wavefronts - base.shared_wavefronts)
        assert wavefronts == ideal_wavefronts(exchanged) - ideal_wavefronts(plain), "bank conflicts"


def shared_wavefronts(counters: Counters) -> int:
    return counters.shared_load_wavefronts + counters.shared_store_wavefronts


def ideal_wavefronts(counters: Counters) -> int:
    return counters.shared_load_ideal + counters.shared_store_ideal


@pytest.mark.parametrize("m", [1, 8, 16])
@pytest.mark.parametrize("preset", ["aqlm-2x8", "vq-4-8-1", "vq-2-8-1", "quip-4", "gptvq-2"])
def test_tensor_multiplies(preset: str, m: int, cache_directory: Path) -> None:
    task = problem(preset, gpu="h200", level="best", n=ROWS, k=2048, m=m)
    plan = whole(task, forced(task, ALIGNED))
    assert plan.exchange.engine == "mma"
    (counters,) = counted(task, [plan], cache_directory)
    assert counters.tensor_multiplies == count(task, plan).tensor_multiplies
    assert counters.shuffles == 0


def test_parts_of_the_work_multiply_no_more(cache_directory: Path) -> None:
    """Column tiles and stages are each done by one part only, and no element is exchanged twice."""
    task = problem(kmeans(residuals=2, scope={"rows": 64, "cols": 512}), n=128, k=2048, m=16, level="o4")
    for split in (Split(4, 1), Split(1, 2), Split(2, 2)):
        plan = whole(task, forced(task, STRATEGIES["o4"], split=split))
        (counters,) = counted(task, [plan], cache_directory)
        predicted = count(task, plan)
        assert counters.tensor_multiplies == predicted.tensor_multiplies > 0
        assert counters.shuffles == predicted.shuffles > 0
        # Blocks that are done with their part of rows say so once.
        assert counters.atomics == plan.tile.blocks  # type: ignore[union-attr]


ALL_SHARED = [
    # Algorithm, columns, rows of x, entries of a table.
    ("aqlm-2x8", 2048, 1, 256),
    ("aqlm-2x8", 2048, 16, 256),
    ("aqlm-3", 4096, 1, 4096),
    ("quip-2", 2048, 2, 256),
    ("quip-4", 2048, 16, 256),
    ("vq-4-8-1", 2048, 4, 256),
    ("vq-2-8-1", 2048, 1, 256),
    ("gptvq-2", 2048, 16, 256),
    ("gptvq-4", 2048, 1, 256),
    ("gptvq-4", 2048, 16, 256),
    (kmeans(vector_size=16, entries=128), 2048, 1, 128),
    (kmeans(vector_size=12, entries=128, codebook_dtype="int8"), 1536, 1, 128),
]
SOME_SHARED = [
    # Algorithm, boundaries.
    ("vq-4-8-1", Boundaries(shared=128)),
    ("vq-4-8-1", Boundaries(registers=4, shared=132)),
    ("vq-4-8-1", Boundaries(registers=3, shared=256)),
    ("quip-2", Boundaries(registers=4, shared=128)),
    ("quip-2", Boundaries(shared=64)),
    ("gptvq-2", Boundaries(shared=128)),
    ("aqlm-1x16", Boundaries(shared=4096)),
    ("aqlm-1x16", Boundaries(registers=4, shared=8192)),
]
#: What keeps the lanes of a warp in step, so that it is known which loads go together: multiplies on tensor cores, and
#: an exchange after each decoded vector on the CUDA cores.
IN_STEP = [(ALIGNED, 16), (O4_UNSPLIT, 1)]
SKEWED = pytest.mark.parametrize("skewed", [False, True], ids=["uniform", "skewed"])


def check_lookups(task: Problem, strategy: Strategy, cache_directory: Path, *, skewed: bool) -> Plan:
    """Against the same kernel whose look-ups are all global: what is left are look-ups and filling the cache."""
    if skewed:
        task = replace(task, profile=drawn_profile(task))
    plan = forced(task, strategy)
    cached, plain = counted(task, [plan, without_cache(plan)], cache_directory, skewed=skewed)
    predicted, base = count(task, plan), count(task, without_cache(plan))
    measured = shared_wavefronts(cached) - shared_wavefronts(plain)
    assert measured == pytest.approx(predicted.shared_wavefronts - base.shared_wavefronts, rel=0.03)
    return plan


@SKEWED
@pytest.mark.parametrize(("algorithm", "k", "m", "entries"), ALL_SHARED)
def test_wavefronts_where_all_entries_are_shared(
    algorithm: Any, k: int, m: int, entries: int, skewed: bool, cache_directory: Path
) -> None:
    task = problem(algorithm, gpu="h200", level="best", n=ROWS, k=k, m=m)
    # Registers hold entries of one book only.
    task = replace(task, boundaries=Boundaries(0 if task.algorithm.scope.is_tensor else None, entries))
    strategy = ALIGNED if m == 16 else STRATEGIES["o1"]
    plan = check_lookups(task, strategy, cache_directory, skewed=skewed)
    assert plan.placement is not None
    assert plan.placement.n_shared == task.algorithm.table_entries == entries


@pytest.mark.parametrize(
    ("preset", "boundaries", "strategy", "m", "skewed"), every_other(SOME_SHARED, IN_STEP, (False, True))
)
def test_wavefronts_where_some_entries_are_shared(
    preset: str, boundaries: Boundaries, strategy: Strategy, m: int, skewed: bool, cache_directory: Path
) -> None:
    task = problem(preset, gpu="h200", level="best", n=ROWS, k=2048, m=m, boundaries=boundaries)
    plan = check_lookups(task, strategy, cache_directory, skewed=skewed)
    assert plan.exchange.engine == ("mma" if m == 16 else "fma")
    assert plan.placement is not None
    assert 0 < plan.placement.n_shared - max(plan.placement.n_registers) < task.algorithm.table_entries


@SKEWED
def test_wavefronts_of_pairs_where_some_entries_are_shared(skewed: bool, cache_directory: Path) -> None:
    """Vectors of two: tensor cores take two of them at a time, so that only multiply-adds keep lanes in step."""
    task = problem("gptvq-4", gpu="h200", level="best", n=ROWS, k=2048, boundaries=Boundaries(shared=128))
    plan = check_lookups(task, O4_UNSPLIT, cache_directory, skewed=skewed)
    assert (plan.exchange.engine, plan.exchange.fusion) == ("fma", "register")


@pytest.mark.parametrize(
    ("preset", "boundaries", "level", "skewed"),
    every_other([*SOME_SHARED, ("gptvq-4", Boundaries(shared=128))], ("o1", "o2", "o3"), (False, True)),
)
def test_loads_where_some_entries_are_shared(
    preset: str, boundaries: Boundaries, level: str, skewed: bool, cache_directory: Path
) -> None:
    """Levels that exchange nothing: lanes are not in step, but how many look-ups each place serves is known."""
    task = problem(preset, gpu="h200", level=level, n=ROWS, k=2048, boundaries=boundaries)
    if skewed:
        task = replace(task, profile=drawn_profile(task))
    plan = forced(task, STRATEGIES[level])
    assert plan.exchange == Exchange()
    assert plan.placement is not None
    cached, plain = counted(task, [plan, without_cache(plan)], cache_directory, skewed=skewed)
    held, shared = plan.placement.n_registers, plan.placement.n_shared
    share = covered(task, [max(shared, each) for each in held]) - covered(task, held)
    constants = 1 if task.algorithm.constant_entries else 0
    lookups = ROWS * 2048 // task.algorithm.vector_size * task.algorithm.residuals
    measured = cached.shared_loads - plain.shared_loads - constants * lookups
    # A profile is of these codes; codes that are drawn evenly come near their expectation.
    expected = share * lookups
    assert measured == pytest.approx(expected, abs=0.5 if skewed else 0.05 * lookups)


def drawn_profile(task: Problem, even_stages: int = 0) -> tuple[Any, ...]:
    """The profile of the codes that `counted` draws."""
    rng = np.random.default_rng(5)
    tensor = task.algorithm.random_tensor(rng, "w", *task.op.weight_shape)
    codes = skewed_codes(task.algorithm, tensor.codes, rng, even_stages)
    return (profile_tensor(replace(tensor, codes=codes)),)


def with_copies(task: Problem, plan: Plan, copies: int) -> Plan:
    """The same tile, all entries in shared memory, so many times."""
    algorithm, tile, launch = task.algorithm, plan.tile, plan.launch
    assert tile is not None
    assert launch is not None
    rows = algorithm.table_count * algorithm.table_entries + algorithm.constant_entries
    size = rows * algorithm.entry_stride * copies
    return replace(
        plan,
        placement=Placement((0,), algorithm.table_entries, 1, size, copies),
        launch=replace(launch, dynamic_shared_bytes=tile.shared_bytes + size),
    )


@SKEWED
@pytest.mark.parametrize(
    ("preset", "m", "strategy"),
    [
        ("vq-4-8-1", 1, STRATEGIES["o1"]),
        ("aqlm-2x8", 1, STRATEGIES["o1"]),
        ("quip-4", 16, ALIGNED),
        ("vq-2-8-1", 4, ALIGNED),
    ],
)
def test_copies_that_fill_the_banks_have_no_conflicts(
    preset: str, m: int, strategy: Strategy, skewed: bool, cache_directory: Path
) -> None:
    """Whatever the codes."""
    task = problem(preset, gpu="h200", level="best", n=ROWS, k=2048, m=m)
    stride = task.algorithm.entry_stride
    plan = with_copies(task, forced(task, strategy), 128 // stride)
    cached, plain = counted(task, [plan, without_cache(plan)], cache_directory, skewed=skewed)
    loads = cached.shared_load_wavefronts - plain.shared_load_wavefronts
    assert loads == cached.shared_load_ideal - plain.shared_load_ideal
    lookups = ROWS * 2048 // task.algorithm.vector_size * task.algorithm.residuals
    kinds = 2 if task.algorithm.constant_entries else 1
    assert (
        loads == kinds * copied_wavefronts(task.algorithm.table_entries, stride, 128 // stride) * lookups / 32
    )


@pytest.mark.parametrize("preset", ["vq-4-8-1", "quip-2"])
def test_more_copies_have_fewer_conflicts(preset: str, cache_directory: Path) -> None:
    task = problem(preset, gpu="h200", level="best", n=ROWS, k=2048)
    stride = task.algorithm.entry_stride
    copies = [each for each in (1, 2, 4, 8, 16, 32) if each == 1 or 16 <= each * stride <= 128]
    base = forced(task, STRATEGIES["o1"])
    plain, *each = counted(
        task, [without_cache(base), *(with_copies(task, base, number) for number in copies)], cache_directory
    )
    loads = [counters.shared_load_wavefronts - plain.shared_load_wavefronts for counters in each]
    # A few copies of narrow entries spare no bank, and lanes that look up one entry no longer share it.
    assert all(more <= 1.05 * fewer for fewer, more in pairwise(loads))
    assert loads[0] > 1.5 * loads[-1]
    lookups = ROWS * 2048 // task.algorithm.vector_size * (2 if task.algorithm.constant_entries else 1)
    for number, found in zip(copies, loads, strict=True):
        assert found * 32 / lookups == pytest.approx(copied_wavefronts(256, stride, number), rel=0.05)


def test_registers_and_global_memory_take_what_shared_memory_does_not(cache_directory: Path) -> None:
    """Loads of entries: those of a skewed profile's shares, in each place."""
    task = problem("vq-4-8-1", gpu="h200", level="o2", n=ROWS, k=2048, boundaries=Boundaries(4, 64))
    task = replace(task, profile=drawn_profile(task))
    (profile,) = task.profile
    plan = forced(task, STRATEGIES["o2"])
    assert plan.placement is not None
    assert (plan.placement.n_registers, plan.placement.n_shared) == ((4,), 64)
    cached, plain = counted(task, [plan, without_cache(plan)], cache_directory, skewed=True)
    lookups = ROWS * 2048 // task.algorithm.vector_size
    coverage = profile.coverage()
    in_shared = cached.shared_loads - plain.shared_loads
    assert in_shared == round(float(coverage[64] - coverage[4]) * lookups)
    assert plan.launch is not None
    # The cache is filled by words of 16 bytes, and registers by each thread.
    filling = plan.launch.grid * (plan.placement.shared_book_bytes // 16 + 4 * plan.launch.threads)
    assert plain.global_loads - cached.global_loads == round(float(coverage[64]) * lookups) - filling


@pytest.mark.parametrize(
    ("strategy", "m", "registers"), [(STRATEGIES["o2"], 1, 32), (ALIGNED, 16, 90)], ids=["fma", "mma"]
)
def test_each_stage_takes_its_own_entries_from_registers(
    strategy: Strategy, m: int, registers: int, cache_directory: Path
) -> None:
    """The first stage has hot entries, the second none: loads are those of the look-ups that are left."""
    task = problem("aqlm-2x8", gpu="h200", level="o2", n=ROWS, k=2048, m=m)
    task = replace(task, profile=drawn_profile(task, 1))
    plan = forced(task, strategy, registers=registers)
    assert plan.placement is not None
    first, second = plan.placement.n_registers
    assert first > 0
    assert second == 0
    cached, plain = counted(task, [plan, without_cache(plan)], cache_directory, skewed=True, even_stages=1)
    (profile,) = task.profile
    counts = -np.sort(-profile.counts[0], axis=-1)
    shared = plan.placement.n_shared
    assert (
        cached.shared_loads - plain.shared_loads == counts[0, first:shared].sum() + counts[1, :shared].sum()
    )
    if plan.exchange.engine == "mma":  # lanes in step: it is known which loads go together
        predicted, base = count(task, plan), count(task, without_cache(plan))
        measured = shared_wavefronts(cached) - shared_wavefronts(plain)
        assert measured == pytest.approx(predicted.shared_wavefronts - base.shared_wavefronts, rel=0.03)
