"""The device headers on every architecture: nothing on the stack, and the instructions that were meant."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

import pytest
from device.attention import Books, Case, append_source, attention_source
from device.sources import device_source

from vqcc.codegen.nvrtc import Nvrtc

if TYPE_CHECKING:
    from vqcc.codegen.toolchain import Compiled

TARGETS = ("sm_80", "sm_90", "sm_120")
SIZES = (2, 4, 8, 16)

_ARCH = """
extern "C" __global__ void kernel(const uint4* words, float2* pairs, uint4* out, uint32* counter, float* results) {
  const int t = threadIdx.x;
  const int64 start = clock_cycles() + clock_nanoseconds();
  uint32 left[4], right[2] = {float_as_bits(pairs[t].x), 7};
  to_registers(load<Space::kGlobal>(words + t), left);
  float sums[4] = {};
  multiply_fragments<ElementType::kFloat16>(sums, left, right);
  multiply_fragments<ElementType::kBfloat16>(sums, left, right);
  const uint32 half[2] = {left[0], left[1]};
  multiply_fragments<ElementType::kFloat16>(sums, half, {right[0]});
  multiply_fragments<ElementType::kBfloat16>(sums, half, {right[1]});
  uint32 made[4];
  made[0] = to_float16_pair(make_float2(sums[0], sums[1]));
  made[1] = to_bfloat16_pair(make_float2(sums[2], sums[3]));
  made[2] = exchange_xor(multiply_add_float16_pairs(made[0], left[3], made[1]), 3);
  made[3] = float_as_bits(exchange_xor(sums[0], 5));
  uint4* shared = reinterpret_cast<uint4*>(dynamic_shared());
  store(shared + (t ^ 1), from_registers(made));
  warp_barrier();
  start_copy_if(t < 7, shared + 32 + t, words + t);
  commit_copies();
  wait_for_copies_but<0>();
  uint32 matrices[4];
  load_matrices(matrices, reinterpret_cast<const uint8*>(shared + (t ^ 3)));
  uint4 word = shared[t];
  word.x ^= matrices[0] ^ matrices[1] ^ matrices[2] ^ matrices[3];
  results[blockIdx.x * 32 + t] = sums[1] + static_cast<float>(clock_cycles() + clock_nanoseconds() - start);
  memory_fence();
  block_barrier();
  uint32 before = 0;
  if (t == 0) before = count_arrival(counter);
  if (exchange_xor(before, 0) == 1) results[t] = load_fresh(results + 32 + t) + load_fresh(words + t).y;
  out[t] = word;
}
"""
_EXCHANGE = """
template <class Layout, class Register>
__device__ __forceinline__ void through_registers(const Register* in, Register* out) {
  Register data[Layout::kRegisters];
#pragma unroll
  for (int r = 0; r < Layout::kRegisters; ++r) data[r] = in[threadIdx.x * Layout::kRegisters + r];
  exchange_registers<Layout>(data, lane_index());
#pragma unroll
  for (int r = 0; r < Layout::kRegisters; ++r) out[threadIdx.x * Layout::kRegisters + r] = data[r];
}
template <class Layout, class Register>
__device__ __forceinline__ void through_shared(const Register* in, Register* out) {
  uint32* scratch = reinterpret_cast<uint32*>(dynamic_shared()) + warp_index() * exchange_words<Layout>();
  Register data[Layout::kRegisters];
#pragma unroll
  for (int r = 0; r < Layout::kRegisters; ++r) data[r] = in[threadIdx.x * Layout::kRegisters + r];
  exchange_shared<Layout>(data, lane_index(), Layout::vector_of(lane_index()), scratch);
#pragma unroll
  for (int r = 0; r < Layout::kRegisters; ++r) out[threadIdx.x * Layout::kRegisters + r] = data[r];
}
"""
_EXCHANGE += "".join(
    f"""
extern "C" __global__ void registers_{layout}_{size}(const {type_}* in, {type_}* out) {{
  through_registers<{layout}Layout<{size}>>(in, out);
}}
extern "C" __global__ void shared_{layout}_{size}(const {type_}* in, {type_}* out) {{
  through_shared<{layout}Layout<{size}>>(in, out);
}}
"""
    for layout, type_ in (("Element", "float"), ("Fragment", "uint32"))
    for size in SIZES
)


@cache
def compiled(header: str, target: str) -> Compiled:
    source = device_source((header,), {"arch.cuh": _ARCH, "exchange.cuh": _EXCHANGE}[header])
    return Nvrtc.find().compile(source, target=target, want_ptx=True, file_name="x.cu")


def body(ptx: str | None, kernel: str) -> str:
    """The instructions of one kernel."""
    assert ptx is not None
    _, _, rest = ptx.partition(f".entry {kernel}(")
    assert rest
    return rest.partition(".entry ")[0]


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("header", ["arch.cuh", "exchange.cuh"])
def test_no_stack_and_no_spill(header: str, target: str) -> None:
    for name, resources in compiled(header, target).resources.items():
        used = (resources.stack_bytes, resources.spill_store_bytes, resources.spill_load_bytes)
        assert used == (0, 0, 0), name


@pytest.mark.parametrize("target", TARGETS)
def test_functions_are_the_instructions_they_name(target: str) -> None:
    text = body(compiled("arch.cuh", target).ptx, "kernel")
    for instruction in (
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32",
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32",
        "cvt.rn.f16x2.f32",
        "cvt.rn.bf16x2.f32",
        "fma.rn.f16x2",
        "shfl.sync.bfly.b32",
        "bar.warp.sync",
        "membar.gl",
        "atom.add.acq_rel.gpu.global.u32",
        "ld.global.cg.f32",
        "ld.global.cg.v4.u32",
        "%clock64",
        "%globaltimer",
    ):
        assert text.count(instruction) >= 1, instruction
    assert re.search(r"st\.shared\.v4\.[bu]32", text)


_CLUSTER = """
extern "C" __global__ void __cluster_dims__(4, 1, 1) kernel(uint32* out) {
  uint4* fours = reinterpret_cast<uint4*>(dynamic_shared()) + threadIdx.x;
  cluster_barrier();
  store_remote(fours, cluster_rank() ^ 1, make_uint4(1, 2, 3, 4));
  store_remote(reinterpret_cast<uint2*>(fours + 32), cluster_rank() ^ 1, make_uint2(5, 6));
  store_remote(&fours[64].x, cluster_rank() ^ 1, 7u);
  cluster_arrive();
  cluster_wait();
  const uint32 other = load_remote(&fours->y, cluster_rank() ^ 2);
  cluster_barrier();
  out[threadIdx.x] = other;
}
"""


@pytest.mark.parametrize("target", ["sm_90", "sm_100", "sm_120"])
def test_clusters_are_the_instructions_they_name(target: str) -> None:
    source = device_source(("arch.cuh",), _CLUSTER)
    text = body(Nvrtc.find().compile(source, target=target, want_ptx=True, file_name="x.cu").ptx, "kernel")
    for instruction in (
        "%cluster_ctarank",
        "mapa.shared::cluster.u32",
        "barrier.cluster.arrive.release.aligned",
        "barrier.cluster.wait.acquire.aligned",
        "ld.shared::cluster.u32",
        *(f"st.shared::cluster{width}.u32" for width in ("", ".v2", ".v4")),
    ):
        assert text.count(instruction) >= 1, instruction
    assert ".reqnctapercluster 4, 1, 1" in text or ".explicitcluster" in text


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("size", SIZES)
def test_exchanges_are_shuffles_and_wide_stores(size: int, target: str) -> None:
    ptx = compiled("exchange.cuh", target).ptx
    shuffles = {"Element": size - 1, "Fragment": {2: 0, 4: 1, 8: 3, 16: 6}[size]}
    for layout, registers in (("Element", size), ("Fragment", size // 2)):
        text = body(ptx, f"registers_{layout}_{size}")
        assert text.count("shfl.sync.bfly") == shuffles[layout]
        assert ".local" not in text
        text = body(ptx, f"shared_{layout}_{size}")
        stores = re.findall(r"st\.shared(?:\.v(\d))?\.", text)
        assert stores == ([str(min(registers, 4))] if registers > 1 else [""]) * -(-registers // 4)
        assert len(re.findall(r"ld\.shared\.[buf]32", text)) == registers
        assert text.count("bar.warp.sync") == 2


ATTENTION = {
    "decode": Case(head_dim=128, query_heads=32, heads=8, rows=4, warps=8),
    "decode, rotated": Case(head_dim=128, query_heads=32, heads=8, rows=4, warps=8, rope="half", window=128),
    "decode, exchanged in registers": Case(
        head_dim=128, query_heads=32, heads=8, rows=4, warps=8, fusion="register"
    ),
    "decode, exchanged by shared memory": Case(
        head_dim=128, query_heads=32, heads=8, rows=4, warps=8, fusion="shared", values=Books(8)
    ),
    "score": Case(
        head_dim=128,
        query_heads=32,
        heads=32,
        warps=16,
        kernel="score",
        key_order="rotated",
        tables_region=1,
        stages=1,
    ),
    "fragment": Case(
        head_dim=128,
        query_heads=32,
        heads=8,
        rows=4,
        warps=12,
        kernel="fragment",
        key_order="fragment",
        tables_region=1,
        stages=1,
    ),
    **{
        f"fragment, rotated by {name}": Case(
            head_dim=128,
            query_heads=32,
            heads=8,
            rows=4,
            warps=8,
            kernel="fragment",
            key_order="fragment",
            tables_region=1,
            stages=1,
            rope=rope,
            window=64,
        )
        for name, rope in (("halves", "half"), ("neighbours", "interleaved"))
    },
    "score, four rows": Case(
        head_dim=128,
        query_heads=32,
        heads=8,
        rows=4,
        warps=16,
        kernel="score",
        key_order="rotated",
        multiplied=True,
        tables_region=1,
        stages=1,
    ),
    "score, four rows of 64 groups": Case(
        head_dim=128,
        query_heads=32,
        heads=8,
        rows=4,
        warps=16,
        kernel="score",
        key_order="rotated",
        keys=Books(2),
        values=Books(2),
        multiplied=True,
        stages=0,
    ),
}


@pytest.mark.parametrize("name", ATTENTION)
def test_attention_stays_in_registers(name: str) -> None:
    """For an H200, with as many warps as it is meant for."""
    compiled = Nvrtc.find().compile(
        attention_source(ATTENTION[name]), target="sm_90", want_ptx=False, file_name="x.cu"
    )
    (resources,) = compiled.resources.values()
    assert (resources.stack_bytes, resources.spill_store_bytes, resources.spill_load_bytes) == (0, 0, 0)


CLUSTERS = {
    f"{kernel}, {cluster} blocks, {warps} warps": Case(
        head_dim=128,
        query_heads=32,
        heads=32,
        kernel=kernel,
        key_order="rotated",
        cluster=cluster,
        warps=warps,
        blocks_per_sm=blocks_per_sm,
        depths=(4, 2) if kernel == "cluster score" else (1, 1),
        chunk_blocks=warps * 16,
        fusion="register" if warps == 16 and kernel == "cluster decode" else "none",
        shared_entries=(256, 256),
        shared_bytes=1 << 20,
    )
    for kernel in ("cluster score", "cluster decode")
    for cluster in (2, 4, 8)
    for warps, blocks_per_sm in ((8, 2), (16, 1))
}


@pytest.mark.parametrize("name", CLUSTERS)
def test_clusters_stay_in_registers(name: str) -> None:
    """For an H200, with the warps and blocks of an SM that they are meant for."""
    compiled = Nvrtc.find().compile(
        attention_source(CLUSTERS[name]), target="sm_90a", want_ptx=False, file_name="x.cu"
    )
    (resources,) = compiled.resources.values()
    assert (resources.stack_bytes, resources.spill_store_bytes, resources.spill_load_bytes) == (0, 0, 0)


@pytest.mark.parametrize("target", TARGETS)
def test_append_stays_in_registers(target: str) -> None:
    case = Case(head_dim=128, query_heads=32, heads=8, warps=8, key_order="rotated", window=128)
    compiled = Nvrtc.find().compile(append_source(case), target=target, want_ptx=False, file_name="x.cu")
    for name, resources in compiled.resources.items():
        assert (resources.stack_bytes, resources.spill_store_bytes, resources.spill_load_bytes) == (
            0,
            0,
            0,
        ), name
