"""What each kernel of a cubin uses, as the assembler (ptxas -v) reports it."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any

_ENTRY = re.compile(r"Compiling entry function '([^']+)' for '[^']+'")
_PROPERTIES = re.compile(r"Function properties for (\S+)")
_MEMORY = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_BARRIERS = re.compile(r"used (\d+) barriers")
_SHARED = re.compile(r"(\d+) bytes smem")
_CUMULATIVE_STACK = re.compile(r"(\d+) bytes cumulative stack size")
# Notices C7510 to C7513; older assemblers give no number. They name the kernel, mostly before its own lines.
_SERIALIZED = re.compile(
    r"wgmma\.mma_async instructions are serialized due to (.+?)"
    r"(?: in (?:the )?function '([^']+)'(?: in line \d+)?)?\s*$"
)
_TIMING = re.compile(r"^.*Compile time = .*$\n?", re.MULTILINE)


@dataclass(frozen=True)
class Resources:
    """Per thread: `registers`, and bytes of stack and spills; per block: static shared bytes, barriers.

    A stack frame or a spill means that an array of the kernel is indexed at run time or that registers
    ran out. Functions that were not inlined serve every kernel of their file: their stack and spills
    are counted in each. `serialized` is why the assembler lets multiplies of warpgroups wait for one another, which
    makes such a kernel slow; empty where it does not.
    """

    registers: int
    static_shared_bytes: int
    stack_bytes: int
    spill_store_bytes: int
    spill_load_bytes: int
    barriers: int
    serialized: str = ""

    def to_json(self) -> dict[str, Any]:
        """As manifests keep it: `serialized` where there is something to say."""
        return {name: value for name, value in asdict(self).items() if name != "serialized" or value}


def parse_resources(log: str) -> dict[str, Resources]:
    """Resources of each kernel named in the log of `ptxas -v`, sorted by name."""
    memory: dict[str, tuple[int, int, int]] = {}
    used: dict[str, str] = {}
    entry: str | None = None
    function: str | None = None
    serialized: dict[str | None, str] = {}
    for line in log.splitlines():
        if match := _SERIALIZED.search(line):
            serialized.setdefault(match[2], match[1])
        elif match := _ENTRY.search(line):
            entry = match[1]
        elif match := _PROPERTIES.search(line):
            function = match[1]
        elif (match := _MEMORY.search(line)) and function is not None:
            memory[function] = (int(match[1]), int(match[2]), int(match[3]))
        elif _USED.search(line) and entry is not None:
            # The line belongs to the entry last announced; functions of their own have none.
            used[entry], entry = line, None
    shared = [sizes for name, sizes in memory.items() if name not in used]
    return {
        name: _resources(
            used[name], memory.get(name, (0, 0, 0)), shared, serialized.get(name, serialized.get(None, ""))
        )
        for name in sorted(used)
    }


def without_timing(log: str) -> str:
    """Remove the timing lines of a log, the only ones that differ from run to run."""
    return _TIMING.sub("", log)


def _resources(
    line: str, own: tuple[int, int, int], functions: list[tuple[int, int, int]], serialized: str
) -> Resources:
    deepest = max((stack for stack, _, _ in functions), default=0)
    return Resources(
        registers=_number(_USED, line),
        static_shared_bytes=_number(_SHARED, line),
        stack_bytes=max(own[0] + deepest, _number(_CUMULATIVE_STACK, line)),
        spill_store_bytes=own[1] + sum(stores for _, stores, _ in functions),
        spill_load_bytes=own[2] + sum(loads for _, _, loads in functions),
        barriers=_number(_BARRIERS, line),
        serialized=serialized,
    )


def _number(pattern: re.Pattern[str], line: str) -> int:
    match = pattern.search(line)
    return int(match[1]) if match else 0
