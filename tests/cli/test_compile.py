from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
from command import run
from libraries import FakeToolchain, spec_text

from vqcc.codegen.bundle import read_bundle
from vqcc.codegen.cubin import read_cubin

DEFAULT_FILES = {"tiny.h", "tiny.h200.cu", "tiny.h200.cubin", "tiny.h200.plan.json"}


def files(directory: Path) -> set[str]:
    """Names of a bundle's files, which must be whole."""
    return set(read_bundle(directory).files)


def listing(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*"))


def test_tensors_are_no_spec(quantized: Path, tmp_path: Path) -> None:
    large = tmp_path / "large.safetensors"
    large.write_bytes(quantized.read_bytes()[:100] + b"\0" * 2_000_000)
    for path in (quantized, large):
        done = run("compile", path, "--json")
        assert (done.exit_code, done.codes) == (1, ["VQ0103"])
        (found,) = done.json["diagnostics"]
        assert found["message"] == f"'{path}' is a safetensors file, and a spec is YAML text"
        assert "vqcc pack" in found["help"]


def test_a_bundle(spec: Path, tmp_path: Path) -> None:
    done = run("compile", spec, "-o", tmp_path / "out")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{tmp_path / 'out' / 'tiny'}: written, ")
    assert files(tmp_path / "out" / "tiny") == DEFAULT_FILES
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["tiny"]
    cubin = (tmp_path / "out" / "tiny" / "tiny.h200.cubin").read_bytes()
    kernels = read_cubin(cubin).kernels
    assert [re.sub(r"_[0-9a-f]{8}$", "", name) for name in kernels] == ["tiny_m1_float16", "tiny_m3_float16"]
    for name in kernels:
        assert f"  h200: {name}: " in done.stdout
        assert f'"{name}"' in (tmp_path / "out" / "tiny" / "tiny.h").read_text()


def test_the_default_directory(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("compile", spec).exit_code == 0
    assert files(tmp_path / "out" / "tiny") == DEFAULT_FILES


@pytest.mark.parametrize(
    ("emit", "expected"),
    [
        ("cu", {"tiny.h200.cu"}),
        ("ptx", {"tiny.h200.ptx"}),
        ("cubin", {"tiny.h200.cubin"}),
        ("header", {"tiny.h"}),
        ("plan", {"tiny.h200.plan.json"}),
        ("header, cubin", {"tiny.h", "tiny.h200.cubin"}),
        ("plan,header,cubin,ptx,cu", DEFAULT_FILES | {"tiny.h200.ptx"}),
    ],
)
def test_emit(emit: str, expected: set[str], spec: Path, tmp_path: Path) -> None:
    done = run("compile", spec, "-o", tmp_path / "out", "--emit", emit)
    assert done.exit_code == 0, done.stderr
    assert files(tmp_path / "out" / "tiny") == expected


def test_what_is_no_longer_emitted_goes(spec: Path, tmp_path: Path) -> None:
    assert run("compile", spec, "-o", tmp_path / "out").exit_code == 0
    assert run("compile", spec, "-o", tmp_path / "out", "--emit", "header").exit_code == 0
    assert listing(tmp_path / "out" / "tiny") == ["manifest.json", "tiny.h"]


@pytest.mark.parametrize(("machine", "number"), [("x86_64", 62), ("aarch64", 183)])
def test_an_object_is_for_a_machine(machine: str, number: int, spec: Path, tmp_path: Path) -> None:
    """Another one makes another object of a spec that the cache knows."""
    for _ in range(2):
        done = run("compile", spec, "-o", tmp_path / "out", "--emit", "object", "--machine", machine)
        assert done.exit_code == 0, done.stderr
        held = (tmp_path / "out" / "tiny" / "tiny.embedded.o").read_bytes()
        assert int.from_bytes(held[18:20], "little") == number  # e_machine
    assert run("compile", spec, "-o", tmp_path / "out", "--emit", "object", "--machine", "vax").exit_code == 2


def test_a_host_without_objects_has_arrays(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    done = run("compile", spec, "-o", tmp_path / "out", "--emit", "object")
    assert done.exit_code == 2
    assert "say which with --machine, or emit array" in done.stderr
    assert not (tmp_path / "out").exists()
    assert run("compile", spec, "-o", tmp_path / "out", "--emit", "array").exit_code == 0


@pytest.mark.parametrize(
    ("emit", "hint"), [("cubim", "did you mean 'cubin'?"), ("", "at least one"), ("elf", "none of")]
)
def test_unknown_emit_is_a_usage_error(emit: str, hint: str, spec: Path, tmp_path: Path) -> None:
    done = run("compile", spec, "-o", tmp_path / "out", "--emit", emit)
    assert done.exit_code == 2
    assert hint in done.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["compile"],
        ["compile", "SPEC", "--level", "o9"],
        ["compile", "SPEC", "--toolchain", "clang"],
        ["compile", "SPEC", "-j", "0"],
        ["compile", "SPEC", "--optimize"],
    ],
)
def test_usage(arguments: list[str], spec: Path, tmp_path: Path) -> None:
    words = [str(spec) if word == "SPEC" else word for word in arguments]
    done = run(*words, "-o", tmp_path / "out")
    assert done.exit_code == 2
    assert "Usage:" in done.stderr
    assert not (tmp_path / "out").exists()


def test_gpus_instead_of_the_specs(spec: Path, tmp_path: Path) -> None:
    done = run(
        "compile", spec, "-o", tmp_path, "--gpu", "a100", "--gpu", "rtx4090", "-j", 2, "--emit", "cubin"
    )
    assert done.exit_code == 0, done.stderr
    assert files(tmp_path / "tiny") == {"tiny.a100.cubin", "tiny.rtx4090.cubin"}
    manifest = json.loads((tmp_path / "tiny" / "manifest.json").read_text())
    assert list(manifest["gpus"]) == ["a100", "rtx4090"]
    assert manifest["gpus"]["a100"]["runs_on"] == ["sm_80", "sm_86", "sm_89"]
    assert manifest["gpus"]["rtx4090"]["runs_on"] == ["sm_89"]
    assert manifest["gpus"]["a100"]["minimum_driver"] == "580"


def test_an_unknown_gpu(spec: Path, tmp_path: Path) -> None:
    done = run("compile", spec, "-o", tmp_path / "out", "--gpu", "h20")
    assert done.exit_code == 1
    assert "VQ0401" in done.stderr
    assert "did you mean 'h200'?" in done.stderr
    assert not (tmp_path / "out").exists()


def test_level_instead_of_the_specs(spec: Path, tmp_path: Path) -> None:
    assert run("compile", spec, "-o", tmp_path, "--level", "gc").exit_code == 0
    manifest = json.loads((tmp_path / "tiny" / "manifest.json").read_text())
    assert manifest["level"] == "gc"
    assert ", level gc," in (tmp_path / "tiny" / "tiny.h200.cu").read_text()


def test_explain(spec: Path, tmp_path: Path) -> None:
    """The decisions follow what was written, as `vqcc explain` prints them; the bundle is the same."""
    plain = run("compile", spec, "-o", tmp_path / "plain")
    done = run("compile", spec, "-o", tmp_path / "out", "--explain")
    assert (done.exit_code, done.stderr) == (0, "")
    explained = run("explain", tmp_path / "out" / "tiny").stdout
    assert done.stdout == plain.stdout.replace(str(tmp_path / "plain"), str(tmp_path / "out")) + explained
    files = [read_bundle(tmp_path / place / "tiny").files for place in ("plain", "out")]
    assert files[0] == files[1]


@pytest.mark.parametrize("options", [[], ["--dry-run"], ["--emit", "cubin"]])
def test_explain_in_json(options: list[str], spec: Path, compiled: Path, tmp_path: Path) -> None:
    for _ in range(2):  # the second time the bundle is there
        done = run("compile", spec, "-o", tmp_path / "out", "--explain", "--json", *options)
        assert done.exit_code == 0
        (library,) = done.json["libraries"]
        assert library["plans"] == {"h200": json.loads((compiled / "tiny.h200.plan.json").read_text())}
    assert "plans" not in run("compile", spec, "-o", tmp_path / "out", "--json").json["libraries"][0]


def test_dry_run(spec: Path, tmp_path: Path) -> None:
    before = listing(tmp_path)
    done = run("compile", spec, "-o", tmp_path / "out", "--dry-run", "--no-cache")
    assert done.exit_code == 0
    assert "would be written" in done.stdout
    for name in DEFAULT_FILES:
        assert f"  {name}  " in done.stdout
    assert listing(tmp_path) == before


def test_dry_run_leaves_what_is_there(spec: Path, tmp_path: Path) -> None:
    assert run("compile", spec, "-o", tmp_path / "out").exit_code == 0
    before = (tmp_path / "out" / "tiny" / "manifest.json").read_bytes()
    assert run("compile", spec, "-o", tmp_path / "out", "--dry-run", "--level", "gc").exit_code == 0
    assert (tmp_path / "out" / "tiny" / "manifest.json").read_bytes() == before


def test_cache_directory(spec: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    assert run("compile", spec, "-o", tmp_path / "out", "--cache-dir", cache).exit_code == 0
    assert [path for path in cache.rglob("*") if path.is_file()]


def test_files_do_not_depend_on_jobs(tmp_path: Path) -> None:
    spec = tmp_path / "tiny.yaml"
    spec.write_text(spec_text("vq-4-4-1", gpu=["h200", "rtx4090", "a100"]))
    made = {}
    for jobs in ("1", "2", "3", "7", None):
        out = tmp_path / f"out{jobs}"
        options = [] if jobs is None else ["-j", jobs]
        assert run("compile", spec, "-o", out, "--no-cache", *options).exit_code == 0
        made[jobs] = {path.name: path.read_bytes() for path in (out / "tiny").iterdir()}
    assert len(made["1"]) == 11
    assert all(held == made["1"] for held in made.values())


@pytest.mark.parametrize(
    ("cpus", "options", "expected"), [(3, [], 3), (1, [], 1), (1000, [], 256), (8, ["-j", "2"], 2)]
)
def test_as_many_jobs_as_the_process_may_use_cpus(
    cpus: int, options: list[str], expected: int, spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr("os.sched_getaffinity", lambda _process: set(range(cpus)))
    monkeypatch.setattr("vqcc.compiling.compile_file", lambda _path, chosen, *_: asked.append(chosen.jobs))
    run("compile", spec, "-o", tmp_path / "out", *options, "--json")
    assert asked == [expected]


def test_help_says_how_many_jobs_there_are() -> None:
    text = " ".join(run("compile", "--help").stdout.split())
    assert "[default: (the CPUs this process may use); 1<=x<=256]" in text


def test_one_of_something_is_told_so(tmp_path: Path) -> None:
    """Whole books of `sc` leave room for one block, and a small weight makes a grid of one."""
    spec = tmp_path / "tiny.yaml"
    spec.write_text(spec_text("vq-16-12-1", n=1, k=64, level="sc"))
    done = run("compile", spec, "-o", tmp_path, "--explain")
    assert done.exit_code == 0, done.stderr
    assert ", 1 block per SM, " in done.stdout
    assert re.search(r" 1 block of \d+ threads, ", done.stdout)
    assert not re.search(r"\b1 (blocks|registers|bytes|shuffles)\b", done.stdout)
    done = run("validate", tmp_path / "tiny", "--json")
    assert len(done.json["results"]) == 1
    assert run("validate", tmp_path / "tiny").stdout.endswith("1 of 1 launch within its bounds of float64\n")


def test_no_cache(spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert run("compile", spec, "-o", tmp_path / "out", "--no-cache").exit_code == 0
    assert not (tmp_path / "user").exists()


def test_an_unusable_cache_is_a_warning(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file")
    done = run("compile", spec, "-o", tmp_path / "out", "--cache-dir", tmp_path / "cache" / "in")
    assert done.exit_code == 0
    assert "warning[VQ0702]" in done.stderr
    assert files(tmp_path / "out" / "tiny") == DEFAULT_FILES


def test_json(spec: Path, tmp_path: Path) -> None:
    done = run("compile", spec, "-o", tmp_path / "out", "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert set(done.json) == {"libraries", "diagnostics"}
    assert done.json["diagnostics"] == []
    (library,) = done.json["libraries"]
    assert library["spec"] == str(spec)
    assert library["directory"] == str(tmp_path / "out" / "tiny")
    assert library["state"] == "written"
    manifest = json.loads((tmp_path / "out" / "tiny" / "manifest.json").read_text())
    assert library["build_id"] == manifest["build_id"]
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "out" / "tiny").iterdir()}
    del sizes["manifest.json"]
    assert library["files"] == sizes
    kernels = manifest["gpus"]["h200"]["kernels"]
    assert library["gpus"] == {
        "h200": [
            {
                "kernel": kernel["name"],
                "registers": kernel["resources"]["registers"],
                "shared_bytes": kernel["launch"]["dynamic_shared_bytes"],
                "grid": kernel["launch"]["grid"],
                "threads": kernel["launch"]["threads"],
                "blocks_per_sm": kernel["launch"]["blocks_per_sm"],
                "workspace_bytes": kernel["launch"]["workspace_bytes"],
            }
            for kernel in kernels
        ]
    }


def test_unchanged(spec: Path, tmp_path: Path) -> None:
    first = run("compile", spec, "-o", tmp_path / "out", "--json").json["libraries"][0]
    second = run("compile", spec, "-o", tmp_path / "out", "--json").json["libraries"][0]
    assert (first["state"], second["state"]) == ("written", "unchanged")
    assert {**first, "state": ""} == {**second, "state": ""}


@pytest.mark.parametrize("name", ["tiny.h", "tiny.h200.cu", "tiny.h200.cubin", "manifest.json"])
def test_a_damaged_bundle_is_mended(name: str, spec: Path, tmp_path: Path) -> None:
    assert run("compile", spec, "-o", tmp_path / "out").exit_code == 0
    whole = {path.name: path.read_bytes() for path in (tmp_path / "out" / "tiny").iterdir()}
    damaged = tmp_path / "out" / "tiny" / name
    damaged.write_bytes(damaged.read_bytes() + b" ")
    done = run("compile", spec, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "tiny").iterdir()} == whole


def test_several_specs_of_which_some_are_wrong(spec: Path, tmp_path: Path) -> None:
    unknown = spec.with_name("unknown.yaml")
    unknown.write_text(spec_text("aqlm-2x9", name="unknown", k=60, gpu="h201"))
    refused = spec.with_name("refused.yaml")
    refused.write_text(spec_text("aqlm-3", name="refused", gpu=["h200", "rtx4090", "a40"]))
    again = spec.with_name("again.yaml")
    again.write_bytes(spec.read_bytes())
    missing = spec.with_name("missing.yaml")
    everything = [unknown, spec, refused, again, missing]
    done = run("compile", *everything, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert listing(tmp_path / "out") == sorted({"tiny", "manifest.json", *DEFAULT_FILES})
    assert done.stdout.startswith(f"{tmp_path / 'out' / 'tiny'}: written")
    for text in (
        "error[VQ0301]",
        "did you mean 'aqlm-2x8'?",
        "error[VQ0401]",
        "error[VQ0403]",
        "on rtx4090",
        "on a40",
        "error[VQ0709]",
        "error[VQ0101]",
        f"{unknown}:4:",
    ):
        assert text in done.stderr
    twice = run("compile", spec, spec, "-o", tmp_path / "out")
    assert f"{spec} is given twice" in twice.stderr
    as_json = run("compile", *everything, "-o", tmp_path / "out", "--json")
    assert as_json.exit_code == 1
    assert [library["state"] for library in as_json.json["libraries"]] == ["unchanged"]
    assert as_json.codes == ["VQ0301", "VQ0401", "VQ0403", "VQ0403", "VQ0709", "VQ0101"]
    place = as_json.json["diagnostics"][0]
    assert (place["path"], place["line"]) == (str(unknown), 4)


def test_a_wrong_spec_leaves_the_old_bundle(spec: Path, tmp_path: Path) -> None:
    assert run("compile", spec, "-o", tmp_path / "out").exit_code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "tiny").iterdir()}
    spec.write_text(spec_text("aqlm-3", gpu="rtx4090"))
    done = run("compile", spec, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "out" / "tiny").iterdir()} == before
    assert listing(tmp_path / "out") == sorted(["tiny", *before])


def test_foreign_files_are_not_replaced(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "tiny").mkdir(parents=True)
    (tmp_path / "out" / "tiny" / "notes.txt").write_text("mine")
    done = run("compile", spec, "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert "VQ0703" in done.stderr
    assert listing(tmp_path / "out") == ["notes.txt", "tiny"]


def test_an_output_directory_that_cannot_be_made(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("compile", spec, "-o", tmp_path / "file" / "out")
    assert done.exit_code == 1
    assert "VQ0701" in done.stderr


@pytest.mark.parametrize("path", [Path("/nowhere/spec.yaml"), Path("/")])
def test_a_spec_that_cannot_be_read(path: Path, tmp_path: Path) -> None:
    done = run("compile", path, "-o", tmp_path / "out", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0101"])


def test_a_spec_that_is_no_file(tmp_path: Path) -> None:
    done = run("compile", "/dev/zero", "-o", tmp_path / "out", "--json")
    assert done.exit_code == 1
    assert done.codes[0].startswith("VQ01")


def test_nvcc_or_a_word_about_its_absence(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if shutil.which("nvcc"):
        done = run("compile", spec, "-o", tmp_path / "with", "--toolchain", "nvcc")
        assert done.exit_code == 0, done.stderr
        assert files(tmp_path / "with" / "tiny") == DEFAULT_FILES
        manifest = json.loads((tmp_path / "with" / "tiny" / "manifest.json").read_text())
        assert manifest["toolchain"].startswith("nvcc ")
    monkeypatch.setenv("PATH", str(tmp_path))
    done = run("compile", spec, "-o", tmp_path / "without", "--toolchain", "nvcc")
    assert done.exit_code == 3
    assert "error[VQ0601]" in done.stderr
    assert not (tmp_path / "without").exists()


def test_an_nvcc_that_is_none(spec: Path, tmp_path: Path) -> None:
    program = tmp_path / "nvcc"
    program.write_text("#!/bin/sh\nexit 1\n")
    program.chmod(0o755)
    done = run("compile", spec, "-o", tmp_path / "out", "--toolchain", "nvcc", "--nvcc", program, "--json")
    assert done.exit_code == 3
    assert done.codes[0] in {"VQ0601", "VQ0605"}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("toolchain", [[], ["--toolchain", "nvrtc"]])
@pytest.mark.parametrize("command", ["compile", "explain", "tune"])
def test_an_nvcc_that_would_not_run_is_a_usage_error(command: str, toolchain: list[str], spec: Path) -> None:
    done = run(command, spec, "--nvcc", "/usr/bin/nvcc", *toolchain)
    assert done.exit_code == 2
    assert "give --toolchain nvcc" in done.stderr


def test_names_that_look_like_markup(tmp_path: Path, spec: Path) -> None:
    out = tmp_path / "[bold]a[" / "red]:smile:"
    done = run("compile", spec, "-o", out)
    assert done.exit_code == 0
    assert done.stdout.startswith(f"{out / 'tiny'}: written")


@pytest.mark.parametrize(
    ("algorithm", "cache", "code", "shown"),
    [
        ("gptvq-2", {"registers": 4}, "VQ0406", "4"),
        ("gptvq-2", {"shared": 16, "registers": 4}, "VQ0406", "4"),
        ("vq-4-8-2", {"registers": 60}, "VQ0607", "{"),
    ],
)
def test_what_planning_refuses_is_shown_in_the_file(
    algorithm: str, cache: dict[str, int], code: str, shown: str, tmp_path: Path
) -> None:
    """Boundaries that only a plan can judge: whose books a thread looks up, what the compiler makes of them."""
    spec = tmp_path / "spec.yaml"
    spec.write_text(spec_text(algorithm, n=256, k=4096, level="o2", cache=cache))
    lines = spec.read_text().splitlines()
    for command in (["compile", spec, "-o", tmp_path / "out"], ["explain", spec]):
        done = run(*command, "--json")
        assert (done.exit_code, done.codes) == (1, [code])
        (found,) = done.json["diagnostics"]
        assert found["path"] == str(spec)
        line = lines[found["line"] - 1]
        assert '"cache"' in line or '"registers"' in line
        assert line[found["column"] - 1 : found["end_column"] - 1] == shown


def test_serialized_multiplies_are_warned_about(
    spec: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reason = "insufficient register resources for the wgmma pipeline"
    monkeypatch.setattr("vqcc.cli.compile.find_toolchain", lambda *_: FakeToolchain(serialized=reason))
    done = run("compile", spec, "-o", tmp_path / "out", "--no-cache", "--dry-run", "--json")
    assert done.exit_code == 0
    told = json.loads(done.stdout)
    kernels = told["libraries"][0]["gpus"]["h200"]
    assert {kernel["serialized"] for kernel in kernels} == {reason}
    warnings = [item for item in told["diagnostics"] if item["code"] == "VQ0608"]
    assert [item["severity"] for item in warnings] == ["warning"] * len(kernels)
    for item, kernel in zip(warnings, kernels, strict=True):
        assert (
            f"h200: the assembler serializes the multiplies of {kernel['kernel']}, due to {reason}"
            in item["message"]
        )
