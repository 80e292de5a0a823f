"""Symbols that headers are said to define are those that they define; names that make shared ones are known."""

from __future__ import annotations

import itertools
import re
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cache_libraries import cache_spec_text
from header_symbols import defined_symbols
from libraries import FakeToolchain, spec_text
from model_specs import attention, linear, model_text

from vqcc.building import build_library
from vqcc.codegen.symbols import kernel_headers, library_headers, may_share, model_headers, shared_symbol
from vqcc.codegen.written_kernels import written_files
from vqcc.models import Model, parse_any
from vqcc.models.building import build_model
from vqcc.models.names import headers_of
from vqcc.spec.load import parse_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from vqcc.codegen.contract import Header
    from vqcc.codegen.symbols import Headers
    from vqcc.spec.model import Spec

GPUS = ["h200", "rtx4090"]
SPECS = {
    "linear": lambda name, **options: spec_text(name=name, **options),
    "attention": lambda name, **options: cache_spec_text(name=name, level="gc", **options),
}
#: By kinds of two libraries: words that make the second's name of the first's, and a symbol that both then define.
SHARED = {
    ("linear", "linear"): {"embedded": "A_EMBEDDED_BUILD_ID", "find": "a_find_gpu", "stage": "A_STAGE_SCALES_BYTES"},
    ("linear", "attention"): {"embedded": "A_EMBEDDED_BUILD_ID", "find": "a_find_gpu"},
    ("attention", "linear"): {
        "append": "a_append_args",
        "append_key": "A_APPEND_KEY_BOOKS_BYTES",
        "append_value": "A_APPEND_VALUE_BOOKS_BYTES",
        "embedded": "A_EMBEDDED_BUILD_ID",
        "find": "a_find_gpu",
        "key": "A_KEY_BOOKS_BYTES",
        "value": "A_VALUE_BOOKS_BYTES",
    },
    ("attention", "attention"): {
        "append": "A_APPEND_KEY_BOOKS_BYTES",
        "embedded": "A_EMBEDDED_BUILD_ID",
        "find": "a_find_gpu",
        "select": "a_select_append",
        "sliding": "A_SLIDING_WINDOW",
        "supports": "a_supports_append",
    },
}  # fmt: skip
PAIRS = [(*kinds, word) for kinds, words in SHARED.items() for word in words]


def spec_of(kind: str, name: str, gpu: object = "h200") -> Spec:
    return parse_spec(SPECS[kind](name, gpu=gpu).encode(), "spec.yaml")


def headers_under(files: Mapping[str, bytes], name: str) -> dict[str, str]:
    """The header of `name` and the one of what is embedded."""
    return {file: files[file].decode() for file in (f"{name}.h", f"{name}.embedded.h")}


def library(kind: str, name: str, *gpus: str) -> Headers:
    """All headers of a library of the C name `name`."""
    of: Header = "weights" if kind == "linear" else "cache"
    return library_headers(name, of, spec_of(kind, "a").op.header_template, gpus or ["h200"])


@cache
def built_headers(kind: str) -> dict[str, str]:
    """Headers of a library `some-name`."""
    spec = spec_of(kind, "some-name", GPUS)
    built = build_library(spec, toolchain=FakeToolchain(), cache=None, emit=("header", "array", "ptx"))
    return headers_under(built.files, "some-name")


def headers_called(kind: str, name: str) -> dict[str, str]:
    """The same of a library `name`."""
    identifier = name.replace("-", "_")
    words = (("some-name", name), ("some_name", identifier), ("SOME_NAME", identifier.upper()))
    called = {}
    for file, text in built_headers(kind).items():
        for old, new in words:
            file, text = file.replace(old, new), text.replace(old, new)  # noqa: PLW2901
        called[file] = text
    return called


def defined(headers: Mapping[str, str]) -> frozenset[str]:
    return frozenset[str]().union(*map(defined_symbols, headers.values()))


def words_of(headers: Headers) -> set[str]:
    """All that could follow the name in another name of which a symbol is one of these."""
    parts = [symbol.lower().split("_")[1:] for symbol in headers.symbols]
    return {"_".join(part[:count]) for part in parts for count in range(1, len(part) + 1)}


@pytest.mark.parametrize("kind", SPECS)
def test_symbols_are_what_headers_of_libraries_define(kind: str) -> None:
    (headers,) = headers_of(spec_of(kind, "some-name", GPUS))
    assert headers.symbols == defined(built_headers(kind))


def test_symbols_are_what_headers_of_models_define() -> None:
    text = model_text(
        {"q": linear(), "k-v": linear(128), "attention": attention(), "twin": linear()}, gpu=GPUS
    )
    model = parse_any(text, "small.yaml")
    assert isinstance(model, Model)
    built = build_model(model, toolchain=FakeToolchain(), cache=None, emit=("header", "array", "ptx"))
    own, *libraries = headers_of(model)
    assert own.symbols == defined(headers_under(built.files, "small"))
    for layer, headers in zip(model.libraries, libraries, strict=True):
        files = {name.removeprefix(f"{layer.name}/"): data for name, data in built.files.items()}
        assert headers.symbols == defined(headers_under(files, layer.spec.name))


def test_symbols_are_what_headers_of_kernels_define() -> None:
    cubins = {"sm_90": b"1", "sm_89": b"2"}
    files = written_files("own", "own", ["norm", "Rope_2"], cubins, arrays=True, machine=None)
    header = files["own.embedded.h"].decode()
    assert kernel_headers("own", ["norm", "Rope_2"], list(cubins)).symbols == defined_symbols(header)


def test_names_that_make_shared_symbols() -> None:
    """All that there are, and no others."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for kinds in itertools.product(SPECS, repeat=2):
        first = library(kinds[0], "a")
        for word in sorted(words_of(first)):
            symbol = shared_symbol(first, library(kinds[1], f"a_{word}"))
            if symbol is not None:
                found.setdefault(kinds, {})[word] = symbol
    assert found == SHARED


@pytest.mark.parametrize("first", ["short", "long"])
@pytest.mark.parametrize(("kind", "other", "word"), PAIRS)
def test_programs_with_shared_symbols_do_not_compile(
    kind: str, other: str, word: str, first: str, tmp_path: Path
) -> None:
    """Also where a compiler would but warn of it: macros are defined twice, and a program would read either."""
    names = ["a", f"a-{word}".replace("_", "-")]
    for name, of in zip(names, (kind, other), strict=True):
        for file, text in headers_called(of, name).items():
            (tmp_path / file).write_text(text)
    uses = [f"(void){name.replace('-', '_')}_load_embedded" for name in names]
    order = names if first == "short" else names[::-1]
    program = [
        *(f'#include "{name}.embedded.h"' for name in order),
        f"void f(void) {{ {'; '.join(uses)}; }}",
        "",
    ]
    (tmp_path / "program.c").write_text("\n".join(program))
    command = ["gcc", "-w", "-std=c99", "-fsyntax-only", f"-I{tmp_path}", tmp_path / "program.c"]
    assert subprocess.run(command, check=False, capture_output=True).returncode != 0


@pytest.mark.parametrize("kinds", list(itertools.product(SPECS, repeat=2)), ids=" and ".join)
def test_programs_with_names_close_to_each_other_compile(kinds: tuple[str, str], tmp_path: Path) -> None:
    names = ["a", "a-2", "a-up"]
    for name, of in zip(names, (*kinds, kinds[0]), strict=True):
        for file, text in headers_called(of, name).items():
            (tmp_path / file).write_text(text)
    (tmp_path / "program.c").write_text("".join(f'#include "{name}.embedded.h"\n' for name in names))
    command = ["gcc", "-Wall", "-Werror", "-std=c99", "-fsyntax-only", f"-I{tmp_path}"]
    subprocess.run([*command, tmp_path / "program.c"], check=True)


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a", "a", True),
        ("a", "a_b", True),
        ("a_b", "a", True),
        ("a", "ab", False),
        ("a_b", "a_c", False),
        ("a_b", "a_bc", False),
    ],
)
def test_only_names_that_go_on_as_others_may_share(one: str, other: str, expected: bool) -> None:
    assert may_share(one, other) == expected


def test_names_of_gpus_layers_and_kernels_are_words_of_symbols() -> None:
    """Here a GPU, a layer or a kernel is called as symbols go on."""
    gpus = library("linear", "a", "h200", "x_h200")
    assert shared_symbol(gpus, library("linear", "a_x")) == "a_x_h200_cubin"
    of_gpu = library("linear", "a", "n")
    assert shared_symbol(of_gpu, library("linear", "a_gpu", "n")) == "A_GPU_N"
    model = model_headers("a", ["q", "x_k"], ["q"])
    assert shared_symbol(model, library("linear", "a_shape_q")) == "A_SHAPE_Q_K"
    assert shared_symbol(model, library("linear", "a_shape_x_k")) is None
    assert shared_symbol(model, library("linear", "a_layer_x")) == "A_LAYER_X_K"
    kernels = kernel_headers("a", ["ok"], ["sm_90"])
    assert shared_symbol(kernels, kernel_headers("a_kernel", ["norm"], ["sm_90"])) == "A_KERNEL_OK"


def plain(cell: str) -> str:
    """A cell of a table without its links."""
    return re.sub(r"\[(\w+)\]\([^)]*\)", r"\1", cell)


def test_the_page_has_these_names() -> None:
    """Kinds and words of the table, of all pairs of kinds."""
    kinds: dict[str, Callable[[str], Headers]] = {
        "over weights": lambda name: library("linear", name),
        "attention": lambda name: library("attention", name),
        "a model": lambda name: model_headers(name, [], []),
        "kernels": lambda name: kernel_headers(name, [], ["sm_90"]),
    }
    found = {
        (one, other, word.replace("_", "-"))
        for (one, first), (other, second) in itertools.product(kinds.items(), repeat=2)
        for word in words_of(first("a"))
        if shared_symbol(first("a"), second(f"a_{word}")) is not None
    }
    page = (Path(__file__).parents[2] / "docs" / "header.md").read_text()
    section = page.partition("## Names that cannot stand together")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (.*) \| (.*) \| (`.*`) \|$", section, re.MULTILINE)
    listed = [
        (one, other, word)
        for ones, others, words in rows
        for one in kinds
        for other in kinds
        if one in re.split(", | or ", plain(ones)) and other in re.split(", | or ", plain(others))
        for word in re.findall(r"`([a-z-]+)`", words)
    ]
    assert len(listed) == len(set(listed))
    assert set(listed) == found
