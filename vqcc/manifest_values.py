"""Values of a manifest that no one may have changed by hand: each is read as what it must be, or refused.

All raise ValueError or TypeError; `vqcc.library.load_library` turns these into VQ0705.
"""

from __future__ import annotations

import math
import re
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from vqcc.levels import LEVELS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from vqcc.codegen.bundle import Bundle

__all__ = ["build_id_of", "count_of", "dataclass_of", "level_of", "rate_of", "text_of"]

#: Fields that may be 0 whatever their default.
_ZERO = {"dynamic_shared_bytes"}


def level_of(value: object) -> str:
    """A level's name."""
    if value not in LEVELS:
        raise ValueError(f"there is no level {value!r}")
    return text_of(value)


def build_id_of(value: object, bundle: Bundle) -> str:
    """The id, which a header of the bundle must state too: an engine compares the two."""
    build_id = text_of(value)
    if not re.fullmatch("[0-9a-f]{16}", build_id):
        raise ValueError(f"{build_id!r} is no build id")
    for name, data in bundle.files.items():
        if name.endswith(".h") and f'_BUILD_ID "{build_id}"\n'.encode() not in data:
            raise ValueError(f"its build id {build_id} is not that of {name}")
    return build_id


def rate_of(value: object) -> float:
    """Bytes a second: a positive finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ValueError(f"dram_bytes_per_second is {value!r}")
    return float(value)


def count_of(value: object) -> int:
    """A number of things: an integer that is not negative."""
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no number of things")
    return value


def text_of(value: object) -> str:
    """Text."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def dataclass_of(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Make `kind` of `values` if each has the type of its field, and numbers are such as a plan makes.

    A number is 1 at least, or 0 where that is its field's default or the field is `dynamic_shared_bytes`.
    """
    for field in fields(kind):
        expected = {"int": int, "bool": bool}.get(str(field.type), str)
        value = values[field.name]
        if type(value) is not expected:
            raise TypeError(f"{field.name} is {value!r}")
        if (
            isinstance(value, int)
            and not isinstance(value, bool)
            and value < (0 if field.name in _ZERO or field.default == 0 else 1)
        ):
            raise ValueError(f"{field.name} is {value}")
    return kind(**values)
