"""What a model's file says of the model as a whole."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from vqcc.diagnostics import field_error
from vqcc.levels import Level  # noqa: TC001  (read by pydantic)
from vqcc.spec.identifier import MAX_LENGTH, pattern
from vqcc.spec.model import DEFAULT_LEVEL, Name, Spec, Version

__all__ = ["LAYER_FIELDS", "MAX_LAYERS", "MAX_RANKS", "PARALLEL", "SHARED_FIELDS", "ModelFields"]

#: What the file says once for all layers, what may be said of each, and the one field of these that a library has not.
SHARED_FIELDS = ("vqcc", "name", "gpu")
PARALLEL = "parallel"
LAYER_FIELDS = (*(name for name in Spec.model_fields if name not in SHARED_FIELDS), PARALLEL)

MAX_LAYERS = 512
MAX_RANKS = 256

_NAMES = {"propertyNames": {"pattern": pattern("_-"), "maxLength": MAX_LENGTH}}


def _several(parts: tuple[str, ...]) -> tuple[str, ...]:
    repeated = [part for part in dict.fromkeys(parts) if parts.count(part) > 1]
    if repeated:
        raise field_error("VQ0210", f"{repeated[0]!a} stands twice in the list", "a layer is fused once")
    return parts


class ModelFields(BaseModel):
    """A whole model: layers, each an algorithm and an op, compiled to one directory."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    vqcc: Version
    name: Name
    gpu: Annotated[
        Any, Field(description="a GPU's name, its limits in full, or a list of these", examples=["h200"])
    ]
    level: Annotated[
        Level, Field(description="which of the paper's optimizations layers use that do not say so")
    ] = DEFAULT_LEVEL
    tensor_parallel: Annotated[
        int, Field(ge=1, le=MAX_RANKS, description="ranks that share each layer that has `parallel`")
    ] = 1
    layers: Annotated[
        dict[str, Any],
        Field(
            min_length=1,
            max_length=MAX_LAYERS,
            description="what each layer is, by its name",
            json_schema_extra=_NAMES,
        ),
    ]
    fuse: Annotated[
        dict[str, Annotated[tuple[str, ...], Field(min_length=2), AfterValidator(_several)]],
        Field(
            description="layers that become one, by its name: their outputs lie side by side",
            examples=[{"qkv": ["q_proj", "k_proj", "v_proj"]}],
            json_schema_extra=_NAMES,
        ),
    ] = {}
