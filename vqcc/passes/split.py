"""Split: how far work is parallelized along the axes where codebooks switch (VQ-LLM, Sec. VI-A, Table III).

Parts of a row then belong to different blocks. Each loads fewer codebooks, and their partial sums need a reduction
in global memory. Not to split is an answer: bytes propose a split, and it is made where the tiled plan that has it is
predicted to be faster than the one that has not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from vqcc.code_layouts import PackedLayout
from vqcc.passes.axes import find_axes
from vqcc.plan import Decision, Rejected, Split

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vqcc.passes.axes import Axes
    from vqcc.plan import Plan
    from vqcc.problem import Problem

__all__ = ["WHOLE", "SplitCase", "best_factor", "choose_split", "plan_split", "weigh_split"]

#: Blocks do whole rows.
WHOLE = Split()
_WHOLE_NAME = "1 x 1"
#: A partial sum is fp32.
SUM_BYTES = 4
#: Rows that a block finishes at a time, where no tile is chosen yet: 4 a warp, 4 warps with rows of their own.
ROWS_PER_BLOCK = 16
#: Blocks of an SM, where no launch is planned yet, if shared memory holds the codebooks of as many.
BLOCKS_PER_SM = 4


@dataclass(frozen=True)
class SplitCase:
    """What a split depends on: bytes and counts of one launch.

    A row of the weight meets the books of `column_tiles` tiles, `book_bytes` each (those of its entries that blocks
    load), all `stages` of them; an extent is 1 where the axis cannot be split. `bands` are rows of scope tiles. The
    GPU runs `slots` blocks at a time, at least one per SM; blocks stay and walk the row blocks they are dealt. A warp
    takes the codes of `smallest_tiles` column tiles at a time: smaller parts would leave lanes idle.
    """

    output_bytes: int
    book_bytes: int
    column_tiles: int
    stages: int
    row_blocks: int
    bands: int
    code_bytes: int
    slots: int
    sm_count: int
    smallest_tiles: int = 1

    def codebook_bytes(self, split: Split = WHOLE) -> int:
        """Bytes of codebooks that all blocks load together: a part loads its share of them in each of its blocks.

        Parts share the slots, so that the blocks of each are fewer: the paper's original traffic / factor, but no
        less than every book once, and no less than before while slots are free.
        """
        blocks = max(1, min(self.row_blocks, self.slots // split.factor))
        return max(blocks, self.bands) * self.column_tiles * self.book_bytes

    def reduce_bytes(self, split: Split) -> int:
        """Bytes of partial sums: each is written and read again; without a split there are none."""
        return 2 * split.factor * self.output_bytes if split.factor > 1 else 0

    def busy(self, split: Split) -> float:
        """Share of the SMs that have a block."""
        return min(1.0, self.row_blocks * split.factor / self.sm_count)

    def cost(self, split: Split) -> float:
        """Bytes that move, over the share of SMs that move them.

        Codes of a vector's stages lie side by side, so parts that do different stages read all of them.
        """
        codes = split.stages * self.code_bytes
        return (self.codebook_bytes(split) + self.reduce_bytes(split) + codes) / self.busy(split)

    def legal(self) -> Iterator[Split]:
        """Splits by column tiles first, then stages; none has more parts than slots.

        Parts have `smallest_tiles` column tiles at least, and all the same number but for a shorter last one.
        """
        tiles = [Split(tiles=count) for count in range(1, self.column_tiles + 1) if self._covers(count)]
        stages = [Split(tiles[-1].tiles, parts) for parts in _divisors(self.stages)[1:]]
        return (split for split in (*tiles, *stages) if split.factor <= max(1, self.slots))

    def _covers(self, parts: int) -> bool:
        """Whether the last of `parts` parts still has a column tile, and the others as many as lanes need."""
        size = -(-self.column_tiles // parts)
        return (parts - 1) * size < self.column_tiles and size >= min(self.smallest_tiles, self.column_tiles)


def best_factor(codebook_bytes: int, output_bytes: int) -> float:
    """Where factor x output and codebook / factor are equal and their sum is least, at least 1."""
    return max(1.0, math.sqrt(codebook_bytes / output_bytes))


def choose_split(case: SplitCase) -> Split:
    """The legal split that costs least; the smaller one on a tie."""
    return min(case.legal(), key=lambda split: (case.cost(split), split.factor))


def plan_split(problem: Problem, plan: Plan) -> Plan:
    """Propose a split along the axes that are both switched and summed, as far as the level's strategy lets it.

    The tile and the launch come later, so what they decide is estimated: `ROWS_PER_BLOCK` rows that a block finishes at
    a time, as many resident blocks as shared memory lets hold one book, at most `BLOCKS_PER_SM`, and the bytes that a
    block loads of a book, all of it or what its shared memory holds. `weigh_split` decides.
    """
    axes = find_axes(problem)
    if not plan.strategy.codebook_centric:
        return _unsplit(plan, axes, "the level gives blocks whole rows")
    if not axes.split:
        return _unsplit(
            plan, axes, "codebooks switch along no axis that is summed over: a split would spare no load"
        )
    case = _case(problem, plan, axes)
    split = choose_split(case)
    factor = best_factor(case.codebook_bytes(), case.output_bytes)
    return plan.decide(
        Decision(
            "split",
            split.factor,
            "factor* = sqrt(codebook traffic / output bytes); of the legal ones the least "
            "(codebook traffic + sums written and read + codes read) / share of SMs at work; "
            "whole rows if they are predicted to be no slower",
            {
                "axes": ", ".join(axes.split),
                "factor*": round(factor, 2),
                "codebook_traffic": case.codebook_bytes(),
                "output_bytes": case.output_bytes,
                "code_bytes": case.code_bytes,
                "column_tiles": case.column_tiles,
                "stages": case.stages,
                "row_blocks": case.row_blocks,
                "slots": case.slots,
                "sm_count": case.sm_count,
            },
            f"{split.tiles} parts of the column tiles, {split.stages} of the stages: {_bytes_moved(case, split)}"
            if split != WHOLE
            else f"a split costs more than it spares: {_bytes_moved(case, WHOLE)}",
            "VI-A",
            tuple(
                Rejected(f"{other.tiles} x {other.stages}", _bytes_moved(case, other))
                for other in _neighbours(case, split)
            ),
            ("sm_count", "shared_bytes_per_block", "shared_bytes_per_sm", "shared_bytes_reserved"),
        ),
        split=split,
    )


def weigh_split(plan: Plan, split_us: float, whole_us: float) -> Plan:
    """Take the split that the plan's last decision proposes, or whole rows if these are predicted to be no slower.

    Times are those of both plans' estimates in microseconds, infinite for one that cannot be made.
    """
    *before, proposal = plan.decisions
    name = f"{plan.split.tiles} x {plan.split.stages}"
    inputs = {**proposal.inputs, **_finite({"split_us": split_us, "whole_us": whole_us})}
    rejected = tuple(other for other in proposal.rejected if other.value != _WHOLE_NAME)
    if split_us < whole_us:
        whole = next((other.reason for other in proposal.rejected if other.value == _WHOLE_NAME), "")
        rejected = (Rejected(_WHOLE_NAME, f"{_predicted(whole_us)}; {whole}"), *rejected)
        reason = f"{_predicted(split_us)}; {proposal.reason}"
        decision = replace(proposal, inputs=inputs, reason=reason, rejected=rejected)
        return replace(plan, decisions=(*before, decision))
    rejected = (Rejected(name, f"{_predicted(split_us)}; {proposal.reason}"), *rejected)
    reason = f"a split costs more than it spares: whole rows are {_predicted(whole_us)}"
    decision = replace(proposal, value=1, inputs=inputs, reason=reason, rejected=rejected)
    return replace(plan, decisions=(*before, decision), split=WHOLE)


def _predicted(microseconds: float) -> str:
    if math.isinf(microseconds):
        return "not possible"
    return f"predicted to take {microseconds:g} us"


def _finite(times: dict[str, float]) -> dict[str, float]:
    return {name: time for name, time in times.items() if math.isfinite(time)}


def _case(problem: Problem, plan: Plan, axes: Axes) -> SplitCase:
    algorithm, gpu = problem.algorithm, problem.gpu
    n, k = problem.op.weight_shape
    bands, column_tiles = algorithm.scope.grid(n, k)
    band_rows = min(algorithm.scope.tile(n, k)[0], n)
    loaded = min(algorithm.table_bytes, gpu.shared_bytes_per_block.integer)
    fitting = gpu.shared_bytes_per_sm.integer // (loaded + gpu.shared_bytes_reserved.integer)
    per_sm = max(1, min(BLOCKS_PER_SM, fitting))
    return SplitCase(
        output_bytes=n * math.prod(problem.variant.sizes.values()) * SUM_BYTES,
        book_bytes=loaded,
        column_tiles=column_tiles,
        stages=algorithm.residuals if "residual" in axes.split else 1,
        row_blocks=bands * -(-band_rows // ROWS_PER_BLOCK),
        bands=bands,
        code_bytes=n * (k // algorithm.vector_size) * algorithm.residuals * algorithm.code_bits // 8,
        slots=gpu.sm_count.integer * per_sm,
        sm_count=gpu.sm_count.integer,
        smallest_tiles=_smallest_tiles(problem, plan),
    )


def _smallest_tiles(problem: Problem, plan: Plan) -> int:
    """Column tiles whose chunks keep all lanes of a row busy."""
    assert isinstance(plan.layout, PackedLayout)
    _, tile_columns = problem.algorithm.scope.tile(*problem.op.weight_shape)
    columns = plan.exchange.lanes * plan.layout.chunk_vectors * problem.algorithm.vector_size
    return -(-columns // tile_columns)


def _unsplit(plan: Plan, axes: Axes, reason: str) -> Plan:
    inputs = {"switch_axes": ", ".join(axes.switch) or "none", "reduce_axes": ", ".join(axes.reduce)}
    decision = Decision("split", 1, "axes = switch_axes and reduce_axes", inputs, reason, "VI-A, Table III")
    return plan.decide(decision, split=WHOLE)


def _neighbours(case: SplitCase, split: Split) -> Iterator[Split]:
    """No split, and the next smaller and larger ones."""
    order = list(case.legal())
    at = order.index(split)
    wanted = {0, at - 1, at + 1} - {at, -1}
    return (order[i] for i in sorted(wanted) if i < len(order))


def _bytes_moved(case: SplitCase, split: Split) -> str:
    """What a split moves, in words."""
    parts = [
        f"{case.codebook_bytes(split) / 1024:.0f} KB of codebooks",
        f"{case.reduce_bytes(split) / 1024:.0f} KB of sums",
        f"{split.stages * case.code_bytes / 1024:.0f} KB of codes",
    ]
    busy = "" if case.busy(split) == 1 else f", on {case.busy(split):.0%} of the SMs"
    return f"{', '.join(parts)}{busy}"


def _divisors(value: int) -> list[int]:
    return [divisor for divisor in range(1, value + 1) if value % divisor == 0]
