"""Gpu: the limits and rates of one GPU, each number with where it comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator

from vqcc.diagnostics import field_error
from vqcc.gpus.estimates import ESTIMATES
from vqcc.spec.identifier import check_identifier, pattern
from vqcc.spec.wording import describe

if TYPE_CHECKING:
    from collections.abc import Callable

WARP_SIZE = 32

Confidence = Literal["header", "datasheet", "measured", "derived", "memory", "user"]
Dtype = Literal["float16", "bfloat16"]
#: Compute capabilities that the CUDA 13 compilers emit code for and that have asynchronous copies.
ComputeCapability = Literal["8.0", "8.6", "8.7", "8.8", "8.9", "9.0", "10.0", "10.3", "11.0", "12.0", "12.1"]
COMPUTE_CAPABILITIES: tuple[str, ...] = get_args(ComputeCapability)

_FROZEN = ConfigDict(frozen=True, extra="forbid", strict=True)
_KIB = 1024

#: Range of each number, whole numbers where it must be one: generous to GPUs to come, narrow enough that a
#: slip of unit is caught.
RANGES: dict[str, tuple[float, float]] = {
    "sm_count": (1, 1024),
    "threads_per_block": (32, 1024),
    "threads_per_sm": (32, 8192),
    "warps_per_sm": (1, 256),
    "blocks_per_sm": (1, 256),
    "registers_per_sm": (1024, 1 << 20),
    "registers_per_block": (1024, 1 << 20),
    "registers_per_thread": (16, 255),
    "register_allocation_unit": (1, 4096),
    "sub_partitions": (1, 16),
    "shared_bytes_per_sm": (16 * _KIB, 4096 * _KIB),
    "shared_bytes_per_block": (16 * _KIB, 4096 * _KIB),
    "shared_bytes_per_block_default": (16 * _KIB, 4096 * _KIB),
    "shared_bytes_reserved": (0, 16 * _KIB),
    "shared_allocation_unit": (1, 4096),
    "shared_carveouts": (0, 4096 * _KIB),
    "l1_shared_bytes": (16 * _KIB, 4096 * _KIB),
    "l2_bytes": (256 * _KIB, 4 << 30),
    "dram_bytes_per_second": (1e9, 1e14),
    "boost_hertz": (1e8, 1e10),
    "tensor_flops_fp16": (1e11, 1e17),
    "sustained_hertz": (1e7, 1e10),
    "launch_seconds": (1e-8, 1e-3),
    "l2_bytes_per_cycle": (1.0, 1024.0),
    "dram_latency_cycles": (50.0, 10000.0),
    "multiply_cycles": (1.0, 512.0),
    "integer_cycles": (1.0, 64.0),
    "shared_roundtrip_per_shuffle": (1.0, 100.0),
}


#: Shared memory of a block on the known GPUs that have most of it (compute capabilities 9.0 and 10.0).
MOST_SHARED_BYTES = 227 * _KIB
#: The first compute capability with programmatic dependent launch.
FIRST_DEPENDENT_LAUNCH = 90
#: The first compute capability, as a number, with thread-block clusters.
FIRST_CLUSTERS = 90


class Fact(BaseModel):
    """One number, where it comes from, and how far to trust it."""

    model_config = _FROZEN

    value: int | float
    source: Annotated[str, Field(min_length=1, max_length=300)]
    confidence: Confidence

    @property
    def integer(self) -> int:
        """The value of a limit that counts something."""
        assert isinstance(self.value, int)
        return self.value


class FactList(BaseModel):
    """Several numbers from one source."""

    model_config = _FROZEN

    value: Annotated[tuple[int, ...], Field(min_length=1, max_length=32)]
    source: Annotated[str, Field(min_length=1, max_length=300)]
    confidence: Confidence


def _plain_number(value: object) -> object:
    """Accept a bare number or list, as a GPU inline in a spec may write them."""
    if isinstance(value, int | float | tuple) and not isinstance(value, bool):
        return {"value": value, "source": "the spec", "confidence": "user"}
    if isinstance(value, dict | Fact | FactList):
        return value
    raise field_error(
        "VQ0203",
        f"a limit of a GPU must be a number, got {describe(value)}",
        "write the number, or {value: ..., source: ..., confidence: ...}",
    )


def _capability_text(value: object) -> object:
    """Accept 9.0 for "9.0": YAML reads it as a number, and no capability has a two-digit minor."""
    return f"{value:.1f}" if isinstance(value, float) and round(value, 1) == value else value


def _estimate(name: str) -> Callable[[dict[str, Any]], Fact]:
    """Make the fact that stands where a rate is not given, from those before it."""

    def make(facts: dict[str, Any]) -> Fact:
        value, reason = ESTIMATES[name](facts)
        return Fact(value=value, source=reason, confidence="derived")

    return make


Count = Annotated[Fact, BeforeValidator(_plain_number)]
Rate = Annotated[Fact, BeforeValidator(_plain_number)]
Counts = Annotated[FactList, BeforeValidator(_plain_number)]


def has_dependent_launch(target: str) -> bool:
    """Whether kernels for a target, as `sm_90`, may start while those before them end."""
    return int(target.removeprefix("sm_")) >= FIRST_DEPENDENT_LAUNCH


class Gpu(BaseModel):
    """Limits that decide what fits, and rates that decide what is fast.

    Sizes are in bytes, registers are 32 bits wide, rates are per second or cycle. What `vqcc calibrate` alone can
    tell has an estimate (vqcc.gpus.estimates) where it is not given.
    """

    model_config = _FROZEN

    name: Annotated[str, Field(max_length=32, json_schema_extra={"pattern": pattern("_")})]
    compute_capability: Annotated[ComputeCapability, BeforeValidator(_capability_text)]
    dtypes: Annotated[tuple[Dtype, ...], Field(min_length=1, max_length=2)]
    sm_count: Count
    threads_per_block: Count
    threads_per_sm: Count
    warps_per_sm: Count
    blocks_per_sm: Count
    registers_per_sm: Count
    registers_per_block: Count
    registers_per_thread: Count
    #: Registers are handed out to a warp in this unit.
    register_allocation_unit: Count
    #: Each has its own share of the registers, and warps are placed on them in turn.
    sub_partitions: Count
    shared_bytes_per_sm: Count
    #: What a kernel may use after opting in, and without.
    shared_bytes_per_block: Count
    shared_bytes_per_block_default: Count
    #: What the driver takes for itself from every block's share.
    shared_bytes_reserved: Count
    shared_allocation_unit: Count
    #: Sizes the shared part of the L1 pool can be set to, ascending.
    shared_carveouts: Counts
    l1_shared_bytes: Count
    l2_bytes: Count
    dram_bytes_per_second: Rate
    boost_hertz: Rate
    #: Dense fp16 tensor-core rate with fp32 accumulation.
    tensor_flops_fp16: Rate
    #: Clock that kernels run at under load.
    sustained_hertz: Rate = Field(default_factory=_estimate("sustained_hertz"))
    #: From one kernel's end to the next one's start in a graph.
    launch_seconds: Rate = Field(default_factory=_estimate("launch_seconds"))
    #: What an SM reads from the second-level cache in a cycle while few others do.
    l2_bytes_per_cycle: Rate = Field(default_factory=_estimate("l2_bytes_per_cycle"))
    #: Until a load that misses the second-level cache is there.
    dram_latency_cycles: Rate = Field(default_factory=_estimate("dram_latency_cycles"))
    #: What a sub-partition takes for one mma.sync m16n8k16 of fp16 with fp32 sums, and for a warp's integer or bit
    #: instruction, many of them under way.
    multiply_cycles: Rate = Field(default_factory=_estimate("multiply_cycles"))
    integer_cycles: Rate = Field(default_factory=_estimate("integer_cycles"))
    #: Cost of a write and read of shared memory in units of a warp shuffle (VQ-LLM, section VI-B).
    shared_roundtrip_per_shuffle: Rate

    @property
    def sm(self) -> int:
        """The compute capability as one number: 90 for "9.0"."""
        return int(self.compute_capability.replace(".", ""))

    @property
    def target(self) -> str:
        """The name that compilers give the architecture: `sm_90`."""
        return f"sm_{self.sm}"

    @property
    def has_dependent_launch(self) -> bool:
        """Whether kernels may start while those before them end (PTX ISA, griddepcontrol: from 9.0 on)."""
        return has_dependent_launch(self.target)

    @property
    def has_clusters(self) -> bool:
        """Whether blocks form clusters with distributed shared memory (PTX ISA, %cluster_ctarank: from 9.0 on)."""
        return self.sm >= FIRST_CLUSTERS

    def facts(self) -> dict[str, Fact | FactList]:
        """Every number by field name, in the order of the model."""
        numbers = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: fact for name, fact in numbers.items() if isinstance(fact, Fact | FactList)}

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        check_identifier(name, "the name of a GPU", separators="_")
        if name == "count":
            message = "the name of a GPU cannot be 'count': GPU_COUNT of headers is how many there are"
            raise field_error("VQ0208", message, "use count_gpu or the like")
        return name

    @field_validator(*RANGES, mode="after")
    @classmethod
    def _check_range(cls, fact: Fact | FactList, info: ValidationInfo) -> Fact | FactList:
        field = info.field_name or ""
        low, high = RANGES[field]
        for value in fact.value if isinstance(fact, FactList) else (fact.value,):
            if not low <= value <= high:
                raise field_error(
                    "VQ0204", f"{field} cannot be {_show(value)}", f"use {_show(low)} to {_show(high)}"
                )
            if isinstance(low, int) and not isinstance(value, int):
                raise field_error("VQ0203", f"{field} cannot be {_show(value)}", "use a whole number")
        return fact


def _show(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}".replace("e+0", "e").replace("e+", "e")
