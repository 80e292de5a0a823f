"""The C header of a library of attention, compiled as C and C++ and driven through every path by a C program."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from build_tools import SANITIZERS, STANDARDS, WARNINGS, compilers, run_threads
from caches import SLACK, STRATEGY, make_plan, make_problem
from codegen.test_header import check_contents

from vqcc.codegen.cache_header import render_cache_header
from vqcc.passes.cache.append import launch_append, plan_appends

if TYPE_CHECKING:
    from vqcc.plan import CachePlan

PROGRAM = Path(__file__).parent / "header" / "cache_program.c"
BUILD_ID, LAYOUT_ID = "0123456789abcdef", "0123456789ab"
#: A strategy, options of the op, and bytes of workspace of the kernels that attend, the one for fewer sequences first.
LIBRARIES: dict[str, tuple[str, dict[str, Any], tuple[int, int]]] = {
    "contiguous": ("score", {"window": 40}, (1024, 2048)),
    "paged": ("gc", {"page_size": 32, "rope": "half", "softcap": True}, (4096, 512)),
    "paged, sliding": ("gc", {"page_size": 32, "sliding_window": 33}, (0, 0)),
    "needs none for few": ("gc", {"page_size": 32}, (0, 256)),
    "two page sizes": ("score", {"page_size": [64, 32]}, (512, 1024)),
}


def write_library(name: str, directory: Path) -> None:
    """The header, and expected.h with an account of it that comes from the plans."""
    strategy, options, workspaces = LIBRARIES[name]
    problem = make_problem("cq-2", q_heads=8, head_dim=128, batch=[2, 4], query_tokens=2, **options)
    problems = [replace(problem, variant=variant) for variant in problem.op.variants()]
    plans = [
        with_workspace(make_plan(each, STRATEGY[strategy]), workspaces[each.variant.sizes["batch"] > 2])
        for each in problems
    ]
    enough = [(workspaces[0], max(workspaces))[each.variant.sizes["batch"] > 2] for each in problems]
    appends = [launch_append(problem, each, SLACK) for each in plan_appends(problems, plans)]
    header = render_cache_header("lib", [problems], [plans], [appends], BUILD_ID, LAYOUT_ID, [True])
    (directory / "lib.h").write_text(header)
    assert plans[0].layout is not None
    rows = ", ".join(
        f'{{"{each.kernel}", {each.launch.grid}u, {each.launch.threads}u, {each.launch.dynamic_shared_bytes}u, '
        f"{sufficient}u}}"
        for each, sufficient in zip((*plans, *appends), (*enough, *(0 for _ in appends)), strict=True)
        if each.launch is not None
    )
    sizes = {
        which: ", ".join("4" if each.c_type in {"int32_t", "float"} else "8" for each in arguments)
        for which, arguments in (
            ("attend", problem.op.arguments(problem.variant)),
            ("append", problem.op.append_arguments(problem.variant)),
        )
    }
    (directory / "expected.h").write_text(
        f"""#include "lib.h"
#include "lib.h"
#define LIB(word) lib_##word
#define CONST(word) LIB_##word
#define KERNELS {len(plans) + len(appends)}
#define SIZES {len(problem.op.page_sizes)}
static const int32_t page_blocks[] = {{{", ".join(str(size // 32) for size in problem.op.page_sizes)}}};
#define PAGED {int(problem.op.paged)}
#define WINDOWED {int(problem.op.window > 0)}
#define ROTATED {int(problem.op.rope != "none")}
#define FACTS {int(strategy != "gc")}
#define CAPPED {int(problem.op.softcap)}
#define SLIDES {int(problem.op.sliding_window > 0)}
#define EXPECTED_PAGE_BYTES {plans[0].layout.page_bytes(64)}
static const unsigned char attend_sizes[] = {{{sizes["attend"]}, 0}};
static const unsigned char append_sizes[] = {{{sizes["append"]}, 0}};
struct expected_kernel {{ const char* name; unsigned grid, threads, shared_bytes; size_t workspace; }};
static const struct expected_kernel expected[] = {{{rows}}};
"""
    )


def with_workspace(plan: CachePlan, workspace_bytes: int) -> CachePlan:
    """The plan, with a kernel that takes so much."""
    assert plan.launch is not None
    return replace(plan, launch=replace(plan.launch, workspace_bytes=workspace_bytes))


def run(
    name: str, language: str, standard: str, compiler: tuple[str, ...], directory: Path
) -> subprocess.CompletedProcess[str]:
    write_library(name, directory)
    program = directory / "program"
    flags = [f"-std={standard}", *WARNINGS, *SANITIZERS, *(("-x", "c++") if language == "c++" else ())]
    subprocess.run([*compiler, *flags, f"-I{directory}", str(PROGRAM), "-o", str(program)], check=True)
    return subprocess.run([str(program)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize(("language", "standard"), STANDARDS)
def test_every_path(name: str, language: str, standard: str, tmp_path: Path) -> None:
    for compiler in compilers(language).values():
        ran = run(name, language, standard, compiler, tmp_path)
        assert (ran.stdout, ran.stderr, ran.returncode) == ("ok\n", "", 0)


@pytest.mark.parametrize("name", ["contiguous", "paged"])
def test_threads_with_contexts_of_their_own(name: str, tmp_path: Path) -> None:
    write_library(name, tmp_path)
    run_threads(PROGRAM.parent / "cache_threads.c", tmp_path)


@pytest.mark.parametrize("name", LIBRARIES)
def test_nothing_an_engine_must_not_find(name: str, tmp_path: Path) -> None:
    write_library(name, tmp_path)
    check_contents((tmp_path / "lib.h").read_text())


@pytest.mark.parametrize(
    ("name", "right", "wrong"),
    [
        ("paged", "parameters[0] = &local.queries;", "parameters[0] = &local.outputs;"),
        ("two page sizes", "kernel->page_blocks != page_blocks", "page_blocks == 0"),
        (
            "two page sizes",
            "if (tokens[i] == (int64_t)page_blocks * LIB_BLOCK_TOKENS) return 1;",
            "return 1;",
        ),
    ],
)
def test_the_program_can_fail(name: str, right: str, wrong: str, tmp_path: Path) -> None:
    """A header that took its queries for its outputs, say, or pages of one size for the other's, does not pass."""
    write_library(name, tmp_path)
    header = (tmp_path / "lib.h").read_text()
    broken = header.replace(right, wrong)
    assert broken != header
    (tmp_path / "lib.h").write_text(broken)
    program = tmp_path / "program"
    subprocess.run(["gcc", "-std=c11", f"-I{tmp_path}", str(PROGRAM), "-o", str(program)], check=True)
    assert subprocess.run([str(program)], capture_output=True, check=False).returncode == 1
