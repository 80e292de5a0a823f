"""Commands over KV caches: compile, explain, quantize, pack, validate, and what each of them refuses."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from cache_libraries import cache_spec_text
from command import run
from safetensors.numpy import load_file, save_file

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("cache")
    (directory / "cache.yaml").write_text(
        cache_spec_text("cq-2", q_heads=4, kv_heads=2, page_size=32, window=8, level="o2")
    )
    done = run("compile", directory / "cache.yaml", "-o", directory)
    assert (done.exit_code, done.stderr) == (0, "")
    for kernel in ("cache_b2_float16", "cache_append_one_float16", "cache_append_many_float16"):
        assert f"  h200: {kernel}_" in done.stdout
    return directory / "cache"


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory, real_activations: Path) -> Path:
    """Keys and values of a real model: four of its heads, two to a head of 64 channels."""
    directory = tmp_path_factory.mktemp("quantized")
    real = load_file(real_activations)
    pairs = {
        side: real[f"layer.3.{side}"][:4].reshape(2, 2, 512, 32).transpose(0, 2, 1, 3).reshape(2, 512, 64)
        for side in ("key", "value")
    }
    save_file({side: array.copy() for side, array in pairs.items()}, directory / "real")
    for side in ("key", "value"):
        done = run(
            "quantize", directory / "real", "--tensor", side, "--algorithm", "cq-2", "-o", directory / side
        )
        assert done.exit_code == 0
    # One file with both, as a layer has them.
    from vqcc.tensors.container import load_cache, save

    save(directory / "layer", [load_cache(directory / side, side) for side in ("key", "value")])
    return directory / "layer"


def test_validate_random(cache: Path) -> None:
    done = run("validate", cache)
    assert (done.exit_code, done.stderr) == (0, "")
    assert "cache_append_one_float16" in done.stdout
    assert "every byte is as the reference has it" in done.stdout
    assert "launches within their bounds of float64" in done.stdout


def test_pack_and_validate_real_keys_and_values(cache: Path, quantized: Path, tmp_path: Path) -> None:
    packed = tmp_path / "packed"
    done = run(
        "pack",
        quantized,
        "--library",
        cache,
        "--keys",
        "key",
        "--values",
        "value",
        "-o",
        packed,
        "--as",
        "layer.3",
    )
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{packed}: layer.3, codebooks of a KV cache in ")
    names = {name.rpartition(".")[2] for name in load_file(packed)}
    assert names == {"key_books", "value_books", "append_key_books", "append_value_books"}
    arguments = ["--tensors", quantized, "--keys", "key", "--values", "value"]
    for more in ([], ["--packed", packed]):
        done = run("validate", cache, *arguments, *more, "--json")
        assert (done.exit_code, done.codes) == (0, [])
        assert {result["tensor"] for result in done.json["results"]} >= {"outputs", "token blocks"}


def test_packed_books_of_another_algorithm(cache: Path, quantized: Path, tmp_path: Path) -> None:
    done = run(
        "pack",
        quantized,
        "--library",
        cache,
        "--keys",
        "key",
        "--values",
        "other",
        "-o",
        tmp_path / "p",
        "--json",
    )
    assert done.codes == ["VQ0514"]
    done = run("pack", quantized, "--library", cache, "-o", tmp_path / "p", "--json")
    assert done.codes == ["VQ0713"]
    assert not (tmp_path / "p").exists()


def test_json_of_pack(cache: Path, quantized: Path, tmp_path: Path) -> None:
    done = run(
        "pack",
        quantized,
        "--library",
        cache,
        "--keys",
        "key",
        "--values",
        "value",
        "-o",
        tmp_path / "p",
        "--json",
    )
    assert done.exit_code == 0
    assert set(done.json["books"]) == {"key"}
    assert done.json["books"]["key"]["key_books"] == 2 * 16 * 256 * 8


@pytest.mark.parametrize(
    ("command", "arguments"),
    [
        ("pack", ["--keys", "key"]),
        ("pack", ["--values", "value"]),
        ("pack", ["--as", "name"]),
        ("pack", ["--keys", "key", "--values", "value", "--tensor", "w"]),
        ("pack", ["--keys", "key", "--values", "value", "--other-codes"]),
        ("validate", ["--keys", "key"]),
        ("validate", ["--keys", "key", "--values", "value"]),
        ("validate", ["--packed", "p"]),
    ],
)
def test_wrong_usage(
    cache: Path, quantized: Path, tmp_path: Path, command: str, arguments: list[str]
) -> None:
    own = [quantized, "--library", cache, "-o", tmp_path / "p"] if command == "pack" else [cache]
    done = run(command, *own, *arguments)
    assert done.exit_code == 2
    assert "--keys" in done.stderr or "--packed" in done.stderr
    assert not (tmp_path / "p").exists()


def test_tensors_without_sides(cache: Path, weights: Path, tmp_path: Path) -> None:
    run("quantize", weights, "--tensor", "w", "--algorithm", "vq-4-4-1", "-o", tmp_path / "w")
    done = run("validate", cache, "--tensors", tmp_path / "w", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0713"])


def test_explain(cache: Path) -> None:
    done = run("explain", cache)
    assert done.exit_code == 0
    for words in ("cache_layout", "query_rows", "n_shared", "keys: ", "values: "):
        assert words in done.stdout
    plans = run("explain", cache, "--json").json["gpus"]["h200"]["kernels"]
    assert [plan["level"] for plan in plans] == ["o2"]


def test_a_library_of_several_page_sizes(tmp_path: Path) -> None:
    (tmp_path / "pages.yaml").write_text(
        cache_spec_text("cq-2", name="pages", page_size=[32, 64], level="gc")
    )
    done = run("compile", tmp_path / "pages.yaml", "-o", tmp_path)
    assert (done.exit_code, done.stderr) == (0, "")
    names = [
        f"pages_{what}_p{tokens}_float16_"
        for what in ("b2", "append_one", "append_many")
        for tokens in (32, 64)
    ]
    assert all(f"  h200: {name}" in done.stdout for name in names)
    explained = run("explain", tmp_path / "pages")
    assert explained.exit_code == 0
    assert [f"page_tokens = {tokens}" in explained.stdout for tokens in (0, 32, 64)] == [False, True, True]
    checked = run("validate", tmp_path / "pages")
    assert (checked.exit_code, checked.stderr) == (0, "")
    assert all(name in checked.stdout for name in names)


def test_a_quantizer_needs_one_algorithm(tmp_path: Path, real_activations: Path) -> None:
    (tmp_path / "both.yaml").write_text(cache_spec_text({"key": "cq-4", "value": "cq-2"}))
    done = run(
        "quantize", real_activations, "--tensor", "layer.3.key", "--algorithm", tmp_path / "both.yaml",
        "-o", tmp_path / "q", "--json",
    )  # fmt: skip
    assert (done.exit_code, done.codes) == (1, ["VQ0319"])


def test_an_unchanged_spec_is_recognised(cache: Path) -> None:
    done = run("compile", cache.parent / "cache.yaml", "-o", cache.parent, "--json")
    assert [each["state"] for each in done.json["libraries"]] == ["unchanged"]
    assert len(json.dumps(done.json)) > 100
