from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING

from vqcc.codegen.wheels import installed, version_key

if TYPE_CHECKING:
    from pathlib import Path


def test_agrees_with_importlib_metadata() -> None:
    names = ("nvidia-cuda-nvrtc", "nvidia-cuda-runtime", "pyyaml", "ml-dtypes", "no-such-wheel")
    found = installed(names)
    assert set(found) == set(names) - {"no-such-wheel"}
    for name, wheel in found.items():
        assert wheel.version == importlib.metadata.version(name)


def test_the_first_on_the_path_wins(tmp_path: Path) -> None:
    for place, version in (("first", "1.0"), ("second", "2.0")):
        (tmp_path / place / f"some_wheel-{version}.dist-info").mkdir(parents=True)
    path = [str(tmp_path / "nowhere"), str(tmp_path / "first"), str(tmp_path / "second")]
    assert installed(["some-wheel"], path)["some-wheel"].version == "1.0"
    assert installed(["some-wheel"], path[::-1])["some-wheel"].version == "2.0"


def test_names_compare_as_package_indexes_compare_them(tmp_path: Path) -> None:
    (tmp_path / "Some.Wheel-1.0.dist-info").mkdir()
    (tmp_path / "some_wheel_cu12-9.0.dist-info").mkdir()
    found = installed(["some-wheel"], [str(tmp_path)])["some-wheel"]
    assert (found.version, found.root) == ("1.0", tmp_path)


def test_the_newer_of_two_left_by_an_interrupted_upgrade(tmp_path: Path) -> None:
    for version in ("13.9.1", "13.10.0"):
        (tmp_path / f"some_wheel-{version}.dist-info").mkdir()
    assert installed(["some-wheel"], [str(tmp_path)])["some-wheel"].version == "13.10.0"
    assert version_key("13.10.0") > version_key("13.9.1")
