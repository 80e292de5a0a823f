"""The way in: a spec file -> a checked Spec, or everything that is wrong with the file at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from vqcc import gpus
from vqcc.algorithms import Algorithm, KeyValue
from vqcc.diagnostics import Diagnostic, DiagnosticList, VqccError
from vqcc.levels import LEVELS
from vqcc.ops import AttentionDecode
from vqcc.spec.check import Overrides, check_cache, check_cache_parts, check_parts, placed
from vqcc.spec.model import Spec
from vqcc.spec.parts import read_algorithm, read_cache, read_gpus, read_op, read_profile
from vqcc.spec.salvage import related_findings, sound_boundaries
from vqcc.spec.source import parse_source, read_source
from vqcc.spec.violations import diagnose, place_of_missing
from vqcc.spec.wording import choose, describe, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from vqcc.gpus.model import Gpu
    from vqcc.ops.base import Op
    from vqcc.spec.model import Cache
    from vqcc.spec.source import Source


#: The field that makes a spec one of a whole model (vqcc.models).
LAYERS = "layers"


def load_spec(path: Path, *, gpu_override: tuple[str, ...] = (), level_override: str | None = None) -> Spec:
    """Read, validate and check a spec file.

    `gpu_override` names GPUs to build for instead of the file's; a GPU the file describes is found by its
    name before those built in. `level_override` replaces the file's level. Raises VqccError with every
    diagnostic of the file, in its order.
    """
    return spec_in(read_source(path), gpu_override=gpu_override, level_override=level_override)


def parse_spec(
    data: bytes, path: str, *, gpu_override: tuple[str, ...] = (), level_override: str | None = None
) -> Spec:
    """Do the same for a spec held in memory; `path` is what diagnostics show."""
    return spec_in(parse_source(data, path), gpu_override=gpu_override, level_override=level_override)


def load_algorithm(path: Path) -> Algorithm:
    """Read only the algorithm of a spec file, for `vqcc quantize`. Raises VqccError."""
    source = read_source(path)
    expect_mapping(source)
    _expect_one_layer(source, "the preset of that layer's algorithm, or a spec of that layer alone")
    if "algorithm" not in source.data:
        span = place_of_missing(source, ())
        message = "the spec lacks the field algorithm"
        raise VqccError(Diagnostic("VQ0202", message, span, help="add `algorithm: aqlm-3`"))
    algorithm = read_algorithm(source)
    if isinstance(algorithm, KeyValue):
        raise VqccError(
            Diagnostic(
                "VQ0319",
                "the spec has an algorithm for keys and one for values: which of them is meant?",
                source.span(("algorithm",)),
                help="give the preset of the one that the tensor is, or a spec that has it alone",
            )
        )
    found = algorithm if isinstance(algorithm, DiagnosticList) else check_parts(algorithm, None, (), source)
    _raise(found)
    assert isinstance(algorithm, Algorithm)
    return algorithm


def spec_in(source: Source, *, gpu_override: tuple[str, ...] = (), level_override: str | None = None) -> Spec:
    """Do the same for a spec whose text has been parsed."""
    expect_mapping(source)
    _expect_one_layer(source, "a spec of that layer alone; `vqcc compile` takes the whole model")
    found = DiagnosticList()
    algorithm: Algorithm | KeyValue | None = _part(read_algorithm, "algorithm", source, found)
    op: Op | AttentionDecode | None = _part(read_op, "op", source, found)
    own: tuple[Gpu, ...] | None = _part(read_gpus, "gpu", source, found)
    chosen = _override(gpu_override, own or (), found) if gpu_override else own
    cache: Cache | None = _part(read_cache, "cache", source, found)
    profile = _part(lambda source: read_profile(source, algorithm, op), "profile", source, found)
    parts = {"algorithm": algorithm, "op": op, "gpu": chosen, "cache": cache, "profile": profile}
    spec = _assemble(source, parts, _level(source, level_override, found), found)
    level = spec.level if spec is not None and level_override in {None, *LEVELS} else None
    overrides = Overrides(level_override, gpu_override)
    found.extend(check_parts(algorithm, op, chosen or (), source, level, overrides))
    found.extend(check_cache_parts(source, op))
    if not isinstance(op, AttentionDecode):
        for each in (cache,) if cache is not None else sound_boundaries(source):
            found.extend(check_cache(each, algorithm, chosen or (), source, level))
    found.extend(placed(related_findings(source, algorithm, op), source))
    _raise(found)
    assert spec is not None
    return spec


def _part(read: Callable[[Source], Any], field: str, source: Source, found: DiagnosticList) -> Any:
    if field not in source.data:
        return None
    part = read(source)
    if isinstance(part, DiagnosticList):
        found.extend(part)
        return None
    return part


def _override(names: tuple[str, ...], own: tuple[Gpu, ...], found: DiagnosticList) -> tuple[Gpu, ...] | None:
    by_name = {gpu.name: gpu for gpu in own}
    result = []
    for name in dict.fromkeys(names):
        try:
            result.append(by_name.get(name) or gpus.load(name))
        except VqccError as error:
            found.extend(error.diagnostics)
    return tuple(result) or None


def _level(source: Source, override: str | None, found: DiagnosticList) -> dict[str, Any]:
    if override is None:
        return {"level": source.data["level"]} if "level" in source.data else {}
    if override not in LEVELS:
        message = f"the level cannot be {quoted(override)}"
        found.error("VQ0206", message, help=choose(override, LEVELS))
        return {}
    return {"level": override}


def _assemble(
    source: Source, parts: Mapping[str, object], level: Mapping[str, Any], found: DiagnosticList
) -> Spec | None:
    """Build the Spec of its parts. Parts that are wrong have been reported and are not reported missing."""
    read = {field: part for field, part in parts.items() if part is not None}
    rest = {field: value for field, value in source.data.items() if field not in {*parts, "level"}}
    try:
        return Spec.model_validate({**rest, **level, **read}, strict=True)
    except ValidationError as error:
        reported = {field for field in parts if field in source.data and field not in read}
        errors = [item for item in error.errors(include_url=False) if item["loc"][0] not in reported]
        found.extend(diagnose(errors, Spec, {**source.data, **level}, source))
        return None


def expect_mapping(source: Source) -> None:
    """Raise VQ0203 for a file that is no mapping."""
    if not isinstance(source.data, dict):
        message = f"a spec must be a mapping, got {describe(source.data)}"
        raise VqccError(Diagnostic("VQ0203", message, source.span(()), help="a spec starts with `vqcc: 1`"))


def _expect_one_layer(source: Source, instead: str) -> None:
    """Raise VQ0219 for a spec of a whole model; the help is to give something `instead`."""
    if LAYERS in source.data:
        message = "the spec is of a whole model, of which this takes one layer"
        raise VqccError(Diagnostic("VQ0219", message, source.key_span((LAYERS,)), help=f"give {instead}"))


def _raise(found: DiagnosticList) -> None:
    if found.has_errors:
        raise VqccError(*found.in_file_order())
