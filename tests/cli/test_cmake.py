"""The CMake package, with real generators: what is built, what is built again, and what errors say.

All of it runs on a copy of vqcc whose templates are there to edit, in directories with blanks in their names.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from build_tools import CMAKE, NINJA
from libraries import make_profile, spec_text
from model_specs import linear, model_text

import vqcc
from vqcc.data_files import specs_directory, templates_directory

GENERATORS = ("Ninja", pytest.param("Unix Makefiles", marks=pytest.mark.full))
OPENING = "cmake_minimum_required(VERSION 3.20)\nproject(engine LANGUAGES {languages})\n"
PROGRAM = """\
#include <stdio.h>
#include "hot.h"
#include "tiny.embedded.h"

int main(void) {
  printf("%d %d %s\\n", (int)TINY_N, (int)HOT_N, tiny_status_string(TINY_OK));
  return tiny_h200_cubin[1] == 'E' ? 0 : 1;
}
"""


@dataclass(frozen=True)
class Project:
    """A CMake project in `source`, with a package and a compile cache; `found` is where CMake looks for vqcc."""

    source: Path
    package: Path
    cache: Path

    @property
    def binary(self) -> Path:
        return self.source / "build tree"

    def write(self, *lines: str, languages: str = "NONE", package: str = "") -> None:
        text = OPENING.format(languages=languages) + f"find_package(vqcc {package} REQUIRED)\n"
        (self.source / "CMakeLists.txt").write_text(text + "".join(f"{line}\n" for line in lines))

    def add(self, target: str, *words: str) -> str:
        """A call of vqcc_add_library for the spec of that name, which shares the cache."""
        return f'vqcc_add_library({target} SPEC {target}.yaml CACHE_DIR "{self.cache}" {" ".join(words)})'

    def configure(self, generator: str = "Ninja", *options: str) -> subprocess.CompletedProcess[str]:
        program = [f"-DCMAKE_MAKE_PROGRAM={NINJA}"] if generator == "Ninja" else []
        found = f"-Dvqcc_DIR={self.package / 'templates' / 'host' / 'cmake'}"
        return self._run("-B", str(self.binary), "-G", generator, *program, found, *options)

    def build(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self._run("--build", str(self.binary), *options)

    def built(self) -> set[str]:
        """Build, and say which libraries vqcc was run for."""
        done = self.build()
        assert done.returncode == 0, done.stdout + done.stderr
        return set(re.findall(r"Compiling ([a-z0-9-]+) with vqcc", done.stdout))

    def _run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [CMAKE, *arguments]
        return subprocess.run(command, cwd=self.source, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout, as the package sees it, with the vqcc of this interpreter in it."""
    root = tmp_path_factory.mktemp("a checkout") / "of vqcc"
    shutil.copytree(Path(vqcc.__file__).parent, root / "vqcc")
    shutil.copytree(templates_directory(), root / "templates")
    program = root / ".venv" / "bin" / "vqcc"
    program.parent.mkdir(parents=True)
    program.write_text(f"#!/bin/sh\nPYTHONPATH='{root}' exec '{sys.executable}' -P -m vqcc \"$@\"\n")
    program.chmod(0o755)
    return root


@pytest.fixture
def project(package: Path, cache_directory: Path, tmp_path: Path) -> Project:
    """Two specs, tiny and hot, the second with a profile."""
    source = tmp_path / "my engine"
    source.mkdir()
    (source / "tiny.yaml").write_text(spec_text("vq-4-4-1", n=40, k=64, level="gc"))
    make_profile(source / "hot.json", "vq-4-4-1")
    (source / "hot.yaml").write_text(spec_text("vq-4-4-1", name="hot", profile="hot.json"))
    return Project(source, package, cache_directory / "a cache")


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


@pytest.mark.parametrize("generator", GENERATORS)
def test_what_is_built_again(generator: str, project: Project) -> None:
    project.write(project.add("tiny"), project.add("hot"))
    done = project.configure(generator)
    assert done.returncode == 0, done.stderr
    assert project.built() == {"tiny", "hot"}
    header = project.binary / "vqcc" / "tiny" / "tiny" / "tiny.h"
    assert sorted(path.name for path in header.parent.iterdir()) == [
        "manifest.json",
        "tiny.h",
        "tiny.h200.cu",
        "tiny.h200.cubin",
        "tiny.h200.plan.json",
    ]
    assert project.built() == set()
    if generator == "Ninja":
        assert "ninja: no work to do." in project.build().stdout

    (project.source / "other.yaml").write_text("of nobody")
    (project.package / "templates" / "device" / "notes.txt").write_text("no template")
    assert project.built() == set()

    # A spec that says the same in other words: vqcc looks, and no file changes.
    written = header.stat().st_mtime_ns
    with (project.source / "tiny.yaml").open("a") as spec:
        spec.write("\n")
    assert project.built() == {"tiny"}
    assert project.built() == set()
    assert header.stat().st_mtime_ns == written

    edit(project.source / "tiny.yaml", '"n": 40', '"n": 48')
    assert project.built() == {"tiny"}
    assert "weights [48, 64]" in header.read_text()
    make_profile(project.source / "hot.json", "vq-4-4-1", seed=1)
    assert project.built() == {"hot"}

    before = header.read_text()
    template = project.package / "templates" / "device" / "unpack.cuh"
    template.write_text(template.read_text() + "// edited\n")
    assert project.built() == {"tiny", "hot"}
    assert header.read_text() != before
    assert project.built() == set()


@pytest.mark.parametrize("generator", GENERATORS)
def test_what_becomes_wrong(generator: str, project: Project) -> None:
    """The build says what vqcc says, with file and line, and goes on when that is right again.

    A lock file was not there before: that it is wrong shows that it is read.
    """
    project.write(project.add("tiny"))
    assert project.configure(generator).returncode == 0
    assert project.built() == {"tiny"}

    edit(project.source / "tiny.yaml", "h200", "h2000")
    done = project.build()
    assert done.returncode != 0
    told = done.stdout + done.stderr
    assert "error[VQ0401]: unknown GPU 'h2000'" in told
    assert f" --> {project.source / 'tiny.yaml'}:12:" in told
    edit(project.source / "tiny.yaml", "h2000", "h200")
    assert project.built() == {"tiny"}
    edit(project.source / "tiny.yaml", '"tiny"', '"small"')
    assert project.built() == {"small"}

    lock = project.source / "tiny.lock.yaml"
    lock.write_text("")
    done = project.build()
    assert done.returncode != 0
    assert f" --> {lock}:1:1" in done.stdout + done.stderr
    lock.unlink()
    project.built()
    assert project.built() == set()


def test_a_file_that_goes_is_made_again(project: Project) -> None:
    project.write(project.add("tiny"))
    assert project.configure().returncode == 0
    assert project.built() == {"tiny"}
    bundle = project.binary / "vqcc" / "tiny" / "tiny"
    (bundle / "tiny.h200.cubin").unlink()
    assert project.built() == {"tiny"}
    assert project.build("--target", "clean").returncode == 0
    assert list(bundle.iterdir()) == []
    assert project.built() == {"tiny"}


@pytest.mark.parametrize(
    ("kind", "generator", "language", "source"),
    [
        pytest.param("object", "Ninja", "C", "main.c", marks=pytest.mark.full),
        ("array", "Unix Makefiles", "CXX", "main.cpp"),
    ],
)
def test_a_program(kind: str, generator: str, language: str, source: str, project: Project) -> None:
    """One library is embedded in it, in a directory of its own; properties say where the other's cubins are."""
    below = project.source / "below"
    below.mkdir()
    (below / "CMakeLists.txt").write_text(
        f'vqcc_add_library(tiny SPEC ../tiny.yaml EMBED {kind} CACHE_DIR "{project.cache}")\n'
    )
    project.write(
        "add_subdirectory(below)",
        project.add("hot", "GPU h100 h200 LEVEL o2 OUT hot"),
        f"add_executable(engine {source})",
        "target_link_libraries(engine PRIVATE tiny hot)",
        "foreach(property NAME IDENTIFIER HEADER CUBIN_DIR CUBINS)",
        "  get_target_property(value hot VQCC_${property})",
        '  message(STATUS "${property}=${value}")',
        "endforeach()",
        languages=language,
    )
    (project.source / source).write_text(PROGRAM)
    done = project.configure(generator, f"-DCMAKE_{language}_FLAGS=-Wall -Wextra -Werror")
    assert done.returncode == 0, done.stderr
    directory = project.binary / "hot" / "hot"
    found = dict(line[3:].split("=", 1) for line in done.stdout.splitlines() if re.match("-- [A-Z_]+=", line))
    assert found == {
        "NAME": "hot",
        "IDENTIFIER": "hot",
        "HEADER": f"{directory}/hot.h",
        "CUBIN_DIR": str(directory),
        "CUBINS": f"{directory}/hot.h100.cubin;{directory}/hot.h200.cubin",
    }
    assert project.built() == {"tiny", "hot"}
    for path in found["CUBINS"].split(";"):
        assert Path(path).is_file()
    printed = subprocess.run([project.binary / "engine"], capture_output=True, text=True, check=True).stdout
    assert printed == "40 64 ok\n"
    edit(project.source / "tiny.yaml", '"n": 40', '"n": 48')
    done = project.build("--target", "engine")
    assert done.returncode == 0, done.stderr
    printed = subprocess.run([project.binary / "engine"], capture_output=True, text=True, check=True).stdout
    assert printed == "48 64 ok\n"


MODEL_PROGRAM = """\
#include <stdio.h>
#include "small.embedded.h"

int main(void) {
  printf("%d layers by %d libraries\\n", SMALL_NUMBER_OF_LAYERS, SMALL_LIBRARY_COUNT);
  return small_q_h200_cubin[1] == 'E' && small_down_h200_cubin[1] == 'E' ? 0 : 1;
}
"""


@pytest.mark.parametrize("kind", ["object", pytest.param("array", marks=pytest.mark.full)])
def test_a_whole_model(kind: str, project: Project) -> None:
    """All of its libraries are linked, and one edited layer is compiled again."""
    layers = {name: linear(n, 64, algorithm="vq-4-4-1") for name, n in (("q", 40), ("o", 40), ("down", 64))}
    (project.source / "small.yaml").write_bytes(model_text(layers))
    project.write(
        project.add("small", f"EMBED {kind}"),
        "add_executable(engine main.c)",
        "target_link_libraries(engine PRIVATE small)",
        languages="C",
    )
    (project.source / "main.c").write_text(MODEL_PROGRAM)
    done = project.configure("Ninja", "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror")
    assert done.returncode == 0, done.stderr
    assert project.built() == {"small"}
    printed = subprocess.run([project.binary / "engine"], capture_output=True, text=True, check=True).stdout
    assert printed == "3 layers by 2 libraries\n"
    assert project.built() == set()
    (project.source / "small.yaml").write_bytes(
        model_text({**layers, "o": linear(48, 64, algorithm="vq-4-4-1")})
    )
    assert project.built() == {"small"}
    printed = subprocess.run([project.binary / "engine"], capture_output=True, text=True, check=True).stdout
    assert printed == "3 layers by 3 libraries\n"


WRONG = [
    ("vqcc_add_library(tiny)", "SPEC is missing: name the YAML file of the library"),
    ("vqcc_add_library(tiny SPECS tiny.yaml)", "unknown argument 'SPECS': use SPEC, GPU,"),
    ("vqcc_add_library(tiny SPEC tiny.yaml LEVEL)", "LEVEL has no value"),
    ("vqcc_add_library(tiny SPEC tiny.yaml EMBED elf)", "EMBED cannot be 'elf': use object or array"),
    (
        "add_custom_target(tiny)\nvqcc_add_library(tiny SPEC tiny.yaml)",
        "there is a target of that name already",
    ),
    (
        "vqcc_add_library(one SPEC tiny.yaml OUT o)\nvqcc_add_library(two SPEC tiny.yaml OUT o)",
        "is that of one: give one of them another OUT",
    ),
    ("vqcc_add_library(tiny SPEC none.yaml)", "error[VQ0101]: cannot read '{source}/none.yaml'"),
    ("vqcc_add_library(tiny SPEC tiny.yaml GPU h20)", "did you mean 'h200'?"),
    (
        "vqcc_add_library(tiny SPEC tiny.yaml LEVEL o9)",
        "vqcc_add_library(tiny): LEVEL: unknown value 'o9'; use gc, sc,",
    ),
    (
        "vqcc_add_library(tiny SPEC tiny.yaml LEVEL O4)",
        "vqcc_add_library(tiny): LEVEL: unknown value 'O4'; did you mean 'o4'?",
    ),
    ("vqcc_add_library(tiny SPEC wrong.yaml)", " --> {source}/wrong.yaml:4:15"),
]


@pytest.mark.parametrize(("lines", "message"), WRONG, ids=[message for _, message in WRONG])
def test_a_wrong_call(lines: str, message: str, project: Project) -> None:
    (project.source / "wrong.yaml").write_text(spec_text("aqlm-2x9"))
    project.write(lines)
    done = project.configure()
    assert done.returncode != 0
    told = " ".join(done.stderr.split())  # CMake breaks lines where it likes
    assert " ".join(message.format(source=project.source).split()) in told
    assert "CMakeLists.txt:" in told
    assert "Usage:" not in told


KERNELS = """\
#include "twice.cuh"
extern "C" __global__ void double_all(float* x) { x[threadIdx.x] = twice(x[threadIdx.x]); }
"""
KERNELS_PROGRAM = """\
#include <stdio.h>
#include "own.embedded.h"

int main(void) {
  vqcc_driver none = {0};
  own_handle handle;
  printf("%d %s\\n", OWN_KERNEL_DOUBLE_ALL, own_status_string(own_load_embedded(&handle, &none)));
  return own_sm_90_cubin[1] == 'E' ? 0 : 1;
}
"""


@pytest.mark.parametrize(
    ("kind", "generator"),
    [("object", "Ninja"), pytest.param("array", "Unix Makefiles", marks=pytest.mark.full)],
)
def test_kernels_of_ones_own(kind: str, generator: str, project: Project) -> None:
    """They are built into a program, and again when what they include changes."""
    (project.source / "own.cu").write_text(KERNELS)
    (project.source / "twice.cuh").write_text("__device__ float twice(float x) { return 2 * x; }\n")
    (project.source / "main.c").write_text(KERNELS_PROGRAM)
    project.write(
        f'vqcc_add_cubin(own SOURCE own.cu GPU h200 h100 EMBED {kind} CACHE_DIR "{project.cache}")',
        "add_executable(engine main.c)",
        "target_link_libraries(engine PRIVATE own)",
        languages="C",
    )
    done = project.configure(generator, "-DCMAKE_C_FLAGS=-Wall -Wextra -Werror")
    assert done.returncode == 0, done.stderr
    assert project.built() == {"own"}
    assert project.built() == set()
    printed = subprocess.run([project.binary / "engine"], capture_output=True, text=True, check=True).stdout
    assert printed == "0 a required pointer is null\n"
    edit(project.source / "twice.cuh", "2 * x", "x + x + 1")
    assert project.built() == {"own"}
    edit(project.source / "twice.cuh", "x + x", "y + x")
    done = project.build()
    assert done.returncode != 0
    assert f"{project.source / 'twice.cuh'}:1" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("vqcc_add_cubin(own GPU h200)", "vqcc_add_cubin(own): SOURCE is missing"),
        ("vqcc_add_cubin(own SOURCE own.cu)", "vqcc_add_cubin(own): GPU is missing"),
        ("vqcc_add_cubin(own SPEC own.cu)", "unknown argument 'SPEC': use SOURCE, GPU,"),
        ("vqcc_add_cubin(own SOURCE own.cu GPU h200 EMBED elf)", "EMBED cannot be 'elf'"),
        ("vqcc_add_cubin(own SOURCE own.cu GPU h200 OUT)", "OUT has no value"),
    ],
)
def test_a_wrong_call_for_kernels(lines: str, message: str, project: Project) -> None:
    project.write(lines)
    done = project.configure()
    assert done.returncode != 0
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("asked", "is_found"),
    [("0.1", True), (vqcc.__version__, True), ("0.0.9", False), ("0.2", False), ("1", False)],
)
def test_versions(asked: str, is_found: bool, project: Project) -> None:
    assert vqcc.__version__.startswith("0.1.")
    project.write('message(STATUS "vqcc ${vqcc_VERSION}")', package=asked)
    done = project.configure()
    assert (done.returncode == 0) == is_found, done.stderr
    assert (f"-- vqcc {vqcc.__version__}\n" in done.stdout) == is_found


def test_a_vqcc_of_another_package(project: Project, tmp_path: Path) -> None:
    project.write()
    other = tmp_path / "vqcc"
    other.write_text("#!/bin/sh\necho /somewhere/else\n")
    other.chmod(0o755)
    done = project.configure("Ninja", f"-DVQCC_EXECUTABLE={other}")
    assert done.returncode != 0
    assert "belongs to another package, /somewhere/else" in " ".join(done.stderr.split())
    other.write_text("#!/bin/sh\necho no python >&2\nexit 3\n")
    done = project.configure()
    assert done.returncode != 0
    assert f"`{other} cmake-dir` fails (3): no python" in " ".join(done.stderr.split())


def test_a_command_of_several_words(project: Project) -> None:
    program = project.package / ".venv" / "bin" / "vqcc"
    project.write(project.add("tiny"))
    done = project.configure("Ninja", f"-DVQCC_EXECUTABLE=env;LC_ALL=C;{program}")
    assert done.returncode == 0, done.stderr
    assert project.built() == {"tiny"}


def fences(language: str) -> list[str]:
    """Blocks of the page about all this."""
    page = Path(__file__).parents[2] / "docs" / "cmake.md"
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("text", fences("cmake"))
def test_the_page_configures(text: str, project: Project) -> None:
    shutil.copy(specs_directory() / "demo-gemv.yaml", project.source)
    (project.source / "main.cpp").write_text("")
    (project.source / "CMakeLists.txt").write_text(text)
    done = project.configure()
    assert done.returncode == 0, done.stderr


def test_the_page_makes(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = fences("make")
    (project.source / "demo-gemv.yaml").write_bytes((project.source / "tiny.yaml").read_bytes())
    (project.source / "Makefile").write_text(text)
    monkeypatch.setenv("PATH", f"{project.package / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("XDG_CACHE_HOME", str(project.cache))

    def made() -> bool:
        done = subprocess.run(["make"], cwd=project.source, capture_output=True, text=True, check=True)
        return "vqcc compile" in done.stdout

    assert made()
    assert (project.source / "tiny" / "tiny.h").is_file()
    assert not made()
    (project.source / "demo-gemv.yaml").touch()
    assert made()
    assert not made()
    template = project.package / "templates" / "device" / "arch.cuh"
    template.touch()
    assert made()


@pytest.mark.full
def test_ninja_alone(project: Project) -> None:
    """The header is the output, by the name that -o makes: with `restat`, an unchanged one is not made for ever."""
    program = project.package / ".venv" / "bin" / "vqcc"
    (project.source / "build.ninja").write_text(
        f"rule vqcc\n command = '{program}' compile $in -o out --cache-dir '{project.cache}' --depfile tiny.d\n"
        " depfile = tiny.d\n restat = 1\nbuild out/tiny/tiny.h: vqcc tiny.yaml\n"
    )

    def says() -> str:
        done = subprocess.run([NINJA], cwd=project.source, capture_output=True, text=True, check=True)
        return done.stdout

    assert "tiny: written" in says()
    assert "no work to do" in says()
    (project.package / "templates" / "device" / "arch.cuh").touch()
    assert "tiny: unchanged" in says()
    assert "no work to do" in says()
