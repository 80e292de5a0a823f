"""Sentences for what the runtime found, each from one failure record."""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from vqcc.emulator.errors import BugKind
from vqcc.report.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vqcc.emulator.arguments import Buffer
    from vqcc.emulator.locations import Places

__all__ = ["UNKNOWN_THREAD", "Record", "sentence"]

UNKNOWN_THREAD = 0xFFFFFFFF  # in a record: several threads, of which none was kept
_WAIT_WARP, _WAIT_BARRIER, _EXITED, _WAIT_CLUSTER, _WAIT_STAGE, _WAIT_GROUP = 1, 2, 3, 4, 5, 6
_ACCESSES = ("an access", "a read", "a write", "an atomic operation")
_VERBS = ("accesses", "reads", "writes", "updates atomically")
_OPERATIONS = [
    "__syncwarp",
    "__shfl_sync",
    "__shfl_up_sync",
    "__shfl_down_sync",
    "__shfl_xor_sync",
    "__ballot_sync",
    "__any_sync",
    "__all_sync",
    "__match_any_sync",
    "__reduce_add_sync",
    "__reduce_min_sync",
    "__reduce_max_sync",
    "__reduce_and_sync",
    "__reduce_or_sync",
    "__reduce_xor_sync",
    "mma.sync",
    "ldmatrix",
    "barrier.cluster.arrive",
    "barrier.cluster.wait",
    "wgmma.fence",
    "wgmma.mma_async",
    "wgmma.commit_group",
    "wgmma.wait_group",
]


@dataclass(frozen=True)
class Record:
    """A failure record and what it refers to by number."""

    failure: Any
    shared_bytes: int
    buffers: Sequence[Buffer]
    places: Places

    @property
    def region(self) -> str | None:
        """Name of the buffer, "shared", or None."""
        number = self.failure.region
        return None if number < 0 else "shared" if number == 0 else self.buffers[number - 1].name

    @property
    def verb(self) -> str:
        """What the thread does, to how many bytes."""
        return f"{_VERBS[self.failure.access]} {counted(self.failure.bytes, 'byte')}"

    @property
    def where(self) -> str:
        """The region and the byte; with the element's index for a buffer."""
        offset = self.failure.offset
        if self.failure.region <= 0:
            of = f" of block {self.failure.owner} of its cluster" if self.failure.owner >= 0 else ""
            return f"{self.region} memory{of} at byte {offset}"
        array = self.buffers[self.failure.region - 1].array
        text = f"{self.region} at byte {offset}"
        if 0 <= offset < array.nbytes and array.itemsize:
            index, rest = offset // array.itemsize, []
            for size in reversed(array.shape):
                rest.append(str(index % size))
                index //= size
            text += f" (element [{', '.join(reversed(rest))}])"
        return text

    @property
    def region_bytes(self) -> int:
        """Size of the region."""
        if self.failure.region == 0:
            return self.shared_bytes
        return int(self.buffers[self.failure.region - 1].array.nbytes)

    @property
    def mask(self) -> str:
        """The lane mask."""
        return f"{self.failure.mask:#010x}"


def _out_of_bounds(c: Record) -> str:
    side = "before its start" if c.failure.offset < 0 else "past its end"
    return f"{c.verb} {side}: {c.where} of {c.region_bytes:,}"


def _race(c: Record) -> str:
    f = c.failure
    other = "another thread" if f.other_thread == UNKNOWN_THREAD else f"thread {f.other_thread}"
    return (
        f"missing barrier: {_VERBS[f.access]} {c.where}, and nothing orders this after {_ACCESSES[f.other_access]} "
        f"by {other} at {c.places.text(f.other_site)}"
    )


def _cross_block_race(c: Record) -> str:
    f = c.failure
    return (
        f"{_VERBS[f.access]} {c.where}, after {_ACCESSES[f.other_access]} by block number {f.other_block} "
        f"at {c.places.text(f.other_site)}; nothing orders the two"
    )


def _stale_read(c: Record) -> str:
    f = c.failure
    return (
        f"reads {c.where} by a plain load, which may find older bytes in a cache "
        f"than those of {_ACCESSES[f.other_access]} by block number {f.other_block} at {c.places.text(f.other_site)}"
    )


def _divergent_warp_operation(c: Record) -> str:
    """Names the lanes of the mask that do not come, and where they are."""
    f = c.failure
    warp = f.thread // 32 * 32
    lanes = [warp + lane for lane in range(32) if f.mask >> lane & 1]
    own = f.threads[f.thread]
    absent = [
        i
        for i in lanes
        if i >= f.thread_count
        or (f.threads[i].wait, f.threads[i].site, f.threads[i].mask) != (own.wait, own.site, own.mask)
    ]
    return (
        f"waits at {_OPERATIONS[own.operation]} with mask {c.mask} at {c.places.text(f.site)}, "
        f"but {_standings(c, absent)}"
    )


def _divergent_barrier(c: Record) -> str:
    return (
        f"the threads of the block do not meet at one barrier: {_standings(c, range(c.failure.thread_count))}"
    )


def _divergent_cluster_barrier(c: Record) -> str:
    return (
        f"its threads do not all come to the cluster's barrier, where others wait at {c.places.text(c.failure.site)}: "
        f"{_standings(c, range(c.failure.thread_count))}"
    )


def _absent_block(c: Record) -> str:
    if c.region is None:
        return f"names the shared memory of block {c.failure.owner} of its cluster, or a place in none"
    return f"{c.verb} of {c.where}, and no cluster barrier tells that this block has begun, or keeps it from its end"


def _standings(c: Record, threads: Iterable[int]) -> str:
    """`threads 0-15 wait at __syncthreads at k.cu:7; thread 16 has exited`."""
    groups: dict[tuple[str, str], list[int]] = {}
    for i in threads:
        groups.setdefault(_standing(c, i), []).append(i)
    return "; ".join(f"{_ranges(members)} {forms[len(members) > 1]}" for forms, members in groups.items())


def _standing(c: Record, thread: int) -> tuple[str, str]:
    """What a thread does, in the singular and in the plural."""
    if thread >= c.failure.thread_count:
        return "does not exist", "do not exist"
    state = c.failure.threads[thread]
    if state.wait == _EXITED:
        return "has exited", "have exited"
    if state.wait not in _WAITS:
        return "has not come this far", "have not come this far"
    at = f"{_WAITS[state.wait](state)} at {c.places.text(state.site)}"
    return f"waits {at}", f"wait {at}"


_WAITS: Mapping[int, Callable[[Any], str]] = MappingProxyType(
    {
        _WAIT_BARRIER: lambda _: "at __syncthreads",
        _WAIT_WARP: lambda state: f"at {_OPERATIONS[state.operation]} with mask {state.mask:#010x}",
        _WAIT_CLUSTER: lambda _: "at the cluster's barrier",
        _WAIT_STAGE: lambda state: (
            f"for a phase of parity {state.operation} of the barrier at byte {state.mask} of shared memory"
        ),
        _WAIT_GROUP: lambda state: f"at barrier {state.operation} of {state.mask} threads",
    }
)


def _stalled(c: Record) -> str:
    f = c.failure
    lacks = ""
    if c.region is not None:
        wanted = [counted(f.mask, "arrival")] if f.mask else []
        wanted += [counted(f.bytes, "announced byte")] if f.bytes else []
        lacks = f": the barrier in {c.where} lacks {' and '.join(wanted) or 'nothing in this phase'}"
    return f"no thread of the block can go on{lacks}; {_standings(c, range(f.thread_count))}"


def _unshown_barrier(c: Record) -> str:
    return f"uses the barrier in {c.where}, and nothing orders this after thread {c.failure.other_thread} made it"


def _excess_arrival(c: Record) -> str:
    made = counted(c.failure.mask, "arrival")
    return (
        f"arrives at the barrier in {c.where} again in a phase that has had its {made} and still lacks bytes"
    )


def _barrier_limit(c: Record) -> str:
    return (
        f"gives the barrier in {c.where} what it does not take: {c.failure.mask:,} as arrivals or announced bytes "
        "(1 to 1,048,575), as a parity (0 or 1) or as bytes of a copy (whole 16, to shared memory of the block)"
    )


def _unannounced_copy(c: Record) -> str:
    copied = counted(c.failure.mask, "byte")
    return (
        f"starts to copy {copied} that the phase of the barrier in {c.where} does not wait for: not announced"
    )


def _missed_phase(c: Record) -> str:
    return (
        f"waits for a phase of parity {c.failure.mask} of the barrier in {c.where}, and another one may end "
        "before it has seen the end of this one"
    )


def _unshown_operand(c: Record) -> str:
    f = c.failure
    return (
        f"multiplies what lies in {c.where}, and {_ACCESSES[f.other_access]} by thread {f.other_thread} "
        f"at {c.places.text(f.other_site)} was not shown to tensor cores before it was handed over"
    )


def _operand_overwritten(c: Record) -> str:
    f = c.failure
    return (
        f"{c.verb}: {c.where}, which a multiply of warp {f.other_thread // 32} that was started "
        f"at {c.places.text(f.other_site)} may still read"
    )


def _warpgroup_mismatch(c: Record) -> str:
    other = f", where another one issues the multiply at {c.places.text(c.failure.other_site)}"
    return "warps of a warpgroup do not issue the same multiplies" + (other if c.failure.other_site else "")


def _sums_in_flight(c: Record) -> str:
    started = c.places.text(c.failure.other_site)
    return f"{c.verb} of the sums of a multiply that was started at {started} and not waited for"


def _pending_multiply(c: Record) -> str:
    missing = "committed" if c.failure.mask else "waited for"
    return f"ends before a multiply that it started was {missing}"


def _group_mismatch(c: Record) -> str:
    f = c.failure
    return (
        f"comes to barrier {f.bytes} for {f.mask} threads, where others wait for another count: "
        f"{_standings(c, [i for i in range(f.thread_count) if f.threads[i].wait == _WAIT_GROUP])}"
    )


def _group_threads(c: Record) -> str:
    f = c.failure
    return (
        f"barrier {f.bytes} of {f.mask} threads: the name is 1 to 15, and whole warps of the block must come, "
        "all lanes of each"
    )


def _ranges(numbers: Sequence[int]) -> str:
    """`thread 3`, `threads 0-15, 20`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"thread{'s' if len(numbers) > 1 else ''} {text}"


def _place(c: Record) -> str:
    return c.where if c.region is not None else f"address {c.failure.address:#x}"


def _misaligned(c: Record) -> str:
    f = c.failure
    return f"accesses {counted(f.bytes, 'byte')} at {_place(c)}, which is only {math.gcd(f.address, 1024)}-byte aligned"


def _inactive_source_lane(c: Record) -> str:
    return f"a shuffle reads lane {c.failure.other_thread % 32}, which its mask {c.mask} leaves out"


_SENTENCES: Mapping[BugKind, str | Callable[[Record], str]] = MappingProxyType(
    {
        BugKind.OUT_OF_BOUNDS: _out_of_bounds,
        BugKind.UNWRITTEN_READ: lambda c: f"{c.verb} that nothing has written: {c.where}",
        BugKind.READ_ONLY_WRITE: lambda c: f"{c.verb} of an input: {c.where}",
        BugKind.RACE: _race,
        BugKind.CROSS_BLOCK_RACE: _cross_block_race,
        BugKind.CLUSTER_RACE: _cross_block_race,
        BugKind.ABSENT_BLOCK: _absent_block,
        BugKind.DIVERGENT_CLUSTER_BARRIER: _divergent_cluster_barrier,
        BugKind.CLUSTER_BARRIER_ORDER: (
            "arrives at a cluster barrier twice, or waits for one at which it has not arrived"
        ),
        BugKind.MISALIGNED: _misaligned,
        BugKind.NULL_POINTER: lambda c: f"{c.verb} through a null pointer (address {c.failure.address:#x})",
        BugKind.WILD_POINTER: lambda c: f"{c.verb} at {c.failure.address:#x}, which is in no buffer",
        BugKind.FOREIGN_STACK: lambda c: f"{c.verb} of another thread's local variables",
        BugKind.IMAGE_WRITE: lambda c: f"{c.verb} of a constant or a global variable of the module",
        BugKind.DIVERGENT_BARRIER: _divergent_barrier,
        BugKind.DIVERGENT_WARP_OPERATION: _divergent_warp_operation,
        BugKind.LANE_NOT_IN_MASK: lambda c: (
            f"calls a warp operation with mask {c.mask}, which leaves out its own lane"
        ),
        BugKind.INACTIVE_SOURCE_LANE: _inactive_source_lane,
        BugKind.INVALID_WIDTH: "a shuffle's width is not a power of two up to 32",
        BugKind.STEP_LIMIT: "the step limit is reached: the kernel does not end",
        BugKind.STACK_OVERFLOW: "the thread's stack overflows: recursion, or very large local arrays",
        BugKind.FAULT: lambda c: f"an access to address {c.failure.address:#x} faulted",
        BugKind.DIVISION_BY_ZERO: "an integer division by zero",
        BugKind.TRAP: "the kernel trapped",
        BugKind.STALE_READ: _stale_read,
        BugKind.UNMADE_BARRIER: lambda c: f"uses a barrier that nobody made: {_place(c)}",
        BugKind.UNSHOWN_BARRIER: _unshown_barrier,
        BugKind.REMADE_BARRIER: lambda c: f"makes a barrier where there is one: {c.where}",
        BugKind.BARRIER_BYTES: lambda c: f"{c.verb} of a barrier: {c.where}",
        BugKind.HIDDEN_BARRIER: lambda c: (
            f"starts a copy that reports to the barrier in {c.where}, which thread {c.failure.mask} made "
            "and did not show to copies"
        ),
        BugKind.EXCESS_ARRIVAL: _excess_arrival,
        BugKind.BARRIER_LIMIT: _barrier_limit,
        BugKind.UNANNOUNCED_COPY: _unannounced_copy,
        BugKind.MISSED_PHASE: _missed_phase,
        BugKind.STALLED: _stalled,
        BugKind.GROUP_MISMATCH: _group_mismatch,
        BugKind.GROUP_THREADS: _group_threads,
        BugKind.UNSHOWN_OPERAND: _unshown_operand,
        BugKind.OPERAND_OVERWRITTEN: _operand_overwritten,
        BugKind.SUMS_IN_FLIGHT: _sums_in_flight,
        BugKind.LOST_SUMS: "the sums of a multiply are not, or no longer, registers of its thread when it ends",
        BugKind.UNFENCED_MULTIPLY: "starts a multiply without a fence since the last group or wait",
        BugKind.PENDING_MULTIPLY: _pending_multiply,
        BugKind.WARPGROUP_MISMATCH: _warpgroup_mismatch,
        BugKind.PENDING_COPY: "ends before an asynchronous copy it started was waited for",
    }
)


def sentence(kind: BugKind, record: Record) -> str:
    """What the thread did wrong, without who and where; ends of sentences and capitals are the caller's."""
    chosen = _SENTENCES[kind]
    return chosen if isinstance(chosen, str) else chosen(record)
