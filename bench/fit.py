"""Fit the constants of a dataflow's cycle model to the measured candidates of a results file: no GPU needed.

    python bench/fit.py fragment bench/results/h200/gemv-candidates.json

Prints what each constant is and what fits best, how far predictions are off with either, and in how many problems the
chosen candidate is within a tenth of the best. Each shape is also predicted from the others alone. What is printed goes
into the module by hand, with a line in docs/performance.md. Needs SciPy.
"""

from __future__ import annotations

import argparse
import json
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from ranking import summary

from vqcc.building import problems_of
from vqcc.levels import Strategy
from vqcc.ops.gemv import bucket_tile, fragment_cycles, score_tile
from vqcc.passes.placement import certain_placement
from vqcc.passes.tile import machine_of, workload_of
from vqcc.picks import tile_identity
from vqcc.pipeline import analyze
from vqcc.spec.load import parse_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from types import ModuleType

    from numpy.typing import NDArray

    from vqcc.ops.base import TimedMachine, Workload
    from vqcc.plan import Tile
    from vqcc.problem import Problem

Row = dict[str, Any]
Shape = tuple[int, int]
#: What is fitted of each dataflow, by the names of its module; of a mapping, all its values.
FITTED: Mapping[str, tuple[ModuleType, tuple[str, ...]]] = {
    "fragment": (
        fragment_cycles,
        (
            "START_CYCLES",
            "VISIT_CYCLES",
            "END_CYCLES",
            "WEIGHTS",
            "LONE_WARPS",
            "PART_CYCLES",
            "LOOKUP_INSTRUCTIONS",
            "STAGING_READS",
            "ALONG_CYCLES",
        ),
    ),
    "score": (
        score_tile,
        (
            "START_CYCLES",
            "SCALE_CYCLES",
            "END_CYCLES",
            "WARP_CYCLES",
            "BUILD_SHOWN",
            "BARRIER_CYCLES",
            "LOOKUP_WAIT",
            "GROUP_LATENCY",
            "PARTS_SHARE",
            "DRAM_WEIGHT",
        ),
    ),
    "bucket": (
        bucket_tile,
        (
            "STEP_WAIT",
            "CHUNK_CYCLES",
            "START_CYCLES",
            "END_CYCLES",
            "LOAD_CYCLES",
            "INPUT_CYCLES",
            "LOAD_SHARE",
        ),
    ),
}
#: How a doubled constant counts beside a prediction that is off by as much: what data do not tell stays as it was.
INERTIA = 0.02
#: From here on an outlier counts by its size, not by its square.
OUTLIER = 0.1


@dataclass(frozen=True)
class Case:
    """A measured kernel: its row, and what its op counts the cycles of."""

    row: Row
    problem: Problem
    tile: Tile
    work: Workload
    machine: TimedMachine

    @property
    def shape(self) -> Shape:
        """Rows and columns of the weight."""
        return self.row["n"], self.row["k"]

    def predicted_us(self) -> float:
        """What the module's constants of the moment say."""
        gpu = self.problem.gpu
        cycles = sum(self.problem.op.phase_cycles(self.tile, self.work, self.machine).values())
        return 1e6 * (float(gpu.launch_seconds.value) + cycles / float(gpu.sustained_hertz.value))


def main() -> None:
    """Fit, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataflow", choices=FITTED)
    parser.add_argument("results", type=Path)
    parser.add_argument("--gpu", default="h200")
    options = parser.parse_args()
    rows = json.loads(options.results.read_text())["rows"]
    of_all = list(cases_of([row for row in rows if row["dataflow"] in FITTED], options.gpu))
    for case in of_all:  # dataflows that are not fitted count as their models have them now
        case.row["predicted_us"] = case.predicted_us()
    cases = [case for case in of_all if case.row["dataflow"] == options.dataflow]
    model = Model(options.dataflow)
    now = np.ones(len(model.values))
    fitted = fit(model, cases)
    for (name, _), before, factor in zip(model.names, model.values, fitted, strict=True):
        print(f"{name:28} {before:10.4g} -> {before * factor:10.4g}")
    left_out = np.empty(len(cases))
    for shape in sorted({case.shape for case in cases}):
        own = np.array([case.shape == shape for case in cases])
        rest = fit(model, [case for case in cases if case.shape != shape])
        left_out[own] = model.predict(rest, [case for case in cases if case.shape == shape])
    for title, predicted in (
        ("as it is", model.predict(now, cases)),
        ("fitted", model.predict(fitted, cases)),
        ("from other shapes", left_out),
    ):
        print(f"{title:18} {describe(rows, cases, predicted)}")


def cases_of(rows: Sequence[Row], gpu: str) -> Iterator[Case]:
    """The kernels that rows are of; those whose tile the op has no more are left out, and told."""
    known: dict[tuple[Any, ...], tuple[Problem, Workload, TimedMachine, dict[str, Tile]]] = {}
    for row in rows:
        key = (row["algorithm"], row["n"], row["k"], row["m"], row["dataflow"])
        if key not in known:
            known[key] = _tiles(*key, gpu)
        problem, work, machine, tiles = known[key]
        tile = tiles.get(json.dumps(row["tile"], sort_keys=True))
        if tile is None:
            print(f"left out, the op has no such tile: {key}")
        else:
            yield Case(row, problem, tile, work, machine)


def _tiles(
    algorithm: str, n: int, k: int, m: int, dataflow: Any, gpu: str
) -> tuple[Problem, Workload, TimedMachine, dict[str, Tile]]:
    """A problem, what its tiles work on, and all of them by their identity."""
    op = f"{{kind: gemv, m: {m}, n: {n}, k: {k}}}"
    spec = parse_spec(
        f"vqcc: 1\nname: fitted\nalgorithm: {algorithm}\nop: {op}\ngpu: {gpu}\n".encode(), "fit"
    )
    (problem,) = problems_of(spec, spec.gpu[0])
    plan = analyze(problem, Strategy("none", dataflow=dataflow))
    work, machine = workload_of(problem, plan, certain_placement(problem, plan)), machine_of(problem.gpu)
    tiles = (tile for tile, _ in problem.op.every_tile(problem.variant, work, machine))
    return problem, work, machine, {_identity(tile): tile for tile in tiles}


def _identity(tile: Tile) -> str:
    return json.dumps(dict(tile_identity(tile)), sort_keys=True)


class Model:
    """The constants of a dataflow's module, and predictions with others in their place."""

    def __init__(self, dataflow: str) -> None:
        self._module, constants = FITTED[dataflow]
        self.names: list[tuple[str, str | None]] = []
        self.values: list[float] = []
        for name in constants:
            value = getattr(self._module, name)
            for key, each in value.items() if isinstance(value, dict) else ((None, value),):
                self.names.append((name if key is None else f"{name}.{key}", key))
                self.values.append(float(each))

    def predict(self, factors: NDArray[np.float64], cases: Sequence[Case]) -> NDArray[np.float64]:
        """Microseconds with each constant times its factor."""
        with self._replaced(factors):
            return np.array([case.predicted_us() for case in cases])

    @contextmanager
    def _replaced(self, factors: NDArray[np.float64]) -> Iterator[None]:
        before = {name.split(".")[0]: getattr(self._module, name.split(".")[0]) for name, _ in self.names}
        changed: dict[str, Any] = {}
        for (name, key), value, factor in zip(self.names, self.values, np.abs(factors), strict=True):
            if key is None:
                changed[name] = value * factor
            else:
                changed.setdefault(name.split(".")[0], {})[key] = value * factor
        try:
            for name, value in changed.items():
                setattr(self._module, name, value)
            yield
        finally:
            for name, value in before.items():
                setattr(self._module, name, value)


def fit(model: Model, cases: Sequence[Case]) -> NDArray[np.float64]:
    """Factors of the constants for which predictions are off least, by their logarithms."""
    from scipy.optimize import least_squares

    measured = np.log([case.row["us"] for case in cases])

    def residuals(factors: NDArray[np.float64]) -> NDArray[np.float64]:
        off = np.log(model.predict(factors, cases)) - measured
        return np.concatenate([off, INERTIA * np.log(np.abs(factors))])

    found = least_squares(
        residuals, np.ones(len(model.values)), diff_step=1e-3, loss="soft_l1", f_scale=OUTLIER
    )
    return np.abs(found.x)


def describe(rows: Sequence[Row], cases: Sequence[Case], predicted: NDArray[np.float64]) -> str:
    """How far predictions are off, and how good the choices are that they lead to."""
    new = {id(case.row): us for case, us in zip(cases, predicted, strict=True)}
    ranking = summary([{**row, "predicted_us": new.get(id(row), row["predicted_us"])} for row in rows])
    off = np.log(predicted) - np.log([case.row["us"] for case in cases])
    return (
        f"{np.sqrt(np.mean(off**2)):.2%} off (root mean square), {np.mean(off):+.2%} on average; chosen within 10% "
        f"of the best in {ranking.near:.1%}, {ranking.worst - 1:.0%} longer in the worst"
    )


if __name__ == "__main__":
    main()
