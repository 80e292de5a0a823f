"""Presets: every name, the numbers in parametric names, and what is said of wrong ones."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqcc.algorithms import from_mapping, presets
from vqcc.diagnostics import VqccError


@pytest.mark.parametrize(
    ("name", "label", "family", "scope", "scales"),
    [
        ("vq-4-8-1", "VQ<4,8,1>", "kmeans", "tensor", "row"),
        ("vq-16-16-8", "VQ<16,16,8>", "kmeans", "tensor", "row"),
        ("aqlm-2x8", "VQ<8,8,2>", "kmeans", "tensor", "row"),
        ("aqlm-1x16", "VQ<8,16,1>", "kmeans", "tensor", "row"),
        ("aqlm-3", "VQ<8,12,2>", "kmeans", "tensor", "row"),
        ("gptvq-2", "VQ<4,8,1>", "kmeans", {"rows": 256, "cols": 256}, "none"),
        ("gptvq-4", "VQ<2,8,1>", "kmeans", {"rows": 256, "cols": 256}, "none"),
        ("quip-2", "VQ<8,16,1>", "e8p", "tensor", "tensor"),
        ("quip-4", "VQ<8,16,2>", "e8p", "tensor", "tensor"),
    ],
)
def test_preset(name: str, label: str, family: str, scope: object, scales: object) -> None:
    algorithm = presets.resolve(name)
    assert (algorithm.label, algorithm.family) == (label, family)
    assert (algorithm.scope.spec(), algorithm.scales.spec()) == (scope, scales)
    assert list(algorithm.check_fields()) == []
    assert list(algorithm.check(4096, 4096)) == []
    assert presets.name_of(algorithm) is not None


def test_names_resolve() -> None:
    assert presets.names() == (*presets.named(), "vq-x-y-z", "kv-x-y-z", "cq-XcYb")
    for name in (*presets.named(), *presets.PARAMETRIC.values()):
        assert presets.name_of(presets.resolve(name)) == name


@pytest.mark.parametrize(
    ("name", "label", "scope", "books"),
    [
        ("cq-1", "VQ<8,8,1>", {"kv_heads": 1, "channels": 8}, (8, 16)),
        ("cq-2", "VQ<4,8,1>", {"kv_heads": 1, "channels": 4}, (8, 32)),
        ("cq-4", "VQ<2,8,1>", {"kv_heads": 1, "channels": 2}, (8, 64)),
        ("cq-4c8b", "VQ<4,8,1>", {"kv_heads": 1, "channels": 4}, (8, 32)),
        ("cq-16c12b", "VQ<16,12,1>", {"kv_heads": 1, "channels": 16}, (8, 8)),
        ("kv-4-8-1", "VQ<4,8,1>", "layer", (1, 1)),
        ("kv-8-12-2", "VQ<8,12,2>", "layer", (1, 1)),
    ],
)
def test_preset_of_a_cache(name: str, label: str, scope: object, books: tuple[int, int]) -> None:
    """They quantize no weight, and say so."""
    algorithm = presets.resolve(name)
    assert algorithm.label == label
    assert (algorithm.scope.spec(), algorithm.scales.spec()) == (scope, "none")
    assert algorithm.scope.cache_books(8, 128 // algorithm.vector_size) == books
    assert list(algorithm.check_fields()) == []
    (found,) = algorithm.check(4096, 4096)
    assert (found.code, found.path) == ("VQ0302", ("algorithm",))
    assert from_mapping(algorithm.mapping()) == algorithm


def test_an_algorithm_that_no_preset_is() -> None:
    algorithm = presets.resolve("quip-2").model_copy(
        update={"residuals": 2, "scales": presets.resolve("vq-1-1-1").scales}
    )
    assert presets.name_of(algorithm) is None


def test_a_preset_is_a_copy() -> None:
    presets.preset("aqlm-3")["entries"] = 2
    assert presets.resolve("aqlm-3").entries == 4096


@pytest.mark.parametrize(
    ("name", "code", "text"),
    [
        ("aqlm3", "VQ0301", "did you mean 'aqlm-3'"),
        ("AQLM-3", "VQ0301", "did you mean 'aqlm-3'"),
        ("gptvq-3", "VQ0301", "did you mean 'gptvq-"),
        ("vq-4-8", "VQ0301", "did you mean 'vq-4-8-1'"),
        ("zzz", "VQ0301", "presets are aqlm-2x8"),
        ("", "VQ0301", "presets are"),
        ("vq-17-8-1", "VQ0301", "vector size 17 is not 1 to 16"),
        ("vq-4-0-1", "VQ0301", "log2 of entries 0 is not 1 to 16"),
        ("vq-4-8-9", "VQ0301", "residual stages 9 is not 1 to 8"),
        ("vq-04-8-1", "VQ0301", "leading zeros"),
        ("cq-3", "VQ0301", "did you mean 'cq-"),
        ("cq-17c8b", "VQ0301", "vector size 17 is not 1 to 16"),
        ("cq-4c0b", "VQ0301", "log2 of entries 0 is not 1 to 16"),
        ("cq-04c8b", "VQ0301", "leading zeros"),
        ("kv-4-8-9", "VQ0301", "residual stages 9 is not 1 to 8"),
    ],
)
def test_wrong_name(name: str, code: str, text: str) -> None:
    with pytest.raises(VqccError) as caught:
        presets.resolve(name)
    (found,) = caught.value.diagnostics
    assert found.code == code
    assert text in f"{found.message} {found.help}"


@given(
    st.one_of(
        st.from_regex(
            r"(vq|kv)-[0-9]{1,3}-[0-9]{1,3}-[0-9]{1,3}|cq-[0-9]{1,3}(c[0-9]{1,3}b)?", fullmatch=True
        ),
        st.text(max_size=12),
    )
)
def test_the_pattern_for_editors_accepts_exactly_the_presets(name: str) -> None:
    try:
        presets.resolve(name)
        valid = True
    except VqccError:
        valid = False
    assert bool(re.search(presets.PATTERN, name)) == valid
