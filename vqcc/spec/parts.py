"""The parts of a spec that are chosen by a name inside them: the algorithm, the op, the GPUs.

Each reader returns the part, or what is wrong with it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from vqcc import gpus
from vqcc.algorithms import FAMILIES, Algorithm, presets
from vqcc.diagnostics import Diagnostic, DiagnosticList, Span, VqccError
from vqcc.gpus.loading import gpu_at
from vqcc.gpus.model import Gpu
from vqcc.ops import OPS
from vqcc.spec.violations import place_of_missing, validate
from vqcc.spec.wording import choose, describe, dotted, quoted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic import BaseModel

    from vqcc.ops.base import Op
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


_FAMILY = _Choice("family", FAMILIES, "VQ0211", "a preset's name or a mapping")
_KIND = _Choice("kind", OPS, "VQ0212", "a mapping")


def read_algorithm(source: Source) -> Algorithm | DiagnosticList:
    """Read `algorithm`: a preset's name, or a mapping whose `family` says what else it holds."""
    where: FieldPath = ("algorithm",)
    data = source.data["algorithm"]
    if isinstance(data, str):
        try:
            data = presets.preset(data)
        except VqccError as error:
            return _at(error, source.span(where))
        return validate(FAMILIES[data["family"]], data, source, where)
    return _read_chosen(source, where, _FAMILY)


def read_op(source: Source) -> Op | DiagnosticList:
    """Read `op`: a mapping whose `kind` says what else it holds."""
    return _read_chosen(source, ("op",), _KIND)


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


def _read_gpu(source: Source, data: Any, where: FieldPath) -> Gpu | DiagnosticList:
    if isinstance(data, str):
        try:
            return gpus.load(data)
        except VqccError as error:
            return _at(error, source.span(where))
    if not isinstance(data, dict):
        return _wrong_kind(source, data, where, "a GPU's name or a mapping")
    gpu = gpu_at(source, data, where)
    if isinstance(gpu, Gpu) and gpu.name in gpus.names():
        diagnostic = Diagnostic(
            "VQ0404",
            f"the GPU {gpu.name} is built in",
            source.span((*where, "name")),
            help=f"write `gpu: {gpu.name}`, or give yours another name",
        )
        return DiagnosticList([diagnostic])
    return gpu


def _read_chosen(source: Source, where: FieldPath, choice: _Choice[Model]) -> Model | DiagnosticList:
    data = source.data[where[0]]
    if not isinstance(data, dict):
        return _wrong_kind(source, data, where, choice.wanted)
    field = (*where, choice.key)
    if choice.key not in data:
        span = place_of_missing(source, where)
        help_text = f"add `{choice.key}: {next(iter(choice.models))}`; {choose(None, choice.models)}"
        message = f"{dotted(where)} lacks the field {choice.key}"
        return DiagnosticList([Diagnostic("VQ0202", message, span, help=help_text)])
    chosen = data[choice.key]
    if not isinstance(chosen, str):
        return _wrong_kind(source, chosen, field, "text")
    if chosen not in choice.models:
        help_text = choose(chosen, choice.models)
        message = f"{dotted(field)} cannot be {quoted(chosen)}"
        return DiagnosticList([Diagnostic(choice.code, message, source.span(field), help=help_text)])
    return validate(choice.models[chosen], data, source, where)


def _wrong_kind(source: Source, value: object, where: FieldPath, wanted: str) -> DiagnosticList:
    message = f"{dotted(where)} must be {wanted}, got {describe(value)}"
    return DiagnosticList([Diagnostic("VQ0203", message, source.span(where), label=f"expected {wanted}")])


def _at(error: VqccError, span: Span) -> DiagnosticList:
    return DiagnosticList(replace(item, span=span) for item in error.diagnostics)
