"""A compiled library as read back from its bundle."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from libraries import build_fake, make_profile, make_spec, with_workspace

from vqcc import gpus
from vqcc.algorithms.presets import resolve
from vqcc.building import problems_of, runs_on, write_library
from vqcc.codegen.manifest import seal
from vqcc.compiled import GpuKernels
from vqcc.diagnostics import VqccError
from vqcc.hotness import profile_tensor, save_profile
from vqcc.library import layout_identity, load_library, select_gpus
from vqcc.manifest_values import count_of
from vqcc.passes.layout import choose_layout
from vqcc.plan import Launch
from vqcc.problem import Boundaries

if TYPE_CHECKING:
    from pathlib import Path

    from vqcc.building import Built


@pytest.fixture(scope="module")
def built() -> Built:
    return build_fake(
        "gptvq-2", m=[4, 1], dtype=["float16", "bfloat16"], gpu=["h200", "rtx4090"], n=300, k=520
    )


@pytest.fixture
def directory(built: Built, tmp_path: Path) -> Path:
    assert write_library(built, tmp_path / "tiny")
    return tmp_path / "tiny"


def test_what_was_planned_is_read(built: Built, directory: Path) -> None:
    library = load_library(directory)
    problem = built.gpus[0].problems[0]
    assert (library.name, library.level, library.gpus) == ("tiny", "sc", ("h200", "rtx4090"))
    assert library.algorithm == problem.algorithm
    assert library.op == problem.op
    assert library.layout == built.gpus[0].plans[0].layout
    for build in built.gpus:
        kernels = library.builds[build.gpu.name].kernels
        assert [kernel.name for kernel in kernels] == [plan.kernel for plan in build.plans]
        for kernel, plan, task in zip(kernels, build.plans, build.problems, strict=True):
            assert kernel.variant == task.variant
            assert kernel.tile == plan.tile
            assert kernel.launch == plan.launch
            assert isinstance(kernel.launch, Launch)
            assert kernel.registers == 40
            described = built.fields["gpus"][build.gpu.name]["kernels"][kernels.index(kernel)]
            assert described["strategy"] == asdict(plan.strategy)
        assert library.builds[build.gpu.name].runs_on == tuple(runs_on(build.gpu))
        assert library.builds[build.gpu.name].sm_count == build.gpu.sm_count.integer
        assert library.source(build.gpu.name) == build.source
        assert library.cubin(build.gpu.name) == build.compiled.cubin


def test_the_build_id_names_what_was_built(built: Built) -> None:
    def build_id(**options: Any) -> str:
        return str(build_fake(**{"n": 64, "k": 256, **options}).fields["build_id"])

    assert build_id() == build_id()
    others = [
        build_id(m=2),
        build_id(n=65),
        build_id(level="gc"),
        build_id(gpu="h100"),
        build_id(name="other"),
    ]
    assert len({build_id(), *others}) == 6


def test_what_a_profile_leaves_in_the_manifest(tmp_path: Path) -> None:
    """Hashes of the codes that were counted and of the file; another file is another build, of one layout."""
    profile = tmp_path / "hotness.json"
    hashes = make_profile(profile, "aqlm-2x8", (64, 256), (64, 512), (64, 256))
    built = build_fake(profile=profile)
    assert built.fields["profile"] == {
        "codes": [hashes[0], hashes[2]],
        "sha256": hashlib.sha256(profile.read_bytes()).hexdigest(),
    }
    for problem in built.gpus[0].problems:
        assert [tensor.codes_sha256 for tensor in problem.profile] == [hashes[0], hashes[2]]
    without = build_fake()
    assert without.fields["profile"] is None
    assert without.gpus[0].problems[0].profile == ()
    make_profile(profile, "aqlm-2x8", (64, 256), seed=1)
    again = build_fake(profile=profile)
    assert len({each.fields["build_id"] for each in (built, without, again)}) == 3
    assert len({each.fields["layout_id"] for each in (built, without, again)}) == 1


def test_codes_that_two_tensors_share_stand_once(tmp_path: Path) -> None:
    tensors = [
        replace(
            profile_tensor(resolve("aqlm-2x8").random_tensor(np.random.default_rng(0), "w", 64, 256)), name=n
        )
        for n in ("one", "two")
    ]
    save_profile(tmp_path / "hotness.json", tensors)
    codes = build_fake(profile=tmp_path / "hotness.json").fields["profile"]["codes"]
    assert codes == [tensors[0].codes_sha256]


def test_boundaries_reach_the_plans() -> None:
    for cache, expected in (
        (None, Boundaries()),
        ({"registers": 0, "shared": 32}, Boundaries(0, 32)),
        ({"shared": 16}, Boundaries(None, 16)),
    ):
        spec = make_spec(level="o2", cache=cache)
        assert {problem.boundaries for problem in problems_of(spec, spec.gpu[0])} == {expected}


@pytest.mark.parametrize("level", ["o1", "o2", "o3", "o4", "best"])
def test_plans_keep_to_the_boundaries(level: str) -> None:
    built = build_fake(level=level, m=[1, 16], cache={"registers": 8, "shared": 64})
    for plan in built.gpus[0].plans:
        assert plan.placement is not None
        assert (set(plan.placement.n_registers), plan.placement.n_shared) == ({8}, 64)


def test_the_workspace_of_a_gpu_is_that_of_its_kernels(built: Built, tmp_path: Path) -> None:
    write_library(with_workspace(built, [0, 4, 8, 0], [0, 0, 0, 0]), tmp_path / "tiny")
    library = load_library(tmp_path / "tiny")
    sizes = [kernel.launch.workspace_bytes for kernel in library.builds["h200"].kernels]
    assert sizes == [0, 4, 8, 0]
    assert [library.builds[gpu].workspace_bytes for gpu in library.gpus] == [8, 0]


def test_the_layout_id_names_what_packed_weights_must_agree_on() -> None:
    base, layout = resolve("aqlm-2x8"), choose_layout(512, 2, 8)
    one = layout_identity(base, (64, 4096), layout)
    assert one == layout_identity(base, (64, 4096), choose_layout(512, 2, 8))
    others = {
        layout_identity(base, (65, 4096), layout),
        layout_identity(base.model_copy(update={"codebook_dtype": "bfloat16"}), (64, 4096), layout),
        layout_identity(base, (64, 4096), replace(layout, chunk_words=layout.chunk_words + 1)),
    }
    assert len({one, *others}) == 4


def test_all_gpus_share_one_layout(built: Built) -> None:
    layouts = {plan.layout for build in built.gpus for plan in build.plans}
    assert len(layouts) == 1


def test_choosing_gpus(directory: Path) -> None:
    library = load_library(directory)
    assert select_gpus(library, ()) == ("h200", "rtx4090")
    assert select_gpus(library, ("rtx4090",)) == ("rtx4090",)
    with pytest.raises(VqccError) as caught:
        select_gpus(library, ("rtx490",))
    (diagnostic,) = caught.value.diagnostics
    assert diagnostic.code == "VQ0805"
    assert diagnostic.help == "did you mean 'rtx4090'? it was compiled for h200, rtx4090"
    with pytest.raises(VqccError) as caught:
        select_gpus(library, ("h100",))
    assert caught.value.diagnostics[0].help == (
        "it was compiled for h200, rtx4090; compile its spec for h100 too: `gpu: [h200, rtx4090, h100]`"
    )


def test_what_was_not_emitted_is_none(built: Built, tmp_path: Path) -> None:
    header = {name: data for name, data in built.files.items() if name.endswith(".h")}
    write_library(replace(built, files=header), tmp_path / "tiny")
    library = load_library(tmp_path / "tiny")
    assert library.source("h200") is None
    assert library.cubin("h200") is None


def test_cubins_run_on_the_same_major_version_and_not_across_to_integrated_parts() -> None:
    expected = {
        "a100": ["sm_80", "sm_86", "sm_89"],
        "a40": ["sm_86", "sm_89"],
        "l40s": ["sm_89"],
        "rtx4090": ["sm_89"],
        "h100": ["sm_90"],
        "h200": ["sm_90"],
        "b200": ["sm_100", "sm_103"],
        "rtx5090": ["sm_120", "sm_121"],
    }
    assert {name: runs_on(gpus.load(name)) for name in gpus.names()} == expected
    orin = gpus.load("a100").model_copy(update={"compute_capability": "8.7"})
    assert runs_on(orin) == ["sm_87"]


def refusal(directory: Path) -> list[str] | None:
    """Codes of what keeps a directory from being a library; None if it is one."""
    try:
        load_library(directory)
    except VqccError as error:
        return [item.code for item in error.diagnostics]
    return None


def test_a_damaged_manifest_is_a_diagnostic_whatever_the_damage(directory: Path) -> None:
    """Parts of the manifest removed or replaced, at random: a library, or VQ07xx, and never another error."""
    manifest = directory / "manifest.json"
    original = manifest.read_text()
    generator = random.Random(11)
    refused = 0
    for _ in range(400):
        document = json.loads(original)
        _damage(document, generator)
        manifest.write_text(json.dumps(seal(document)))
        if (codes := refusal(directory)) is not None:
            refused += 1
            assert all(code.startswith("VQ07") for code in codes), codes
    assert refused > 100


def _damage(document: Any, generator: random.Random) -> None:
    """Walk to a random place and remove or replace what is there."""
    while True:
        keys = list(document) if isinstance(document, dict) else list(range(len(document)))
        key = generator.choice(keys)
        inner = document[key]
        if not isinstance(inner, dict | list) or not inner or generator.random() < 0.4:
            break
        document = inner
    if generator.random() < 0.4:
        del document[key]
    else:
        document[key] = generator.choice([None, -1, "x", [], {}, [1], {"kind": "x"}, 1.5, True])


@pytest.mark.parametrize(("dtype", "refused"), [("float16", True), ("bfloat16", False)])
def test_stages_that_add_up_past_float16_are_not_packed(dtype: str, refused: bool, tmp_path: Path) -> None:
    """Where kernels add them in that type: whatever codes the tensor has, padding may have others."""
    algorithm = {
        "family": "kmeans",
        "vector_size": 8,
        "entries": 256,
        "residuals": 2,
        "codebook_dtype": dtype,
        "scales": "none",
    }
    write_library(
        build_fake(algorithm, kind="gemm", m=64, n=28672, k=8192, dtype=[dtype], level="best"), tmp_path / "a"
    )
    library = load_library(tmp_path / "a")
    assert any(kernel.tile for build in library.builds.values() for kernel in build.kernels)
    tensor = library.algorithm.random_tensor(np.random.default_rng(0), "w", 64, 8192)
    assert tensor.codebooks is not None
    large = tensor.codebooks.copy()
    large[:, :, 3] = 40000
    if refused:
        with pytest.raises(VqccError, match="'w' may add up to 80000") as raised:
            library.pack(replace(tensor, codebooks=large))
        assert [each.code for each in raised.value.diagnostics] == ["VQ0547"]
        large[:, 1] = 0  # of one stage alone
    library.pack(replace(tensor, codebooks=large))


def test_multiprocessors_that_a_manifest_cannot_mean() -> None:
    assert count_of(132) == 132
    for wrong in (-1, 1.5, "132", True, None):
        with pytest.raises(ValueError, match="no number of things"):
            count_of(wrong)


def test_launches_overlap_where_the_gpus_own_data_say_so() -> None:
    for name in gpus.names():
        gpu = gpus.load(name)
        build: GpuKernels[Any] = GpuKernels(tuple(runs_on(gpu)), gpu.sm_count.integer, 1.0, ())
        assert build.can_overlap == gpu.has_dependent_launch == (gpu.sm >= 90), name
