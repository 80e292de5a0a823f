"""The emitted C header, compiled as C and C++ and driven through every path by a C program."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from build_tools import SANITIZERS, STANDARDS, WARNINGS, compilers, run_threads
from libraries import build_fake, with_workspace

from vqcc.codegen.contract import ABI_VERSION
from vqcc.ops.linear.tile import activation_alignment

if TYPE_CHECKING:
    from vqcc.building import Built

PROGRAM = Path(__file__).parent / "header" / "program.c"
INT8 = {
    "family": "kmeans",
    "vector_size": 4,
    "entries": 256,
    "residuals": 2,
    "scope": {"rows": 32, "cols": 128},
    "scales": {"group": 64},
    "codebook_dtype": "int8",
}


def check_contents(header: str) -> None:
    """What no header may have: state, output, allocation, a way out, or more than two includes."""
    text = re.sub(r"/\*.*?\*/", "", header, flags=re.DOTALL)
    assert set(re.findall(r"#include\s*(\S+)", text)) == {"<stddef.h>", "<stdint.h>"}
    assert not re.findall(r"\b(?:printf|malloc|calloc|free|exit|abort|cu[A-Z]\w+|extern)\b", text)
    assert not re.findall(r"^static (?!inline )", text, re.MULTILINE)


@pytest.fixture(scope="module")
def libraries() -> dict[str, Built]:
    """`alpha` has two GPUs and two types, `beta` needs scales of codebooks, `gamma` neither scales nor alignment.

    Kernels of `alpha` need a workspace on one GPU, on both, on none; of `beta` some do; of `gamma` none. `delta` has a
    kernel whose grid is there for each panel of rows of x.
    """
    alpha = build_fake(
        name="alpha", m=[4, 1], dtype=["float16", "bfloat16"], gpu=["h200", "rtx4090"], n=72, k=264
    )
    return {
        "alpha": with_workspace(alpha, [0, 512, 0, 0], [256, 1 << 33, 0, 4]),
        "beta": with_workspace(build_fake(INT8, name="beta", m=[3, 16, 8], n=70, k=300), [0, 4096, 8]),
        "gamma": build_fake(
            {
                "family": "kmeans",
                "vector_size": 3,
                "entries": 16,
                "residuals": 1,
                "scope": "tensor",
                "scales": "none",
            },
            name="gamma",
            m=2,
            n=17,
            k=33,
            level="gc",
        ),
        "delta": build_fake("aqlm-2x8", kind="gemm", name="delta", m=[32, 300], n=72, k=264),
        "epsilon": build_fake(
            "aqlm-2x8",
            kind="linear",
            name="epsilon",
            m={"min": 2, "max": 200},
            n=9000,
            k=4096,
            gpu=["h200", "rtx4090"],
            dtype=["float16", "bfloat16"],
        ),
    }


def write_headers(directory: Path, libraries: dict[str, Built]) -> None:
    for name, built in libraries.items():
        (directory / f"{name}.h").write_bytes(built.files[f"{name}.h"])


def bounds_of(built: Built, dtype: str) -> list[int]:
    """Bounds on m of the kernels of a type."""
    variants = [kernel["variant"] for kernel in next(iter(built.fields["gpus"].values()))["kernels"]]
    return [int(name[1:].partition("_")[0]) for name in variants if name.endswith(f"_{dtype}")]


def expected(built: Built, includes: list[str]) -> str:
    """What the manifest says, as C: an account of the library that does not come from its header."""
    fields = built.fields
    kernels = [gpu["kernels"] for gpu in fields["gpus"].values()]
    types = {"float16": 0, "bfloat16": 1}
    variants = [kernel["variant"] for kernel in kernels[0]]
    selections = []
    for dtype in fields["op"]["dtype"]:
        bounds = bounds_of(built, dtype)
        for m in range(1, max(bounds) + 1):
            bound = min(bound for bound in bounds if bound >= m)
            kernel = variants.index(f"m{bound}_{dtype}")
            # Who asks for the most rows of x has enough for fewer.
            fewer = [variants.index(f"m{other}_{dtype}") for other in bounds if other <= bound]
            workspace = max(row[i]["launch"]["workspace_bytes"] for row in kernels for i in fewer)
            selections.append((m, types[dtype], kernel, workspace))
    n, k = fields["op"]["n"], fields["op"]["k"]
    algorithm = built.gpus[0].problems[0].algorithm
    layout = built.gpus[0].plans[0].layout
    assert layout is not None
    rows = ",\n".join(
        "  {"
        + ", ".join(
            f'{{"{kernel["name"]}", {kernel["launch"]["grid"]}u, {kernel["launch"]["threads"]}u, '
            f"{kernel['launch']['dynamic_shared_bytes']}u, {kernel['launch']['workspace_bytes']}u, "
            f"{kernel['launch']['carveout_percent']}, {kernel['launch']['panel_rows']}, "
            f"{int(gpu['target'] >= 'sm_90')}}}"
            for kernel in gpu["kernels"]
        )
        + "}"
        for gpu in fields["gpus"].values()
    )
    gpus = ",\n".join(
        f'  {{"{build.gpu.name}", "{built.name}.{build.gpu.name}.cubin", '
        f"{build.gpu.compute_capability.replace('.', ', ')}, {build.gpu.sm_count.integer}, "
        f"{int('wgmma' not in build.source)}}}"
        for build in built.gpus
    )
    return "\n".join(
        [
            *(f'#include "{name}"' for name in includes),
            f"#define LIB(word) {built.name}_##word",
            f"#define CONST(word) {built.name.upper()}_##word",
            f"#define GPUS {len(kernels)}",
            f"#define KERNELS {len(variants)}",
            f"#define NEEDS_SCALES {int(algorithm.scales.kind != 'none')}",
            f"#define NEEDS_STAGE_SCALES {int(algorithm.has_codebook_scales)}",
            f"#define EXPECTED_ABI_VERSION {ABI_VERSION}",
            f'#define EXPECTED_BUILD_ID "{fields["build_id"]}"',
            f'#define EXPECTED_LAYOUT_ID "{fields["layout_id"]}"',
            f"#define EXPECTED_CODES_BYTES {4 * n * layout.row_words}",
            f"#define EXPECTED_BOOKS_BYTES {algorithm.scope.books(n, k) * algorithm.table_bytes}",
            f"#define EXPECTED_WORKSPACE_BYTES {max(selection[3] for selection in selections)}",
            "struct expected_gpu { const char *name, *cubin; int major, minor, sm_count, has_ptx; };",
            f"static const struct expected_gpu expected_gpus[{len(kernels)}] = {{\n{gpus}\n}};",
            "struct expected_kernel { const char* name; unsigned grid, threads, shared_bytes; uint64_t workspace; "
            "int carveout, panel_rows, can_overlap; };",
            f"static const struct expected_kernel expected[{len(kernels)}][{len(variants)}] = {{\n{rows}\n}};",
            "static const struct { int m, type, kernel; size_t workspace; } "
            f"selections[{len(selections)}] = {{",
            ",\n".join(f"  {{{', '.join(map(str, selection))}}}" for selection in selections),
            "};",
            "",
        ]
    )


def compile_c(arguments: list[str], directory: Path) -> None:
    done = subprocess.run(arguments, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


@pytest.mark.parametrize(("language", "standard"), STANDARDS)
def test_compiles_without_a_warning(
    language: str, standard: str, libraries: dict[str, Built], tmp_path: Path
) -> None:
    """Included twice, beside other libraries, in two files of one program."""
    write_headers(tmp_path, libraries)
    suffix = "c" if language == "c" else "cpp"
    lines = [f'#include "{name}.h"' for name in (*libraries, "beta", "alpha")]
    calls = " + ".join(f"(int){name}_workspace_bytes(NULL)" for name in libraries)
    for part in ("one", "two"):
        body = f"int {part}(void);\nint {part}(void) {{ return {calls}; }}\n"
        (tmp_path / f"{part}.{suffix}").write_text("\n".join(lines) + f"\n{body}")
    (tmp_path / f"main.{suffix}").write_text(
        "int one(void);\nint two(void);\nint main(void) { return one() + two(); }\n"
    )
    files = [f"{part}.{suffix}" for part in ("one", "two", "main")]
    for compiler in compilers(language).values():
        compile_c([*compiler, f"-std={standard}", *WARNINGS, *files, "-o", "program"], tmp_path)
        assert subprocess.run([tmp_path / "program"], check=False).returncode == 0


@pytest.mark.parametrize(("language", "standard"), [("c", "c99"), ("c++", "c++17")])
@pytest.mark.parametrize("name", ["alpha", "beta", "gamma", "delta", "epsilon"])
def test_every_path(
    name: str, language: str, standard: str, libraries: dict[str, Built], tmp_path: Path
) -> None:
    write_headers(tmp_path, libraries)
    other = "beta" if name == "alpha" else "alpha"
    includes = [f"{name}.h", f"{other}.h", f"{name}.h", f"{other}.h"]
    (tmp_path / "expected.h").write_text(expected(libraries[name], includes))
    program = tmp_path / ("program.c" if language == "c" else "program.cpp")
    program.write_bytes(PROGRAM.read_bytes())
    for compiler in compilers(language).values():
        flags = [f"-std={standard}", *WARNINGS, *SANITIZERS]
        compile_c([*compiler, *flags, program.name, "-o", "program"], tmp_path)
        done = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("name", ["alpha", "beta"])
def test_threads_with_contexts_of_their_own(name: str, libraries: dict[str, Built], tmp_path: Path) -> None:
    write_headers(tmp_path, libraries)
    (tmp_path / "expected.h").write_text(expected(libraries[name], [f"{name}.h"]))
    run_threads(PROGRAM.parent / "threads.c", tmp_path)


def test_64_libraries_in_one_file(tmp_path: Path) -> None:
    names = [f"layer-{i}" for i in range(64)]
    for name in names:
        (tmp_path / f"{name}.h").write_bytes(build_fake(name=name).files[f"{name}.h"])
    lines = [f'#include "{name}.h"' for name in names]
    calls = " + ".join(f"(int)layer_{i}_workspace_bytes(NULL)" for i in range(64))
    (tmp_path / "all.c").write_text("\n".join(lines) + f"\nint main(void) {{ return {calls}; }}\n")
    compile_c(["gcc", "-std=c99", *WARNINGS, "all.c", "-o", "program"], tmp_path)
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 0


def test_the_program_can_fail(libraries: dict[str, Built], tmp_path: Path) -> None:
    """A header whose grid is not the manifest's is noticed."""
    write_headers(tmp_path, libraries)
    wrong, count = re.subn(
        r'(\{"gamma_m2_float16_\w+", \d+, \d+, \d+)u', r"\g<1>1u", (tmp_path / "gamma.h").read_text()
    )
    assert count == 1
    (tmp_path / "gamma.h").write_text(wrong)
    (tmp_path / "expected.h").write_text(expected(libraries["gamma"], ["gamma.h"]))
    (tmp_path / "program.c").write_bytes(PROGRAM.read_bytes())
    compile_c(["gcc", "-std=c99", "program.c", "-o", "program"], tmp_path)
    done = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "driver_calls.grid[0] == blocks_of(kernel, args.m)" in done.stdout


def test_nothing_an_engine_must_not_find(libraries: dict[str, Built]) -> None:
    """No state, output, allocation or way out, and no include beyond the two of fixed-width types."""
    for name, built in libraries.items():
        check_contents(built.files[f"{name}.h"].decode())


def test_numbers_the_header_states(libraries: dict[str, Built]) -> None:
    for name, built in libraries.items():
        text = built.files[f"{name}.h"].decode()
        macros = dict(re.findall(rf"#define {name.upper()}_(\w+) (?:INT64_C\()?(\d+)\b", text))
        op, algorithm = built.fields["op"], built.gpus[0].problems[0].algorithm
        most = max(bounds_of(built, op["dtype"][0]))
        assert (int(macros["N"]), int(macros["K"]), int(macros["MAX_M"])) == (op["n"], op["k"], most)
        words = op["kind"] != "gemv" and op["k"] % 8 == 0
        assert int(macros["X_ALIGNMENT"]) == (16 if words else activation_alignment(algorithm.vector_size))
        for index, build in enumerate(built.gpus):
            gpu = build.gpu
            place = f"{name}.{gpu.name}.cubin, {gpu.target}"
            assert re.search(rf"{name.upper()}_GPU_{gpu.name.upper()} = {index},? /\* {place} \*/", text)
