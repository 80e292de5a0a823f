"""Timing without a check, and the curves made of it, on a stand-in for a device."""

from __future__ import annotations

from concurrent.futures import Future
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from libraries import build_fake, with_workspace

from vqcc.runtime.device import open_device
from vqcc.runtime.timing import Timing

if TYPE_CHECKING:
    from conftest import FakeDriver

SHAPE = (64, 256)


@pytest.fixture
def light(bench: Any, driver: FakeDriver, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, whose kernels take ten microseconds and one more for each row of x; launches are kept."""
    module = bench("light")
    module.seen = []

    def time_kernel(_device: Any, _runner: Any, kernel: Any, copies: Any, scalars: Any) -> Timing:
        module.seen.append((kernel, copies, scalars))
        us = 10.0 + scalars["m"]
        return Timing(us, us, us)

    monkeypatch.setattr(module, "time_kernel", time_kernel)
    driver.attributes["l2"] = 1 << 16
    return module


def test_each_kernel_of_a_library_at_its_bound(light: Any) -> None:
    built = with_workspace(build_fake(m=[1, 4]), [0, 512])
    with open_device() as device:
        assert light.time_built(built, light.Weights(device)) == [11.0, 14.0]
    (_, without, _), (_, copies, _) = light.seen
    assert all("workspace" not in copy for copy in without)
    assert len({copy["workspace"].address for copy in copies}) == 1, "launches of a stream share it"


def test_copies_share_nothing_else_and_pass_the_cache(light: Any) -> None:
    with open_device() as device:
        library, weights = light.as_loaded(build_fake(m=4)), light.Weights(device)
        (kernel,) = library.builds["h200"].kernels
        launched = light.time_rows(library, kernel, 4, weights)
    ((_, copies, _),) = light.seen
    addresses = [array.address for copy in copies for array in copy.values()]
    assert len(addresses) == len(set(addresses))
    named = {argument.name for argument in library.op.arguments(kernel.variant) if argument.role != "scalar"}
    assert set(copies[0]) == named - {"workspace", "stage_scales", "scales"} | {"scales"}
    weight_bytes = sum(copies[0][name].size for name in ("codes", "books", "scales"))
    assert len(copies) * weight_bytes >= 4 * device.l2_bytes
    assert launched.moved_bytes == sum(array.size for array in copies[0].values())


def test_fewer_rows_than_the_bound(light: Any) -> None:
    """The bound's arrays, of which fewer rows move; libraries that read the same weights share their copies."""
    with open_device() as device:
        library, weights = light.as_loaded(build_fake(m=4)), light.Weights(device)
        (kernel,) = library.builds["h200"].kernels
        one, four = (light.time_rows(library, kernel, m, weights) for m in (1, 4))
    assert (one.us, four.us) == (11.0, 14.0)
    (_, first, scalars), (_, second, _) = light.seen
    assert scalars["m"] == 1
    assert [copy["codes"] for copy in first] == [copy["codes"] for copy in second]
    rows = first[0]["x"].size + first[0]["y"].size
    assert four.moved_bytes - one.moved_bytes == rows * 3 // 4


def test_rows_of_curves(light: Any, bench: Any) -> None:
    """A library for each m, and the shared one's kernel of the least bound that covers m."""
    curves = bench("curves")
    batches = (1, 3, 16)
    jobs = []
    for bounds in ([1], [3], [16], list(curves.SHARED)):
        jobs.append(Future())
        n, k = SHAPE
        jobs[-1].set_result(build_fake(m=bounds, n=n, k=k, level="best"))
    baselines = SimpleNamespace(cublas=lambda n, k, m, dtype: Timing(7.0, 7.0, 7.0))
    with open_device() as device:
        weights = light.Weights(device)
        rows = [
            curves.row_of(("aqlm-2x8", SHAPE), *each, weights, baselines)
            for each in curves.libraries_of(jobs, batches)
        ]
    assert [(row["kind"], row["m"], row["bound"]) for row in rows] == [
        ("own", 1, 1), ("own", 3, 3), ("own", 16, 16), ("shared", 1, 1), ("shared", 3, 4), ("shared", 16, 16),
    ]  # fmt: skip
    assert [row["us"] for row in rows] == [11.0, 13.0, 26.0] * 2
    assert [kernel.variant.sizes["m"] for kernel, _, _ in light.seen] == [row["bound"] for row in rows]
    assert all((row["n"], row["k"], row["baseline_us"]) == (*SHAPE, 7.0) for row in rows)
    assert all(0 < row["floor_us"] < row["predicted_us"] for row in rows)


def test_cublas_is_left_out_without_pytorch(light: Any, bench: Any) -> None:
    curves = bench("curves")
    built = build_fake(m=1, level="best")
    baselines = SimpleNamespace(cublas=lambda *_: None)
    with open_device() as device:
        library, weights = light.as_loaded(built), light.Weights(device)
        row = curves.row_of(("aqlm-2x8", SHAPE), "own", 1, built, library, weights, baselines)
    assert not {"baseline", "baseline_us"} & set(row)


@pytest.mark.parametrize(("m", "bound"), [(1, 1), (2, 4), (4, 4), (5, 8), (9, 16), (16, 16)])
def test_a_launch_takes_the_least_bound_that_covers_it(bench: Any, m: int, bound: int) -> None:
    bounds = [8, 1, 16, 4]
    assert bounds[bench("curves").covering(bounds, m)] == bound
