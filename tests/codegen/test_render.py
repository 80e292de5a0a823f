"""Emitted sources: golden files of four libraries, and what holds for every one."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import cubins
import jinja2
import pytest
from libraries import FakeToolchain, build_fake, make_spec
from matrix import random_case
from plans import compiler_of

from vqcc import gpus
from vqcc.building import build_library
from vqcc.codegen.cache import CompileCache, compile_cached
from vqcc.codegen.render import environment
from vqcc.codegen.text import comment
from vqcc.codegen.toolchain import find
from vqcc.search import compile_plans

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from vqcc.building import Built
    from vqcc.plan import Plan

INT8_TILES = {
    "family": "kmeans",
    "vector_size": 6,
    "entries": 128,
    "residuals": 2,
    "scope": {"rows": 96, "cols": 252},
    "scales": {"group": 126},
    "codebook_dtype": "int8",
}
#: Name, algorithm, shape and level of each golden library.
GOLDEN: dict[str, dict[str, Any]] = {
    "aqlm-2x8-sc": {"algorithm": "aqlm-2x8", "m": [1], "n": 4096, "k": 4096, "level": "sc"},
    "gptvq-2-gc": {"algorithm": "gptvq-2", "m": [4], "n": 1000, "k": 1028, "level": "gc", "gpu": "rtx4090"},
    "quip-4-sc": {"algorithm": "quip-4", "m": [1, 4], "n": 512, "k": 4096, "level": "sc", "gpu": "a100"},
    "int8-tiles-sc": {
        "algorithm": INT8_TILES,
        "m": [3],
        "n": 200,
        "k": 606,
        "level": "sc",
        "gpu": "b200",
        "dtype": "bfloat16",
    },
}
#: And some of the other levels.
LIBRARIES: dict[str, dict[str, Any]] = {
    **GOLDEN,
    "aqlm-3-o1": {"algorithm": "aqlm-3", "m": [1], "n": 1024, "k": 4096, "level": "o1", "gpu": "rtx4090"},
    "aqlm-3-o3": {"algorithm": "aqlm-3", "m": [1, 16], "n": 64, "k": 4096, "level": "o3"},
    "gptvq-2-o4": {"algorithm": "gptvq-2", "m": [1, 16], "n": 1024, "k": 4096, "level": "o4", "gpu": "a100"},
    "quip-4-best": {"algorithm": "quip-4", "m": [1, 16], "n": 4096, "k": 4096, "level": "best"},
    "boundaries-o2": {"algorithm": "vq-4-8-1", "m": [4], "n": 512, "k": 4096, "level": "o2",
                      "cache": {"registers": 4, "shared": 128}},
}  # fmt: skip


def library(name: str) -> Built:
    return build_fake(name=name, **LIBRARIES[name])


def emitted(built: Built, kind: str) -> str:
    (name,) = [name for name in built.files if name.endswith(f".{kind}")]
    return built.files[name].decode()


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_source(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"{name}.cu", emitted(library(name), "cu"))


def test_golden_header(golden: Callable[[str, str], None]) -> None:
    golden("quip-4-sc.h", emitted(library("quip-4-sc"), "h"))


def test_golden_plan(golden: Callable[[str, str], None]) -> None:
    golden("aqlm-2x8-sc.plan.json", emitted(library("aqlm-2x8-sc"), "plan.json"))


@pytest.mark.parametrize("name", LIBRARIES)
def test_sources_compile_without_warning(name: str, cache_directory: Path) -> None:
    """Planned by a stand-in for the compiler: registers may not do, which a real build finds out and plans anew."""
    compiled = compile_cached(
        find("nvrtc"),
        CompileCache(cache_directory / "compiled", 1 << 30),
        emitted(library(name), "cu"),
        target=gpus.load(str(LIBRARIES[name].get("gpu", "h200"))).target,
        want_ptx=False,
        file_name=f"{name}.cu",
    )
    assert cubins.read(compiled.cubin).kernels == tuple(sorted(compiled.resources))
    assert "warning" not in compiled.log


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in GOLDEN else pytest.mark.full) for name in LIBRARIES]
)
def test_libraries_have_no_stack_or_spill(name: str, cache_directory: Path) -> None:
    cache = CompileCache(cache_directory / "compiled", 1 << 30)
    built = build_library(make_spec(name=name, **LIBRARIES[name]), toolchain=find("nvrtc"), cache=cache)
    (build,) = built.gpus
    assert set(cubins.read(build.compiled.cubin).stacks.values()) == {0}
    for used in build.compiled.resources.values():
        assert (used.stack_bytes, used.spill_store_bytes, used.spill_load_bytes) == (0, 0, 0)


def source_of(seed: int) -> tuple[str, tuple[Plan, ...]]:
    case = random_case(seed)
    problems = case.problems(case.level)
    source, plans, _ = compile_plans(problems, compiler_of(problems[0], case.registers))
    return source, plans


#: Decisions that the compiler has the last word on.
LATE = {"grid", "predicted_us", "occupancy", "strategy"}


@pytest.mark.parametrize("seed", range(25))
def test_every_source_is_tidy_and_whole(seed: int) -> None:
    source, plans = source_of(seed)
    assert source.isascii()
    assert source.endswith("}\n")
    lines = source.splitlines()
    assert all(line == line.rstrip() and "\t" not in line for line in lines)
    assert "\n\n\n\n" not in source
    assert not re.search(r"\$\{|<%|//%|\bNone\b|\bUndefined\b", source)
    # Standalone: nothing but what CUDA brings is included.
    included = set(re.findall(r'#include\s*[<"]([^>"]+)[>"]', source))
    assert included <= {"cuda_fp16.h", "cuda_bf16.h", "cuda_runtime.h", "cuda/std/cstdint", "vqcc_emulator.h"}
    kernels = re.findall(r"__launch_bounds__\((\d+), (\d+)\) (\w+)\(", source)
    assert [name for *_, name in kernels] == [plan.kernel for plan in plans]
    assert all(int(threads) % 32 == 0 and int(blocks) >= 1 for threads, blocks, _ in kernels)


@pytest.mark.parametrize("name", LIBRARIES)
def test_decisions_stand_beside_what_they_set(name: str) -> None:
    built = library(name)
    source = emitted(built, "cu")
    prose = re.sub(r"\n//\s+", " ", source)  # a long decision goes on in the next comment lines
    for plan in built.gpus[0].plans:
        decided = [each for each in plan.decisions if each.name not in LATE]
        own = {"fusion", "split", "n_shared", "warps"}
        if plan.strategy.dataflow != "decode":
            own = {"dataflow", "visits"}
        assert {"packed_layout", "entry_order", *own} <= {d.name for d in decided}
        for decision in decided:
            assert f" {decision.name} = {decision.value}: {decision.formula}" in prose
            assert f"{decision.reason}" in prose
            for other in decision.rejected:
                assert f"instead of {other.value}: {other.reason}" in prose
        assert plan.tile is not None
        for constant in plan.tile.constants():
            assert f" {constant.name} = {constant.value};  // {constant.comment}\n" in source


def test_the_source_does_not_depend_on_what_the_compiler_says() -> None:
    few, many = (
        build_fake(toolchain=FakeToolchain(registers=registers), m=[1, 4]) for registers in (20, 200)
    )
    assert emitted(few, "cu") == emitted(many, "cu")
    assert emitted(few, "plan.json") != emitted(many, "plan.json")


def test_what_is_undefined_is_an_error() -> None:
    with pytest.raises(TypeError, match="Undefined"):
        environment().from_string("${ nothing }").render()
    with pytest.raises(jinja2.UndefinedError):
        environment().from_string("${ nothing.at_all }").render()


@pytest.mark.parametrize("value", ["free text", "*/", 1.5, True, None, ["x"]])
def test_only_numbers_and_vetted_text_are_printed(value: object) -> None:
    with pytest.raises(TypeError, match="a template tried to print"):
        environment().from_string("${ value }").render(value=value)
    assert environment().from_string("${ value }").render(value=comment("vetted")) == "vetted"
    assert environment().from_string("${ value }").render(value=7) == "7"


def test_a_kernel_that_spills_is_planned_again() -> None:
    """Each attempt takes the op's next tile; the plan of the last one stands."""
    toolchain = FakeToolchain(spills=2)
    built = build_fake("aqlm-2x8", toolchain=toolchain, m=[8], n=4096, k=4096)
    assert len(toolchain.targets) >= 3
    undisturbed = build_fake("aqlm-2x8", m=[8], n=4096, k=4096)
    assert built.gpus[0].plans[0].tile != undisturbed.gpus[0].plans[0].tile


def test_a_kernel_that_always_spills_is_an_error_that_says_so() -> None:
    from vqcc.diagnostics import ExitCode, VqccError

    with pytest.raises(VqccError) as caught:
        build_library(make_spec(m=[16]), toolchain=FakeToolchain(spills=1000), cache=None)
    assert [item.code for item in caught.value.diagnostics] == ["VQ0607"]
    assert caught.value.exit_code == ExitCode.TOOLCHAIN
    assert "tiny_m16_float16" in str(caught.value)
    assert "h200" in str(caught.value)
