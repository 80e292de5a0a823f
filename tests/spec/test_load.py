"""From a file to a Spec: what a good one means, overrides, and errors of several parts at once."""

from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest

from vqcc import gpus
from vqcc.diagnostics import VqccError, render_text
from vqcc.gpus.model import Gpu
from vqcc.levels import LEVELS
from vqcc.problem import Boundaries
from vqcc.spec.load import load_algorithm, load_spec, parse_spec

GOOD = """\
# A comment.
vqcc: 1
name: llama7b-aqlm3-gemv
algorithm: aqlm-3
op: {kind: gemv, m: [1, 4, 16], n: 11008, k: 4096, dtype: [float16, bfloat16]}
gpu: [rtx4090, h200]
level: gc
"""


def parse(text, **options):
    return parse_spec(text.encode(), "spec.yaml", **options)


def problems(text, **options):
    with pytest.raises(VqccError) as caught:
        parse(text, **options)
    return [
        (item.code, item.span and (item.span.line, item.span.column)) for item in caught.value.diagnostics
    ]


def inline(**changes):
    facts = gpus.load("h100").facts()
    limits = {name: fact.value for name, fact in facts.items()}
    return json.dumps(
        {"name": "mine", "compute_capability": "9.0", "dtypes": ["float16"], **limits, **changes}
    )


def test_a_good_spec():
    spec = parse(GOOD)
    assert (spec.vqcc, spec.name, spec.identifier, spec.level) == (
        1,
        "llama7b-aqlm3-gemv",
        "llama7b_aqlm3_gemv",
        "gc",
    )
    assert (spec.algorithm.vector_size, spec.algorithm.entries, spec.algorithm.residuals) == (8, 4096, 2)
    assert spec.op.m == (1, 4, 16)
    assert spec.op.weight_shape == (11008, 4096)
    assert [gpu.name for gpu in spec.gpu] == ["rtx4090", "h200"]


def test_one_value_stands_for_a_list_of_one():
    spec = parse(GOOD.replace("[1, 4, 16]", "4").replace("[float16, bfloat16]", "bfloat16"))
    assert (spec.op.m, spec.op.dtype) == ((4,), ("bfloat16",))


def test_the_level_has_a_default():
    """One that every algorithm and GPU can have."""
    assert parse(GOOD.replace("level: gc\n", "")).level == "best"
    assert parse(GOOD.replace("aqlm-3", "aqlm-1x16").replace("level: gc\n", "")).level == "best"


@pytest.mark.parametrize("level", LEVELS)
def test_every_level(level):
    good = GOOD.replace("aqlm-3", "aqlm-2x8")
    assert parse(good.replace("level: gc", f"level: {level}")).level == level
    assert parse(good, level_override=level).level == level


@pytest.mark.parametrize("level", [level for level in LEVELS if level != "sc"])
def test_a_book_past_shared_memory_is_only_sc_s_problem(level):
    assert parse(GOOD, level_override=level).level == level


WITHOUT_LEVEL = GOOD.replace("level: gc\n", "")


@pytest.mark.parametrize(
    ("text", "options", "place", "labels"),
    [
        (GOOD.replace("gc", "sc"), {}, (7, 8), [None]),
        (GOOD.replace("gc", "sc"), {"gpu_override": ("l40s",)}, (7, 8), [None]),
        (GOOD, {"level_override": "sc"}, (7, 8), ["sc was asked for instead"]),
        (WITHOUT_LEVEL, {"level_override": "sc"}, (6, 7), [None]),
        (WITHOUT_LEVEL.replace("[rtx4090, h200]", "rtx4090"), {"level_override": "sc"}, (6, 6), [None]),
        (
            WITHOUT_LEVEL,
            {"level_override": "sc", "gpu_override": ("l40s", "h200", "a40")},
            (6, 6),
            ["l40s was asked for instead", "a40 was asked for instead"],
        ),
    ],
)
def test_a_level_that_a_gpu_cannot_have_is_shown_at_what_was_overridden(text, options, place, labels):
    """Not at a line that has nothing to do with it."""
    assert set(problems(text, **options)) == {("VQ0403", place)}
    with pytest.raises(VqccError) as caught:
        parse(text, **options)
    assert [item.label for item in caught.value.diagnostics] == labels


@pytest.mark.parametrize(
    ("written", "wanted"), [("{name: h200}", "gpu: h200"), ("[{name: h200}, a100]", "h200")]
)
def test_a_built_in_gpu_as_a_mapping_is_to_be_its_name(written, wanted):
    """Its limits need not be given, so nothing is said of those that are missing."""
    with pytest.raises(VqccError) as caught:
        parse(GOOD.replace("[rtx4090, h200]", written))
    (item,) = caught.value.diagnostics
    assert item.code == "VQ0404"
    assert item.help == f"write {wanted}, or describe yours in full by another name"


def test_cache_boundaries():
    good = GOOD.replace("level: gc", "level: o4")
    assert parse(good).cache is None
    assert parse(good).boundaries == Boundaries(None, None)
    for cache, expected in (
        ("{registers: 16}", Boundaries(16, None)),
        ("{shared: 0}", Boundaries(None, 0)),
        ("{registers: 64, shared: 4096}", Boundaries(64, 4096)),
        ("{registers: null, shared: 3}", Boundaries(None, 3)),
    ):
        assert parse(f"{good}cache: {cache}\n").boundaries == expected


def test_cache_boundaries_are_of_the_level_that_is_built():
    text = f"{GOOD}cache: {{shared: 16}}\n"
    assert problems(text) == [("VQ0315", (8, 8))]
    assert parse(text, level_override="o2").boundaries == Boundaries(None, 16)
    good = text.replace("level: gc", "level: o2")
    assert parse(good).level == "o2"
    assert problems(good, level_override="gc") == [("VQ0315", (8, 8))]


def test_a_cache_too_large_for_one_of_the_gpus():
    text = GOOD.replace("level: gc", "level: o2").replace("aqlm-3", "vq-16-12-1")
    assert parse(f"{text}cache: {{shared: 3168}}\n").boundaries.shared == 3168  # 99 KiB, all of an RTX 4090's
    assert problems(f"{text}cache: {{shared: 3169}}\n") == [("VQ0406", (8, 17))]
    assert parse(f"{text}cache: {{shared: 4096}}\n", gpu_override=("h200",)).boundaries.shared == 4096


def test_json_is_yaml():
    data = {
        "vqcc": 1,
        "name": "a",
        "algorithm": {
            "family": "kmeans",
            "vector_size": 4,
            "entries": 16,
            "scope": "tensor",
            "scales": "row",
        },
        "op": {"kind": "gemv", "m": [1], "n": 8, "k": 8},
        "gpu": "h200",
    }
    assert parse(json.dumps(data)).algorithm.entries == 16
    assert parse(json.dumps(data, indent=2)) == parse(json.dumps(data))


@pytest.mark.parametrize(
    "preset", ["aqlm-2x8", "aqlm-1x16", "gptvq-2", "gptvq-4", "quip-2", "quip-4", "vq-4-8-1"]
)
def test_presets(preset):
    by_name = parse(GOOD.replace("aqlm-3", preset))
    in_full = parse(GOOD.replace("aqlm-3", json.dumps(by_name.algorithm.mapping())))
    assert in_full.algorithm == by_name.algorithm


def test_a_gpu_inline():
    spec = parse(GOOD.replace("[rtx4090, h200]", inline(sm_count=66)).replace(", bfloat16", ""))
    (gpu,) = spec.gpu
    assert isinstance(gpu, Gpu)
    assert (gpu.name, gpu.sm, gpu.sm_count.integer, gpu.sm_count.confidence) == ("mine", 90, 66, "user")


def test_gpus_by_name_and_inline_together():
    spec = parse(GOOD.replace("[rtx4090, h200]", f"[a40, {inline()}]").replace(", bfloat16", ""))
    assert [gpu.name for gpu in spec.gpu] == ["a40", "mine"]


def test_a_bad_inline_gpu_is_shown_where_it_is_bad():
    text = GOOD.replace("[rtx4090, h200]", "\n  - " + inline(sm_count=0))
    column = text.splitlines()[6].index('"sm_count": 0') + 13
    assert problems(text) == [("VQ0204", (7, column))]


def test_sixteen_gpus_are_the_most():
    many = [inline(name=f"mine{index}") for index in range(17)]
    text = GOOD.replace(", bfloat16", "")
    assert len(parse(text.replace("[rtx4090, h200]", f"[{', '.join(many[:16])}]")).gpu) == 16
    assert problems(text.replace("[rtx4090, h200]", f"[{', '.join(many)}]")) == [("VQ0209", (6, 6))]


def test_override_of_gpus():
    assert [gpu.name for gpu in parse(GOOD, gpu_override=("a100", "b200", "a100")).gpu] == ["a100", "b200"]
    text = GOOD.replace("[rtx4090, h200]", f"[a40, {inline()}]").replace(", bfloat16", "")
    assert [gpu.name for gpu in parse(text, gpu_override=("mine",)).gpu] == ["mine"]
    assert problems(GOOD, gpu_override=("h20", "h200")) == [("VQ0401", None)]
    assert problems(GOOD.replace("h200", "h20"), gpu_override=("a40",)) == [("VQ0401", (6, 16))]
    assert [
        gpu.name for gpu in parse(GOOD.replace("gpu: [rtx4090, h200]\n", ""), gpu_override=("a40",)).gpu
    ] == ["a40"]


def test_override_of_the_level():
    good = GOOD.replace("aqlm-3", "aqlm-2x8")
    assert parse(good, level_override="sc").level == "sc"
    assert parse(good.replace("level: gc", "level: o9"), level_override="sc").level == "sc"
    with pytest.raises(VqccError) as caught:
        parse(GOOD, level_override="SC")
    (item,) = caught.value.diagnostics
    assert (item.code, item.span) == ("VQ0206", None)
    assert item.help == "did you mean 'sc'? use gc, sc, o1, o2, o3, o4 or best"


def test_checks_are_of_the_gpus_that_are_built_for():
    text = GOOD.replace("[rtx4090, h200]", f"[a40, {inline()}]")
    assert problems(text) == [("VQ0308", (5, 59))]
    assert parse(text, gpu_override=("a40",)).op.dtype == ("float16", "bfloat16")


def test_a_problem_of_several_gpus_is_reported_once():
    assert problems(GOOD.replace("k: 4096", "k: 4095")) == [("VQ0303", (5, 46))]


def test_a_problem_of_a_preset_is_shown_at_its_name():
    text = GOOD.replace("aqlm-3", "aqlm-3-").replace("k: 4096", "k: 4095")
    assert problems(text) == [("VQ0301", (4, 12))]


def test_a_part_that_is_wrong_is_not_called_missing():
    assert problems(GOOD.replace("n: 11008", "n: 0")) == [("VQ0204", (5, 36))]
    assert problems(GOOD.replace("[rtx4090, h200]", "h20")) == [("VQ0401", (6, 6))]


def test_parts_are_checked_as_far_as_they_are_there():
    text = (
        "algorithm: {family: kmeans, vector_size: 4, entries: 16, scope: {rows: 4, cols: 6}, scales: row}\n"
    )
    assert problems(text) == [("VQ0202", (1, 1)), ("VQ0304", (1, 81))]


def test_several_parts_at_once_are_in_the_order_of_the_file():
    text = (
        GOOD.replace("vqcc: 1", "vqcc: 2")
        .replace("k: 4096", "k: 4095")
        .replace("gc", "cg")
        .replace("rtx", "gtx")
    )
    assert problems(text) == [("VQ0213", (2, 7)), ("VQ0303", (5, 46)), ("VQ0401", (6, 7)), ("VQ0206", (7, 8))]


def test_a_misspelt_field_is_reported_once():
    assert problems(GOOD.replace("name:", "nmae:")) == [("VQ0201", (3, 1))]
    with pytest.raises(VqccError) as caught:
        parse(GOOD.replace("name:", "nmae:"))
    assert caught.value.diagnostics[0].help == "did you mean 'name'?"


def test_nothing_but_names_of_fields():
    text = "vqcc:\nname:\nalgorithm:\nop:\ngpu:\nlevel:\n"
    assert [code for code, _ in problems(text)] == [
        "VQ0213",
        "VQ0203",
        "VQ0203",
        "VQ0203",
        "VQ0203",
        "VQ0206",
    ]


def test_files(tmp_path):
    file = tmp_path / "spec.yaml"
    file.write_text(GOOD)
    assert load_spec(file) == parse(GOOD)
    assert load_algorithm(file) == parse(GOOD).algorithm
    with pytest.raises(VqccError) as caught:
        load_spec(tmp_path / "gone.yaml")
    assert "No such file" in render_text(caught.value.diagnostics, color=False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("algorithm: aqlm-3\nop: nonsense\n", None),
        ("name: only\n", [("VQ0202", (1, 1))]),
        ("- a\n", [("VQ0203", (1, 1))]),
        ("algorithm: aqlm-9\n", [("VQ0301", (1, 12))]),
        ("algorithm: {family: kmeans}\n", [("VQ0202", (1, 12))]),
        (
            "algorithm: {family: kmeans, vector_size: 4, entries: 16, scope: tensor, scales: {group: 6}}\n",
            [("VQ0309", (1, 89))],
        ),
    ],
)
def test_only_the_algorithm_of_a_spec(tmp_path, text, expected):
    file = tmp_path / "spec.yaml"
    file.write_text(text)
    if expected is None:
        assert load_algorithm(file).vector_size == 8
        return
    with pytest.raises(VqccError) as caught:
        load_algorithm(file)
    assert [(item.code, (item.span.line, item.span.column)) for item in caught.value.diagnostics] == expected


def test_a_spec_does_not_change():
    spec = parse(GOOD)
    with pytest.raises(ValueError, match="frozen"):
        spec.level = "sc"
    assert hash(spec.algorithm) == hash(parse(GOOD).algorithm)


def test_parsing_takes_milliseconds():
    parse(GOOD)
    best = min(timed(lambda: parse(GOOD)) for _ in range(20))
    assert best < 0.015


def timed(work):
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def test_reading_a_spec_imports_nothing_heavy():
    program = (
        "import sys; from vqcc.spec.load import parse_spec; "
        f"parse_spec({GOOD.encode()!r}, 'spec.yaml'); "
        "print(sorted({name.split('.')[0] for name in sys.modules}))"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    for heavy in (
        "numpy",
        "faiss",
        "cuda",
        "matplotlib",
        "rich",
        "jinja2",
        "click",
        "ml_dtypes",
        "safetensors",
    ):
        assert f"'{heavy}'" not in loaded


def test_specs_are_equal_wherever_their_parts_stand():
    text = GOOD.replace("level: gc", "level: o2") + "cache: {shared: 16}\n"
    moved = f"# a line more\n{text}"
    assert parse_spec(text.encode(), "one.yaml") == parse_spec(moved.encode(), "other.yaml")
    assert parse(text) != parse(text.replace("16}", "17}"))
