"""JSON Schema (draft 7) of a spec file, for editors: completion, hover, and a first check.

It follows from the models, and adds what a file may write where a model holds the resolved thing: a preset's
name, a GPU's name, one value where a list makes variants.
"""

from __future__ import annotations

from typing import Any

from vqcc import gpus
from vqcc.algorithms import FAMILIES, KeyValue, presets
from vqcc.gpus.model import RANGES, Gpu
from vqcc.models.fields import LAYER_FIELDS, PARALLEL, ModelFields
from vqcc.ops import OPS
from vqcc.spec.model import MAX_GPUS, Cache, Spec

Schema = dict[str, Any]

_REFERENCE = "#/definitions/{model}"


def json_schema() -> Schema:
    """Return the schema of a spec file, of a library or of a whole model.

    Every valid spec satisfies it, and so do some invalid ones.
    """
    library = _library_schema()
    definitions = library.pop("definitions")
    head = {"$schema": "http://json-schema.org/draft-07/schema#", "title": "vqcc spec"}
    return {
        **head,
        "if": {"required": ["layers"]},
        "then": _model_schema(library["properties"]),
        "else": library,
        "definitions": definitions,
    }


def _model_schema(library: Schema) -> Schema:
    """The schema of a whole model; `library` are the properties of a spec, of which a layer has some."""
    schema: Schema = _tidy(ModelFields.model_json_schema())
    schema.pop("description", None)
    properties = schema["properties"]
    properties["gpu"] = library["gpu"]
    kept = {name: library[name] for name in LAYER_FIELDS if name != PARALLEL}
    ways = sorted({way for op in OPS.values() for way in op.divisions})
    described = {"enum": ways, "description": "how ranks of tensor parallelism share the layer"}
    properties["layers"]["additionalProperties"] = {
        "type": "object",
        "properties": {**kept, PARALLEL: described},
        "required": ["algorithm", "op"],
        "additionalProperties": False,
    }
    return schema


def _library_schema() -> Schema:
    schema = Spec.model_json_schema(ref_template=_REFERENCE)
    definitions: Schema = schema.pop("$defs")
    for op in OPS.values():
        _allow_single_values(definitions[op.__name__]["properties"])
    _allow_plain_numbers(definitions[Gpu.__name__]["properties"])
    properties = schema["properties"]
    families: list[Schema] = [
        {"$ref": _REFERENCE.format(model=family.__name__)} for family in FAMILIES.values()
    ]
    one: list[Schema] = [_preset_name(), *families]
    sides = definitions[KeyValue.__name__]["properties"]
    for side in sides:
        sides[side] = _described(sides[side], one)
    both = {"$ref": _REFERENCE.format(model=KeyValue.__name__)}
    properties["algorithm"] = _described(properties["algorithm"], [*one, both])
    gpu: list[Schema] = [{"enum": list(gpus.names())}, {"$ref": _REFERENCE.format(model=Gpu.__name__)}]
    several = {
        "type": "array",
        "items": {"anyOf": gpu},
        "minItems": 1,
        "maxItems": MAX_GPUS,
        "uniqueItems": True,
    }
    properties["gpu"] = _described(properties["gpu"], [*gpu, several])
    # A file leaves the cache out, or gives it boundaries.
    properties["cache"] = _described(properties["cache"], [{"$ref": _REFERENCE.format(model=Cache.__name__)}])
    schema["definitions"] = definitions
    body: Schema = _tidy(schema)
    body.pop("description", None)
    return body


def _preset_name() -> Schema:
    # The enumeration is what editors complete; the pattern is what they accept.
    return {"anyOf": [{"enum": list(presets.named())}, {"type": "string", "pattern": presets.PATTERN}]}


def _described(field: Schema, choices: list[Schema]) -> Schema:
    kept: Schema = {key: field[key] for key in ("description", "examples") if key in field}
    return {**kept, "anyOf": choices}


def _allow_single_values(properties: Schema) -> None:
    for name, field in properties.items():
        if field.get("type") == "array":
            array = {
                # Pydantic writes text lengths where a validator stands before a tuple.
                {"minLength": "minItems", "maxLength": "maxItems"}.get(key, key): value
                for key, value in field.items()
                if key not in {"default", "description"}
            }
            outer = {key: value for key, value in field.items() if key == "description"}
            properties[name] = {**outer, "anyOf": [field["items"], array]}


def _allow_plain_numbers(properties: Schema) -> None:
    for name, field in properties.items():
        if field.get("$ref", "").endswith("/Fact"):
            properties[name] = {"anyOf": [_number(name), field]}
        elif field.get("$ref", "").endswith("/FactList"):
            properties[name] = {"anyOf": [{"type": "array", "items": _number(name), "minItems": 1}, field]}
        elif name == "compute_capability":
            properties[name] = {"anyOf": [field, {"enum": [float(text) for text in field["enum"]]}]}


def _number(name: str) -> Schema:
    low, high = RANGES[name]
    kind = "integer" if isinstance(low, int) else "number"
    return {"type": kind, "minimum": low, "maximum": high}


def _tidy(node: Any) -> Any:
    """Drop the titles that repeat field names, and what draft 7 does not have."""
    if isinstance(node, list):
        return [_tidy(item) for item in node]
    if not isinstance(node, dict):
        return node
    return {
        key: {name: _tidy(field) for name, field in value.items()}
        if key in {"properties", "definitions"}
        else _tidy(value)
        for key, value in node.items()
        if key not in {"title", "discriminator"}
        and not (key == "default" and isinstance(value, dict | list | None))
    }
