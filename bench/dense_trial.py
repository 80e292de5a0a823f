"""Kernels of gemm's `dense` dataflow, forced to it and to tiles of one's own, beside cuBLAS on this machine's GPU.

    python bench/dense_trial.py --gpu h200 -o dense-trial.json
    python bench/dense_trial.py --variant ring=4 --variant decoding_warps=2,stages=3 --m 4096 --shape 28672x8192

Each kernel is checked against float64 first, at its bound and at a ragged number of rows, in bands of rows of W; y must
have no element that was not written, and a second launch the same bits. Then it is timed by graph replays over rotated
inputs, cuBLAS fp16 before and after. Whatever runs on the GPU does so in processes that are ended if they say nothing
for a while: a kernel that hangs costs its own row. A variant names fields of the tile (vqcc/ops/gemm/dense_tile.py);
`without=decoding`, `arranging`, `inputs` or `stores` times a kernel that leaves these out, and checks nothing.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.code_layouts import FragmentLayout
from vqcc.codegen.device_parts import target_of
from vqcc.codegen.render import render_source
from vqcc.codegen.toolchain import find
from vqcc.levels import Strategy
from vqcc.passes.dataflow import refusals
from vqcc.passes.placement import certain_placement
from vqcc.passes.tile import plan_tile
from vqcc.pipeline import analyze, plan_compiled, plan_kernel
from vqcc.spec.load import parse_spec
from vqcc.tensors.packing import pack_tensor
from vqcc.trial import spills
from vqcc.verify.backends import scalar
from vqcc.verify.tolerance import compare
from vqcc.weight_building import problems_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.problem import Problem
    from vqcc.runtime.device import Device, DeviceArray
    from vqcc.tensors.vq_tensor import VQTensor

PRESETS = ("gptvq-2", "aqlm-2x8")
SHAPES = ("28672x8192", "8192x28672")
ROWS = (4096, 1024)
#: Rows of W of a band that is checked, and how many of them; rows of x fewer than the bound.
BAND_ROWS, BANDS, FEWER = 256, 3, 77
#: Seconds of silence after which a process is ended.
PATIENCE = 60.0
#: What is left out of a source to see what it costs: a pattern, and what comes in its place.
LEFT_OUT = {
    "decoding": (r"decode_unit\(piece, first_step\);", ""),
    "arranging": (r"arrange_group\(x, stride, rows, group, word\);", ";"),
    "inputs": (
        r"(?s)(arrive_expecting\(full, )kStageBytes(\);.*?)start_bulk_copy\(inputs[^;]*;",
        r"\1Work::kImageBytes\2",
    ),
    "stores": (r"outputs\.store_sums\([^;]*;", ""),
}
#: Elements between rows of y: none, as an engine has them. Launches of other programs here have 3, which aligns no row.
GAPS = (0,)


@dataclass(frozen=True)
class Case:
    """Kernels of one weight: rows of x, and the tiles that are tried of each."""

    preset: str
    shape: str
    m: tuple[int, ...]
    variants: tuple[str, ...]
    gpu: str
    gaps: tuple[int, ...]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of W."""
        n, k = self.shape.split("x")
        return int(n), int(k)

    def problem(self, m: int) -> Problem:
        """The problem of one kernel."""
        n, k = self.size
        text = (
            f"vqcc: 1\nname: trial\nalgorithm: {self.preset}\nop: {{kind: gemm, m: [{m}], n: {n}, k: {k}}}\n"
            f"gpu: {self.gpu}\nlevel: best\n"
        )
        spec = parse_spec(text.encode(), self.preset)
        (problem,) = problems_of(spec, spec.gpu[0])
        return problem


class Trial:
    """One kernel, compiled and loaded, as `time_kernel` launches it."""

    def __init__(self, device: Device, problem: Problem, variant: str) -> None:
        strategy = Strategy("none", dataflow="dense")
        assert not list(refusals(problem, "dense")), list(refusals(problem, "dense"))
        plan = analyze(problem, strategy)
        base = plan_tile(problem, plan, certain_placement(problem, plan))
        assert base is not None, "no tile fits"
        assert base.tile is not None
        left_out = [value for name, value in _pairs(variant) if name == "without"]
        self.whole = not left_out
        changes = {name: _value(value) for name, value in _pairs(variant) if name != "without"}
        if "unit_steps" in changes or "stages" in changes:
            changes |= _consistent(base.tile, changes)
        base = replace(base, tile=replace(base.tile, **changes))  # type: ignore[type-var]
        planned = plan_kernel(problem, base, None)
        source = render_source([problem], [planned])
        for what in left_out:
            source, count = re.subn(*LEFT_OUT[what], source)
            assert count == 1, f"{what} is in {count} places"
        compiled = find("nvrtc").compile(
            source, target=target_of(source, problem.gpu.target), want_ptx=False, file_name="trial.cu"
        )
        self.resources = compiled.resources[planned.kernel]
        self.plan = plan_compiled(problem, planned, self.resources)
        self.problem, self._device = problem, device
        assert self.plan.launch is not None
        self.launch = self.plan.launch
        self._function = device.load(compiled.cubin).function(
            planned.kernel, self.launch.dynamic_shared_bytes, self.launch.carveout_percent
        )
        self.workspace = device.repeat(np.zeros(1024, np.uint8), self.launch.workspace_bytes)

    def enqueue(self, _kernel: object, arrays: dict[str, DeviceArray], scalars: dict[str, float]) -> None:
        """Put one launch on the device's stream."""
        held = {**arrays, "workspace": self.workspace}
        values = [
            scalar(argument.c_type, scalars[argument.name])
            if argument.role == "scalar"
            else np.uint64(held[argument.name].address if argument.name in held else 0)
            for argument in self.problem.op.arguments(self.problem.variant)
        ]
        self._device.launch(
            self._function, values, self.launch.grid, self.launch.threads, self.launch.dynamic_shared_bytes
        )


def _pairs(variant: str) -> Iterator[tuple[str, str]]:
    for pair in filter(None, variant.split(",")):
        name, value = pair.split("=")
        yield name, value


def _value(text: str) -> int | bool:
    return {"true": True, "false": False}[text] if text in {"true", "false"} else int(text)


def _consistent(tile: Any, changes: dict[str, Any]) -> dict[str, Any]:
    """What follows from a changed number of steps."""
    if "unit_steps" not in changes:
        return {}
    steps = tile.piece_units * tile.unit_steps
    return {"piece_units": -(-steps // changes["unit_steps"])}


def main() -> None:
    """Run the trials, each weight in a process of its own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--preset", action="append", help=f"default: {', '.join(PRESETS)}")
    parser.add_argument("--shape", action="append", metavar="NxK", help=f"default: {', '.join(SHAPES)}")
    parser.add_argument("--m", action="append", type=int, help=f"default: {ROWS}")
    parser.add_argument("--variant", action="append", metavar="FIELD=VALUE,...", help="beside the planner's")
    parser.add_argument("--only-variants", action="store_true", help="leave the planner's tile out")
    parser.add_argument("--gap", action="append", type=int, help=f"between rows of y; default: {GAPS}")
    parser.add_argument("--gpu", default="h200")
    parser.add_argument("--patience", type=float, default=PATIENCE, help="seconds of silence")
    parser.add_argument("-o", "--output", type=Path)
    parser.add_argument("--work", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work is not None:
        run_case(
            Case(**{k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(options.work).items()})
        )
        return
    variants = ([] if options.only_variants else [""]) + (options.variant or [])
    gaps = tuple(options.gap if options.gap is not None else GAPS)
    rows: list[dict[str, Any]] = []
    for shape in options.shape or SHAPES:
        for preset in options.preset or PRESETS:
            case = Case(preset, shape, tuple(options.m or ROWS), tuple(variants), options.gpu, gaps)
            for row in attended(case, options.patience):
                rows.append(row)
                print(json.dumps(row), flush=True)
                if options.output is not None:
                    options.output.write_text(json.dumps({"rows": rows}, indent=1) + "\n", encoding="utf-8")


def attended(case: Case, patience: float) -> Iterator[dict[str, Any]]:
    """Rows of a case, from processes that are ended when they hang; what hung is left out of the next one."""
    todo = [(m, variant) for m in case.m for variant in case.variants]
    while todo:
        done = 0
        for m in dict.fromkeys(m for m, _ in todo):
            own = tuple(variant for each, variant in todo if each == m)
            part = replace(case, m=(m,), variants=own)
            finished, rows = _attend(part, patience)
            yield from rows
            done += finished
            if finished < len(own):
                yield {**_head(case, m, own[finished]), "error": "hung, or ended without a word"}
                done += 1
                break
        todo = todo[done:]


def _attend(case: Case, patience: float) -> tuple[int, list[dict[str, Any]]]:
    """Run one process: how many of its variants it was done with, and its rows."""
    work = json.dumps(case.__dict__)
    process = subprocess.Popen([sys.executable, __file__, "--work", work], stdout=subprocess.PIPE, text=True)
    heard = [time.monotonic()]

    def watch() -> None:
        while process.poll() is None:
            if time.monotonic() - heard[0] > patience:
                process.kill()
            time.sleep(0.5)

    threading.Thread(target=watch, daemon=True).start()
    finished, rows = 0, []
    assert process.stdout is not None
    for line in process.stdout:
        heard[0] = time.monotonic()
        said = json.loads(line)
        if "row" in said:
            rows.append(said["row"])
        finished += said.get("done", 0)
    process.wait()
    return finished, rows


def say(**what: Any) -> None:
    """Tell the process that attends."""
    print(json.dumps(what), flush=True)


def _head(case: Case, m: int, variant: str) -> dict[str, Any]:
    n, k = case.size
    return {"algorithm": case.preset, "n": n, "k": k, "m": m, "variant": variant}


def run_case(case: Case) -> None:
    """Check and time the variants of one number of rows."""
    from vqcc.runtime.bench import Baselines
    from vqcc.runtime.device import open_device
    from vqcc.runtime.timing import copies_past_cache, time_kernel

    (m,) = case.m
    problem = case.problem(m)
    n, k = case.size
    rng = np.random.default_rng(7)
    tensor = problem.algorithm.random_tensor(rng, "w", n, k)
    say(drawn=True)
    with open_device() as device:
        baselines = Baselines(device.l2_bytes)
        layout = analyze(problem, Strategy("none", dataflow="dense")).layout
        assert isinstance(layout, FragmentLayout)
        packed = {name: device.upload(array) for name, array in pack_tensor(tensor, layout).arrays().items()}
        say(packed=True)
        x = rng.standard_normal((m, k), np.float32).astype(np.float16)
        bias = rng.standard_normal(n).astype(np.float16)
        inputs = {**packed, "x": device.upload(x), "bias": device.upload(bias)}
        exact = Reference(tensor, x, bias)
        say(referenced=True)
        moved = sum(array.size for array in inputs.values()) + 2 * m * n
        count = copies_past_cache(moved, device.l2_bytes)
        for variant in case.variants:
            try:
                trial = Trial(device, problem, variant)
                say(compiled=variant)
                checks = exact.check(device, trial, inputs) if trial.whole else {}
                for gap in case.gaps:
                    scalars = {"m": m, "x_stride": k, "y_stride": n + gap}
                    before = _cublas(baselines, n, k, m)
                    copies = [
                        {**own, "y": device.allocate(2 * m * (n + gap))}
                        for own in _clones(device, inputs, count)
                    ]
                    timing = time_kernel(device, trial, None, copies, scalars)  # type: ignore[arg-type]
                    del copies
                    baselines = Baselines(device.l2_bytes)  # forgets what it has timed
                    after = _cublas(baselines, n, k, m)
                    say(row=_row(case, m, variant, trial, checks, gap, timing, (before, after)))
            except Exception as error:  # whatever it is, the next variant may do
                say(row={**_head(case, m, variant), "error": f"{type(error).__name__}: {error}"[:600]})
            say(done=1)


def _cublas(baselines: Any, n: int, k: int, m: int) -> float:
    found = baselines.cublas(n, k, m, "float16")
    return float("nan") if found is None else found.us


def _clones(device: Device, inputs: dict[str, DeviceArray], count: int) -> Iterator[dict[str, DeviceArray]]:
    yield inputs
    for _ in range(count - 1):
        yield {name: device.clone(array) for name, array in inputs.items()}


def _row(
    case: Case,
    m: int,
    variant: str,
    trial: Trial,
    checks: dict[str, Any],
    gap: int,
    timing: Any,
    cublas: tuple[float, float],
) -> dict[str, Any]:
    n, k = case.size
    best = min(cublas)
    return {
        **_head(case, m, variant),
        "y_gap": gap,
        "us": round(timing.us, 2),
        "us_min": round(timing.us_min, 2),
        "us_max": round(timing.us_max, 2),
        "cublas_us": [round(us, 2) for us in cublas],
        "ratio": round(best / timing.us, 4),
        "tflops": round(2e-6 * m * n * k / timing.us, 1),
        "predicted_us": trial.plan.predicted_us,
        **checks,
        "registers": trial.resources.registers,
        "spills": spills(trial.resources),
        "grid": trial.launch.grid,
        "shared_bytes": trial.launch.dynamic_shared_bytes,
        "workspace_bytes": trial.launch.workspace_bytes,
    }


class Reference:
    """Some bands of rows of W in float64, and what y must be there."""

    def __init__(self, tensor: VQTensor, x: Any, bias: Any) -> None:
        import torch

        n, _ = tensor.shape
        self.x, self.bias = x, bias
        last = (n - BAND_ROWS) // BAND_ROWS
        self.bands = sorted({BAND_ROWS * round(i * last / (BANDS - 1)) for i in range(BANDS)})
        self.expected: dict[int, tuple[Any, Any]] = {}
        on_gpu = torch.from_numpy(x).cuda().double()
        for first in self.bands:
            own = rows_of(tensor, first)
            weights = torch.from_numpy(tensor.algorithm.decode(own)).cuda()
            magnitudes = torch.from_numpy(tensor.algorithm.decode(own, magnitudes=True)).cuda()
            added = torch.from_numpy(bias[first : first + BAND_ROWS]).cuda().double()
            self.expected[first] = (
                (on_gpu @ weights.T + added).cpu().numpy(),
                (on_gpu.abs() @ magnitudes.T + added.abs()).cpu().numpy(),
            )
        del on_gpu
        torch.cuda.empty_cache()

    def check(self, device: Device, trial: Trial, inputs: dict[str, DeviceArray]) -> dict[str, Any]:
        """Launch twice at the bound, and once each with fewer rows and rows that are not aligned."""
        m, k = self.x.shape
        n = len(self.bias)
        roundings = trial.problem.op.longest_sum(trial.plan.tile, trial.problem.algorithm)
        worst, relative, passed = 0.0, 0.0, True
        first_bits = None
        for rows, gap in ((m, 0), (m, 0), (m - FEWER, 3)):
            nan = np.full(1024, np.nan, np.float16)
            y = device.repeat(nan, 2 * m * (n + gap))
            trial.enqueue(None, {**inputs, "y": y}, {"m": rows, "x_stride": k, "y_stride": n + gap})
            device.synchronize()
            say(launched=rows)
            result = np.empty((m, n + gap), np.float16)
            device.download(y, result)
            missing = int(np.isnan(result[:rows, :n]).sum())
            if missing or not (np.isnan(result[rows:]).all() and np.isnan(result[:, n:]).all()):
                raise ValueError(
                    f"y has {missing} elements that were not written, or others that were: m = {rows}"
                )
            for first in self.bands:
                exact, magnitude = (array[:rows] for array in self.expected[first])
                found = compare(
                    result[:rows, first : first + BAND_ROWS], exact, magnitude, roundings, "float16"
                )
                passed &= found.passed
                worst, relative = max(worst, found.worst), max(relative, found.relative_error)
            if gap == 0:
                bits = result.tobytes()
                if first_bits is not None and bits != first_bits:
                    raise ValueError("a second launch gives other bits")
                first_bits = bits
        return {
            "within_bound": bool(passed),
            "relative_error": float(f"{relative:.3e}"),
            "worst": round(worst, 5),
        }


def rows_of(tensor: VQTensor, first: int) -> VQTensor:
    """BAND_ROWS rows of a tensor as one of their own."""
    n, k = tensor.shape
    end = first + BAND_ROWS
    tile_rows, tile_columns = tensor.algorithm.scope.tile(n, k)
    books = tensor.codebooks
    if tile_rows < n and books is not None:
        assert tile_rows == BAND_ROWS, "a band has its own books"
        across = -(-k // tile_columns)
        books = books[first // tile_rows * across :][:across]
    scales = tensor.scales
    if scales is not None and len(scales) == n:
        scales = scales[first:end]
    return replace(
        tensor, shape=(BAND_ROWS, k), codes=tensor.codes[:, first:end], codebooks=books, scales=scales
    )


if __name__ == "__main__":
    main()
