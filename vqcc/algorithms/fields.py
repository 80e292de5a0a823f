"""Fields that every family shares: scope of a codebook, scales, vector direction.

Each is read from what a spec writes (a word or a mapping), keeps the exact path of what is wrong in it,
and is written back the same way.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, NoReturn

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, WithJsonSchema

from vqcc.diagnostics import did_you_mean, field_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

# Kernels index codebooks, codes and scales with signed 32-bit integers.
MAX_INDEX = 2**31 - 1

FROZEN = ConfigDict(frozen=True, extra="forbid", strict=True)


class Scope(BaseModel):
    """What shares one codebook.

    Of a weight the whole tensor, or each tile of `rows` x `cols` weights. Of a KV cache (`cache`) a layer, a kv-head,
    or each group of `channels` neighbouring channels of one of `kv_heads` kv-heads.
    """

    model_config = FROZEN

    rows: Annotated[int, Field(ge=1, le=MAX_INDEX)] | None = None
    cols: Annotated[int, Field(ge=1, le=MAX_INDEX)] | None = None
    cache: Literal["layer", "kv_head"] | None = None
    kv_heads: Literal[1] | None = None
    channels: Annotated[int, Field(ge=1, le=MAX_INDEX)] | None = None

    @property
    def is_cache(self) -> bool:
        """Whether it is a scope of a KV cache, which no weight has."""
        return self.cache is not None or self.channels is not None

    @property
    def is_tensor(self) -> bool:
        """Whether one codebook serves all of the tensor."""
        return not self.is_cache and (self.rows is None or self.cols is None)

    def cache_books(self, kv_heads: int, groups: int) -> tuple[int, int]:
        """Count codebooks of a cache: for kv-heads, and for channel groups of each; 1 where they share one."""
        if self.channels is not None:
            return (kv_heads, groups)
        return (kv_heads if self.cache == "kv_head" else 1, 1)

    def tile(self, n: int, k: int) -> tuple[int, int]:
        """Return rows and columns of a whole tile of an [n, k] tensor; the tensor's edges may cut tiles."""
        return (self.rows or n, self.cols or k)

    def grid(self, n: int, k: int) -> tuple[int, int]:
        """Count rows and columns of tiles that cover an [n, k] tensor."""
        rows, cols = self.tile(n, k)
        return (_ceil_div(n, rows), _ceil_div(k, cols))

    def books(self, n: int, k: int) -> int:
        """Count the codebooks of an [n, k] tensor; book b belongs to tile b in row-major order."""
        row_tiles, column_tiles = self.grid(n, k)
        return row_tiles * column_tiles

    def slices(self, n: int, k: int) -> Iterator[tuple[slice, slice]]:
        """Yield the row and column slice of each tile, in the order of the books."""
        rows, cols = self.tile(n, k)
        for top in range(0, n, rows):
            for left in range(0, k, cols):
                yield slice(top, min(top + rows, n)), slice(left, min(left + cols, k))

    def spec(self) -> str | dict[str, int]:
        """Return the value as a spec writes it."""
        if self.channels is not None:
            return {"kv_heads": 1, "channels": self.channels}
        if self.cache is not None:
            return self.cache
        if self.rows is None or self.cols is None:
            return "tensor"
        return {"rows": self.rows, "cols": self.cols}


class Scales(BaseModel):
    """What multiplies decoded weights: nothing, one number, one per row, or per `group` columns of a row."""

    model_config = FROZEN

    kind: Literal["none", "tensor", "row", "group"] = "none"
    group: Annotated[int, Field(ge=1, le=MAX_INDEX)] | None = None

    @property
    def dtype(self) -> Literal["float16", "float32"]:
        """The type vqcc writes: group scales are many, so they are kept at half precision."""
        return "float16" if self.kind == "group" else "float32"

    def shape(self, n: int, k: int) -> tuple[int, ...] | None:
        """Return the shape of the scales of an [n, k] tensor, None where there are none."""
        if self.kind == "group" and self.group:
            return (n, _ceil_div(k, self.group))
        shapes: dict[str, tuple[int, ...]] = {"tensor": (1,), "row": (n,)}
        return shapes.get(self.kind)

    def count(self, n: int, k: int) -> int:
        """Count the scales of an [n, k] tensor."""
        shape = self.shape(n, k)
        if shape is None:
            return 0
        return shape[0] if len(shape) == 1 else shape[0] * shape[1]

    def expand(self, scales: NDArray[Any] | None, k: int) -> NDArray[np.float64]:
        """Broadcast stored scales to a float64 array that multiplies [n, k] weights elementwise."""
        import numpy as np

        if scales is None or self.kind == "none":
            return np.ones((1, 1))
        values = np.asarray(scales, dtype=np.float64)
        if self.kind == "group" and self.group:
            return np.repeat(values, self.group, axis=1)[:, :k]
        return values.reshape(-1, 1)

    def spec(self) -> str | dict[str, int]:
        """Return the value as a spec writes it."""
        return {"group": self.group} if self.kind == "group" and self.group else self.kind


def _ceil_div(a: int, b: int) -> int:
    return -(-a // b)


def _read_scope(value: object) -> object:
    """Accept what a spec writes for a scope; pydantic validates the mapping that is returned."""
    if value == "tensor":
        return Scope()
    if isinstance(value, str) and value in CACHE_SCOPES:
        return Scope(cache=value)
    if isinstance(value, Mapping):
        _check_scope_keys(value)
    elif not isinstance(value, Scope):
        _refuse_word(value, "scope", ("tensor", *CACHE_SCOPES), _SCOPES)
    return value


#: Scopes of a cache that a word names.
CACHE_SCOPES = ("kv_head", "layer")
_TILE_KEYS, _CACHE_KEYS = ("rows", "cols"), ("kv_heads", "channels")
_SCOPES = (
    "scope: tensor or {rows: R, cols: C} for a weight; "
    "scope: layer, kv_head or {kv_heads: 1, channels: C} for a cache"
)


def _check_scope_keys(value: Mapping[Any, Any]) -> None:
    """A scope's mapping is a weight's tile or a cache's channel groups, and whole."""
    of_cache = not value.keys() & set(_TILE_KEYS) and value.keys() & set(_CACHE_KEYS)
    what, keys, others = (
        ("a cache's scope", _CACHE_KEYS, "scope: {kv_heads: 1, channels: 4}, kv_head or layer")
        if of_cache
        else ("a tile scope", _TILE_KEYS, "scope: {rows: 256, cols: 256}, or scope: tensor")
    )
    missing = [key for key in keys if value.get(key) is None]
    if missing:
        message = f"{what} needs both {' and '.join(keys)}; {' and '.join(missing)} missing"
        raise field_error("VQ0202", message, f"write {others}")
    strange = [key for key in ("cache", *_CACHE_KEYS) if key in value and key not in keys]
    if strange:
        raise field_error("VQ0201", f"{what} has no {strange[0]}", f"write {_SCOPES}")


def _read_scales(value: object) -> object:
    """Accept what a spec writes for scales; pydantic validates the mapping that is returned."""
    if isinstance(value, str) and value in {"none", "tensor", "row"}:
        return {"kind": value}
    if isinstance(value, Mapping):
        if value.get("group") is None or "kind" in value:
            raise field_error(
                "VQ0202",
                "scales written as a mapping need group, the number of columns that share a scale",
                "write scales: {group: 128}, or scales: none, tensor or row",
            )
        return {"kind": "group", **value}
    if not isinstance(value, Scales):
        legal = "scales: none, tensor, row or {group: G}"
        _refuse_word(value, "scales", ("none", "tensor", "row"), legal)
    return value


_KINDS = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    list: "a list",
    tuple: "a list",
    type(None): "null",
}


def _refuse_word(value: object, field: str, words: tuple[str, ...], legal: str) -> NoReturn:
    near = did_you_mean(value, words) if isinstance(value, str) else None
    shown = f"{value!r}" if isinstance(value, str) else _KINDS.get(type(value), "of this type")
    code = "VQ0206" if isinstance(value, str) else "VQ0203"
    raise field_error(
        code, f"{field} cannot be {shown[:80]}", " ".join(filter(None, (near, f"write {legal}")))
    )


def _read_direction(value: object) -> object:
    if value == "out":
        raise field_error(
            "VQ0310",
            "vectors along the output axis (direction: out) are not offered",
            "use direction: in (the default): each vector covers consecutive columns of one row",
        )
    return value


_POSITIVE = {"type": "integer", "minimum": 1, "maximum": MAX_INDEX}


def _one_of(words: list[str], *properties: dict[str, dict[str, Any]]) -> dict[str, Any]:
    mappings = [
        {"type": "object", "properties": own, "required": list(own), "additionalProperties": False}
        for own in properties
    ]
    return {"oneOf": [{"enum": words}, *mappings]}


def _spec_value(value: Scope | Scales) -> str | dict[str, int]:
    return value.spec()


ScopeField = Annotated[
    Scope,
    BeforeValidator(_read_scope),
    PlainSerializer(_spec_value),
    WithJsonSchema(
        _one_of(
            ["tensor", *CACHE_SCOPES],
            dict.fromkeys(_TILE_KEYS, _POSITIVE),
            {"kv_heads": {"const": 1}, "channels": _POSITIVE},
        )
    ),
]
ScalesField = Annotated[
    Scales,
    BeforeValidator(_read_scales),
    PlainSerializer(_spec_value),
    WithJsonSchema(_one_of(["none", "tensor", "row"], {"group": _POSITIVE})),
]
DirectionField = Annotated[Literal["in"], BeforeValidator(_read_direction)]
