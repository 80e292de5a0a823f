"""Shuffles, votes and bit intrinsics against models in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vqcc.emulator import Buffer, Emulated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_SOURCE = """
template <class T>
__device__ __forceinline__ T shuffled(int kind, T value, int argument, int width) {
  if (kind == 0) return __shfl_sync(0xffffffffu, value, argument, width);
  if (kind == 1) return __shfl_up_sync(0xffffffffu, value, argument, width);
  if (kind == 2) return __shfl_down_sync(0xffffffffu, value, argument, width);
  return __shfl_xor_sync(0xffffffffu, value, argument, width);
}
extern "C" __global__ void shuffle(const unsigned* in, const int* arguments, unsigned* out, int kind, int width) {
  const int t = threadIdx.x;
  out[t] = shuffled(kind, in[t], arguments[t], width);
}
extern "C" __global__ void shuffle_wide(const unsigned long long* in, const int* arguments, unsigned long long* out,
                                        int kind, int width) {
  const int t = threadIdx.x;
  out[t] = shuffled(kind, in[t], arguments[t], width);
}
extern "C" __global__ void shuffle_types(float* f, int* i, unsigned* h, unsigned* b) {
  const int t = threadIdx.x;
  f[t] = __shfl_xor_sync(0xffffffffu, t + 0.5f, 1);
  i[t] = __shfl_xor_sync(0xffffffffu, -t, 1);
  const __half2 pair = __shfl_xor_sync(0xffffffffu, __floats2half2_rn(t, -t), 1);
  h[t] = __half_as_ushort(pair.x) | __half_as_ushort(pair.y) << 16;
  b[t] = __bfloat16_as_ushort(__shfl_xor_sync(0xffffffffu, __float2bfloat16(t), 1));
}
extern "C" __global__ void vote(const unsigned* in, unsigned* out, unsigned mask) {
  const int t = threadIdx.x;
  const unsigned mine = in[t];
  if (!(mask >> t & 1)) return;
  out[t * 9 + 0] = __ballot_sync(mask, mine & 4);
  out[t * 9 + 1] = __any_sync(mask, mine & 4);
  out[t * 9 + 2] = __all_sync(mask, mine & 4);
  out[t * 9 + 3] = __reduce_add_sync(mask, mine);
  out[t * 9 + 4] = __reduce_min_sync(mask, static_cast<int>(mine));
  out[t * 9 + 5] = __reduce_max_sync(mask, mine);
  out[t * 9 + 6] = __reduce_xor_sync(mask, mine);
  out[t * 9 + 7] = __match_any_sync(mask, mine & 7);
  out[t * 9 + 8] = __reduce_or_sync(mask, mine) ^ __reduce_and_sync(mask, mine);
}
extern "C" __global__ void block_vote(const int* in, int* out) {
  const int t = threadIdx.x;
  out[t] = __syncthreads_count(in[t]) * 4 + __syncthreads_and(in[t]) * 2 + __syncthreads_or(in[t]);
}
extern "C" __global__ void bits(const unsigned* x, const unsigned* y, const unsigned* z, unsigned* out) {
  const int t = threadIdx.x;
  const unsigned a = x[t], b = y[t], c = z[t];
  unsigned* o = out + t * 14;
  o[0] = __byte_perm(a, b, c);
  o[1] = vqcc_emulator::prmt(a, b, c);
  o[2] = __funnelshift_l(a, b, c);
  o[3] = __funnelshift_lc(a, b, c);
  o[4] = __funnelshift_r(a, b, c);
  o[5] = __funnelshift_rc(a, b, c);
  o[6] = __popc(a);
  o[7] = __clz(static_cast<int>(a));
  o[8] = __ffs(static_cast<int>(a));
  o[9] = __brev(a);
  o[10] = __umulhi(a, b);
  o[11] = __mulhi(static_cast<int>(a), static_cast<int>(b));
  o[12] = __dp4a(static_cast<int>(a), static_cast<int>(b), static_cast<int>(c));
  o[13] = __dp4a(a, b, c);
}
"""

words = st.integers(0, 2**32 - 1) | st.sampled_from([0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
warp_of_words = st.lists(words, min_size=32, max_size=32)


@pytest.fixture(scope="module")
def intrinsics(emulate: Callable[[str], Emulated]) -> Emulated:
    return emulate(_SOURCE)


def launch(intrinsics: Emulated, kernel: str, inputs: Sequence[Any], out: Any, *scalars: Any) -> Any:
    buffers = [Buffer(f"in{i}", array, "input") for i, array in enumerate(inputs)]
    intrinsics.launch(kernel, (1, 1, 1), (32, 1, 1), 0, [*buffers, Buffer("out", out, "output"), *scalars])
    return out


def source(kind: int, lane: int, argument: int, width: int) -> int:
    """The lane a shuffle reads, from the description in the PTX manual."""
    first = lane - lane % width
    if kind == 0:
        return first + argument % width
    if kind == 1:
        return lane - argument if lane - argument >= first else lane
    if kind == 2:
        return lane + argument if lane + argument < first + width else lane
    return lane ^ argument if (lane ^ argument) < first + width else lane


@given(
    values=warp_of_words,
    arguments=st.lists(st.integers(0, 31), min_size=32, max_size=32),
    kind=st.integers(0, 3),
    width=st.sampled_from([1, 2, 4, 8, 16, 32]),
)
def test_shuffles(
    intrinsics: Emulated, values: list[int], arguments: list[int], kind: int, width: int
) -> None:
    expected = [values[source(kind, lane, arguments[lane], width)] for lane in range(32)]
    given_arguments = np.int32(arguments)
    inputs = [np.uint32(values), given_arguments]
    found = launch(intrinsics, "shuffle", inputs, np.zeros(32, np.uint32), kind, width)
    assert found.tolist() == expected
    wide = np.uint64(values) << np.uint64(31)
    found = launch(intrinsics, "shuffle_wide", [wide, given_arguments], np.zeros(32, np.uint64), kind, width)
    assert found.tolist() == [value << 31 for value in expected]


def test_shuffles_move_every_type(intrinsics: Emulated) -> None:
    outputs = [np.zeros(32, dtype) for dtype in (np.float32, np.int32, np.uint32, np.uint32)]
    buffers = [Buffer(f"out{i}", array, "output") for i, array in enumerate(outputs)]
    intrinsics.launch("shuffle_types", (1, 1, 1), (32, 1, 1), 0, buffers)
    other = np.arange(32) ^ 1
    assert outputs[0].tolist() == (other + 0.5).tolist()
    assert outputs[1].tolist() == (-other).tolist()
    pairs = outputs[2].view(np.float16).reshape(32, 2)
    assert pairs.tolist() == np.stack([other, -other], 1).astype(np.float16).tolist()
    assert (outputs[3] << 16).view(np.float32).tolist() == other.tolist()


def _signed(word: int) -> int:
    return word - 2**32 if word >= 2**31 else word


@given(values=warp_of_words, mask=st.integers(1, 2**32 - 1))
def test_votes_and_reductions(intrinsics: Emulated, values: list[int], mask: int) -> None:
    found = launch(intrinsics, "vote", [np.uint32(values)], np.zeros((32, 9), np.uint32), np.uint32(mask))
    lanes = [lane for lane in range(32) if mask >> lane & 1]
    members = [values[lane] for lane in lanes]
    ballot = sum((values[lane] >> 2 & 1) << lane for lane in lanes)
    either, both, odd = 0, 0xFFFFFFFF, 0
    for value in members:
        either, both, odd = either | value, both & value, odd ^ value
    for lane in lanes:
        match = sum(1 << other for other in lanes if values[other] & 7 == values[lane] & 7)
        assert found[lane].tolist() == [
            ballot,
            int(ballot != 0),
            int(ballot == mask),
            sum(members) % 2**32,
            min(map(_signed, members)) % 2**32,
            max(members),
            odd,
            match,
            either ^ both,
        ]


@pytest.mark.parametrize("ones", [0, 1, 31, 32])
def test_block_votes(intrinsics: Emulated, ones: int) -> None:
    flags = np.int32([1] * ones + [0] * (32 - ones))
    found = launch(intrinsics, "block_vote", [flags], np.zeros(32, np.int32))
    assert found.tolist() == [ones * 4 + 2 * (ones == 32) + (ones > 0)] * 32


def _select(a: int, b: int, selector: int, signs: bool) -> int:
    both = (a | b << 32).to_bytes(8, "little")
    result = []
    for i in range(4):
        nibble = selector >> (4 * i) & 15
        byte = both[nibble & 7]
        result.append((0xFF if byte & 0x80 else 0) if signs and nibble & 8 else byte)
    return int.from_bytes(bytes(result), "little")


def _dot(a: int, b: int, c: int, signed: bool) -> int:
    x, y = (value.to_bytes(4, "little") for value in (a, b))
    if signed:
        x, y = (np.frombuffer(value, np.int8).tolist() for value in (x, y))
    return (sum(p * q for p, q in zip(x, y, strict=True)) + c) % 2**32


@settings(max_examples=200)
@given(x=warp_of_words, y=warp_of_words, z=st.lists(words | st.integers(0, 70), min_size=32, max_size=32))
def test_bit_intrinsics(intrinsics: Emulated, x: list[int], y: list[int], z: list[int]) -> None:
    found = launch(
        intrinsics, "bits", [np.uint32(x), np.uint32(y), np.uint32(z)], np.zeros((32, 14), np.uint32)
    )
    for lane, (a, b, c) in enumerate(zip(x, y, z, strict=True)):
        both = b << 32 | a
        shift, clamped = c % 32, min(c, 32)
        assert found[lane].tolist() == [
            _select(a, b, c, signs=False),
            _select(a, b, c, signs=True),
            (both << shift) >> 32 & 0xFFFFFFFF,
            (both << clamped) >> 32 & 0xFFFFFFFF,
            both >> shift & 0xFFFFFFFF,
            both >> clamped & 0xFFFFFFFF,
            a.bit_count(),
            32 - a.bit_length(),
            (a & -a).bit_length(),
            int(f"{a:032b}"[::-1], 2),
            a * b >> 32,
            (_signed(a) * _signed(b) >> 32) % 2**32,
            _dot(a, b, c, signed=True),
            _dot(a, b, c, signed=False),
        ]
