"""Turning the runtime's failure records into findings a person can act on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from vqcc.emulator.errors import BugKind, Finding, Location
from vqcc.emulator.locations import resolve

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from vqcc.emulator.arguments import Buffer

    Symbol = Callable[[int], tuple[str, int] | None]

__all__ = ["make_finding"]

_NO_THREAD = 0xFFFF
_UNKNOWN_THREAD = 0xFFFFFFFF
_ACCESSES = ("an access", "a read", "a write", "an atomic operation")
_VERBS = ("accesses", "reads", "writes", "updates atomically")
_OPERATIONS = ("__syncwarp", "__shfl_sync", "__shfl_up_sync", "__shfl_down_sync", "__shfl_xor_sync")
_OPERATIONS += ("__ballot_sync", "__any_sync", "__all_sync", "__match_any_sync", "__reduce_add_sync")
_OPERATIONS += ("__reduce_min_sync", "__reduce_max_sync", "__reduce_and_sync", "__reduce_or_sync", "__reduce_xor_sync")
_WAIT_WARP, _WAIT_BARRIER, _EXITED = 1, 2, 3


def make_finding(
    failure: Any,
    kernel: str,
    block: tuple[int, int, int],
    buffers: Sequence[Buffer],
    module: Path,
    symbol: Symbol,
) -> Finding:
    """The finding a failure record describes. `block` holds the block's dimensions."""
    states = failure.threads[: failure.thread_count]
    places = _Places(module, symbol, {failure.site, failure.other_site, *(state.site for state in states)})
    kind = BugKind(failure.kind)
    thread = None if failure.thread == _NO_THREAD else failure.thread
    region = None if failure.region < 0 else "shared" if failure.region == 0 else buffers[failure.region - 1].name
    what = _WORDING[kind](_Context(failure, region, buffers, places))
    who = f"block {failure.block.as_tuple()}"
    if thread is not None:
        who += f", thread {thread}"
        if block[1] * block[2] > 1:
            who += f" {(thread % block[0], thread // block[0] % block[1], thread // (block[0] * block[1]))}"
    at = places.text(failure.site)
    return Finding(
        kind,
        kernel,
        failure.block.as_tuple(),
        thread,
        f"{kernel}, {who}: {what}" + (f" (at {at})" if at and kind not in _PLACED else ""),
        region,
        failure.offset if region is not None else None,
        failure.bytes,
        failure.address,
        places.frames(failure.site),
        failure.other_thread if kind in (BugKind.RACE, BugKind.CROSS_BLOCK_RACE) else None,
        places.frames(failure.other_site),
    )


class _Places:
    """Source lines of code addresses, or functions and offsets where debug information cannot be read."""

    def __init__(self, module: Path, symbol: Symbol, sites: set[int]) -> None:
        self._symbol = symbol
        self._frames = resolve(module, tuple(sorted(site for site in sites if site)))

    def frames(self, site: int) -> tuple[Location, ...]:
        if not site:
            return ()
        if site in self._frames:
            return self._frames[site]
        found = self._symbol(site)
        return () if found is None else (Location(f"{found[0]}+{found[1]:#x}", "", 0),)

    def text(self, site: int) -> str:
        """The innermost place, then the outer calls, each line once."""
        return ", called from ".join(dict.fromkeys(str(frame) for frame in self.frames(site)))


class _Context:
    """What the wordings are made of."""

    def __init__(self, failure: Any, region: str | None, buffers: Sequence[Buffer], places: _Places) -> None:
        self.failure = failure
        self.region = region
        self.places = places
        self._buffers = buffers

    @property
    def verb(self) -> str:
        return f"{_VERBS[self.failure.access]} {self.failure.bytes} bytes"

    @property
    def where(self) -> str:
        """The region and the byte; with the element's index for a buffer."""
        offset = self.failure.offset
        if self.failure.region <= 0:
            return f"{self.region} memory at byte {offset}"
        array = self._buffers[self.failure.region - 1].array
        text = f"{self.region} at byte {offset}"
        if 0 <= offset < array.nbytes and array.itemsize:
            index, rest = offset // array.itemsize, []
            for size in reversed(array.shape):
                rest.append(str(index % size))
                index //= size
            text += f" (element [{', '.join(reversed(rest))}])"
        return text

    @property
    def mask(self) -> str:
        return f"{self.failure.mask:#010x}"


def _out_of_bounds(c: _Context) -> str:
    offset = c.failure.offset
    size = c._buffers[c.failure.region - 1].array.nbytes if c.failure.region > 0 else None
    side = "before its start" if offset < 0 else "past its end"
    return f"{c.verb} {side}: {c.where}" + ("" if size is None else f" of {size}")


def _race(c: _Context) -> str:
    f = c.failure
    other = "another thread" if f.other_thread == _UNKNOWN_THREAD else f"thread {f.other_thread}"
    return (
        f"missing barrier: {_VERBS[f.access]} {c.where}, and nothing orders this after {_ACCESSES[f.other_access]} "
        f"by {other} at {c.places.text(f.other_site)}"
    )


def _cross_block_race(c: _Context) -> str:
    f = c.failure
    return (
        f"{_VERBS[f.access]} {c.where}, after {_ACCESSES[f.other_access]} by block number {f.other_block} "
        f"at {c.places.text(f.other_site)}; nothing orders the two"
    )


def _wild(c: _Context) -> str:
    return f"{c.verb} at address {c.failure.address:#x}, which is in no buffer"


def _divergent_warp_operation(c: _Context) -> str:
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


def _divergent_barrier(c: _Context) -> str:
    return f"the threads of the block do not meet at one barrier: {_standings(c, range(c.failure.thread_count))}"


def _standings(c: _Context, threads: Iterable[int]) -> str:
    """`threads 0-15 wait at __syncthreads at k.cu:7; threads 16-31 have exited`."""
    groups: dict[str, list[int]] = {}
    for i in threads:
        groups.setdefault(_standing(c, i), []).append(i)
    return "; ".join(f"{_ranges(members)} {standing}" for standing, members in groups.items())


def _standing(c: _Context, thread: int) -> str:
    if thread >= c.failure.thread_count:
        return "do not exist"
    state = c.failure.threads[thread]
    if state.wait == _EXITED:
        return "have exited"
    place = c.places.text(state.site)
    if state.wait == _WAIT_BARRIER:
        return f"wait at __syncthreads at {place}"
    if state.wait == _WAIT_WARP:
        return f"wait at {_OPERATIONS[state.operation]} with mask {state.mask:#010x} at {place}"
    return "have not come this far"


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


def _misaligned(c: _Context) -> str:
    f = c.failure
    where = c.where if c.region is not None else f"address {f.address:#x}"
    return f"accesses {f.bytes} bytes at {where}, which is only {math.gcd(f.address, 16)}-byte aligned"


_PLACED = frozenset({BugKind.DIVERGENT_BARRIER, BugKind.DIVERGENT_WARP_OPERATION})
_WORDING: dict[BugKind, Callable[[_Context], str]] = {
    BugKind.OUT_OF_BOUNDS: _out_of_bounds,
    BugKind.UNWRITTEN_READ: lambda c: f"{c.verb} that nothing has written: {c.where}",
    BugKind.READ_ONLY_WRITE: lambda c: f"{c.verb} of an input: {c.where}",
    BugKind.RACE: _race,
    BugKind.CROSS_BLOCK_RACE: _cross_block_race,
    BugKind.MISALIGNED: _misaligned,
    BugKind.NULL_POINTER: lambda c: f"{c.verb} through a null pointer (address {c.failure.address:#x})",
    BugKind.WILD_POINTER: _wild,
    BugKind.FOREIGN_STACK: lambda c: f"{c.verb} of another thread's local variables",
    BugKind.IMAGE_WRITE: lambda c: f"{c.verb} of a constant or a global variable of the module",
    BugKind.DIVERGENT_BARRIER: _divergent_barrier,
    BugKind.DIVERGENT_WARP_OPERATION: _divergent_warp_operation,
    BugKind.LANE_NOT_IN_MASK: lambda c: f"calls a warp operation with mask {c.mask}, which leaves out its own lane",
    BugKind.INACTIVE_SOURCE_LANE: lambda c: (
        f"a shuffle reads lane {c.failure.other_thread % 32}, which its mask {c.mask} leaves out"
    ),
    BugKind.INVALID_WIDTH: lambda c: "a shuffle's width is not a power of two up to 32",
    BugKind.STEP_LIMIT: lambda c: "the step limit is reached: the kernel does not end",
    BugKind.STACK_OVERFLOW: lambda c: "the thread's stack overflows: recursion, or very large local arrays",
    BugKind.FAULT: lambda c: f"an access to address {c.failure.address:#x} faulted",
    BugKind.DIVISION_BY_ZERO: lambda c: "an integer division by zero",
    BugKind.TRAP: lambda c: "the kernel trapped",
    BugKind.PENDING_COPY: lambda c: "ends before an asynchronous copy it started was waited for",
}
