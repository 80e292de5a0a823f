"""linear on the emulator: one library and one packed weight for few rows of x and many, against float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from launches import Kernels
from libraries import FakeToolchain, build_fake, make_spec
from problems import kmeans
from tuned import FakeBench, build, run

from vqcc.building import build_library, write_library
from vqcc.flow import WEIGHTS
from vqcc.library import load_weight_library
from vqcc.passes.choice import predicted
from vqcc.passes.rows import predicted_at
from vqcc.pipeline import estimate
from vqcc.search import compile_plans
from vqcc.verify.backends import EmulatorBackend
from vqcc.verify.harness import make_workspace, run_case, validate
from vqcc.weight_building import problems_of

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.building import Built
    from vqcc.library import Kernel, Library

#: Rows of launches: one, a few, whole tiles of either op and one more, several panels.
ROWS = (1, 3, 16, 17, 33, 70)
FALLBACK = kmeans(vector_size=4, entries=64, scales={"group": 40})
TILED = kmeans(vector_size=4, entries=256, scope={"rows": 128, "cols": 64}, codebook_dtype="bfloat16")
CASES: dict[str, dict[str, Any]] = {
    "fragments-and-warpgroups": {"algorithm": "aqlm-2x8", "n": 200, "k": 520},
    "tiles-bfloat16": {"algorithm": TILED, "n": 256, "k": 712, "dtype": "bfloat16"},
    "fragments": {
        "algorithm": "quip-2",
        "n": 70,
        "k": 520,
        "gpu": "rtx4090",
        "dtype": ["float16", "bfloat16"],
    },
    "ten-bits": {"algorithm": kmeans(vector_size=4, entries=1024), "n": 50, "k": 264},
    "cuda-cores": {"algorithm": FALLBACK, "n": 40, "k": 200, "gpu": "a100"},
    "global-codebooks": {"algorithm": "vq-4-8-1", "n": 60, "k": 264, "level": "gc"},
    "split-and-exchanged": {"algorithm": "aqlm-2x8", "n": 40, "k": 1040, "level": "o4", "gpu": "rtx4090"},
}


def built(name: str, **changes: Any) -> Built:
    case = {"kind": "linear", "m": {"min": 1, "max": 70}, "level": "best", **CASES[name], **changes}
    return build_fake(case.pop("algorithm"), **case)


def written(library: Built, directory: Path) -> Library:
    write_library(library, directory / library.name)
    return load_weight_library(directory / library.name)


def kernel_for(library: Library, gpu: str, dtype: str, m: int) -> Kernel:
    """As `p_select` of the header does: the least bound that covers m."""
    own = [each for each in library.builds[gpu].kernels if each.variant.dtype == dtype]
    return min(
        (each for each in own if each.variant.sizes["m"] >= m), key=lambda each: each.variant.sizes["m"]
    )


@pytest.mark.parametrize("name", CASES)
def test_launches_of_any_rows(name: str, tmp_path: Path, cache_directory: Path) -> None:
    """The kernel that the header takes for m; all read one packed weight and share one workspace."""
    library = written(built(name), tmp_path)
    (gpu,) = library.gpus
    rng = np.random.default_rng(1)
    tensor = library.algorithm.random_tensor(rng, "w", *library.op.weight_shape)
    packed = library.pack(tensor).arrays()
    decoded = (library.algorithm.decode(tensor), library.algorithm.decode(tensor, magnitudes=True))
    runner = EmulatorBackend(cache_directory / "emulator").load(library, gpu)
    workspace = make_workspace(library, gpu)
    for dtype in library.op.dtype:  # type: ignore[attr-defined]
        for m in ROWS:
            kernel = kernel_for(library, gpu, dtype, m)
            case = library.op.draw_case(kernel.variant, {"m": m}, library.algorithm, rng)
            comparison = run_case(library, runner, kernel, case, packed, decoded, workspace)
            assert comparison.passed, (dtype, m, kernel.name, comparison)


@pytest.mark.parametrize(
    "name", ["fragments-and-warpgroups", pytest.param("split-and-exchanged", marks=pytest.mark.full)]
)
def test_every_kernel_that_there_may_be(name: str, cache_directory: Path) -> None:
    """Those that do not pay too: as few rows as they serve, and as many, in turn on one workspace."""
    case = {"kind": "linear", "m": {"min": 1, "max": 70}, "level": "best", **CASES[name]}
    spec = make_spec(case.pop("algorithm"), **case)
    problems = problems_of(spec, spec.gpu[0])
    (agreed, *_) = WEIGHTS.agree(problems)
    toolchain = FakeToolchain()
    _, plans, _ = compile_plans(
        problems,
        lambda source: toolchain.compile(source, target="", want_ptx=False, file_name="tiny"),
        agreed,
    )
    assert {plan.layout for plan in plans} == {plans[0].layout}
    rng = np.random.default_rng(2)
    tensor = spec.over_weights[0].random_tensor(rng, "w", case["n"], case["k"])  # type: ignore[index]
    kernels = Kernels(list(zip(problems, plans, strict=True)), tensor, cache_directory)
    for _ in range(2):
        for kernel in kernels.kernels:
            m = kernel.problem.variant.sizes["m"]
            for rows in {m, max(1, m - 1)}:
                inputs = kernels.draw(kernel.problem, rows, rng, bias=True)
                assert kernels.run(kernel, inputs).comparison.passed, (m, rows)


def test_gemv_and_gemm_kernels_of_one_library(tmp_path: Path) -> None:
    """Two dataflows over one order of codes, on two GPUs of which one alone has warpgroups."""
    library = written(
        built("fragments-and-warpgroups", n=4096, k=4096, m={"min": 1, "max": 512}, gpu=["h200", "a100"]),
        tmp_path,
    )
    strategies = {
        gpu: {kernel["strategy"]["dataflow"] for kernel in fields["kernels"]}
        for gpu, fields in library.bundle.manifest["gpus"].items()
    }
    assert strategies == {"h200": {"fragment", "warpgroup"}, "a100": {"fragment"}}
    variants = [[kernel.variant.suffix for kernel in build.kernels] for build in library.builds.values()]
    assert variants[0] == variants[1]
    assert variants[0][-1] == "m512_float16"


def test_validate_runs_every_kernel(tmp_path: Path, cache_directory: Path) -> None:
    library = written(built("fragments-and-warpgroups", m={"min": 1, "max": 33}), tmp_path)
    results = list(validate(library, EmulatorBackend(cache_directory / "emulator")))
    assert all(result.comparison.passed for result in results)
    (build,) = library.builds.values()
    assert {result.kernel for result in results} == {kernel.name for kernel in build.kernels}
    assert max(result.sizes["m"] for result in results) == 33


def test_a_launch_is_predicted_at_its_rows() -> None:
    """A kernel of several panels is predicted to take less with fewer of them."""
    spec = make_spec("aqlm-2x8", kind="linear", m={"min": 512, "max": 4096}, n=8192, k=4096, level="best")
    problem = problems_of(spec, spec.gpu[0])[-1]
    (strategy,) = WEIGHTS.strategies(problem, "warpgroup")
    plan = estimate(problem, strategy)
    assert plan is not None
    times = [predicted_at(problem, plan, rows) for rows in (128, 512, 2048, 4096)]
    assert times == sorted(times)
    assert times[-1] == plan.predicted_us
    assert times[0] < times[-1] / 6


def test_what_was_tuned_is_made() -> None:
    """Every kernel that there may be is timed, those that pay by prediction are made as measured."""
    spec = make_spec("gptvq-2", kind="linear", m={"min": 8, "max": 32}, n=4096, k=4096, level="best")
    decoding = 1000.0  # slower, and of the others what is predicted to be slower is faster
    times = FakeBench(lambda plan: (plan.strategy.dataflow == "decode") * decoding + 500.0 - predicted(plan))
    lock, steps = run(spec, times)
    assert {step.dataflow for step in steps} == {"decode", "fragment", "warpgroup", "dense"}
    assert {kernel.kernel for kernel in lock.kernels} == {f"m{m}_float16" for m in (8, 16, 32)}
    tuned, plain = build(spec, lock), build(spec, None)
    assert tuned.lock_use is not None
    assert not tuned.lock_use.complaints
    (before,), (after,) = plain.gpus, tuned.gpus
    assert [problem.variant for problem in after.problems] == [problem.variant for problem in before.problems]
    assert tuned.lock_use.kernels == {"h200": tuple(problem.variant.suffix for problem in after.problems)}
    for plan in after.plans:
        lines, strategy = plan.decisions[:2]
        assert lines.name == "rows_served"
        assert "Fake GPU" in strategy.reason


def test_the_build_is_the_same_again() -> None:
    spec = make_spec("gptvq-2", kind="linear", m={"min": 1, "max": 64}, n=512, k=2048, level="best")
    first, second = (build_library(spec, toolchain=FakeToolchain(), cache=None) for _ in range(2))
    assert first.files == second.files
    assert first.fields == second.fields
