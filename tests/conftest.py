"""Fixtures shared by all tests: golden files and a compile cache."""

from __future__ import annotations

import contextlib
import importlib
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from vqcc.emulator import build
from vqcc.emulator.compiler import HostCompiler

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType

# Examples are the same in every run; a slow machine is not a bug.
settings.register_profile(
    "vqcc", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("vqcc")

_ROOT = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite golden files")


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """Compare text with tests/<path of the test>/golden/<name>; --update-golden rewrites it."""
    directory = Path(request.path).parent / "golden"
    update = request.config.getoption("--update-golden")

    def check(name: str, text: str) -> None:
        path = directory / name
        if update:
            directory.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing: run `make golden` and review it"
        assert text == path.read_text(encoding="utf-8"), (
            f"{path} differs: run `make golden` and review the change"
        )

    return check


@pytest.fixture(scope="session")
def cache_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One cache for all tests of a run, shared by the workers of pytest-xdist."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    directory = shared / "vqcc-cache"
    (directory / "emulator").mkdir(parents=True, exist_ok=True)
    # What `vqcc validate` compiles for the emulator lies there too: its runtime is compiled once.
    own = directory / "user" / "vqcc"
    own.mkdir(mode=0o700, parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        (own / "emulator").symlink_to(directory / "emulator")
    return directory


@pytest.fixture(scope="session")
def emulator_runtime(cache_directory: Path) -> Path:
    """The runtime in the cache that all tests share."""
    build("", cache_directory=cache_directory / "emulator")
    (runtime,) = (cache_directory / "emulator").glob("libvqcc_emulator-*.so")
    return runtime


@pytest.fixture
def copied_runtime(emulator_runtime: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The emulator's runtime is copied instead of compiled, into caches that are a test's own."""

    def copy(_compiler: HostCompiler, output: Path, _soname: str) -> None:
        shutil.copy(emulator_runtime, output)

    monkeypatch.setattr(HostCompiler, "compile_runtime", copy)


@pytest.fixture(scope="session")
def real_weights() -> Path:
    """A trained weight [1536, 384] in float16; tests/data/README.md says which."""
    return _ROOT / "data" / "minilm-ffn.safetensors"


@pytest.fixture(scope="session")
def real_activations() -> Path:
    """Queries, keys and values [12, 512, 32] in float16 of a trained model; tests/data/README.md says which."""
    return _ROOT / "data" / "minilm-attention.safetensors"


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], ModuleType]:
    """Programs of bench/ as modules, by name; those that they import are not loaded anew."""
    monkeypatch.syspath_prepend(_ROOT.parent / "bench")

    def load(name: str) -> ModuleType:
        monkeypatch.delitem(sys.modules, name, raising=False)
        return importlib.import_module(name)

    return load
