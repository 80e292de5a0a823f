"""vqcc/driver.h: the table of driver functions, filled from a stand-in for libcuda that the test makes."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from build_tools import STANDARDS, WARNINGS, compilers

INCLUDE = Path(__file__).parents[2] / "templates" / "host" / "include"

FUNCTIONS = (
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncSetAttribute",
    "cuLaunchKernel",
    "cuLaunchKernelEx",
    "cuCtxGetDevice",
    "cuDeviceGetAttribute",
)
OPTIONAL = "cuLaunchKernelEx"

#: Prints the status of each way to fill the table, and which entries of it are there.
PROGRAM = r"""
#include "vqcc/driver.h"

#include <stdio.h>

#include "vqcc/driver.h"

static void show(vqcc_driver_status status, const vqcc_driver* driver) {
  const int has[] = {driver->module_load_data != NULL,       driver->module_unload != NULL,
                     driver->module_get_function != NULL,    driver->function_set_attribute != NULL,
                     driver->launch_kernel != NULL,          driver->launch_kernel_ex != NULL,
                     driver->context_get_device != NULL,     driver->device_get_attribute != NULL};
  size_t i;
  printf("%d %s:", (int)status, vqcc_driver_status_string(status));
  for (i = 0; i < sizeof has / sizeof has[0]; ++i) printf(" %d", has[i]);
  printf("\n");
}

static void* nothing(void* context, const char* name) {
  (void)name;
  ++*(int*)context;
  return NULL;
}

int main(void) {
  vqcc_driver driver;
  int asked = 0, device = -1;
  memset(&driver, 0xA5, sizeof driver);
  show(vqcc_driver_fill(&driver, nothing, &asked), &driver);
  if (asked != 1 || vqcc_driver_fill(NULL, nothing, &asked) != VQCC_DRIVER_NULL_POINTER ||
      vqcc_driver_fill(&driver, NULL, NULL) != VQCC_DRIVER_NULL_POINTER ||
      vqcc_driver_open(NULL) != VQCC_DRIVER_NULL_POINTER) {
    return 1;
  }
  memset(&driver, 0xA5, sizeof driver);
  show(vqcc_driver_open(&driver), &driver);
  if (driver.context_get_device != NULL && (driver.context_get_device(&device) != 0 || device != 5)) return 2;
  return 0;
}
"""

STUBS = {
    name: f"int {name}(void);\nint {name}(void) {{ return 0; }}\n"
    for name in FUNCTIONS
    if name != "cuCtxGetDevice"
} | {
    "cuCtxGetDevice": "int cuCtxGetDevice(int*);\nint cuCtxGetDevice(int* device) { *device = 5; return 0; }\n"
}

NONE = " 0 0 0 0 0 0 0 0"
UNFILLED = f"3 the driver lacks a function that is needed: it is too old:{NONE}\n"


def run(arguments: list[str], directory: Path, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=directory, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload, no-any-return]


def make_driver(directory: Path, without: tuple[str, ...] = ()) -> None:
    """libcuda.so.1 with all functions but some."""
    (directory / "stub.c").write_text("".join(text for name, text in STUBS.items() if name not in without))
    done = run(["gcc", "-std=c99", "-shared", "-fPIC", "stub.c", "-o", "libcuda.so.1"], directory)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("driver")
    (directory / "program.c").write_text(PROGRAM)
    sanitizers = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
    command = [
        "gcc",
        "-std=c99",
        *WARNINGS,
        *sanitizers,
        f"-I{INCLUDE}",
        "program.c",
        "-o",
        "program",
        "-ldl",
    ]
    done = run(command, directory)
    assert (done.returncode, done.stderr) == (0, "")
    return directory / "program"


def shown(program: Path, driver: Path) -> str:
    environment = {**os.environ, "LD_LIBRARY_PATH": str(driver), "ASAN_OPTIONS": "detect_leaks=0"}
    done = run([str(program)], program.parent, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize(("language", "standard"), STANDARDS)
def test_compiles_without_a_warning(language: str, standard: str, tmp_path: Path) -> None:
    source = tmp_path / ("program.c" if language == "c" else "program.cpp")
    source.write_text(PROGRAM)
    for compiler in compilers(language).values():
        command = [
            *compiler,
            f"-std={standard}",
            *WARNINGS,
            f"-I{INCLUDE}",
            source.name,
            "-o",
            "program",
            "-ldl",
        ]
        done = run(command, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")


def test_a_driver_fills_the_table(program: Path, tmp_path: Path) -> None:
    make_driver(tmp_path)
    assert shown(program, tmp_path) == f"{UNFILLED}0 ok: 1 1 1 1 1 1 1 1\n"


def test_an_older_driver_has_no_overlapping_launches(program: Path, tmp_path: Path) -> None:
    make_driver(tmp_path, without=(OPTIONAL,))
    assert shown(program, tmp_path) == f"{UNFILLED}0 ok: 1 1 1 1 1 0 1 1\n"


@pytest.mark.parametrize("missing", [name for name in FUNCTIONS if name != OPTIONAL])
def test_a_driver_without_a_function_is_refused_whole(missing: str, program: Path, tmp_path: Path) -> None:
    make_driver(tmp_path, without=(missing,))
    assert shown(program, tmp_path) == UNFILLED * 2


@pytest.mark.skipif(
    "libcuda.so.1" in subprocess.run(["ldconfig", "-p"], capture_output=True, text=True, check=False).stdout
    if shutil.which("ldconfig")
    else False,
    reason="a driver is installed",
)
def test_no_driver(program: Path, tmp_path: Path) -> None:
    expected = f"2 there is no libcuda.so.1: no NVIDIA driver is installed:{NONE}\n"
    assert shown(program, tmp_path) == UNFILLED + expected


def test_an_older_header_beside_it_is_an_error(tmp_path: Path) -> None:
    """Headers of vqcc before the table had a version defined the same guard without a value."""
    (tmp_path / "old.c").write_text('#define VQCC_DRIVER_DEFINED\n#include "vqcc/driver.h"\n')
    done = run(["gcc", "-std=c99", f"-I{INCLUDE}", "-c", "old.c"], tmp_path)
    assert done.returncode != 0
    assert "a header of an older vqcc is included beside this one" in done.stderr
