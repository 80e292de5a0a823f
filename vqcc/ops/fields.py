"""Fields that ops share: lists of which every value makes kernels, and element types in C."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from vqcc.diagnostics import field_error
from vqcc.ops.base import Dtype

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["C_TYPES", "Division", "Dtypes", "as_bounds", "as_list", "distinct", "rows_between"]


@dataclass(frozen=True)
class Division:
    """A way in which the ranks of tensor parallelism share an op: each has an equal part of these `fields`.

    Where they have parts of what is summed over, outputs of all ranks are to be added up (`adds`).
    """

    fields: tuple[str, ...]
    adds: bool = False


#: CUDA types of a launch's inputs and outputs.
C_TYPES: Mapping[str, str] = {"float16": "__half", "bfloat16": "__nv_bfloat16"}


def as_list(value: object) -> object:
    """A list as a tuple; of a single value a tuple of it alone."""
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def as_bounds(value: object) -> object:
    """Bounds on the rows of x as a tuple. Raises VQ0203 for a range, which another op has."""
    if isinstance(value, dict):
        raise field_error(
            "VQ0203",
            "m must be the most rows of x that a kernel serves, or a list of such bounds",
            "use kind: linear for a range of rows, or name each bound: m: [32, 256]",
        )
    return as_list(value)


def rows_between(least: int, most: int, others: str) -> BeforeValidator:
    """Rows of x that an op has; raises VQ0204 for another number, and says with `others` who has it.

    After ge and le, which are what a JSON Schema says of it.
    """

    def within(value: object) -> object:
        if isinstance(value, int) and not isinstance(value, bool) and not least <= value <= most:
            wanted = f"at least {least}" if value < least else f"at most {most}"
            raise field_error(
                "VQ0204", f"m must be {wanted}, got {value}", f"use {least} to {most}; {others}"
            )
        return value

    return BeforeValidator(within)


def distinct(values: tuple[object, ...]) -> tuple[object, ...]:
    """The values as they are. Raises VQ0210 if one of them is repeated."""
    repeated = [value for value in dict.fromkeys(values) if values.count(value) > 1]
    if repeated:
        raise field_error("VQ0210", f"{repeated[0]} stands twice in the list", "each value makes one kernel")
    return values


Dtypes = Annotated[
    tuple[Dtype, ...],
    BeforeValidator(as_list),
    Field(min_length=1, max_length=2),
    AfterValidator(distinct),
]
