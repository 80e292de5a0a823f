"""What rates are taken for where nobody gives them: those that `vqcc calibrate` measures.

A GPU of a spec need not give them. Each estimate is a value and the reason for it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ESTIMATES"]

#: Clock under load relative to the boost clock, as measured on an H200.
CLOCK_UNDER_LOAD = 0.9
#: Operations of mma.sync m16n8k16, and cycles that an H200 takes for one.
MULTIPLY_OPERATIONS, WARP_GROUP_MULTIPLY_CYCLES = 2 * 16 * 8 * 16, 6.09
#: Architectures whose tensor cores reach their rate by instructions of warp groups only (wgmma, tcgen05).
WARP_GROUP_ARCHITECTURES = ("9", "10")


def _sustained_hertz(facts: Mapping[str, Any]) -> tuple[float, str]:
    boost = _number(facts, "boost_hertz")
    return float(f"{CLOCK_UNDER_LOAD * boost:.3g}"), f"{CLOCK_UNDER_LOAD} of boost_hertz, as on an H200"


def _multiply_cycles(facts: Mapping[str, Any]) -> tuple[float, str]:
    major, _, _ = str(facts.get("compute_capability", "")).partition(".")
    if major in WARP_GROUP_ARCHITECTURES:
        return WARP_GROUP_MULTIPLY_CYCLES, "as on an H200, whose full rate mma.sync does not reach"
    sub_partitions = _number(facts, "sm_count") * _number(facts, "sub_partitions")
    operations_per_cycle = _number(facts, "tensor_flops_fp16") / (
        sub_partitions * _number(facts, "boost_hertz")
    )
    cycles = float(f"{MULTIPLY_OPERATIONS / operations_per_cycle:.2g}")
    return min(max(cycles, 1.0), 512.0), "tensor_flops_fp16 at boost_hertz, by sub-partition"


def _number(facts: Mapping[str, Any], name: str) -> float:
    """A number given before; 1 for one that was refused, since nothing is made of the estimate then."""
    return float(facts[name].value) if name in facts else 1.0


def _as_measured(value: float) -> Callable[[Mapping[str, Any]], tuple[float, str]]:
    return lambda _: (value, "as measured on an H200")


#: By the field's name: the value and its reason, from the numbers that stand before it.
ESTIMATES: Mapping[str, Callable[[Mapping[str, Any]], tuple[float, str]]] = MappingProxyType(
    {
        "sustained_hertz": _sustained_hertz,
        "launch_seconds": _as_measured(5.44e-7),
        "l2_bytes_per_cycle": _as_measured(124.0),
        "dram_latency_cycles": _as_measured(663.0),
        "multiply_cycles": _multiply_cycles,
        "integer_cycles": _as_measured(2.01),
    }
)
