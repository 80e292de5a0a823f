"""What is wrong with a spec whose parts are each well formed: the parts may not fit each other."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vqcc.algorithms import Algorithm, KeyValue, sides_of
from vqcc.diagnostics import Diagnostic, DiagnosticList, Finding
from vqcc.levels import LEVELS, STRATEGIES
from vqcc.ops.attention.model import AttentionDecode, of_side
from vqcc.passes.placement import check_placement
from vqcc.report.text import counted
from vqcc.spec.wording import either

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from vqcc.gpus.model import Gpu
    from vqcc.levels import Level
    from vqcc.ops.base import Op
    from vqcc.spec.events import FieldPath
    from vqcc.spec.model import Cache
    from vqcc.spec.source import Source


#: Parts of a spec that say something of a weight, and why a KV cache has none of it.
_OF_WEIGHTS = {
    "cache": "keys and values have codebooks of their own, whose boundaries the level and the slack set",
    "profile": "codes of a KV cache come and go, so none is counted beforehand",
}


@dataclass(frozen=True)
class Overrides:
    """What a command asks for instead of a file's level and GPUs."""

    level: str | None = None
    gpus: tuple[str, ...] = ()


def check_parts(
    algorithm: Algorithm | KeyValue | None,
    op: Op | AttentionDecode | None,
    gpus: Sequence[Gpu],
    source: Source,
    level: Level | None = None,
    overrides: Overrides | None = None,
) -> DiagnosticList:
    """Check every pair of parts of which both are there, and place what is found in the file.

    A problem of a field that the file does not write out is shown at what stands for it: the preset's name,
    or the key of the enclosing mapping. `level` and `gpus` may be `overrides` of the file's.
    """
    found = DiagnosticList()
    if algorithm is not None:
        found.extend(placed(check_fields(algorithm), source))
    if algorithm is not None and op is not None:
        found.extend(placed(check_pair(algorithm, op), source))
        for gpu in gpus:
            found.extend(placed(_check_on(algorithm, op, gpu), source))
    # Of a cache, what a level needs is a plan's to say: books come and go.
    if isinstance(algorithm, Algorithm) and not algorithm.scope.is_cache and level is not None:
        for number, gpu in enumerate(gpus):
            place = _place_of_misfit(source, overrides or Overrides(), gpu, number)
            for item in check_placement(algorithm, gpu, level):
                found.add(replace(item.diagnostic(), span=source.span(place[0]), label=place[1]))
    return found


def check_fields(algorithm: Algorithm | KeyValue) -> Iterator[Finding]:
    """What is wrong with an algorithm, or with one of its sides, whatever the op."""
    if isinstance(algorithm, Algorithm):
        yield from algorithm.check_fields()
        return
    for side, own in (("key", algorithm.key), ("value", algorithm.value)):
        yield from (of_side(finding, side) for finding in own.check_fields())


def check_pair(algorithm: Algorithm | KeyValue, op: Op | AttentionDecode) -> Iterator[Finding]:
    """What makes an algorithm impossible for the op's weight or cache, on any GPU."""
    if isinstance(op, AttentionDecode):
        yield from op.check_algorithms(*sides_of(algorithm))
    elif isinstance(algorithm, KeyValue):
        yield Finding(
            ("algorithm",),
            "VQ0319",
            f"{op.kind} has one weight, but the spec has an algorithm for keys and one for values",
            "write the weight's algorithm: a preset such as aqlm-2x8",
        )
    else:
        yield from algorithm.check(*op.weight_shape)


def _check_on(algorithm: Algorithm | KeyValue, op: Op | AttentionDecode, gpu: Gpu) -> Iterator[Finding]:
    if isinstance(op, AttentionDecode):
        yield from op.check(gpu)
    elif isinstance(algorithm, Algorithm):
        yield from op.check(algorithm, gpu)


def check_cache_parts(source: Source, op: Op | AttentionDecode | None) -> DiagnosticList:
    """Refuse parts of a spec that say something of a weight where the op has a KV cache."""
    if not isinstance(op, AttentionDecode):
        return DiagnosticList()
    found = (
        Finding(
            (part,),
            "VQ0320",
            f"{op.kind} takes no {part}: {why}",
            f"leave {part} out",
        )
        for part, why in _OF_WEIGHTS.items()
        if part in source.data
    )
    return DiagnosticList(placed(found, source))


def _place_of_misfit(
    source: Source, overrides: Overrides, gpu: Gpu, number: int
) -> tuple[FieldPath, str | None]:
    """Where to show that a level and a GPU do not fit, and what to say there: what the file says, or left to others."""
    if "level" in source.data:
        kept = overrides.level in {None, source.data["level"]}
        return ("level",), None if kept else f"{overrides.level} was asked for instead"
    if overrides.gpus:
        return ("gpu",), f"{gpu.name} was asked for instead"
    # The level was asked for, and the file has none: the GPU is what does not fit.
    return (("gpu", number) if isinstance(source.data.get("gpu"), list) else ("gpu",)), None


def check_cache(
    cache: Cache | None,
    algorithm: Algorithm | KeyValue | None,
    gpus: Sequence[Gpu],
    source: Source,
    level: Level | None,
) -> DiagnosticList:
    """Check the boundaries of the codebook cache against the level, the algorithm's tables and the GPUs."""
    found = DiagnosticList()
    if cache is not None and level is not None and level in STRATEGIES:
        found.extend(placed(_check_level(level), source))
    if cache is not None and isinstance(algorithm, Algorithm) and not algorithm.scope.is_cache:
        found.extend(placed(_check_entries(cache, algorithm), source))
        for gpu in gpus:
            found.extend(placed(_check_bytes(cache, algorithm, gpu), source))
    return found


def _check_level(level: Level) -> Iterator[Finding]:
    caching = STRATEGIES[level].caching
    if caching != "slack":
        places = {"global": "keeps every entry in global memory", "all": "keeps every entry in shared memory"}
        others: list[str] = [
            name for name in LEVELS if name not in STRATEGIES or STRATEGIES[name].caching == "slack"
        ]
        yield Finding(
            ("cache",),
            "VQ0315",
            f"level {level} {places[caching]}: it has no boundaries to set",
            f"leave cache out, or use level {either(others)}",
        )


def _check_entries(cache: Cache, algorithm: Algorithm) -> Iterator[Finding]:
    entries = algorithm.table_entries
    for name, value in (("registers", cache.registers), ("shared", cache.shared)):
        if value is not None and value > entries:
            yield Finding(
                ("cache", name),
                "VQ0314",
                f"cache.{name} is {value}, but a table of {algorithm.label} has {entries} entries",
                f"use 0 to {entries}",
            )


def _check_bytes(cache: Cache, algorithm: Algorithm, gpu: Gpu) -> Iterator[Finding]:
    """What no plan can hold: a block has one table of one book in shared memory at least."""
    limit = gpu.shared_bytes_per_block.integer
    if cache.shared is None or cache.shared > algorithm.table_entries:
        return
    if cache.shared * algorithm.entry_stride > limit:
        yield Finding(
            ("cache", "shared"),
            "VQ0406",
            f"{counted(cache.shared, 'entry', 'entries')} of a table of {algorithm.label} take "
            f"{cache.shared * algorithm.entry_stride} bytes; a block of {gpu.name} has at most {limit} of shared "
            "memory",
            f"use less than {limit // algorithm.entry_stride}, or leave cache.shared out: the slack then decides",
        )


def placed(findings: Iterable[Finding], source: Source) -> list[Diagnostic]:
    """Give findings their places in the file."""
    return [Diagnostic(item.code, item.message, source.span(item.path), help=item.help) for item in findings]
