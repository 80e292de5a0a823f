"""The JSON Schema accepts what the compiler accepts, and refuses much of what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from vqcc import gpus
from vqcc.algorithms import presets
from vqcc.diagnostics import VqccError
from vqcc.levels import LEVELS
from vqcc.models import parse_any
from vqcc.spec.load import parse_spec
from vqcc.spec.schema import json_schema
from vqcc.spec.source import parse_source

ROOT = Path(__file__).parents[2]
READY = sorted((ROOT / "specs").glob("*.yaml"))
WRONG = sorted(Path(__file__).with_name("wrong").glob("*.yaml"))
VALIDATOR = jsonschema.Draft7Validator(json_schema())

OP = "{kind: gemv, m: [1, 16], n: 11008, k: 4096}"
KMEANS = "family: kmeans, vector_size: 4, entries: 256"
PARTS = [
    ("aqlm-3", OP, "h200"),
    ("vq-16-16-8", "{kind: gemv, m: 1, n: 1, k: 16, dtype: bfloat16}", "[a40]"),
    ("quip-4", "{kind: gemv, m: [1], n: 8, k: 8, dtype: [float16, bfloat16]}", "[a40, h200]"),
    (f"{{{KMEANS}, scope: tensor, scales: none}}", OP, "h200"),
    (f"{{{KMEANS}, scope: {{rows: 256, cols: 256}}, scales: {{group: 128}}, code_bits: 8}}", OP, "h200"),
    (
        f"{{{KMEANS}, residuals: 8, scope: tensor, scales: tensor, direction: in, codebook_dtype: int8}}",
        OP,
        "h200",
    ),
    ("{family: e8p, residuals: 2, scales: row}", OP, "h200"),
]


def text_of(algorithm, op, gpu, level="gc", more=""):
    text = f"vqcc: 1\nname: good-one\nalgorithm: {algorithm}\nop: {op}\ngpu: {gpu}\nlevel: {level}\n{more}"
    return text.encode()


def inline(facts):
    gpu = gpus.load("h100")
    numbers = {
        name: fact.model_dump(mode="json") if facts else fact.value for name, fact in gpu.facts().items()
    }
    head = {"name": "mine", "compute_capability": "9.0" if facts else 9.0, "dtypes": list(gpu.dtypes)}
    return json.dumps({**head, **numbers})


def errors(data):
    return [error.message for error in VALIDATOR.iter_errors(data)]


def test_it_is_a_draft_7_schema():
    schema = json_schema()
    jsonschema.Draft7Validator.check_schema(schema)
    assert schema["$schema"] == "http://json-schema.org/draft-07/schema#"
    assert "$defs" not in json.dumps(schema)
    assert json_schema() == schema


def test_every_example_of_the_schema_is_valid():
    schema = json_schema()
    fields = [*schema["then"]["properties"].items(), *schema["else"]["properties"].items()]
    for name, field in fields:
        assert field["description"], name
        for example in field.get("examples", ()):
            alone = {"definitions": schema["definitions"], "properties": {name: field}}
            checker = VALIDATOR.evolve(schema=alone)
            assert not list(checker.iter_errors({name: example})), name


@pytest.mark.parametrize("parts", PARTS, ids=lambda parts: parts[0][:20])
def test_good_specs(parts):
    data = text_of(*parts)
    parse_spec(data, "spec.yaml")
    assert errors(parse_source(data, "spec.yaml").data) == []


@pytest.mark.parametrize("level", LEVELS)
def test_levels(level):
    data = text_of("aqlm-2x8", OP, "h200", level)
    assert parse_spec(data, "spec.yaml").level == level
    assert errors(parse_source(data, "spec.yaml").data) == []


@pytest.mark.parametrize("cache", ["{registers: 0}", "{shared: 256}", "{registers: 64, shared: 64}"])
def test_caches(cache):
    data = text_of("aqlm-2x8", OP, "h200", "o2", f"cache: {cache}\n")
    parse_spec(data, "spec.yaml")
    assert errors(parse_source(data, "spec.yaml").data) == []


@pytest.mark.parametrize("facts", [True, False])
def test_inline_gpus(facts):
    data = text_of("aqlm-3", OP, inline(facts))
    parse_spec(data, "spec.yaml")
    assert errors(parse_source(data, "spec.yaml").data) == []


WEIGHT_PRESETS = [name for name in presets.named() if not presets.resolve(name).scope.is_cache]


@pytest.mark.parametrize("name", [*WEIGHT_PRESETS, "vq-4-8-1", "vq-16-16-8", "vq-1-1-1"])
def test_presets(name):
    assert errors(parse_source(text_of(name, OP, "h200"), "s").data) == []


@pytest.mark.parametrize(
    "name",
    [
        "vq-17-8-1",
        "vq-4-17-1",
        "vq-4-8-9",
        "vq-0-8-1",
        "vq-04-8-1",
        "cq-3",
        "cq-4c0b",
        "kv-4-8",
        "aqlm-4",
        "",
    ],
)
def test_other_names(name):
    data = text_of(json.dumps(name), OP, "h200")
    assert errors(parse_source(data, "s").data)
    with pytest.raises(VqccError):
        parse_spec(data, "spec.yaml")


@pytest.mark.parametrize("file", READY, ids=lambda file: file.stem)
def test_ready_specs(file):
    data = file.read_bytes()
    parse_any(data, str(file))
    assert errors(parse_source(data, str(file)).data) == []
    assert data.startswith(b"# yaml-language-server: $schema=")


def test_most_wrong_specs_are_wrong_by_the_schema_too():
    """What is beyond a schema: relations between fields, and reserved words."""
    accepted = set()
    for file in WRONG:
        try:
            source = parse_source(file.read_bytes(), str(file))
        except VqccError:
            continue
        if not errors(source.data):
            accepted.add(file.stem)
    relations = {
        "code-bits-against-entries", "codebooks-past-2-gib", "codes-past-2-gib", "dtype-the-gpu-lacks",
        "gpu-built-in-name",
        "gpu-carveouts-unsorted", "gpu-inline-twice", "gpu-name-keyword", "gpu-name-count",
        "gpu-shared-block-against-sm",
        "gpu-two-contradictions", "gpu-warps-against-threads", "k-not-a-multiple",
        "k-not-a-multiple-of-the-presets",
        "name-keyword", "name-keyword-after-dash", "name-of-vqcc", "model-symbols",
        "scales-group-not-a-multiple", "tile-columns", "op-n-float",
        "gpu-bandwidth-not-a-number",
        "e8p-tile-scope", "e8p-group-scales",
        "level-sc-past-shared-memory",
        "op-m-twice", "scales-past-32-bits",
        "cache-shared-below-registers", "cache-past-the-table", "cache-past-the-table-of-e8p",
        "cache-past-shared-memory", "cache-of-level-gc", "cache-of-level-sc",
        "preset-for-a-cache", "preset-kv", "kv-algorithm-of-gemv", "key-value-of-gemv", "key-value-value-of-weights",
        "attention-algorithm-of-weights", "attention-cache-and-profile", "attention-head-dim-and-vector-size",
        "attention-heads", "attention-page-size", "attention-contiguous-beside-pages",
        "attention-rope-base-without-rope",
        "attention-window-past-the-context", "linear-rows-out-of-order", "model-divided-wrong", "model-fused-unlike",
        "profile-missing", "profile-no-json", "profile-of-another-weight",
    }  # fmt: skip
    assert accepted <= relations, sorted(accepted - relations)


def test_a_schema_kept_beside_the_ready_specs_is_up_to_date():
    for file in (ROOT / "specs").glob("*.schema.json"):
        assert json.loads(file.read_text()) == json_schema(), (
            "write it again: vqcc schema -o specs/vqcc.schema.json"
        )
