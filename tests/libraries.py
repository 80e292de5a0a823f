"""Libraries for tests: specs from keywords, built by a stand-in for the compiler where no cubin is needed."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vqcc.building import build_library
from vqcc.codegen.resources import Resources
from vqcc.codegen.toolchain import Compiled
from vqcc.spec.load import parse_spec

if TYPE_CHECKING:
    from vqcc.building import Built
    from vqcc.spec.model import Spec

_KERNEL = re.compile(r"__launch_bounds__\(\d+, \d+\) (\w+)\(")


@dataclass
class FakeToolchain:
    """Says that every kernel needs the same resources: plans then depend on no compiler's version.

    The first `spills` compilations report a spill. `targets` collects what was asked for.
    """

    registers: int = 40
    spills: int = 0
    name: str = "fake"
    identity: str = "fake 1.0"
    options: tuple[str, ...] = ()
    minimum_driver: str = "580"
    targets: list[str] = field(default_factory=list)

    def compile(self, source: str, *, target: str, want_ptx: bool, file_name: str) -> Compiled:
        spilled = 8 if len(self.targets) < self.spills else 0
        self.targets.append(target)
        used = Resources(self.registers, 0, 0, spilled, spilled, 1)
        return Compiled(
            f"cubin of {file_name} for {target}".encode(),
            f"// ptx of {file_name}" if want_ptx else None,
            dict.fromkeys(_KERNEL.findall(source), used),
            "",
        )


def spec_text(
    algorithm: Any = "aqlm-2x8",
    *,
    name: str = "tiny",
    m: Any = 1,
    n: int = 64,
    k: int = 256,
    gpu: Any = "h200",
    level: str = "sc",
    dtype: Any = "float16",
) -> str:
    """A spec; JSON is YAML."""
    op = {"kind": "gemv", "m": m, "n": n, "k": k, "dtype": dtype}
    return json.dumps(
        {"vqcc": 1, "name": name, "algorithm": algorithm, "op": op, "gpu": gpu, "level": level}, indent=1
    )


def make_spec(algorithm: Any = "aqlm-2x8", **options: Any) -> Spec:
    return parse_spec(spec_text(algorithm, **options).encode(), "spec.yaml")


def build_fake(
    algorithm: Any = "aqlm-2x8", *, toolchain: FakeToolchain | None = None, **options: Any
) -> Built:
    """A library whose cubins are not."""
    return build_library(make_spec(algorithm, **options), toolchain=toolchain or FakeToolchain(), cache=None)
