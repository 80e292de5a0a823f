"""The lock file beside a spec: what kernels took on a GPU, by problem, GPU and toolchain (docs/tune.md).

It is YAML to be reviewed and committed. Everything that was measured stands in it; what to compile follows from that.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo

from vqcc.data_files import MAX_LOCK_BYTES, has_lock, templates_identity
from vqcc.diagnostics import Diagnostic, DiagnosticList, Span, VqccError, field_error
from vqcc.levels import Caching, Dataflow, Fusion  # noqa: TC001  (read by pydantic)
from vqcc.spec.source import Limits, read_source
from vqcc.spec.violations import place_of_missing, validate
from vqcc.spec.wording import describe, either

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from vqcc.problem import KernelProblem
    from vqcc.spec.source import Source

__all__ = [
    "Lock",
    "LockedKernel",
    "LockedStrategy",
    "Measured",
    "load_lock",
    "problem_identity",
    "render_lock",
]

LOCK_VERSION = 1
HEADER = "# Written by `vqcc tune`: what kernels of this spec took. `vqcc compile` makes the fastest ones.\n"
#: What messages call it, and what helps whatever is wrong with one.
WHOLE = "the lock file"
DELETE = "delete the file and run `vqcc tune` again"
HELP = f"`vqcc tune` writes lock files: restore this one as it was committed, or {DELETE}"
#: Of a file of so many bytes: a measurement has about 55 nodes and 440 bytes, a kernel at least one of them.
LIMITS = Limits(MAX_LOCK_BYTES, 1_500_000)
_MOST_KERNELS = 20_000
_FROZEN = ConfigDict(frozen=True, extra="forbid", strict=True)
_MICROSECONDS = Field(ge=0, le=1e9)


def _check_version(value: Any) -> Any:
    if type(value) is not int or value != LOCK_VERSION:
        raise field_error(
            "VQ0213",
            f"vqcc_lock must be the version {LOCK_VERSION} of lock files, got {describe(value)}",
            f"this vqcc reads `vqcc_lock: {LOCK_VERSION}`: use the vqcc that wrote the file, or {DELETE}",
        )
    return value


def _check_identity(value: Any, info: ValidationInfo) -> Any:
    if not isinstance(value, str) or re.fullmatch(r"[0-9a-f]{12}", value) is None:
        raise field_error("VQ0214", f"{info.field_name} must be 12 hex digits, got {describe(value)}", HELP)
    return value


class LockedStrategy(BaseModel):
    """The fields of `vqcc.levels.Strategy`."""

    model_config = _FROZEN

    caching: Caching
    registers: bool
    codebook_centric: bool
    fusion: Fusion
    copies: Annotated[int, Field(ge=1, le=1024)]
    dataflow: Dataflow


class Measured(BaseModel):
    """One way to make a kernel, and what it took: microseconds as measured and as predicted."""

    model_config = _FROZEN

    us: Annotated[float, _MICROSECONDS]
    predicted_us: Annotated[float, _MICROSECONDS]
    strategy: LockedStrategy
    tile: Annotated[dict[str, int | str], Field(max_length=64)]

    @property
    def key(self) -> tuple[LockedStrategy, tuple[tuple[str, int | str], ...]]:
        """What is measured once."""
        return (self.strategy, tuple(self.tile.items()))


class LockedKernel(BaseModel):
    """What was measured of one kernel: its variant's suffix, the problem's identity, and with what on which device.

    `templates` names the device code that was timed. `complete` says that every candidate of a session had its turn.
    """

    model_config = _FROZEN

    gpu: Annotated[str, Field(max_length=64)]
    kernel: Annotated[str, Field(max_length=128)]
    problem: Annotated[str, BeforeValidator(_check_identity)]
    toolchain: Annotated[str, Field(max_length=200)]
    device: Annotated[str, Field(max_length=200)]
    templates: Annotated[str, BeforeValidator(_check_identity)]
    complete: bool
    measured: Annotated[tuple[Measured, ...], Field(max_length=1000)]

    @property
    def key(self) -> tuple[str, ...]:
        """What tells the kernels of a lock file apart."""
        return (self.gpu, self.problem, self.toolchain, self.device, self.templates)

    def best(self, *dataflows: Dataflow) -> Measured | None:
        """The fastest of some dataflows; the first on a tie."""
        own = [each for each in self.measured if each.strategy.dataflow in dataflows]
        return min(own, key=lambda each: each.us, default=None)


class Lock(BaseModel):
    """All that a lock file holds."""

    model_config = _FROZEN

    vqcc_lock: Annotated[Literal[1], BeforeValidator(_check_version)] = 1
    kernels: Annotated[tuple[LockedKernel, ...], Field(max_length=_MOST_KERNELS)] = ()

    def find(self, gpu: str, problem: str, toolchain: str) -> LockedKernel | None:
        """What was measured last and completely: of today's templates and with this toolchain, if there is such."""
        own = [each for each in self.kernels if (each.gpu, each.problem) == (gpu, problem) and each.complete]
        today = templates_identity()
        return max(
            reversed(own),
            key=lambda each: (each.templates == today, each.toolchain == toolchain),
            default=None,
        )

    def without(self, keys: Collection[tuple[str, ...]]) -> Lock:
        """The same less the kernels of these keys."""
        return Lock(kernels=tuple(each for each in self.kernels if each.key not in keys))

    def replaced(self, kernel: LockedKernel) -> Lock:
        """The same with that kernel in place of the one of its key, or at the end."""
        kernels = [kernel if each.key == kernel.key else each for each in self.kernels]
        return Lock(kernels=tuple(kernels if kernel in kernels else [*kernels, kernel]))


def load_lock(path: Path) -> Lock | None:
    """The lock file at `path`; None if there is none. Raises VqccError: VQ01xx, VQ02xx at its places."""
    if not has_lock(path):
        return None
    try:
        source = replace(read_source(path, LIMITS), whole=WHOLE)
    except VqccError as error:
        raise VqccError(*(_in_a_lock(item, path) for item in error.diagnostics)) from None
    lock = validate(Lock, source.data, source)
    if isinstance(lock, DiagnosticList):
        raise VqccError(*map(_with_help, lock.in_file_order()))
    _check_whole(source)
    return lock


def _in_a_lock(item: Diagnostic, path: Path) -> Diagnostic:
    """What the guarded reader says of a file that it takes for a spec, said of a lock file."""
    if item.code == "VQ0105" and (line := _conflict_line(path)) is not None:
        help_text = f"keep the `kernels` of both sides and remove the markers, or {DELETE}"
        message = f"{WHOLE} has the conflict markers of a merge"
        return replace(item, message=message, span=Span(str(path), line, 1), help=help_text)
    if item.code == "VQ0101" and path.is_symlink() and not path.exists():
        return replace(item, help="it is a link that leads nowhere: mend or remove it")
    own = {"VQ0109"}  # whose help is about no kind of file
    return item if item.code in own else replace(item, help=HELP)


def _conflict_line(path: Path) -> int | None:
    """The first line that a merge has left in the file; None if it left none."""
    text = path.read_bytes().decode(errors="replace")
    marked = (number for number, line in enumerate(text.splitlines(), 1) if line.startswith("<<<<<<< "))
    return next(marked, None)


def _check_whole(source: Source) -> None:
    """Raise VQ0202 for a file that lacks what `vqcc tune` always writes, though the model has defaults."""
    lacking = [name for name in ("vqcc_lock", "kernels") if name not in source.data]
    if lacking:
        message = f"{WHOLE} lacks the field{'s' * (len(lacking) > 1)} {either(lacking, 'and')}"
        raise VqccError(Diagnostic("VQ0202", message, place_of_missing(source, ()), help=HELP))


def _with_help(item: Diagnostic) -> Diagnostic:
    """The same with help: nobody adds by hand what was measured."""
    return replace(item, help=HELP) if item.help is None or item.code == "VQ0202" else item


def render_lock(lock: Lock) -> bytes:
    """The file's text: a line for each measurement; equal locks give equal bytes."""
    lines = [HEADER, f"vqcc_lock: {LOCK_VERSION}\n", "kernels:\n" if lock.kernels else "kernels: []\n"]
    for kernel in lock.kernels:
        fields = kernel.model_dump(mode="json", exclude={"measured"})
        first, *rest = (f"{name}: {json.dumps(value)}\n" for name, value in fields.items())
        lines += [f"  - {first}", *(f"    {line}" for line in rest), "    measured:\n"]
        lines += [_line(each.us, each.predicted_us, *each.key) for each in kernel.measured]
    return "".join(lines).encode()


@cache  # a session writes the file after every measurement, a model's of a thousand lines
def _line(
    us: float, predicted_us: float, strategy: LockedStrategy, tile: tuple[tuple[str, int | str], ...]
) -> str:
    """One measurement as the file has it."""
    measured = Measured(us=us, predicted_us=predicted_us, strategy=strategy, tile=dict(tile))
    text = yaml.safe_dump(
        measured.model_dump(mode="json"), default_flow_style=True, width=10**9, sort_keys=False
    )
    return f"      - {text}"


def problem_identity(problem: KernelProblem) -> str:
    """12 hex digits that name what one kernel is made for, less the GPU."""
    return hashlib.sha256(json.dumps(problem.made_for, sort_keys=True).encode()).hexdigest()[:12]
