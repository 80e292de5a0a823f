"""A Llama decoder layer on this machine's GPU: examples/engine over vqcc's libraries, beside the same in fp16 PyTorch.

    python bench/engine_layer.py --gpu h200 --cache CACHE --only-compile
    python bench/engine_layer.py --gpu h200 --cache CACHE -o bench/results/h200/engine-layer.json

The first needs no GPU: it compiles models and programs. The second checks every spec, decoding at the batches that are
timed and a prefill: the engine's own kernels in double precision (--check), every step against float64
(engine_check.py). Then it times one new token of each sequence, layers one after the other in one CUDA graph.
`checked` of a row is what the checks of its spec said. `floor_us` is what the bytes of weights, codebooks and cache
take at the GPU's measured bandwidth.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine_build import BuiltEngine, build_engine
from engine_check import check_dump
from engine_dump import Model
from engine_torch import LayerSizes, time_layers
from gemv_levels import add_common, cache_of, document_of, restricted_to, save_document

from vqcc.algorithms.presets import name_of
from vqcc.runtime.device import open_device

if TYPE_CHECKING:
    from collections.abc import Iterator

SPECS = (
    "llama-3-8b-2bit",
    "llama-3-8b-2bit-cq-4",
    "llama-3-8b-4bit-cq-2",
    "llama-3-8b-4bit",
    "llama-3-70b-2bit",
    "llama-3-70b-2bit-cq-4",
    "llama-3-70b-4bit-cq-2",
    "llama-3-70b-4bit",
    "llama-3-70b-2bit-unrotated",
)
BATCHES, CONTEXTS = (1, 4, 16), (1024, 8192, 65536)
#: What is checked: the kernels that are timed, over sequences past their windows in one block, several and many, and a
#: prefill across tiles of the engine's attention.
CHECKS = {
    "decode 1": ("--batch", "1", "--context", "8192"),
    "decode 4": ("--batch", "4", "--context", "1024"),
    "decode 16": ("--batch", "16", "--context", "300"),
    "prefill": ("--batch", "1", "--prefill", "130"),
}
COMPILERS, CHECKERS = 4, 8


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--spec", action="append", choices=SPECS)
    parser.add_argument("--batch", action="append", type=int)
    parser.add_argument("--context", action="append", type=int)
    parser.add_argument(
        "--only-compile", action="store_true", help="compile into --cache and end; needs no GPU"
    )
    parser.add_argument(
        "--eager", action="store_true", help="do not have torch.compile fuse the baseline's norms"
    )
    options = add_common(parser, output=Path("engine-layer.json")).parse_args()
    if options.only_compile and options.cache is None:
        parser.error("--only-compile keeps what it makes in --cache")
    specs = options.spec or list(SPECS)
    with tempfile.TemporaryDirectory() as scratch:
        engines = build_all(specs, options, Path(scratch) if options.cache is None else options.cache)
        if not options.only_compile:
            run(engines, options, Path(scratch))


def build_all(specs: list[str], options: argparse.Namespace, directory: Path) -> list[BuiltEngine]:
    """The programs of all specs."""
    with ThreadPoolExecutor(COMPILERS) as builders:
        jobs = [
            builders.submit(build_engine, spec, options.gpu, directory / "engines", cache_of(options))
            for spec in specs
        ]
        engines = []
        for job in jobs:
            engines.append(job.result())
            print(f"{engines[-1].name}: {engines[-1].program}", flush=True)
    return engines


def run(engines: list[BuiltEngine], options: argparse.Namespace, scratch: Path) -> None:
    """Check, time, and write the results; exit code 4 if something is off."""
    arguments = restricted_to(options, "spec", "batch", "context") + (" --eager" if options.eager else "")
    rows: list[dict[str, Any]] = []
    with ProcessPoolExecutor(CHECKERS, mp_context=get_context("spawn")) as checkers:
        # Programs that are checked share the GPU; those that are timed have it to themselves.
        with ThreadPoolExecutor(COMPILERS) as programs:
            dumps = dict(
                zip(engines, programs.map(lambda engine: dump_checks(engine, scratch), engines), strict=True)
            )
        checks = {
            engine.name: checkers.submit(is_right, written, engine.model, options.gpu, kernels_right=right)
            for engine, (written, right) in dumps.items()
        }
        for row in measure(engines, options):
            rows.append(row)
            show(row)
        checked = {name: job.result() for name, job in checks.items()}
    for row in rows:
        row["checked"] = checked[row["spec"]]
    with open_device() as device:
        save_document(document_of(rows, device, "engine_layer", arguments, options), options)
    print("\n".join(f"{name}: {'right' if right else 'WRONG'}" for name, right in checked.items()))
    if not all(checked.values()):
        sys.exit(4)


def dump_checks(engine: BuiltEngine, scratch: Path) -> tuple[list[Path], bool]:
    """Run what is checked, one layer each: the dumps, and whether the engine's own kernels were right."""
    dumps, right = [], True
    for kind, words in CHECKS.items():
        dumps.append(scratch / engine.name / kind)
        command = [engine.program, "--books", engine.books, *words, "--layers", "1", "--no-timing"]
        command += ["--check", "--dump", dumps[-1]]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(f"{engine.name}, {kind}: {done.stdout}{done.stderr}", flush=True)
        if done.returncode not in {0, 1}:
            sys.exit(f"{engine.name} fails: {done.stderr}")
        right &= done.returncode == 0
    return dumps, right


def is_right(dumps: list[Path], directory: Path, gpu: str, *, kernels_right: bool) -> bool:
    """Whether every step of the dumps, of layers of the same weights, is; and the engine's own kernels were."""
    model, right = Model.load(directory, gpu), kernels_right
    for dump in dumps:
        for found in check_dump(dump, model):
            if not found.comparison.passed:
                print(f"{dump.parent.name}, {dump.name}: {found}", flush=True)
                right = False
        for path in dump.iterdir():
            path.unlink()
    return right


def measure(engines: list[BuiltEngine], options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Rows of all batches and contexts; specs of one shape have as many layers, and share their baseline's times."""
    baselines: dict[LayerSizes, tuple[int, dict[str, Any]]] = {}
    for engine in engines:
        model = Model.load(engine.model, options.gpu)
        for batch in options.batch or BATCHES:
            for context in options.context or CONTEXTS:
                sizes = sizes_of(model, batch, context)
                layers, fields = baselines.get(sizes, (None, None))
                found = timed(engine, batch, context, layers)
                if found is None:
                    continue
                if fields is None:
                    fields = baseline(sizes, found["layers"], compiled=not options.eager)
                    baselines[sizes] = found["layers"], fields
                yield row_of(engine, model, found, sizes) | fields


def sizes_of(model: Model, batch: int, context: int) -> LayerSizes:
    """A launch of the model's layer."""
    op = model.attention.op
    hidden, intermediate = model.linears["down"].op.weight_shape
    return LayerSizes(hidden, intermediate, op.q_heads, op.kv_heads, op.head_dim, batch, context)


def timed(engine: BuiltEngine, batch: int, context: int, layers: int | None) -> dict[str, Any] | None:
    """What the engine measures, of as many layers as it takes or `layers`; None, said, where it cannot run."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        command = [
            engine.program,
            "--books",
            engine.books,
            "--batch",
            str(batch),
            "--context",
            str(context),
            "--repeats",
            "20",
            "--breakdown",
        ]
        command += [] if layers is None else ["--layers", str(layers)]
        done = subprocess.run([*command, "--json", file.name], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            print(
                f"{engine.name} batch={batch} context={context}, left out: {done.stderr.strip()}", flush=True
            )
            return None
        found: dict[str, Any] = json.loads(Path(file.name).read_text())
    return found


def baseline(sizes: LayerSizes, layers: int, *, compiled: bool) -> dict[str, Any]:
    """Fields of a row, empty without PyTorch, or where its layers do not fit the memory."""
    try:
        import torch
    except ImportError:
        return {}
    torch.manual_seed(0)
    found = time_layers(sizes, layers, compiled=compiled)
    if found is None and compiled:  # no compiler for its kernels, perhaps
        compiled = False
        found = time_layers(sizes, layers, compiled=False)
    if found is None:
        print(f"{sizes}: torch has not the memory for {layers} layers, or no attention", flush=True)
        return {}
    return {
        "baseline": "torch_fp16_compiled" if compiled else "torch_fp16",
        "baseline_us": round(found.us, 3),
        "baseline_us_min": round(found.us_min, 3),
        "baseline_us_max": round(found.us_max, 3),
        "baseline_attention": found.attention,
    }


def row_of(engine: BuiltEngine, model: Model, found: dict[str, Any], sizes: LayerSizes) -> dict[str, Any]:
    """What the engine's run says, as results files keep it."""
    library = model.linears["qkv"]
    bandwidth, algorithm = library.builds[model.gpu].dram_bytes_per_second, library.algorithm
    return {
        "op": "decoder_layer",
        "spec": engine.name,
        "algorithm": name_of(algorithm) or algorithm.label,
        "cache": name_of(model.attention.keys) or model.attention.keys.label,
        "dtype": "float16",
        **sizes.__dict__,
        "layers": found["layers"],
        **{name: round(value, 3) for name, value in found["layer"].items()},
        "weight_bytes": found["weight_bytes"],
        "cache_bytes": found["cache_bytes"],
        "floor_us": round(1e6 * found["bytes_read"] / bandwidth, 3),
        "steps_us": {name: round(step["us"], 3) for name, step in found["steps"].items()},
    }


def show(row: dict[str, Any]) -> None:
    """One line per row, as it comes."""
    ratio = row["baseline_us"] / row["us"] if "baseline_us" in row else float("nan")
    print(
        f"{row['spec']:17} batch={row['batch']:<3} context={row['context']:<6} {row['us']:9.2f} us a layer"
        f" (floor {row['floor_us']:7.2f})  {ratio:5.2f} x torch",
        flush=True,
    )


if __name__ == "__main__":
    main()
