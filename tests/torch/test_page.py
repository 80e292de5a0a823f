"""The examples of docs/torch.md run, and the page names what there is."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from command import run
from libraries import FakeToolchain

import vqcc.torch
from vqcc.building import build_library, write_library
from vqcc.library import load_weight_library
from vqcc.spec.load import load_spec, parse_spec
from vqcc.tensors.packed_file import save_packed
from vqcc.torch import runtime

ROOT = Path(__file__).parent.parent.parent
PAGE = (ROOT / "docs" / "torch.md").read_text()


BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)


def block(language: str, part: str) -> str:
    """The one block of the page that contains `part`."""
    (found,) = (body for kind, body in BLOCKS if kind == language and part in body)
    return str(found)


def execute(part: str) -> dict[str, Any]:
    """What a program of the page defines."""
    names: dict[str, Any] = {}
    exec(compile(block("python", part), "docs/torch.md", "exec"), names)
    return names


@pytest.fixture
def elsewhere(tmp_path: Path, cache_directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runtime, "_temporary_cache", lambda: cache_directory / "emulator")


@pytest.mark.usefixtures("elsewhere")
def test_the_example_runs() -> None:
    built = build_library(load_spec(ROOT / "specs" / "demo-gemv.yaml"), toolchain=FakeToolchain(), cache=None)
    write_library(built, Path("out") / built.name)
    library = load_weight_library(Path("out") / built.name)
    tensor = library.algorithm.random_tensor(np.random.default_rng(0), "w", *library.op.weight_shape)
    (*_, pack) = block("console", "demo-gemv").splitlines()
    save_packed(Path(pack.split()[-1]), library, [(tensor, library.pack(tensor))])
    assert isinstance(y := execute("demo-gemv")["y"], torch.Tensor)
    assert y.shape == (2, 3, 1536)


@pytest.mark.usefixtures("elsewhere")
def test_the_example_of_attention_runs() -> None:
    """All of it but the compiler: data, books and program."""
    spec = parse_spec(block("yaml", "attention_decode").encode(), "attention.yaml")
    write_library(build_library(spec, toolchain=FakeToolchain(), cache=None), Path("out") / spec.name)
    execute("save_file")
    compiled, *lines = block("console", "attention.yaml").splitlines()
    assert compiled == "$ vqcc compile attention.yaml"
    for line in lines:
        assert run(*line.split()[2:]).exit_code == 0, line
    names = execute("vqcc.torch.Attention")
    # Of one token each attends to itself alone: its own value, as near as two bits come.
    wanted = names["values"].repeat_interleave(2, dim=2).float()
    error = (names["outputs"].float() - wanted).norm() / wanted.norm()
    assert error < 0.6


def test_the_demo_writes_what_the_page_packs() -> None:
    """And of the page's library: the file of another algorithm would be refused."""
    (pack,) = (line for line in block("console", "demo-gemv").splitlines() if " pack " in line)
    (_, recipe) = (ROOT / "Makefile").read_text().split("\ndemo: ")
    assert f"-o {pack.split()[3].replace('out/demo', '$(OUT)')}\n" in recipe
    assert "vqcc compile specs/demo-gemv.yaml" in recipe


OWNERS: dict[str, tuple[Any, ...]] = {
    "": (vqcc.torch,),
    "library": (vqcc.torch.LinearLibrary, vqcc.torch.AttentionLibrary),
    "weight": (vqcc.torch.Weight,),
    "cache": (vqcc.torch.Cache,),
}


def signature(function: Any) -> str:
    """Parameters as the page writes them: without types, and without the object that a method is of."""
    found = inspect.signature(function)
    bare = [each.replace(annotation=each.empty) for each in found.parameters.values() if each.name != "self"]
    shown = inspect.Signature(bare).replace(return_annotation=inspect.Signature.empty)
    return str(shown).replace("'", '"')


def test_signatures_of_the_page_are_what_functions_have() -> None:
    shown = re.findall(r"^\| `(?:(\w+)\.)?(\w+)(\(.*?\))` \|", PAGE, re.M)
    assert {name for _, name, _ in shown} >= {"load", "load_model", "Linear", "Attention", "attend", "check"}
    for owner, name, parameters in shown:
        (function,) = {getattr(each, name) for each in OWNERS[owner] if hasattr(each, name)}
        assert parameters == signature(function), name


def test_every_public_method_of_a_library_is_on_the_page() -> None:
    for library, unsaid in (
        (vqcc.torch.LinearLibrary, {"expected_parts", "workspace_bytes", "shape"}),
        (vqcc.torch.AttentionLibrary, {"expected_parts", "workspace_bytes"}),
    ):
        for name in {name for name in vars(library) if not name.startswith("_")} - {*unsaid, "kind"}:
            assert re.search(rf"`library\.{name}\b", PAGE), name


def test_every_name_of_the_page_is_there() -> None:
    libraries = (vqcc.torch.LinearLibrary, vqcc.torch.AttentionLibrary)
    for name in re.findall(r"`library\.(\w+)\(", PAGE):
        assert any(hasattr(library, name) for library in libraries), name
    operators = re.search(r"The operators are `torch.ops.vqcc.(\w+)`, `(\w+)`, `(\w+)` and `(\w+)`", PAGE)
    assert operators is not None
    for name in operators.groups():
        assert getattr(torch.ops.vqcc, name).default
    for name in vqcc.torch.__all__:
        assert re.search(rf"\b{name}\b", PAGE), name
