"""GPU code that is part of a program: what the header loads for which device, linked from either form."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest
from build_tools import SANITIZERS, WARNINGS, compilers
from libraries import FakeToolchain, build_fake, make_spec

from vqcc.building import build_library
from vqcc.codegen.device_parts import is_portable
from vqcc.codegen.embedded import GpuCode, embedded_files

if TYPE_CHECKING:
    from pathlib import Path

CODES = (
    GpuCode("h200", b"cubin of h200", "// PTX of h200"),
    GpuCode("rtx4090", b"\x7fELF cubin of rtx4090", "// PTX of rtx4090"),
)
LIBRARY = {"name": "two-gpus", "gpu": ["h200", "rtx4090"], "n": 64, "k": 256}

#: Loads for a device of the capability and SMs that it is given, and prints the status and the image that was loaded.
PROGRAM = r"""
#include "two-gpus.embedded.h"

#include <stdio.h>
#include <stdlib.h>

static int device_values[3];
static const void* loaded;
static char token;

static int load_data(void** module, const void* image) {
  loaded = image;
  *module = &token;
  return 0;
}
static int unload_module(void* module) { return module != &token; }
static int get_function(void** function, void* module, const char* name) {
  *function = module;
  return name == NULL;
}
static int set_attribute(void* function, int attribute, int value) {
  return function == NULL || attribute < 8 || value < 0;
}
static int launch(void* function, unsigned a, unsigned b, unsigned c, unsigned d, unsigned e, unsigned f,
                  unsigned g, void* stream, void** parameters, void** extra) {
  return function == stream && parameters == extra && a + b + c + d + e + f + g == 0;
}
static int get_device(int* device) {
  *device = 0;
  return 0;
}
static int get_attribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? device_values[0] : attribute == 76 ? device_values[1] : device_values[2];
  return device;
}

int main(int count, char** words) {
  const vqcc_driver driver = {load_data, unload_module, get_function, set_attribute,
                              launch,    NULL,          get_device,   get_attribute};
  two_gpus_handle handle;
  int i;
  for (i = 0; i < 3 && i + 1 < count; ++i) device_values[i] = atoi(words[i + 1]);
  printf("%d ", (int)two_gpus_load_embedded(&handle, &driver));
  if (two_gpus_load_embedded(NULL, &driver) != TWO_GPUS_ERROR_NULL_POINTER) return 1;
  if (loaded == two_gpus_h200_cubin) printf("h200 cubin");
  if (loaded == two_gpus_rtx4090_cubin) printf("rtx4090 cubin");
#ifdef HAS_PTX
  if (loaded == two_gpus_h200_ptx) printf("h200 ptx: %s", (const char*)loaded);
  if (loaded == two_gpus_rtx4090_ptx) printf("rtx4090 ptx: %s", (const char*)loaded);
#endif
  two_gpus_unload(&handle);
  return 0;
}
"""
NOT_THIS_GPU = "6 "


def run(arguments: list[str], directory: Path) -> str:
    done = subprocess.run(arguments, cwd=directory, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def write_program(directory: Path, codes: tuple[GpuCode, ...]) -> None:
    files = embedded_files("two-gpus", "two_gpus", "0123abcd", codes, arrays=True, machine="x86_64")
    for name, data in {**files, "two-gpus.h": build_fake(**LIBRARY).files["two-gpus.h"]}.items():
        (directory / name).write_bytes(data)
    (directory / "program.c").write_text(PROGRAM)


@pytest.mark.parametrize("form", ["o", "c"])
def test_a_device_gets_its_own_code(form: str, tmp_path: Path) -> None:
    write_program(tmp_path, CODES)
    flags = ["gcc", "-std=c99", *WARNINGS, *SANITIZERS, "-DHAS_PTX"]
    run([*flags, "program.c", f"two-gpus.embedded.{form}", "-o", "program"], tmp_path)

    def loaded(*device: int) -> str:
        return run([str(tmp_path / "program"), *map(str, device)], tmp_path)

    assert loaded(9, 0, 132) == "0 h200 cubin"
    assert loaded(9, 0, 144) == "0 h200 cubin"
    assert loaded(8, 9, 128) == "0 rtx4090 cubin"
    # The newest PTX of those before the device whose grids are not for more SMs.
    assert loaded(12, 0, 170) == "0 h200 ptx: // PTX of h200"
    assert loaded(9, 0, 130) == "0 rtx4090 ptx: // PTX of rtx4090"
    assert loaded(8, 0, 108) == NOT_THIS_GPU
    assert loaded(9, 0, 100) == NOT_THIS_GPU


@pytest.mark.parametrize(("language", "standard"), [("c", "c11"), ("c++", "c++17"), ("c++", "c++20")])
def test_compiles_without_a_warning_in_several_files(language: str, standard: str, tmp_path: Path) -> None:
    write_program(tmp_path, CODES)
    suffix = "c" if language == "c" else "cpp"
    for name in ("one", "two"):
        body = f"int {name}(void);\nint {name}(void) {{ return (int)two_gpus_load_embedded(NULL, NULL); }}\n"
        (tmp_path / f"{name}.{suffix}").write_text(f'#include "two-gpus.embedded.h"\n{body}')
    (tmp_path / f"main.{suffix}").write_text(
        "int one(void);\nint two(void);\nint main(void) { return one() - two(); }\n"
    )
    sources = [f"{name}.{suffix}" for name in ("one", "two", "main")]
    for compiler in compilers(language).values():
        command = [*compiler, f"-std={standard}", *WARNINGS, *sources, "two-gpus.embedded.o"]
        run([*command, "-o", "program"], tmp_path)
        run([str(tmp_path / "program")], tmp_path)


def test_without_ptx_only_cubins_are_there(tmp_path: Path) -> None:
    write_program(tmp_path, tuple(GpuCode(code.gpu, code.cubin) for code in CODES))
    flags = ["gcc", "-std=c99", *WARNINGS, *SANITIZERS]
    run([*flags, "program.c", "two-gpus.embedded.o", "-o", "program"], tmp_path)
    assert run([str(tmp_path / "program"), "12", "0", "170"], tmp_path) == NOT_THIS_GPU
    assert b"ptx" not in (tmp_path / "two-gpus.embedded.o").read_bytes()


def test_what_is_emitted() -> None:
    """The build's id is that of the library without; PTX of kernels for one architecture alone is left out."""
    spec = make_spec(name="wide", kind="gemm", m=64, n=28672, k=8192, level="best", gpu=["h200", "rtx4090"])
    plain = build_library(spec, toolchain=FakeToolchain(registers=160), cache=None)
    emit = ("header", "ptx", "object", "array")
    built = build_library(
        spec, toolchain=FakeToolchain(registers=160), cache=None, emit=emit, machine="aarch64"
    )
    assert built.fields["build_id"] == plain.fields["build_id"]
    assert set(built.files) == {
        "wide.h",
        "wide.h200.ptx",
        "wide.rtx4090.ptx",
        "wide.embedded.h",
        "wide.embedded.c",
        "wide.embedded.o",
    }
    assert [is_portable(build.source) for build in built.gpus] == [False, True]
    held = built.files["wide.embedded.o"]
    assert b"wide_rtx4090_ptx\0" in held
    assert b"wide_h200_ptx\0" not in held
    header = built.files["wide.embedded.h"].decode()
    assert f'_BUILD_ID "{built.fields["build_id"]}"\n' in header
    assert "      NULL,\n      wide_rtx4090_ptx,\n" in header
    alone = build_library(spec, toolchain=FakeToolchain(registers=160), cache=None, emit=("header", "array"))
    assert set(alone.files) == {"wide.h", "wide.embedded.h", "wide.embedded.c"}
    assert b"ptx" not in alone.files["wide.embedded.c"]
