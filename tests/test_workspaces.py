"""Workspaces that suffice for smaller launches too."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vqcc.workspaces import Served, sufficient_bytes

KERNELS = st.lists(
    st.builds(Served, st.sampled_from(["float16", "bfloat16"]), st.integers(1, 64), st.integers(0, 4096)),
    max_size=8,
)


@given(KERNELS)
def test_as_much_as_any_kernel_for_as_much_or_less(kernels: list[Served]) -> None:
    found = sufficient_bytes(kernels)
    assert len(found) == len(kernels)
    for kernel, enough in zip(kernels, found, strict=True):
        smaller = [each for each in kernels if each.kind == kernel.kind and each.bound <= kernel.bound]
        assert all(each.workspace_bytes <= enough for each in smaller)
        assert enough in {each.workspace_bytes for each in smaller}


def test_of_each_type_by_itself() -> None:
    kernels = [Served("a", 1, 100), Served("a", 16, 50), Served("b", 16, 7)]
    assert sufficient_bytes(kernels) == (100, 100, 7)
