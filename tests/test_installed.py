"""An installed wheel works outside the checkout: templates, specs, GPU data and emulator come with it."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest
from build_tools import CMAKE

import vqcc

ROOT = Path(__file__).parents[1]
#: Without an environment that is active.
SYSTEM_PATH = os.pathsep.join(
    path for path in os.environ["PATH"].split(os.pathsep) if not (Path(path) / "vqcc").exists()
)


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


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; what it depends on is that of this interpreter."""
    prefix = tmp_path_factory.mktemp("an environment") / "venv"
    venv.create(prefix, with_pip=False)
    pip("--python", str(prefix / "bin" / "python"), "install", "--no-deps", "--no-index", str(wheel))
    (site,) = prefix.glob("lib/python3*/site-packages")
    (site / "dependencies.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return prefix


def cmake(*arguments: str | Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run CMake with the compilers of the system on the PATH, and nothing of this environment."""
    known = {
        name: value for name, value in os.environ.items() if name not in {"PYTHONPATH", "CMAKE_PREFIX_PATH"}
    }
    return subprocess.run(
        [CMAKE, *arguments],
        env={**known, "PATH": SYSTEM_PATH, **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.full
@pytest.mark.parametrize("way", ["CMAKE_PREFIX_PATH", "PATH"])
def test_cmake_finds_an_environment(
    way: str, environment: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """Without being told of the package: by the prefix, or as the environment is active. examples/minimal is built."""
    variables = {"XDG_CACHE_HOME": str(tmp_path_factory.getbasetemp() / "cache of an environment")}
    if way == "PATH":
        variables["PATH"] = f"{environment / 'bin'}{os.pathsep}{SYSTEM_PATH}"
    else:
        variables["CMAKE_PREFIX_PATH"] = str(environment)
    build = tmp_path / "build"
    example = ROOT / "examples" / "minimal"
    done = cmake("-S", example, "-B", build, "-G", "Unix Makefiles", **variables)
    assert done.returncode == 0, done.stderr
    kept = (build / "CMakeCache.txt").read_text().splitlines()
    assert f"vqcc_DIR:PATH={environment}/share/cmake/vqcc" in kept
    assert f"VQCC_EXECUTABLE:FILEPATH={environment}/bin/vqcc" in kept
    done = cmake("--build", build, **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    (include,) = environment.glob("lib/*/site-packages/vqcc/_data/templates/host/include")
    flags = (build / "CMakeFiles" / "minimal.dir" / "flags.make").read_text()
    assert str(include) in flags
    assert (build / "minimal").is_file()


def configured(
    prefix: Path | str, directory: Path, version: str = "", **variables: str
) -> subprocess.CompletedProcess[str]:
    """A project that wants vqcc, and says which it has."""
    directory.mkdir(exist_ok=True)
    (directory / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.20)\nproject(engine LANGUAGES NONE)\n"
        f'find_package(vqcc {version} REQUIRED)\nmessage(STATUS "vqcc ${{vqcc_VERSION}} ${{VQCC_INCLUDE_DIR}}")\n'
    )
    return cmake("-S", directory, "-B", directory / "build", f"-DCMAKE_PREFIX_PATH={prefix}", **variables)


@pytest.mark.full
def test_cmake_asks_an_environment_for_its_version(environment: Path, tmp_path: Path) -> None:
    done = configured(environment, tmp_path / "found", "0.1")
    assert done.returncode == 0, done.stderr
    assert f"-- vqcc {vqcc.__version__} {environment}/lib/" in done.stdout
    done = configured(environment, tmp_path / "newer", "0.2")
    assert done.returncode != 0
    assert f"share/cmake/vqcc/vqcc-config.cmake, version: {vqcc.__version__}" in " ".join(done.stderr.split())


@pytest.mark.full
def test_cmake_finds_a_target_folder(wheel: Path, tmp_path: Path) -> None:
    """What `pip install --target` fills is a prefix too; its vqcc runs where PYTHONPATH names the folder."""
    site = tmp_path / "site"
    pip("install", "--no-deps", "--no-index", "--target", str(site), str(wheel))
    done = configured(site, tmp_path / "project", PYTHONPATH=str(site))
    assert done.returncode == 0, done.stderr
    assert f"-- vqcc {vqcc.__version__} {site}/vqcc/_data/templates/host/include" in done.stdout


@pytest.mark.full
def test_an_environment_that_does_not_run(environment: Path, tmp_path: Path) -> None:
    """CMake says why, and takes another one if there is."""
    prefix = tmp_path / "broken"
    shutil.copytree(environment / "share", prefix / "share")
    done = configured(prefix, tmp_path / "project")
    assert done.returncode != 0
    assert f"version: unknown, `{prefix}/bin/vqcc cmake-dir` fails (" in " ".join(done.stderr.split())
    done = configured(f"{prefix};{environment}", tmp_path / "project")
    assert done.returncode == 0, done.stderr
    assert f"-- vqcc {vqcc.__version__} {environment}/lib/" in done.stdout


@pytest.mark.full
def test_the_page_into_an_engine(
    environment: Path, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path
) -> None:
    """Every command of docs/integrate.md, as it stands there, where there is a clone and no GPU.

    Programs say what the page shows of a machine without a driver, and of one with another GPU.
    """
    page = (ROOT / "docs" / "integrate.md").read_text()
    commands = re.findall(r"^\$ (.*)$", page, re.MULTILINE)
    (no_driver, other_gpu) = re.findall(r"^```text\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (spec,) = re.findall(r"^```yaml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    assert (ROOT / "examples" / "minimal" / "minimal.yaml").read_text().endswith(spec)
    clone, driver = tmp_path / "clone", tmp_path / "driver"
    clone.mkdir()
    for name in ("examples", "tests"):
        (clone / name).symlink_to(ROOT / name)
    driver.mkdir()
    stub = ROOT / "tests" / "examples" / "stub_cuda.c"
    subprocess.run(["gcc", "-shared", "-fPIC", stub, "-o", driver / "libcuda.so.1"], check=True)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "cmake").symlink_to(CMAKE)
    known = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": os.pathsep.join([str(environment / "bin"), str(tools), SYSTEM_PATH]),
        "XDG_CACHE_HOME": str(tmp_path_factory.getbasetemp() / "cache of an environment"),
    }

    def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", "-c", line],
            cwd=clone,
            env={**known, **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    programs = []
    for line in commands:
        if line.startswith("pip install "):  # the environment is one where that was done
            continue
        if (word := line.split()[0]).split("/")[0] not in {".", "build"}:
            done = shell(line)
            assert done.returncode == 0, f"$ {line}\n{done.stdout}{done.stderr}"
            continue
        programs.append(word)
        name = Path(word).name
        for text, variables in (
            (no_driver, {"LD_LIBRARY_PATH": "/nowhere"}),
            (other_gpu, {"LD_LIBRARY_PATH": str(driver), "STUB_DEVICE": "8 0 108"}),
        ):
            done = shell(line, **variables)
            assert done.returncode == 2, f"$ {line}\n{done.stdout}{done.stderr}"
            said, shown = (each.partition(": ")[2] for each in (done.stderr, text))
            assert done.stderr.startswith(f"{name}: ")
            # Libraries of other examples are for GPUs of their own.
            assert said == shown if name == "minimal" else said.split("for ")[0] == shown.split("for ")[0]
    assert programs == ["./minimal", "build/minimal", "./packed"]


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
