"""The C readers of packed files, compiled once for all tests of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from packed_books import BooksReader, books_file, books_library
from packed_files import SANITIZERS, running
from packed_weights import WeightsReader, library_of, packed_file

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WeightsReader]:
    """Of weights, under sanitizers."""
    with running(WeightsReader, tmp_path_factory.mktemp("reader"), ("gcc",), "c99", *SANITIZERS) as found:
        yield found


@pytest.fixture(scope="session")
def books_reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BooksReader]:
    """Of books, under sanitizers."""
    directory = tmp_path_factory.mktemp("books_reader")
    with running(BooksReader, directory, ("gcc",), "c99", *SANITIZERS) as found:
        yield found


@pytest.fixture(scope="session")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="session")
def good(scratch: Path) -> bytes:
    """A file of one tensor `w`, with all four arrays."""
    return packed_file(scratch, library_of())


@pytest.fixture(scope="session")
def good_books(scratch: Path) -> bytes:
    """A file of the books of one layer `w`, with rotations, and without book_facts."""
    return books_file(scratch, books_library())
