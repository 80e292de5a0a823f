"""What pydantic finds wrong with a part of a spec, in our words, with codes and places.

`validate` is the one way from plain data to a model. It is strict: no text turns into a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel, ValidationError

from vqcc.diagnostics import CODES, Diagnostic, DiagnosticList, Span, did_you_mean, nearest
from vqcc.report.text import counted
from vqcc.spec.fields import bounds, field_info, field_names
from vqcc.spec.wording import choose, describe, either, flow, quoted, shorten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from pydantic_core import ErrorDetails

    from vqcc.spec.events import FieldPath
    from vqcc.spec.source import Source

Model = TypeVar("Model", bound=BaseModel)

_WANTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "list_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "greater_than": ("gt", "more than"),
    "less_than_equal": ("le", "at most"),
    "less_than": ("lt", "less than"),
}


def validate(model: type[Model], data: Any, source: Source, where: FieldPath = ()) -> Model | DiagnosticList:
    """Build `model` from `data`, which stands (or is named) at path `where` of the source.

    Returns the model, or everything that is wrong with the data.
    """
    try:
        return model.model_validate(_frozen(data), strict=True)
    except ValidationError as error:
        return diagnose(error.errors(include_url=False), model, data, source, where)


def _frozen(data: Any) -> Any:
    """Return the data with tuples for lists: strict validation takes no list for a tuple."""
    if isinstance(data, list):
        return tuple(_frozen(item) for item in data)
    if isinstance(data, dict):
        return {key: _frozen(value) for key, value in data.items()}
    return data


def diagnose(
    errors: Iterable[ErrorDetails],
    model: type[BaseModel],
    data: Any,
    source: Source,
    where: FieldPath = (),
) -> DiagnosticList:
    """Turn each of pydantic's errors into a Diagnostic."""
    found: dict[tuple[str, FieldPath], Diagnostic] = {}
    lacking: dict[FieldPath, list[str]] = {}
    unknown: list[FieldPath] = []
    for details in errors:
        if details["type"] == "default_factory_not_called":
            continue  # a default is made of other fields, and those are at fault
        path, value = _resolve(details, data)
        if details["type"] == "missing":
            lacking.setdefault(path[:-1], []).append(str(path[-1]))
            continue
        if details["type"] == "extra_forbidden":
            unknown.append(path)
        diagnostic = _Violation(details, (*where, *path), path, value, model, source).diagnostic()
        # The branches of a union each report; one report of a kind at a place is enough.
        found[diagnostic.code, path] = diagnostic
    for *parent, field in unknown:
        # A misspelt field is also a missing one: report it once.
        absent = lacking.get(tuple(parent), [])
        meant = nearest(str(field), absent)
        if meant is not None:
            absent.remove(meant)
    missing = [_missing(parent, fields, model, source, where) for parent, fields in lacking.items() if fields]
    return DiagnosticList([*found.values(), *missing])


def _missing(
    parent: FieldPath, fields: list[str], model: type[BaseModel], source: Source, where: FieldPath
) -> Diagnostic:
    """One diagnostic for all that a mapping lacks."""
    infos = {field: field_info(model, (*parent, field)) for field in fields}
    examples = {field: flow(info.examples[0]) for field, info in infos.items() if info and info.examples}
    lines = [f"add `{field}: {examples.get(field, '...')}`" for field in fields]
    return Diagnostic(
        "VQ0202",
        f"{source.named((*where, *parent))} lacks the field{'s' * (len(fields) > 1)} {either(fields, 'and')}",
        place_of_missing(source, (*where, *parent)),
        help="\n".join(lines) if examples or len(fields) == 1 else "each of them is needed",
    )


def place_of_missing(source: Source, parent: FieldPath) -> Span:
    """Where to point when something is missing from a mapping: at it if it is one line, else at its key."""
    span = source.span(parent)
    return span if span.end_column is not None else source.key_span(parent)


def _resolve(details: ErrorDetails, data: Any) -> tuple[FieldPath, Any]:
    """Path and value in the file; pydantic's location has steps of its own, such as branches of unions."""
    path: list[str | int] = []
    last = len(details["loc"]) - 1
    for index, step in enumerate(details["loc"]):
        if _has(data, step):
            data = data[step]
        elif not (details["type"] == "missing" and index == last):
            continue
        path.append(step)
    return tuple(path), data


def _has(data: Any, step: str | int) -> bool:
    if isinstance(data, list):
        return isinstance(step, int) and step < len(data)
    return isinstance(data, dict) and step in data


@dataclass(frozen=True)
class _Violation:
    """One of pydantic's errors on its way to a Diagnostic.

    `path` leads to `value` from the root of the data that `model` read, `where` from the root of the file.
    """

    details: ErrorDetails
    where: FieldPath
    path: FieldPath
    value: Any
    model: type[BaseModel]
    source: Source

    @property
    def type(self) -> str:
        return self.details["type"]

    @property
    def context(self) -> dict[str, Any]:
        return self.details.get("ctx") or {}

    @property
    def name(self) -> str:
        return self.source.named(self.where)

    def diagnostic(self) -> Diagnostic:
        """Choose the wording by the kind of error."""
        kinds: Sequence[tuple[bool, Callable[[], Diagnostic]]] = (
            (self.type in CODES, self._own),
            (self.type == "extra_forbidden", self._unknown_field),
            (self.type in _WANTED, self._wrong_type),
            (self.type in _BOUNDS, self._out_of_range),
            (self.type in {"literal_error", "enum"}, self._unknown_word),
            (self.type in {"too_short", "too_long"}, self._wrong_length),
            (self.type in {"string_too_short", "string_too_long"}, self._wrong_text_length),
        )
        return next((make for applies, make in kinds if applies), self._other)()

    def _make(self, code: str, message: str, help_text: str | None, label: str | None = None) -> Diagnostic:
        return Diagnostic(code, message, self.source.span(self.where), help=help_text, label=label)

    def _own(self) -> Diagnostic:
        return self._make(self.type, self.context.get("text", self.details["msg"]), self.context.get("help"))

    def _unknown_field(self) -> Diagnostic:
        parent, field = self.where[:-1], str(self.where[-1])
        legal = field_names(self.model, self.path[:-1])
        known = f"{self.source.named(parent)} has {', '.join(legal)}" if legal else None
        near = did_you_mean(field, legal)
        return Diagnostic(
            "VQ0201",
            f"{self.source.named(parent)} has no field {quoted(field)}",
            self.source.key_span(self.where),
            help=near or known,
            label="unknown field",
        )

    def _wrong_type(self) -> Diagnostic:
        wanted = _WANTED[self.type]
        message = f"{self.name} must be {wanted}, got {describe(self.value)}"
        return self._make("VQ0203", message, _type_help(wanted, self.value), f"expected {wanted}")

    def _out_of_range(self) -> Diagnostic:
        key, words = _BOUNDS[self.type]
        bound = f"{self.context[key]:g}" if isinstance(self.context[key], float) else self.context[key]
        message = f"{self.name} must be {words} {bound}, got {describe(self.value)}"
        return self._make("VQ0204", message, f"use {self._range() or f'{words} {bound}'}")

    def _range(self) -> str | None:
        low, high = bounds(self.model, self.path)
        return None if low is None or high is None else f"{low} to {high}"

    def _unknown_word(self) -> Diagnostic:
        expected = str(self.context.get("expected", ""))
        words = re.findall("'([^']*)'", expected)
        help_text = choose(self.value, words) if words else f"use {expected}"
        return self._make("VQ0206", f"{self.name} cannot be {describe(self.value)}", help_text)

    def _wrong_length(self) -> Diagnostic:
        low, high = self.context.get("min_length"), self.context.get("max_length")
        wanted = f"at least {low}" if self.type == "too_short" else f"at most {high}"
        got = len(self.value) if isinstance(self.value, list | dict | str) else 0
        return self._make("VQ0209", f"{self.name} has {counted(got, 'value')}", f"give {wanted}")

    def _wrong_text_length(self) -> Diagnostic:
        low, high = self.context.get("min_length"), self.context.get("max_length")
        wanted = f"at least {low}" if self.type == "string_too_short" else f"at most {high}"
        return self._make(
            "VQ0214", f"{self.name} is text of {counted(len(self.value), 'character')}", f"use {wanted}"
        )

    def _other(self) -> Diagnostic:
        if self.type == "finite_number":
            return self._make("VQ0204", f"{self.name} must be finite, got {describe(self.value)}", None)
        reason = self.context.get("error", self.details["msg"])
        return self._make("VQ0215", f"{self.name} is not valid: {shorten(str(reason), 200)}", None)


def _type_help(wanted: str, value: object) -> str | None:
    if value is None:
        return "give a value"
    if (
        isinstance(value, str)
        and wanted in {"an integer", "a number"}
        and re.fullmatch(r"[0-9][0-9_.]*", value)
    ):
        return "write the number without quotes and without separators"
    if isinstance(value, float) and wanted == "an integer" and value.is_integer():
        return f"write {shorten(str(int(value)))}"
    if wanted == "text" and isinstance(value, int | float):
        return "write it in quotes"
    return None
