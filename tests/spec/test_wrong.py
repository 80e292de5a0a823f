"""Every file in wrong/ gives exactly the diagnostics its first line expects, at the line and column it says.

`# expect: VQ0203 5:13 VQ0301 4:12`: code and line:column, in the order of the report.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vqcc.diagnostics import CODES, ExitCode, VqccError, render_json, render_text
from vqcc.models import load_any, parse_any

FILES = sorted(Path(__file__).with_name("wrong").glob("*.yaml"))


def report(file):
    with pytest.raises(VqccError) as caught:
        load_any(file)
    assert caught.value.exit_code is ExitCode.INPUT
    return caught.value.diagnostics


def expectation(file):
    words = file.read_bytes().split(b"\n", 1)[0].decode().removeprefix("# expect:").split()
    return list(zip(words[::2], words[1::2], strict=True))


def test_there_are_many():
    assert len(FILES) >= 60
    bodies = {file.read_bytes().split(b"\n", 1)[1] for file in FILES}
    assert len(bodies) == len(FILES)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_exactly_the_expected_diagnostics(file):
    found = [(item.code, f"{item.span.line}:{item.span.column}") for item in report(file)]
    assert found == expectation(file)
    assert found


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_report_shows_the_place_and_says_what_to_do(file):
    for item in report(file):
        text = render_text([item], color=False)
        assert f"--> {file}:{item.span.line}:{item.span.column}\n" in text
        assert "^" in text
        assert item.help or item.label or item.code == "VQ0105", text
        # Ours, not a library's: no class names, no words of Python.
        for word in ("Input should", "pydantic", "Traceback", "NoneType", " dict", " str ", "None", "()"):
            assert word not in item.message
            assert word not in (item.help or "")
    json.loads(render_json(report(file)))


def test_memory_and_file_give_the_same_report():
    for file in FILES:
        with pytest.raises(VqccError) as caught:
            parse_any(file.read_bytes(), str(file))
        assert caught.value.diagnostics == report(file)


def test_the_corpus_covers_the_codes_a_spec_can_cause():
    seen = {code for file in FILES for code, _ in expectation(file)}
    elsewhere = {
        "VQ0101",  # no file to keep
        "VQ0102",  # a megabyte
        "VQ0111",  # ten thousand nodes
        "VQ0219",  # of what takes one layer
        "VQ0214",  # lengths of texts that are only in a GPU
        "VQ0306",  # needs a tensor
        "VQ0317",  # of `vqcc tune`
        "VQ0318",  # of lock files
    }
    spec_codes = {code for code in CODES if code < "VQ0400"} | {
        "VQ0401",
        "VQ0402",
        "VQ0403",
        "VQ0404",
        "VQ0406",
    }
    assert spec_codes - seen - elsewhere == set()
