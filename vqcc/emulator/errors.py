"""What the emulator found wrong in a kernel: kinds of bugs, and the error that carries one."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from types import MappingProxyType
from typing import TYPE_CHECKING

from vqcc.diagnostics import Diagnostic, ExitCode, VqccError

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["BugKind", "EmulationError", "Finding", "Location"]


class BugKind(IntEnum):
    """Kinds of bugs, numbered as in host/runtime/result.h."""

    OUT_OF_BOUNDS = 1
    UNWRITTEN_READ = 2
    READ_ONLY_WRITE = 3
    RACE = 4
    CROSS_BLOCK_RACE = 5
    MISALIGNED = 6
    NULL_POINTER = 7
    WILD_POINTER = 8
    FOREIGN_STACK = 9
    IMAGE_WRITE = 10
    DIVERGENT_BARRIER = 11
    DIVERGENT_WARP_OPERATION = 12
    LANE_NOT_IN_MASK = 13
    INACTIVE_SOURCE_LANE = 14
    INVALID_WIDTH = 15
    STEP_LIMIT = 16
    STACK_OVERFLOW = 17
    FAULT = 18
    DIVISION_BY_ZERO = 19
    TRAP = 20
    PENDING_COPY = 21
    STALE_READ = 22
    CLUSTER_RACE = 24
    ABSENT_BLOCK = 25
    DIVERGENT_CLUSTER_BARRIER = 26
    CLUSTER_BARRIER_ORDER = 27
    UNMADE_BARRIER = 28
    UNSHOWN_BARRIER = 29
    REMADE_BARRIER = 30
    BARRIER_BYTES = 31
    EXCESS_ARRIVAL = 32
    BARRIER_LIMIT = 33
    UNANNOUNCED_COPY = 34
    MISSED_PHASE = 35
    STALLED = 36
    GROUP_MISMATCH = 37
    GROUP_THREADS = 38
    UNSHOWN_OPERAND = 39
    OPERAND_OVERWRITTEN = 40
    SUMS_IN_FLIGHT = 41
    LOST_SUMS = 42
    UNFENCED_MULTIPLY = 43
    PENDING_MULTIPLY = 44
    WARPGROUP_MISMATCH = 45
    HIDDEN_BARRIER = 46


_CODES: Mapping[BugKind, str] = MappingProxyType(
    {
        BugKind.OUT_OF_BOUNDS: "VQ0830",
        BugKind.UNWRITTEN_READ: "VQ0831",
        BugKind.READ_ONLY_WRITE: "VQ0832",
        BugKind.RACE: "VQ0833",
        BugKind.CROSS_BLOCK_RACE: "VQ0834",
        BugKind.MISALIGNED: "VQ0835",
        BugKind.NULL_POINTER: "VQ0830",
        BugKind.WILD_POINTER: "VQ0830",
        BugKind.FOREIGN_STACK: "VQ0830",
        BugKind.IMAGE_WRITE: "VQ0832",
        BugKind.DIVERGENT_BARRIER: "VQ0836",
        BugKind.DIVERGENT_WARP_OPERATION: "VQ0837",
        BugKind.LANE_NOT_IN_MASK: "VQ0837",
        BugKind.INACTIVE_SOURCE_LANE: "VQ0837",
        BugKind.INVALID_WIDTH: "VQ0837",
        BugKind.STEP_LIMIT: "VQ0838",
        BugKind.STACK_OVERFLOW: "VQ0839",
        BugKind.FAULT: "VQ0839",
        BugKind.DIVISION_BY_ZERO: "VQ0839",
        BugKind.TRAP: "VQ0839",
        BugKind.PENDING_COPY: "VQ0840",
        BugKind.STALE_READ: "VQ0834",
        BugKind.CLUSTER_RACE: "VQ0834",
        BugKind.ABSENT_BLOCK: "VQ0841",
        BugKind.DIVERGENT_CLUSTER_BARRIER: "VQ0836",
        BugKind.CLUSTER_BARRIER_ORDER: "VQ0836",
        BugKind.UNMADE_BARRIER: "VQ0842",
        BugKind.UNSHOWN_BARRIER: "VQ0842",
        BugKind.REMADE_BARRIER: "VQ0842",
        BugKind.BARRIER_BYTES: "VQ0842",
        BugKind.EXCESS_ARRIVAL: "VQ0842",
        BugKind.BARRIER_LIMIT: "VQ0842",
        BugKind.UNANNOUNCED_COPY: "VQ0842",
        BugKind.MISSED_PHASE: "VQ0842",
        BugKind.HIDDEN_BARRIER: "VQ0842",
        BugKind.STALLED: "VQ0836",
        BugKind.GROUP_MISMATCH: "VQ0836",
        BugKind.GROUP_THREADS: "VQ0836",
        BugKind.UNSHOWN_OPERAND: "VQ0843",
        BugKind.OPERAND_OVERWRITTEN: "VQ0843",
        BugKind.SUMS_IN_FLIGHT: "VQ0843",
        BugKind.LOST_SUMS: "VQ0843",
        BugKind.UNFENCED_MULTIPLY: "VQ0843",
        BugKind.PENDING_MULTIPLY: "VQ0843",
        BugKind.WARPGROUP_MISMATCH: "VQ0843",
    }
)

_HELP: Mapping[BugKind, str] = MappingProxyType(
    {
        BugKind.RACE: "a __syncthreads() must lie between the two, or within one warp a __syncwarp() or shuffle "
        "that both lanes take part in; between warps also an arrival at a barrier of stages after the first and a wait "
        "for its phase before the second",
        BugKind.CROSS_BLOCK_RACE: "blocks run in any order: use atomics, or a thread fence and an atomic counter",
        BugKind.STALE_READ: "what other blocks of the launch wrote is read by load_fresh, past the caches of the SM",
        BugKind.CLUSTER_RACE: "a cluster barrier must lie between the two: nothing else orders what blocks do in "
        "shared memory",
        BugKind.ABSENT_BLOCK: "a cluster barrier must lie before the first access to another block's shared memory, "
        "and one between the last and that block's end",
        BugKind.DIVERGENT_CLUSTER_BARRIER: "every thread of the cluster must arrive at the barrier",
        BugKind.CLUSTER_BARRIER_ORDER: "each thread arrives once, then waits once",
        BugKind.UNSHOWN_BARRIER: "a block barrier must lie between the making of a barrier and its use by others",
        BugKind.HIDDEN_BARRIER: "the thread that makes barriers calls show_barriers() before the block barrier",
        BugKind.BARRIER_BYTES: "the 8 bytes of a barrier belong to it until the block ends",
        BugKind.EXCESS_ARRIVAL: "each phase has as many arrivals as the barrier was made for",
        BugKind.UNANNOUNCED_COPY: "an arrival of the phase announces the bytes of copies, before these are started",
        BugKind.MISSED_PHASE: "a thread that waits for a phase must be one that the end of the next phase "
        "needs, by an arrival here or elsewhere",
        BugKind.STALLED: "check the parities, the counts that barriers were made for, and the bytes announced",
        BugKind.UNSHOWN_OPERAND: "show_to_tensor_cores() must lie between: called by who stores, before the barrier or "
        "arrival that tells others, or by all who multiply, after it",
        BugKind.OPERAND_OVERWRITTEN: "wait for the multiply's group before what tells others that they may write",
        BugKind.SUMS_IN_FLIGHT: "wait_for_multiplies_but<0>() must lie before any access to the sums",
        BugKind.LOST_SUMS: "sums are local variables that live from the first multiply to the wait",
        BugKind.UNFENCED_MULTIPLY: "call begin_multiplies() after registers were written, and again after a commit "
        "or a wait",
        BugKind.PENDING_MULTIPLY: "commit_multiplies() and a wait for no group left must follow the last multiply",
        BugKind.WARPGROUP_MISMATCH: "four warps, the first one's index a multiple of four, issue the same multiplies "
        "of the same rows",
        BugKind.DIVERGENT_BARRIER: "every thread of the block must reach the same __syncthreads()",
        BugKind.DIVERGENT_WARP_OPERATION: "every lane named in the mask must reach the operation, with that mask",
        BugKind.STEP_LIMIT: "the limit counts memory accesses and barriers of all threads; raise it for a long run",
    }
)


@dataclass(frozen=True)
class Location:
    """A place in the kernel's source. `line` is 0 where only the function is known."""

    function: str
    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line else self.function


@dataclass(frozen=True)
class Finding:
    """One bug of one launch.

    `thread` is linear in the block and None where no single thread is at fault; `buffer` is the buffer's name,
    "shared" for shared memory, or None; `offset` is in bytes from its start. `frames` are the places of the
    access, innermost first; `other_frames` those of a race's other access.
    """

    kind: BugKind
    kernel: str
    block: tuple[int, int, int]
    thread: int | None
    message: str
    buffer: str | None = None
    offset: int | None = None
    access_bytes: int = 0
    address: int = 0
    frames: tuple[Location, ...] = ()
    other_thread: int | None = None
    other_frames: tuple[Location, ...] = ()

    @property
    def location(self) -> Location | None:
        """The innermost place, if it is known."""
        return self.frames[0] if self.frames else None


class EmulationError(VqccError):
    """A launch was stopped by a bug in the kernel (exit code MISMATCH)."""

    def __init__(self, finding: Finding) -> None:
        diagnostic = Diagnostic(_CODES[finding.kind], finding.message, help=_HELP.get(finding.kind))
        super().__init__(diagnostic, exit_code=ExitCode.MISMATCH)
        self.finding = finding
