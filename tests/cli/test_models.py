"""Whole models on the command line: one directory, libraries by name, built again in no time, refused as one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from command import run
from libraries import spec_text
from model_specs import attention, linear, model_text

if TYPE_CHECKING:
    from pathlib import Path

LAYERS = {
    "q": linear(40, 64, algorithm="vq-4-4-1"),
    "o": linear(40, 64, algorithm="vq-4-4-1"),
    "down": linear(64, 64, algorithm="vq-4-4-1"),
}


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_bytes(model_text(LAYERS))
    return path


def compiled(spec: Path, *options: str) -> Any:
    done = run("compile", spec, "-o", spec.parent / "out", *options, "--json")
    assert done.exit_code == 0, done.stderr
    (result,) = done.json["libraries"]
    return result


def test_a_model_becomes_one_directory(spec: Path) -> None:
    result = compiled(spec)
    directory = spec.parent / "out" / "small"
    assert sorted(path.name for path in directory.iterdir()) == ["down", "manifest.json", "q", "small.h"]
    assert result["libraries"] == {"q": "small-q", "down": "small-down"}
    assert {name: layer["library"] for name, layer in result["layers"].items()} == {
        "q": "q",
        "o": "q",
        "down": "down",
    }
    assert len(result["gpus"]["h200"]) == 2
    assert result["took"]["libraries"] == 2


def test_what_is_compiled_is_counted(spec: Path, tmp_path: Path) -> None:
    """From cold all of it, then after one layer was changed that one, then nothing."""
    options = ("--cache-dir", str(tmp_path / "cache"))
    assert compiled(spec, *options)["took"]["compiled"] == 2
    spec.write_bytes(model_text({**LAYERS, "down": linear(48, 64, algorithm="vq-4-4-1")}))
    changed = compiled(spec, *options)["took"]
    assert (changed["compiled"], changed["found"]) == (1, 1)
    again = compiled(spec, *options)
    assert (again["state"], again["took"]["compiled"], again["took"]["found"]) == ("unchanged", 0, 0)


def test_what_is_unchanged_is_not_made_again(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither read, nor planned, nor written: whoever would is not called."""
    options = ("--cache-dir", str(tmp_path / "cache"))
    compiled(spec, *options)
    for name in (
        "vqcc.compiling._compile",
        "vqcc.models.building.build_model",
        "vqcc.building.build_library",
        "vqcc.codegen.bundle.write_bundle",
    ):
        monkeypatch.setattr(name, refuse)
    again = compiled(spec, *options)
    assert (again["state"], again["took"]["libraries"]) == ("unchanged", 2)


def refuse(*_: Any, **__: Any) -> Any:
    raise AssertionError("nothing was changed")


def test_text_says_what_it_took(spec: Path) -> None:
    done = run("compile", spec, "-o", spec.parent / "out")
    assert done.exit_code == 0, done.stderr
    assert "2 libraries in " in done.stdout.splitlines()[-1]
    assert done.stderr == ""


def test_its_libraries_are_validated_together_and_alone(spec: Path) -> None:
    compiled(spec)
    directory = spec.parent / "out" / "small"
    done = run("validate", directory, "--json")
    assert done.exit_code == 0, done.stderr
    assert {result["kernel"].rsplit("_m1_", 1)[0] for result in done.json["results"]} == {
        "small_q",
        "small_down",
    }
    assert run("validate", directory / "q").exit_code == 0
    (directory / "q" / "small-q.h").write_text("changed")
    assert run("validate", directory, "--json").codes == ["VQ0705"]


def test_tensors_are_of_one_library_of_it(spec: Path, quantized: Path) -> None:
    compiled(spec)
    directory = spec.parent / "out" / "small"
    done = run("validate", directory, "--tensors", quantized, "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0704"])
    (found,) = done.json["diagnostics"]
    assert (
        found["message"] == f"{directory} is a whole model, and w of {quantized} fit not all of its libraries"
    )
    assert found["help"] == f"give the library that they are of: {directory / 'q'}"
    assert done.json["results"] == []


def test_a_folder_that_it_lacks(spec: Path, quantized: Path) -> None:
    compiled(spec)
    directory = spec.parent / "out" / "small"
    packed = spec.parent / "packed.safetensors"
    done = run("pack", quantized, "--library", directory / "dwn", "-o", packed, "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0704"])
    (found,) = done.json["diagnostics"]
    assert found["message"] == f"the model {directory} has no library dwn"
    assert found["help"] == "did you mean 'down'? it has q, down"
    (found,) = run("validate", directory / "o", "--json").json["diagnostics"]
    assert found["message"] == f"o shares the library q of the model {directory}"
    assert found["help"] == f"give {directory / 'q'}"


def test_a_library_of_it_packs(spec: Path, quantized: Path) -> None:
    compiled(spec)
    directory = spec.parent / "out" / "small"
    packed = spec.parent / "packed.safetensors"
    done = run("pack", quantized, "--library", directory, "-o", packed, "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0704"])
    assert run("pack", quantized, "--library", directory / "q", "-o", packed).exit_code == 0


def test_its_algorithm_is_not_one(spec: Path, weights: Path) -> None:
    output = spec.parent / "quantized.safetensors"
    done = run("quantize", weights, "--tensor", "w", "--algorithm", spec, "-o", output, "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0219"])
    (item,) = done.json["diagnostics"]
    assert spec.read_text().splitlines()[item["line"] - 1].strip() == '"layers": {'
    assert item["help"] == "give the preset of that layer's algorithm, or a spec of that layer alone"
    assert not output.exists()


def test_one_wrong_layer_and_nothing_is_written(spec: Path) -> None:
    compiled(spec)
    directory = spec.parent / "out" / "small"
    before = {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}
    spec.write_bytes(model_text({**LAYERS, "down": linear(48, 62, algorithm="vq-4-4-1")}))
    done = run("compile", spec, "-o", spec.parent / "out", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0303"])
    assert {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()} == before


def test_files_of_others_in_a_folder_stay(spec: Path) -> None:
    compiled(spec)
    notes = spec.parent / "out" / "small" / "q" / "notes"
    notes.write_text("mine")
    spec.write_bytes(model_text({"down": LAYERS["down"]}))
    done = run("compile", spec, "-o", spec.parent / "out", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0703"])
    assert notes.read_text() == "mine"
    notes.unlink()
    assert sorted(path.name for path in (spec.parent / "out" / "small").iterdir()) == [
        "down",
        "manifest.json",
        "q",
        "small.h",
    ]
    compiled(spec)
    assert not notes.parent.exists()


def test_outputs_names_all_files(spec: Path) -> None:
    compiled(spec, "--emit", "header,cubin,array")
    directory = spec.parent / "out" / "small"
    options = ("-o", spec.parent / "out", "--emit", "header,cubin,array")
    listed = run("outputs", spec, *options).stdout.splitlines()
    assert sorted(listed) == sorted(str(path) for path in directory.rglob("*") if path.is_file())
    document = run("outputs", spec, *options, "--json").json
    assert document["header"] == str(directory / "small.h")
    assert document["cubins"] == [
        str(directory / name / f"small-{name}.h200.cubin") for name in ("q", "down")
    ]
    assert document["embedded"] == [
        str(directory / name / f"small-{name}.embedded.c") for name in ("q", "down")
    ]


def test_libraries_of_two_models_have_names_of_their_own(tmp_path: Path) -> None:
    """Also where nothing is compiled: both are unchanged."""
    layer = linear(40, 64, algorithm="vq-4-4-1")
    (tmp_path / "one.yaml").write_bytes(model_text({"b-c": layer}, name="a"))
    (tmp_path / "two.yaml").write_bytes(model_text({"c": layer}, name="a-b"))
    specs = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    for spec in specs:
        compiled(spec)
    done = run("compile", *specs, "-o", tmp_path / "out", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0709"])
    assert "a_b_c" in done.json["diagnostics"][0]["message"]


@pytest.mark.parametrize("known", [False, True], ids=["compiled", "unchanged"])
@pytest.mark.parametrize(
    ("model", "layer", "library", "symbol"),
    [
        ("a", "down", "a-down-stage", "A_DOWN_STAGE_SCALES_BYTES"),
        ("a", "down-stage", "a-down", "A_DOWN_STAGE_SCALES_BYTES"),
        ("a", "down", "a-linear", "a_linear_args"),
        ("a", "x", "a-shape-x", "A_SHAPE_X_K"),
        ("a-embedded", "gpu", "a", "A_EMBEDDED_BUILD_ID"),
        ("a", "down", "a-up-stage", None),
        ("a", "down", "a-2", None),
    ],
)
def test_no_two_specs_make_headers_with_the_same_symbols(
    model: str, layer: str, library: str, symbol: str | None, known: bool, tmp_path: Path
) -> None:
    """Whatever order they are given in, and also where nothing is compiled."""
    algorithm = "vq-4-4-1"
    (tmp_path / "one.yaml").write_bytes(model_text({layer: linear(40, 64, algorithm=algorithm)}, name=model))
    (tmp_path / "two.yaml").write_text(spec_text(algorithm, name=library, n=64, k=64))
    specs = [tmp_path / "one.yaml", tmp_path / "two.yaml"]
    if known:
        for spec in specs:
            compiled(spec)
    for first, second in (specs, specs[::-1]):
        done = run("compile", first, second, "-o", tmp_path / "out", "--json")
        if symbol is None:
            assert (done.exit_code, done.codes) == (0, [])
            continue
        assert (done.exit_code, done.codes) == (1, ["VQ0709"])
        (item,) = done.json["diagnostics"]
        assert library.replace("-", "_") in item["message"].partition(", whose")[0].split()
        assert item["message"].startswith(f"{second} and {first} make ")
        assert item["message"].endswith(f", whose headers would both define {symbol}")
        assert item["help"] == "rename one: a library's symbols begin with its name"
        assert [made["spec"] for made in done.json["libraries"]] == [str(first)]


@pytest.mark.parametrize("strange", ["folder", "link", "folder of a link"])
def test_what_no_bundle_holds_is_not_unchanged(strange: str, spec: Path) -> None:
    compiled(spec)
    directory = spec.parent / "out" / "small"
    if strange == "folder":
        (directory / "scratch").mkdir()
    elif strange == "link":
        (directory / "q" / "small-q.h").rename(spec.parent / "elsewhere")
        (directory / "q" / "small-q.h").symlink_to(spec.parent / "elsewhere")
    else:
        (directory / "q").rename(spec.parent / "elsewhere")
        (directory / "q").symlink_to(spec.parent / "elsewhere")
    done = run("compile", spec, "-o", spec.parent / "out", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0703"])


def test_a_depfile_has_every_layers_profile(quantized: Path, tmp_path: Path) -> None:
    assert run("profile", quantized, "-o", tmp_path / "hot.json").exit_code == 0
    layers = {**LAYERS, "q": {**LAYERS["q"], "profile": "hot.json"}}
    spec = tmp_path / "small.yaml"
    spec.write_bytes(model_text(layers))
    compiled(spec, "--depfile", str(tmp_path / "small.d"))
    text = (tmp_path / "small.d").read_text()
    assert text.startswith(str(tmp_path / "out" / "small" / "small.h") + ":")
    assert str(tmp_path / "hot.json") in text


def test_levels_and_gpus_of_the_command_line(spec: Path) -> None:
    result = compiled(spec, "--level", "gc", "--gpu", "a100", "--explain")
    assert list(result["gpus"]) == ["a100"]
    assert {kernel["level"] for kernel in result["plans"]["a100"]["kernels"]} == {"gc"}


def test_attention_is_a_layer(tmp_path: Path) -> None:
    spec = tmp_path / "small.yaml"
    spec.write_bytes(model_text({"attention": attention()}, level="best"))
    result = compiled(spec)
    assert result["layers"]["attention"]["library"] == "attention"
