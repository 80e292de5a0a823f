"""What tiles of all ops say and count in the same way."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ELEMENT_TYPES", "largest_divisor", "power_of_two_at_least", "power_of_two_at_most", "round_up"]

#: Enumerators of the device headers for a kernel's element type.
ELEMENT_TYPES: Mapping[str, str] = {
    "float16": "vqcc::ElementType::kFloat16",
    "bfloat16": "vqcc::ElementType::kBfloat16",
}


def largest_divisor(value: int, limit: int, multiple_of: int = 1) -> int:
    """The largest divisor of `value` that is at most `limit` and a multiple of `multiple_of`."""
    return max(
        (d for d in range(multiple_of, value + 1, multiple_of) if value % d == 0 and d <= limit), default=0
    )


def power_of_two_at_most(value: int) -> int:
    """The largest power of two that is at most `value`; 1 for less."""
    return 1 << (max(value, 1).bit_length() - 1)


def power_of_two_at_least(value: int) -> int:
    """The smallest power of two that is at least `value`."""
    return 1 << (max(value, 1) - 1).bit_length()


def round_up(value: int, unit: int) -> int:
    """The smallest multiple of `unit` that is at least `value`."""
    return -(-value // unit) * unit
