"""Spec: what to build, for which GPUs, at which level. Frozen; made by vqcc.spec.load."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    PrivateAttr,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from vqcc.algorithms import AnyAlgorithm, KeyValue, sides_of
from vqcc.diagnostics import ExitCode, VqccError, field_error
from vqcc.gpus.model import Gpu  # noqa: TC001  (read by pydantic)
from vqcc.levels import Level  # noqa: TC001  (read by pydantic)
from vqcc.ops import AnyOp, AttentionDecode
from vqcc.problem import Boundaries
from vqcc.spec.identifier import MAX_LENGTH, check_library_name, pattern, to_identifier
from vqcc.spec.wording import describe

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from vqcc.algorithms import Algorithm
    from vqcc.diagnostics import Diagnostic, Span
    from vqcc.hotness import TensorProfile
    from vqcc.ops.base import Op

SPEC_VERSION = 1
MAX_GPUS = 16
DEFAULT_LEVEL: Level = "best"
#: Entries of a table that a thread can keep in registers at the very most.
MAX_REGISTER_ENTRIES = 64
MAX_SHARED_ENTRIES = 65536


def _check_version(value: Any) -> Any:
    if type(value) is not int or value != SPEC_VERSION:
        raise field_error(
            "VQ0213",
            f"vqcc must be the spec version {SPEC_VERSION}, got {describe(value)}",
            f"this vqcc reads `vqcc: {SPEC_VERSION}`",
        )
    return value


@dataclass(frozen=True)
class Places:
    """Where a file has a part and each of its fields. Specs are equal wherever their parts stand."""

    part: Span = field(compare=False)
    fields: Mapping[str, Span] = field(compare=False)


class Cache(BaseModel):
    """Boundaries of the codebook cache that the user sets instead of the planner (VQ-LLM, Sec. V-C)."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, json_schema_extra={"minProperties": 1}
    )

    registers: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_REGISTER_ENTRIES,
            description="entries of each table, from the first, that are kept in registers",
        ),
    ] = None
    shared: Annotated[
        int | None,
        Field(
            ge=0,
            le=MAX_SHARED_ENTRIES,
            description="entry of each table, counted from 0, at which shared memory ends and global begins",
        ),
    ] = None

    _places: Places | None = PrivateAttr(None)

    def placed_at(self, places: Places) -> Self:
        """The same, read at `places` of a file."""
        made = self.model_copy()
        made._places = places
        return made

    def place(self, item: Diagnostic) -> Diagnostic:
        """`item` at the field that it starts with (`cache.shared: ...`), else at the whole of `cache`."""
        if self._places is None:
            return item
        named = item.message.partition(":")[0].removeprefix("cache.")
        return replace(item, span=self._places.fields.get(named, self._places.part))

    @field_validator("shared")
    @classmethod
    def _check_order(cls, shared: int | None, info: ValidationInfo) -> int | None:
        registers = info.data.get("registers")
        if shared is not None and registers is not None and shared < registers:
            raise field_error(
                "VQ0215",
                f"cache.shared is {shared}, below cache.registers, which is {registers}",
                f"entries from {registers} on are in shared memory up to the one that `shared` names: "
                f"use at least {registers}",
            )
        return shared

    @model_validator(mode="after")
    def _check_any(self) -> Self:
        if self.registers is None and self.shared is None:
            raise field_error(
                "VQ0202",
                "cache has neither the field registers nor the field shared",
                "add `registers: 16`, `shared: 256` or both, or leave cache out",
            )
        return self


@dataclass(frozen=True)
class SpecProfile:
    """The profile that a spec names: the sha256 of the file and its tensors that the spec is about, at least one."""

    file: str
    sha256: str
    tensors: tuple[TensorProfile, ...]


Version = Annotated[
    Literal[1],
    BeforeValidator(_check_version),
    Field(description="version of the spec format", examples=[1]),
]
Name = Annotated[
    str,
    AfterValidator(lambda name: check_library_name(name, "the name")),
    Field(
        description="name of the library; a C identifier once - is _",
        examples=["llama7b-aqlm3-gemv"],
        json_schema_extra={"pattern": pattern("_-"), "maxLength": MAX_LENGTH},
    ),
]


class Spec(BaseModel):
    """One kernel library: an algorithm and an op, compiled once per GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    vqcc: Version
    name: Name
    algorithm: Annotated[
        AnyAlgorithm | KeyValue,
        Field(
            description="a preset's name, or an algorithm in full; of a KV cache also one for `key`, one for `value`",
            examples=["aqlm-3"],
        ),
    ]
    op: Annotated[
        AnyOp,
        Field(description="what is computed", examples=[{"kind": "gemv", "m": 1, "n": 4096, "k": 4096}]),
    ]
    gpu: Annotated[
        tuple[Gpu, ...],
        Field(
            description="a GPU's name, its limits in full, or a list of these: one cubin each",
            examples=["h200"],
            min_length=1,
            max_length=MAX_GPUS,
        ),
    ]
    level: Annotated[
        Level, Field(description="which of the paper's optimizations are used", examples=["best"])
    ] = DEFAULT_LEVEL
    profile: Annotated[
        InstanceOf[SpecProfile] | None,
        WithJsonSchema({"type": "string", "minLength": 1}),
        Field(
            description="file of `vqcc profile`, relative to the spec: how often entries are looked up",
            examples=["hotness.json"],
        ),
    ] = None
    cache: Annotated[
        Cache | None,
        Field(
            description="boundaries of the codebook cache, instead of the planner's",
            examples=[{"registers": 16, "shared": 256}],
        ),
    ] = None

    @property
    def identifier(self) -> str:
        """The name as a C identifier."""
        return to_identifier(self.name)

    @property
    def over_weights(self) -> tuple[Algorithm, Op] | None:
        """The algorithm and the op of a library over a quantized weight; None for one over a KV cache."""
        if isinstance(self.op, AttentionDecode):
            return None
        assert not isinstance(self.algorithm, KeyValue)  # vqcc.spec.check refuses it
        return self.algorithm, self.op

    @property
    def over_cache(self) -> tuple[Algorithm, Algorithm, AttentionDecode] | None:
        """The algorithms of keys and values and the op of a library over a KV cache; None for one over a weight."""
        if not isinstance(self.op, AttentionDecode):
            return None
        return (*sides_of(self.algorithm), self.op)

    @property
    def boundaries(self) -> Boundaries:
        """What `cache` says, as passes read it."""
        return Boundaries() if self.cache is None else Boundaries(self.cache.registers, self.cache.shared)

    def place(self, error: VqccError) -> VqccError:
        """What planning this spec raised, with the place in its file where that is known.

        Only `cache` asks for what the planner would not have chosen: VQ0406, and VQ0607 where the input is at fault.
        """
        cache = self.cache
        if cache is None:
            return error
        codes = {"VQ0406", "VQ0607"} if error.exit_code == ExitCode.INPUT else set()
        placed = (
            cache.place(item) if item.code in codes and item.span is None else item
            for item in error.diagnostics
        )
        return VqccError(*placed, exit_code=error.exit_code)
