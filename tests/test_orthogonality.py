"""The design's separations, kept by looking for what would break them.

Passes and code generation know no algorithm, no op and no GPU by name; one module imports PyCUDA, one header holds
PTX and intrinsics, and only the command line reads the environment.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

import vqcc
from vqcc import gpus
from vqcc.algorithms import FAMILIES
from vqcc.algorithms.presets import names as presets
from vqcc.data_files import templates_directory
from vqcc.ops import OPS

PACKAGE = Path(vqcc.__file__).parent
PLANNING = [
    *(PACKAGE / "passes").glob("*.py"),
    *(PACKAGE / "codegen").glob("*.py"),
    *(PACKAGE / "hotness").glob("*.py"),
    *(PACKAGE / "tuning").glob("*.py"),
    *(
        PACKAGE / name
        for name in (
            "pipeline.py",
            "plan.py",
            "picks.py",
            "code_layouts.py",
            "problem.py",
            "search.py",
            "subjects.py",
            "trial.py",
            "assembling.py",
            "building.py",
            "cache_building.py",
            "cache_library.py",
            "cache_search.py",
            "compiled.py",
            "flow.py",
            "library.py",
            "manifest_values.py",
            "levels.py",
            "weight_building.py",
            "explaining.py",
        )
    ),
]
DEVICE = templates_directory() / "device"


def code_of(path: Path) -> str:
    """A module without its comments and docstrings, which may name examples."""
    kept = []
    tree = ast.parse(path.read_text())
    docstrings = {
        node.body[0].lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and ast.get_docstring(node) is not None
    }
    for token in tokenize.generate_tokens(io.StringIO(path.read_text()).readline):
        if token.type == tokenize.COMMENT or (token.type == tokenize.STRING and token.start[0] in docstrings):
            continue
        kept.append(token.string)
    return " ".join(kept)


def without_comments(text: str) -> str:
    return re.sub(r"//[^\n]*|/\*.*?\*/", "", text, flags=re.DOTALL)


def found(words: set[str], text: str) -> list[str]:
    """Words that `text` holds as words of their own, in any case."""
    return sorted(
        word for word in words if re.search(rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])", text, re.I)
    )


@pytest.mark.parametrize("path", PLANNING, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_planning_names_nothing(path: Path) -> None:
    text = code_of(path)
    assert found({*FAMILIES, *presets()}, text) == [], "an algorithm"
    assert found(set(OPS), text) == [], "an op"
    assert found(set(gpus.names()), text) == [], "a GPU"
    assert not re.search(r"\.(family|kind)\s*[!=]=", text)


@pytest.mark.parametrize("path", sorted((PACKAGE / "ops").rglob("*.py")), ids=lambda path: path.name)
def test_ops_know_no_algorithm_and_no_gpu(path: Path) -> None:
    text = code_of(path)
    assert found({*FAMILIES, *presets(), *gpus.names()}, text) == []
    assert ".family" not in text


@pytest.mark.parametrize("path", sorted((PACKAGE / "algorithms").rglob("*.py")), ids=lambda path: path.name)
def test_algorithms_know_no_op_and_no_gpu(path: Path) -> None:
    assert found({*OPS, *gpus.names()}, code_of(path)) == []


@pytest.mark.parametrize("path", sorted(DEVICE.glob("*.cuh")), ids=lambda path: path.name)
def test_device_parts_know_no_op_and_no_gpu(path: Path) -> None:
    text = without_comments(path.read_text())
    assert found({*OPS, *FAMILIES, *gpus.names()}, text) == []


@pytest.mark.parametrize(
    "path", sorted(DEVICE.glob("algorithms/*.cuh")), ids=lambda path: f"algorithms/{path.name}"
)
def test_device_algorithms_know_no_op(path: Path) -> None:
    assert found({*OPS, *gpus.names()}, without_comments(path.read_text())) == []


@pytest.mark.parametrize(
    "package", sorted({path.parent.name for path in DEVICE.glob("*/*.cuh")} - {"algorithms"})
)
def test_device_ops_know_no_algorithm(package: str) -> None:
    """Device headers lie as the ops' packages do, of which linear is made of others'."""
    assert (PACKAGE / "ops" / package).is_dir()
    headers = sorted((DEVICE / package).glob("*.cuh"))
    for path in headers:
        text = without_comments(path.read_text())
        assert found({*FAMILIES, *presets(), *gpus.names()}, text) == [], path.name


def test_the_words_are_found_where_they_are() -> None:
    """These tests can fail."""
    assert "gemv" in found(set(OPS), (PACKAGE / "ops" / "gemv" / "model.py").read_text())
    assert "h200" in found(set(gpus.names()), 'if gpu.name == "h200": pass')
    assert found({"kmeans"}, "using Algorithm = vqcc::KMeans<Codes>;") == ["kmeans"]
    assert found({"a40"}, "a400") == []


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def test_one_module_imports_pycuda() -> None:
    importers = {
        path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py") if "pycuda" in imports(path)
    }
    assert importers == {"runtime/device.py"}


def test_only_the_command_line_reads_the_environment() -> None:
    readers = {
        path.relative_to(PACKAGE).parts[0]
        for path in PACKAGE.rglob("*.py")
        if re.search(r"\b(?:environb?|getenv|expanduser|home)\b", code_of(path))
    }
    assert readers == {"cli"}


def test_only_the_command_line_prints_or_exits() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.is_relative_to(PACKAGE / "cli"):
            continue
        calls = {
            node.func.id
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        }
        assert calls.isdisjoint({"print", "exit", "input", "eval", "exec"}), path


ARCHITECTURE_WORDS = re.compile(
    r"\basm\b|\b__(?:shfl|ballot|any|all|match|reduce|syncwarp|ldg|ldcs|ldca|ldcg|stcs|nv|cvta|byte_perm|popc|clz|ffs"
    r"|half|bfloat|float|int|uint|h[a-z]+2?|syncthreads|threadfence|pipeline|dp4a|vsub|vadd)\w*\s*\("
    r"|\b(?:atomicAdd|atomicCAS|fmaf|ldmatrix)\b"
)


def test_headers_of_the_machine_hold_ptx_and_intrinsics() -> None:
    assert (DEVICE / "arch.cuh").is_file()
    sources = [*DEVICE.rglob("*.cuh"), *(templates_directory() / "kernels").glob("*")]
    users = {
        path.name: ARCHITECTURE_WORDS.findall(without_comments(path.read_text()))
        for path in sources
        if not path.name.startswith("arch")
    }
    assert {name: words for name, words in users.items() if words} == {}
    assert ARCHITECTURE_WORDS.search(without_comments((DEVICE / "arch.cuh").read_text()))


def test_device_headers_have_no_templates_in_them() -> None:
    for path in DEVICE.rglob("*.cuh"):
        assert not re.search(r"\$\{|<%|//%", path.read_text()), path
