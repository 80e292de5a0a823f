"""An unchanged compile is recognised, and nothing else is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from vqcc import building, unchanged
from vqcc.codegen.cache import CompileCache
from vqcc.codegen.toolchain import find
from vqcc.compiling import Options, compile_file

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
    "options", [{"level": "sc"}, {"gpus": ("h100",)}, {"emit": ("cu",)}], ids=["level", "gpu", "emit"]
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


@pytest.mark.parametrize("payload", [b"", b"[]", b"{}", b'{"name": 3}', b'{"name": "small", "files": {}}'])
def test_a_strange_memory_is_ignored(payload: bytes, spec: Path, cache: CompileCache, tmp_path: Path) -> None:
    key = unchanged.inputs_key(spec.read_bytes(), {}, find("nvrtc"))
    cache.put(key, payload)
    assert unchanged.recall(cache, key, tmp_path / "out") is None


def test_without_a_cache_everything_is_compiled(
    spec: Path, cache: CompileCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(spec, cache, tmp_path / "out")
    assert run(spec, None, tmp_path / "out")["state"] == "unchanged"
    monkeypatch.setattr("vqcc.building.build_library", refuse)
    with pytest.raises(AssertionError, match="compiled again"):
        run(spec, None, tmp_path / "out")


def test_a_wrong_spec_is_not_remembered(spec: Path, cache: CompileCache, tmp_path: Path) -> None:
    from vqcc.diagnostics import VqccError

    spec.write_text(SPEC.replace("k: 64", "k: 63"))
    for _ in range(2):
        with pytest.raises(VqccError):
            run(spec, cache, tmp_path / "out")
    assert not (tmp_path / "out" / "small").exists()


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
