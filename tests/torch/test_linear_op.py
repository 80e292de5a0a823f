"""The linear operator: results on the CPU, shapes without data, launches of tensors, and what it refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch_shim import Shim

import vqcc.torch
from vqcc.torch import linear_op
from vqcc.torch.linear_launch import LinearArguments
from vqcc.torch.linear_op import launch_linear
from vqcc.verify.tolerance import compare

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

    Files = Any

PARAMETERS = LinearArguments._fields[:11]
TYPES_OF = {torch.float16: "float16", torch.bfloat16: "bfloat16"}


@pytest.fixture(scope="module")
def library(gate: Files, cache_directory: Path) -> vqcc.torch.LinearLibrary:
    loaded = vqcc.torch.load(gate.bundle, emulator_cache=cache_directory / "emulator")
    assert isinstance(loaded, vqcc.torch.LinearLibrary)
    return loaded


@pytest.fixture(scope="module")
def weight(gate: Files, library: vqcc.torch.LinearLibrary) -> vqcc.torch.Weight:
    return library.weight(gate.packed, device="cpu")


def assert_right(gate: Files, x: Tensor, y: Tensor, bias: Tensor | None = None) -> None:
    """Y against float64, within the bound of `vqcc validate`."""
    n, k = gate.library.op.weight_shape
    decoded = [
        gate.library.algorithm.decode(gate.tensor, magnitudes=magnitudes) for magnitudes in (False, True)
    ]
    inputs = {"x": x.double().reshape(-1, k).numpy()}
    if bias is not None:
        inputs["bias"] = bias.double().numpy()
    exact, magnitude = gate.library.op.reference(*decoded, inputs)
    kernel = next(iter(gate.library.builds.values())).kernels[0]
    roundings = gate.library.op.longest_sum(kernel.tile, gate.library.algorithm)
    found = compare(y.double().reshape(-1, n).numpy(), exact, magnitude, roundings, TYPES_OF[x.dtype])
    assert found.passed, found


def draw(*shape: int, dtype: torch.dtype = torch.float16) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


@pytest.mark.parametrize("dtype", TYPES_OF)
@pytest.mark.parametrize(
    "shape", [(264,), (1, 264), (3, 264), (2, 2, 264), (1, 1, 4, 264), (0, 264), (2, 0, 264)]
)
def test_any_leading_shape(
    gate: Files, library: Any, weight: Any, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    x, bias = draw(*shape, dtype=dtype), draw(72, dtype=dtype)
    for own in (None, bias):
        y = library.linear(x, weight, own)
        assert (y.shape, y.dtype, y.is_contiguous()) == ((*shape[:-1], 72), dtype, True)
        if x.numel():
            assert_right(gate, x, y, own)


def strided(x: Tensor) -> list[Tensor]:
    """Views with the elements of x [3, 264] that lie otherwise."""
    apart = torch.full((3, 304), float("nan"), dtype=x.dtype)
    apart[:, 8:272] = x
    odd = torch.full((3, 265), float("nan"), dtype=x.dtype)
    odd[:, 1:] = x
    return [apart[:, 8:272], odd[:, 1:], x.t().contiguous().t(), apart[:, 8:272].flip(0).flip(0)]


def test_rows_that_lie_apart_are_the_same_rows(library: Any, weight: Any) -> None:
    x = draw(3, 264)
    wanted = library.linear(x, weight)
    for view in strided(x):
        assert torch.equal(view, x)
        assert torch.equal(library.linear(view, weight), wanted)


def operands(weight: Any, **changes: Any) -> dict[str, Any]:
    names = ("codes", "books", "stage_scales", "scales")
    return {**{name: getattr(weight, name) for name in names}, "bias": None, "workspace": None, **changes}


def test_the_operator_is_sound(library: Any, weight: Any) -> None:
    """As PyTorch has it: its schema, its fake tensors, and that it traces, with rows that vary too."""
    identity = library._identity
    for x, bias in ((draw(3, 264), draw(72)), (draw(2, 2, 264), None)):
        result = torch.library.opcheck(
            torch.ops.vqcc.linear.default, (x, *operands(weight, bias=bias).values(), identity)
        )
        assert set(result.values()) == {"SUCCESS"}


def test_shapes_without_data(library: Any, weight: Any) -> None:
    meta = {name: None if each is None else each.to("meta") for name, each in operands(weight).items()}
    x = torch.empty(5, 2, 264, dtype=torch.bfloat16, device="meta")
    y = torch.ops.vqcc.linear(x, **meta, library=library._identity)
    assert (y.shape, y.dtype, y.device.type, y.stride()) == ((5, 2, 72), torch.bfloat16, "meta", (144, 72, 1))
    with FakeTensorMode() as mode:
        fake = {
            name: None if each is None else mode.from_tensor(each) for name, each in operands(weight).items()
        }
        y = torch.ops.vqcc.linear(torch.empty(4, 264, dtype=torch.float16), **fake, library=library._identity)
        assert (y.shape, y.dtype) == ((4, 72), torch.float16)
        with pytest.raises(ValueError, match=r"rows of 264"):
            torch.ops.vqcc.linear(torch.empty(4, 8, dtype=torch.float16), **fake, library=library._identity)


REFUSED: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "x of another type": (
        {"x": torch.zeros(1, 264)},
        TypeError,
        "x is torch.float32; library gate has kernels for",
    ),
    "x of another width": ({"x": torch.zeros(1, 260).half()}, ValueError, r"x must be \[\.\.\., 264\]"),
    "x without axes": ({"x": torch.tensor(1.0).half()}, ValueError, r"x is \[\]"),
    "too many rows": (
        {"x": torch.zeros(5, 264).half()},
        ValueError,
        "x has 5 rows; kernels of library gate take at most 4",
    ),
    "bias of another shape": (
        {"bias": torch.zeros(71).half()},
        ValueError,
        r"bias is torch.float16 \[71\] on cpu",
    ),
    "bias of another type": ({"bias": torch.zeros(72)}, ValueError, "adds a contiguous torch.float16"),
    "bias with gaps": ({"bias": torch.zeros(144).half()[::2]}, ValueError, "adds a contiguous"),
    "codes of another size": (
        {"codes": torch.zeros(4, dtype=torch.int32)},
        ValueError,
        "codes is torch.int32 of 4 elements",
    ),
    "codes of another type": ({"codes": torch.zeros(4)}, ValueError, "reads torch.int32"),
    "no scales": ({"scales": None}, ValueError, r"scales is missing.*take them from library.weight\(\)"),
    "x elsewhere": (
        {"codes": torch.zeros(1224, dtype=torch.int32, device="meta")},
        RuntimeError,
        r"x is on cpu, codes on meta: .*\.to\(\)",
    ),
    "codes with gaps": (
        {"codes": torch.zeros(2448, dtype=torch.int32)[::2]},
        ValueError,
        r"codes of library gate must be contiguous: pass codes\.contiguous\(\)",
    ),
    "a workspace elsewhere": (
        {"workspace": torch.zeros(512, dtype=torch.uint8, device="meta")},
        RuntimeError,
        "x is on cpu, workspace on meta: move",
    ),
    "a workspace with gaps": (
        {"workspace": torch.zeros(512, dtype=torch.uint8)[::2]},
        ValueError,
        "workspace of library gate must be contiguous",
    ),
    "a workspace of another type": (
        {"workspace": torch.zeros(512)},
        ValueError,
        r"the workspace is torch.float32, not torch.uint8: take it from library.workspace\(device\)",
    ),
    "a gradient": (
        {"x": torch.zeros(1, 264).half().requires_grad_()},
        RuntimeError,
        "x requires a gradient.*no_grad",
    ),
    "a gradient of the bias": (
        {"bias": torch.zeros(72).half().requires_grad_()},
        RuntimeError,
        r"^bias requires a gradient.*or pass bias\.detach\(\)",
    ),
    "no such library": (
        {"library": "other.0"},
        RuntimeError,
        r"no library other.0 is loaded.*vqcc.torch.load\(\)",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_fit_is_refused_with_what_would(library: Any, weight: Any, case: str) -> None:
    changes, kind, message = REFUSED[case]
    given = {"x": torch.zeros(1, 264).half(), **operands(weight), "library": library._identity, **changes}
    with pytest.raises(kind, match=message):
        linear_op._on_cpu(**given)
    if case != "too many rows":  # which may not be known when a program is traced
        with pytest.raises(kind, match=message):
            linear_op._on_meta(**given)


def test_a_gradient_is_refused_through_the_operator(library: Any, weight: Any) -> None:
    x = draw(1, 264).requires_grad_()
    with pytest.raises(RuntimeError, match="x requires a gradient"):
        library.linear(x, weight)
    with pytest.raises(Exception, match="x requires a gradient"):
        torch.compile(library.linear, fullgraph=True, backend="eager")(x, weight)
    with pytest.raises(RuntimeError, match="bias requires a gradient"):
        library.linear(x.detach(), weight, draw(72).requires_grad_())


def test_a_gradient_is_fine_where_none_is_recorded(library: Any, weight: Any) -> None:
    x = draw(1, 264).requires_grad_()
    with torch.no_grad():
        assert not library.linear(x, weight, draw(72).requires_grad_()).requires_grad
    with torch.inference_mode():
        library.linear(x, weight)


@pytest.fixture
def launched(
    gate: Files, library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[Tensor, tuple[Any, ...]]]:
    """Launches tensors of the CPU as if they were on a GPU; gives y and the record of the launch."""
    shim = Shim(gate.library, tmp_path)
    shim.set_parameters(gate.library.builds["h200"].kernels[0].arguments)
    runtime = library._runtime
    monkeypatch.setattr(runtime, "_loaded", {0: runtime.load_with(shim.driver, 0)})
    monkeypatch.setattr(linear_op, "current_stream", lambda device: 0x77 + device)
    monkeypatch.setattr(linear_op, "on_device", lambda device, launch, *arguments: launch(*arguments))

    def launch(x: Tensor, weight: Any, bias: Tensor | None = None, workspace: Tensor | None = None) -> Any:
        given = operands(weight)
        parts = (given[name] for name in ("codes", "books", "stage_scales", "scales"))
        y = launch_linear(runtime, x, linear_op.Packed(*parts, workspace), bias, 0)
        return y, shim.taken()

    return launch


def parameters(record: tuple[Any, ...]) -> dict[str, int]:
    return dict(zip(PARAMETERS, record[-1], strict=False))


def test_a_launch_has_the_addresses_of_its_tensors(
    gate: Files, weight: Any, launched: Callable[..., Any]
) -> None:
    kernels = {kernel.name.encode(): kernel for kernel in gate.library.builds["h200"].kernels}
    for rows in (1, 2, 4):
        x, bias = draw(rows, 264, dtype=torch.bfloat16), draw(72, dtype=torch.bfloat16)
        y, record = launched(x, weight, bias)
        assert parameters(record) == {
            "codes": weight.codes.data_ptr(),
            "books": weight.books.data_ptr(),
            "stage_scales": 0,
            "scales": weight.scales.data_ptr(),
            "x": x.data_ptr(),
            "bias": bias.data_ptr(),
            "y": y.data_ptr(),
            "workspace": 0,
            "m": rows,
            "x_stride": 264,
            "y_stride": 72,
        }
        kernel = kernels[record[0]]
        assert kernel.variant.dtype == "bfloat16"
        assert kernel.variant.sizes["m"] == (1 if rows == 1 else 4)
        assert record[1:6] == (
            (kernel.launch.grid, 1, 1),
            (kernel.launch.threads, 1, 1),
            kernel.launch.dynamic_shared_bytes,
            0,
            0x77,
        )


def test_rows_are_read_where_they_lie_if_kernels_can(weight: Any, launched: Callable[..., Any]) -> None:
    apart, odd, turned, flipped = strided(draw(3, 264))
    found = parameters(launched(apart, weight)[1])
    assert (found["x"], found["x_stride"]) == (apart.data_ptr(), 304)
    three = apart.unflatten(0, (3, 1))
    assert parameters(launched(three, weight)[1])["x"] == three.data_ptr()
    for view in (odd, turned):
        found = parameters(launched(view, weight)[1])
        assert found["x"] != view.data_ptr()
        assert (found["x"] % 16, found["x_stride"]) == (0, 264)
    expanded = draw(1, 264).expand(3, 264)
    assert parameters(launched(expanded, weight)[1])["x_stride"] == 264
    misaligned = draw(265)[1:]
    assert parameters(launched(misaligned, weight)[1])["x"] % 16 == 0
    assert np.isfinite(flipped.numpy()).all()


def test_nothing_is_launched_for_no_rows(weight: Any, launched: Callable[..., Any]) -> None:
    y, record = launched(torch.empty(0, 264).half(), weight)
    assert (y.shape, record) == ((0, 72), None)


def test_a_workspace_must_be_there_and_large_enough(
    library: Any, weight: Any, launched: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    launches, _ = library._runtime.loaded(0)
    monkeypatch.setattr(launches, "_served", {dtype: [(0, 0), (1, 512)] for dtype in launches._served})
    x = draw(2, 264)
    with pytest.raises(ValueError, match=r"needs a workspace: take it from library.workspace\(device\)"):
        launched(x, weight)
    with pytest.raises(
        ValueError, match=r"2 rows of library gate needs a workspace of 512 bytes.*rows=2 or more"
    ):
        launched(x, weight, None, torch.zeros(256, dtype=torch.uint8))
    room = torch.zeros(1024, dtype=torch.uint8)
    start = -room.data_ptr() % 256
    own = room[start : start + 512]
    assert parameters(launched(x, weight, None, own)[1])["workspace"] == own.data_ptr()
    with pytest.raises(ValueError, match=r"refuses the launch .ERROR_MISALIGNED.*workspace to 256"):
        launched(x, weight, None, room[start + 16 : start + 16 + 512])
    # Fewer rows than need one take none.
    assert launched(x[:1], weight)[1] is not None
