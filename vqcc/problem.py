"""One kernel to plan: an algorithm, an op, one of its variants, a GPU and a level."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vqcc.algorithms.base import Algorithm
    from vqcc.gpus.model import Gpu
    from vqcc.ops.base import Op, Variant
    from vqcc.plan import Level

__all__ = ["Problem"]


@dataclass(frozen=True)
class Problem:
    """What a plan is made for. The three axes meet in the passes only, as layouts, axes and bytes."""

    library: str
    algorithm: Algorithm
    op: Op
    variant: Variant
    gpu: Gpu
    level: Level

    @property
    def kernel(self) -> str:
        """The kernel's C name less what identifies its plan: library, then variant."""
        return f"{self.library}_{self.variant.suffix}"
