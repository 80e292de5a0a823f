"""Names of layers whose libraries would define one symbol are refused, and no others."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import pytest
from header_symbols import defined_symbols
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from libraries import FakeToolchain
from model_specs import attention, linear, model_text

from vqcc.codegen.model_header import render_model_embedded, render_model_header
from vqcc.diagnostics import Diagnostic, VqccError
from vqcc.models import Model, load, parse_any
from vqcc.models.building import build_model
from vqcc.models.names import headers_of

#: Layers that cannot stand together: kinds and names of two, and a symbol that both libraries would define.
HOSTILE = [
    ("attention", "attention", "attention", "attention-sliding", "SMALL_ATTENTION_SLIDING_WINDOW"),
    ("attention", "a", "attention", "a-append", "SMALL_A_APPEND_KEY_BOOKS_BYTES"),
    ("attention", "a", "attention", "a_select", "small_a_select_append"),
    ("attention", "a", "attention", "a-supports", "small_a_supports_append"),
    ("attention", "a", "linear", "a-append", "small_a_append_args"),
    ("attention", "a", "linear", "a-append-key", "SMALL_A_APPEND_KEY_BOOKS_BYTES"),
    ("attention", "a", "linear", "a_append_value", "SMALL_A_APPEND_VALUE_BOOKS_BYTES"),
    ("attention", "a", "linear", "a-key", "SMALL_A_KEY_BOOKS_BYTES"),
    ("attention", "a", "linear", "a-value", "SMALL_A_VALUE_BOOKS_BYTES"),
    ("attention", "a", "linear", "a-find", "small_a_find_gpu"),
    ("attention", "a", "linear", "a-embedded", "SMALL_A_EMBEDDED_BUILD_ID"),
    ("linear", "down", "linear", "down-stage", "SMALL_DOWN_STAGE_SCALES_BYTES"),
    ("linear", "gate-up", "linear", "gate_up_stage", "SMALL_GATE_UP_STAGE_SCALES_BYTES"),
    ("linear", "q", "linear", "q-find", "small_q_find_gpu"),
    ("linear", "q", "linear", "q-embedded", "SMALL_Q_EMBEDDED_BUILD_ID"),
    ("linear", "q", "attention", "q-embedded", "SMALL_Q_EMBEDDED_BUILD_ID"),
    ("linear", "q", "attention", "q-find", "small_q_find_gpu"),
]  # fmt: skip
#: Layers that can.
HARMLESS = [
    ("linear", "gate", "linear", "gate-up"),
    ("linear", "down", "linear", "downstage"),
    ("linear", "down", "linear", "down-stages"),
    ("linear", "down", "linear", "down-stage-scales"),
    ("linear", "down", "linear", "up-stage"),
    ("linear", "down", "attention", "down-stage"),
    ("linear", "q", "linear", "q-append"),
    ("linear", "q", "linear", "q-key"),
    ("linear", "q", "linear", "q-load"),
    ("linear", "q", "linear", "q-error"),
    ("linear", "q", "linear", "q-max"),
    ("linear", "q", "attention", "q-sliding"),
    ("attention", "attention", "attention", "attention-2"),
    ("attention", "attention", "attention", "attentionsliding"),
    ("attention", "attention", "attention", "sliding-attention"),
    ("attention", "attention", "linear", "attention-sliding"),
    ("attention", "a", "attention", "a-key"),
    ("attention", "a", "attention", "a-block"),
]
#: Layers whose libraries would define what the model's own header does.
OF_MODELS = [
    (["linear"], "linear", "small_linear_args"),
    (["begin"], "begin", "small_begin_load"),
    (["embedded"], "embedded", "SMALL_EMBEDDED_H_"),
    (["q", "shape_q"], "shape_q", "SMALL_SHAPE_Q_K"),
    (["q_n", "layer_q"], "layer_q", "SMALL_LAYER_Q_N"),
    (["layer", "ok"], "layer", "SMALL_LAYER_OK"),
]


def layers_of(*kinds_and_names: tuple[str, str]) -> dict[str, Any]:
    """Layers of these kinds and names, each with kernels of its own."""
    return {
        name: linear(64 + 8 * number) if kind == "linear" else attention(4 + 4 * number, 4)
        for number, (kind, name) in enumerate(kinds_and_names)
    }


def parse(layers: dict[str, Any], **more: Any) -> Model:
    model = parse_any(model_text(layers, **more), "small.yaml")
    assert isinstance(model, Model)
    return model


def wrong(layers: dict[str, Any], **more: Any) -> list[Diagnostic]:
    try:
        parse(layers, **more)
    except VqccError as error:
        return list(error.diagnostics)
    return []


def places(layers: dict[str, Any], **more: Any) -> list[tuple[str, str]]:
    """Codes of what is wrong, and what stands there."""
    lines = model_text(layers, **more).decode().splitlines()
    spans = [(item.code, item.span) for item in wrong(layers, **more)]
    return [
        (code, "" if span is None else lines[span.line - 1][span.column - 1 : span.end_column].strip('":,'))
        for code, span in spans
    ]


@pytest.mark.parametrize("turned", [False, True], ids=["as listed", "the other first"])
@pytest.mark.parametrize(("kind", "name", "other_kind", "other", "symbol"), HOSTILE)
def test_layers_that_would_define_one_symbol(
    kind: str, name: str, other_kind: str, other: str, symbol: str, turned: bool
) -> None:
    """It is said of the later one; the message has both, and a symbol."""
    pairs = [(kind, name), (other_kind, other)]
    pairs = pairs[::-1] if turned else pairs
    (item,) = wrong(layers_of(*pairs))
    first, second = (each for _, each in pairs)
    assert places(layers_of(*pairs)) == [("VQ0208", second)]
    assert item.message == f"the headers of the layers {first} and {second} would both define {symbol}"
    assert item.help == "rename one of the two: a library's symbols begin with its name"


@pytest.mark.parametrize(("kind", "name", "other_kind", "other"), HARMLESS)
def test_layers_with_names_close_to_each_other(kind: str, name: str, other_kind: str, other: str) -> None:
    assert wrong(layers_of((kind, name), (other_kind, other))) == []


@pytest.mark.parametrize(("names", "name", "symbol"), OF_MODELS)
def test_layers_that_would_define_what_the_model_does(names: list[str], name: str, symbol: str) -> None:
    layers = layers_of(*(("linear", each) for each in names))
    (item,) = wrong(layers)
    assert places(layers) == [("VQ0208", name)]
    assert item.message == (
        f"a layer cannot be called '{name}': its header and the model's would both define {symbol}"
    )
    assert item.help == f"use {name}_proj or the like"


def test_layers_without_a_library_have_no_symbols() -> None:
    """Here the two have the same kernels."""
    assert wrong({"down": linear(), "down-stage": linear()}) == []
    assert places({"down": linear(), "down-stage": linear(128)}) == [("VQ0208", "down-stage")]


def test_parts_of_fused_layers_have_no_symbols() -> None:
    layers = {"down": linear(), "down-stage": linear(128), "o": linear(72)}
    assert wrong(layers, fuse={"both": ["down-stage", "o"]}) == []
    fuse = {"down-find": ["down-stage", "o"]}
    assert places(layers, fuse=fuse) == [("VQ0208", "down-find")]
    # Nor have those that cannot be fused as they are.
    assert places(layers, fuse={"both": ["down-stage", "p"]}) == [("VQ0218", "p")]


def test_every_library_is_told_of_and_all_else_that_is_wrong() -> None:
    """Also of layers that are wrong themselves, and under `p` in a model whose name is."""
    names = ("down", "down-stage", "down-find", "begin")
    layers = {
        **layers_of(*(("linear", name) for name in names)),
        "other": linear(level="o9"),
        "other-find": linear(k=250),
    }
    assert places(layers, name="vqcc-model", tensor_parallel=0) == [
        ("VQ0208", "vqcc-model"),
        ("VQ0208", "down-stage"),
        ("VQ0208", "down-find"),
        ("VQ0208", "begin"),
        ("VQ0206", "o9"),
        ("VQ0208", "other-find"),
        ("VQ0303", "250"),
        ("VQ0204", "0"),
    ]
    found = [item.message for item in wrong(layers, name="vqcc-model")]
    assert (
        "the headers of the layers down and down-stage would both define P_DOWN_STAGE_SCALES_BYTES" in found
    )


def test_layers_that_are_wrong_alike_will_share_a_library() -> None:
    wrong_size = {"down": linear(k=250), "down-stage": linear(k=250)}
    assert places(wrong_size) == [("VQ0303", "250")] * 2
    assert places({**wrong_size, "down-stage": linear(128, k=250)}) == [
        ("VQ0303", "250"),
        ("VQ0208", "down-stage"),
        ("VQ0303", "250"),
    ]
    fuse = {"both": ["down", "down-stage"]}
    assert places({**wrong_size, "down-stage": linear(128, k=250)}, fuse=fuse) == [("VQ0303", "250")] * 2


@pytest.mark.parametrize("op", [None, 5, {}, {"kind": 5}, {"kind": "gem"}, {"kind": []}])
def test_layers_of_no_known_op_have_no_symbols(op: Any) -> None:
    layers = {"down": linear(), "down-stage": {"algorithm": "aqlm-2x8", "op": op}}
    assert "VQ0208" not in [item.code for item in wrong(layers)]


@pytest.mark.parametrize(
    "fuse", [5, [], {"both": 5}, {"both": [5, ["down"]]}, {"both": ["down", "down-stage", 5]}]
)
def test_a_wrong_list_of_what_is_fused_is_no_matter(fuse: Any) -> None:
    found = places({"down": linear(), "down-stage": linear(128)}, fuse=fuse)
    assert ("VQ0208" in [code for code, _ in found]) == (fuse != {"both": ["down", "down-stage", 5]})
    assert {code for code, _ in found} & {"VQ0203"}


def test_names_that_are_one_in_c_are_told_of_once() -> None:
    assert places({"q-a": linear(), "q_a": linear(128)}) == [("VQ0210", "q_a")]


@pytest.mark.parametrize("name", ["vqcc", "vqcc-weights", "vqcc_json"])
def test_no_model_begins_as_our_headers(name: str) -> None:
    assert places({"q": linear()}, name=name) == [("VQ0208", name)]
    assert wrong({name: linear()}) == []  # which is small-vqcc in C, and so on


@cache
def headers_of_kinds() -> dict[str, str]:
    """All that is in the headers of a library of each kind, whose layer is called as its kind is."""
    files = build_model(
        parse({"one": linear(), "two": attention()}),
        toolchain=FakeToolchain(),
        cache=None,
        emit=("header", "array", "ptx"),
    ).files
    return {
        kind: "".join(files[f"{name}/small-{name}{end}"].decode() for end in (".h", ".embedded.h"))
        for kind, name in (("linear", "one"), ("attention", "two"))
    }


def defined_by_library(kind: str, name: str) -> frozenset[str]:
    """What the headers of the library of a layer `name` define."""
    own, identifier = {"linear": "one", "attention": "two"}[kind], name.replace("-", "_")
    text = headers_of_kinds()[kind]
    text = text.replace(f"small_{own}", f"small_{identifier}")
    return defined_symbols(text.replace(f"SMALL_{own.upper()}", f"SMALL_{identifier.upper()}"))


def defined_by_model(layers: dict[str, Any]) -> frozenset[str]:
    """What a model's own headers define, whatever its layers are called."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(load, "shared_symbols", lambda *_: ())
        model = parse(layers)
    build_ids = dict.fromkeys(layers, "0")
    headers = render_model_header(model, "0", build_ids) + render_model_embedded(model, build_ids)
    return defined_symbols(headers)


def words() -> list[str]:
    """Beginnings of what symbols go on with after a name."""
    model = parse({"one": linear(), "two": attention()})
    found = set()
    for headers in headers_of(model):
        for symbol in headers.symbols:
            parts = symbol.lower().removeprefix(f"{headers.identifier}_").strip("_").split("_")
            found |= {"_".join(parts[:count]) for count in range(1, len(parts) + 1)}
    return sorted(word for word in found if word)


KINDS = st.sampled_from(["linear", "attention"])
NAMES = st.tuples(
    st.sampled_from(["", "q_", "q-", "q_h200_", "shape_", "layer-"]), st.sampled_from(words())
).map("".join)


@settings(max_examples=60)
@given(
    kind=KINDS,
    others=st.lists(
        st.tuples(KINDS, NAMES), min_size=6, max_size=12, unique_by=lambda layer: layer[1].replace("-", "_")
    ),
)
def test_names_are_refused_where_headers_share_a_symbol_and_only_there(
    kind: str, others: list[tuple[str, str]]
) -> None:
    """Of one linear layer at least: without any, a model's header lacks functions that names are kept free for."""
    every = [("linear", "up"), (kind, "q"), *(layer for layer in others if layer[1] not in {"up", "q"})]
    found = wrong(layers_of(*every))
    assume(not any("reserves" in item.message for item in found))  # as C does `static` or `float`
    headers = {name: defined_by_library(kind, name) for kind, name in every}
    of_model = defined_by_model(layers_of(*every))
    expected = {
        f"the headers of the layers {first} and {second} would both define {min(headers[first] & headers[second])}"
        for first, second in itertools.combinations(headers, 2)
        if headers[first] & headers[second]
    } | {
        f"a layer cannot be called '{name}': its header and the model's would both define {min(symbols & of_model)}"
        for name, symbols in headers.items()
        if symbols & of_model
    }
    assert {item.message for item in found} == expected
    assert {item.code for item in found} <= {"VQ0208"}
    if not expected:
        assert sum(map(len, headers.values())) == len(frozenset[str]().union(*headers.values()))
