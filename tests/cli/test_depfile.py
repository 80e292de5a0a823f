"""`vqcc compile --depfile`, and `vqcc outputs`, cmake-dir and include-dir: what build systems ask for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from command import run
from libraries import make_profile, spec_text

import vqcc
from vqcc.compiling import EMITTABLE
from vqcc.data_files import cmake_directory, include_directory, templates_directory
from vqcc.dependencies import spec_files


def rules(depfile: Path) -> dict[str, list[str]]:
    """Targets and prerequisites of a dependency file without awkward names, less the empty rules."""
    text = depfile.read_text().replace("\\\n", " ")
    found = (line.split(":", 1) for line in text.splitlines())
    return {target: names.split() for target, names in found if names.strip()}


def test_what_a_bundle_depends_on(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("compile", "specs/tiny.yaml", "-o", "out", "--depfile", "tiny.d")
    assert (done.exit_code, done.stderr) == (0, "")
    ((target, names),) = rules(Path("tiny.d")).items()
    assert target == "out/tiny/tiny.h"  # as -o has it, as build systems do
    assert Path(target).is_file()
    assert names[0] == str(spec)
    assert all(Path(name).is_absolute() and Path(name).is_file() for name in names)
    assert len(set(names)) == len(names)
    package = Path(vqcc.__file__).parent
    for part in (package / "passes" / "layout.py", package / "gpus" / "h200.yaml"):
        assert str(part) in names
    for part in ("kernels/attention_decode.cu.j2", "host/library.h.j2", "device/arch.cuh"):
        assert str(templates_directory() / part) in names
    assert any(re.search(r"nvidia_cuda_nvrtc-[0-9.]+\.dist-info/METADATA$", name) for name in names)
    assert sorted(path.name for path in Path("out").rglob("*")) == [
        "manifest.json",
        "tiny",
        "tiny.h",
        "tiny.h200.cu",
        "tiny.h200.cubin",
        "tiny.h200.plan.json",
    ]


def test_an_unchanged_bundle_has_its_file_too(spec: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first.d", tmp_path / "second.d"
    for path in (first, second):
        assert run("compile", spec, "-o", tmp_path / "out", "--depfile", path).exit_code == 0
    again = run("compile", spec, "-o", tmp_path / "out", "--depfile", second)
    assert ": unchanged, " in again.stdout
    assert first.read_bytes() == second.read_bytes()


def test_files_that_a_spec_names_and_its_lock_file(tmp_path: Path) -> None:
    """The second time the bundle is recognised, and the spec not read."""
    make_profile(tmp_path / "hot.json")
    (tmp_path / "specs").mkdir()
    spec = tmp_path / "specs" / "tiny.yaml"
    spec.write_text(spec_text(profile="../hot.json"))
    depfile = tmp_path / "d"
    for _ in range(2):
        done = run("compile", spec, "-o", tmp_path / "out", "--depfile", depfile, "--json")
        assert (done.exit_code, done.json["libraries"][0]["profile"]) == (0, "../hot.json")
        (names,) = rules(depfile).values()
        assert names[:2] == [str(spec), str(tmp_path / "hot.json")]
    lock = spec.with_name("tiny.lock.yaml")
    lock.write_text("")
    assert spec_files(spec, ()) == (spec, lock)


def test_several_specs_and_no_header(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    other = spec.with_name("other.yaml")
    other.write_text(spec_text("vq-4-4-1", name="other"))
    done = run("compile", spec, other, "--depfile", "d", "--emit", "cubin,cu")
    assert done.exit_code == 0, done.stderr
    found = rules(Path("d"))
    assert list(found) == ["out/tiny/tiny.h200.cu", "out/other/other.h200.cu"]
    assert str(other) not in found["out/tiny/tiny.h200.cu"]


def test_a_target_of_ones_own(spec: Path, tmp_path: Path) -> None:
    done = run("compile", spec, "-o", tmp_path, "--depfile", tmp_path / "d", "--depfile-target", "tiny.stamp")
    assert done.exit_code == 0
    assert list(rules(tmp_path / "d")) == ["tiny.stamp"]
    alone = run("compile", spec, "-o", tmp_path, "--depfile-target", "tiny.stamp")
    assert alone.exit_code == 2
    assert "give that too" in alone.stderr


def test_no_file_of_what_was_not_built(spec: Path, tmp_path: Path) -> None:
    """One spec is wrong: the others are compiled, but the build has failed. A dry run writes nothing."""
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text(spec_text("aqlm-2x9", name="wrong"))
    depfile = tmp_path / "d"
    depfile.write_text("before")
    done = run("compile", wrong, spec, "-o", tmp_path / "out", "--depfile", depfile)
    assert done.exit_code == 1
    assert (tmp_path / "out" / "tiny" / "tiny.h").is_file()
    assert run("compile", spec, "-o", tmp_path / "out", "--depfile", depfile, "--dry-run").exit_code == 0
    assert depfile.read_text() == "before"


def test_what_the_file_may_not_be(spec: Path, tmp_path: Path) -> None:
    content = spec.read_bytes()
    out = tmp_path / "out"
    for path in (spec, spec.with_name("tiny.lock.yaml")):
        done = run("compile", spec, "-o", out, "--depfile", path, "--json")
        assert (done.exit_code, done.codes) == (1, ["VQ0711"])
        assert not out.exists()
    done = run("compile", spec, "-o", out, "--depfile", out / "tiny" / "d", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0711"])
    assert not (out / "tiny" / "d").exists()
    assert spec.read_bytes() == content
    make_profile(tmp_path / "hot.json")
    profiled = tmp_path / "profiled.yaml"
    profiled.write_text(spec_text(name="profiled", profile="hot.json"))
    done = run("compile", profiled, "-o", out, "--depfile", tmp_path / "hot.json", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0711"])
    assert run("compile", profiled, "-o", out).exit_code == 0


def test_a_file_that_cannot_be_written(spec: Path, tmp_path: Path) -> None:
    done = run("compile", spec, "-o", tmp_path / "out", "--depfile", tmp_path / "none" / "d", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0701"])
    assert done.json["libraries"][0]["state"] == "written"
    odd = spec.with_name("a;b.yaml")
    spec.rename(odd)
    done = run("compile", odd, "-o", tmp_path / "out", "--depfile", tmp_path / "d", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0701"])
    assert "cannot name" in done.json["diagnostics"][0]["message"]
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(
    "emit", [*EMITTABLE, "cu,cubin,header,plan", "object,array,ptx", "plan,header,cubin"]
)
def test_outputs_are_what_compile_writes(emit: str, spec: Path, tmp_path: Path) -> None:
    options = ("-o", tmp_path / "out", "--gpu", "a100", "--gpu", "h200", "--emit", emit)
    listed = run("outputs", spec, *options)
    assert (listed.exit_code, listed.stderr) == (0, "")
    assert not (tmp_path / "out").exists()
    assert run("compile", spec, *options).exit_code == 0
    written = sorted(str(path) for path in (tmp_path / "out" / "tiny").iterdir())
    assert sorted(listed.stdout.splitlines()) == written
    document = run("outputs", spec, *options, "--json").json
    assert document["files"] == listed.stdout.splitlines()
    assert document["directory"] == str(tmp_path / "out" / "tiny")
    header = document["header"]
    assert header is None or Path(header).is_file()
    cubins = [str(tmp_path / "out" / "tiny" / f"tiny.{gpu}.cubin") for gpu in ("a100", "h200")]
    assert document["cubins"] == (cubins if "cubin" in emit.split(",") else [])
    assert all(Path(path).read_bytes()[1:4] == b"ELF" for path in document["cubins"])


def test_outputs_of_a_wrong_spec(spec: Path) -> None:
    spec.write_text(spec_text("aqlm-2x9"))
    done = run("outputs", spec)
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"error[VQ0301]: unknown preset 'aqlm-2x9'\n --> {spec}:4:" in done.stderr
    assert run("outputs", spec, "--json").codes == ["VQ0301"]


def test_directories() -> None:
    for command, directory, file in (
        ("cmake-dir", cmake_directory(), "vqcc-config.cmake"),
        ("include-dir", include_directory(), "vqcc"),
    ):
        assert run(command).stdout == f"{directory}\n"
        assert run(command, "--json").json == {"directory": str(directory)}
        assert directory.is_absolute()
        assert (directory / file).exists()
