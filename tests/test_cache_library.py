"""Libraries over KV caches: what their manifest says, and that nothing of it is trusted."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from cache_libraries import build_fake_cache, fake_cache_library
from libraries import FakeToolchain, build_fake

from vqcc.building import write_library
from vqcc.codegen.bundle import read_bundle, write_bundle
from vqcc.diagnostics import VqccError
from vqcc.library import load_cache_library, load_library, load_weight_library
from vqcc.tensors.cache_packed_file import expected_parts

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OWN_KEYS = {"vqcc", "format", "files", "sha256"}


def change(library: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Edit a bundle's manifest, which is whole afterwards, and wrong."""
    bundle = read_bundle(library)
    fields = json.loads(json.dumps({k: v for k, v in bundle.manifest.items() if k not in OWN_KEYS}))
    edit(fields)
    assert write_bundle(library, bundle.files, fields=fields)


def test_what_is_loaded_is_what_was_built(tmp_path: Path) -> None:
    built = build_fake_cache(
        {"key": "cq-4", "value": "cq-2"}, batch=[1, 4], dtype=["float16", "bfloat16"], page_size=64
    )
    write_library(built, tmp_path / "cache")
    library = load_cache_library(tmp_path / "cache")
    assert (library.keys.vector_size, library.values.vector_size) == (2, 4)
    assert (library.gpus, library.level, library.op.page_size) == (("h200",), "best", (64,))
    build = library.builds["h200"]
    assert [kernel.variant.suffix for kernel in build.kernels] == [
        "b1_bfloat16", "b4_bfloat16", "b1_float16", "b4_float16",
    ]  # fmt: skip
    assert [(kernel.variant.dtype, kernel.single) for kernel in build.appends] == [
        ("bfloat16", True), ("bfloat16", False), ("float16", True), ("float16", False),
    ]  # fmt: skip
    assert all(kernel.variant.sizes == {"batch": 4, "page_tokens": 64} for kernel in build.appends)
    assert {kernel.name for kernel in build.in_cubin} == {
        name for name in built.gpus[0].compiled.resources if "base" not in name
    }
    assert library.by_rows == (build.kernels[0].dataflow != "decode")
    assert library.layout.page_tokens == 64
    header = built.files["cache.h"].decode()
    assert f'LAYOUT_ID "{library.layout_id}"' in header
    assert f'BUILD_ID "{library.build_id}"' in header


def test_layout_ids_tell_what_must_agree(tmp_path: Path) -> None:
    ids = {
        fake_cache_library(tmp_path / str(number), algorithm, level=level, **op).layout_id
        for number, (algorithm, level, op) in enumerate(
            [
                ("cq-2", "best", {}),
                ("cq-2", "gc", {}),
                ("cq-4", "gc", {}),
                ({"key": "cq-2", "value": "cq-4"}, "gc", {}),
                ({"key": "cq-4", "value": "cq-2"}, "gc", {}),
                ("cq-2", "gc", {"page_size": 32}),
                ("cq-2", "gc", {"rope": "half"}),
                ("cq-2", "gc", {"rope": "half", "rope_base": 500000.0}),
                ("cq-2", "gc", {"kv_heads": 4}),
            ]
        )
    }
    assert len(ids) == 9
    same = [
        fake_cache_library(tmp_path / level, "cq-2", level=level).layout_id
        for level in ("gc", "sc", "o2", "o3", "o4")
    ]
    assert len(set(same)) == 1


def test_books_of_one_packing_serve_all_page_sizes(tmp_path: Path) -> None:
    """Nor do the ids of libraries of one page size change: packed files of old fit them."""
    sizes: list[Any] = [[32, 64], [256, 64, 32], 0, 64]
    libraries = [
        fake_cache_library(tmp_path / str(number), "cq-2", level="gc", page_size=page_size)
        for number, page_size in enumerate(sizes)
    ]
    ids = [library.layout_id for library in libraries]
    assert ids[0] == ids[1] == ids[2] != ids[3]
    assert ids[2:] == ["3652fdd3db34", "ea2aca2808fa"]
    shapes = [expected_parts(library) for library in libraries]
    assert all(each == shapes[0] for each in shapes)


def test_a_library_of_several_page_sizes_is_read_back(tmp_path: Path) -> None:
    built = build_fake_cache("cq-2", batch=[1, 2], page_size=[64, 32], dtype=["float16", "bfloat16"])
    write_library(built, tmp_path / "cache")
    library = load_cache_library(tmp_path / "cache")
    build = library.builds["h200"]
    sizes = [kernel.variant.sizes for kernel in build.kernels]
    assert [(each["batch"], each["page_tokens"]) for each in sizes] == [
        (1, 32),
        (1, 64),
        (2, 32),
        (2, 64),
    ] * 2
    assert [library.layout_of(kernel.variant).page_tokens for kernel in build.kernels] == [32, 64] * 4
    assert [
        (each.variant.dtype, each.variant.sizes["page_tokens"], each.single) for each in build.appends
    ] == [
        (dtype, page_tokens, single)
        for dtype in ("bfloat16", "float16")
        for page_tokens in (32, 64)
        for single in (True, False)
    ]
    assert len({kernel.name for kernel in build.in_cubin}) == 16
    assert {kernel.name for kernel in build.in_cubin} == {
        name for name in built.gpus[0].compiled.resources if "base" not in name
    }
    change(tmp_path / "cache", lambda fields: fields["gpus"]["h200"]["appends"][0].update(page_tokens=96))
    with pytest.raises(VqccError, match="96"):
        load_library(tmp_path / "cache")


def test_gpus_share_a_strategy_and_threads_change_nothing() -> None:
    built = [build_fake_cache("cq-2", gpu=["h200", "rtx4090"], q_heads=2, jobs=jobs) for jobs in (1, 4)]
    assert built[0].files == built[1].files
    assert built[0].fields == built[1].fields
    plans = [plan for build in built[0].gpus for plan in build.plans]
    assert len({(plan.strategy.dataflow, plan.layout) for plan in plans}) == 1  # type: ignore[attr-defined]
    assert set(built[0].fields["gpus"]) == {"h200", "rtx4090"}


def test_what_spills_with_every_tile_is_refused() -> None:
    with pytest.raises(VqccError) as caught:
        build_fake_cache("cq-2", level="gc", toolchain=FakeToolchain(spills=1000))
    assert [item.code for item in caught.value.diagnostics] == ["VQ0607"]


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (lambda fields: fields["layout"].update(key_order="plain"), "its layout is not the one its id names"),
        (
            lambda fields: fields["layout"].update(key_order="woven"),
            "its layout is not the op's|its layout is not",
        ),
        (lambda fields: fields["layout"].update(heads=3), "its layout is not the op's"),
        (lambda fields: fields.update(books="entries"), "its layout is not the one its id names"),
        (lambda fields: fields.update(books="pages"), "'pages'"),
        (lambda fields: fields["algorithm"].pop("value"), "'value'"),
        (lambda fields: fields["op"].update(rope="half"), "its layout is not the one its id names"),
        (lambda fields: fields["op"].update(batch=[8]), "b2_float16"),
        (lambda fields: fields["gpus"]["h200"].update(kernels=[]), "it names no kernels"),
        (lambda fields: fields["gpus"]["h200"].pop("appends"), "'appends'"),
        (lambda fields: fields["gpus"]["h200"]["appends"][0].update(dtype="float8"), "float8"),
        (lambda fields: fields["gpus"]["h200"]["kernels"][0]["launch"].update(grid=0), "grid is 0"),
        (lambda fields: fields["gpus"]["h200"]["kernels"][0]["strategy"].update(speed=2), "speed"),
    ],
)
def test_a_manifest_that_makes_no_sense(tmp_path: Path, edit: Any, reason: str) -> None:
    fake_cache_library(tmp_path)
    change(tmp_path / "cache", edit)
    with pytest.raises(VqccError) as caught:
        load_library(tmp_path / "cache")
    (item,) = caught.value.diagnostics
    assert item.code == "VQ0705"
    assert re.search(reason, item.message)


def test_the_other_kind_of_library(tmp_path: Path) -> None:
    fake_cache_library(tmp_path)
    write_library(build_fake(), tmp_path / "tiny")
    assert load_library(tmp_path / "tiny").level == "sc"
    with pytest.raises(VqccError) as caught:
        load_weight_library(tmp_path / "cache")
    assert [item.code for item in caught.value.diagnostics] == ["VQ0713"]
    with pytest.raises(VqccError) as caught:
        load_cache_library(tmp_path / "tiny")
    assert [item.code for item in caught.value.diagnostics] == ["VQ0713"]
