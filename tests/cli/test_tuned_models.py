"""Whole models and their lock files on the command line: tuned, compiled and explained, library by library."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from command import Done, run
from fake_device import FakeBench, fake_device
from libraries import FakeToolchain, spec_text
from model_specs import attention, linear, model_text

import vqcc.codegen.toolchain
from vqcc.data_files import lock_path
from vqcc.tuning.lock import load_lock

if TYPE_CHECKING:
    from pathlib import Path

DOWN = linear(64, 64, algorithm="vq-4-4-1")
LAYERS = {
    "q": linear(40, 64, algorithm="vq-4-4-1"),
    "o": linear(40, 64, algorithm="vq-4-4-1"),
    "down": DOWN,
    "attention": attention(),
}
#: What is measured of each library: its folder, and its one kernel.
KERNELS = {"q": "m1_float16", "down": "m1_float16", "attention": "b2_float16"}


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with a GPU, and a compiler that takes no time."""
    fake_device(monkeypatch)
    monkeypatch.setattr(vqcc.codegen.toolchain, "find", lambda *_, **__: FakeToolchain())


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_bytes(model_text(LAYERS, level="best"))
    return path


def tuned(spec: Path, *options: str) -> Done:
    done = run("tune", spec, "--top", 1, *options)
    assert done.exit_code == 0, done.stderr
    return done


def compiled(spec: Path, *options: str | Path) -> Done:
    done = run("compile", spec, "-o", spec.parent / "out", *options)
    assert done.exit_code == 0, done.stderr
    return done


def lock_of(spec: Path) -> Any:
    (result,) = compiled(spec, "--json").json["libraries"]
    return result["lock"]


def lock_lines(done: Done) -> list[str]:
    return [line.strip() for line in done.stdout.splitlines() if ".lock.yaml" in line]


def test_libraries_are_tuned_one_after_the_other(spec: Path) -> None:
    lines = tuned(spec).stdout.splitlines()
    steps, last = [line.split() for line in lines[:-1]], lines[-1]
    assert [step[0] for step in steps] == [f"{number}/{len(steps)}" for number in range(1, len(steps) + 1)]
    assert list(dict.fromkeys((step[1], step[2]) for step in steps)) == list(KERNELS.items())
    assert last == f"{lock_path(spec)}: {len(steps)} of {len(steps)} candidates timed now"
    lock = load_lock(lock_path(spec))
    assert lock is not None
    assert [(kernel.kernel, kernel.complete) for kernel in lock.kernels] == [
        (kernel, True) for kernel in KERNELS.values()
    ]


def test_what_is_known_is_not_timed_unless_again(spec: Path) -> None:
    first = tuned(spec, "--json").json
    assert {step["reason"] for step in first["steps"]} == {""}
    assert list(dict.fromkeys(step["layer"] for step in first["steps"])) == list(KERNELS)
    assert (first["lock"], first["gpu"], first["skipped"]) == (str(lock_path(spec)), "h200", {})
    before = lock_path(spec).read_bytes()
    assert {step["reason"] for step in tuned(spec, "--json").json["steps"]} == {"known"}
    assert {step["reason"] for step in tuned(spec, "--again", "--json").json["steps"]} == {""}
    assert lock_path(spec).read_bytes() == before


def test_compile_makes_what_was_measured_and_says_so(spec: Path) -> None:
    assert lock_lines(compiled(spec)) == []
    assert lock_of(spec) is None
    tuned(spec)
    told = [f"as measured in small.lock.yaml: {folder}: h200: {name}" for folder, name in KERNELS.items()]
    for state in ("written", "unchanged"):
        done = compiled(spec)
        assert f": {state}, " in done.stdout
        assert (lock_lines(done), done.stderr) == (told, "")
    assert lock_of(spec) == {
        "file": str(lock_path(spec)),
        "libraries": {folder: {"h200": [name]} for folder, name in KERNELS.items()},
        "complaints": [],
    }
    explained = run("explain", spec, "--json").json["libraries"]
    for library in explained.values():
        (kernel,) = library["gpus"]["h200"]["kernels"]
        assert "recorded by `vqcc tune`, on Fake GPU, driver 1" in kernel["decisions"][0]["reason"]


def test_a_lock_that_changes_makes_another_bundle(spec: Path) -> None:
    """Where it changes what is made; one that says nothing new leaves the files, but is read."""
    tuned(spec)
    compiled(spec)
    lock_path(spec).write_text(lock_path(spec).read_text() + "# read\n")
    assert ": unchanged, " in compiled(spec).stdout
    lock_path(spec).unlink()
    done = compiled(spec)
    assert lock_lines(done) == []
    assert ": written, " in done.stdout


def test_a_model_may_be_tuned_in_parts(spec: Path) -> None:
    """What was never tuned is in the summary, not among warnings; times of a library alone are as good."""
    alone = spec.with_name("alone.yaml")
    alone.write_text(spec_text("vq-4-4-1", n=64, k=64, level="best", name="alone"))
    tuned(alone)
    lock_path(alone).rename(lock_path(spec))
    for _ in range(2):  # compiled, and recalled
        done = compiled(spec)
        assert done.stderr == ""
        assert lock_lines(done) == [
            "as measured in small.lock.yaml: down: h200: m1_float16",
            "small.lock.yaml: not used for q, attention",
        ]
    assert lock_of(spec)["libraries"] == {"q": {}, "down": {"h200": ["m1_float16"]}, "attention": {}}


def test_a_lock_with_nothing_of_the_model_is_told_of_once(spec: Path) -> None:
    alone = spec.with_name("alone.yaml")
    alone.write_text(spec_text("vq-4-4-1", n=16, k=64, level="best", name="alone"))
    tuned(alone)
    lock_path(alone).rename(lock_path(spec))
    for _ in range(2):
        done = compiled(spec)
        assert lock_lines(done) == ["small.lock.yaml: not used"]
        assert done.stderr.count("VQ0318") == 1
    told = f"{lock_path(spec)}: it has no kernel of this spec"
    for document in (compiled(spec, "--json").json, run("explain", spec, "--json").json):
        assert [item["message"] for item in document["diagnostics"]] == [told]
    assert lock_lines(compiled(spec, "--gpu", "a100")) == ["small.lock.yaml: not used"]


def test_times_of_other_gpus_are_no_complaint(spec: Path) -> None:
    tuned(spec)
    done = compiled(spec, "--gpu", "a100")
    assert (lock_lines(done), done.stderr) == (["small.lock.yaml: no times of a100"], "")


def test_an_interrupted_session_goes_on_and_complaints_name_the_library(
    spec: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeBench, "fails_at", 4)  # the second candidate of the second library
    done = run("tune", spec, "--top", 1, "--json")
    assert done.exit_code == 130
    told = "down: on h200 the session of m1_float16 was not completed"
    for _ in range(2):
        done = compiled(spec)
        assert f"warning[VQ0318]: {lock_path(spec)}: {told}\n" in done.stderr
        assert done.stderr.count("VQ0318") == 1
        assert lock_lines(done) == [
            "as measured in small.lock.yaml: q: h200: m1_float16",
            "small.lock.yaml: not used for down, attention",
        ]
    assert lock_of(spec)["complaints"] == [told]
    (warning,) = run("explain", spec, "--json").json["diagnostics"]
    assert warning["message"] == f"{lock_path(spec)}: {told}"
    assert [step["reason"] for step in tuned(spec, "--json").json["steps"]].count("known") == 3
    assert lock_of(spec)["complaints"] == []


def test_layers_of_the_papers_levels_are_left_out(spec: Path) -> None:
    spec.write_bytes(model_text({**LAYERS, "down": {**DOWN, "level": "o2"}}, level="best"))
    done = tuned(spec)
    assert done.stdout.splitlines()[0] == "down: not tuned, its level is o2"
    assert not any(" down " in line for line in done.stdout.splitlines())
    assert tuned(spec, "--json").json["skipped"] == {"down": "o2"}
    assert list(lock_of(spec)["libraries"]) == ["q", "attention"]
    assert len(lock_lines(compiled(spec))) == 2


def test_a_model_of_the_papers_levels_is_refused(spec: Path) -> None:
    lock_path(spec).write_text("vqcc_lock: 1\nkernels: []\n")
    spec.write_bytes(model_text({"q": LAYERS["q"], "down": {**DOWN, "level": "o2"}}, level="gc"))
    done = run("tune", spec, "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0317"])
    assert done.json["diagnostics"][0]["message"] == "levels gc and o2 leave nothing to tune"
    assert lock_of(spec) is None


def test_a_file_that_is_no_lock_file_is_refused(spec: Path) -> None:
    compiled(spec)
    lock_path(spec).write_text("vqcc_lock: 7\nkernels: []\n")
    for command in (("compile", spec, "-o", spec.parent / "out"), ("explain", spec), ("tune", spec)):
        done = run(*command, "--json")
        assert (done.exit_code, done.codes) == (1, ["VQ0213"])


def test_a_dependency_file_has_the_lock_file(spec: Path) -> None:
    tuned(spec)
    for state in ("written", "unchanged"):
        assert f": {state}, " in compiled(spec, "--depfile", spec.parent / "small.d").stdout
        assert f" {lock_path(spec)} " in (spec.parent / "small.d").read_text().replace("\\\n", " ")


def test_explain_has_every_library_and_its_layers(spec: Path) -> None:
    """Of a spec as of what it compiled to, whose folders are libraries as ever."""
    tuned(spec)
    compiled(spec)
    directory = spec.parent / "out" / "small"
    document = run("explain", spec, "--json").json
    assert run("explain", directory, "--json").json == document
    assert document["diagnostics"] == []
    layers = {folder: library["layers"] for folder, library in document["libraries"].items()}
    assert layers == {"q": ["q", "o"], "down": ["down"], "attention": ["attention"]}
    for folder, library in document["libraries"].items():
        assert run("explain", directory / folder, "--json").json["gpus"] == library["gpus"]
    for what in (spec, directory):
        done = run("explain", what)
        assert (done.exit_code, done.stderr) == (0, "")
        parts = [run("explain", directory / folder).stdout for folder in layers]
        heads = ["layers q and o\n", "layer down\n", "layer attention\n"]
        assert done.stdout == "".join(head + part for head, part in zip(heads, parts, strict=True))


def test_explain_takes_gpus_and_a_level(spec: Path) -> None:
    document = run("explain", spec, "--gpu", "a100", "--level", "gc", "--json").json
    plans = [library["gpus"] for library in document["libraries"].values()]
    assert [list(gpus) for gpus in plans] == [["a100"]] * 3
    assert {kernel["level"] for gpus in plans for kernel in gpus["a100"]["kernels"]} == {"gc"}


@pytest.mark.parametrize(
    ("emit", "what", "code"),
    [
        ("header", (), "VQ0802"),
        ("header,plan", ("--gpu", "a100"), "VQ0805"),
        ("header,plan", ("--level", "gc"), None),
    ],
)
def test_what_cannot_be_explained_of_a_model(
    emit: str, what: tuple[str, ...], code: str | None, spec: Path
) -> None:
    compiled(spec, "--emit", emit)
    done = run("explain", spec.parent / "out" / "small", *what, "--json")
    if code is None:
        assert done.exit_code == 2
    else:
        assert (done.exit_code, done.codes) == (1, [code])
