"""An unchanged compile is recognised, and nothing else is."""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from libraries import make_profile

from vqcc import building, unchanged
from vqcc.codegen.cache import CompileCache
from vqcc.codegen.toolchain import find
from vqcc.compiling import Options, compile_file
from vqcc.data_files import templates_directory, templates_identity
from vqcc.diagnostics import VqccError

if TYPE_CHECKING:
    from pathlib import Path

SPEC = (
    "vqcc: 1\nname: small\nalgorithm: vq-4-4-1\nop: {kind: gemv, m: 1, n: 8, k: 64}\ngpu: h200\nlevel: gc\n"
)


@pytest.fixture
def cache(tmp_path: Path) -> CompileCache:
    return CompileCache(tmp_path / "cache", 1 << 28)


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SPEC)
    return path


def run(spec: Path, cache: CompileCache | None, out: Path, **options: object) -> dict[str, object]:
    return compile_file(spec, Options(out, **options), find("nvrtc"), cache, {})


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("compiled again")


def test_a_second_compile_plans_nothing(
    spec: Path, cache: CompileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(spec, cache, tmp_path / "out")
    monkeypatch.setattr("vqcc.building.build_library", refuse)
    second = run(spec, cache, tmp_path / "out")
    assert (first["state"], second["state"]) == ("written", "unchanged")
    assert {**first, "state": ""} == {**second, "state": ""}


@pytest.mark.parametrize("damage", ["edit", "remove", "add"])
def test_a_touched_bundle_is_no_longer_recognised(
    damage: str, spec: Path, cache: CompileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(spec, cache, tmp_path / "out")
    header = tmp_path / "out" / "small" / "small.h"
    if damage == "edit":
        header.write_text("changed")
    elif damage == "remove":
        header.unlink()
    else:
        (header.parent / "mine.txt").write_text("mine")
    monkeypatch.setattr("vqcc.building.build_library", refuse)
    with pytest.raises(AssertionError, match="compiled again"):
        run(spec, cache, tmp_path / "out")


@pytest.mark.parametrize(
    "options",
    [{"level": "sc"}, {"level": "best"}, {"gpus": ("h100",)}, {"emit": ("cu",)}],
    ids=["level", "best", "gpu", "emit"],
)
def test_other_options_compile_again(
    options: dict[str, object], spec: Path, cache: CompileCache, tmp_path: Path
) -> None:
    run(spec, cache, tmp_path / "out")
    assert run(spec, cache, tmp_path / "out", **options)["state"] == "written"


def test_a_changed_spec_compiles_again(spec: Path, cache: CompileCache, tmp_path: Path) -> None:
    run(spec, cache, tmp_path / "out")
    spec.write_text(SPEC.replace("n: 8", "n: 9"))
    assert run(spec, cache, tmp_path / "out")["state"] == "written"


def test_a_changed_template_compiles_again(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    templates = tmp_path / "templates"
    (templates / "device").mkdir(parents=True)
    (templates / "device" / "a.cuh").write_text("// one")
    monkeypatch.setattr(unchanged, "templates_directory", lambda: templates)
    before = unchanged.inputs_key(b"spec", {}, find("nvrtc"))
    (templates / "device" / "a.cuh").write_text("// two")
    assert unchanged.inputs_key(b"spec", {}, find("nvrtc")) != before


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        b"{}",
        b'{"name": 3}',
        b'{"name": "small", "files": {}}',
        b'{"name": "small", "files": {}, "inputs": []}',
        b'{"name": "small", "files": {}, "inputs": {"": 3}}',
    ],
)
def test_a_strange_memory_is_ignored(payload: bytes, spec: Path, cache: CompileCache, tmp_path: Path) -> None:
    key = unchanged.inputs_key(spec.read_bytes(), {}, find("nvrtc"))
    cache.put(key, payload)
    assert unchanged.recall(cache, key, tmp_path / "out", tmp_path) is None


def test_without_a_cache_everything_is_compiled(
    spec: Path, cache: CompileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(spec, cache, tmp_path / "out")
    assert run(spec, None, tmp_path / "out")["state"] == "unchanged"
    monkeypatch.setattr("vqcc.building.build_library", refuse)
    with pytest.raises(AssertionError, match="compiled again"):
        run(spec, None, tmp_path / "out")


def test_a_wrong_spec_is_not_remembered(spec: Path, cache: CompileCache, tmp_path: Path) -> None:
    spec.write_text(SPEC.replace("k: 64", "k: 63"))
    for _ in range(2):
        with pytest.raises(VqccError):
            run(spec, cache, tmp_path / "out")
    assert not (tmp_path / "out" / "small").exists()


@pytest.fixture
def profiled(spec: Path) -> Path:
    """A spec whose profile lies beside it."""
    make_profile(spec.with_name("hotness.json"), "vq-4-4-1", (8, 64))
    spec.write_text(SPEC + "profile: hotness.json\n")
    return spec


def test_an_unchanged_profile(
    profiled: Path, cache: CompileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(profiled, cache, tmp_path / "out")
    # The same bytes in another file are the same profile; so is a link to them.
    profile = profiled.with_name("hotness.json")
    profile.rename(tmp_path / "moved.json")
    profile.symlink_to(tmp_path / "moved.json")
    monkeypatch.setattr("vqcc.building.build_library", refuse)
    assert run(profiled, cache, tmp_path / "out")["state"] == "unchanged"


@pytest.mark.parametrize("change", ["recount", "touch up", "replace"])
def test_a_changed_profile_compiles_again(
    change: str, profiled: Path, cache: CompileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(profiled, cache, tmp_path / "out")
    profile = profiled.with_name("hotness.json")
    if change == "recount":
        make_profile(profile, "vq-4-4-1", (8, 64), seed=1)
    elif change == "touch up":
        profile.write_bytes(profile.read_bytes() + b"\n")
    else:
        make_profile(tmp_path / "other.json", "vq-4-4-1", (8, 64), (8, 64), seed=2)
        (tmp_path / "other.json").replace(profile)
    second = run(profiled, cache, tmp_path / "out")
    assert second["state"] == "written"
    assert second["build_id"] != first["build_id"]
    monkeypatch.setattr("vqcc.building.build_library", refuse)
    assert run(profiled, cache, tmp_path / "out")["state"] == "unchanged"


@pytest.mark.parametrize("change", ["delete", "directory", "pipe", "other weights", "no profile"])
def test_a_profile_that_is_none_any_more_is_reported(
    change: str, profiled: Path, cache: CompileCache, tmp_path: Path
) -> None:
    run(profiled, cache, tmp_path / "out")
    before = (tmp_path / "out" / "small" / "manifest.json").read_bytes()
    profile = profiled.with_name("hotness.json")
    profile.unlink()
    if change == "directory":
        profile.mkdir()
    elif change == "pipe":
        os.mkfifo(profile)
    elif change == "other weights":
        make_profile(profile, "vq-4-4-1", (9, 64))
    elif change == "no profile":
        profile.write_text("[]")
    with pytest.raises(VqccError):
        run(profiled, cache, tmp_path / "out")
    assert (tmp_path / "out" / "small" / "manifest.json").read_bytes() == before


def test_equal_specs_beside_different_profiles(profiled: Path, cache: CompileCache, tmp_path: Path) -> None:
    """What a spec's text says is not all: the file it names is looked for beside each."""
    other = tmp_path / "elsewhere" / profiled.name
    other.parent.mkdir()
    other.write_bytes(profiled.read_bytes())
    make_profile(other.with_name("hotness.json"), "vq-4-4-1", (8, 64), seed=1)
    for path in (profiled, other, profiled):
        assert run(path, cache, tmp_path / "out")["state"] == "written"
    assert run(profiled, cache, tmp_path / "out")["state"] == "unchanged"


def test_a_profile_that_changes_while_it_is_compiled(
    profiled: Path, cache: CompileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Remembered is the profile that was read, not the one that lies there by the end."""
    build = building.build_library

    def and_then_an_edit(*arguments: Any, **options: Any) -> building.Built:
        make_profile(profiled.with_name("hotness.json"), "vq-4-4-1", (8, 64), seed=1)
        return build(*arguments, **options)

    monkeypatch.setattr(building, "build_library", and_then_an_edit)
    run(profiled, cache, tmp_path / "out")
    monkeypatch.setattr(building, "build_library", build)
    assert run(profiled, cache, tmp_path / "out")["state"] == "written"


def test_explaining_compiles_again_and_is_not_remembered(
    spec: Path, cache: CompileCache, tmp_path: Path
) -> None:
    run(spec, cache, tmp_path / "out")
    explained = run(spec, cache, tmp_path / "out", explain=True)
    assert explained["state"] == "unchanged"
    assert "plans" in explained
    assert "plans" not in run(spec, cache, tmp_path / "out")


def test_the_summary_is_plain_json(spec: Path, cache: CompileCache, tmp_path: Path) -> None:
    assert json.loads(json.dumps(run(spec, cache, tmp_path / "out")))["name"] == "small"


def test_a_bundle_that_another_process_replaced_is_not_taken_for_ones_own(
    spec: Path, cache: CompileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered is what was made, whatever lies there by the time it is noted."""
    other = tmp_path / "other.yaml"
    other.write_text(SPEC.replace("m: 1", "m: 2"))
    write = building.write_library

    def and_then_the_other(built: building.Built, directory: Path) -> bool:
        changed = write(built, directory)
        monkeypatch.setattr(building, "write_library", write)
        assert run(other, None, tmp_path / "out")["state"] == "written"
        return changed

    monkeypatch.setattr(building, "write_library", and_then_the_other)
    run(spec, cache, tmp_path / "out")
    assert "small_m2_float16" in (tmp_path / "out" / "small" / "small.h").read_text()
    assert run(spec, cache, tmp_path / "out")["state"] == "written"
    assert "small_m2_float16" not in (tmp_path / "out" / "small" / "small.h").read_text()


def test_a_spec_that_changes_while_it_is_compiled(
    spec: Path, cache: CompileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One reading of the file is both looked up and compiled."""
    key = unchanged.inputs_key

    def and_then_an_edit(data: bytes, *rest: object) -> str:
        spec.write_text(SPEC.replace("m: 1", "m: 2"))
        return key(data, *rest)

    monkeypatch.setattr(unchanged, "inputs_key", and_then_an_edit)
    run(spec, cache, tmp_path / "out")
    assert "small_m2_float16" not in (tmp_path / "out" / "small" / "small.h").read_text()


def test_all_that_is_rendered_is_an_input() -> None:
    """A file that a template includes, and an input does not know of, would leave stale bundles."""
    known = set(unchanged.source_files())
    templates = templates_directory()
    others = {templates / "kernels" / "calibrate.cu"}
    rendered = {path for path in templates.rglob("*") if path.is_file() and path.suffix != ".cmake"} - others
    assert rendered <= known
    assert templates / "host" / "include" / "vqcc" / "driver_types.h" in rendered


@pytest.mark.parametrize(
    ("name", "alike"),
    [
        ("host/linear.h.j2", True),
        ("kernels/calibrate.cu", True),
        ("device/arch.cuh", False),
        ("kernels/linear.cu.j2", False),
    ],
)
def test_times_are_of_device_code(
    name: str, alike: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An edit of what is no kernel leaves lock files as they are."""
    shutil.copytree(templates_directory(), tmp_path / "templates")
    before = templates_identity()
    monkeypatch.setattr("vqcc.data_files.templates_directory", lambda: tmp_path / "templates")
    assert templates_identity.__wrapped__() == before
    with (tmp_path / "templates" / name).open("a") as edited:
        edited.write("// more\n")
    assert (templates_identity.__wrapped__() == before) == alike
