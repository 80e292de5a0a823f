"""Mutated specs: a Spec or diagnostics with known codes, never another exception.

Valid specs are damaged as bytes (a bad copy), as tokens (a bad edit) and as trees (well-formed nonsense). What
is accepted all the same must satisfy the JSON Schema.
"""

from __future__ import annotations

import json
import random
import re

import jsonschema
import pytest
from libraries import make_profile

from vqcc import gpus
from vqcc.diagnostics import CODES, VqccError, render_json, render_text
from vqcc.spec.load import parse_spec
from vqcc.spec.model import Spec
from vqcc.spec.schema import json_schema
from vqcc.spec.source import parse_source

MINE = {
    "name": "mine",
    "compute_capability": 8.9,
    "dtypes": ["float16", "bfloat16"],
    **{
        name: list(fact.value) if isinstance(fact.value, tuple) else fact.value
        for name, fact in gpus.load("l40s").facts().items()
    },
}
SEEDS = [
    b"# a preset\nvqcc: 1\nname: llama7b-aqlm3-gemv\nalgorithm: aqlm-3\n"
    b"op: {kind: gemv, m: [1, 4, 16], n: 11008, k: 4096, dtype: [float16]}\ngpu: rtx4090\nlevel: gc\n",
    b"vqcc: 1\nname: tiles\nalgorithm:\n  family: kmeans\n  vector_size: 4\n  entries: 256\n  residuals: 2\n"
    b"  scope: {rows: 256, cols: 256}\n  scales: {group: 128}\n  codebook_dtype: bfloat16\n  code_bits: 8\n"
    b"op:\n  kind: gemv\n  m:\n    - 1\n    - 16\n  n: 4096\n  k: 4096\ngpu: [a40, h200]\nlevel: sc\n",
    b"vqcc: 1\nname: computed\nalgorithm: {family: e8p, residuals: 2, scales: row}\n"
    b"op: {kind: gemv, m: [2], n: 64, k: 64}\ngpu:\n- " + json.dumps(MINE).encode() + b"\n- b200\n",
    b"vqcc: 1\nname: cached\nalgorithm: vq-4-4-1\nop: {kind: gemv, m: 1, n: 32, k: 64}\ngpu: h200\nlevel: o3\n"
    b"profile: hotness.json\ncache: {registers: 4, shared: 16}\n",
]
NASTY_TOKENS = [
    "&a", "*a", "!!int", "!x", "<<", "---", "...", "%YAML 1.2", "? ", ": ", "- ", "[", "]", "{", "}", ",",
    "#", "|", ">",
    "'", '"', "\t", "\n", "\r", "\0", "\x07", "\ufeff", "\u2028", "\x85", "é", "量", "\U0001f600", "~",
    "null", "no",
    "true", "0", "-1", "1e999", ".nan", ".inf", "0x10", "0o7", "9" * 30, "1_000", "12:30", "=", "kmeans", "e8p",
    "tensor", "float16", "h200", "aqlm-3", "vq-4-8-1", "cq-2", "out", "entries", "scope", "rows",
    "\\u0000", "\ud7ff", "o2", "best", "hotness.json", "/", "..", "64", "registers",
]  # fmt: skip
NASTY_VALUES = [
    None, True, False, 0, 1, -1, 2, 3, 7, 16, 17, 255, 65536, 65537, 131072, 2**31 - 1, 2**31, 2**64,
    10**40, 0.5, 4096.0,
    1e308, float("inf"), float("nan"), "", "1", "a b", "*/", "tensor", "none", "row", "in", "out",
    "float16", "int8",
    "h200", "vq-8-8-2", "kv-4-8-1", "kmeans", "gemv", "sc", "x" * 2000, [], {}, [[]], [1, 2, 3],
    ["float16"], {"rows": 4},
    {"rows": 4, "cols": 8}, {"group": 8}, {"value": 1}, {"value": 1, "source": "x", "confidence": "user"},
    [None], {"": 1},
]  # fmt: skip
TOKEN = re.compile(r"[A-Za-z0-9_.-]+|\s+|.", re.DOTALL)
SCHEMA = jsonschema.Draft7Validator(json_schema())


def mutate_bytes(data, rng):
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        end = min(end, start + rng.choice([1, 3, 30]))
        match rng.randrange(5):
            case 0:
                data[start:start] = bytes(rng.randrange(256) for _ in range(rng.choice([1, 2, 8])))
            case 1:
                del data[start:end]
            case 2:
                data[start:start] = data[start:end]
            case 3:
                data[start : start + 1] = bytes([rng.choice(b"[]{}:,-?&*!|>'\"%@`#\n\t 019azAZ~.")])
            case _:
                if start < len(data):
                    data[start] ^= 1 << rng.randrange(8)
        data = data or bytearray(b" ")
    return bytes(data)


def mutate_tokens(data, rng):
    tokens = TOKEN.findall(data.decode())
    for _ in range(rng.choice([1, 1, 2, 4])):
        at = rng.randrange(len(tokens))
        match rng.randrange(5):
            case 0:
                tokens[at] = rng.choice(NASTY_TOKENS)
            case 1:
                tokens.insert(at, rng.choice(NASTY_TOKENS))
            case 2 if len(tokens) > 1:
                del tokens[at]
            case 3:
                tokens[at] = rng.choice(tokens)
            case _:
                other = rng.randrange(len(tokens))
                tokens[at], tokens[other] = tokens[other], tokens[at]
    return "".join(tokens).encode()


def places(node, path=()):
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


def mutate_tree(data, rng):
    tree = parse_source(data, "seed").data
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        *parent, key = rng.choice([path for path in places(tree) if path] or [(None,)])
        node = tree
        for step in parent:
            node = node[step]
        if key is None:
            break
        match rng.randrange(6):
            case 0 | 1:
                node[key] = rng.choice(NASTY_VALUES)
            case 2:
                del node[key]
            case 3 if isinstance(node, dict):
                name = list(key)
                name[rng.randrange(len(name)) if name else 0 :][:1] = rng.choice(["", "x", "\n", key])
                node["".join(name)] = node.pop(key)
            case 4 if isinstance(node, list):
                node.append(node[key])
            case _:
                node[key] = rng.choice([[node[key]], {"value": node[key]}, str(node[key])])
        # Shared values must not be mutated in place the next time.
        tree = json.loads(json.dumps(tree))
    text = json.dumps(tree, indent=rng.choice([None, 1]), ensure_ascii=rng.random() < 0.5)
    return text.replace("Infinity", ".inf").replace("NaN", ".nan").encode("utf-8", "surrogatepass")


def outcome(data, path):
    """The Spec, or the diagnostics."""
    try:
        return parse_spec(data, path)
    except VqccError as error:
        return error.diagnostics


def check(data, tmp_path):
    """Parse; True if accepted."""
    result = outcome(data, str(tmp_path / "spec.yaml"))
    if isinstance(result, Spec):
        assert not list(SCHEMA.iter_errors(parse_source(data, "spec.yaml").data))
        return True
    assert all(item.code in CODES and item.span is not None and item.message for item in result)
    assert render_text(result, color=False)
    assert json.loads(render_json(result))
    return False


@pytest.fixture(autouse=True)
def profile(tmp_path):
    """What one of the seeds names."""
    make_profile(tmp_path / "hotness.json", "vq-4-4-1", (32, 64))


def run(count, tmp_path):
    rng = random.Random(20_000)
    accepted = 0
    for number in range(count):
        mutate = (mutate_bytes, mutate_tokens, mutate_tree)[number % 3]
        data = mutate(rng.choice(SEEDS), rng)
        try:
            accepted += check(data, tmp_path)
        except Exception as error:
            raise AssertionError(f"mutant {number}: {data!r}") from error
    # A fuzz whose mutants are all refused at the door, or all harmless, tests nothing.
    assert 0.02 * count < accepted < 0.5 * count


@pytest.mark.parametrize("seed", SEEDS)
def test_the_seeds_are_valid(seed, tmp_path):
    assert check(seed, tmp_path)


def test_mutants(tmp_path):
    run(1_500, tmp_path)


@pytest.mark.full
def test_twenty_thousand_mutants(tmp_path):
    run(20_000, tmp_path)
