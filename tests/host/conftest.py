"""The C reader of packed weights, compiled once for all tests of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from build_tools import compilers
from packed_weights import SANITIZERS, Reader, library_of, packed_file, running

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    """Under sanitizers."""
    with running(tmp_path_factory.mktemp("reader"), compilers("c")[0], "c99", *SANITIZERS) as found:
        yield found


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="session")
def good(scratch: Path) -> bytes:
    """A file of one tensor `w`, with all four arrays."""
    return packed_file(scratch, library_of())
