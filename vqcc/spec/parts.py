"""The parts of a spec that are more than a value: the algorithm, the op, the GPUs, the cache, the profile.

Each reader returns the part, or what is wrong with it.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vqcc import gpus
from vqcc.algorithms import FAMILIES, Algorithm, KeyValue, presets
from vqcc.diagnostics import Diagnostic, DiagnosticList, Span, VqccError
from vqcc.gpus.loading import gpu_at
from vqcc.ops import OPS
from vqcc.ops.base import Op
from vqcc.spec.model import Cache, Places, SpecProfile
from vqcc.spec.violations import diagnose, place_of_missing, validate
from vqcc.spec.wording import choose, describe, dotted, quoted, shorten

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel, ValidationError

    from vqcc.gpus.model import Gpu
    from vqcc.ops import AttentionDecode
    from vqcc.spec.events import FieldPath
    from vqcc.spec.source import Source

Model = TypeVar("Model", bound="BaseModel")


@dataclass(frozen=True)
class _Choice(Generic[Model]):
    """The field that says which model a mapping is, and how to say that it does not."""

    key: str
    models: Mapping[str, type[Model]]
    code: str
    wanted: str


#: Tensors of a profile that a message names.
_SHOWN = 3

#: Fields of an algorithm that has two sides, and a preset that fits either.
_SIDES = {"key", "value"}
_ANY_CACHE = "cq-2"

_FAMILY = _Choice("family", FAMILIES, "VQ0211", "a preset's name or a mapping")
_KIND = _Choice("kind", OPS, "VQ0212", "a mapping")


def read_algorithm(source: Source) -> Algorithm | KeyValue | DiagnosticList:
    """Read `algorithm`: one, or a mapping of one for keys and one for values."""
    where: FieldPath = ("algorithm",)
    data = source.data["algorithm"]
    if isinstance(data, dict) and _FAMILY.key not in data and _SIDES & data.keys():
        return _read_sides(source, data, where)
    return _read_one(source, data, where)


def _read_one(source: Source, data: Any, where: FieldPath) -> Algorithm | DiagnosticList:
    """Read an algorithm: a preset's name, or a mapping whose `family` says what else it holds."""
    if isinstance(data, str):
        try:
            data = presets.preset(data)
        except VqccError as error:
            return _at(error, source.span(where))
        return validate(FAMILIES[data["family"]], data, source, where)
    return _read_chosen(source, data, where, _FAMILY)


def algorithm_in(source: Source, where: FieldPath, error: ValidationError) -> DiagnosticList:
    """What is wrong with the mapping at `where`, of which no algorithm could be made: `error`, as a spec is told."""
    data = source.data
    for step in where:
        data = data[step]
    model = FAMILIES.get(data[_FAMILY.key]) if isinstance(data.get(_FAMILY.key), str) else None
    if model is None:
        found = _read_chosen(source, data, where, _FAMILY)
        assert isinstance(found, DiagnosticList)
        return found
    # The first step of a location names the family, which is no field.
    errors = [{**item, "loc": item["loc"][1:]} for item in error.errors(include_url=False)]
    return diagnose(errors, model, data, source, where)  # type: ignore[arg-type]


def _read_sides(source: Source, data: Mapping[str, Any], where: FieldPath) -> KeyValue | DiagnosticList:
    """Read the algorithms of keys and values; what is wrong with the mapping itself is told with what is in them."""
    found = DiagnosticList()
    read: dict[str, Any] = dict(data)
    for side in sorted(_SIDES & data.keys()):
        algorithm = _read_one(source, data[side], (*where, side))
        if isinstance(algorithm, DiagnosticList):
            found.extend(algorithm)
            algorithm = presets.resolve(_ANY_CACHE)  # in its place, for the others' sake
        read[side] = algorithm
    both = validate(KeyValue, read, source, where)
    if isinstance(both, DiagnosticList):
        found.extend(both)
    return found if isinstance(both, DiagnosticList) or found.has_errors else both


def read_op(source: Source) -> Op | AttentionDecode | DiagnosticList:
    """Read `op`: a mapping whose `kind` says what else it holds."""
    return _read_chosen(source, source.data["op"], ("op",), _KIND)


def read_gpus(source: Source) -> tuple[Gpu, ...] | DiagnosticList:
    """Read `gpu`: a name, a mapping, or a list of these. An empty list is left to the model."""
    data = source.data["gpu"]
    places: list[FieldPath] = (
        [("gpu", index) for index in range(len(data))] if isinstance(data, list) else [("gpu",)]
    )
    found = DiagnosticList()
    read: dict[str, FieldPath] = {}
    result: list[Gpu] = []
    for where in places:
        gpu = _read_gpu(source, data[where[-1]] if len(where) > 1 else data, where)
        if isinstance(gpu, DiagnosticList):
            found.extend(gpu)
        elif gpu.name in read:
            first = source.span(read[gpu.name])
            found.error(
                "VQ0210",
                f"the GPU {gpu.name} is given twice",
                span=source.span(where),
                help=f"first given on line {first.line}; remove one",
            )
        else:
            read[gpu.name] = where
            result.append(gpu)
    return found if found.has_errors else tuple(result)


def read_cache(source: Source) -> Cache | DiagnosticList:
    """Read `cache`: boundaries of the codebook cache."""
    where: FieldPath = ("cache",)
    data = source.data["cache"]
    if not isinstance(data, dict):
        return wrong_kind(source, data, where, "a mapping")
    cache = validate(Cache, data, source, where)
    if isinstance(cache, DiagnosticList):
        return cache
    return cache.placed_at(Places(source.span(where), {name: source.span((*where, name)) for name in data}))


def read_profile(
    source: Source, algorithm: Algorithm | KeyValue | None, op: Op | AttentionDecode | None
) -> SpecProfile | DiagnosticList:
    """Read the file that `profile` names, beside the spec, and pick the tensors of its algorithm and shape.

    Without an algorithm and an op of a weight, which are wrong then, or refuse a profile, only the file is checked.
    """
    where: FieldPath = ("profile",)
    data = source.data["profile"]
    if not isinstance(data, str):
        return wrong_kind(source, data, where, "a file's name")
    from vqcc.hotness import load_profile

    path = Path(source.path).parent / data
    if _is_special(path):
        message = f"{path} is neither a file nor a link to one"
        help_text = "make profiles by `vqcc profile`"
        return DiagnosticList([Diagnostic("VQ0536", message, source.span(where), help=help_text)])
    try:
        profile = load_profile(path)
    except VqccError as error:
        return _at(error, source.span(where))
    if not isinstance(algorithm, Algorithm) or not isinstance(op, Op):
        return SpecProfile(data, profile.sha256, ())
    shape = op.weight_shape
    tensors = profile.matching(algorithm, shape)
    if tensors:
        return SpecProfile(data, profile.sha256, tensors)
    held = [f"{tensor.name}: {tensor.algorithm.label} {list(tensor.shape)}" for tensor in profile.tensors]
    shown = "; ".join(shorten(text, 100) for text in held[:_SHOWN]) + ("; ..." if len(held) > _SHOWN else "")
    return DiagnosticList(
        [
            Diagnostic(
                "VQ0316",
                f"no tensor of the profile {quoted(data)} is {algorithm.label} {list(shape)} with the spec's scope, "
                "scales and types",
                source.span(where),
                help=f"profile the tensors that the library is for; this one holds {shown or 'none'}",
            )
        ]
    )


def _is_special(path: Path) -> bool:
    """Whether this is a device or a pipe, which may give bytes without end or none for ever."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def _read_gpu(source: Source, data: Any, where: FieldPath) -> Gpu | DiagnosticList:
    if isinstance(data, str):
        try:
            return gpus.load(data)
        except VqccError as error:
            return _at(error, source.span(where))
    if not isinstance(data, dict):
        return wrong_kind(source, data, where, "a GPU's name or a mapping")
    name = data.get("name")
    if isinstance(name, str) and name in gpus.names():  # whatever else of it is wrong or missing
        diagnostic = Diagnostic(
            "VQ0404",
            f"the GPU {name} is built in",
            source.span((*where, "name")),
            help=f"write {'' if len(where) > 1 else 'gpu: '}{name}, or describe yours in full by another name",
        )
        return DiagnosticList([diagnostic])
    return gpu_at(source, data, where)


def _read_chosen(
    source: Source, data: Any, where: FieldPath, choice: _Choice[Model]
) -> Model | DiagnosticList:
    if not isinstance(data, dict):
        return wrong_kind(source, data, where, choice.wanted)
    field = (*where, choice.key)
    if choice.key not in data:
        span = place_of_missing(source, where)
        help_text = f"add `{choice.key}: {next(iter(choice.models))}`; {choose(None, choice.models)}"
        message = f"{dotted(where)} lacks the field {choice.key}"
        return DiagnosticList([Diagnostic("VQ0202", message, span, help=help_text)])
    chosen = data[choice.key]
    if not isinstance(chosen, str):
        return wrong_kind(source, chosen, field, "text")
    if chosen not in choice.models:
        help_text = choose(chosen, choice.models)
        message = f"{dotted(field)} cannot be {quoted(chosen)}"
        return DiagnosticList([Diagnostic(choice.code, message, source.span(field), help=help_text)])
    return validate(choice.models[chosen], data, source, where)


def wrong_kind(source: Source, value: object, where: FieldPath, wanted: str) -> DiagnosticList:
    """What is told of a value that should be `wanted`."""
    message = f"{dotted(where)} must be {wanted}, got {describe(value)}"
    return DiagnosticList([Diagnostic("VQ0203", message, source.span(where), label=f"expected {wanted}")])


def _at(error: VqccError, span: Span) -> DiagnosticList:
    return DiagnosticList(replace(item, span=span) for item in error.diagnostics)
