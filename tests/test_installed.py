"""An installed wheel works outside the checkout: templates, specs, GPU data and emulator come with it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    isolation = [] if importlib.util.find_spec("hatchling") is None else ["--no-build-isolation"]
    pip("wheel", str(ROOT), "--no-deps", *isolation, "--wheel-dir", str(directory))
    (path,) = directory.glob("vqcc-*.whl")
    return path


def pip(*arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def packaged(directory: Path, *suffixes: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / directory).rglob("*")
        if path.is_file() and path.suffix in suffixes
    }


@pytest.mark.full
def test_what_the_wheel_holds(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    expected = packaged(Path("vqcc"), ".py", ".yaml", ".h", ".cc")
    expected |= {f"vqcc/_data/{name}" for name in packaged(Path("templates"), ".cuh", ".j2", ".h", ".cmake")}
    expected |= {f"vqcc/_data/{name}" for name in packaged(Path("specs"), ".yaml")}
    assert expected <= names
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert not [name for name in names if "__pycache__" in name or name.startswith("tests/")]


@pytest.mark.full
def test_the_wheel_works_elsewhere(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    pip("install", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    environment = {**os.environ, "PYTHONPATH": str(site), "XDG_CACHE_HOME": str(tmp_path / "cache")}

    def vqcc(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "vqcc", *arguments],
            cwd=elsewhere,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    found = subprocess.run(
        [sys.executable, "-P", "-c", "import vqcc; print(vqcc.__file__)"],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(found.stdout.strip()).is_relative_to(site)
    for what, least in (("gpus", 8), ("algorithms", 8), ("ops", 1)):
        assert len(json.loads(vqcc("list", what, "--json"))[what]) >= least
    spec = site / "vqcc" / "_data" / "specs" / "demo-gemv.yaml"
    compiled = json.loads(vqcc("compile", str(spec), "--json"))["libraries"][0]
    assert (compiled["directory"], compiled["state"]) == ("out/demo-gemv", "written")
    validated = json.loads(vqcc("validate", "out/demo-gemv", "--json"))
    assert all(result["passed"] for result in validated["results"])
    assert json.loads(vqcc("schema"))["title"]
    for command, file in (("cmake-dir", "vqcc-config.cmake"), ("include-dir", "vqcc")):
        directory = Path(vqcc(command).strip())
        assert directory.is_relative_to(site)
        assert (directory / file).exists()
