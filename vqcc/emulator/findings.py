"""Turning the runtime's failure records into findings a person can act on."""

from __future__ import annotations

from vqcc.emulator.errors import BugKind, Finding
from vqcc.emulator.wording import UNKNOWN_THREAD, Record, sentence

__all__ = ["make_finding"]

_NO_THREAD = 0xFFFF
# These sentences name the places themselves.
_PLACED = frozenset(
    {
        BugKind.DIVERGENT_BARRIER,
        BugKind.DIVERGENT_CLUSTER_BARRIER,
        BugKind.DIVERGENT_WARP_OPERATION,
        BugKind.STALLED,
    }
)
_RACES = frozenset({BugKind.RACE, BugKind.CROSS_BLOCK_RACE, BugKind.STALE_READ, BugKind.CLUSTER_RACE})


def make_finding(kernel: str, block: tuple[int, int, int], record: Record) -> Finding:
    """The finding a failure record describes, of a launch with blocks of these dimensions."""
    failure, places = record.failure, record.places
    kind = BugKind(failure.kind)
    other = int(failure.other_thread)
    thread = None if failure.thread == _NO_THREAD else int(failure.thread)
    at = "" if kind in _PLACED else places.text(failure.site)
    return Finding(
        kind=kind,
        kernel=kernel,
        block=failure.block.as_tuple(),
        thread=thread,
        message=f"{kernel}, {_who(failure.block.as_tuple(), thread, block)}: {sentence(kind, record)}"
        + (f" (at {at})" if at else ""),
        buffer=record.region,
        offset=int(failure.offset) if record.region is not None else None,
        access_bytes=int(failure.bytes),
        address=int(failure.address),
        frames=places.frames(failure.site),
        other_thread=None if other == UNKNOWN_THREAD or kind not in _RACES else other,
        other_frames=places.frames(failure.other_site),
    )


def _who(index: tuple[int, int, int], thread: int | None, block: tuple[int, int, int]) -> str:
    if thread is None:
        return f"block {index}"
    x, y, z = block
    position = f" {(thread % x, thread // x % y, thread // (x * y))}" if y * z > 1 else ""
    return f"block {index}, thread {thread}{position}"
