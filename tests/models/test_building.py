"""A model's directory: a bundle in each library's folder, headers that join them, and nothing if one cannot be made."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from build_tools import SANITIZERS, WARNINGS, each_compiler, run_threads
from libraries import FakeToolchain
from model_specs import attention, linear, model_text

from vqcc.building import build_library
from vqcc.codegen.bundle import read_bundle, write_bundle
from vqcc.codegen.contract import ABI_VERSION
from vqcc.data_files import include_directory
from vqcc.diagnostics import ExitCode, VqccError
from vqcc.library import load_libraries, load_library
from vqcc.models import Model, parse_any
from vqcc.models.building import BuiltModel, build_model
from vqcc.outputs import model_files

LAYERS = {
    "q": linear(parallel="column"),
    "k": linear(128, parallel="column"),
    "o": linear(64, 256, parallel="row"),
    "spare": linear(64, 128, algorithm="vq-4-4-1"),
    "twin": linear(64, 128, algorithm="vq-4-4-1"),
    "attention": attention(parallel="heads"),
}
MORE: dict[str, Any] = {"fuse": {"qk": ["q", "k"]}, "tensor_parallel": 2, "gpu": ["h200", "rtx4090"]}


def build(layers: dict[str, Any] = LAYERS, emit: Any = None, **options: Any) -> BuiltModel:
    model = parse_any(model_text(layers, **MORE) if layers is LAYERS else model_text(layers), "small.yaml")
    assert isinstance(model, Model)
    chosen = {} if emit is None else {"emit": emit}
    return build_model(model, toolchain=FakeToolchain(), cache=None, **chosen, **options)


@pytest.fixture(scope="module")
def built() -> BuiltModel:
    return build(emit=("cu", "cubin", "header", "plan", "array", "object"), machine="x86_64")


@pytest.fixture(scope="module")
def directory(built: BuiltModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "small"
    write_bundle(directory, built.files, fields=built.fields)
    return directory


def test_every_folder_is_the_bundle_of_its_library(built: BuiltModel, directory: Path) -> None:
    assert [library.bundle.directory.name for library in load_libraries(directory)] == [
        "qk",
        "o",
        "spare",
        "attention",
    ]
    for layer in built.model.libraries:
        alone = build_library(
            layer.spec, toolchain=FakeToolchain(), cache=None, emit=("cu", "cubin", "header", "plan")
        )
        folder = directory / layer.name
        assert load_library(folder).name == f"small-{layer.name}"
        for name, data in alone.files.items():
            assert (folder / name).read_bytes() == data
    assert read_bundle(directory).manifest["layers"]["twin"]["library"] == "spare"


def test_files_are_those_that_outputs_names(built: BuiltModel) -> None:
    names = {layer.name: layer.spec.name for layer in built.model.libraries}
    emit: Any = ("cu", "cubin", "header", "plan", "array", "object")
    expected = model_files("small", names, ["h200", "rtx4090"], emit)
    assert {*built.files, "manifest.json"} == set(expected)


def test_number_of_jobs_and_order_change_nothing(built: BuiltModel) -> None:
    other = build(emit=("cu", "cubin", "header", "plan", "array", "object"), machine="x86_64", jobs=5)
    assert other.files == built.files
    assert other.fields == built.fields


def test_everybody_is_told_of(built: BuiltModel) -> None:
    told: list[str] = []
    build(made=lambda layer: told.append(layer.name))
    assert told == [layer.name for layer in built.model.libraries]


def test_a_model_is_no_library(directory: Path) -> None:
    with pytest.raises(VqccError) as error:
        load_library(directory)
    (item,) = error.value.diagnostics
    assert (item.code, item.help) == ("VQ0704", "give one of its folders: qk, o, spare, attention")


def test_a_part_of_a_fused_layer_is_no_folder(directory: Path) -> None:
    for load in (load_library, load_libraries):
        with pytest.raises(VqccError) as error:
            load(directory / "q")
        (item,) = error.value.diagnostics
        assert (item.code, item.message) == ("VQ0704", f"q is a part of qk in the model {directory}")
        assert item.help == (
            f"give {directory / 'qk'}; its weight is that of q and k together, as `vqcc quantize --fuse qk` makes it"
        )


def test_what_cannot_be_built_is_told_of_together(monkeypatch: pytest.MonkeyPatch) -> None:
    from vqcc.diagnostics import Diagnostic
    from vqcc.models import building

    def fail(spec: Any, **_: Any) -> Any:
        exit_code = ExitCode.TOOLCHAIN if spec.name == "small-b" else ExitCode.INPUT
        raise VqccError(Diagnostic("VQ0405", f"{spec.name} fails"), exit_code=exit_code)

    monkeypatch.setattr(building, "build_library", fail)
    with pytest.raises(VqccError) as error:
        build({"a": linear(), "b": linear(128)})
    assert [item.message for item in error.value.diagnostics] == ["small-a fails", "small-b fails"]
    assert error.value.exit_code == ExitCode.TOOLCHAIN


#: Over a stand-in for the driver that fails at load number `fail`, and counts what is held.
PROGRAM = r"""
#include "small.embedded.h"

#include <stdio.h>
#include <stdlib.h>

static int held, loads, fail, launches;
static unsigned last_grid;
static char token;

static int load_data(void** module, const void* image) {
  if (++loads == fail || image == NULL) return 1;
  ++held;
  *module = &token;
  return 0;
}
static int unload_module(void* module) {
  --held;
  return module != &token;
}
static int get_function(void** function, void* module, const char* name) {
  *function = module;
  return name == NULL;
}
static int set_attribute(void* function, int attribute, int value) {
  return function == NULL || attribute < 8 || value < 0;
}
static int launch(void* function, unsigned grid, unsigned b, unsigned c, unsigned d, unsigned e, unsigned f, unsigned g,
                  void* stream, void** parameters, void** extra) {
  ++launches;
  last_grid = grid;
  return function == NULL || parameters == NULL || extra != NULL || stream != NULL || b + c + d + e + f + g == 0;
}
static int get_device(int* device) {
  *device = 0;
  return 0;
}
static int get_attribute(int* value, int attribute, int device) {
  *value = attribute == 75 ? 9 : attribute == 76 ? 0 : 132;
  return device;
}
static const vqcc_driver driver = {load_data, unload_module, get_function, set_attribute,
                                   launch,    NULL,          get_device,   get_attribute};

static int launch_all(const small_handle* model) {
  static const char* reason;
  for (int32_t layer = 0; layer < SMALL_NUMBER_OF_LAYERS; ++layer) {
    const small_layer_facts* facts = small_layer_info(layer);
    small_linear_args args;
    memset(&args, 0, sizeof args);
    args.codes = args.books = args.scales = args.x = args.y = args.workspace = 256;
    args.m = 1;
    if (facts->n == 0) {
      if (small_launch_linear(model, layer, &args, NULL) != SMALL_ERROR_LAYER) return 1;
      if (small_supports_linear(layer, &args, &reason) != SMALL_ERROR_LAYER || reason == NULL) return 2;
      if (small_linear_workspace_bytes(layer, &args) != 0) return 3;
      continue;
    }
    if (small_supports_linear(layer, &args, &reason) != SMALL_OK) return 4;
    if (small_launch_linear(model, layer, &args, NULL) != SMALL_OK) return 5;
    args.m = 0;
    if (small_launch_linear(model, layer, &args, NULL) != SMALL_ERROR_SIZE) return 6;
    if (small_supports_linear(layer, NULL, &reason) != SMALL_ERROR_NULL_POINTER) return 7;
    if (small_launch_linear(model, layer, NULL, NULL) != SMALL_ERROR_NULL_POINTER) return 8;
  }
  if (small_launch_linear(model, SMALL_NUMBER_OF_LAYERS, NULL, NULL) != SMALL_ERROR_NULL_POINTER) return 9;
  return launches == 4 ? 0 : 10;
}

int main(void) {
  small_handle model;
  const void* images[SMALL_GPU_COUNT] = {"h200", "rtx4090"};
  const void* const* cubins[SMALL_LIBRARY_COUNT];
  for (int i = 0; i < SMALL_LIBRARY_COUNT; ++i) cubins[i] = images;
  for (fail = 1; fail <= SMALL_LIBRARY_COUNT; ++fail) {
    loads = 0;
    if (small_load_embedded(&model, &driver) != SMALL_ERROR_LOAD || held != 0) return 20;
    loads = 0;
    if (small_load_for_device(&model, &driver, cubins) != SMALL_ERROR_LOAD || held != 0) return 21;
  }
  fail = 0;
  if (small_load_for_device(&model, &driver, NULL) != SMALL_ERROR_NULL_POINTER || held != 0) return 22;
  if (small_load_embedded(NULL, &driver) != SMALL_ERROR_NULL_POINTER) return 23;
  if (small_load_for_device(&model, &driver, cubins) != SMALL_OK || held != SMALL_LIBRARY_COUNT) return 24;
  small_unload(&model);
  if (small_load_embedded(&model, &driver) != SMALL_OK || held != SMALL_LIBRARY_COUNT) return 25;
  {
    const int status = launch_all(&model);
    if (status != 0) return status;
  }
  small_unload(&model);
  small_unload(&model);
  if (held != 0) return 26;
  for (int32_t layer = 0; layer < SMALL_NUMBER_OF_LAYERS; ++layer) {
    const small_layer_facts* facts = small_layer_info(layer);
    printf("%s %s %s %s %d %ld %ld", facts->name, facts->op, facts->library, facts->parallel, (int)facts->adds,
           (long)facts->n, (long)facts->k);
    for (int32_t i = 0; i < facts->part_count; ++i) {
      printf(" %s:%ld+%ld", facts->parts[i].name, (long)facts->parts[i].first, (long)facts->parts[i].rows);
    }
    printf("\n");
  }
  for (int32_t i = 0; i < SMALL_LIBRARY_COUNT; ++i) printf("%s\n", small_cubin_file(i, 1));
  if (small_layer_info(-1) != NULL || small_layer_info(SMALL_NUMBER_OF_LAYERS) != NULL) return 27;
  if (small_cubin_file(SMALL_LIBRARY_COUNT, 0) != NULL) return 28;
  if (small_cubin_file(0, SMALL_GPU_COUNT) != NULL) return 28;
  for (int status = 0; status <= SMALL_ERROR_BUILD; ++status) {
    const char* text = small_status_string((small_status)status);
    if (text == NULL || strcmp(text, "unknown status") == 0) return 29;
  }
  return SMALL_SHAPE_QK_N == 96 && SMALL_SHAPE_QK_K == 256 && SMALL_RANKS == 2 ? 0 : 30;
}
"""
TOLD = """\
qk gemv qk column 0 96 256 q:0+32 k:32+64
o gemv o row 1 64 128
spare gemv spare  0 64 128
twin gemv spare  0 64 128
attention attention_decode attention heads 0 0 0
qk/small-qk.rtx4090.cubin
o/small-o.rtx4090.cubin
spare/small-spare.rtx4090.cubin
attention/small-attention.rtx4090.cubin
"""


@pytest.mark.parametrize(("language", "compiler"), each_compiler("c", "c++"))
@pytest.mark.parametrize("form", ["o", "c"])
def test_the_header_loads_and_launches(
    language: str, compiler: tuple[str, ...], form: str, directory: Path, tmp_path: Path
) -> None:
    source = tmp_path / f"program.{'c' if language == 'c' else 'cpp'}"
    source.write_text(PROGRAM)
    standard = "-std=c99" if language == "c" else "-std=c++17"
    embedded = sorted(map(str, directory.glob(f"*/*.embedded.{form}")))
    # What is embedded is C, whichever language the program is in.
    objects = embedded
    if form == "c":
        objects = []
        for number, path in enumerate(embedded):
            objects.append(str(tmp_path / f"{number}.o"))
            subprocess.run(["gcc", "-c", path, "-o", objects[-1]], check=True)
    includes = [f"-I{directory}", f"-I{include_directory()}"]
    flags = [standard, *WARNINGS, *SANITIZERS]
    command = [*compiler, *flags, *includes, str(source), *objects, "-o", str(tmp_path / "program")]
    subprocess.run(command, check=True)
    done = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, TOLD), done.stderr


def test_threads_with_contexts_of_their_own(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path, dirs_exist_ok=True)
    run_threads(Path(__file__).parent / "threads.c", tmp_path, *sorted(tmp_path.glob("*/*.embedded.o")))


def test_a_header_of_another_compilation_is_noticed(directory: Path, tmp_path: Path) -> None:
    """A library's header was put in place of the model's own."""
    program = (
        '#include "small.h"\nint main(void) { small_handle model;\n'
        "return small_load_for_device(&model, NULL, NULL) == SMALL_ERROR_BUILD ? 0 : 1; }\n"
    )
    (tmp_path / "program.c").write_text(program)
    build_id = json.loads((directory / "o" / "manifest.json").read_text())["build_id"]
    for path in directory.rglob("*.h"):
        copy = tmp_path / path.relative_to(directory)
        copy.parent.mkdir(exist_ok=True)
        text = path.read_text()
        copy.write_text(text.replace(build_id, "0" * 16) if path.name == "small-o.h" else text)
    subprocess.run(["gcc", f"-I{tmp_path}", tmp_path / "program.c", "-o", tmp_path / "program"], check=True)
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 0


@pytest.mark.parametrize(
    "changed",
    [
        "SMALL_O_ERROR_SIZE = 2",
        "SMALL_SPARE_OK = 0",
        "SMALL_ATTENTION_ERROR_CONTEXT = 11",
        "SMALL_ATTENTION_ERROR_SOFTCAP = 15",
        f"SMALL_QK_ABI_VERSION {ABI_VERSION}",
    ],
)
@pytest.mark.parametrize(("language", "standard"), [("c", "c99"), ("c", "c11"), ("c++", "c++17")])
def test_a_library_of_other_statuses_does_not_compile(
    changed: str, language: str, standard: str, directory: Path, tmp_path: Path
) -> None:
    """Its statuses are cast to the model's, which would then say something else."""
    found = False
    for path in directory.rglob("*.h"):
        copy = tmp_path / path.relative_to(directory)
        copy.parent.mkdir(exist_ok=True)
        text = path.read_text()
        found |= changed in text
        copy.write_text(re.sub(rf"\b{changed}\b", re.sub(r"(\d+)$", r"9\1", changed), text))
    assert found
    compiler = "gcc" if language == "c" else "g++"
    for include, compiles in ((directory, True), (tmp_path, False)):
        command = [
            compiler,
            f"-std={standard}",
            *WARNINGS,
            "-fsyntax-only",
            "-x",
            language,
            f"-I{include}",
            "-",
        ]
        program = '#include "small.h"\nint main(void) { return 0; }\n'
        done = subprocess.run(command, input=program, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == compiles, done.stderr
        assert compiles or "small_static_assert" in done.stderr or "are those of the model" in done.stderr


def codes_of(layers: dict[str, Any]) -> list[str]:
    """What is wrong with a model."""
    with contextlib.suppress(VqccError):
        parse_any(model_text(layers), "small.yaml")
        return []
    with pytest.raises(VqccError) as error:
        parse_any(model_text(layers), "small.yaml")
    return [item.code for item in error.value.diagnostics]


#: Layers named as symbols of headers go on after their prefix, and as those of libraries listed before.
HOSTILE = (
    "count", "n", "k", "proj", "proj_k", "proj_n", "args", "handle", "launch", "load", "status", "gpu", "kernel",
    "embedded", "begin", "begin_load", "number", "number_of", "shape", "layer", "library", "part", "ranks", "ok", "h",
    "unload", "info", "layer_info", "launch_linear", "cubin", "cubin_file", "supports", "workspace", "abi", "build",
    "float16", "x", "gpu_count", "library_count", "agrees", "x_stage", "x_find", "x_append", "x_embedded", "x_2",
    "linear", "shape_x", "layer_x", "x_n", "shape_count_args",
)  # fmt: skip
#: The same of attention.
HOSTILE_ATTENTION = (
    "a",
    "a_sliding",
    "a_append",
    "a_select",
    "a_supports",
    "a_window",
    "a_key",
    "a_2",
    "x_key",
)


def test_names_that_headers_have_themselves(tmp_path: Path) -> None:
    """They are refused beside those that were not, or the headers compile and know every layer."""
    sound: dict[str, Any] = {}
    for number, name in enumerate((*HOSTILE, *HOSTILE_ATTENTION)):
        own = linear(64 + 8 * number) if name in HOSTILE else attention(4 * number, 4)
        codes = codes_of({**sound, name: own})
        assert codes in ([], ["VQ0208"])
        sound |= {} if codes else {name: own}
    assert {"count", "n", "k", "proj", "proj_k", "args", "ok", "x_append", "x_2", "a_window", "a_key"} <= set(
        sound
    )
    assert not {"embedded", "layer", "x_stage", "x_find", "linear", "shape_x", "a_sliding", "a_append"} & set(
        sound
    )
    built = build(sound, emit=("header", "array"))
    for name, data in built.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    program = ['#include "small.embedded.h"', "int main(void) {", "const small_layer_facts* facts;"]
    for name, own in sound.items():
        upper, rows = name.upper(), own["op"].get("n", 0)
        program.append(f"facts = small_layer_info(SMALL_LAYER_{upper});")
        program.append(f"if (facts == NULL || facts->n != {rows}) return 1;")
        if rows:
            program.append(f"if (SMALL_SHAPE_{upper}_N != {rows} || SMALL_{upper}_N != {rows}) return 2;")
    (tmp_path / "program.c").write_text("\n".join([*program, "return 0; }", ""]))
    sources = [tmp_path / "program.c", *sorted(tmp_path.glob("*/*.c"))]
    command = ["gcc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", f"-I{tmp_path}", *sources]
    subprocess.run([*command, "-o", tmp_path / "program"], check=True)
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 0


def test_attention_of_several_page_sizes_is_a_layer(tmp_path: Path) -> None:
    layer = attention()
    layer["op"]["page_size"] = [32, 64]
    built = build({"attention": layer})
    for name, data in built.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    (tmp_path / "program.c").write_text(
        '#include "small.h"\nint main(void) { static const int32_t tokens[] = SMALL_ATTENTION_PAGE_SIZES;\n'
        "return tokens[1] != 64 || small_attention_select(0, SMALL_ATTENTION_FLOAT16, 2, 2) != 1; }\n"
    )
    command = [
        "gcc",
        "-std=c99",
        "-Wall",
        "-Wextra",
        "-Werror",
        "-pedantic",
        f"-I{tmp_path}",
        tmp_path / "program.c",
    ]
    subprocess.run([*command, "-o", tmp_path / "program"], check=True)
    assert subprocess.run([tmp_path / "program"], check=False).returncode == 0


def test_the_header_says_that_ranks_are_to_be_added_up(built: BuiltModel) -> None:
    """Where there are ranks: nothing of the library does it."""
    text = " ".join(re.sub(r"^ \*", "", built.files["small.h"].decode(), flags=re.MULTILINE).split())
    assert "Each of 2 ranks has its part of a layer (tensor parallelism)." in text
    assert "Where small_layer_info says `adds`, what ranks compute are parts of sums: " in text
    assert "the engine adds them up over all ranks before they are used. Nothing here communicates." in text
    assert "ranks compute" not in build({"q": linear()}).files["small.h"].decode()


def test_a_model_of_attention_alone_has_no_linear_functions() -> None:
    header = build({"attention": attention()}).files["small.h"].decode()
    assert "launch_linear" not in header
    assert "small_attention_handle attention;" in header


def test_codes_in_buckets_are_as_many_as_the_packed_file_says(tmp_path: Path) -> None:
    """The header's facts are what the C reader takes: 0 bytes of codes are not looked at."""
    built = build({"down": linear(4096, 4096, algorithm="aqlm-1x16", level="best"), "up": linear()})
    for name, data in built.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    assert "#define SMALL_DOWN_CODES_BYTES" not in (tmp_path / "down" / "small-down.h").read_text()
    (tmp_path / "program.c").write_text(
        '#include "small.h"\n#include <stdio.h>\n'
        'int main(void) { printf("%ld %ld\\n", (long)small_layer_info(SMALL_LAYER_DOWN)->codes_bytes, '
        "(long)small_layer_info(SMALL_LAYER_UP)->codes_bytes); return 0; }\n"
    )
    command = ["gcc", "-std=c99", *WARNINGS, f"-I{tmp_path}", tmp_path / "program.c"]
    subprocess.run([*command, "-o", tmp_path / "program"], check=True)
    done = subprocess.run([tmp_path / "program"], capture_output=True, text=True, check=True)
    assert done.stdout == f"0 {64 * 256 // 8 * 2}\n"
