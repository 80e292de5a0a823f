"""What the tests of commands share: a cache of their own, one compiled library, one quantized weight."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from command import run
from libraries import spec_text
from safetensors.numpy import save_file

ALGORITHM = "vq-4-4-1"
SHAPE = (40, 64)


@pytest.fixture(autouse=True)
def user(monkeypatch: pytest.MonkeyPatch, cache_directory: Path) -> None:
    """A user whose cache is the one of this test run and who asked for nothing special."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_directory / "user"))
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights `w` [40, 64] in float16 and `other` [64, 64] in float32."""
    rng = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("weights") / "weights.safetensors"
    arrays = {
        "w": rng.standard_normal(SHAPE).astype(np.float16),
        "other": rng.standard_normal((64, 64)).astype(np.float32),
    }
    save_file(arrays, path)
    return path


@pytest.fixture(scope="session")
def quantized(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("quantized") / "quantized.safetensors"
    assert run("quantize", weights, "--tensor", "w", "--algorithm", ALGORITHM, "-o", path).exit_code == 0
    return path


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory, cache_directory: Path) -> Path:
    """A bundle that fits `quantized`, for one GPU, with kernels for m up to 1 and 3. Not to be changed."""
    directory = tmp_path_factory.mktemp("compiled")
    (directory / "tiny.yaml").write_text(spec_text(ALGORITHM, n=SHAPE[0], k=SHAPE[1], m=[1, 3]))
    done = run("compile", directory / "tiny.yaml", "-o", directory, "--cache-dir", cache_directory / "user")
    assert done.exit_code == 0, done.stderr
    return directory / "tiny"


@pytest.fixture
def library(compiled: Path, tmp_path: Path) -> Path:
    """A copy of `compiled` to change."""
    return Path(shutil.copytree(compiled, tmp_path / "library" / "tiny"))


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    """A good spec beside which nothing lies."""
    path = tmp_path / "specs" / "tiny.yaml"
    path.parent.mkdir()
    path.write_text(spec_text(ALGORITHM, n=SHAPE[0], k=SHAPE[1], m=[1, 3]))
    return path
