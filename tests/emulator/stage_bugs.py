"""Planted bugs of barriers of stages, of bulk copies and of barriers of groups, each with its correct twin."""

from __future__ import annotations

from emulator.bugs import Bug, source_of

from vqcc.emulator import BugKind

__all__ = ["STAGE_BUGS", "STAGE_SOURCE"]


def _bug(name: str, kind: BugKind, wrong: str, right: str, *names: str, blocks: int = 1) -> Bug:
    """Bodies know MAKE(i, arrivals), by thread 0 and shown to all, INIT and SHOW, which together do, ARRIVE(i),
    EXPECT(i, bytes), WAIT(i, parity), BULK(to, from, bytes, i), GROUP(name, threads) and LOOK(count), which looks until
    so many are counted. Barrier i lies at byte 896 + 8 i.
    """
    return Bug(name, kind, wrong, right, names, blocks)


_ORDER = (
    _bug(
        "no_wait_for_the_stage",
        BugKind.RACE,
        "MAKE(0, 32); if (t < 32) { s[t] = in[t]; ARRIVE(0); } else { out[t] = s[t - 32]; }  //!",
        "MAKE(0, 32); if (t < 32) { s[t] = in[t]; ARRIVE(0); } else { WAIT(0, 0); out[t] = s[t - 32]; }",
        "reads shared memory at byte 0, and nothing orders this after a write by thread 0",
    ),
    _bug(
        "stored_after_the_arrival",
        BugKind.RACE,
        "MAKE(0, 32); if (t < 32) { ARRIVE(0); s[t] = in[t]; } else { WAIT(0, 0); out[t] = s[t - 32]; }  //!",
        "MAKE(0, 32); if (t < 32) { s[t] = in[t]; ARRIVE(0); } else { WAIT(0, 0); out[t] = s[t - 32]; }",
        "nothing orders this after a write by thread 0",
    ),
    _bug(
        "released_before_it_is_read",
        BugKind.RACE,
        """
        MAKE(0, 32); MAKE(1, 32);
        if (t >= 32) {
          s[t - 32] = in[t]; ARRIVE(0);
          WAIT(1, 0);
          s[t - 32] = 0;  //!
        } else { WAIT(0, 0); ARRIVE(1); out[t] = s[t]; }
        """,
        """
        MAKE(0, 32); MAKE(1, 32);
        if (t >= 32) {
          s[t - 32] = in[t]; ARRIVE(0);
          WAIT(1, 0);
          s[t - 32] = 0;
        } else { WAIT(0, 0); out[t] = s[t]; ARRIVE(1); }
        """,
        "writes shared memory at byte 0, and nothing orders this after a read by thread 0",
    ),
    _bug(
        "overwritten_before_it_is_released",
        BugKind.RACE,
        """
        MAKE(0, 32); MAKE(1, 32);
        if (t >= 32) { s[t - 32] = in[t]; ARRIVE(0); s[t - 32] = 0; }
        else { WAIT(0, 0); out[t] = s[t]; ARRIVE(1); }  //!
        """,
        """
        MAKE(0, 32); MAKE(1, 32);
        if (t >= 32) { s[t - 32] = in[t]; ARRIVE(0); WAIT(1, 0); s[t - 32] = 0; }
        else { WAIT(0, 0); out[t] = s[t]; ARRIVE(1); }
        """,
        "reads shared memory at byte 0, and nothing orders this after a write by thread 32",
    ),
    _bug(
        "one_lane_arrives_for_lanes_that_have_not_met",
        BugKind.RACE,
        """
        MAKE(0, 1);
        if (t < 32) { s[t] = in[t]; if (lane == 0) ARRIVE(0); }
        else { WAIT(0, 0); out[t] = s[t - 32]; }  //!
        """,
        """
        MAKE(0, 1);
        if (t < 32) { s[t] = in[t]; __syncwarp(); if (lane == 0) ARRIVE(0); }
        else { WAIT(0, 0); out[t] = s[t - 32]; }
        """,
        "thread 33: missing barrier: reads shared memory at byte 4",
        "after a write by thread 1",
    ),
    _bug(
        "one_lane_waits_for_lanes_that_do_not_meet_it",
        BugKind.RACE,
        """
        MAKE(0, 32);
        if (t < 32) { s[t] = in[t]; ARRIVE(0); }
        else { if (lane == 31) WAIT(0, 0); out[t] = s[t - 32]; }  //!
        """,
        """
        MAKE(0, 32);
        if (t < 32) { s[t] = in[t]; ARRIVE(0); }
        else { if (lane == 31) WAIT(0, 0); __syncwarp(); out[t] = s[t - 32]; }
        """,
        "thread 32: missing barrier: reads shared memory at byte 0",
        "after a write by thread 0",
    ),
    _bug(
        "phase_of_another_barrier",
        BugKind.RACE,
        """
        MAKE(0, 32); MAKE(1, 1);
        if (t < 32) { s[t] = in[t]; if (lane == 0) ARRIVE(1); ARRIVE(0); }
        else { WAIT(1, 0); out[t] = s[t - 32]; }  //!
        """,
        """
        MAKE(0, 32); MAKE(1, 1);
        if (t < 32) { s[t] = in[t]; if (lane == 0) ARRIVE(1); ARRIVE(0); }
        else { WAIT(0, 0); out[t] = s[t - 32]; }
        """,
        "reads shared memory at byte 4",
    ),
    _bug(
        "group_too_small",
        BugKind.RACE,
        "s[t] = in[t]; GROUP(1 + t / 32, 32); out[t] = s[t % 32];  //!",
        "s[t] = in[t]; GROUP(1, 64); out[t] = s[t % 32];",
        "nothing orders this after a write by thread",
    ),
    _bug(
        "written_after_a_group_has_read",
        BugKind.RACE,
        "s[t] = in[t]; GROUP(7, 64); out[t] = s[5]; if (t == 5) s[5] = 0;  //!",
        "s[t] = in[t]; GROUP(7, 64); out[t] = s[5]; GROUP(7, 64); if (t == 5) s[5] = 0;",
        "thread 5: missing barrier: writes shared memory at byte 20",
        "after a read by thread",
    ),
    _bug(
        "bytes_read_by_several_warps",
        BugKind.RACE,
        """
        s[t] = in[t]; GROUP(7, 64); out[t] = s[5];
        if (t == 5) shared_array<unsigned char>()[21] = 0;  //!
        """,
        """
        s[t] = in[t]; GROUP(7, 64); out[t] = s[5]; GROUP(7, 64);
        if (t == 5) shared_array<unsigned char>()[21] = 0;
        """,
        "thread 5: missing barrier: writes shared memory at byte 21",
    ),
    _bug(
        "counted_for_a_group_that_has_not_met",
        BugKind.CROSS_BLOCK_RACE,
        """
        if (lane == 0) counted[blockIdx.x * 2 + 1 + t / 32] = n;
        if (t == 0) { __threadfence(); shared_array<unsigned>()[0] = atomicAdd(counted, 1u); }
        GROUP(1, 64);
        if (shared_array<unsigned>()[0] == 2 && t < 6) out[t] = __ldcg(counted + 1 + t);  //!
        """,
        """
        if (lane == 0) counted[blockIdx.x * 2 + 1 + t / 32] = n;
        GROUP(1, 64);
        if (t == 0) { __threadfence(); shared_array<unsigned>()[0] = atomicAdd(counted, 1u); }
        GROUP(1, 64);
        if (shared_array<unsigned>()[0] == 2 && t < 6) out[t] = __ldcg(counted + 1 + t);
        """,
        "block (2, 0, 0), thread 1: reads counted at byte 8 (element [2])",
        blocks=3,
    ),
)

_BULK = (
    _bug(
        "bulk_copy_read_without_wait",
        BugKind.UNWRITTEN_READ,
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 128); BULK(s, in, 128, 0); WAIT(0, 0); } out[t] = s[t % 32];  //!",
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 128); BULK(s, in, 128, 0); } WAIT(0, 0); out[t] = s[t % 32];",
        "that nothing has written: shared memory at byte 4",
    ),
    _bug(
        "bulk_copy_that_another_barrier_tells_of",
        BugKind.RACE,
        """
        MAKE(0, 1); MAKE(1, 1);
        if (t == 0) { EXPECT(0, 128); BULK(s, in, 128, 0); EXPECT(1, 16); BULK(s + 32, in, 16, 1); }
        WAIT(t / 32, 0); out[t] = s[t % 32];  //!
        """,
        """
        MAKE(0, 1); MAKE(1, 1);
        if (t == 0) { EXPECT(0, 128); BULK(s, in, 128, 0); EXPECT(1, 16); BULK(s + 32, in, 16, 1); }
        WAIT(0, 0); WAIT(1, 0); out[t] = s[t % 32];
        """,
        "thread 32: missing barrier: reads shared memory at byte 0",
    ),
    _bug(
        "stored_where_a_bulk_copy_arrives",
        BugKind.RACE,
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 128); BULK(s, in, 128, 0); s[31] = 0; } WAIT(0, 0);  //!",
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 128); BULK(s, in, 128, 0); s[32] = 0; } WAIT(0, 0);",
        "writes shared memory at byte 124",
    ),
    _bug(
        "stored_past_a_barrier_where_a_bulk_copy_arrives",
        BugKind.RACE,
        """
        MAKE(0, 1);
        if (t == 0) { EXPECT(0, 128); BULK(s, in, 128, 0); }  //!
        __syncthreads();
        if (t == 9) s[9] = 0;
        WAIT(0, 0); out[t] = s[t % 32];
        """,
        """
        MAKE(0, 1);
        if (t == 0) { EXPECT(0, 128); BULK(s, in, 128, 0); }
        __syncthreads();
        if (t == 9) s[32 + 9] = 0;
        WAIT(0, 0); out[t] = s[t % 32];
        """,
        "after a write by thread 9",
    ),
    _bug(
        "bulk_copy_over_what_others_read",
        BugKind.RACE,
        """
        MAKE(0, 1); s[t] = in[t]; __syncthreads(); out[t] = s[t % 32];
        if (t == 32) { EXPECT(0, 128); BULK(s, in, 128, 0); }  //!
        WAIT(0, 0);
        """,
        """
        MAKE(0, 1); s[t] = in[t]; __syncthreads(); out[t] = s[t % 32]; __syncthreads();
        if (t == 32) { EXPECT(0, 128); BULK(s, in, 128, 0); }
        WAIT(0, 0);
        """,
        "thread 32: missing barrier: writes shared memory at byte 0",
        "after a read by thread",
    ),
    _bug(
        "bulk_copy_past_end",
        BugKind.OUT_OF_BOUNDS,
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 256); BULK(s, in + 4, 256, 0); } WAIT(0, 0);  //!",
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 240); BULK(s, in + 4, 240, 0); } WAIT(0, 0); out[t] = s[t % 60];",
        "reads 256 bytes past its end: in at byte 256 of 256",
    ),
    _bug(
        "misaligned_bulk_copy",
        BugKind.MISALIGNED,
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 128); BULK(s, in + 2, 128, 0); } WAIT(0, 0); out[t] = s[t % 32];  //!",
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 128); BULK(s, in + 4, 128, 0); } WAIT(0, 0); out[t] = s[t % 32];",
        "in at byte 8 (element [2]), which is only 8-byte aligned",
    ),
    _bug(
        "bulk_copy_of_a_part_of_16_bytes",
        BugKind.BARRIER_LIMIT,
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 24); BULK(s, in, 24, 0); } WAIT(0, 0);  //!",
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 32); BULK(s, in, 32, 0); } WAIT(0, 0);",
        "gives the barrier in shared memory at byte 896 what it does not take: 24",
    ),
    _bug(
        "bulk_copy_never_waited_for",
        BugKind.PENDING_COPY,
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 128); BULK(s, in, 128, 0); } out[t] = 1;  //!",
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 128); BULK(s, in, 128, 0); WAIT(0, 0); } out[t] = 1;",
    ),
    _bug(
        "barrier_that_copies_do_not_see",
        BugKind.HIDDEN_BARRIER,
        """
        if (t == 0) INIT(0, 1); __syncthreads();
        if (t == 0) { EXPECT(0, 128); BULK(s, in, 128, 0); }  //!
        WAIT(0, 0);
        """,
        """
        if (t == 0) { INIT(0, 1); SHOW; } __syncthreads();
        if (t == 0) { EXPECT(0, 128); BULK(s, in, 128, 0); }
        WAIT(0, 0);
        """,
        "which thread 0 made and did not show to copies",
    ),
    _bug(
        "bytes_never_announced",
        BugKind.UNANNOUNCED_COPY,
        "MAKE(0, 1); if (t == 0) { BULK(s, in, 128, 0); ARRIVE(0); } WAIT(0, 0);  //!",
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 128); BULK(s, in, 128, 0); } WAIT(0, 0);",
        "starts to copy 128 bytes that the phase of the barrier in shared memory at byte 896 does not wait for",
    ),
    _bug(
        "more_bytes_than_announced",
        BugKind.UNANNOUNCED_COPY,
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 64); BULK(s, in, 128, 0); } WAIT(0, 0);  //!",
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 128); BULK(s, in, 64, 0); BULK(s + 16, in, 64, 0); } WAIT(0, 0);",
        "not announced",
    ),
)

_MISUSE = (
    _bug(
        "barrier_nobody_made",
        BugKind.UNMADE_BARRIER,
        "MAKE(0, 64); ARRIVE(1);  //!",
        "MAKE(0, 64); ARRIVE(0);",
        "uses a barrier that nobody made: shared memory at byte 904",
    ),
    _bug(
        "barrier_not_shown",
        BugKind.UNSHOWN_BARRIER,
        "if (t == 0) INIT(0, 1); if (t == 33) ARRIVE(0);  //!",
        "if (t == 0) INIT(0, 1); __syncthreads(); if (t == 33) ARRIVE(0);",
        "uses the barrier in shared memory at byte 896, and nothing orders this after thread 0 made it",
    ),
    _bug(
        "barrier_made_twice",
        BugKind.REMADE_BARRIER,
        "MAKE(0, 1); MAKE(0, 1);  //!",
        "MAKE(0, 1); MAKE(1, 1);",
        "makes a barrier where there is one: shared memory at byte 896",
    ),
    _bug(
        "barrier_made_over_data",
        BugKind.RACE,
        "if (t == 1) s[224] = in[t]; if (t == 33) INIT(0, 1);  //!",
        "if (t == 1) s[224] = in[t]; __syncthreads(); if (t == 33) INIT(0, 1);",
    ),
    _bug(
        "data_over_barrier",
        BugKind.BARRIER_BYTES,
        "MAKE(0, 1); if (t == 0) s[225] = 0;  //!",
        "MAKE(0, 1); if (t == 0) s[226] = 0;",
        "writes 4 bytes of a barrier: shared memory at byte 900",
    ),
    _bug(
        "barrier_read_as_data",
        BugKind.BARRIER_BYTES,
        "MAKE(0, 1); if (t == 0) out[0] = s[224];  //!",
        "MAKE(0, 1); if (t == 0) { s[226] = 0; out[0] = s[226]; }",
        "reads 4 bytes of a barrier: shared memory at byte 896",
    ),
    _bug(
        "misaligned_barrier",
        BugKind.MISALIGNED,
        "if (t == 0) vqcc_emulator::barrier_init(s + 1, 1);  //!",
        "if (t == 0) vqcc_emulator::barrier_init(s + 2, 1);",
        "accesses 8 bytes at shared memory at byte 4, which is only 4-byte aligned",
    ),
    _bug(
        "arrival_in_a_full_phase",
        BugKind.EXCESS_ARRIVAL,
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 16); ARRIVE(0); }  //!",
        "MAKE(0, 2); if (t == 0) { EXPECT(0, 16); ARRIVE(0); BULK(s, in, 16, 0); } WAIT(0, 0);",
        "again in a phase that has had its 1 arrival",
    ),
    _bug(
        "barrier_of_no_arrivals",
        BugKind.BARRIER_LIMIT,
        "if (t == 0) INIT(0, 0);  //!",
        "if (t == 0) INIT(0, 1);",
    ),
    _bug(
        "too_many_bytes_announced",
        BugKind.BARRIER_LIMIT,
        "MAKE(0, 1); if (t == 0) EXPECT(0, 1 << 20);  //!",
        "MAKE(0, 1); if (t == 0) EXPECT(0, (1 << 20) - 1);",
        "1,048,576",
    ),
    _bug("parity_of_two", BugKind.BARRIER_LIMIT, "MAKE(0, 1); WAIT(0, 2);  //!", "MAKE(0, 1); WAIT(0, 1);"),
    _bug(
        "phase_that_may_pass_unseen",
        BugKind.MISSED_PHASE,
        "MAKE(0, 1); if (t < 32) WAIT(0, 0); if (t == 32) { ARRIVE(0); ARRIVE(0); }  //!",
        "MAKE(0, 1); if (t < 32) WAIT(0, 0); if (t == 32) { ARRIVE(0); }",
        "waits for a phase of parity 0",
    ),
)

_STALLS = (
    _bug(
        "parity_ahead",
        BugKind.STALLED,
        "MAKE(0, 32); if (t < 32) ARRIVE(0); else { WAIT(0, 0); WAIT(0, 1); }  //!",
        "MAKE(0, 32); if (t < 32) ARRIVE(0); else { WAIT(0, 0); WAIT(0, 0); }",
        "no thread of the block can go on: the barrier in shared memory at byte 896 lacks 32 arrivals",
        "threads 0-31 have exited; "
        "threads 32-63 wait for a phase of parity 1 of the barrier at byte 896 of shared memory at kernel.cu:",
    ),
    _bug(
        "too_few_arrivals",
        BugKind.STALLED,
        "MAKE(0, 32); if (t < 31) ARRIVE(0); if (t >= 32) WAIT(0, 0);  //!",
        "MAKE(0, 32); if (t < 32) ARRIVE(0); if (t >= 32) WAIT(0, 0);",
        "lacks 1 arrival",
    ),
    _bug(
        "bytes_announced_and_not_copied",
        BugKind.STALLED,
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 128); BULK(s, in, 96, 0); } WAIT(0, 0);  //!",
        "MAKE(0, 1); if (t == 0) { EXPECT(0, 96); BULK(s, in, 96, 0); } WAIT(0, 0);",
        "lacks 32 announced bytes",
    ),
    _bug(
        "stage_and_block_barrier",
        BugKind.STALLED,
        "MAKE(0, 1); if (t < 32) WAIT(0, 0);  //!\n else { __syncthreads(); ARRIVE(0); }",
        "MAKE(0, 32); if (t < 32) WAIT(0, 0); else ARRIVE(0); __syncthreads();",
        "threads 32-63 wait at __syncthreads",
    ),
    _bug(
        "group_that_lacks_a_warp",
        BugKind.STALLED,
        "if (t < 32) GROUP(4, 64);  //!",
        "if (t < 32) GROUP(4, 32);",
        "threads 0-31 wait at barrier 4 of 64 threads at kernel.cu:",
        "threads 32-63 have exited",
    ),
    _bug(
        "counts_that_differ",
        BugKind.GROUP_MISMATCH,
        "GROUP(2, t < 32 ? 64 : 32);  //!",
        "GROUP(2, t < 32 ? 64 : 64);",
        "comes to barrier 2 for 32 threads, where others wait for another count: "
        "threads 0-31 wait at barrier 2 of 64 threads",
    ),
    _bug(
        "half_warps",
        BugKind.GROUP_THREADS,
        "if (lane < 16) GROUP(2, 32);  //!",
        "if (t < 32) GROUP(2, 32);",
        "barrier 2 of 32 threads",
    ),
    _bug(
        "part_of_a_warp",
        BugKind.GROUP_THREADS,
        "GROUP(2, 48);  //!",
        "GROUP(2, 64);",
        "barrier 2 of 48 threads",
    ),
    _bug(
        "name_of_block_barriers",
        BugKind.GROUP_THREADS,
        "GROUP(0, 64);  //!",
        "GROUP(15, 64);",
        "barrier 0 of",
    ),
    _bug(
        "name_past_the_last", BugKind.GROUP_THREADS, "GROUP(16, 64);  //!", "GROUP(1, 64);", "barrier 16 of"
    ),
)

_GLOBAL = (
    _bug(
        "counted_without_a_fence",
        BugKind.RACE,
        """
        if (t < 32) { out[t] = in[t]; __syncwarp(); if (lane == 0) atomicAdd(counted, 1u); }
        else { LOOK(1u); out[t] = out[t - 32]; }  //!
        """,
        """
        if (t < 32) { out[t] = in[t]; __syncwarp(); if (lane == 0) { __threadfence(); atomicAdd(counted, 1u); } }
        else { LOOK(1u); out[t] = out[t - 32]; }
        """,
        "nothing orders this after a write by thread 0",
    ),
    _bug(
        "source_of_a_copy_written_before_the_phase_has_ended",
        BugKind.RACE,
        """
        MAKE(0, 1); out[t] = in[t]; __syncthreads();
        if (t == 0) { EXPECT(0, 128); BULK(s, out, 128, 0); WAIT(0, 0); }
        if (t == 32) out[0] = 0;  //!
        """,
        """
        MAKE(0, 1); out[t] = in[t]; __syncthreads();
        if (t == 0) { EXPECT(0, 128); BULK(s, out, 128, 0); WAIT(0, 0); }
        if (t == 32) { WAIT(0, 0); out[0] = 0; }
        """,
        "nothing orders this after a read by thread 0",
    ),
)

STAGE_BUGS = (*_ORDER, *_BULK, *_MISUSE, *_STALLS, *_GLOBAL)

STAGE_SOURCE = source_of(
    """
#define PLACE(i) (s + 224 + 2 * (i))
#define INIT(i, arrivals) vqcc_emulator::barrier_init(PLACE(i), arrivals)
#define SHOW vqcc_emulator::show_stores()
#define MAKE(i, arrivals) ((t == 0 ? (INIT(i, arrivals), SHOW) : void()), __syncthreads())
#define ARRIVE(i) vqcc_emulator::barrier_arrive(PLACE(i))
#define EXPECT(i, bytes) vqcc_emulator::barrier_arrive_expecting(PLACE(i), bytes)
#define WAIT(i, parity) vqcc_emulator::barrier_wait(PLACE(i), parity)
#define BULK(to, from, bytes, i) vqcc_emulator::bulk_copy(to, from, bytes, PLACE(i))
#define LOOK(count) \\
  while (atomicAdd(counted, 0u) < count) vqcc_emulator::let_others_run()
#define GROUP(name, threads) vqcc_emulator::group_barrier(name, threads)
""",
    STAGE_BUGS,
)
