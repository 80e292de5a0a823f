"""Every preset on every GPU, at every level: a sound cubin, or a refusal that says why."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING

import cubins
import pytest
from command import run
from libraries import spec_text
from matrix import GPUS, PRESETS, random_case

from vqcc import gpus
from vqcc.algorithms.presets import resolve
from vqcc.codegen.bundle import read_bundle
from vqcc.codegen.cache import CompileCache, compile_cached
from vqcc.codegen.toolchain import find
from vqcc.levels import LEVELS, STRATEGIES
from vqcc.passes.placement import RESERVED_FOR_SUMS
from vqcc.search import compile_plans

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.codegen.toolchain import Compiled

#: Every level on the GPU of the paper and on the one that is measured; the plainest and the best on the others.
LEVELS_OF = {gpu: LEVELS if gpu in {"rtx4090", "h200"} else ("sc", "best") for gpu in GPUS}
ALL = [(preset, gpu, level) for preset in PRESETS for gpu in GPUS for level in LEVELS_OF[gpu]]
SAMPLE = [
    ("aqlm-3", "rtx4090", "sc"),
    ("aqlm-3", "rtx4090", "o3"),
    ("aqlm-3", "b200", "sc"),
    ("aqlm-1x16", "rtx5090", "best"),
    ("gptvq-4", "a40", "sc"),
    ("gptvq-2", "h200", "o4"),
    ("quip-4", "l40s", "best"),
    ("vq-4-8-1", "h200", "gc"),
    ("aqlm-1x16", "h100", "sc"),
]
SHAPES = ((4096, 4096), (11008, 4096), (4096, 11008))


def is_refused(preset: str, gpu: str, level: str) -> bool:
    """Whether a GPU's shared memory holds no whole book."""
    needed = resolve(preset).table_bytes + RESERVED_FOR_SUMS
    return level == "sc" and needed > gpus.load(gpu).shared_bytes_per_block.integer


def check(
    preset: str, gpu: str, level: str, tmp_path: Path, cache: Path, *, n: int = 48, k: int = 512
) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(spec_text(preset, n=n, k=k, m=[1, 16], gpu=gpu, level=level))
    done = run("compile", spec, "-o", tmp_path / "out", "--cache-dir", cache)
    limit = gpus.load(gpu).shared_bytes_per_block.integer
    if is_refused(preset, gpu, level):
        assert done.exit_code == 1
        needed = f"it takes {resolve(preset).table_bytes} bytes, a block has at most {limit}"
        assert f"on {gpu}: {needed}" in done.stderr
        assert "= help: use level: o1" in done.stderr
        assert done.stdout == ""
        assert not (tmp_path / "out").exists()
        return
    assert done.exit_code == 0, done.stderr
    bundle = read_bundle(tmp_path / "out" / "tiny")
    cubin = cubins.read(bundle.files[f"tiny.{gpu}.cubin"])
    assert f"sm_{cubin.sm}" == gpus.load(gpu).target == bundle.manifest["gpus"][gpu]["target"]
    kernels = bundle.manifest["gpus"][gpu]["kernels"]
    assert cubin.kernels == tuple(sorted(kernel["name"] for kernel in kernels))
    assert set(cubin.kernels) <= set(cubin.stacks)
    assert set(cubin.stacks.values()) == {0}
    for kernel in kernels:
        used = kernel["resources"]
        assert (used["stack_bytes"], used["spill_store_bytes"], used["spill_load_bytes"]) == (0, 0, 0)
        assert level == "best" or kernel["strategy"] == asdict(STRATEGIES[level])
        assert kernel["launch"]["blocks_per_sm"] >= 1
        assert kernel["launch"]["dynamic_shared_bytes"] + used["static_shared_bytes"] <= limit
        assert kernel["launch"]["threads"] * used["registers"] <= gpus.load(gpu).registers_per_block.integer


@pytest.mark.parametrize(("preset", "gpu", "level"), SAMPLE)
def test_a_sample(preset: str, gpu: str, level: str, tmp_path: Path, cache_directory: Path) -> None:
    check(preset, gpu, level, tmp_path, cache_directory)


@pytest.mark.full
@pytest.mark.parametrize(("preset", "gpu", "level"), ALL)
def test_all(preset: str, gpu: str, level: str, tmp_path: Path, cache_directory: Path) -> None:
    check(preset, gpu, level, tmp_path, cache_directory)


def test_a_layer_of_a_7b_model(tmp_path: Path, cache_directory: Path) -> None:
    check("aqlm-2x8", "h200", "best", tmp_path, cache_directory, n=11008, k=4096)


@pytest.mark.full
@pytest.mark.parametrize("gpu", GPUS)
@pytest.mark.parametrize("preset", PRESETS)
def test_layers_of_a_7b_model(preset: str, gpu: str, tmp_path: Path, cache_directory: Path) -> None:
    """Each of the three shapes with every preset, and on every GPU."""
    n, k = SHAPES[(PRESETS.index(preset) + GPUS.index(gpu)) % len(SHAPES)]
    check(preset, gpu, "best", tmp_path, cache_directory, n=n, k=k)


@pytest.mark.parametrize(
    "seed",
    [pytest.param(seed, marks=() if seed in {4, 7, 13} else pytest.mark.full) for seed in range(80)],
)
def test_random_configurations(seed: int, cache_directory: Path) -> None:
    """The compiler takes what the emulator's does, and some tile fits its registers."""
    case = random_case(seed)
    toolchain, cache = find("nvrtc"), CompileCache(cache_directory / "compiled", 1 << 30)
    for level in (case.level, "best"):
        problems = case.problems(level)

        def compile_source(source: str, target: str = problems[0].gpu.target) -> Compiled:
            return compile_cached(toolchain, cache, source, target=target, want_ptx=False, file_name="x.cu")

        _, plans, compiled = compile_plans(problems, compile_source)
        for plan in plans:
            used = compiled.resources[plan.kernel]
            assert (used.stack_bytes, used.spill_store_bytes, used.spill_load_bytes) == (0, 0, 0)
            assert plan.launch is not None
            assert plan.launch.blocks_per_sm >= 1


def test_the_sample_holds_both_outcomes_and_all_there_is() -> None:
    assert set(SAMPLE) <= set(ALL)
    assert set(GPUS) == set(gpus.names())
    assert {level for *_, level in ALL} == set(LEVELS)
    refused = [(preset, gpu) for preset, gpu, level in ALL if is_refused(preset, gpu, level)]
    assert {gpu for preset, gpu in refused if preset == "aqlm-1x16"} == set(GPUS)
    assert {gpu for preset, gpu in refused if preset == "aqlm-3"} == {"rtx4090", "rtx5090", "a40", "l40s"}
    assert {preset for preset, _ in refused} == {"aqlm-1x16", "aqlm-3"}
    assert {is_refused(*each) for each in SAMPLE} == {True, False}


def test_one_gpu_that_must_be_refused_fails_the_whole_spec(tmp_path: Path) -> None:
    spec = tmp_path / "spec.yaml"
    spec.write_text(spec_text("aqlm-3", gpu=list(GPUS), m=1))
    done = run("compile", spec, "-o", tmp_path / "out", "--no-cache", "--json")
    assert done.exit_code == 1
    assert done.codes == ["VQ0403"] * 4
    named = [item["message"].split(" on ")[1].split(":")[0] for item in done.json["diagnostics"]]
    assert sorted(named) == ["a40", "l40s", "rtx4090", "rtx5090"]
    assert done.json["libraries"] == []
    assert not (tmp_path / "out").exists()


def test_a_stack_is_noticed() -> None:
    """The reader of cubins can tell a kernel that uses a stack frame from one that does not."""
    source = (
        'extern "C" __global__ void stacked(float* x, const int* i) {\n'
        "  volatile float held[64];\n"
        "  for (int j = 0; j < 64; ++j) held[j] = x[j];\n"
        "  x[0] = held[i[0] & 63];\n}\n"
        'extern "C" __global__ void plain(float* x) { x[0] = 1.0f; }\n'
    )
    compiled = find("nvrtc").compile(source, target="sm_90", want_ptx=False, file_name="x.cu")
    cubin = cubins.read(compiled.cubin)
    assert cubin.stacks["plain"] == 0
    assert cubin.stacks["stacked"] >= 256
    assert compiled.resources["stacked"].stack_bytes >= 256


def test_a_gpu_of_ones_own(tmp_path: Path, cache_directory: Path) -> None:
    """A spec may describe its GPU; its limits count, not those of a known one."""
    limits = {name: fact.value for name, fact in gpus.load("rtx4090").facts().items()}
    own = {"name": "mine", "compute_capability": "8.9", "dtypes": ["float16"], **limits}
    small = {**own, "shared_bytes_per_block": 49152, "shared_bytes_per_block_default": 49152}
    spec = tmp_path / "spec.yaml"
    spec.write_text(spec_text("vq-8-12-1", gpu=small, n=48, k=512))
    done = run("compile", spec, "-o", tmp_path / "out", "--cache-dir", cache_directory)
    assert done.exit_code == 1
    assert "on mine: it takes 65536 bytes, a block has at most 49152" in done.stderr
    spec.write_text(spec_text("vq-8-12-1", gpu=own, n=48, k=512))
    done = run("compile", spec, "-o", tmp_path / "out", "--cache-dir", cache_directory)
    assert done.exit_code == 0, done.stderr
    assert cubins.read((tmp_path / "out" / "tiny" / "tiny.mine.cubin").read_bytes()).sm == 89
    manifest = json.loads((tmp_path / "out" / "tiny" / "manifest.json").read_text())
    assert manifest["gpus"]["mine"]["target"] == "sm_89"
