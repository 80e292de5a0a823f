"""Specs of whole models: what ranks have of layers, what is fused, which share a library, and every way to be wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_specs import attention, linear, model_text

from vqcc.diagnostics import VqccError
from vqcc.models import Layer, Model, Part, load_any, parse_any
from vqcc.spec.load import parse_spec
from vqcc.spec.model import Spec

READY = sorted((Path(__file__).parents[2] / "specs").glob("*.yaml"))


def parse(layers: dict[str, Any], **more: Any) -> Model:
    model = parse_any(model_text(layers, **more), "model.yaml")
    assert isinstance(model, Model)
    return model


def refused(layers: dict[str, Any], /, **more: Any) -> list[tuple[str, str]]:
    """Codes of what is wrong, and the lines where."""
    text = model_text(layers, **more)
    with pytest.raises(VqccError) as error:
        parse_any(text, "model.yaml")
    lines = text.decode().splitlines()
    return [
        (item.code, "" if item.span is None else lines[item.span.line - 1].strip())
        for item in error.value.diagnostics
    ]


def own(model: Model, name: str) -> Layer:
    return next(layer for layer in model.layers if layer.name == name)


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_ready_specs(path: Path) -> None:
    spec = load_any(path)
    assert spec.name == path.stem
    if isinstance(spec, Model):
        kinds = {layer.spec.op.kind for layer in spec.layers}
        assert kinds == {"linear", "attention_decode"}


def test_a_spec_of_a_library_is_one_as_before() -> None:
    text = b"{vqcc: 1, name: gate, algorithm: aqlm-2x8, gpu: h200, op: {kind: gemv, m: 1, n: 64, k: 256}}"
    assert parse_any(text, "gate.yaml") == parse_spec(text, "gate.yaml")
    assert isinstance(parse_any(text, "gate.yaml"), Spec)


def test_layers_take_what_the_file_says_once() -> None:
    model = parse({"a": linear(), "b": linear(level="gc")}, gpu=["h200", "a100"])
    assert [layer.spec.level for layer in model.layers] == ["sc", "gc"]
    assert [layer.spec.name for layer in model.layers] == ["small-a", "small-b"]
    assert all([gpu.name for gpu in layer.spec.gpu] == ["h200", "a100"] for layer in model.layers)
    over = parse_any(
        model_text({"a": linear(level="gc")}), "model.yaml", gpu_override=("a100",), level_override="o4"
    )
    assert isinstance(over, Model)
    assert ([gpu.name for gpu in over.gpu], over.layers[0].spec.level) == (["a100"], "o4")


def test_layers_of_the_same_kernels_share_a_library() -> None:
    model = parse({"q": linear(), "o": linear(), "down": linear(128), "gc": linear(level="gc")})
    assert {name: owner.name for name, owner in model.owners.items()} == {
        "q": "q",
        "o": "q",
        "down": "down",
        "gc": "gc",
    }
    assert [layer.name for layer in model.libraries] == ["q", "down", "gc"]


@given(ranks=st.sampled_from([1, 2, 4, 8]))
def test_ranks_have_equal_parts(ranks: int) -> None:
    layers = {
        "column": linear(64, 512, parallel="column"),
        "row": linear(64, 512, parallel="row"),
        "whole": linear(64, 512),
        "heads": attention(16, 8, parallel="heads"),
    }
    model = parse(layers, tensor_parallel=ranks)
    shapes = {layer.name: layer.spec.over_weights for layer in model.layers}
    found = {name: (own[1].n, own[1].k) for name, own in shapes.items() if own is not None}
    assert found == {"column": (64 // ranks, 512), "row": (64, 512 // ranks), "whole": (64, 512)}
    op = own(model, "heads").spec.op
    assert (op.q_heads, op.kv_heads) == (16 // ranks, 8 // ranks)
    assert {layer.name: layer.adds for layer in model.layers} == {
        "column": False,
        "row": ranks > 1,
        "whole": False,
        "heads": False,
    }
    assert [layer.parallel for layer in model.layers] == ["column", "row", None, "heads"]


@given(sizes=st.lists(st.integers(1, 6), min_size=2, max_size=5), ranks=st.sampled_from([1, 2, 4]))
def test_outputs_of_fused_layers_lie_side_by_side(sizes: list[int], ranks: int) -> None:
    layers = {f"part{i}": linear(64 * size, parallel="column") for i, size in enumerate(sizes)}
    layers = {"first": linear(), **layers, "last": linear()}
    parts = [f"part{i}" for i in range(len(sizes))]
    model = parse(layers, fuse={"joined": parts}, tensor_parallel=ranks)
    assert [layer.name for layer in model.layers] == ["first", "joined", "last"]
    joined = own(model, "joined")
    rows = [64 * size // ranks for size in sizes]
    firsts = [sum(rows[:i]) for i in range(len(rows))]
    assert joined.parts == tuple(map(Part, parts, firsts, rows))
    assert joined.spec.over_weights is not None
    assert joined.spec.over_weights[1].n == sum(rows)
    assert joined.spec.name == "small-joined"
    assert joined.parallel == "column"


def test_what_takes_one_layer_refuses_a_model() -> None:
    with pytest.raises(VqccError) as error:
        parse_spec(model_text({"a": linear()}), "model.yaml")
    (item,) = error.value.diagnostics
    assert (item.code, item.span.line if item.span else 0) == ("VQ0219", 6)


@pytest.mark.parametrize(
    ("layers", "more", "found"),
    [
        ({}, {}, [("VQ0209", '"layers": {}')]),
        ({"a": linear()}, {"layers": 5}, [("VQ0203", '"layers": 5')]),
        ({"a": 5}, {}, [("VQ0203", '"a": 5')]),
        ({"a": linear()}, {"gpu": None}, [("VQ0202", "{")]),
        ({"a": linear(), "b": linear()}, {"gpu": "h2"}, [("VQ0401", '"gpu": "h2",')]),
        ({"a": linear(), "b": linear()}, {"level": "o9"}, [("VQ0206", '"level": "o9",')]),
        ({"a": linear()}, {"name": "9"}, [("VQ0207", '"name": "9",')]),
        ({"a": linear()}, {"vqcc": 2}, [("VQ0213", '"vqcc": 2,')]),
        ({"a": linear()}, {"tensor_parallel": 0}, [("VQ0204", '"tensor_parallel": 0')]),
        ({"a": linear()}, {"tensor_parallel": 1.5}, [("VQ0203", '"tensor_parallel": 1.5')]),
        ({"a": linear()}, {"fused": {}}, [("VQ0201", '"fused": {}')]),
        ({"A": linear()}, {}, [("VQ0207", '"A": {')]),
        ({"linear": linear()}, {}, [("VQ0208", '"linear": {')]),
        *(
            ({"a": linear(), "b": linear()}, {"fuse": {name: ["a", "b"]}}, [(code, f'"{name}": [')])
            for name, code in (("QKV", "VQ0207"), ("int", "VQ0208"), ("linear", "VQ0208"), ("../x", "VQ0207"))
        ),
        (
            {"a-b": linear(), "c": linear(), "d": linear()},
            {"fuse": {"a_b": ["c", "d"]}},
            [("VQ0210", '"a_b": [')],
        ),
        ({"a": linear(gpu="a100")}, {}, [("VQ0201", '"gpu": "a100"')]),
        ({"a": linear(name="b")}, {}, [("VQ0201", '"name": "b"')]),
        ({"a": linear(vqcc=1)}, {}, [("VQ0201", '"vqcc": 1')]),
        ({"a": linear()}, {"vqcc": None}, [("VQ0202", "{")]),
        # what else is wrong with a layer that cannot be divided is told too
        (
            {"a": linear(parallel="heads", level="o9")},
            {},
            [("VQ0216", '"parallel": "heads",'), ("VQ0206", '"level": "o9"')],
        ),
        ({"q-a": linear(), "q_a": linear()}, {}, [("VQ0210", '"q_a": {')]),
        ({"a": linear(k=250), "b": linear(k=250)}, {}, [("VQ0303", '"k": 250')] * 2),
        ({"a": {**linear(), "paralel": 1}}, {}, [("VQ0201", '"paralel": 1')]),
        ({"a": {"op": linear()["op"]}}, {}, [("VQ0202", '"a": {')]),
        ({"a": linear(parallel="heads")}, {}, [("VQ0216", '"parallel": "heads"')]),
        ({"a": attention(parallel="row")}, {}, [("VQ0216", '"parallel": "row"')]),
        ({"a": linear(parallel=3)}, {}, [("VQ0216", '"parallel": 3')]),
        (
            {"a": linear(65, parallel="column"), "b": attention(6, 3, parallel="heads")},
            {"tensor_parallel": 4},
            [("VQ0217", '"n": 65,'), ("VQ0217", '"q_heads": 6,'), ("VQ0217", '"kv_heads": 3,')],
        ),
        # what is left for a rank is checked as any shape is
        ({"a": linear(k=40, parallel="row")}, {"tensor_parallel": 2}, [("VQ0303", '"k": 40')]),
    ],
)
def test_what_is_wrong_is_said_at_its_place(
    layers: dict[str, Any], more: dict[str, Any], found: list[tuple[str, str]]
) -> None:
    assert refused(layers, **more) == found


@pytest.mark.parametrize(
    ("layers", "fuse", "text"),
    [
        ({}, {"a": ["b", "c"]}, "the fused layer a has the name of one of the layers"),
        ({}, {"d": ["a", "f"]}, "d fuses 'f', which is no layer"),
        ({}, {"d": ["a", "b"], "e": ["b", "c"]}, "e fuses b, which is fused already"),
        ({"b": linear(k=128)}, {"d": ["a", "b"]}, "d cannot fuse a and b: they differ in op.k (256 and 128)"),
        (
            {"b": linear(algorithm="aqlm-3", level="gc", parallel="column")},
            {"d": ["a", "b"]},
            "d cannot fuse a and b: they differ in algorithm (aqlm-2x8 and aqlm-3), level (sc and gc) and "
            "parallel (None and column)",
        ),
        ({"b": attention()}, {"d": ["a", "b"]}, "d fuses b, a layer of attention_decode"),
        (
            {"a": linear(parallel="row"), "b": linear(parallel="row")},
            {"d": ["a", "b"]},
            "d fuses a, of which ranks have other inputs each",
        ),
    ],
)
def test_what_cannot_be_fused(layers: dict[str, Any], fuse: dict[str, Any], text: str) -> None:
    three = {"a": linear(), "b": linear(), "c": linear()} | layers
    with pytest.raises(VqccError) as error:
        parse(three, fuse=fuse, tensor_parallel=2)
    (item,) = error.value.diagnostics
    assert (item.code, item.message) == ("VQ0218", text)
    assert item.help
    assert item.span is not None


@pytest.mark.parametrize(("fuse", "code"), [({"d": ["a"]}, "VQ0209"), ({"d": ["a", "a"]}, "VQ0210")])
def test_lists_of_parts(fuse: dict[str, Any], code: str) -> None:
    assert [found for found, _ in refused({"a": linear()}, fuse=fuse)] == [code]


def test_numbers_of_a_rank_are_explained() -> None:
    """The caret is at the whole, the message about a rank's part."""
    with pytest.raises(VqccError) as error:
        parse({"a": linear(k=500, parallel="row")}, tensor_parallel=2)
    (item,) = error.value.diagnostics
    assert item.message == "k = 250 is not a multiple of the vector size 8 (of each of 2 ranks: 500 / 2)"
    assert item.help is not None
    assert item.help.startswith("of a rank, 2 times as much in the file: ")


def test_fields_of_a_layer_are_named() -> None:
    for field, text in (
        ("paralel", "did you mean 'parallel'?"),
        ("gpu", "gpu is the model's: all layers have the same"),
    ):
        with pytest.raises(VqccError) as error:
            parse({"a": linear(**{field: "row"})})
        assert [item.help for item in error.value.diagnostics] == [text]


def test_fusing_is_told_of_beside_wrong_layers() -> None:
    layers = {"a": linear(k=250), "b": linear(), "c": linear()}
    found = refused(layers, fuse={"d": ["a", "b"], "e": ["b", "x"]})
    assert [code for code, _ in found] == ["VQ0303", "VQ0218"]


def test_all_layers_are_told_of_at_once() -> None:
    layers = {"a": linear(k=250), "b": linear(parallel="heads"), "c": {**linear(), "level": "o9"}}
    codes = [code for code, _ in refused(layers, tensor_parallel=0)]
    assert sorted(codes) == ["VQ0204", "VQ0206", "VQ0216", "VQ0303"]
