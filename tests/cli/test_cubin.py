"""`vqcc cubin`: hand-written kernels to cubins, objects and arrays."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import cubins
import pytest
from build_tools import SANITIZERS, WARNINGS, compilers
from command import run

from vqcc.cubins import STANDARD_HEADERS

if TYPE_CHECKING:
    from pathlib import Path

SOURCE = """\
#include <cuda_fp16.h>
#include "parts/more.cuh"
extern "C" __global__ void add_one(float* x) { x[threadIdx.x] = plus_one(x[threadIdx.x]); }
extern "C" __global__ void halve(__half* x) { x[threadIdx.x] = __float2half(__half2float(x[threadIdx.x]) / 2); }
"""
MORE = """\
#pragma once
#include "one.cuh"
__device__ float plus_one(float x) { return x + one(); }
"""
ONE = """\
#pragma once
__device__ float one() { return 1; }
"""


@pytest.fixture
def source(tmp_path: Path) -> Path:
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "more.cuh").write_text(MORE)
    (tmp_path / "parts" / "one.cuh").write_text(ONE)
    path = tmp_path / "own-kernels.cu"
    path.write_text(SOURCE)
    return path


def test_a_cubin_for_each_architecture(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("cubin", source, "--gpu", "h200", "--gpu", "rtx4090", "--gpu", "h100", "-o", out, "--json")
    assert (done.exit_code, done.stderr) == (0, "")
    assert done.json["targets"] == {"sm_90": ["h200", "h100"], "sm_89": ["rtx4090"]}
    directory = out / "own-kernels"
    names = sorted(path.name for path in directory.iterdir())
    assert names == ["manifest.json", "own-kernels.sm_89.cubin", "own-kernels.sm_90.cubin"]
    for sm in (89, 90):
        held = cubins.read((directory / f"own-kernels.sm_{sm}.cubin").read_bytes())
        assert (held.sm, held.kernels) == (sm, ("add_one", "halve"))
        assert done.json["kernels"][f"sm_{sm}"]["halve"]["registers"] > 0
    assert [path.rpartition("/")[2] for path in done.json["sources"]] == [
        "own-kernels.cu",
        "more.cuh",
        "one.cuh",
    ]


def test_equal_inputs_give_equal_bytes(source: Path, tmp_path: Path) -> None:
    """Also in another directory; and what stays is not written again."""
    other = tmp_path / "elsewhere" / source.name
    (other.parent / "parts").mkdir(parents=True)
    for path in (source, *source.parent.glob("parts/*")):
        (other.parent / path.relative_to(source.parent)).write_bytes(path.read_bytes())
    for number, each in enumerate((source, other)):
        done = run(
            "cubin", each, "--gpu", "h200", "-o", tmp_path / str(number), "--emit", "cubin,object,array"
        )
        assert done.exit_code == 0, done.stderr
        assert ": written, " in done.stdout
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / number / "own-kernels").iterdir()}
        for number in "01"
    ]
    assert files[0] == files[1]
    assert set(files[0]) >= {"own-kernels.embedded.h", "own-kernels.embedded.o", "own-kernels.embedded.c"}
    done = run(
        "cubin", source, "--gpu", "h200", "-o", tmp_path / "0", "--emit", "cubin,object,array", "--no-cache"
    )
    assert ": unchanged, " in done.stdout


def test_errors_have_their_places(source: Path, tmp_path: Path) -> None:
    """All of them, in the file that has them; nothing is written."""
    (tmp_path / "parts" / "more.cuh").write_text(MORE.replace("one();", "two();"))
    source.write_text(SOURCE.replace("x[threadIdx.x] = plus", "y[threadIdx.x] = plus"))
    done = run("cubin", source, "--gpu", "h200", "-o", tmp_path / "out", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0609", "VQ0609"])
    places = [(each["path"], each["line"]) for each in done.json["diagnostics"]]
    assert places == [(str(tmp_path / "parts" / "more.cuh"), 3), (str(source), 3)]
    assert 'identifier "two" is undefined' in done.json["diagnostics"][0]["message"]
    assert not (tmp_path / "out").exists()


def test_a_spec_is_no_source(tmp_path: Path) -> None:
    spec = tmp_path / "good.yaml"
    spec.write_text("vqcc: 1\nname: good\n")
    done = run("cubin", spec, "--gpu", "h200", "-o", tmp_path / "out", "--json")
    assert (done.exit_code, set(done.codes)) == (1, {"VQ0609"})
    assert "`vqcc compile`" in done.json["diagnostics"][0]["help"]


@pytest.mark.parametrize(
    ("old", "new", "code", "text"),
    [
        ("parts/more.cuh", "parts/less.cuh", "VQ0610", "an include leads nowhere"),
        ("halve", "ADD_ONE", "VQ0611", "the names of two kernels differ by case alone"),
        ("= plus_one", "= minus_one", "VQ0609", 'identifier "minus_one" is undefined'),
    ],
)
def test_wrong_sources(old: str, new: str, code: str, text: str, source: Path, tmp_path: Path) -> None:
    source.write_text(SOURCE.replace(old, new))
    done = run("cubin", source, "--gpu", "h200", "-o", tmp_path / "out", "--emit", "object", "--json")
    assert (done.exit_code, done.codes) == (1, [code])
    assert text in done.json["diagnostics"][0]["message"]
    assert not (tmp_path / "out").exists()


def test_includes_that_lead_nowhere_have_their_places(source: Path, tmp_path: Path) -> None:
    """That is what the compiler says: of those only that it meets."""
    parts = tmp_path / "parts" / "more.cuh"
    parts.write_text('#if 0\n#include "nothing.cuh"\n#endif\n#include  "none.cuh"\n')
    done = run("cubin", source, "--gpu", "h200", "-o", tmp_path / "out", "--json")
    (found,) = done.json["diagnostics"]
    assert (done.exit_code, found["code"], found["path"]) == (1, "VQ0610", str(parts))
    assert (found["line"], found["column"], found["end_column"]) == (4, 12, 20)


@pytest.mark.parametrize(
    ("include", "text"),
    [
        ("stdint.h", "<cuda/std/cstdint>, of CUDA's, is what stands in for <stdint.h>"),
        ("limits", "<cuda/std/limits>, of CUDA's, is what stands in for <limits>"),
        ("cuda_fp17.h", "names in <> are looked for among CUDA's headers alone"),
        ("vector", "names in <> are looked for among CUDA's headers alone"),
        ("stdio.h", "names in <> are looked for among CUDA's headers alone"),
    ],
)
def test_headers_that_are_not_cudas(include: str, text: str, source: Path, tmp_path: Path) -> None:
    source.write_text(f"#include <{include}>\n{SOURCE}")
    done = run("cubin", source, "--gpu", "h200", "-o", tmp_path / "out", "--json")
    (found,) = done.json["diagnostics"]
    assert (done.exit_code, found["code"], found["line"]) == (1, "VQ0610", 1)
    assert (found["column"], found["end_column"]) == (11, 11 + len(include))
    assert text in found["help"]


def test_what_stands_in_is_there(source: Path, tmp_path: Path) -> None:
    """Each header that a message may name compiles."""
    includes = "".join(f"#include <cuda/std/{name}>\n" for name in sorted(STANDARD_HEADERS))
    source.write_text(includes + SOURCE)
    done = run("cubin", source, "--gpu", "h200", "-o", tmp_path / "out")
    assert done.exit_code == 0, done.stderr


def test_lines_are_counted_as_compilers_do(source: Path, tmp_path: Path) -> None:
    """Neither a form feed nor the separators of Unicode end one."""
    source.write_text("\f// \u2028 \x85 \u2029\r\n" + SOURCE.replace("= plus_one", "= minus_one"))
    done = run("cubin", source, "--gpu", "h200", "-o", tmp_path / "out")
    assert done.exit_code == 1
    assert f" --> {source}:4:1\n" in done.stderr
    assert '4 | extern "C" __global__ void add_one' in done.stderr


def test_sources_without_a_kernel(source: Path, tmp_path: Path) -> None:
    source.write_text("__device__ int one() { return 1; }\n")
    done = run("cubin", source, "--gpu", "h200", "-o", tmp_path / "out", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0612"])
    assert "has no kernel" in done.json["diagnostics"][0]["message"]
    assert 'extern "C" __global__' in done.json["diagnostics"][0]["help"]


@pytest.mark.parametrize(
    ("kernel", "line"),
    [
        ("__global__ void lost(int* x) { *x = 1; }", 3),
        ("static __global__ void lost(int* x) { *x = 1; }", 3),
        ("namespace {\n__global__ void lost(int* x) { *x = 1; }\n}", 4),
        (
            "template <int N>\n__global__ void lost(int* x) { *x = N; }\ntemplate __global__ void lost<1>(int*);",
            4,
        ),
    ],
    ids=["plain", "static", "unnamed", "template"],
)
@pytest.mark.parametrize("beside", [False, True], ids=["alone", "beside"])
def test_kernels_that_are_not_of_c(
    kernel: str, line: int, beside: bool, source: Path, tmp_path: Path
) -> None:
    more = tmp_path / "parts" / "more.cuh"
    more.write_text("#pragma once\n\n" + kernel + "\n__device__ float plus_one(float x) { return x + 1; }\n")
    if not beside:
        source.write_text('#include "parts/more.cuh"\n')
    done = run("cubin", source, "--gpu", "h200", "-o", tmp_path / "out", "--json")
    (found,) = done.json["diagnostics"]
    assert (done.exit_code, found["code"], found["path"], found["line"]) == (1, "VQ0612", str(more), line)
    assert "is not extern" in found["message"]
    assert 'extern "C" __global__' in found["help"]
    assert not (tmp_path / "out").exists()


#: Kernels of names that their header, or one that it includes, has too if only something stands before them.
HOSTILE = (
    "count ok status handle load_embedded unload error_gpu error_null_pointer embedded_h_ null int8_max "
    "embedded_kernel kernel kernels driver major images eof size_max kernel_count number_of_kernels abi_version a__b"
)


def test_no_name_of_a_kernel_is_one_of_the_headers(tmp_path: Path) -> None:
    names = HOSTILE.split()
    path = tmp_path / "own.cu"
    path.write_text("".join(f'extern "C" __global__ void {name}(int* x) {{ *x = 1; }}\n' for name in names))
    done = run("cubin", path, "--gpu", "h200", "-o", tmp_path, "--emit", "array")
    assert done.exit_code == 0, done.stderr
    directory = tmp_path / "own"
    main = tmp_path / "main.c"
    main.write_text(
        '#include <stdio.h>\n#include "own.embedded.h"\n'
        'int main(void) { return printf("%d of %d\\n", OWN_KERNEL_COUNT, OWN_NUMBER_OF_KERNELS) < 0; }\n'
    )
    for language, standard in (("c", "c99"), ("c++", "c++17")):
        flags = [f"-std={standard}", *WARNINGS, "-Wno-undef", f"-I{directory}"]
        code = ["-x", language, main, directory / "own.embedded.c"]
        program = tmp_path / "program"
        for compiler in compilers(language).values():
            subprocess.run([*compiler, *flags, *code, "-o", program], check=True)
            printed = subprocess.run([program], capture_output=True, text=True, check=True).stdout
            assert printed == f"{sorted(names).index('count')} of {len(names)}\n"


def test_commands_for_libraries_say_what_it_is(source: Path, tmp_path: Path) -> None:
    assert run("cubin", source, "--gpu", "h200", "-o", tmp_path / "out").exit_code == 0
    bundle = tmp_path / "out" / "own-kernels"
    for words in (
        ("validate", bundle),
        ("bench", bundle),
        ("explain", bundle),
        ("pack", tmp_path / "weights.safetensors", "--library", bundle, "-o", tmp_path / "packed"),
    ):
        done = run(*words, "--json")
        (found,) = done.json["diagnostics"]
        assert (done.exit_code, found["code"]) == (1, "VQ0704"), words
        assert "hand-written kernels" in found["message"]
        assert "vqcc compile" in found["help"]


def test_kernels_that_an_architecture_lacks(source: Path, tmp_path: Path) -> None:
    source.write_text(
        SOURCE.replace(
            '\nextern "C" __global__ void halve',
            "\n#if __CUDA_ARCH__ >= 900\n" + 'extern "C" __global__ void halve',
            1,
        )
        + "#endif\n"
    )
    done = run("cubin", source, "--gpu", "h200", "--gpu", "rtx4090", "-o", tmp_path / "out", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0611"])
    assert "has other kernels for sm_89 than for sm_90" in done.json["diagnostics"][0]["message"]


@pytest.mark.parametrize(
    ("words", "exit_code", "text"),
    [
        ("{source}", 2, "Missing option '--gpu'"),
        ("{source} --gpu h20", 1, "did you mean 'h200'?"),
        ("{source} --gpu h200 --emit cubins", 2, "did you mean 'cubin'?"),
        ("{source} --gpu h200 --emit ,", 2, "name at least one of"),
        ("{source} --gpu h200 --depfile-target x", 2, "give that too"),
        ("{source} --gpu h200 --depfile {source}", 1, "is the input"),
        ("{directory}/none.cu --gpu h200", 1, "cannot read"),
    ],
)
def test_wrong_commands(words: str, exit_code: int, text: str, source: Path, tmp_path: Path) -> None:
    filled = words.format(source=source, directory=tmp_path).split()
    done = run("cubin", *filled, "-o", tmp_path / "out")
    assert done.exit_code == exit_code
    assert text in done.stderr
    assert source.read_text() == SOURCE


def test_names_that_are_none(tmp_path: Path) -> None:
    for name, code in (("Kernels.cu", "VQ0207"), ("float.cu", "VQ0208"), ("vqcc-weights.cu", "VQ0208")):
        (tmp_path / name).write_text(SOURCE)
        done = run("cubin", tmp_path / name, "--gpu", "h200", "-o", tmp_path / "out", "--json")
        assert (done.exit_code, done.codes) == (1, [code])


def test_what_is_not_vqccs_stays(source: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "own-kernels").mkdir(parents=True)
    (tmp_path / "out" / "own-kernels" / "mine").write_text("mine")
    done = run("cubin", source, "--gpu", "h200", "-o", tmp_path / "out", "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0703"])


def test_a_depfile_names_all_sources(source: Path, tmp_path: Path) -> None:
    done = run("cubin", source, "--gpu", "h200", "-o", tmp_path / "out", "--depfile", tmp_path / "d")
    assert done.exit_code == 0, done.stderr
    text = (tmp_path / "d").read_text()
    assert text.startswith(f"{tmp_path}/out/own-kernels/own-kernels.sm_90.cubin:")
    for name in ("own-kernels.cu", "parts/more.cuh", "parts/one.cuh"):
        assert f"{tmp_path / name} \\\n" in text


def test_what_a_depfile_may_not_be(source: Path, tmp_path: Path) -> None:
    """Neither a file that the source includes, by whatever name, nor one more in the bundle."""
    (tmp_path / "link").symlink_to(tmp_path / "parts" / "one.cuh")
    bundle = tmp_path / "out" / "own-kernels"
    for path, text in (
        (tmp_path / "parts" / "more.cuh", "is an input of"),
        (tmp_path / "link", "is an input of"),
        (bundle / "d", "would lie in the bundle"),
    ):
        done = run("cubin", source, "--gpu", "h200", "-o", tmp_path / "out", "--depfile", path, "--json")
        assert (done.exit_code, done.codes) == (1, ["VQ0711"])
        assert text in done.json["diagnostics"][0]["message"]
    assert (tmp_path / "parts" / "more.cuh").read_text() == MORE
    assert (tmp_path / "parts" / "one.cuh").read_text() == ONE
    assert sorted(path.name for path in bundle.iterdir()) == ["manifest.json", "own-kernels.sm_90.cubin"]


PROGRAM = r"""
#include "own-kernels.embedded.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int numbers[2], failing;
static const unsigned char* loaded;
static char token;
static int load(void** module, const void* image) {
  loaded = (const unsigned char*)image;
  *module = &token;
  return failing == 1;
}
static int unload(void* module) { return module != &token; }
static int find(void** function, void* module, const char* name) {
  *function = module;
  return name == NULL || failing == 2;
}
static int device_of(int* device) {
  *device = 3;
  return failing == 3;
}
static int attribute(int* value, int which, int device) {
  *value = numbers[which - 75];
  return device != 3;
}
int main(int count, char** words) {
  vqcc_driver driver;
  own_kernels_handle handle;
  own_kernels_status status;
  if (count != 4) return 1;
  memset(&driver, 0, sizeof driver);
  numbers[0] = atoi(words[1]);
  numbers[1] = atoi(words[2]);
  failing = atoi(words[3]);
  driver.module_load_data = load;
  driver.module_unload = unload;
  driver.module_get_function = find;
  driver.context_get_device = device_of;
  driver.device_get_attribute = attribute;
  status = own_kernels_load_embedded(&handle, &driver);
  printf("%s %s %d\n", own_kernels_status_string(status),
         loaded == own_kernels_sm_90_cubin ? "sm_90" : loaded == own_kernels_sm_86_cubin ? "sm_86" : "none",
         handle.module != NULL);
  own_kernels_unload(&handle);
  own_kernels_unload(&handle);
  return handle.functions[OWN_KERNELS_KERNEL_HALVE] == NULL && status == OWN_KERNELS_OK;
}
"""


@pytest.mark.parametrize(("kind", "language"), [("object", "c"), ("array", "c++")])
def test_what_is_loaded(kind: str, language: str, source: Path, tmp_path: Path) -> None:
    """The cubin of the device's architecture, or of the highest minor version below it."""
    done = run(
        *(
            "cubin",
            source,
            "--gpu",
            "h200",
            "--gpu",
            "a40",
            "-o",
            tmp_path,
            "--emit",
            kind,
            "--machine",
            "x86_64",
        )
    )
    assert done.exit_code == 0, done.stderr
    directory = tmp_path / "own-kernels"
    main = tmp_path / ("main.c" if language == "c" else "main.cpp")
    main.write_text(PROGRAM)
    code = (
        [directory / "own-kernels.embedded.o"]
        if kind == "object"
        else ["-x", language, directory / "own-kernels.embedded.c"]
    )
    standard = "c99" if language == "c" else "c++17"
    flags = [f"-std={standard}", *WARNINGS, *SANITIZERS, "-Wno-undef", f"-I{directory}"]
    program = tmp_path / "program"
    refused = "the kernels were not compiled for this GPU, but for sm_90, sm_86"
    for compiler in compilers(language).values():
        subprocess.run([*compiler, *flags, main, *code, "-o", program], check=True)
        for words, wanted in (
            ("9 0 0", "ok sm_90 1"),
            ("8 6 0", "ok sm_86 1"),
            ("8 9 0", "ok sm_86 1"),
            ("8 0 0", f"{refused} none 0"),
            ("10 0 0", f"{refused} none 0"),
            ("9 0 1", "the driver refused the cubin sm_90 0"),
            ("9 0 2", "the driver finds no such kernel in the cubin sm_90 0"),
            ("9 0 3", "the driver has no current context, or does not know its device none 0"),
        ):
            command = [program, *words.split()]
            printed = subprocess.run(command, capture_output=True, text=True, check=True)
            assert printed.stdout == f"{wanted}\n"
