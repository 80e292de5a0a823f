"""quantize and pack."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command import run
from libraries import spec_text
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from sharded import split_file

from vqcc.library import load_library
from vqcc.tensors.container import load, load_cache
from vqcc.tensors.packing import unpack_codes

if TYPE_CHECKING:
    from pathlib import Path

ALGORITHM = "vq-4-4-1"


def test_a_packed_file_is_no_file_of_vq_tensors(quantized: Path, compiled: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed.safetensors"
    assert run("pack", quantized, "--library", compiled, "-o", packed).exit_code == 0
    for words in (
        ("pack", packed, "--library", compiled, "-o", tmp_path / "again"),
        ("validate", compiled, "--tensors", packed),
        ("profile", packed),
    ):
        done = run(*words, "--json")
        assert (done.exit_code, done.codes) == (1, ["VQ0511"])
        (found,) = done.json["diagnostics"]
        assert found["message"].startswith(f"{packed} is packed already")
        assert "validate --packed" in found["help"]
        assert "vqcc quantize" in found["help"]


def test_quantize(weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "q.safetensors"
    done = run("quantize", weights, "--tensor", "w", "--algorithm", ALGORITHM, "-o", output)
    assert (done.exit_code, done.stderr) == (0, "")
    tensor = load(output, "w")
    assert tensor.relative_error is not None
    assert done.stdout.startswith(f"{output}: w [40, 64] as VQ<4,4,1>, ")
    assert f"relative error {tensor.relative_error:.4f}" in done.stdout
    original = load_file(weights)["w"].astype(np.float64)
    measured = np.linalg.norm(tensor.algorithm.decode(tensor) - original) / np.linalg.norm(original)
    assert measured == pytest.approx(tensor.relative_error, rel=1e-5)
    assert measured < 0.7


def test_what_becomes_no_smaller_is_warned_of(weights: Path, tmp_path: Path) -> None:
    words = (
        "quantize",
        weights,
        "--tensor",
        "w",
        "--algorithm",
        "vq-8-8-2",
        "-o",
        tmp_path / "q.safetensors",
    )
    done = run(*words)
    assert done.exit_code == 0
    assert done.stderr.startswith(f"warning[VQ0549]: {tmp_path / 'q.safetensors'}: w takes 2")
    assert "bits per weight, no less than float16" in done.stderr
    (found,) = run(*words, "--json").json["diagnostics"]
    assert (found["code"], found["severity"]) == ("VQ0549", "warning")


def test_quantize_json(weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "q.safetensors"
    done = run("quantize", weights, "--tensor", "other", "--algorithm", ALGORITHM, "-o", output, "--json")
    assert done.exit_code == 0
    assert set(done.json) == {
        "output",
        "tensor",
        "shape",
        "algorithm",
        "bits_per_weight",
        "relative_error",
        "diagnostics",
    }
    assert done.json["diagnostics"] == []
    assert (done.json["output"], done.json["tensor"], done.json["shape"]) == (str(output), "other", [64, 64])
    assert done.json["algorithm"]["entries"] == 16


def test_quantize_by_a_spec_gives_the_same_file(weights: Path, quantized: Path, tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(spec_text(ALGORITHM))
    output = tmp_path / "q.safetensors"
    assert run("quantize", weights, "--tensor", "w", "--algorithm", spec, "-o", output).exit_code == 0
    assert output.read_bytes() == quantized.read_bytes()


def test_the_seed_matters(weights: Path, quantized: Path, tmp_path: Path) -> None:
    output = tmp_path / "q.safetensors"
    arguments = ["--tensor", "w", "--algorithm", ALGORITHM, "-o", str(output), "--seed"]
    assert run("quantize", weights, *arguments, 0).exit_code == 0
    assert output.read_bytes() == quantized.read_bytes()
    assert run("quantize", weights, *arguments, 1).exit_code == 0
    assert output.read_bytes() != quantized.read_bytes()


@pytest.mark.parametrize(
    ("change", "code", "hint"),
    [
        ({"name": "W2"}, "VQ0514", "'w'"),
        ({"algorithm": "vq-4-4"}, "VQ0301", ""),
        ({"algorithm": "aqlm-2x9"}, "VQ0301", "did you mean 'aqlm-2x8'?"),
        ({"algorithm": "missing.yaml"}, "VQ0101", ""),
        ({"algorithm": "aqlm-3"}, "VQ0306", ""),
        ({"algorithm": "vq-3-4-1"}, "VQ0303", ""),
        ({"weights": "missing.safetensors"}, "VQ0501", ""),
        ({"output": "nowhere/q.safetensors"}, "VQ0527", ""),
    ],
)
def test_what_cannot_be_quantized(
    change: dict[str, str],
    code: str,
    hint: str,
    weights: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    choice = {
        "name": "w",
        "algorithm": ALGORITHM,
        "weights": str(weights),
        "output": "q.safetensors",
        **change,
    }
    done = run(
        "quantize",
        choice["weights"],
        "--tensor",
        choice["name"],
        "--algorithm",
        choice["algorithm"],
        "-o",
        choice["output"],
    )
    assert done.exit_code == 1, done
    assert f"error[{code}]" in done.stderr
    assert hint in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_weights_are_fused(tmp_path: Path) -> None:
    """As one weight of all rows would be quantized, whose rows they are."""
    rng = np.random.default_rng(2)
    parts = {name: rng.standard_normal((rows, 32)).astype(np.float32) for name, rows in (("k", 8), ("q", 24))}
    save_file({**parts, "whole": np.concatenate([parts["q"], parts["k"]])}, tmp_path / "weights.safetensors")
    common = ("quantize", tmp_path / "weights.safetensors", "--algorithm", "vq-4-2-1")
    done = run(*common, "--tensor", "q", "--tensor", "k", "--fuse", "qk", "-o", tmp_path / "fused")
    assert done.exit_code == 0, done.stderr
    assert run(*common, "--tensor", "whole", "-o", tmp_path / "whole").exit_code == 0
    fused, whole = load(tmp_path / "fused", "qk"), load(tmp_path / "whole", "whole")
    assert fused.shape == (32, 32)
    np.testing.assert_array_equal(fused.codes, whole.codes)
    np.testing.assert_array_equal(fused.scales, whole.scales)


@pytest.mark.parametrize(
    ("names", "algorithm", "code", "text"),
    [
        (("w", "other"), ALGORITHM, "VQ0548", "'other' is float32 [64, 64], 'w' is float16 [40, 64]"),
        (("w", "missing"), ALGORITHM, "VQ0514", "missing"),
        (("w", "other"), "cq-2", "VQ0548", "keys or values, which are not fused"),
    ],
)
def test_weights_that_cannot_be_fused(
    names: tuple[str, str], algorithm: str, code: str, text: str, weights: Path, tmp_path: Path
) -> None:
    tensors = [word for name in names for word in ("--tensor", name)]
    output = tmp_path / "q"
    done = run("quantize", weights, *tensors, "--fuse", "x", "--algorithm", algorithm, "-o", output)
    assert done.exit_code == 1
    assert f"error[{code}]" in done.stderr
    assert text in done.stderr
    assert not output.exists()


def test_names_that_look_like_markup(tmp_path: Path) -> None:
    name = "layers[/b].:smile:"
    weight = np.random.default_rng(1).standard_normal((16, 32)).astype(np.float32)
    save_file({name: weight}, tmp_path / "weights.safetensors")
    output = tmp_path / "q.safetensors"
    done = run(
        "quantize",
        tmp_path / "weights.safetensors",
        "--tensor",
        name,
        "--algorithm",
        "vq-4-2-1",
        "-o",
        output,
    )
    assert done.exit_code == 0
    assert f"{output}: {name} [16, 32]" in done.stdout


def test_pack(quantized: Path, compiled: Path, tmp_path: Path) -> None:
    output = tmp_path / "packed.safetensors"
    done = run("pack", quantized, "--library", compiled, "-o", output)
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{output}: w [40, 64] in ")
    library, tensor = load_library(compiled), load(quantized, "w")
    arrays = load_file(output)
    assert set(arrays) == {"w.codes", "w.books", "w.scales"}
    assert np.array_equal(unpack_codes(arrays["w.codes"], library.layout), tensor.codes)
    assert arrays["w.books"].tobytes() == tensor.algorithm.pack_tables(tensor).tobytes()
    with safe_open(output, "np") as file:
        described = json.loads(file.metadata()["vqcc.packed"])["w"]
    header = (compiled / "tiny.h").read_text()
    assert f'"{described["layout_id"]}"' in header
    assert described["shape"] == [40, 64]
    assert f"#define TINY_CODES_BYTES INT64_C({arrays['w.codes'].nbytes})" in header
    assert f"#define TINY_BOOKS_BYTES INT64_C({arrays['w.books'].nbytes})" in header


def test_pack_json(quantized: Path, compiled: Path, tmp_path: Path) -> None:
    output = tmp_path / "packed.safetensors"
    done = run(
        "pack", quantized, "--library", compiled, "--gpu", "h200", "--tensor", "w", "-o", output, "--json"
    )
    assert done.exit_code == 0
    sizes = {name.removeprefix("w."): array.nbytes for name, array in load_file(output).items()}
    assert done.json == {"output": str(output), "tensors": {"w": sizes}}


def test_packing_twice_gives_the_same_file(quantized: Path, compiled: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run("pack", quantized, "--library", compiled, "-o", tmp_path / name).exit_code == 0
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_pack_refuses_what_does_not_fit(weights: Path, compiled: Path, tmp_path: Path) -> None:
    """Every tensor of the file that does not fit is named."""
    other, algorithm = tmp_path / "other.safetensors", tmp_path / "algorithm.safetensors"
    assert run("quantize", weights, "--tensor", "other", "--algorithm", ALGORITHM, "-o", other).exit_code == 0
    assert (
        run("quantize", weights, "--tensor", "w", "--algorithm", "vq-4-3-1", "-o", algorithm).exit_code == 0
    )
    output = tmp_path / "packed.safetensors"
    done = run("pack", other, "--library", compiled, "-o", output)
    assert done.exit_code == 1
    assert "error[VQ0803]" in done.stderr
    assert "it has shape [64, 64] instead of the library's [40, 64]" in done.stderr
    done = run("pack", algorithm, "--library", compiled, "-o", output, "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0803"])
    assert "it has entries 8 instead of the library's 16" in done.json["diagnostics"][0]["message"]
    assert not output.exists()


@pytest.mark.parametrize(
    ("change", "code", "hint"),
    [
        ({"--gpu": "h20"}, "VQ0805", "did you mean 'h200'?"),
        ({"--tensor": "v"}, "VQ0514", "VQ tensors of this file: w"),
        ({"--library": "nowhere"}, "VQ0704", ""),
        ({"-o": "no/such/directory"}, "VQ0527", ""),
    ],
)
def test_what_cannot_be_packed(
    change: dict[str, str],
    code: str,
    hint: str,
    quantized: Path,
    compiled: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"--library": str(compiled), "-o": "packed", **change}
    done = run("pack", quantized, *[word for pair in options.items() for word in pair])
    assert done.exit_code == 1
    assert f"error[{code}]" in done.stderr
    assert hint in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_pack_needs_a_library_and_an_output(quantized: Path, compiled: Path) -> None:
    assert run("pack", quantized, "-o", "x").exit_code == 2
    assert run("pack", quantized, "--library", compiled).exit_code == 2


@pytest.fixture(scope="module")
def profiled(quantized: Path, tmp_path_factory: pytest.TempPathFactory, cache_directory: Path) -> Path:
    """A library built from the profile of `quantized`."""
    directory = tmp_path_factory.mktemp("profiled")
    assert run("profile", quantized, "-o", directory / "hotness.json").exit_code == 0
    spec = directory / "tiny.yaml"
    spec.write_text(spec_text(ALGORITHM, n=40, k=64, profile="hotness.json"))
    done = run("compile", spec, "-o", directory, "--cache-dir", cache_directory / "user")
    assert done.exit_code == 0, done.stderr
    return directory / "tiny"


@pytest.fixture
def other(weights: Path, tmp_path: Path) -> Path:
    """The weight of `quantized` with other codes."""
    path = tmp_path / "other.safetensors"
    arguments = ["--tensor", "w", "--algorithm", ALGORITHM, "-o", str(path), "--seed", "1"]
    assert run("quantize", weights, *arguments).exit_code == 0
    return path


def packed_codes(path: Path, library: Path) -> np.ndarray:
    return unpack_codes(load_file(path)["w.codes"], load_library(library).layout)


def test_pack_by_a_profile(quantized: Path, profiled: Path, tmp_path: Path) -> None:
    """Entries are renamed, the most frequent to 0; the weights stay what they are."""
    output = tmp_path / "packed.safetensors"
    done = run("pack", quantized, "--library", profiled, "-o", output)
    assert (done.exit_code, done.stderr) == (0, "")
    codes, tensor = packed_codes(output, profiled), load(quantized, "w")
    counts = np.bincount(codes.reshape(-1), minlength=16)
    assert (np.diff(counts) <= 0).all()
    assert sorted(counts) == sorted(np.bincount(tensor.codes.reshape(-1), minlength=16))
    books = load_file(output)["w.books"].view(np.float16).reshape(1, 1, 16, 4)
    renamed = replace(tensor, codes=codes.astype(np.uint8), codebooks=books)
    assert np.array_equal(renamed.decode(), tensor.decode())
    with safe_open(output, "np") as file:
        assert json.loads(file.metadata()["vqcc.packed"])["w"]["order"] == "frequency"
    done = run("validate", profiled, "--tensors", quantized, "--packed", output)
    assert done.exit_code == 0, done.stderr


def test_a_file_packed_for_a_library_without_a_profile_is_warned_of(
    quantized: Path, compiled: Path, profiled: Path, tmp_path: Path
) -> None:
    output = tmp_path / "packed.safetensors"
    assert run("pack", quantized, "--library", compiled, "-o", output).exit_code == 0
    line = ["validate", profiled, "--tensors", quantized, "--packed", output]
    done = run(*line)
    assert done.exit_code == 0, done.stderr
    assert done.stderr.startswith(
        f"warning[VQ0544]: {output}: the entries of 'w' are in the order 'identity'"
    )
    done = run(*line, "--json")
    assert (done.exit_code, done.codes, done.stderr) == (0, ["VQ0544"], "")
    assert done.json["diagnostics"][0]["severity"] == "warning"
    assert all(result["passed"] for result in done.json["results"])


def test_pack_refuses_codes_that_the_profile_did_not_count(
    other: Path, profiled: Path, tmp_path: Path
) -> None:
    output = tmp_path / "packed.safetensors"
    done = run("pack", other, "--library", profiled, "-o", output)
    assert done.exit_code == 1
    assert "error[VQ0540]" in done.stderr
    assert "other codes than those of 'w'" in done.stderr
    assert "--other-codes" in done.stderr
    assert not output.exists()


def test_pack_other_codes_where_told(other: Path, profiled: Path, tmp_path: Path) -> None:
    """By the frequencies of their own."""
    output = tmp_path / "packed.safetensors"
    assert run("pack", other, "--library", profiled, "-o", output, "--other-codes").exit_code == 0
    counts = np.bincount(packed_codes(output, profiled).reshape(-1), minlength=16)
    assert (np.diff(counts) <= 0).all()
    assert run("validate", profiled, "--tensors", other, "--packed", output).exit_code == 0


def test_a_library_without_a_profile_packs_entries_as_they_are(
    quantized: Path, compiled: Path, tmp_path: Path
) -> None:
    for extra in ([], ["--other-codes"]):
        output = tmp_path / f"packed{len(extra)}"
        assert run("pack", quantized, "--library", compiled, "-o", output, *extra).exit_code == 0
        assert np.array_equal(packed_codes(output, compiled), load(quantized, "w").codes)
        with safe_open(output, "np") as file:
            assert json.loads(file.metadata()["vqcc.packed"])["w"]["order"] == "identity"


def test_sharded_tensors_are_packed_and_validated_as_one_file(
    quantized: Path, compiled: Path, tmp_path: Path
) -> None:
    index = split_file(quantized, tmp_path / "sharded")
    outputs = []
    for source in (quantized, index, index.parent):
        outputs.append(tmp_path / f"packed-{len(outputs)}.safetensors")
        assert run("pack", source, "--library", compiled, "-o", outputs[-1]).exit_code == 0
        done = run("validate", compiled, "--tensors", source, "--packed", outputs[-1])
        assert done.exit_code == 0, done.stderr
    assert len({output.read_bytes() for output in outputs}) == 1


def test_quantize_a_cache(real_activations: Path, tmp_path: Path) -> None:
    arguments = ["quantize", real_activations, "--tensor", "layer.3.key", "--algorithm", "cq-2"]
    output = tmp_path / "k.safetensors"
    done = run(*arguments, "--fisher", "layer.3.weight", "-o", output)
    assert (done.exit_code, "VQ0514" in done.stderr, output.exists()) == (1, True, False)
    done = run(*arguments, "-o", output)
    assert done.exit_code == 0, done.stderr
    tensor = load_cache(output, "layer.3.key")
    assert done.stdout == (
        f"{output}: layer.3.key [12, 512, 32] as VQ<4,8,1>, 2.00 bits per activation, "
        f"relative error {tensor.relative_error:.4f}\n"
    )
    again = tmp_path / "j.safetensors"
    done = run(*arguments, "-o", again, "--json")
    assert (done.json["shape"], done.json["bits_per_activation"]) == ([12, 512, 32], 2.0)
    assert done.json["relative_error"] == tensor.relative_error
    assert again.read_bytes() == output.read_bytes()


def test_several_tensors_go_into_one_file(real_activations: Path, tmp_path: Path) -> None:
    """Each as by itself; a name given twice, or Fisher weights of some only, are refused before anything is written."""
    both, alone = tmp_path / "both.safetensors", tmp_path / "alone.safetensors"
    names = ("layer.3.key", "layer.3.value")
    source = real_activations
    repeated = [part for name in names for part in ("--tensor", name)]
    done = run("quantize", source, *repeated, "--algorithm", "cq-2", "-o", both, "--json")
    assert done.exit_code == 0, done.output
    assert [each["tensor"] for each in json.loads(done.stdout)] == list(names)
    whole = load_file(both)
    for name in names:
        assert run("quantize", source, "--tensor", name, "--algorithm", "cq-2", "-o", alone).exit_code == 0
        for key, array in load_file(alone).items():
            np.testing.assert_array_equal(whole[key], array)
    for wrong in (
        (*repeated, "--tensor", names[0]),
        (*repeated, "--fisher", names[0]),
    ):
        output = tmp_path / "none.safetensors"
        done = run("quantize", source, *wrong, "--algorithm", "cq-2", "-o", output)
        assert done.exit_code == 2
        assert not output.exists()


def test_fisher_weights_are_of_a_cache(weights: Path, tmp_path: Path) -> None:
    output = tmp_path / "x.safetensors"
    done = run("quantize", weights, "--tensor", "w", "--algorithm", ALGORITHM, "--fisher", "w", "-o", output)
    assert (done.exit_code, "VQ0546" in done.stderr, output.exists()) == (1, True, False)
