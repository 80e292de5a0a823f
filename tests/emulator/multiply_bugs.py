"""Planted bugs of multiplies of a warpgroup, which take their time, each with its correct twin."""

from __future__ import annotations

from emulator.bugs import Bug, source_of

from vqcc.emulator import BugKind

__all__ = ["MULTIPLY_BUGS", "MULTIPLY_SOURCE", "PLAIN_MULTIPLY_BUGS", "PLAIN_MULTIPLY_SOURCE"]


def _bug(name: str, kind: BugKind, wrong: str, right: str, *names: str) -> Bug:
    """Bodies of 128 threads know `b`, 32 rows of operand B as words, and registers `sums` and `more`, all zero.

    FILL stores the rows, by all threads; SHOW shows what a thread stored. BEGIN, START(sums, slice), COMMIT and
    WAIT(groups) are those of a multiply, START_AT(rows) is one of other rows, START_SHARED one of operand A in shared
    memory: `a`, 64 rows, which FILL_A stores.
    """
    return Bug(name, kind, wrong, right, names)


_SUMS = (
    _bug(
        "sums_read_before_the_wait",
        BugKind.SUMS_IN_FLIGHT,
        "READY; BEGIN; START(sums, 0); COMMIT; out[lane] = sums[3];  //!\n WAIT(0);",
        "READY; BEGIN; START(sums, 0); COMMIT; WAIT(0); if (t < 32) out[lane] = sums[3];",
        "reads 4 bytes of the sums of a multiply that was started at kernel.cu:",
    ),
    _bug(
        "sums_read_after_a_wait_that_leaves_their_group",
        BugKind.SUMS_IN_FLIGHT,
        "READY; BEGIN; START(sums, 0); COMMIT; WAIT(1); out[lane] = sums[15];  //!\n WAIT(0);",
        "READY; BEGIN; START(sums, 0); COMMIT; WAIT(0); if (t < 32) out[lane] = sums[15];",
        "not waited for",
    ),
    _bug(
        "sums_of_a_later_group",
        BugKind.SUMS_IN_FLIGHT,
        """
        READY; BEGIN; START(sums, 0); COMMIT; BEGIN; START(more, 1); COMMIT; WAIT(1);
        if (t < 32) out[lane] = more[0];  //!
        WAIT(0); (void)sums;
        """,
        """
        READY; BEGIN; START(sums, 0); COMMIT; BEGIN; START(more, 1); COMMIT; WAIT(1);
        if (t < 32) out[lane] = sums[0];
        WAIT(0);
        """,
    ),
    _bug(
        "sums_that_a_later_group_adds_to",
        BugKind.SUMS_IN_FLIGHT,
        """
        READY; BEGIN; START(sums, 0); COMMIT; BEGIN; START(sums, 1); COMMIT; WAIT(1);
        if (t < 32) out[lane] = sums[0];  //!
        WAIT(0);
        """,
        """
        READY; BEGIN; START(sums, 0); COMMIT; BEGIN; START(sums, 1); COMMIT; WAIT(0);
        if (t < 32) out[lane] = sums[0];
        """,
    ),
    _bug(
        "sums_written_before_the_wait",
        BugKind.SUMS_IN_FLIGHT,
        "READY; BEGIN; START(sums, 0); COMMIT; sums[n % 2] = 0;  //!\n WAIT(0); if (t < 32) out[lane] = sums[0];",
        "READY; BEGIN; START(sums, 0); COMMIT; WAIT(0); sums[n % 2] = 0; if (t < 32) out[lane] = sums[0];",
        "writes 4 bytes of the sums",
    ),
    _bug(
        "sums_of_a_function_that_has_returned",
        BugKind.LOST_SUMS,
        "READY; start_elsewhere(b); WAIT(0);  //!",
        "READY; BEGIN; START(sums, 0); COMMIT; WAIT(0);",
        "no longer, registers of its thread",
    ),
    _bug(
        "sums_in_shared_memory",
        BugKind.LOST_SUMS,
        "READY; BEGIN; START(s + 1536 + t, 0);  //!\n COMMIT; WAIT(0);",
        "READY; BEGIN; START(sums, 0); COMMIT; WAIT(0); s[1536 + t] = sums[0];",
    ),
)

_OPERANDS = (
    _bug(
        "operand_stored_before_the_wait",
        BugKind.OPERAND_OVERWRITTEN,
        "READY; BEGIN; START(sums, 0); COMMIT; if (t == 3) b[1] = 1;  //!\n WAIT(0);",
        "READY; BEGIN; START(sums, 0); COMMIT; WAIT(0); SYNC; if (t == 3) b[1] = 1;",
        "thread 3: writes 4 bytes: shared memory at byte",
        "which a multiply of warp 0 that was started at kernel.cu:",
    ),
    _bug(
        "operand_of_a_group_that_the_wait_leaves",
        BugKind.OPERAND_OVERWRITTEN,
        "READY; BEGIN; START(sums, 0); COMMIT; BEGIN; START(sums, 1); COMMIT; WAIT(1); SYNC; b[8] = t;  //!\n WAIT(0);",
        "READY; BEGIN; START(sums, 0); COMMIT; BEGIN; START(sums, 1); COMMIT; WAIT(1); SYNC; "
        "if (t == 0) b[0] = t; WAIT(0);",
    ),
    _bug(
        "operand_copied_over_before_the_wait",
        BugKind.OPERAND_OVERWRITTEN,
        """
        READY; BEGIN; START(sums, 0); COMMIT;
        if (t == 0) vqcc_emulator::copy_async(b, in, 16, 16);  //!
        vqcc_emulator::copy_async_wait_all(); WAIT(0);
        """,
        """
        READY; BEGIN; START(sums, 0); COMMIT; WAIT(0); SYNC;
        if (t == 0) vqcc_emulator::copy_async(b, in, 16, 16);
        vqcc_emulator::copy_async_wait_all();
        """,
    ),
    _bug(
        "operand_that_other_warps_may_still_read",
        BugKind.RACE,
        "READY; BEGIN; START(sums, 0); COMMIT; WAIT(0); if (t == 96) b[0] = 1;  //!",
        "READY; BEGIN; START(sums, 0); COMMIT; WAIT(0); SYNC; if (t == 96) b[0] = 1;",
        "thread 96: missing barrier: writes shared memory at byte",
        "after a read by thread",
    ),
    _bug(
        "operand_read_across_a_block_barrier",
        BugKind.RACE,
        "READY; BEGIN; START(sums, 0); COMMIT; SYNC; WAIT(0); if (t == 96) b[0] = 1;  //!",
        "READY; BEGIN; START(sums, 0); COMMIT; SYNC; WAIT(0); SYNC; if (t == 96) b[0] = 1;",
        "thread 96: missing barrier",
    ),
    _bug(
        "operand_released_before_the_wait",
        BugKind.RACE,
        """
        if (t == 0) vqcc_emulator::barrier_init(s, 128);
        READY; BEGIN; START(sums, 0); COMMIT;
        vqcc_emulator::barrier_arrive(s); WAIT(0);
        vqcc_emulator::barrier_wait(s, 0); if (t == 96) b[0] = 1;  //!
        """,
        """
        if (t == 0) vqcc_emulator::barrier_init(s, 128);
        READY; BEGIN; START(sums, 0); COMMIT;
        WAIT(0); vqcc_emulator::barrier_arrive(s);
        vqcc_emulator::barrier_wait(s, 0); if (t == 96) b[0] = 1;
        """,
        "thread 96: missing barrier: writes shared memory at byte",
    ),
    _bug(
        "operand_that_nobody_handed_over",
        BugKind.RACE,
        "if (t < 32) for (int i = t; i < 1024; i += 32) b[i] = i; SHOW; BEGIN; START(sums, 0);  //!\n COMMIT; WAIT(0);",
        "if (t < 32) for (int i = t; i < 1024; i += 32) b[i] = i; SHOW; SYNC; BEGIN; START(sums, 0); COMMIT; WAIT(0);",
        "after a write by thread",
    ),
    _bug(
        "operand_not_written",
        BugKind.UNWRITTEN_READ,
        "b[t] = 0; SHOW; SYNC; BEGIN; START(sums, 0);  //!\n COMMIT; WAIT(0);",
        "FILL; SHOW; SYNC; BEGIN; START(sums, 0); COMMIT; WAIT(0);",
    ),
    _bug(
        "operand_not_aligned",
        BugKind.MISALIGNED,
        "READY; BEGIN; START_AT(b + 32);  //!\n COMMIT; WAIT(0);",
        "READY; BEGIN; START_AT(b); COMMIT; WAIT(0);",
        "which is only 128-byte aligned",
    ),
    _bug(
        "operand_in_global_memory",
        BugKind.OUT_OF_BOUNDS,
        "BEGIN; START_AT(in);  //!\n COMMIT; WAIT(0);",
        "READY; BEGIN; START_AT(b); COMMIT; WAIT(0);",
    ),
)

_SHARED = (
    _bug(
        "operand_a_stored_before_the_wait",
        BugKind.OPERAND_OVERWRITTEN,
        "READY_A; BEGIN; START_SHARED(sums); COMMIT; if (t == 103) a[48 * 32] = 1;  //!\n WAIT(0);",
        "READY_A; BEGIN; START_SHARED(sums); COMMIT; WAIT(0); SYNC; if (t == 103) a[48 * 32] = 1;",
        "which a multiply of warp 3 that was started at kernel.cu:",
    ),
    _bug(
        "operand_a_of_another_warp_stored_past_the_wait",
        BugKind.RACE,
        "READY_A; BEGIN; START_SHARED(sums); COMMIT; WAIT(0); if (t == 96) a[0] = 1;  //!",
        "READY_A; BEGIN; START_SHARED(sums); COMMIT; WAIT(0); if (t == 96) a[48 * 32] = 1;",
        "thread 96: missing barrier: writes shared memory at byte",
    ),
    _bug(
        "operand_a_not_shown",
        BugKind.UNSHOWN_OPERAND,
        "FILL; SHOW; FILL_A; SYNC; BEGIN; START_SHARED(sums);  //!\n COMMIT; WAIT(0);",
        "FILL; SHOW; FILL_A; SHOW; SYNC; BEGIN; START_SHARED(sums); COMMIT; WAIT(0);",
    ),
    _bug(
        "operand_a_not_written",
        BugKind.UNWRITTEN_READ,
        "READY; BEGIN; START_SHARED(sums);  //!\n COMMIT; WAIT(0);",
        "READY_A; BEGIN; START_SHARED(sums); COMMIT; WAIT(0);",
    ),
    _bug(
        "sums_of_operands_in_shared_memory",
        BugKind.SUMS_IN_FLIGHT,
        "READY_A; BEGIN; START_SHARED(sums); COMMIT; if (t < 32) out[t] = sums[0];  //!\n WAIT(0);",
        "READY_A; BEGIN; START_SHARED(sums); COMMIT; WAIT(0); if (t < 32) out[t] = sums[0];",
    ),
)

_SHOWING = (
    _bug(
        "stored_and_not_shown",
        BugKind.UNSHOWN_OPERAND,
        "FILL; SYNC; BEGIN; START(sums, 0);  //!\n COMMIT; WAIT(0);",
        "FILL; SHOW; SYNC; BEGIN; START(sums, 0); COMMIT; WAIT(0);",
        "multiplies what lies in shared memory at byte",
        "a write by thread 0 at kernel.cu:",
        "was not shown to tensor cores before it was handed over",
    ),
    _bug(
        "shown_after_the_barrier_by_all_but_one",
        BugKind.UNSHOWN_OPERAND,
        "FILL; SYNC; if (t != 5) SHOW; BEGIN; START(sums, 0);  //!\n COMMIT; WAIT(0);",
        "FILL; SYNC; SHOW; BEGIN; START(sums, 0); COMMIT; WAIT(0);",
    ),
    _bug(
        "shown_before_the_last_store",
        BugKind.UNSHOWN_OPERAND,
        "FILL; SHOW; if (t == 5) b[5] = 3; SYNC; BEGIN; START(sums, 0);  //!\n COMMIT; WAIT(0);",
        "FILL; SYNC; if (t == 5) b[5] = 3; SHOW; SYNC; BEGIN; START(sums, 0); COMMIT; WAIT(0);",
    ),
    _bug(
        "shown_by_another_thread",
        BugKind.UNSHOWN_OPERAND,
        "FILL; if (t != 5) SHOW; SYNC; BEGIN; START(sums, 0);  //!\n COMMIT; WAIT(0);",
        "FILL; SHOW; SYNC; BEGIN; START(sums, 0); COMMIT; WAIT(0);",
        "a write by thread 5",
    ),
    _bug(
        "copied_and_not_shown",
        BugKind.UNSHOWN_OPERAND,
        """
        for (int i = t; i < 256; i += 128) vqcc_emulator::copy_async(b + 4 * i, in, 16, 16);
        SHOW; vqcc_emulator::copy_async_wait_all(); SYNC;
        BEGIN; START(sums, 0);  //!
        COMMIT; WAIT(0);
        """,
        """
        for (int i = t; i < 256; i += 128) vqcc_emulator::copy_async(b + 4 * i, in, 16, 16);
        vqcc_emulator::copy_async_wait_all(); SHOW; SYNC;
        BEGIN; START(sums, 0);
        COMMIT; WAIT(0);
        """,
    ),
    _bug(
        "shown_after_the_arrival",
        BugKind.UNSHOWN_OPERAND,
        """
        if (t == 0) vqcc_emulator::barrier_init(s, 128);
        SYNC; FILL; vqcc_emulator::barrier_arrive(s); SHOW; vqcc_emulator::barrier_wait(s, 0);
        BEGIN; START(sums, 0);  //!
        COMMIT; WAIT(0);
        """,
        """
        if (t == 0) vqcc_emulator::barrier_init(s, 128);
        SYNC; FILL; SHOW; vqcc_emulator::barrier_arrive(s); vqcc_emulator::barrier_wait(s, 0);
        BEGIN; START(sums, 0);
        COMMIT; WAIT(0);
        """,
    ),
    _bug(
        "bulk_copies_need_no_showing",
        BugKind.UNSHOWN_OPERAND,
        """
        if (t == 0) { vqcc_emulator::barrier_init(s, 1); SHOW; }
        SYNC;
        if (t == 0) {
          vqcc_emulator::barrier_arrive_expecting(s, 4096);
          for (int i = 0; i < 32; ++i) vqcc_emulator::bulk_copy(b + 32 * i, in, 128, s);
        }
        vqcc_emulator::barrier_wait(s, 0); if (t == 9) b[1] = 7; SYNC;
        BEGIN; START(sums, 0);  //!
        COMMIT; WAIT(0);
        """,
        """
        if (t == 0) { vqcc_emulator::barrier_init(s, 1); SHOW; }
        SYNC;
        if (t == 0) {
          vqcc_emulator::barrier_arrive_expecting(s, 4096);
          for (int i = 0; i < 32; ++i) vqcc_emulator::bulk_copy(b + 32 * i, in, 128, s);
        }
        vqcc_emulator::barrier_wait(s, 0);
        BEGIN; START(sums, 0);
        COMMIT; WAIT(0);
        """,
        "a write by thread 9",
    ),
)

_PROTOCOL = (
    _bug(
        "multiply_without_fence",
        BugKind.UNFENCED_MULTIPLY,
        "READY; START(sums, 0);  //!\n COMMIT; WAIT(0);",
        "READY; BEGIN; START(sums, 0); COMMIT; WAIT(0);",
        "starts a multiply without a fence",
    ),
    _bug(
        "second_group_without_fence",
        BugKind.UNFENCED_MULTIPLY,
        "READY; BEGIN; START(sums, 0); COMMIT; START(sums, 1);  //!\n COMMIT; WAIT(0);",
        "READY; BEGIN; START(sums, 0); COMMIT; BEGIN; START(sums, 1); COMMIT; WAIT(0);",
    ),
    _bug(
        "multiply_after_a_wait_without_fence",
        BugKind.UNFENCED_MULTIPLY,
        "READY; BEGIN; WAIT(0); START(sums, 0);  //!\n COMMIT; WAIT(0);",
        "READY; BEGIN; START(sums, 0); START(sums, 1); COMMIT; WAIT(0);",
    ),
    _bug(
        "multiply_never_committed",
        BugKind.PENDING_MULTIPLY,
        "READY; BEGIN; START(sums, 0);  //!\n WAIT(0);",
        "READY; BEGIN; START(sums, 0); COMMIT; WAIT(0);",
        "ends before a multiply that it started was committed",
    ),
    _bug(
        "multiply_never_waited_for",
        BugKind.PENDING_MULTIPLY,
        "READY; BEGIN; START(sums, 0); COMMIT; BEGIN; START(more, 0);  //!\n COMMIT; WAIT(1);",
        "READY; BEGIN; START(sums, 0); COMMIT; BEGIN; START(more, 0); COMMIT; WAIT(0);",
        "ends before a multiply that it started was waited for",
    ),
    _bug(
        "warps_that_disagree",
        BugKind.WARPGROUP_MISMATCH,
        "READY; BEGIN; START(sums, t / 32 == 3);  //!\n COMMIT; WAIT(0);",
        "READY; BEGIN; START(sums, n % 4); COMMIT; WAIT(0);",
        "warps of a warpgroup do not issue the same multiplies",
    ),
    _bug(
        "warp_that_takes_no_part",
        BugKind.WARPGROUP_MISMATCH,
        "READY; if (t >= 96) return; BEGIN; START(sums, 0);  //!\n COMMIT; WAIT(0);",
        "READY; BEGIN; START(sums, 0); COMMIT; WAIT(0);",
        "thread 96: warps of a warpgroup",
    ),
    _bug(
        "lanes_that_do_not_come",
        BugKind.DIVERGENT_WARP_OPERATION,
        "READY; if (lane < 16) BEGIN;  //!",
        "READY; BEGIN; if (lane < 16) s[1536 + t] = 1;",
        "waits at wgmma.fence with mask 0xffffffff",
    ),
)

MULTIPLY_BUGS = (*_SUMS, *_OPERANDS, *_SHARED, *_SHOWING, *_PROTOCOL)

#: Those without barriers of stages: in a module of its own, whose readers need not be told apart.
PLAIN_MULTIPLY_BUGS = tuple(bug for bug in MULTIPLY_BUGS if "barrier_init" not in bug.wrong)

_PRELUDE = """
#define F16 vqcc_emulator::TensorFormat::f16
#define BEGIN vqcc_emulator::begin_multiplies()
#define SHAPE(slice) {F16, static_cast<uint8_t>(slice), 32}
#define START(sums, slice) vqcc_emulator::start_multiply(SHAPE(slice), sums, {{1, 1, 1, 1}}, b)
#define START_AT(rows) vqcc_emulator::start_multiply(SHAPE(0), sums, {{1, 1, 1, 1}}, rows)
#define COMMIT vqcc_emulator::commit_multiplies()
#define WAIT(groups) vqcc_emulator::wait_for_multiplies(groups)
#define SHOW vqcc_emulator::show_stores()
#define SYNC __syncthreads()
#define FILL for (int i = t; i < 1024; i += 128) b[i] = i
#define READY FILL; SHOW; SYNC
#define START_SHARED(sums) vqcc_emulator::start_shared_multiply(SHAPE(0), sums, a, b)
#define FILL_A for (int i = t; i < 2048; i += 128) a[i] = i
#define READY_A FILL; FILL_A; SHOW; SYNC
__device__ unsigned* rows_of(float* s) {
  return reinterpret_cast<unsigned*>((reinterpret_cast<uintptr_t>(s) + 16 + 1023) / 1024 * 1024);
}
__device__ __noinline__ void start_elsewhere(unsigned* b) {
  float sums[16] = {};
  BEGIN;
  START(sums, 0);
  COMMIT;
}
"""
_NAMES = (
    "unsigned *b = rows_of(s), *a = b + 1024; float sums[16] = {}, more[16] = {}; "
    "(void)a, (void)b, (void)sums, (void)more;"
)

MULTIPLY_SOURCE = source_of(_PRELUDE, MULTIPLY_BUGS, _NAMES)
PLAIN_MULTIPLY_SOURCE = source_of(_PRELUDE, PLAIN_MULTIPLY_BUGS, _NAMES)
