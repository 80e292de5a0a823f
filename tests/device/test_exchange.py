"""After an exchange every lane holds exactly its elements, for the shuffles and wavefronts that were promised."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from layouts import ELEMENT_LAYOUT, FRAGMENT_LAYOUT, mapped

from vqcc.emulator import Buffer, BugKind, EmulationError
from vqcc.passes.exchange import ThreadLayout

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from vqcc.emulator import Counters, Emulated

SIZES = (2, 4, 8, 16)
LAYOUTS = ("Element", "Fragment")
#: Of a warp with several rows of single elements.
ROW_LANES = (2, 4, 8, 16)
TYPES = {"uint32": np.uint32, "float": np.float32}
THREADS, WORDS, STRIDES = (2, 4, 8, 16), (1, 2, 3), (1, 2, 4)

_SOURCE = """
// Every register goes in as in[thread][register] and comes out as out[thread][register].
template <class Layout, class Register>
__device__ __forceinline__ void through_registers(const Register* in, Register* out) {
  constexpr int kRegisters = Layout::kRegisters;
  Register data[kRegisters];
  for (int r = 0; r < kRegisters; ++r) data[r] = in[threadIdx.x * kRegisters + r];
  exchange_registers<Layout>(data, lane_index());
  for (int r = 0; r < kRegisters; ++r) out[threadIdx.x * kRegisters + r] = data[r];
}
template <class Layout, class Register>
__device__ __forceinline__ void through_shared(const Register* in, const int* vectors, Register* out, int turns) {
  constexpr int kRegisters = Layout::kRegisters;
  uint32* scratch = reinterpret_cast<uint32*>(dynamic_shared()) + warp_index() * exchange_words<Layout>();
  Register data[kRegisters];
  for (int r = 0; r < kRegisters; ++r) data[r] = in[threadIdx.x * kRegisters + r];
  const int vector = vectors[lane_index()];
  for (int turn = 0; turn < turns; ++turn) {
    Register copy[kRegisters];
    for (int r = 0; r < kRegisters; ++r) copy[r] = data[r];
    exchange_shared<Layout>(copy, lane_index(), vector, scratch);
    for (int r = 0; r < kRegisters; ++r) out[threadIdx.x * kRegisters + r] = copy[r];
  }
}
template <class Layout>
__device__ __forceinline__ void facts(int* out) {
  const int lane = lane_index();
  if (lane == 0) {
    out[0] = Layout::kRegisters;
    out[1] = Layout::kMiniWarp;
    out[2] = Layout::kShuffles;
    out[3] = exchange_words<Layout>();
  }
  out[4 + lane] = Layout::vector_of(lane);
}
template <bool kOrdered, int kThreads, int kWords, int kStride>
__device__ __forceinline__ void groups(const uint32* in, uint32* out) {
  uint32 data[kThreads * kWords];
  for (int i = 0; i < kThreads * kWords; ++i) data[i] = in[threadIdx.x * kThreads * kWords + i];
  const int member = lane_index() / kStride % kThreads;
  if constexpr (kOrdered) {
    exchange<kThreads, kWords, kStride>(data, member);
  } else {
    exchange_unordered<kThreads, kWords, kStride>(data, member);
  }
  for (int i = 0; i < kThreads * kWords; ++i) out[threadIdx.x * kThreads * kWords + i] = data[i];
}
"""
_SOURCE += "".join(
    f"""
extern "C" __global__ void registers_{layout}_{size}_{type_}(const {type_}* in, {type_}* out) {{
  through_registers<{layout}Layout<{size}>>(in, out);
}}
extern "C" __global__ void shared_{layout}_{size}_{type_}(const {type_}* in, const int* vectors, {type_}* out,
                                                          int turns) {{
  through_shared<{layout}Layout<{size}>>(in, vectors, out, turns);
}}
"""
    for layout in LAYOUTS
    for size in SIZES
    for type_ in TYPES
)
_SOURCE += "".join(
    f"""
extern "C" __global__ void registers_Row{lanes}_{size}_uint32(const uint32* in, uint32* out) {{
  through_registers<ElementLayout<{size}, {lanes}>>(in, out);
}}
extern "C" __global__ void shared_Row{lanes}_{size}_uint32(const uint32* in, const int* vectors, uint32* out,
                                                           int turns) {{
  through_shared<ElementLayout<{size}, {lanes}>>(in, vectors, out, turns);
}}
extern "C" __global__ void facts_Row{lanes}_{size}(int* out) {{ facts<ElementLayout<{size}, {lanes}>>(out); }}
"""
    for lanes in ROW_LANES
    for size in SIZES
)
_SOURCE += "".join(
    f'extern "C" __global__ void facts_{layout}_{size}(int* out) {{ facts<{layout}Layout<{size}>>(out); }}\n'
    for layout in LAYOUTS
    for size in SIZES
)
CASES = [
    (threads, words, stride)
    for threads in THREADS
    for words in WORDS
    for stride in STRIDES
    if threads * stride <= 32 and threads * words <= 24
]
_SOURCE += "".join(
    f"""
extern "C" __global__ void groups_{kind}_{threads}_{words}_{stride}(const uint32* in, uint32* out) {{
  groups<{ordered}, {threads}, {words}, {stride}>(in, out);
}}
"""
    for kind, ordered in (("ordered", "true"), ("unordered", "false"))
    for threads, words, stride in CASES
)

LANES = np.arange(32)
COMPUTE = {"Element": ELEMENT_LAYOUT, "Fragment": FRAGMENT_LAYOUT}
#: Elements of a register, by layout.
PACKED = {"Element": 1, "Fragment": 2}


@pytest.fixture(scope="module")
def kernels(emulate_device: Callable[..., Emulated]) -> Emulated:
    return emulate_device(("exchange.cuh",), _SOURCE)


def elements_of_vectors(layout: str, size: int, vectors: Sequence[int]) -> NDArray[np.uint32]:
    """What 32 lanes decode, [lane, register]: an element's row * 1000 + column, a pair's its first element's."""
    if layout == "Element":
        return np.uint32(np.multiply.outer(vectors, [size]) + np.arange(size))
    row = LANES // 4
    columns = np.multiply.outer(vectors, [size]) + 2 * np.arange(size // 2)
    return np.uint32(row[:, None] * 1000 + columns)


def elements_of_lanes(layout: str, size: int) -> NDArray[np.uint32]:
    """What 32 lanes multiply, by the description of `ElementLayout` and by the PTX ISA's fragments."""
    if layout == "Element":
        return np.uint32(LANES[:, None] + 32 * np.arange(size))
    row, t = LANES // 4, LANES % 4
    return np.uint32(row[:, None] * 1000 + 8 * np.arange(size // 2) + 2 * t[:, None])


def algorithm_1(layout: str, size: int) -> list[int]:
    """The vector that each lane decodes, by the pass's thread mapping."""
    mapping = mapped(size, COMPUTE[layout]).vector_of_thread
    return [mapping[lane % len(mapping)] for lane in LANES]


def in_order(layout: str) -> list[int]:
    return LANES.tolist() if layout == "Element" else (LANES % 4).tolist()


def run(
    kernels: Emulated,
    kernel: str,
    data: NDArray[np.generic],
    *middle: object,
    warps: int = 1,
    shared: int = 0,
) -> tuple[NDArray[np.generic], Counters]:
    out = np.zeros_like(data)
    vectors = [Buffer("vectors", each, "input") for each in middle if isinstance(each, np.ndarray)]
    scalars = [each for each in middle if isinstance(each, int)]
    arguments = [Buffer("in", data, "input"), *vectors, Buffer("out", out, "output"), *scalars]
    report = kernels.launch(kernel, (1, 1, 1), (32 * warps, 1, 1), shared, arguments, count=True)
    assert report.counters is not None
    return out, report.counters


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_algorithm_1s(kernels: Emulated, layout: str, size: int) -> None:
    out = np.zeros(36, np.int32)
    kernels.launch(f"facts_{layout}_{size}", (1, 1, 1), (32, 1, 1), 0, [Buffer("out", out, "output")])
    registers, mini_warp, shuffles, words, *vectors = out.tolist()
    mapping = mapped(size, COMPUTE[layout])
    assert vectors == algorithm_1(layout, size)
    assert (mini_warp, shuffles) == (mapping.size, mapping.shuffles(PACKED[layout]))
    assert registers == elements_of_lanes(layout, size).shape[1]
    assert words == 32 * registers
    # What a lane decodes and multiplies itself needs no shuffle; a lane multiplies as many of every member's.
    decoded, wanted = elements_of_vectors(layout, size, vectors), elements_of_lanes(layout, size)
    kept = [len(set(decoded[lane].tolist()) & set(wanted[lane].tolist())) for lane in LANES]
    assert kept == [registers - shuffles] * 32
    for lane in LANES:
        first = lane // mini_warp * mini_warp
        assert set(wanted[lane].tolist()) <= set(decoded[first : first + mini_warp].ravel().tolist())


def test_known_mappings() -> None:
    assert algorithm_1("Fragment", 8)[:4] == [0, 1, 2, 3]
    assert algorithm_1("Fragment", 4)[:4] == [0, 2, 1, 3]
    assert algorithm_1("Fragment", 2)[:4] == [0, 1, 2, 3]
    for size in SIZES:
        mapping = algorithm_1("Element", size)
        assert mapping == [lane // size + 32 // size * (lane % size) for lane in LANES]


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_exchange_through_registers(kernels: Emulated, layout: str, size: int, type_: str) -> None:
    data = elements_of_vectors(layout, size, algorithm_1(layout, size)).astype(TYPES[type_])
    out, counters = run(kernels, f"registers_{layout}_{size}_{type_}", data)
    assert out.tolist() == elements_of_lanes(layout, size).tolist()
    expected = {"Element": {2: 1, 4: 3, 8: 7, 16: 15}, "Fragment": {2: 0, 4: 1, 8: 3, 16: 6}}
    assert counters.shuffles == expected[layout][size]
    assert counters.shared_loads + counters.shared_stores + counters.warp_barriers == 0


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("mapped", [True, False], ids=["algorithm_1", "in_order"])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_exchange_through_shared_memory(
    kernels: Emulated, layout: str, size: int, mapped: bool, type_: str
) -> None:
    vectors = algorithm_1(layout, size) if mapped else in_order(layout)
    wanted = elements_of_lanes(layout, size)
    registers, warps, turns = wanted.shape[1], 3, 2
    # Each warp has elements of its own, and each turn reuses its scratch.
    one = elements_of_vectors(layout, size, vectors)
    data = np.concatenate([one + 10000 * warp for warp in range(warps)]).astype(TYPES[type_])
    kernel, shared = f"shared_{layout}_{size}_{type_}", 128 * registers * warps
    out, counters = run(kernels, kernel, data, np.int32(vectors), turns, warps=warps, shared=shared)
    assert out.tolist() == np.concatenate([wanted + 10000 * warp for warp in range(warps)]).tolist()
    wavefronts = registers * warps * turns
    assert (counters.shared_store_wavefronts, counters.shared_store_ideal) == (wavefronts, wavefronts)
    assert (counters.shared_load_wavefronts, counters.shared_load_ideal) == (wavefronts, wavefronts)
    assert counters.shared_stores == 32 * -(-registers // 4) * warps * turns
    assert (counters.shuffles, counters.warp_barriers) == (0, 2 * warps * turns)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("lanes", ROW_LANES)
def test_rows_of_fewer_lanes_exchange_alike(kernels: Emulated, lanes: int, size: int) -> None:
    """A warp has several rows: each lane ends with its own row's elements, in registers and without a bank conflict."""
    mapping = mapped(size, ThreadLayout(1, lanes))
    rows, lane = 100000 * (LANES // lanes), LANES % lanes
    wanted = np.uint32(rows[:, None] + lane[:, None] + lanes * np.arange(size))
    vectors = {"registers": np.array(mapping.vector_of_thread)[lane], "shared": lane}
    data = {
        way: np.uint32(rows[:, None] + size * own[:, None] + np.arange(size)) for way, own in vectors.items()
    }
    name = f"Row{lanes}_{size}_uint32"
    out, counters = run(kernels, f"registers_{name}", data["registers"])
    assert out.tolist() == wanted.tolist()
    assert counters.shuffles == mapping.shuffles()
    order = np.int32(lane)
    out, counters = run(kernels, f"shared_{name}", data["shared"], order, 1, shared=128 * size)
    assert out.tolist() == wanted.tolist()
    assert (counters.shared_store_wavefronts, counters.shared_load_wavefronts) == (size, size)
    facts = np.zeros(36, np.int32)
    kernels.launch(f"facts_Row{lanes}_{size}", (1, 1, 1), (32, 1, 1), 0, [Buffer("out", facts, "output")])
    assert facts[:4].tolist() == [size, mapping.size, mapping.shuffles(), 32 * size]
    assert facts[4:].tolist() == vectors["registers"].tolist()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("size", SIZES)
def test_shared_memory_takes_vectors_in_any_order(kernels: Emulated, size: int, seed: int) -> None:
    vectors = np.random.default_rng(seed).permutation(32)
    data = elements_of_vectors("Element", size, vectors.tolist())
    kernel = f"shared_Element_{size}_uint32"
    out, _ = run(kernels, kernel, data, vectors.astype(np.int32), 1, shared=128 * size)
    assert out.tolist() == elements_of_lanes("Element", size).tolist()


def test_scratch_that_is_too_small_is_found(kernels: Emulated) -> None:
    data = elements_of_vectors("Element", 8, in_order("Element"))
    with pytest.raises(EmulationError) as caught:
        run(kernels, "shared_Element_8_uint32", data, np.int32(LANES), 1, shared=128 * 8 - 16)
    assert caught.value.finding.kind is BugKind.OUT_OF_BOUNDS


@pytest.mark.parametrize("ordered", [True, False], ids=["ordered", "unordered"])
@pytest.mark.parametrize(("threads", "words", "stride"), CASES)
def test_groups_reach_their_members(
    kernels: Emulated, threads: int, words: int, stride: int, ordered: bool
) -> None:
    """Group j of lane l, word w, goes in as (l, j, w) and must be found where the functions say."""
    data = np.arange(32 * threads * words, dtype=np.uint32).reshape(32, threads, words)
    kind = "ordered" if ordered else "unordered"
    out, counters = run(kernels, f"groups_{kind}_{threads}_{words}_{stride}", data)
    for lane in range(32):
        member = lane // stride % threads
        for position in range(threads):
            other = position if ordered else member ^ position
            source = lane + (other - member) * stride
            assert out[lane, position].tolist() == data[source, member].tolist()
    assert counters.shuffles == (threads - 1) * words
