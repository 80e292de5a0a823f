"""examples/engine over a stand-in for libcuda: what it computes, what it launches, and how it fails."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest
from build_tools import CMAKE, check_sources
from engine_program import ENGINE, GPU, ROOT, Engine, build_engine, launches, write_weights
from packed_books import books_file, books_library

from vqcc.runtime.backend import CudaRunner

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import ModuleType

#: Of the tiny spec.
HIDDEN, QKV, INTERMEDIATE, HEAD_DIM, Q_HEADS, KV_HEADS, PAGE = 256, 512, 512, 64, 4, 2, 32
NOTHING_HELD = "0 0 0 0\n"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory, cache_directory: Path) -> Engine:
    return build_engine(tmp_path_factory.mktemp("engine"), cache_directory)


@pytest.fixture(scope="module")
def weights(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("weights") / "packed"
    write_weights(engine, directory, 2)
    return directory


def holds_nothing(directory: Path) -> bool:
    """Whether a program that has ended gave all back to the driver, or never asked it."""
    held = directory / "held"
    return not held.exists() or held.read_text() == NOTHING_HELD


def check(engine: Engine, dump: Path, bench: Callable[[str], ModuleType]) -> set[str]:
    """Hold a dump against float64; the steps that were."""
    program = bench("engine_check")
    found = list(program.check_dump(dump, program.Model.load(engine.model, GPU)))
    assert [str(each) for each in found if not each.comparison.passed] == []
    return {each.step for each in found}


def test_decoding_is_right(
    engine: Engine, weights: Path, tmp_path: Path, bench: Callable[[str], ModuleType]
) -> None:
    """Two layers of packed weights, three sequences past their windows: every step against float64."""
    options = ["--batch", 3, "--context", 75, "--layers", 2, "--weights", weights, "--repeats", 1, "--check"]
    done = engine.compute(tmp_path, *options, "--dump", tmp_path / "dump", "--json", tmp_path / "json")
    assert (done.returncode, done.stderr) == (0, "")
    assert "WRONG" not in done.stdout
    assert (tmp_path / "held").read_text() == NOTHING_HELD
    steps = check(engine, tmp_path / "dump", bench)
    assert {
        "qkv",
        "append, pages",
        "append, key window",
        "attention",
        "down",
        "whole layer",
        "output",
    } <= steps
    found = json.loads((tmp_path / "json").read_text())
    assert found["right"] is True
    assert {"attention_norm", "attention_sum", "rotate", "mlp_norm", "activation", "output"} <= set(
        found["checked"]
    )
    assert (found["batch"], found["context"], found["layers"], found["hidden"]) == (3, 75, 2, HIDDEN)
    assert found["bytes_read"] > found["weight_bytes"] > HIDDEN * QKV // 4


@pytest.mark.parametrize("tokens", [21, pytest.param(1, marks=pytest.mark.full)])
def test_prefill_is_right(
    tokens: int, engine: Engine, tmp_path: Path, bench: Callable[[str], ModuleType]
) -> None:
    options = ["--batch", 2, "--prefill", tokens, "--layers", 1, "--repeats", 1, "--check"]
    done = engine.compute(tmp_path, *options, "--dump", tmp_path / "dump")
    assert (done.returncode, done.stderr) == (0, "")
    assert "attention       right" in done.stdout
    assert "whole layer" in check(engine, tmp_path / "dump", bench)


def test_what_is_wrong_is_found(engine: Engine, tmp_path: Path) -> None:
    """Nothing computes here, so that every step is."""
    done = engine.run(tmp_path, "--layers", 1, "--context", 40, "--repeats", 1, "--check")
    assert done.returncode == 1
    assert done.stdout.count("WRONG") == 6


@dataclass
class FakeDevice:
    """Writes down what the Python harness launches."""

    launched: list[tuple[str, list[int], list[Any]]] = field(default_factory=list)

    def load(self, cubin: bytes) -> FakeDevice:
        return self

    def function(self, name: str, shared_bytes: int, carveout_percent: int) -> str:
        return name

    def launch(self, function: str, arguments: list[Any], grid: int, threads: int, shared_bytes: int) -> None:
        shape = [grid, 1, 1, threads, 1, 1, shared_bytes]
        self.launched.append((function, shape, [argument.tobytes() for argument in arguments]))


@dataclass(frozen=True)
class Held:
    address: int


STEPS = ("norm", "qkv", "rotate", "append", "attention", "o", "norm", "gate_up", "silu", "down")
OWN = {"norm": "add_rms_norm", "rotate": "rotate_heads", "silu": "gated_silu"}


def scalars_of(step: str, batch: int, pages: int) -> dict[str, float]:
    """What the Python harness passes for a token of each sequence."""
    if step == "append":
        strides = {"sequence": QKV, "token": QKV, "head": HEAD_DIM}
        own: dict[str, float] = {"new_tokens": 1}
        own |= {f"{side}_{axis}_stride": size for side in ("key", "value") for axis, size in strides.items()}
    elif step == "attention":
        width = Q_HEADS * HEAD_DIM
        own = {"query_tokens": 1, "softmax_scale": HEAD_DIM**-0.5, "softcap": 0.0}
        own |= {f"{side}_{axis}_stride": width for side in ("q", "out") for axis in ("sequence", "token")}
        own |= {"q_head_stride": HEAD_DIM, "out_head_stride": HEAD_DIM}
    else:
        n, k = {
            "qkv": (QKV, HIDDEN),
            "o": (HIDDEN, HIDDEN),
            "gate_up": (2 * INTERMEDIATE, HIDDEN),
            "down": (HIDDEN, INTERMEDIATE),
        }[step]
        return {"m": batch, "x_stride": k, "y_stride": n}
    return {"batch": batch, "page_table_stride": pages, "page_blocks": 0, **own}


def test_launches_are_those_of_the_python_harness(engine: Engine, tmp_path: Path) -> None:
    """In the order of the layer, with the same arguments, overlapping, and the same again in one graph."""
    batch, context = 2, 70
    done = engine.run(tmp_path, "--batch", batch, "--context", context, "--layers", 2, "--repeats", 1)
    assert done.returncode == 0, done.stderr
    fill, *made = launches(tmp_path)
    assert "append_many" in fill.kernel
    assert all(launch.overlaps for launch in made)
    assert [launch.captured for launch in made] == [False] * 21 + [True] * 21
    assert [(each.kernel, each.shape, each.words) for each in made[:21]] == [
        (each.kernel, each.shape, each.words) for each in made[21:]
    ]
    assert made[20].kernel == "add_rms_norm"
    libraries: dict[str, Any] = {**engine.linears, "attention": engine.attention, "append": engine.attention}
    for step, launch in zip(2 * STEPS, made[:20], strict=True):
        if step in OWN:
            assert launch.kernel == OWN[step]
            continue
        library = libraries[step]
        (kernel,) = (each for each in library.builds[GPU].in_cubin if each.name == launch.kernel)
        values = dict(zip((each.name for each in kernel.arguments), launch.words, strict=True))
        device = FakeDevice()
        runner = CudaRunner(device, library, GPU, b"")  # type: ignore[arg-type]
        arrays: Any = {
            each.name: Held(values[each.name])
            for each in kernel.arguments
            if each.role != "scalar" and values[each.name]
        }
        runner.enqueue(kernel, arrays, scalars_of(step, batch, -(-context // PAGE)))
        (wanted,) = device.launched
        padded = [word + bytes(8 - len(word)) for word in wanted[2]]
        assert (wanted[0], wanted[1]) == (launch.kernel, list(launch.shape))
        assert [word.to_bytes(8, "little") for word in launch.words] == padded
        needed = {each.name for each in kernel.arguments if each.role != "scalar" and not each.optional}
        assert needed - {"bias", "stage_scales", "scales", "workspace"} <= set(arrays)


def test_codebooks_beside_random_weights(
    engine: Engine, weights: Path, tmp_path: Path, bench: Callable[[str], ModuleType]
) -> None:
    options = ["--context", 40, "--layers", 1, "--books", weights / "attention.safetensors", "--repeats", 1]
    done = engine.compute(tmp_path, *options, "--dump", tmp_path / "dump")
    assert (done.returncode, done.stderr) == (0, "")
    assert "attention" in check(engine, tmp_path / "dump", bench)


def test_nothing_overlaps_if_it_shall_not(engine: Engine, tmp_path: Path) -> None:
    done = engine.run(tmp_path, "--layers", 1, "--context", 33, "--repeats", 1, "--no-overlap", "--breakdown")
    assert done.returncode == 0, done.stderr
    made = launches(tmp_path)
    assert not any(launch.overlaps for launch in made)
    assert len([launch for launch in made if launch.captured]) == 11 + 10
    assert "gate_up" in done.stdout


def test_a_run_that_is_not_timed_is_one_graph(engine: Engine, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    done = engine.run(tmp_path, "--layers", 1, "--context", 33, "--no-timing", "--json", report)
    assert done.returncode == 0, done.stderr
    assert "1 layers: each reads " in done.stdout
    assert json.loads(report.read_text())["layer"] is None
    assert len([launch for launch in launches(tmp_path) if launch.captured]) == 11


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--bach", "2"], "there is no option '--bach'"),
        (["--batch"], "--batch has no value"),
        (["--batch", "5"], "--batch cannot be '5': give a whole number from 1 to 4"),
        (["--batch", "2x"], "--batch cannot be '2x'"),
        (["--context", "513"], "give a whole number from 1 to 512"),
        (["--layers", "0"], "--layers cannot be '0'"),
        (["--rope-base", "-1"], "--rope-base cannot be '-1'"),
        (["--prefill", "8", "--context", "9"], "--prefill begins with an empty cache"),
        (["--breakdown", "--no-timing"], "leave --no-timing out"),
        (["--prefill", "65"], "qkv: m is not between 1 and 64"),
        (["--weights", "x", "--books", "y"], "--weights has codebooks of the cache too: leave --books out"),
        (["--books", "/nowhere"], "/nowhere: the file cannot be read"),
        (["--weights", "/nowhere"], "/nowhere/attention.safetensors: the file cannot be read"),
        (["--layers", "2", "--json", "/nowhere/x"], "cannot write /nowhere/x: there is no such directory"),
    ],
)
def test_wrong_options(options: list[str], text: str, engine: Engine, tmp_path: Path) -> None:
    done = engine.run(tmp_path, *options)
    assert done.returncode == 2
    assert done.stderr.startswith("engine: ")
    assert text in done.stderr
    assert holds_nothing(tmp_path)


def test_mistakes_come_before_the_gpu(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for options in (["--books", "/nowhere"], ["--dump", tmp_path / "file" / "x"], ["--json", "/nowhere/x"]):
        done = engine.run(tmp_path, *options, STUB_FAIL="cuInit")
        assert done.returncode == 2
        assert str(options[1]) in done.stderr


@pytest.mark.parametrize(
    ("line", "other", "text"),
    [
        ("#define DECODER_RANKS 1", "#define DECODER_RANKS 2", "leave tensor_parallel out"),
        ("#define DECODER_SHAPE_QKV_N", "#define OTHER", "one layer, qkv, of q, k and v"),
        ("#define DECODER_SHAPE_O_N", "#define OTHER", "must have layers o, down and attention"),
    ],
)
def test_models_that_it_cannot_run_do_not_compile(
    line: str, other: str, text: str, engine: Engine, tmp_path: Path
) -> None:
    header = (engine.model / "decoder.h").read_text()
    assert line in header
    (tmp_path / "decoder.h").write_text(header.replace(line, other))
    shutil.copy(engine.model / "decoder.embedded.h", tmp_path)
    includes = [f"-I{each}" for each in (tmp_path, engine.model, ROOT / "templates" / "host" / "include")]
    command = ["g++", "-std=c++17", "-fsyntax-only", *includes, str(ENGINE / "options.cpp")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert text in done.stderr


@pytest.mark.full
def test_every_compiler_takes_it(engine: Engine, tmp_path: Path) -> None:
    own = engine.model.parent / "kernels"
    includes = [ENGINE.parent / "common", ROOT / "templates" / "host" / "include", engine.model, own]
    check_sources(sorted(ENGINE.glob("*.cpp")), includes, tmp_path)


def test_help(engine: Engine, tmp_path: Path) -> None:
    done = engine.run(tmp_path, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "--context N" in done.stdout


def test_layers_that_do_not_fit(engine: Engine, tmp_path: Path) -> None:
    done = engine.run(tmp_path, "--layers", 900, STUB_FREE="10000000")
    assert done.returncode == 2
    assert "900 layers of 0 MiB do not fit 9 MiB of free memory" in done.stderr


def spoil(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "truncated":
        path.write_bytes(data[: len(data) // 2])
    elif how == "of another layout" and path.stem == "attention":
        path.write_bytes(books_file(path.parent, books_library()))
    elif how in ("of another layout", "of weights"):
        name = "down" if path.stem != "down" else "o"
        shutil.copy(path.with_name(f"{name}.safetensors"), path)
    else:
        path.unlink()


@pytest.mark.parametrize(
    ("file", "how", "text"),
    [
        ("qkv", "truncated", "qkv.safetensors: arrays overlap, leave bytes out or end past the file's end"),
        ("attention", "truncated", "attention.safetensors: arrays overlap"),
        ("o", "of another layout", "o.safetensors: the tensor was packed for another layout"),
        ("attention", "of another layout", "attention.safetensors: the books were packed for another layout"),
        (
            "attention",
            "of weights",
            "attention.safetensors: the file holds packed weights, which vqcc/weights.h reads",
        ),
        ("gate_up", "gone", "gate_up.safetensors: the file cannot be read"),
    ],
)
def test_wrong_weights(file: str, how: str, text: str, engine: Engine, weights: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(weights, tmp_path / "weights")
    spoil(copy / f"{file}.safetensors", how)
    done = engine.run(tmp_path, "--layers", 1, "--context", 40, "--weights", copy)
    assert done.returncode == 2
    assert text in done.stderr
    assert ("at byte 0\n" in done.stderr) == (how == "gone")
    assert holds_nothing(tmp_path)


@pytest.mark.parametrize(
    ("failing", "text"),
    [
        ("cuInit", "cuInit failed: CUDA error 100"),
        ("cuModuleLoadData", "loading the model: the driver refused the cubin"),
        ("cuModuleLoadData 5", "the engine's kernels: the driver refused the cubin"),
        ("cuModuleGetFunction", "loading the model: the cubin is not this library's"),
        ("cuFuncSetAttribute 3", "refused"),
        ("cuMemAlloc_v2 20", "cuMemAlloc_v2 failed: CUDA error 2"),
        ("cuMemcpyHtoD_v2 12", "cuMemcpyHtoD_v2 failed"),
        ("cuStreamCreate", "cuStreamCreate failed"),
        ("cuStreamSynchronize", "cuStreamSynchronize failed: CUDA error 719"),
        ("cuLaunchKernelEx 1", "the driver refused a launch of the engine's kernels: CUDA error 701"),
        ("cuLaunchKernelEx 2", "qkv: the driver refused the launch"),
        ("cuLaunchKernelEx 5", "attention: the driver refused the launch"),
        ("cuLaunchKernelEx 15", "append: the driver refused the launch"),  # while the stream captures
        ("cuStreamBeginCapture_v2", "cuStreamBeginCapture_v2 failed"),
        ("cuStreamEndCapture", "cuStreamEndCapture failed"),
        ("cuGraphInstantiateWithFlags", "cuGraphInstantiateWithFlags failed"),
        ("cuEventCreate 1", "cuEventCreate failed"),
        ("cuGraphLaunch 2", "cuGraphLaunch failed: CUDA error 719"),
        ("cuEventSynchronize", "cuEventSynchronize failed"),
    ],
)
def test_what_goes_wrong_is_said(failing: str, text: str, engine: Engine, tmp_path: Path) -> None:
    done = engine.run(tmp_path, "--layers", 1, "--context", 40, "--repeats", 1, STUB_FAIL=failing)
    assert done.returncode == 2, done.stdout
    assert done.stderr.startswith("engine: ")
    assert text in done.stderr
    if failing != "cuInit":
        assert (tmp_path / "held").read_text() == NOTHING_HELD


@pytest.mark.full
def test_cmake_builds_it(engine: Engine, cache_directory: Path, tmp_path: Path) -> None:
    """By the package and the example's own file, to a program that launches the same."""
    environment = {**os.environ, "XDG_CACHE_HOME": str(cache_directory / "cmake")}
    package, build = ROOT / "templates" / "host" / "cmake", tmp_path / "build"
    options = [f"-Dvqcc_DIR={package}", "-DENGINE_SPEC=specs/tiny.yaml", "-DENGINE_GPU=h200;rtx4090"]
    for command in (
        [CMAKE, "-S", ENGINE, "-B", build, "-G", "Unix Makefiles", *options],
        [CMAKE, "--build", build],
    ):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    model = build / "vqcc" / "decoder" / "decoder"
    built = replace(engine, program=build / "engine", model=model)
    for number, program in enumerate((engine, built)):
        done = program.run(tmp_path / str(number), "--layers", 1, "--context", 40, "--repeats", 1)
        assert (done.returncode, done.stderr) == (0, "")
    plain, by_cmake = (launches(tmp_path / str(number)) for number in range(2))
    assert len(plain) == len(by_cmake)
    # vqcc's own are planned for two GPUs here, and may be others.
    own = [[each for each in made if each.kernel in OWN.values()] for made in (plain, by_cmake)]
    assert [(each.kernel, each.shape) for each in own[0]] == [(each.kernel, each.shape) for each in own[1]]


def test_files_are_short() -> None:
    for path in ENGINE.iterdir():
        if path.suffix in {".cpp", ".hpp", ".cu", ".cuh"}:
            assert len(path.read_text().splitlines()) <= 250, path.name
