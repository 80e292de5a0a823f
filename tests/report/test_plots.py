"""Plots are valid files, the same for the same profile, and refused with a code where they cannot be."""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from vqcc.algorithms import presets
from vqcc.diagnostics import VqccError
from vqcc.hotness import TensorProfile, profile_tensor
from vqcc.report.plots import check_plot, save_plot

if TYPE_CHECKING:
    from pathlib import Path

SVG = "{http://www.w3.org/2000/svg}"


def profile_of(preset: str = "vq-4-4-2", name: str = "w", n: int = 64, k: int = 64) -> TensorProfile:
    algorithm = presets.resolve(preset)
    return profile_tensor(algorithm.random_tensor(np.random.default_rng(0), name, n, k))


@pytest.mark.parametrize("preset", ["vq-4-4-2", "gptvq-2", "quip-4", "aqlm-3", "vq-1-1-8"])
def test_svg(tmp_path: Path, preset: str) -> None:
    path = tmp_path / "plot.svg"
    save_plot(path, [profile_of(preset)])
    root = ET.parse(path).getroot()
    assert root.tag == SVG + "svg"
    text = path.read_text()
    assert not re.search(r"\d{4}-\d\d-\d\dT|Matplotlib v", text)
    # The heat map is an image inside; colour bar, frequencies and parts are axes.
    assert len(list(root.iter(SVG + "image"))) >= 1
    assert {"axes_1", "axes_2", "axes_3"} <= {node.get("id") for node in root.iter(SVG + "g")}


def test_png(tmp_path: Path) -> None:
    path = tmp_path / "plot.PNG"
    save_plot(path, [profile_of(), profile_of("quip-2", "x")])
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    width, height = struct.unpack(">II", data[16:24])
    assert (width, height) == (1500, round((0.4 + 2 * 2.6) * 150))
    assert b"tEXt" not in data


@pytest.mark.parametrize("suffix", ["svg", "png"])
def test_the_same_profile_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    """In another process too, whose hashes of strings are others."""
    script = (
        "import numpy as np, sys; from pathlib import Path; from vqcc.algorithms import presets\n"
        "from vqcc.hotness import profile_tensor; from vqcc.report.plots import save_plot\n"
        "tensor = presets.resolve('vq-4-4-2').random_tensor(np.random.default_rng(0), 'w', 64, 64)\n"
        "save_plot(Path(sys.argv[1]), [profile_tensor(tensor)])"
    )
    save_plot(tmp_path / f"a.{suffix}", [profile_of()])
    subprocess.run([sys.executable, "-c", script, str(tmp_path / f"b.{suffix}")], check=True, timeout=120)
    assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


def test_other_profiles_look_different(tmp_path: Path) -> None:
    save_plot(tmp_path / "a.svg", [profile_of()])
    save_plot(tmp_path / "b.svg", [profile_of("vq-4-4-1")])
    assert (tmp_path / "a.svg").read_bytes() != (tmp_path / "b.svg").read_bytes()


@pytest.mark.parametrize(
    "name", ["$x_1$ \\alpha", "a" * 300, "\x1b[31m\n", "\u5c64.\u91cd\u307f", "<b>&amp;"]
)
def test_any_name_is_drawn_as_text(tmp_path: Path, name: str) -> None:
    path = tmp_path / "plot.svg"
    save_plot(path, [profile_of(name=name)])
    ET.parse(path)


def test_without_parts_only_frequencies_are_drawn(tmp_path: Path) -> None:
    path = tmp_path / "plot.svg"
    save_plot(path, [replace(profile_of(), parts=None)])
    assert not list(ET.parse(path).getroot().iter(SVG + "image"))


@pytest.mark.parametrize("name", ["plot.pdf", "plot", "svg", ".svg/x"])
def test_other_kinds_of_files(tmp_path: Path, name: str) -> None:
    with pytest.raises(VqccError) as caught:
        save_plot(tmp_path / name, [profile_of()])
    assert caught.value.diagnostics[0].code == "VQ0542"
    assert not list(tmp_path.iterdir())


def test_too_many_tensors(tmp_path: Path) -> None:
    check_plot(tmp_path / "plot.svg", 8)
    with pytest.raises(VqccError) as caught:
        check_plot(tmp_path / "plot.svg", 9)
    (found,) = caught.value.diagnostics
    assert (found.code, found.help) == ("VQ0542", "choose some with --tensor NAME")


def test_without_matplotlib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("matplotlib")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(VqccError) as caught:
        check_plot(tmp_path / "plot.svg", 1)
    (found,) = caught.value.diagnostics
    assert (found.code, found.help) == ("VQ0541", "pip install 'vqcc[report]'")
    assert caught.value.exit_code == 3


def test_a_plot_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(VqccError) as caught:
        save_plot(tmp_path / "missing" / "plot.svg", [profile_of()])
    assert caught.value.diagnostics[0].code == "VQ0527"
