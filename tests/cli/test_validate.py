from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command import Done, run
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from vqcc.codegen.bundle import read_bundle, write_bundle
from vqcc.codegen.manifest import seal

if TYPE_CHECKING:
    from pathlib import Path


#: Of a manifest, that write_bundle makes.
OWN_KEYS = {"vqcc", "format", "files", "sha256"}


def plant(library: Path, name: str, old: str, new: str) -> None:
    """Change one file of a bundle and its manifest with it: a bundle that is whole, and wrong."""
    bundle = read_bundle(library)
    text = bundle.files[name].decode()
    assert text.count(old) == 1, f"{text.count(old)} times: {old}"
    files = {**bundle.files, name: text.replace(old, new).encode()}
    fields = {key: value for key, value in bundle.manifest.items() if key not in OWN_KEYS}
    assert write_bundle(library, files, fields=fields)


def drop(library: Path, name: str) -> None:
    bundle = read_bundle(library)
    files = {key: data for key, data in bundle.files.items() if key != name}
    fields = {key: value for key, value in bundle.manifest.items() if key not in OWN_KEYS}
    write_bundle(library, files, fields=fields)


def test_random_data(compiled: Path) -> None:
    done = run("validate", compiled)
    assert (done.exit_code, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    launches = [
        re.match(r"ok +h200: tiny_m(\d)_float16_[0-9a-f]{8}, m = (\d), random", line) for line in lines
    ]
    assert [found.groups() for found in launches if found] == [("1", "1"), ("3", "1"), ("3", "3")]
    assert lines[-1] == "3 of 3 launches within their bounds of float64"
    assert done.stdout.count("relative error ") == done.stdout.count("max error ") == 3


def test_few_rows_of_x(compiled: Path) -> None:
    """Each kernel once, with no more rows; a number that is none is refused."""
    results = run("validate", compiled, "--rows", "1", "--json").json["results"]
    assert [(result["kernel"][:7], result["m"]) for result in results] == [("tiny_m1", 1), ("tiny_m3", 1)]
    assert run("validate", compiled, "--rows", "0").exit_code == 2


def test_given_tensors(compiled: Path, quantized: Path) -> None:
    done = run("validate", compiled, "--tensors", quantized, "--tensor", "w", "--gpu", "h200", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert set(done.json) == {"backend", "results", "diagnostics"}
    assert (done.json["backend"], done.json["diagnostics"]) == ("emulate", [])
    for result in done.json["results"]:
        assert set(result) == {
            "gpu",
            "kernel",
            "tensor",
            "m",
            "passed",
            "relative_error",
            "relative_limit",
            "max_error",
            "bound",
            "worst_ratio",
            "worst_position",
        }
        assert (result["gpu"], result["tensor"], result["passed"]) == ("h200", "w", True)
        assert 0 < result["relative_error"] < 1e-3
        assert 0 < result["worst_ratio"] <= 1


def test_the_seed_draws_the_data(compiled: Path) -> None:
    def errors(seed: int) -> list[float]:
        return [
            result["max_error"]
            for result in run("validate", compiled, "--seed", seed, "--json").json["results"]
        ]

    assert errors(1) == errors(1) != errors(2)


def test_several_libraries(compiled: Path, library: Path) -> None:
    done = run("validate", compiled, library)
    assert done.exit_code == 0
    assert done.stdout.endswith("6 of 6 launches within their bounds of float64\n")


def test_libraries_that_cannot_be_loaded_leave_the_others(compiled: Path, library: Path) -> None:
    """Each is told, with the results of those that run; the highest exit code ends the command."""
    (library / "tiny.h").unlink()
    done = run("validate", "nowhere", compiled, library, "elsewhere")
    assert done.exit_code == 1
    assert done.stdout.endswith("3 of 3 launches within their bounds of float64\n")
    assert [name for name in ("nowhere", str(library), "elsewhere") if name not in done.stderr] == []
    as_json = run("validate", "nowhere", compiled, library, "elsewhere", "--json")
    assert (as_json.exit_code, as_json.codes) == (1, ["VQ0704", "VQ0705", "VQ0704"])
    assert len(as_json.json["results"]) == 3
    none = run("validate", "nowhere", "elsewhere")
    assert (none.exit_code, none.stdout, none.stderr.count("error[VQ0704]")) == (1, "", 2)


def test_a_library_that_cannot_be_run_leaves_the_others(compiled: Path, library: Path) -> None:
    plant(library, "tiny.h200.cu", "sum *= row_scale<Matrix>(arguments.scales, row);", "sum *= nothing;")
    done = run("validate", library, compiled, "nowhere", "--json")
    assert (done.exit_code, done.codes) == (3, ["VQ0704", "VQ0822"])
    assert [result["passed"] for result in done.json["results"]] == [True] * 3
    tensors = run("validate", compiled, "nowhere", "--tensors", "missing", "--json")
    assert (tensors.exit_code, tensors.codes) == (1, ["VQ0704", "VQ0501"])


def mismatch(done: Done) -> None:
    assert done.exit_code == 4
    assert "error[VQ0801]" in done.stderr
    assert "MISMATCH  h200: tiny_m3_float16" in done.stdout


def test_a_wrong_kernel(library: Path) -> None:
    plant(library, "tiny.h200.cu", "sum *= row_scale<Matrix>(arguments.scales, row);", "")
    done = run("validate", library)
    mismatch(done)
    assert "0 of 3 launches" in done.stdout
    as_json = run("validate", library, "--json")
    assert as_json.exit_code == 4
    assert [result["passed"] for result in as_json.json["results"]] == [False] * 3
    assert as_json.codes == ["VQ0801"] * 3


def test_a_kernel_that_gives_no_number(library: Path) -> None:
    """NaN and infinity are mismatches, and do not make the JSON invalid."""
    plant(library, "tiny.h200.cu", "sum *= row_scale<Matrix>(arguments.scales, row);", "sum = 0.0f / 0.0f;")
    mismatch(run("validate", library))
    as_json = run("validate", library, "--json")
    assert as_json.exit_code == 4
    assert {result["worst_ratio"] for result in as_json.json["results"]} == {None}


def test_a_kernel_that_writes_past_its_output(library: Path) -> None:
    plant(library, "tiny.h200.cu", "if (b >= arguments.m) return;", "")
    done = run("validate", library)
    assert done.exit_code == 4
    assert "error[VQ08" in done.stderr


def test_a_kernel_that_does_not_compile(library: Path) -> None:
    plant(library, "tiny.h200.cu", "sum *= row_scale<Matrix>(arguments.scales, row);", "sum *= nothing;")
    done = run("validate", library, "--json")
    assert (done.exit_code, done.codes) == (3, ["VQ0822"])


def test_a_tensor_that_does_not_fit(compiled: Path, weights: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.safetensors"
    run("quantize", weights, "--tensor", "other", "--algorithm", "vq-4-4-1", "-o", other)
    done = run("validate", compiled, "--tensors", other, "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0803"])


@pytest.mark.parametrize("name", ["tiny.h200.cu", "tiny.h", "tiny.h200.cubin"])
def test_a_damaged_bundle(name: str, library: Path) -> None:
    (library / name).write_bytes((library / name).read_bytes()[:-1])
    done = run("validate", library, "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0705"])
    assert name in done.json["diagnostics"][0]["message"]


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [
        (["nowhere"], "VQ0704", 1),
        (["."], "VQ0704", 1),
        (["LIBRARY", "--gpu", "a100"], "VQ0805", 1),
        (["LIBRARY", "--tensors", "missing"], "VQ0501", 1),
        (["LIBRARY", "--tensors", "QUANTIZED", "--tensor", "v"], "VQ0514", 1),
    ],
)
def test_what_cannot_be_validated(
    arguments: list[str],
    code: str,
    exit_code: int,
    compiled: Path,
    quantized: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    places = {"LIBRARY": str(compiled), "QUANTIZED": str(quantized)}
    done = run("validate", *[places.get(word, word) for word in arguments], "--json")
    assert (done.exit_code, done.codes) == (exit_code, [code])


def test_a_tensor_without_its_file_is_a_usage_error(compiled: Path) -> None:
    done = run("validate", compiled, "--tensor", "w")
    assert done.exit_code == 2
    assert "--tensors" in done.stderr


def test_a_library_without_source(library: Path) -> None:
    drop(library, "tiny.h200.cu")
    done = run("validate", library)
    assert done.exit_code == 1
    assert "error[VQ0802]" in done.stderr
    assert "--emit cu" in done.stderr


def test_no_device(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    done = run("validate", compiled, "--backend", "cuda")
    assert done.exit_code == 5
    assert "error[VQ0806]" in done.stderr
    assert "pip install 'vqcc[gpu]'" in done.stderr
    assert run("validate", compiled, "--backend", "cuda", "--json").codes == ["VQ0806"]


def test_bench_without_a_device(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda", None)
    done = run("bench", compiled, "-o", tmp_path / "results.json")
    assert (done.exit_code, done.stdout) == (5, "")
    assert "error[VQ0806]" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert run("bench", compiled, "--json").codes == ["VQ0806"]
    assert run("bench").exit_code == 2
    assert run("bench", tmp_path, "--json").codes == ["VQ0704"]


def test_no_host_compiler(compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("validate", compiled, "--json")
    assert done.exit_code == 3
    assert done.codes == ["VQ0820"]


def test_a_manifest_that_does_not_make_sense(library: Path) -> None:
    manifest = json.loads((library / "manifest.json").read_text())
    for change in (
        {"op": {"kind": "conv"}},
        {"op": None},
        {"layout": {"vectors": 1}},
        {"algorithm": {"family": "kmeans"}},
        {"gpus": []},
        {"gpus": {"h200": {"kernels": [{"name": "x"}]}}},
        {"name": 5},
        {"level": "o9"},
        {"level": None},
        {"build_id": "0" * 16},
        {"build_id": "x"},
        {"gpus": {"h200": {**manifest["gpus"]["h200"], "dram_bytes_per_second": 0}}},
    ):
        (library / "manifest.json").write_text(json.dumps(seal({**manifest, **change})))
        done = run("validate", library, "--json")
        assert (done.exit_code, done.codes) == (1, ["VQ0705"]), change
        assert "describes no library: " in done.json["diagnostics"][0]["message"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"level": "o2"', '"level": "o1"'),
        ('"toolchain": "nvrtc', '"toolchain": "nvcc'),
        ('"threads": ', '"threads": 1'),
        ('"minimum_driver": "', '"minimum_driver": "1'),
    ],
)
def test_a_manifest_that_was_changed_by_hand(old: str, new: str, library: Path) -> None:
    """Whatever it says is covered by its own hash, though every file is as it was."""
    manifest = library / "manifest.json"
    text = manifest.read_text()
    old = old.replace("o2", json.loads(text)["level"])
    assert old in text
    manifest.write_text(text.replace(old, new, 1))
    done = run("validate", library)
    assert done.exit_code == 1
    assert f"error[VQ0705]: the manifest.json of {library} was changed: it does not have" in done.stderr
    assert "compile the spec again" in done.stderr


@pytest.mark.usefixtures("copied_runtime")
def test_an_unusable_cache_is_a_warning(
    compiled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it is for compile; what the emulator compiles then lies in a directory that is gone afterwards."""
    (tmp_path / "file").write_text("no directory")
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    done = run("validate", compiled)
    assert done.exit_code == 0
    assert done.stderr.startswith(f"warning[VQ0702]: cannot write to {tmp_path / 'file' / 'cache'}/")
    assert " = help: validation goes on without it" in done.stderr
    assert done.stdout.endswith("launches within their bounds of float64\n")
    assert list(tmp_path.joinpath("temporary").iterdir()) == []
    done = run("validate", compiled, "--json")
    assert (done.exit_code, done.codes, done.stderr) == (0, ["VQ0702"], "")


@pytest.fixture
def packed(quantized: Path, compiled: Path, tmp_path: Path) -> Path:
    path = tmp_path / "packed.safetensors"
    assert run("pack", quantized, "--library", compiled, "-o", path).exit_code == 0
    return path


def test_packed_weights(packed: Path, quantized: Path, compiled: Path) -> None:
    done = run("validate", compiled, "--tensors", quantized, "--packed", packed, "--json")
    assert (done.exit_code, done.codes) == (0, [])
    assert {result["tensor"] for result in done.json["results"]} == {"w"}


def test_packed_weights_that_are_not_the_tensors(packed: Path, quantized: Path, compiled: Path) -> None:
    with safe_open(packed, "np") as file:
        metadata = file.metadata()
    arrays = load_file(packed)
    arrays["w.codes"] = arrays["w.codes"][::-1].copy()
    save_file(arrays, packed, metadata)
    done = run("validate", compiled, "--tensors", quantized, "--packed", packed)
    assert done.exit_code == 4
    assert "error[VQ0801]" in done.stderr
    assert "error[VQ0545]" in done.stderr


@pytest.mark.parametrize("part", ["codes", "books", "scales"])
def test_one_wrong_bit_of_packed_weights_is_found(
    packed: Path, quantized: Path, compiled: Path, part: str
) -> None:
    """Though no launch need be outside its bound for it."""
    with safe_open(packed, "np") as file:
        metadata = file.metadata()
    arrays = load_file(packed)
    changed = arrays[f"w.{part}"].copy()
    changed.reshape(-1).view(np.uint8)[changed.dtype.itemsize * 3] ^= 1
    save_file({**arrays, f"w.{part}": changed}, packed, metadata)
    done = run("validate", compiled, "--tensors", quantized, "--packed", packed, "--json")
    assert done.exit_code == 4
    assert done.codes[0] == "VQ0545", "what explains the mismatches comes before them"
    message = done.json["diagnostics"][0]["message"]
    place = [int(each) for each in np.unravel_index(3, changed.shape)]
    assert (
        f"w.{part} is not what 'w' packs to: 1 of {changed.size} elements differ, the first at {place}"
        in message
    )


def test_packed_weights_need_their_tensors(packed: Path, compiled: Path) -> None:
    done = run("validate", compiled, "--packed", packed)
    assert done.exit_code == 2
    assert "--tensors" in done.stderr


def test_weights_that_are_not_packed(quantized: Path, compiled: Path) -> None:
    done = run("validate", compiled, "--tensors", quantized, "--packed", quantized, "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0530"])


def test_packed_weights_of_another_name(packed: Path, weights: Path, compiled: Path, tmp_path: Path) -> None:
    renamed = tmp_path / "renamed.safetensors"
    save_file({"v": load_file(weights)["w"]}, renamed)
    other = tmp_path / "v.safetensors"
    assert run("quantize", renamed, "--tensor", "v", "--algorithm", "vq-4-4-1", "-o", other).exit_code == 0
    done = run("validate", compiled, "--tensors", other, "--packed", packed, "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0530"])
    assert "'v'" in done.json["diagnostics"][0]["message"]
