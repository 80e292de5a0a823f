"""Kernels with one planted bug each, and a correct twin that differs in the bug alone."""

from __future__ import annotations

from dataclasses import dataclass

from vqcc.emulator import BugKind

__all__ = ["BUGS", "SOURCE", "Bug", "source_of"]


@dataclass(frozen=True)
class Bug:
    """Bodies of `(const float* in, float* out, int n)`, run by 64 threads with 1,024 bytes of shared memory.

    `t` is the thread, `lane` its lane, `s` shared memory as floats. The line that must be named ends with `//!`.
    `names` are parts of the message; `blocks` is the grid, `cluster` the blocks of a cluster, if the kernel names them.
    """

    name: str
    kind: BugKind
    wrong: str
    right: str
    names: tuple[str, ...] = ()
    blocks: int = 1
    located: bool = True
    cluster: int = 0


def _bug(
    name: str, kind: BugKind, wrong: str, right: str, *names: str, blocks: int = 1, located: bool = True
) -> Bug:
    return Bug(name, kind, wrong, right, names, blocks, located)


def _cluster_bug(
    name: str, kind: BugKind, wrong: str, right: str, *names: str, blocks: int = 2, cluster: int = 2
) -> Bug:
    """Bodies know `rank`, ARRIVE, WAIT, MEET, which is both, and THERE(place, rank) and PUT(place, rank, value)."""
    return Bug(name, kind, wrong, right, names, blocks, True, cluster)


_MEMORY = (
    _bug(
        "shared_read_past_end",
        BugKind.OUT_OF_BOUNDS,
        "s[t] = in[t]; __syncthreads(); out[t] = s[t + n * 4];  //!",
        "s[t] = in[t]; __syncthreads(); out[t] = s[t];",
        "reads 4 bytes past its end: shared memory at byte 1024 of 1,024",
    ),
    _bug(
        "shared_write_past_end",
        BugKind.OUT_OF_BOUNDS,
        "s[t + n * 3 + 1] = in[t];  //!",
        "s[t + n * 3] = in[t]; out[t] = 1;",
        "writes 4 bytes past its end: shared memory at byte 1024 of 1,024",
    ),
    _bug(
        "shared_read_before_start",
        BugKind.OUT_OF_BOUNDS,
        "s[t] = in[t]; __syncthreads(); out[t] = s[t - n];  //!",
        "s[t] = in[t]; __syncthreads(); out[t] = s[t - n + 64];",
        "before its start: shared memory at byte -256",
    ),
    _bug(
        "shared_read_unwritten",
        BugKind.UNWRITTEN_READ,
        "s[t] = in[t]; __syncthreads(); out[t] = s[t + 1];  //!",
        "s[t + 1] = in[t]; __syncthreads(); out[t] = s[t + 1];",
        "reads 4 bytes that nothing has written: shared memory at byte 256",
        "thread 63",
    ),
    _bug(
        "shared_half_a_word_unwritten",
        BugKind.UNWRITTEN_READ,
        """
        unsigned short* h = shared_array<unsigned short>();
        h[2 * t] = 1; __syncwarp();
        out[t] = s[t];  //!
        """,
        """
        unsigned short* h = shared_array<unsigned short>();
        h[2 * t] = 1; h[2 * t + 1] = 2; __syncwarp();
        out[t] = s[t];
        """,
        "reads 4 bytes that nothing has written: shared memory",
    ),
    _bug(
        "global_read_past_end",
        BugKind.OUT_OF_BOUNDS,
        "out[t] = in[t + 1];  //!",
        "out[t] = in[t];",
        "reads 4 bytes past its end: in at byte 256 of 256",
        "thread 63",
    ),
    _bug(
        "global_write_before_start",
        BugKind.OUT_OF_BOUNDS,
        "out[t - 1] = in[t];  //!",
        "out[t] = in[t];",
        "writes 4 bytes before its start: out at byte -4",
    ),
    _bug(
        "global_read_unwritten",
        BugKind.UNWRITTEN_READ,
        "out[t] += in[t];  //!",
        "out[t] = in[t]; out[t] += in[t];",
        "out at byte 0 (element [0])",
    ),
    _bug(
        "input_written",
        BugKind.READ_ONLY_WRITE,
        "const_cast<float*>(in)[t] = 0;  //!",
        "out[t] = 0;",
        "writes 4 bytes of an input: in at byte 0 (element [0])",
    ),
    _bug(
        "copy_past_end",
        BugKind.OUT_OF_BOUNDS,
        "if (t == 0) __builtin_memcpy(out, in, n * 4 + 4);  //!",
        "if (t == 0) __builtin_memcpy(out, in, n * 4);",
        "in at byte 256 of 256",
    ),
    _bug(
        "null_pointer",
        BugKind.NULL_POINTER,
        "float* p = n > 0 ? nullptr : out; p[t + 1] = in[t];  //!",
        "float* p = n < 0 ? nullptr : out; p[t] = in[t];",
        "writes 4 bytes through a null pointer (address 0x4)",
    ),
    _bug(
        "wild_pointer",
        BugKind.WILD_POINTER,
        "out[t] = *reinterpret_cast<const float*>(0x123456789000ull + n);  //!",
        "out[t] = in[t];",
        "reads 4 bytes at 0x123456789040, which is in no buffer",
    ),
    _bug(
        "local_variable_of_another_thread",
        BugKind.FOREIGN_STACK,
        """
        volatile float mine[2] = {in[t], 0};
        shared_array<const volatile float*>()[t] = mine;
        __syncthreads();
        out[t] = shared_array<const volatile float*>()[t ^ 1][0];  //!
        """,
        """
        volatile float mine[2] = {in[t], 0};
        shared_array<const volatile float*>()[t] = mine;
        __syncthreads();
        out[t] = shared_array<const volatile float*>()[t][0];
        """,
        "another thread's local variables",
    ),
    _bug(
        "module_variable_written",
        BugKind.IMAGE_WRITE,
        "module_variable[t] = n;  //!",
        "out[t] = module_variable[t] + module_constant[t % 4];",
        "a global variable of the module",
    ),
)

_ALIGNMENT = (
    _bug(
        "misaligned_uint4",
        BugKind.MISALIGNED,
        "uint4 v = *reinterpret_cast<const uint4*>(in + 2 * (t % 8)); out[t] = v.x + v.w;  //!",
        "uint4 v = *reinterpret_cast<const uint4*>(in + 4 * (t % 8)); out[t] = v.x + v.w;",
        "accesses 16 bytes at in at byte 8 (element [2]), which is only 8-byte aligned",
        "thread 1",
    ),
    _bug(
        "misaligned_shared_uint2",
        BugKind.MISALIGNED,
        """
        s[t] = in[t]; s[t + 64] = 0; __syncthreads();
        float2 v = reinterpret_cast<const float2*>(s + 1)[t / 2];  //!
        out[t] = v.x;
        """,
        """
        s[t] = in[t]; s[t + 64] = 0; __syncthreads();
        float2 v = reinterpret_cast<const float2*>(s + 2)[t / 2];
        out[t] = v.x;
        """,
        "accesses 8 bytes at shared memory at byte 4, which is only 4-byte aligned",
    ),
    _bug(
        "misaligned_store",
        BugKind.MISALIGNED,
        "uint4 v = *reinterpret_cast<const uint4*>(in); if (t < 8) *reinterpret_cast<uint4*>(out + 6 * t) = v;  //!",
        "uint4 v = *reinterpret_cast<const uint4*>(in); if (t < 8) *reinterpret_cast<uint4*>(out + 8 * t) = v;",
        "out at byte 24",
    ),
    _bug(
        "misaligned_by_declaration",
        BugKind.MISALIGNED,
        "vqcc_emulator::check_aligned(in + t, 8);  //!",
        "vqcc_emulator::check_aligned(in + 2 * t, 8); out[t] = 0;",
        "accesses 8 bytes at in at byte 4",
    ),
    _bug(
        "misaligned_atomic",
        BugKind.MISALIGNED,
        "out[t] = 0; atomicAdd(reinterpret_cast<unsigned*>(reinterpret_cast<char*>(out + t % 32) + 2), 1u);  //!",
        "out[t] = 0; atomicAdd(reinterpret_cast<unsigned*>(out + t), 1u);",
        "at byte 2",
    ),
)

_RACES = (
    _bug(
        "no_barrier_before_read",
        BugKind.RACE,
        "s[t] = in[t]; out[t] = s[t / 2];  //!",
        "s[t] = in[t]; __syncthreads(); out[t] = s[t / 2];",
        "thread 1: missing barrier: reads shared memory at byte 0, and nothing orders this after a write by thread 0",
    ),
    _bug(
        "warp_barrier_where_the_block_must_wait",
        BugKind.RACE,
        "s[t] = in[t]; __syncwarp(); out[t] = t >= 32 ? s[t - 32] : 0;  //!",
        "s[t] = in[t]; __syncthreads(); out[t] = t >= 32 ? s[t - 32] : 0;",
        "after a write by thread",
    ),
    _bug(
        "no_barrier_within_warp",
        BugKind.RACE,
        "s[t] = in[t]; out[t] = t & 1 ? s[t ^ 1] : 0.0f;  //!",
        "s[t] = in[t]; __syncwarp(); out[t] = s[t ^ 1];",
        "thread 1: missing barrier: reads shared memory at byte 0",
        "after a write by thread 0",
    ),
    _bug(
        "shuffle_orders_its_lanes_only",
        BugKind.RACE,
        "s[t] = in[t]; __shfl_xor_sync(0x3u << (lane & 30), t, 1); out[t] = lane & 2 ? s[t ^ 2] : 0;  //!",
        "s[t] = in[t]; __shfl_xor_sync(0xfu << (lane & 28), t, 1); out[t] = lane & 2 ? s[t ^ 2] : 0;",
        "after a write by thread",
    ),
    _bug(
        "partial_barrier_too_small",
        BugKind.RACE,
        "s[t] = in[t]; __syncwarp(0xffu << (lane & 24)); out[t] = lane & 8 ? s[t ^ 8] : 0;  //!",
        "s[t] = in[t]; __syncwarp(0xffffu << (lane & 16)); out[t] = lane & 8 ? s[t ^ 8] : 0;",
        "after a write by thread",
    ),
    _bug(
        "partial_barriers_that_do_not_chain",
        BugKind.RACE,
        """
        // Lanes {0, 1} meet, then {2, 3}: nothing carries lane 0's write to lane 3.
        s[t] = in[t];
        if (lane < 2) __syncwarp(3u);
        if (lane == 2 || lane == 3) __syncwarp(12u);
        if (lane == 3) out[t] = s[t - 3];  //!
        """,
        """
        // Lanes {0, 1}, {1, 2}, {2, 3} meet in turn: lane 0's write reaches lane 3.
        s[t] = in[t];
        if (lane < 2) __syncwarp(3u);
        if (lane == 1 || lane == 2) __syncwarp(6u);
        if (lane == 2 || lane == 3) __syncwarp(12u);
        if (lane == 3) out[t] = s[t - 3];
        """,
        "thread 3: missing barrier: reads shared memory at byte 0",
    ),
    _bug(
        "multiply_orders_no_memory",
        BugKind.RACE,
        "s[t] = in[t]; const float product = MULTIPLY(in[t]); out[t] = product + s[t ^ 1];  //!",
        "s[t] = in[t]; const float product = MULTIPLY(in[t]); __syncwarp(); out[t] = product + s[t ^ 1];",
        "thread 31: missing barrier: reads shared memory at byte 120",
        "after a write by thread 30",
    ),
    _bug(
        "write_after_read_by_another_warp",
        BugKind.RACE,
        "s[t] = in[t]; __syncthreads(); if (t == 3) out[t] = s[40]; if (t == 40) s[40] = 0;  //!",
        "s[t] = in[t]; __syncthreads(); if (t == 3) out[t] = s[40]; __syncthreads(); if (t == 40) s[40] = 0;",
        "thread 40: missing barrier: writes shared memory at byte 160",
        "nothing orders this after a read by thread 3",
    ),
    _bug(
        "write_after_read_by_all",
        BugKind.RACE,
        "if (t == 0) s[0] = 1; __syncthreads(); out[t] = s[0]; if (t == 9) s[0] = 7;  //!",
        "if (t == 0) s[0] = 1; __syncthreads(); out[t] = s[0]; __syncthreads(); if (t == 9) s[0] = 7;",
        "thread 9: missing barrier: writes shared memory at byte 0",
        "after a read by",
    ),
    _bug(
        "write_after_read_within_warp",
        BugKind.RACE,
        "s[t] = in[t]; __syncwarp(); if (lane == 4) out[t] = s[t + 1]; if (lane == 5) s[t] = 0;  //!",
        "s[t] = in[t]; __syncwarp(); if (lane == 4) out[t] = s[t + 1]; __syncwarp(); if (lane == 5) s[t] = 0;",
        "thread 5: missing barrier",
        "after a read by thread 4",
    ),
    _bug(
        "same_value_written_twice",
        BugKind.RACE,
        "s[0] = 1.0f;  //!",
        "if (t == 0) s[0] = 1.0f; out[t] = 0;",
        "thread 1: missing barrier: writes shared memory at byte 0, and nothing orders this after a write by thread 0",
    ),
    _bug(
        "bytes_of_one_word",
        BugKind.RACE,
        """
        unsigned char* b = shared_array<unsigned char>();
        b[t] = t; __syncwarp(3u << (lane & 30));
        out[t] = lane & 2 ? b[t ^ 2] : shared_array<unsigned short>()[t / 2];  //!
        """,
        """
        unsigned char* b = shared_array<unsigned char>();
        b[t] = t; __syncwarp(3u << (lane & 30));
        out[t] = lane & 2 ? b[t ^ 1] : shared_array<unsigned short>()[t / 2];
        """,
        "thread 3: missing barrier: reads shared memory at byte 1",
    ),
    _bug(
        "word_over_bytes",
        BugKind.RACE,
        "shared_array<unsigned char>()[t] = t; if (lane == 3) out[t] = shared_array<unsigned>()[t / 4];  //!",
        "shared_array<unsigned char>()[t] = t; __syncwarp(); if (lane == 3) out[t] = shared_array<unsigned>()[t / 4];",
        "thread 3: missing barrier: reads shared memory at byte 0",
    ),
    _bug(
        "byte_in_word",
        BugKind.RACE,
        "shared_array<unsigned>()[t] = t; out[t] = shared_array<unsigned char>()[t * 2];  //!",
        "shared_array<unsigned>()[t] = t; __syncthreads(); out[t] = shared_array<unsigned char>()[t * 2];",
        "thread 1: missing barrier: reads shared memory at byte 2",
    ),
    _bug(
        "atomic_and_plain",
        BugKind.RACE,
        "if (t == 0) s[0] = 0; __syncthreads(); atomicAdd(s, 1.0f); out[t] = t == 1 ? s[0] : 0;  //!",
        "if (t == 0) s[0] = 0; __syncthreads(); atomicAdd(s, 1.0f); __syncthreads(); out[t] = s[0];",
        "thread 2: missing barrier: updates atomically shared memory at byte 0",
        "after a read by thread 1",
    ),
    _bug(
        "plain_read_after_atomics",
        BugKind.RACE,
        "if (t == 0) *s = 0; __syncthreads(); if (t < 9) atomicAdd(s, 1.0f); if (t == 9) out[t] = *s;  //!",
        "if (t == 0) *s = 0; __syncthreads(); if (t < 9) atomicAdd(s, 1.0f); __syncwarp(); if (t == 9) out[t] = *s;",
        "thread 9: missing barrier",
        "after an atomic operation by thread 8",
    ),
    _bug(
        "global_memory_within_block",
        BugKind.RACE,
        "out[t] = in[t]; s[t] = out[t / 2];  //!",
        "out[t] = in[t]; __syncthreads(); s[t] = out[t / 2];",
        "thread 1: missing barrier: reads out at byte 0 (element [0])",
    ),
    _bug(
        "copy_waited_for_by_one_thread",
        BugKind.RACE,
        """
        vqcc_emulator::copy_async(s + t, in + t, 4, 4);
        vqcc_emulator::copy_async_wait_all();
        out[t] = t & 1 ? s[t ^ 1] : 0;  //!
        """,
        """
        vqcc_emulator::copy_async(s + t, in + t, 4, 4);
        vqcc_emulator::copy_async_wait_all();
        __syncthreads();
        out[t] = t & 1 ? s[t ^ 1] : 0;
        """,
        "thread 1: missing barrier",
    ),
)

_COPIES = (
    _bug(
        "copy_over_what_others_read",
        BugKind.RACE,
        """
        s[t] = in[t]; __syncthreads();
        if (t == 2) out[t] = s[t + 1];
        if (t == 3) vqcc_emulator::copy_async(s + t, in + t, 4, 4);  //!
        __syncthreads();
        vqcc_emulator::copy_async_wait_all();
        """,
        """
        s[t] = in[t]; __syncthreads();
        if (t == 2) out[t] = s[t + 1];
        __syncthreads();
        if (t == 3) vqcc_emulator::copy_async(s + t, in + t, 4, 4);
        vqcc_emulator::copy_async_wait_all();
        """,
        "thread 3: missing barrier: writes shared memory at byte 12",
    ),
    _bug(
        "stale_bytes_under_a_copy",
        BugKind.UNWRITTEN_READ,
        """
        s[t] = in[t]; __syncthreads();
        vqcc_emulator::copy_async(s + t, in + t, 4, 4); vqcc_emulator::copy_async_commit();
        __syncthreads();
        out[t] = s[t ^ 1];  //!
        vqcc_emulator::copy_async_wait(0);
        """,
        """
        s[t] = in[t]; __syncthreads();
        vqcc_emulator::copy_async(s + t, in + t, 4, 4); vqcc_emulator::copy_async_commit();
        vqcc_emulator::copy_async_wait(0);
        __syncthreads();
        out[t] = s[t ^ 1];
        """,
    ),
)

_BLOCKS = (
    _bug(
        "two_blocks_write_one_element",
        BugKind.CROSS_BLOCK_RACE,
        "if (t == 0) out[0] = 1;  //!",
        "if (t == 0) out[blockIdx.x] = 1;",
        "block (1, 0, 0), thread 0: writes out at byte 0 (element [0]), after a write by block number 0",
        blocks=3,
    ),
    _bug(
        "read_of_another_blocks_result",
        BugKind.CROSS_BLOCK_RACE,
        "if (t == 0) { out[blockIdx.x] = 1; out[32 + blockIdx.x] = out[0]; }  //!",
        "if (t == 0) { out[blockIdx.x] = 1; out[32 + blockIdx.x] = out[blockIdx.x]; }",
        "block (1, 0, 0)",
        "reads out at byte 0",
        blocks=2,
    ),
    _bug(
        "last_block_without_fence",
        BugKind.CROSS_BLOCK_RACE,
        """
        if (t == 0) {
          counted[blockIdx.x + 1] = n;
          if (atomicAdd(counted, 1u) == gridDim.x - 1) {
            for (unsigned i = 0; i < gridDim.x; ++i) out[i] = counted[i + 1];  //!
          }
        }
        """,
        """
        if (t == 0) {
          counted[blockIdx.x + 1] = n;
          __threadfence();
          if (atomicAdd(counted, 1u) == gridDim.x - 1) {
            for (unsigned i = 0; i < gridDim.x; ++i) out[i] = __ldcg(counted + i + 1);
            counted[0] = 0;
          }
        }
        """,
        "block (4, 0, 0), thread 0: reads counted at byte 4 (element [1]), after a write by block number 0",
        blocks=5,
    ),
    _bug(
        "plain_load_by_last_block",
        BugKind.STALE_READ,
        """
        if (t == 0) {
          counted[blockIdx.x + 1] = n;
          __threadfence();
          if (atomicAdd(counted, 1u) == gridDim.x - 1) {
            for (unsigned i = 0; i < gridDim.x; ++i) out[i] = counted[i + 1];  //!
          }
        }
        """,
        """
        if (t == 0) {
          counted[blockIdx.x + 1] = n;
          __threadfence();
          if (atomicAdd(counted, 1u) == gridDim.x - 1) {
            for (unsigned i = 0; i < gridDim.x; ++i) out[i] = __ldcg(counted + i + 1);
          }
        }
        """,
        "block (2, 0, 0), thread 0: reads counted at byte 4 (element [1]) by a plain load",
        "than those of a write by block number 0 at kernel.cu:",
        blocks=3,
    ),
    _bug(
        "plain_load_of_what_others_add_to",
        BugKind.STALE_READ,
        "if (t == 0) { if (blockIdx.x == 0) atomicAdd(counted, 1u); else out[blockIdx.x] = counted[0]; }  //!",
        "if (t == 0) { if (blockIdx.x == 0) atomicAdd(counted, 1u); else out[blockIdx.x] = __ldcg(counted); }",
        "than those of an atomic operation by block number 0",
        blocks=2,
    ),
    _bug(
        "arrival_before_the_warp_has_written",
        BugKind.CROSS_BLOCK_RACE,
        """
        if (t >= 32) return;
        if (lane < 16) counted[blockIdx.x * 16 + 16 + lane] = n;
        unsigned before = 0;
        if (lane == 0) { __threadfence(); before = atomicAdd(counted, 1u); }
        before = __shfl_sync(0xffffffffu, before, 0);
        if (before == 2 && lane < 16) out[lane] = __ldcg(counted + 16 + lane);  //!
        """,
        """
        if (t >= 32) return;
        if (lane < 16) counted[blockIdx.x * 16 + 16 + lane] = n;
        __syncwarp();
        unsigned before = 0;
        if (lane == 0) { __threadfence(); before = atomicAdd(counted, 1u); }
        before = __shfl_sync(0xffffffffu, before, 0);
        if (before == 2 && lane < 16) out[lane] = __ldcg(counted + 16 + lane);
        """,
        "block (2, 0, 0), thread 1: reads counted at byte 68 (element [17])",
        "after a write by block number 0",
        blocks=3,
    ),
    _bug(
        "arrival_before_another_warp_has_written",
        BugKind.CROSS_BLOCK_RACE,
        """
        if (lane == 0) counted[blockIdx.x * 2 + 1 + t / 32] = n;
        if (t == 0) { __threadfence(); shared_array<unsigned>()[0] = atomicAdd(counted, 1u); }
        __syncthreads();
        if (shared_array<unsigned>()[0] == 2 && t < 6) out[t] = __ldcg(counted + 1 + t);  //!
        """,
        """
        if (lane == 0) counted[blockIdx.x * 2 + 1 + t / 32] = n;
        __syncthreads();
        if (t == 0) { __threadfence(); shared_array<unsigned>()[0] = atomicAdd(counted, 1u); }
        __syncthreads();
        if (shared_array<unsigned>()[0] == 2 && t < 6) out[t] = __ldcg(counted + 1 + t);
        """,
        "block (2, 0, 0), thread 1: reads counted at byte 8 (element [2])",
        blocks=3,
    ),
    _bug(
        "write_after_arrival",
        BugKind.CROSS_BLOCK_RACE,
        """
        if (t == 0) {
          __threadfence();
          const unsigned before = atomicAdd(counted, 1u);
          counted[blockIdx.x + 1] = n;
          if (before == 2) out[0] = __ldcg(counted + 1);  //!
        }
        """,
        """
        if (t == 0) {
          counted[blockIdx.x + 1] = n;
          __threadfence();
          const unsigned before = atomicAdd(counted, 1u);
          if (before == 2) out[0] = __ldcg(counted + 1);
        }
        """,
        "reads counted at byte 4",
        blocks=3,
    ),
    _bug(
        "write_between_fence_and_arrival",
        BugKind.CROSS_BLOCK_RACE,
        """
        if (t == 0) {
          __threadfence();
          counted[blockIdx.x + 1] = n;
          if (atomicAdd(counted, 1u) == 2) out[0] = __ldcg(counted + 1);  //!
        }
        """,
        """
        if (t == 0) {
          counted[blockIdx.x + 1] = n;
          __threadfence();
          if (atomicAdd(counted, 1u) == 2) out[0] = __ldcg(counted + 1);
        }
        """,
        "reads counted at byte 4",
        blocks=3,
    ),
    _bug(
        "fence_of_another_thread",
        BugKind.CROSS_BLOCK_RACE,
        """
        if (t == 0) counted[blockIdx.x + 1] = n;
        if (t == 1) __threadfence();
        if (t == 0 && atomicAdd(counted, 1u) == 2) out[0] = __ldcg(counted + 1);  //!
        """,
        """
        if (t == 0) counted[blockIdx.x + 1] = n;
        if (t == 0) __threadfence();
        if (t == 0 && atomicAdd(counted, 1u) == 2) out[0] = __ldcg(counted + 1);
        """,
        "reads counted at byte 4",
        blocks=3,
    ),
    _bug(
        "arrival_of_another_thread",
        BugKind.CROSS_BLOCK_RACE,
        """
        if (t == 0) { counted[blockIdx.x + 1] = n; __threadfence(); atomicAdd(counted, 1u); }
        if (t == 5 && blockIdx.x == 2) out[0] = __ldcg(counted + 1);  //!
        """,
        """
        if (t == 0) { counted[blockIdx.x + 1] = n; __threadfence(); atomicAdd(counted, 1u); }
        __syncwarp();
        if (t == 5 && blockIdx.x == 2) out[0] = __ldcg(counted + 1);
        """,
        "block (2, 0, 0), thread 5: reads counted at byte 4",
        blocks=3,
    ),
    _bug(
        "reset_before_others_have_read",
        BugKind.CROSS_BLOCK_RACE,
        """
        if (lane == 0 && blockIdx.x == 0) out[t / 32] = counted[9];
        if (t == 0) { __threadfence(); if (atomicAdd(counted, 1u) == 1) counted[9] = 1; }  //!
        """,
        """
        if (lane == 0 && blockIdx.x == 0) out[t / 32] = counted[9];
        __syncthreads();
        if (t == 0) { __threadfence(); if (atomicAdd(counted, 1u) == 1) counted[9] = 1; }
        """,
        "writes counted at byte 36",
        "after a read by block number 0",
        blocks=2,
    ),
    _bug(
        "reset_of_what_unfenced_blocks_have_read",
        BugKind.CROSS_BLOCK_RACE,
        """
        if (t == 0) {
          out[blockIdx.x] = counted[9];
          if (blockIdx.x == 0) __threadfence();
          if (atomicAdd(counted, 1u) == 3) counted[9] = 1;  //!
        }
        """,
        """
        if (t == 0) {
          out[blockIdx.x] = counted[9];
          __threadfence();
          if (atomicAdd(counted, 1u) == 3) counted[9] = 1;
        }
        """,
        "block (3, 0, 0), thread 0: writes counted at byte 36",
        "after a read by block number",
        blocks=4,
    ),
    _bug(
        "atomic_over_plain_write",
        BugKind.CROSS_BLOCK_RACE,
        "if (t == 0 && blockIdx.x == 0) counted[0] = 0; if (t == 0) atomicAdd(counted, 1u);  //!",
        "if (t == 0) atomicAdd(counted, 1u);",
        "updates atomically counted at byte 0",
        blocks=2,
    ),
    _bug(
        "write_of_what_others_read",
        BugKind.CROSS_BLOCK_RACE,
        "if (t == 0) { out[blockIdx.x] = counted[9]; if (blockIdx.x == 2) counted[9] = 1; }  //!",
        "if (t == 0) { out[blockIdx.x] = counted[9]; if (blockIdx.x == 2) counted[8] = 1; }",
        "writes counted at byte 36",
        "after a read by block number",
        blocks=3,
    ),
)

_DIVERGENCE = (
    _bug(
        "barriers_in_two_branches",
        BugKind.DIVERGENT_BARRIER,
        """
        if (t < 32) { out[t] = 1; __syncthreads(); out[t] = 2; }  //!
        else { out[t] = 3; __syncthreads(); out[t] = 4; }
        """,
        "out[t] = 1; __syncthreads(); out[t] = 4;",
        "do not meet at one barrier",
        "threads 0-31 wait at __syncthreads at kernel.cu:",
        "; threads 32-63 wait at __syncthreads at kernel.cu:",
    ),
    _bug(
        "exit_before_barrier",
        BugKind.DIVERGENT_BARRIER,
        """
        if (t >= 48) return;
        __syncthreads();  //!
        """,
        """
        __syncthreads();
        if (t >= 48) return;
        """,
        "threads 0-47 wait at __syncthreads at kernel.cu:",
        "threads 48-63 have exited",
    ),
    _bug(
        "barrier_in_one_branch",
        BugKind.DIVERGENT_WARP_OPERATION,
        """
        if (lane < 16) __syncthreads();
        out[t] = __shfl_xor_sync(0xffffffffu, t, 1);  //!
        """,
        """
        __syncthreads();
        out[t] = __shfl_xor_sync(0xffffffffu, t, 1);
        """,
        "but threads 0-15 wait at __syncthreads at kernel.cu:",
    ),
    _bug(
        "shuffle_without_all_its_lanes",
        BugKind.DIVERGENT_WARP_OPERATION,
        """
        if (lane < 20) out[t] = __shfl_down_sync(0xffffffffu, t, 1);  //!
        """,
        """
        if (lane < 20) out[t] = __shfl_down_sync(0x000fffffu, t, 1, 4);
        """,
        "waits at __shfl_down_sync with mask 0xffffffff",
        "but threads 20-31 have exited",
    ),
    _bug(
        "exited_lanes_in_mask",
        BugKind.DIVERGENT_WARP_OPERATION,
        """
        if (lane < 4) return;
        out[t] = __ballot_sync(0xffffffffu, 1);  //!
        """,
        """
        if (lane < 4) return;
        out[t] = __ballot_sync(0xfffffff0u, 1);
        """,
        "waits at __ballot_sync with mask 0xffffffff",
        "threads 0-3 have exited",
    ),
    _bug(
        "shuffles_in_two_branches",
        BugKind.DIVERGENT_WARP_OPERATION,
        """
        if (lane < 16) out[t] = __shfl_xor_sync(0xffffffffu, t, 1);  //!
        else out[t] = 1 + __shfl_xor_sync(0xffffffffu, t, 2);
        """,
        """
        if (lane < 16) out[t] = __shfl_xor_sync(0x0000ffffu, t, 1);
        else out[t] = 1 + __shfl_xor_sync(0xffff0000u, t, 2);
        """,
        "but threads 16-31 wait at __shfl_xor_sync with mask 0xffffffff at kernel.cu:",
    ),
    _bug(
        "masks_that_differ",
        BugKind.DIVERGENT_WARP_OPERATION,
        "__syncwarp(lane == 0 ? 0xffffffffu : 0xfffffffeu);  //!",
        "__syncwarp(lane == 0 ? 0x00000001u : 0xfffffffeu); out[t] = 0;",
        "thread 0: waits at __syncwarp with mask 0xffffffff",
    ),
    _bug(
        "multiply_without_all_lanes",
        BugKind.DIVERGENT_WARP_OPERATION,
        "if (lane < 16) out[t] = MULTIPLY(in[t]);  //!",
        "const float product = MULTIPLY(in[t]); if (lane < 16) out[t] = product;",
        "waits at mma.sync with mask 0xffffffff",
        "but threads 16-31 have exited",
    ),
    _bug(
        "own_lane_not_in_mask",
        BugKind.LANE_NOT_IN_MASK,
        "__syncwarp(0x7fffffffu);  //!",
        "if (lane < 31) __syncwarp(0x7fffffffu); out[t] = 0;",
        "thread 31: calls a warp operation with mask 0x7fffffff, which leaves out its own lane",
    ),
    _bug(
        "source_lane_not_in_mask",
        BugKind.INACTIVE_SOURCE_LANE,
        "if (lane < 8) out[t] = __shfl_sync(0xffu, t, 8);  //!",
        "if (lane < 8) out[t] = __shfl_sync(0xffu, t, 7);",
        "a shuffle reads lane 8, which its mask 0x000000ff leaves out",
    ),
    _bug(
        "width_no_power_of_two",
        BugKind.INVALID_WIDTH,
        "out[t] = __shfl_sync(0xffffffffu, t, 0, 24);  //!",
        "out[t] = __shfl_sync(0xffffffffu, t, 0, 16);",
        "a shuffle's width",
    ),
)

_FAULTS = (
    _bug(
        "endless_loop",
        BugKind.STEP_LIMIT,
        "volatile float* p = out; p[t] = 0; while (p[t] == 0) {}  //!",
        "volatile float* p = out; p[t] = 0; while (p[t] == 0) { p[t] = 1; }",
        "the step limit is reached",
    ),
    _bug(
        "endless_barriers",
        BugKind.STEP_LIMIT,
        "while (__syncthreads_or(1)) {}  //!",
        "while (__syncthreads_or(0)) {} out[t] = 0;",
    ),
    _bug(
        "stack_overflow",
        BugKind.STACK_OVERFLOW,
        "out[t] = recursion(n * 100000);",
        "out[t] = recursion(n);",
        "the thread's stack overflows",
        located=False,
    ),
    _bug(
        "division_by_zero",
        BugKind.DIVISION_BY_ZERO,
        "out[t] = n / (n - 64 + t);  //!",
        "out[t] = n / (n - 63 + t);",
        "an integer division by zero",
        "thread 0",
    ),
    _bug("trap", BugKind.TRAP, "if (n > 0) __trap();  //!", "if (n < 0) __trap();", "the kernel trapped"),
    _bug(
        "copy_never_waited_for",
        BugKind.PENDING_COPY,
        "vqcc_emulator::copy_async(s + t, in + t, 4, 4);  //!",
        "vqcc_emulator::copy_async(s + t, in + t, 4, 4); vqcc_emulator::copy_async_wait_all(); out[t] = s[t];",
    ),
    _bug(
        "copy_read_before_wait",
        BugKind.UNWRITTEN_READ,
        """
        vqcc_emulator::copy_async(s + t, in + t, 4, 4); vqcc_emulator::copy_async_commit();
        vqcc_emulator::copy_async(s + 64 + t, in + t, 4, 0); vqcc_emulator::copy_async_commit();
        vqcc_emulator::copy_async_wait(1);
        out[t] = s[t] + s[t + 64];  //!
        """,
        """
        vqcc_emulator::copy_async(s + t, in + t, 4, 4); vqcc_emulator::copy_async_commit();
        vqcc_emulator::copy_async(s + 64 + t, in + t, 4, 0); vqcc_emulator::copy_async_commit();
        vqcc_emulator::copy_async_wait(0);
        out[t] = s[t] + s[t + 64];
        """,
        "shared memory at byte 256",
    ),
)

_CLUSTERS = (
    _cluster_bug(
        "remote_read_past_end",
        BugKind.OUT_OF_BOUNDS,
        "s[t] = in[t]; MEET; const float v = THERE(s + n * 4, rank ^ 1); MEET; out[t] = v;  //!",
        "s[t] = in[t]; MEET; const float v = THERE(s + t, rank ^ 1); MEET; if (rank == 0) out[t] = v;",
        "reads 4 bytes past its end: shared memory of block",
        "of its cluster at byte 1024 of 1,024",
    ),
    _cluster_bug(
        "remote_write_past_end",
        BugKind.OUT_OF_BOUNDS,
        "MEET; PUT(s + t + n * 3 + 1, rank ^ 1, 1.0f); MEET;  //!",
        "MEET; PUT(s + t + n * 3, rank ^ 1, 1.0f); MEET;",
        "writes 4 bytes past its end: shared memory of block",
        "of its cluster at byte 1024",
    ),
    _cluster_bug(
        "remote_read_unwritten",
        BugKind.UNWRITTEN_READ,
        "if (rank == 1) s[t] = in[t]; MEET; const float v = THERE(s + t, 0); MEET; out[t] = v;  //!",
        "if (rank == 0) s[t] = in[t]; MEET; const float v = THERE(s + t, 0); MEET; if (rank == 0) out[t] = v;",
        "reads 4 bytes that nothing has written: shared memory of block 0 of its cluster at byte",
    ),
    _cluster_bug(
        "remote_write_read_before_barrier",
        BugKind.CLUSTER_RACE,
        """
        s[t] = 0; MEET;
        PUT(s + t, rank ^ 1, in[t]);  //!
        __syncthreads();
        const float v = s[t];
        MEET; if (rank == 0) out[t] = v;
        """,
        """
        s[t] = 0; MEET;
        PUT(s + t, rank ^ 1, in[t]);
        MEET;
        const float v = s[t];
        MEET; if (rank == 0) out[t] = v;
        """,
        "writes shared memory of block 1 of its cluster at byte 0, after a read by block number 1",
        "nothing orders the two",
    ),
    _cluster_bug(
        "own_memory_changed_while_others_read",
        BugKind.CLUSTER_RACE,
        "s[t] = in[t]; MEET; const float v = THERE(s + t, rank ^ 1); s[t] = v; MEET;  //!",
        "s[t] = in[t]; MEET; const float v = THERE(s + t, rank ^ 1); MEET; s[t] = v;",
        "reads shared memory of block 1 of its cluster at byte 0, after a write by block number",
        blocks=4,
    ),
    _cluster_bug(
        "two_blocks_write_one_place",
        BugKind.CLUSTER_RACE,
        "MEET; PUT(s + t, 0, in[t]); MEET;  //!",
        "MEET; PUT(s + t + 64 * rank, 0, in[t]); MEET;",
        "writes shared memory at byte 0, after a write by block number 1",
    ),
    _cluster_bug(
        "remote_write_after_arrival",
        BugKind.CLUSTER_RACE,
        """
        s[t] = 0; MEET;
        ARRIVE; PUT(s + t, rank ^ 1, in[t]); WAIT;
        const float v = s[t];  //!
        MEET; if (rank == 0) out[t] = v;
        """,
        """
        s[t] = 0; MEET;
        PUT(s + t, rank ^ 1, in[t]); ARRIVE; WAIT;
        const float v = s[t];
        MEET; if (rank == 0) out[t] = v;
        """,
        "after a write by block number",
    ),
    _cluster_bug(
        "own_block_after_arrival",
        BugKind.RACE,
        """
        ARRIVE; s[t] = in[t]; WAIT;
        const float v = s[t ^ 32];  //!
        if (rank == 0) out[t] = v;
        """,
        """
        s[t] = in[t]; ARRIVE; WAIT;
        const float v = s[t ^ 32];
        if (rank == 0) out[t] = v;
        """,
        "missing barrier: reads shared memory at byte",
        "nothing orders this after a write by thread",
    ),
    _cluster_bug(
        "threads_of_a_block_write_elsewhere",
        BugKind.RACE,
        "MEET; PUT(s + t % 32, rank ^ 1, in[t]); MEET;  //!",
        "MEET; if (t < 32) PUT(s + t, rank ^ 1, in[t]); MEET; if (t >= 32) PUT(s + t % 32, rank ^ 1, in[t]); MEET;",
        "missing barrier: writes shared memory of block 0 of its cluster at byte 0",
    ),
    _cluster_bug(
        "access_before_the_other_has_begun",
        BugKind.ABSENT_BLOCK,
        "PUT(s + t, rank ^ 1, in[t]); MEET;  //!",
        "MEET; PUT(s + t, rank ^ 1, in[t]); MEET;",
        "writes 4 bytes of shared memory of block 1 of its cluster at byte 0",
        "no cluster barrier tells that this block has begun",
    ),
    _cluster_bug(
        "access_when_the_other_may_have_ended",
        BugKind.ABSENT_BLOCK,
        "s[t] = in[t]; MEET; const float v = THERE(s + t, rank ^ 1); if (rank == 0) out[t] = v;  //!",
        "s[t] = in[t]; MEET; const float v = THERE(s + t, rank ^ 1); MEET; if (rank == 0) out[t] = v;",
        "or keeps it from its end",
    ),
    _cluster_bug(
        "access_after_the_last_arrival",
        BugKind.ABSENT_BLOCK,
        "s[t] = in[t]; MEET; ARRIVE; const float v = THERE(s + t, rank ^ 1); WAIT; if (rank == 0) out[t] = v;  //!",
        "s[t] = in[t]; MEET; const float v = THERE(s + t, rank ^ 1); ARRIVE; WAIT; if (rank == 0) out[t] = v;",
    ),
    _cluster_bug(
        "block_that_the_cluster_lacks",
        BugKind.ABSENT_BLOCK,
        "s[t] = in[t]; MEET; const float v = THERE(s + t, rank + 1); MEET; out[t] = v;  //!",
        "s[t] = in[t]; MEET; const float v = THERE(s + t, rank); MEET; if (rank == 0) out[t] = v;",
        "names the shared memory of block 2 of its cluster",
    ),
    _cluster_bug(
        "block_that_does_not_arrive",
        BugKind.DIVERGENT_CLUSTER_BARRIER,
        "if (rank == 0) MEET;  //!",
        "MEET;",
        "block (1, 0, 0)",
        "its threads do not all come to the cluster's barrier, where others wait at kernel.cu:",
        "threads 0-63 have exited",
    ),
    _cluster_bug(
        "warp_that_does_not_arrive",
        BugKind.DIVERGENT_CLUSTER_BARRIER,
        """
        if (rank == 1 && t >= 32) { __syncthreads(); }
        else MEET;  //!
        """,
        "__syncthreads(); MEET;",
        "threads 0-31 wait at the cluster's barrier",
        "threads 32-63 wait at __syncthreads",
    ),
    _cluster_bug(
        "lane_that_does_not_arrive",
        BugKind.DIVERGENT_WARP_OPERATION,
        """
        if (lane == 0) ARRIVE;  //!
        else ARRIVE;
        WAIT;
        """,
        "ARRIVE; WAIT;",
        "waits at barrier.cluster.arrive",
    ),
    _cluster_bug(
        "arrives_twice",
        BugKind.CLUSTER_BARRIER_ORDER,
        "ARRIVE; ARRIVE; WAIT;  //!",
        "ARRIVE; WAIT; ARRIVE; WAIT;",
        "arrives at a cluster barrier twice",
    ),
    _cluster_bug(
        "waits_without_arrival",
        BugKind.CLUSTER_BARRIER_ORDER,
        "WAIT;  //!",
        "ARRIVE; WAIT;",
        "waits for one at which it has not arrived",
    ),
    _cluster_bug(
        "global_memory_between_blocks_of_a_cluster",
        BugKind.CROSS_BLOCK_RACE,
        "if (rank == 0) out[t] = in[t]; MEET; if (rank == 1) out[t] = 0;  //!",
        "MEET; if (rank == 1) out[t] = 0;",
        "writes out at byte",
        "after a write by block number 0",
    ),
)

BUGS = (*_MEMORY, *_ALIGNMENT, *_RACES, *_COPIES, *_BLOCKS, *_DIVERGENCE, *_FAULTS, *_CLUSTERS)


def _kernel(bug: Bug, which: str, body: str, names: str) -> str:
    cluster = f"__cluster_dims__({bug.cluster}, 1, 1) " if bug.cluster else ""
    return f"""
extern "C" __global__ void {cluster}{bug.name}_{which}(const float* in, float* out, unsigned* counted, int n) {{
  const int t = threadIdx.x, lane = t % 32, rank = static_cast<int>(vqcc_emulator::cluster_rank());
  float* s = shared_array();
  {names}
  {body}
  (void)t, (void)lane, (void)s, (void)rank;
}}
"""


def source_of(prelude: str, bugs: tuple[Bug, ...], names: str = "") -> str:
    """A source of the two kernels of each bug, whose bodies begin with `names`."""
    return prelude + "".join(
        _kernel(bug, "wrong", bug.wrong, names) + _kernel(bug, "right", bug.right, names) for bug in bugs
    )


SOURCE = source_of(
    """
__device__ int module_variable[64];
__device__ const int module_constant[4] = {1, 2, 3, 4};
__device__ __noinline__ int recursion(int depth) {
  volatile int local[64] = {depth};
  return depth == 0 ? 0 : local[0] + recursion(depth - 1);
}
#define MULTIPLY(x) \\
  vqcc_emulator::multiply_fragments(vqcc_emulator::TensorFormat::f16, {{1, 1, 1, 1}, {1, 1}, {x, x, x, x}}).sums[0]
#define ARRIVE vqcc_emulator::cluster_arrive()
#define WAIT vqcc_emulator::cluster_wait()
#define MEET (ARRIVE, WAIT)
#define THERE(place, rank) vqcc_emulator::load_whole(vqcc_emulator::shared_of(place, rank), place)
#define PUT(place, rank, value) \\
  vqcc_emulator::store_whole(reinterpret_cast<float*>(vqcc_emulator::shared_of(place, rank)), value)
""",
    BUGS,
)
