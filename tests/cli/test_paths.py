"""Paths of the command line that name what a command cannot take: diagnostics, never a message of click's own."""

from __future__ import annotations

from pathlib import Path

import click
import pytest
from command import run

from vqcc.cli import _vqcc
from vqcc.cli.support import ANY_PATH

#: Command lines with a directory `{folder}` for a file or a file `{file}` for a directory, and the code of each.
MISPLACED = (
    ("compile {folder}", "VQ0101"),
    ("outputs {folder}", "VQ0101"),
    ("tune {folder}", "VQ0101"),
    ("compile {spec} -o {file}", "VQ0701"),
    ("compile {spec} --depfile {folder}", "VQ0712"),
    ("cubin {folder} --gpu h200", "VQ0701"),
    ("quantize {folder} --tensor w --algorithm aqlm-2x8 -o {new}", "VQ0535"),
    ("quantize {weights} --tensor w --algorithm vq-4-4-1 -o {folder}", "VQ0712"),
    ("pack {quantized} --library {file} -o {new}", "VQ0704"),
    ("pack {quantized} --library {compiled} -o {folder}", "VQ0712"),
    ("validate {file}", "VQ0704"),
    ("validate {compiled} --tensors {quantized} --packed {folder}", "VQ0501"),
    ("bench {file}", "VQ0704"),
    ("bench {compiled} -o {folder}", "VQ0712"),
    ("profile {quantized} -o {folder}", "VQ0712"),
    ("profile {quantized} --plot {folder}", "VQ0712"),
    ("calibrate -o {folder}", "VQ0712"),
    ("schema -o {folder}", "VQ0712"),
)


@pytest.mark.parametrize(("line", "code"), MISPLACED)
def test_a_directory_for_a_file_or_a_file_for_a_directory_is_one_diagnostic(
    line: str,
    code: str,
    spec: Path,
    weights: Path,
    quantized: Path,
    compiled: Path,
    tmp_path: Path,
) -> None:
    folder, file = tmp_path / "folder", tmp_path / "file"
    folder.mkdir()
    file.write_text("")
    places = {"spec": spec, "weights": weights, "quantized": quantized, "compiled": compiled}
    words = line.format(folder=folder, file=file, new=tmp_path / "new", **places).split()
    done = run(*words, "--json")
    assert (done.exit_code, done.codes) == (1, [code]), done.stderr
    assert done.json["diagnostics"][0]["help"]
    assert not done.stderr
    assert not list(folder.iterdir())
    assert not (tmp_path / "new").exists()


def test_a_spec_that_may_not_be_read_is_one_diagnostic(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The superuser may read any file, so that taking its mode away would show nothing.
    def refuse(path: Path, *_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.access", lambda *_, **__: False)
    monkeypatch.setattr(Path, "open", refuse)
    done = run("compile", spec, "--json")
    assert (done.exit_code, done.codes) == (1, ["VQ0101"])
    assert done.json["diagnostics"][0]["message"] == f"cannot read '{spec}': Permission denied"


def test_no_path_of_a_command_is_looked_at_before_the_command_runs() -> None:
    context = click.Context(_vqcc)
    commands = {name: _vqcc.get_command(context, name) for name in _vqcc.list_commands(context)}
    paths = [
        (name, parameter.name, parameter.type)
        for name, command in commands.items()
        if command is not None
        for parameter in command.params
        if isinstance(parameter.type, click.Path)
    ]
    assert len(paths) > 20
    assert [(name, parameter) for name, parameter, kind in paths if kind is not ANY_PATH] == []
