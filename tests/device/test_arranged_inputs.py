"""x as an operand takes it: each element once, where the columns of W that a lane decodes meet it, or as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from vqcc.emulator import Buffer

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from vqcc.emulator import Emulated

#: Rows of a panel, span of a lane's columns, columns of x; span PLAIN where they stay in order.
PLAIN = 0
SHAPES = (
    (32, 4, 64),
    (32, 8, 136),
    (64, 4, 200),
    (32, 16, 256),
    (32, 32, 300),
    (32, 256, 1096),
    (32, PLAIN, 64),
    (128, PLAIN, 200),
    (64, PLAIN, 1096),
)
QUAD, UNIT, STAGE = 4, 8, 16
WARPS, BLOCKS = 3, 2


def stages_of(span: int, columns: int) -> int:
    """Stages of 64 columns; of whole spans of all four lanes."""
    if span == PLAIN:
        return -(-columns // (QUAD * STAGE))
    own = -(-columns // (QUAD * span)) * span
    return -(-own // STAGE)


def order_of(span: int) -> str:
    return "PlainOrder" if span == PLAIN else f"InputOrder<{span}>"


_SOURCE = "".join(
    f"""
extern "C" __global__ void arrange_{number}(const __half* x, uint8* arranged, uint32* counters, int m, int stride) {{
  using Inputs = ArrangedInputs<ElementType::kFloat16, {rows}, {stages_of(span, columns)}, {order_of(span)}, {columns}>;
  const Inputs inputs(arranged, counters);
  inputs.arrange(x, stride, m, {WARPS * BLOCKS});
  block_barrier();
  const int panels = ceil_divide(m, {rows});
  if (threadIdx.x == 0) {{
    for (int panel = 0; panel < panels; ++panel) inputs.wait_for_panel(panel);
    inputs.leave({BLOCKS}, panels);
  }}
}}
"""
    for number, (rows, span, columns) in enumerate(SHAPES)
)


@pytest.fixture(scope="module")
def kernels(emulate_device: Callable[..., Emulated]) -> Emulated:
    return emulate_device(("gemm/stages.cuh",), _SOURCE)


def expected(x: NDArray[np.float16], rows: int, span: int, panels: int) -> NDArray[np.float16]:
    """Images [panels, stages, rows, 64]: of multiply s of a stage, operand B has at k 2t + j what lane t decodes as its
    column 4 s + j, and at 2t + 8 + j its column 4 s + 2 + j; or column c of a stage at k c. Pieces of eight elements
    are turned by the row.
    """
    m, columns = x.shape
    image = np.zeros((panels, stages_of(span, columns), rows, 64), np.float16)
    for column in range(columns):
        stage, k = place_of(span, column)
        for row in range(m):
            own_row = row % rows
            place = (k // 8 ^ own_row % 8) * 8 + k % 8
            image[row // rows, stage, own_row, place] = x[row, column]
    return image


def place_of(span: int, column: int) -> tuple[int, int]:
    """The stage of a column and its k there."""
    if span == PLAIN:
        return divmod(column, QUAD * STAGE)
    spans, within = divmod(column, span)
    t = spans % QUAD
    stage, own = divmod(spans // QUAD * span + within, STAGE)
    multiply, j = divmod(own, 4)
    return stage, 16 * multiply + 2 * t + j % 2 + 8 * (j // 2)


@pytest.mark.parametrize("number", range(len(SHAPES)))
def test_every_element_is_where_it_is_multiplied(kernels: Emulated, number: int) -> None:
    rows, span, columns = SHAPES[number]
    m = rows + 9
    x = np.arange(1, m * (columns + 8) + 1, dtype=np.uint16).view(np.float16).reshape(m, columns + 8)
    stages = stages_of(span, columns)
    image = np.full((2, stages, rows, 64), np.nan, np.float16)
    counters = np.zeros(8, np.uint32)
    arguments = [
        Buffer("x", x, "input"),
        Buffer("arranged", image, "inout"),
        Buffer("counters", counters, "inout"),
        m,
        columns + 8,
    ]
    kernels.launch(f"arrange_{number}", (BLOCKS, 1, 1), (32 * WARPS, 1, 1), 0, arguments)
    wanted = expected(x[:, :columns], rows, span, 2)
    assert np.array_equal(image.view(np.uint16), wanted.view(np.uint16))
    assert not counters.any()
