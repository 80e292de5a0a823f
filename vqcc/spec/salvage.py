"""What relates the sound fields of parts that are wrong elsewhere, so that one run reports that too.

k must be a multiple of the vector size whether or not the number of entries is a power of two. A part that cannot
be read is therefore tried again with only the fields that such relations are about.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vqcc.algorithms import FAMILIES
from vqcc.diagnostics import DiagnosticList
from vqcc.ops import OPS
from vqcc.spec.check import check_fields, check_pair
from vqcc.spec.model import Cache
from vqcc.spec.parts import read_algorithm, read_cache, read_op

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from vqcc.algorithms import Algorithm, KeyValue
    from vqcc.diagnostics import Finding
    from vqcc.ops import AttentionDecode
    from vqcc.ops.base import Op
    from vqcc.spec.source import Source

#: Codes that hold whatever the other fields become: multiples of the vector size, and the width of codes.
_RELATIONS = {"VQ0303", "VQ0304", "VQ0305", "VQ0309"}
#: Fields to keep of a part, the most first; the models' `stand_ins` are for required fields that are not kept.
_ALGORITHMS = (
    ("family", "vector_size", "entries", "code_bits", "scope", "scales"),
    ("family", "vector_size", "entries", "code_bits"),
    ("family", "vector_size", "scope", "scales"),
    ("family", "vector_size"),
    ("family",),
)
#: k without n: that an axis is a multiple is said of k alone.
_LINEAR = (("kind", "n", "k"), ("kind", "k"))
_OPS: Mapping[str, tuple[tuple[str, ...], ...]] = {
    "gemv": _LINEAR,
    "gemm": _LINEAR,
    "linear": _LINEAR,
    "attention_decode": (("kind", "q_heads", "kv_heads", "head_dim"), ("kind", "head_dim")),
}
_MODELS: Mapping[str, Mapping[str, Any]] = {"algorithm": FAMILIES, "op": OPS}


def related_findings(
    source: Source, algorithm: Algorithm | KeyValue | None, op: Op | AttentionDecode | None
) -> Iterator[Finding]:
    """What a wrong algorithm or op, or both, would still be told once the wrong fields are mended."""
    sound_algorithm, sound_op = algorithm is not None, op is not None
    if sound_algorithm and sound_op:
        return
    if algorithm is None:
        algorithm = _reduced(source, "algorithm", "family", _ALGORITHMS, read_algorithm)
    if op is None:
        data = source.data.get("op")
        choices = _OPS.get(str(data.get("kind")), ()) if isinstance(data, dict) else ()
        op = _reduced(source, "op", "kind", choices, read_op)
    findings: list[Finding] = []
    if algorithm is not None and not sound_algorithm:
        findings += check_fields(algorithm)
    if algorithm is not None and op is not None:
        findings += check_pair(algorithm, op)
    yield from (finding for finding in findings if finding.code in _RELATIONS)


def sound_boundaries(source: Source) -> Iterator[Cache]:
    """Of a `cache` that is wrong, each boundary that is sound, by itself."""
    data = source.data.get("cache")
    for field in Cache.model_fields:
        if isinstance(data, dict) and data.get(field) is not None:
            alone = read_cache(replace(source, data={**source.data, "cache": {field: data[field]}}))
            if isinstance(alone, Cache):
                yield alone


def _reduced(
    source: Source,
    part: str,
    key: str,
    choices: Sequence[tuple[str, ...]],
    read: Callable[[Source], Any],
) -> Any:
    """Read `part` with only some of its fields; None if even the fewest are wrong."""
    data = source.data.get(part)
    model = _MODELS[part].get(str(data.get(key))) if isinstance(data, dict) else None
    if model is None:
        return None
    for kept in choices:
        fields = {field: data[field] for field in kept if field in data}
        stand_ins = model.stand_ins
        found = read(replace(source, data={**source.data, part: {**stand_ins, **fields}}))
        if not isinstance(found, DiagnosticList):
            return found
    return None
