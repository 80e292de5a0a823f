"""What a terminal shows of a profile, and what a pipe reads."""

from __future__ import annotations

import io
import re

import numpy as np
from rich.console import Console

from vqcc.algorithms import presets
from vqcc.hotness import Summary, TensorProfile, profile_tensor, summarize
from vqcc.report.terminal import print_summary


def summary_of(preset: str = "vq-4-4-2", n: int = 64, k: int = 64) -> Summary:
    algorithm = presets.resolve(preset)
    return summarize(profile_tensor(algorithm.random_tensor(np.random.default_rng(0), "layer.w", n, k)))


def shown(summary: Summary, *, terminal: bool = False) -> str:
    stream = io.StringIO()
    color = "truecolor" if terminal else None
    console = Console(file=stream, force_terminal=terminal, width=200, color_system=color, highlight=False)
    print_summary(console, summary)
    return stream.getvalue()


def test_a_pipe_reads_plain_text() -> None:
    text = shown(summary_of())
    assert text.isascii()
    assert "\x1b" not in text
    assert not re.search(" $", text, re.MULTILINE)
    assert text.startswith("layer.w [64, 64] VQ<4,4,2>: 2,048 codes, 2 tables, each of 16 entries\n")


def test_bars_are_as_long_as_their_shares() -> None:
    summary = summary_of()
    bars = re.findall(r"^ +(\S+) +([\d.]+)%  (#*)$", shown(summary), re.MULTILINE)
    assert [label for label, _, _ in bars] == [label for label, _ in summary.coverage]
    for (_, percent, bar), (_, share) in zip(bars, summary.coverage, strict=True):
        assert float(percent) == round(100 * share, 1)
        assert len(bar) == round(40 * share)


def test_a_terminal_has_coloured_bars_of_one_length() -> None:
    text = shown(summary_of(), terminal=True)
    plain = re.sub(r"\x1b\[[\d;]*m", "", text)
    assert text != plain
    assert {len(bar) for bar in re.findall("\u2501+", plain)} == {40}


def test_numbers_are_those_of_the_summary() -> None:
    summary = summary_of()
    text = shown(summary)
    assert f"mean {summary.statistics.mean:,.1f}, sigma {summary.statistics.sigma:,.1f}" in text
    for name in ("hot", "medium", "cold"):
        assert re.search(rf"{name} +entries +{getattr(summary.statistics, name):,.1f} ", text)
    assert summary.consistency is not None
    assert f"parts of {summary.part_rows} rows: {summary.consistency.parts} compared" in text
    assert f"{summary.consistency.overlap:.1%}" in text


def test_markup_in_names_is_text() -> None:
    algorithm = presets.resolve("vq-4-4-2")
    tensor = algorithm.random_tensor(np.random.default_rng(0), "layers[/b].:smile:", 8, 32)
    assert shown(summarize(profile_tensor(tensor))).startswith("layers[/b].:smile: [8, 32]")


def test_names_cannot_drive_the_terminal() -> None:
    algorithm = presets.resolve("vq-4-4-2")
    tensor = algorithm.random_tensor(np.random.default_rng(0), "a\x1b[2J\n", 8, 32)
    assert shown(summarize(profile_tensor(tensor))).startswith("a\\x1b[2J\\x0a [8, 32]")


def test_one_part_is_said() -> None:
    assert "parts of 1 row: one per table, none to compare" in shown(summary_of(n=1))


def test_a_profile_read_from_its_file_has_no_parts() -> None:
    profile = TensorProfile("w", presets.resolve("vq-4-1-1"), (1, 8), "0" * 64, np.array([[[1, 1]]]))
    text = shown(summarize(profile))
    assert "parts" not in text
    assert "table of 2 entries" in text
