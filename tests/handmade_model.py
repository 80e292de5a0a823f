"""A model of examples/engine as one directory: libraries compiled one by one, and a registry written over them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from vqcc.building import build_library, write_library
from vqcc.codegen.toolchain import find
from vqcc.compiling import Options, compile_file
from vqcc.spec.load import parse_spec

if TYPE_CHECKING:
    from vqcc.codegen.cache import CompileCache

LINEAR = ("qkv", "o", "gate_up", "down")

REGISTRY = """\
#ifndef DECODER_H_
#define DECODER_H_
{includes}
typedef decoder_qkv_args decoder_linear_args;
typedef enum decoder_status {{ DECODER_OK = 0, DECODER_FAILED = 99 }} decoder_status;
enum {{ DECODER_LAYER_QKV, DECODER_LAYER_O, DECODER_LAYER_GATE_UP, DECODER_LAYER_DOWN, DECODER_LAYER_ATTENTION }};
typedef struct decoder_handle {{
  decoder_qkv_handle qkv;
  decoder_o_handle o;
  decoder_gate_up_handle gate_up;
  decoder_down_handle down;
  decoder_attention_handle attention;
}} decoder_handle;
typedef struct decoder_layer_facts {{
  const char* name;
  const char* layout_id;
  int64_t n, k, codes_bytes, books_bytes, scales_bytes, stage_scales_bytes, workspace_bytes;
}} decoder_layer_facts;
static inline const decoder_layer_facts* decoder_layer_info(int32_t layer) {{
  static const decoder_layer_facts layers[] = {{
{facts}
      {{"attention", DECODER_ATTENTION_LAYOUT_ID, 0, 0, 0, 0, 0, 0, DECODER_ATTENTION_WORKSPACE_BYTES}},
  }};
  return &layers[layer];
}}
static inline const char* decoder_status_string(decoder_status status) {{
  return decoder_qkv_status_string((decoder_qkv_status)status);
}}
static inline decoder_status decoder_launch_linear(const decoder_handle* handle, int32_t layer,
                                                   const decoder_linear_args* args, void* stream) {{
  switch (layer) {{
{launches}
  }}
  return DECODER_FAILED;
}}
static inline size_t decoder_linear_workspace_bytes(int32_t layer, const decoder_linear_args* args) {{
  switch (layer) {{
{workspaces}
  }}
  return 0;
}}
static inline void decoder_unload(decoder_handle* handle) {{
{unloads}
}}
#endif
"""
EMBEDDED = """\
#ifndef DECODER_EMBEDDED_H_
#define DECODER_EMBEDDED_H_
{includes}
#include "decoder.h"
static inline decoder_status decoder_load_embedded(decoder_handle* handle, const vqcc_driver* driver) {{
  int status = 0;
  memset(handle, 0, sizeof *handle);
{loads}
  if (status != 0) decoder_unload(handle);
  return (decoder_status)status;
}}
#endif
"""


def library_specs(path: Path) -> dict[str, dict[str, Any]]:
    """Specs of the libraries of a model whose layers are fused as the engine's are."""
    model = yaml.safe_load(path.read_text())
    layers, found = model["layers"], {}
    parts = {**{name: [name] for name in ("o", "down", "attention")}, **model["fuse"]}
    for name, members in parts.items():
        first = layers[members[0]]
        op = dict(first["op"])
        if op["kind"] == "linear":
            op["n"] = sum(layers[each]["op"]["n"] for each in members)
        found[name] = {
            "vqcc": 1,
            "name": f"decoder-{name}",
            "algorithm": first["algorithm"],
            "op": op,
            "gpu": model["gpu"],
        }
    return found


def build_model(spec: Path, directory: Path, cache: CompileCache | None, gpus: tuple[str, ...] = ()) -> Path:
    """Compile the model to `directory`, for `gpus` or the spec's; returns the folder of its registry.

    By a vqcc that has whole models, else library by library: all but this function then goes.
    """
    options = Options(
        directory, gpus=gpus, emit=("cu", "cubin", "header", "plan", "object"), machine="x86_64"
    )
    if find_spec("vqcc.models") is not None:
        made = compile_file(spec, options, find("nvrtc"), cache, {})
        return Path(made["directory"])
    out = directory / "decoder"
    out.mkdir(parents=True)
    for name, own in library_specs(spec).items():
        read = parse_spec(yaml.safe_dump(own).encode(), own["name"], gpu_override=gpus)
        emit, machine = options.emit, options.machine
        built = build_library(read, toolchain=find("nvrtc"), cache=cache, emit=emit, machine=machine)
        write_library(built, out / name)
    write_registry(out)
    return out


def write_registry(out: Path) -> None:
    names = [*LINEAR, "attention"]
    files = {name: f"{name}/decoder-{name}" for name in names}
    facts, launches, workspaces = [], [], []
    for name in LINEAR:
        p, upper = f"decoder_{name}", f"DECODER_{name.upper()}"
        numbers = (
            f"{upper}_N, {upper}_K, {upper}_CODES_BYTES, {upper}_BOOKS_BYTES, 0, 0, {upper}_WORKSPACE_BYTES"
        )
        facts.append(f'      {{"{name}", {upper}_LAYOUT_ID, {numbers}}},')
        case = f"    case DECODER_LAYER_{name.upper()}: "
        cast = f"(const {p}_args*)(const void*)args"
        launches.append(f"{case}return (decoder_status){p}_launch(&handle->{name}, {cast}, stream);")
        workspaces.append(f"{case}return {p}_workspace_bytes({cast});")
    header = REGISTRY.format(
        includes="\n".join(f'#include "{file}.h"' for file in files.values()),
        facts="\n".join(facts),
        launches="\n".join(launches),
        workspaces="\n".join(workspaces),
        unloads="\n".join(f"  decoder_{name}_unload(&handle->{name});" for name in names),
    )
    (out / "decoder.h").write_text(header)
    loads = (
        f"  if (status == 0) status = (int)decoder_{name}_load_embedded(&handle->{name}, driver);"
        for name in names
    )
    embedded = EMBEDDED.format(
        includes="#include <string.h>\n"
        + "\n".join(f'#include "{file}.embedded.h"' for file in files.values()),
        loads="\n".join(loads),
    )
    (out / "decoder.embedded.h").write_text(embedded)
