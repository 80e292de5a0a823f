"""Spec: what to build, for which GPUs, at which level. Frozen; made by vqcc.spec.load."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, field_validator

from vqcc.algorithms import AnyAlgorithm  # noqa: TC001  (read by pydantic)
from vqcc.diagnostics import field_error
from vqcc.gpus.model import Gpu  # noqa: TC001  (read by pydantic)
from vqcc.ops import AnyOp  # noqa: TC001  (read by pydantic)
from vqcc.plan import Level
from vqcc.spec.identifier import MAX_LENGTH, check_identifier, pattern, to_identifier
from vqcc.spec.wording import describe

SPEC_VERSION = 1
MAX_GPUS = 16

LEVELS: tuple[Level, ...] = get_args(Level)


def _check_version(value: Any) -> Any:
    if type(value) is not int or value != SPEC_VERSION:
        raise field_error(
            "VQ0213",
            f"vqcc must be the spec version {SPEC_VERSION}, got {describe(value)}",
            f"this vqcc reads `vqcc: {SPEC_VERSION}`",
        )
    return value


class Spec(BaseModel):
    """One kernel library: an algorithm and an op, compiled once per GPU."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    vqcc: Annotated[
        Literal[1],
        BeforeValidator(_check_version),
        Field(description="version of the spec format", examples=[1]),
    ]
    name: Annotated[
        str,
        Field(
            description="name of the library; a C identifier once - is _",
            examples=["llama7b-aqlm3-gemv"],
            json_schema_extra={"pattern": pattern("_-"), "maxLength": MAX_LENGTH},
        ),
    ]
    algorithm: Annotated[
        AnyAlgorithm, Field(description="a preset's name, or an algorithm in full", examples=["aqlm-3"])
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
    level: Annotated[Level, Field(description="where codebook entries are kept", examples=["sc"])] = "sc"

    @property
    def identifier(self) -> str:
        """The name as a C identifier."""
        return to_identifier(self.name)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        return check_identifier(name, "the name")
