"""The files of a library and its manifest's fields, from kernels that are compiled, whatever its op."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from vqcc.explaining import explain_plans
from vqcc.gpus.model import COMPUTE_CAPABILITIES
from vqcc.outputs import bundle_files, gpu_file
from vqcc.plan import KernelPlan
from vqcc.problem import KernelProblem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from vqcc.codegen.embedding import Machine
    from vqcc.codegen.toolchain import Compiled, Toolchain
    from vqcc.compiling import Emit
    from vqcc.gpus.model import Gpu
    from vqcc.passes.cache.append import AppendPlan
    from vqcc.spec.model import Spec
    from vqcc.tuning.use import LockUse

__all__ = ["Built", "Description", "GpuBuild", "assemble", "in_parallel", "runs_on"]

AnyProblem_co = TypeVar("AnyProblem_co", bound=KernelProblem, covariant=True)
AnyPlan_co = TypeVar("AnyPlan_co", bound=KernelPlan, covariant=True)
Item = TypeVar("Item")
Made = TypeVar("Made")

#: Compute capabilities of integrated parts, which share no cubins with others.
_TEGRA = {(8, 7), (8, 8)}


@dataclass(frozen=True)
class GpuBuild(Generic[AnyProblem_co, AnyPlan_co]):
    """The kernels of one library on one GPU; `appends` are those of a KV cache that no problem asks for."""

    gpu: Gpu
    problems: tuple[AnyProblem_co, ...]
    plans: tuple[AnyPlan_co, ...]
    source: str
    compiled: Compiled
    appends: tuple[AppendPlan, ...] = ()


@dataclass(frozen=True)
class Built:
    """A library in memory: its files by name, and what its manifest says beside them.

    `lock_use` says what a lock file did, where there was one for a library of level `best`.
    """

    name: str
    gpus: tuple[GpuBuild[KernelProblem, KernelPlan], ...]
    files: Mapping[str, bytes]
    fields: Mapping[str, Any]
    lock_use: LockUse | None = None


class Description(Protocol):
    """What only a library's op can say of it: its header, and its part of the manifest."""

    def header(self, build_id: str) -> str:
        """The C header, which states the build's id."""
        ...

    def library(self) -> dict[str, Any]:
        """What all of its kernels share."""
        ...

    def kernels(self, number: int) -> dict[str, list[dict[str, Any]]]:
        """Kernels of the GPU of this number, by what they are."""
        ...


def assemble(
    spec: Spec,
    builds: Sequence[GpuBuild[KernelProblem, KernelPlan]],
    description: Description,
    toolchain: Toolchain,
    emit: Sequence[Emit],
    machine: Machine | None = None,
) -> Built:
    """Name every file that was asked for, and say in the manifest's fields what they are.

    An object that is asked for is one of `machine`.
    """
    parts = {name: data for build in builds for name, data in _files(spec, build).items()}
    # The header states the build's id, which is that of everything: of the header too, but for this line.
    blank = description.header("0").encode()
    profile = _profile(spec)
    identity = hashlib.sha256(json.dumps([toolchain.identity, profile]).encode())
    for data in (blank, *(data for name, data in parts.items() if not name.endswith(".ptx"))):
        identity.update(hashlib.sha256(data).digest())
    build_id = identity.hexdigest()[:16]
    parts[f"{spec.name}.h"] = description.header(build_id).encode()
    parts |= _embedded(spec, build_id, builds, emit, machine)
    fields = {
        "name": spec.name,
        "build_id": build_id,
        "toolchain": toolchain.identity,
        **description.library(),
        "profile": profile,
        "gpus": {
            build.gpu.name: {
                "target": build.gpu.target,
                "runs_on": runs_on(build.gpu),
                "sm_count": build.gpu.sm_count.integer,
                "minimum_driver": toolchain.minimum_driver,
                "dram_bytes_per_second": build.gpu.dram_bytes_per_second.value,
                **description.kernels(number),
            }
            for number, build in enumerate(builds)
        },
    }
    wanted = bundle_files(spec.name, [build.gpu.name for build in builds], emit)
    files = {name: data for name, data in parts.items() if name in wanted}
    return Built(spec.name, tuple(builds), files, fields)


def _embedded(
    spec: Spec,
    build_id: str,
    builds: Sequence[GpuBuild[KernelProblem, KernelPlan]],
    emit: Sequence[Emit],
    machine: Machine | None,
) -> dict[str, bytes]:
    """What makes the GPU code part of a program, with its PTX where that is asked for and runs on later GPUs."""
    if not {"object", "array"} & set(emit):
        return {}
    from vqcc.codegen.device_parts import is_portable
    from vqcc.codegen.embedded import GpuCode, embedded_files

    codes = [
        GpuCode(
            build.gpu.name,
            build.compiled.cubin,
            build.compiled.ptx if is_portable(build.source) else None,
        )
        for build in builds
    ]
    own = machine if "object" in emit else None
    return embedded_files(spec.name, spec.identifier, build_id, codes, arrays="array" in emit, machine=own)


def _profile(spec: Spec) -> dict[str, Any] | None:
    """What the manifest says of the profile: the hashes of the codes that were counted, and of the file."""
    if spec.profile is None:
        return None
    codes = dict.fromkeys(tensor.codes_sha256 for tensor in spec.profile.tensors)
    return {"codes": list(codes), "sha256": spec.profile.sha256}


def _files(spec: Spec, build: GpuBuild[KernelProblem, KernelPlan]) -> dict[str, bytes]:
    plan = explain_plans(build.gpu, build.plans)
    contents: dict[Emit, bytes] = {
        "cu": build.source.encode(),
        "cubin": build.compiled.cubin,
        "plan": (json.dumps(plan, indent=2) + "\n").encode(),
    }
    if build.compiled.ptx is not None:
        contents["ptx"] = build.compiled.ptx.encode()
    return {gpu_file(spec.name, build.gpu.name, kind): data for kind, data in contents.items()}


def in_parallel(make: Callable[[Item], Made], items: Sequence[Item], jobs: int) -> Iterable[Made]:
    """What `make` makes of each item, in their order, by up to `jobs` threads."""
    if min(jobs, len(items)) == 1:
        return map(make, items)
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(max_workers=jobs) as pool:
        return list(pool.map(make, items))


def runs_on(gpu: Gpu) -> list[str]:
    """Targets a cubin for `gpu` runs on: same major version, minor version no lower, and none from or to Tegra.

    Source: CUDA C++ Programming Guide, binary compatibility.
    """
    major, minor = map(int, gpu.compute_capability.split("."))
    versions = [tuple(map(int, text.split("."))) for text in COMPUTE_CAPABILITIES]
    integrated = (major, minor) in _TEGRA
    return [
        f"sm_{a}{b}"
        for a, b in versions
        if a == major and (b == minor or (b > minor and not integrated and (a, b) not in _TEGRA))
    ]
