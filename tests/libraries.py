"""Libraries for tests: specs from keywords, built by a stand-in for the compiler where no cubin is needed."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from vqcc.algorithms.presets import resolve
from vqcc.building import build_library
from vqcc.codegen.device_parts import is_portable
from vqcc.codegen.header import render_header
from vqcc.codegen.resources import Resources
from vqcc.codegen.toolchain import NO_HEADERS, Compiled
from vqcc.spec.load import parse_spec

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from vqcc.building import Built
    from vqcc.spec.model import Spec

_KERNEL = re.compile(r"__launch_bounds__\(\d+, \d+\) (\w+)\(")


@dataclass
class FakeToolchain:
    """Says that every kernel needs the same resources: plans then depend on no compiler's version.

    The first `spills` compilations report a spill; all say `serialized` of multiplies. `targets` collects what was
    asked for.
    """

    registers: int = 40
    spills: int = 0
    serialized: str = ""
    name: str = "fake"
    identity: str = "fake 1.0"
    options: tuple[str, ...] = ()
    minimum_driver: str = "580"
    targets: list[str] = field(default_factory=list)

    def compile(
        self,
        source: str,
        *,
        target: str,
        want_ptx: bool,
        file_name: str,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Compiled:
        spilled = 8 if len(self.targets) < self.spills else 0
        self.targets.append(target)
        used = Resources(self.registers, 0, 0, spilled, spilled, 1, self.serialized)
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
    profile: Any = None,
    cache: Any = None,
    kind: str = "gemv",
) -> str:
    """A spec; JSON is YAML. `profile` is a path, `cache` a mapping; without them the spec has no such fields."""
    op = {"kind": kind, "m": m, "n": n, "k": k, "dtype": dtype}
    spec = {"vqcc": 1, "name": name, "algorithm": algorithm, "op": op, "gpu": gpu, "level": level}
    spec |= {} if profile is None else {"profile": str(profile)}
    spec |= {} if cache is None else {"cache": cache}
    return json.dumps(spec, indent=1)


def make_profile(
    path: Path, algorithm: str = "aqlm-2x8", *shapes: tuple[int, int], seed: int = 0
) -> tuple[str, ...]:
    """Write a profile of random codes, a tensor per shape [n, k]; returns the hashes of their codes."""
    from vqcc.hotness import profile_tensor, save_profile

    rng = np.random.default_rng(seed)
    tensors = [
        profile_tensor(resolve(algorithm).random_tensor(rng, f"w{i}", n, k))
        for i, (n, k) in enumerate(shapes or ((64, 256),))
    ]
    save_profile(path, tensors)
    return tuple(tensor.codes_sha256 for tensor in tensors)


def make_spec(algorithm: Any = "aqlm-2x8", **options: Any) -> Spec:
    return parse_spec(spec_text(algorithm, **options).encode(), "spec.yaml")


def build_fake(
    algorithm: Any = "aqlm-2x8", *, toolchain: FakeToolchain | None = None, **options: Any
) -> Built:
    """A library whose cubins are not."""
    return build_library(make_spec(algorithm, **options), toolchain=toolchain or FakeToolchain(), cache=None)


def with_workspace(built: Built, *sizes: Sequence[int]) -> Built:
    """The same library whose kernels need so many bytes of workspace: per GPU, one number per kernel."""
    builds = tuple(
        replace(
            build,
            plans=tuple(
                replace(plan, launch=replace(plan.launch, workspace_bytes=size))
                for plan, size in zip(build.plans, row, strict=True)
            ),
        )
        for build, row in zip(built.gpus, sizes, strict=True)
    )
    fields = json.loads(json.dumps(built.fields))
    for build in builds:
        for kernel, plan in zip(fields["gpus"][build.gpu.name]["kernels"], build.plans, strict=True):
            kernel["launch"] = asdict(plan.launch)
    header = render_header(
        built.name,
        [build.problems for build in builds],
        [build.plans for build in builds],
        fields["build_id"],
        [is_portable(build.source) for build in builds],
    )
    files = {**built.files, f"{built.name}.h": header.encode()}
    return replace(built, gpus=builds, fields=fields, files=files)
