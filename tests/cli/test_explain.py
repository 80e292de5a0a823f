from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from command import run

from vqcc.diagnostics import CODES
from vqcc.diagnostics.reasons import REASONS


def shown(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def test_a_library(compiled: Path) -> None:
    done = run("explain", compiled)
    assert (done.exit_code, done.stderr) == (0, "")
    plan = json.loads((compiled / "tiny.h200.plan.json").read_text())
    for kernel in plan["kernels"]:
        assert (
            f"h200: {kernel['kernel']}, level sc\n  fma, fusion none; entries [0, 16) in shared "
            in done.stdout
        )
        assert {"packed_layout", "n_shared", "rows_per_warp", "warps", "unroll", "grid"} <= {
            decision["name"] for decision in kernel["decisions"]
        }
        for decision in kernel["decisions"]:
            assert f"  {decision['name']} = {shown(decision['value'])}" in done.stdout
            assert f"      {decision['formula']}\n" in done.stdout
            assert f"      {decision['reason']}\n" in done.stdout
            for name, value in decision["inputs"].items():
                assert f"{name} = {shown(value)}" in done.stdout
            for rejected in decision["rejected"]:
                assert f"      instead of {rejected['value']}: {rejected['reason']}\n" in done.stdout


def test_a_library_in_json(compiled: Path) -> None:
    done = run("explain", compiled, "--json", "--gpu", "h200")
    plan = json.loads((compiled / "tiny.h200.plan.json").read_text())
    assert (done.exit_code, done.json) == (0, {"gpus": {"h200": plan}, "diagnostics": []})


def test_a_spec_says_the_same_and_writes_nothing(compiled: Path, spec: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    done = run("explain", spec, "--json")
    assert done.exit_code == 0, done.stderr
    assert done.json == run("explain", compiled, "--json").json
    assert sorted(tmp_path.rglob("*")) == before


def test_overrides(spec: Path) -> None:
    done = run("explain", spec, "--gpu", "a100", "--level", "gc", "--json")
    assert done.exit_code == 0
    assert list(done.json["gpus"]) == ["a100"]
    assert {kernel["level"] for kernel in done.json["gpus"]["a100"]["kernels"]} == {"gc"}


@pytest.mark.parametrize(
    ("level", "missing"),
    [
        ("gc", {"grid", "predicted_us"}),
        ("o2", {"grid", "predicted_us", "occupancy"}),
        ("best", {"strategy", "grid", "predicted_us"}),
    ],
)
def test_the_source_has_the_decisions_that_the_page_says(
    level: str, missing: set[str], spec: Path, tmp_path: Path
) -> None:
    """docs/explain.md names those that are in the plan and not in the `.cu`."""
    assert run("compile", spec, "-o", tmp_path, "--level", level).exit_code == 0
    source = (tmp_path / "tiny" / "tiny.h200.cu").read_text()
    plain = " ".join(re.sub(r"\n// *", " ", source).split())
    plan = json.loads((tmp_path / "tiny" / "tiny.h200.plan.json").read_text())
    for kernel in plan["kernels"]:
        shown = {each["name"] for each in kernel["decisions"] if f"\n// {each['name']} = " in source}
        lacking = {each["name"] for each in kernel["decisions"]} - shown
        assert lacking == missing
        for each in kernel["decisions"]:
            for rejected in each["rejected"] if each["name"] in shown else ():
                words = f"instead of {rejected['value']}: {rejected['reason']}"
                assert " ".join(words.split()) in plain
    page = (Path(__file__).parents[2] / "docs" / "explain.md").read_text()
    assert all(f"`{name}`" in page for name in missing)


@pytest.mark.parametrize("code", ["VQ0403", "vq0403"])
def test_a_code(code: str) -> None:
    done = run("explain", code)
    cause, remedy = REASONS["VQ0403"]
    told = f"VQ0403: {CODES['VQ0403']}\n  cause: {cause}\n  help: {remedy}\n"
    assert (done.exit_code, done.stdout) == (0, told)
    title = CODES["VQ0403"]
    asked = run("explain", code, "--json").json
    assert asked == {"code": "VQ0403", "title": title, "cause": cause, "help": remedy}


def test_no_such_code() -> None:
    done = run("explain", "VQ9999", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0710"])


def test_a_library_without_plans(compiled: Path, spec: Path, tmp_path: Path) -> None:
    assert run("compile", spec, "-o", tmp_path, "--emit", "header").exit_code == 0
    done = run("explain", tmp_path / "tiny")
    assert done.exit_code == 1
    assert "error[VQ0802]" in done.stderr
    assert "--emit plan" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nowhere.yaml"], "VQ0101"),
        (["."], "VQ0704"),
        (["LIBRARY", "--gpu", "h20"], "VQ0805"),
        (["SPEC", "--gpu", "h20"], "VQ0401"),
    ],
)
def test_what_cannot_be_explained(
    arguments: list[str],
    code: str,
    compiled: Path,
    spec: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"LIBRARY": str(compiled), "SPEC": str(spec)}
    done = run("explain", *[places.get(word, word) for word in arguments], "--json")
    assert (done.exit_code, done.codes) == (1, [code])


def test_a_file_of_a_library_is_told_from_a_spec(compiled: Path) -> None:
    for name in ("manifest.json", "tiny.h"):
        done = run("explain", compiled / name, "--json")
        assert (done.exit_code, done.codes) == (1, ["VQ0704"])
        (told,) = done.json["diagnostics"]
        assert told["message"] == f"{compiled / name} is a file of a library"
        assert told["help"] == f"give the library: vqcc explain {compiled}"


@pytest.mark.parametrize(("word", "near"), [("nothere", ""), ("vq404", "did you mean 'VQ0404'? else ")])
def test_a_word_that_is_nothing(
    word: str, near: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (told,) = run("explain", word, "--json").json["diagnostics"]
    assert (told["code"], told["message"]) == ("VQ0101", f"'{word}' is neither a spec, a library nor a code")
    assert told["help"] == f"{near}give a spec's file, a library (OUT/<name>) or a code such as VQ0403"


def test_usage() -> None:
    assert run("explain").exit_code == 2
