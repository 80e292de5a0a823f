"""The pages say what is so: links resolve, commands and specs parse, examples run, tables are complete."""

from __future__ import annotations

import ctypes
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from libraries import FakeToolchain, make_spec

from vqcc.algorithms import presets
from vqcc.building import build_library, problems_of, write_library
from vqcc.cli import _vqcc
from vqcc.code_layouts import BucketLayout, FragmentLayout, layout_mapping
from vqcc.codegen.cache import CompileCache
from vqcc.codegen.contract import ABI_VERSION, ARGS_BYTES, STATUSES, names_of
from vqcc.codegen.toolchain import find
from vqcc.codegen.wheels import installed
from vqcc.diagnostics import CODES, ExitCode
from vqcc.diagnostics.reasons import REASONS
from vqcc.gpus import names as gpu_names
from vqcc.levels import LEVELS
from vqcc.library import layout_identity
from vqcc.models import load_any, parse_any
from vqcc.passes.agreement import refusals_of_all
from vqcc.passes.bucket import bucket_layout
from vqcc.passes.layout import choose_layout
from vqcc.passes.score import rotated_layout
from vqcc.spec.load import load_spec, parse_spec
from vqcc.tensors.container import load
from vqcc.tensors.packing import pack_codes
from vqcc.tuning.lock import load_lock

ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
FENCE = re.compile(r"^```([a-z]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def page_name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def fences(page: Path, *languages: str) -> list[str]:
    """Contents of the page's fenced blocks in one of the languages."""
    return [body for language, body in FENCE.findall(page.read_text()) if language in languages]


def fence(page: str, language: str, part: str) -> str:
    """The one block of docs/`page` that contains `part`."""
    (found,) = [body for body in fences(ROOT / "docs" / page, language) if part in body]
    return found


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", FENCE.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shell_lines(page: Path) -> list[str]:
    """Every `vqcc ...` that a page tells to run: lines of its shell blocks."""
    lines = [line for body in fences(page, "sh", "console", "bash") for line in body.splitlines()]
    bare = [line.removeprefix("$ ").removeprefix(".venv/bin/").split("  #")[0] for line in lines]
    return [line for line in bare if line.startswith("vqcc ")]


def mentions(page: Path) -> list[str]:
    """Every `vqcc ...` between backticks in a page's text: a synopsis, or a part of a command."""
    spans = re.findall(r"`([^`]+)`", FENCE.sub("", page.read_text()))
    return [line for line in (" ".join(span.split()) for span in spans) if re.match("vqcc [a-z-]", line)]


COMMANDS = [(page_name(page), line) for page in PAGES for line in shell_lines(page)]
MENTIONS = sorted({(page_name(page), line) for page in PAGES for line in mentions(page)})
SPECS = [
    (page_name(page), body)
    for page in PAGES
    for body in fences(page, "yaml")
    if not body.startswith("# fragment\n") and "vqcc_lock:" not in body
]


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_resolve(page: Path) -> None:
    text = FENCE.sub("", page.read_text())
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{path} has no heading {anchor}"


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The subcommand of a line's words, or vqcc itself, and the words after it."""
    own = {option for parameter in _vqcc.params for option in parameter.opts} | {"--help"}
    while words and words[0] in own:
        words = words[1:]
    if not words or words[0] == "COMMAND":
        return _vqcc, []
    command = _vqcc.get_command(click.Context(_vqcc), words[0])
    assert command is not None, f"vqcc has no {words[0]}"
    return command, words[1:]


def titles(cases: list[tuple[str, str]]) -> list[str]:
    return [f"{page}: {line}" for page, line in cases]


@pytest.mark.parametrize(("page", "line"), COMMANDS, ids=titles(COMMANDS))
def test_commands_to_run_parse(page: str, line: str) -> None:
    command, words = command_of(shlex.split(line)[1:])
    if words:
        command.make_context("vqcc", words)


@pytest.mark.parametrize(("page", "line"), MENTIONS, ids=titles(MENTIONS))
def test_commands_and_options_that_are_mentioned_exist(page: str, line: str) -> None:
    command, words = command_of(line.split()[1:])
    options = {option for parameter in command.params for option in parameter.opts} | {"--help"}
    shown = set(re.findall(r"(?<![\w-])--?[a-z][a-z-]*", " ".join(words)))
    assert shown <= options, f"vqcc {command.name} has no {', '.join(shown - options)}"


def test_there_are_commands_and_specs_to_test() -> None:
    shown = {line.split()[1] for _, line in COMMANDS + MENTIONS}
    assert shown >= set(_vqcc.list_commands(click.Context(_vqcc)))
    assert len(COMMANDS) >= 12
    assert len(SPECS) >= 3


@pytest.mark.parametrize(("page", "text"), SPECS, ids=[page for page, _ in SPECS])
def test_specs_are_valid(page: str, text: str) -> None:
    parse_any(text.encode(), page)


def test_the_lock_file_is_one(tmp_path: Path) -> None:
    path = tmp_path / "page.lock.yaml"
    path.write_text(fence("tune.md", "yaml", "vqcc_lock:"))
    lock = load_lock(path)
    assert lock is not None
    # As a library is made by it: of today's problem and tiles. Device code changes more often, and is only told.
    spec = load_spec(ROOT / "specs" / "demo-gemv.yaml")
    use = build_library(spec, toolchain=FakeToolchain(), cache=None, lock=lock).lock_use
    assert use is not None
    assert use.kernels == {"h200": ("m1_float16", "m16_float16")}, "paste a new session's file"


READY = sorted(path for path in (ROOT / "specs").glob("*.yaml") if not path.name.endswith(".lock.yaml"))


@pytest.mark.parametrize("path", READY, ids=lambda path: path.stem)
def test_ready_specs_are_valid_and_named_as_their_file(path: Path) -> None:
    assert load_any(path).name == path.stem
    assert path.read_text().startswith("# yaml-language-server: $schema=vqcc.schema.json\n# ")


def test_every_code_is_on_its_page() -> None:
    text = (ROOT / "docs" / "diagnostics.md").read_text()
    rows = re.findall(r"^\| (VQ\d{4}) \| (.*) \| (.*) \| (.*) \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == list(CODES)
    assert rows == [(code, title, *REASONS[code]) for code, title in CODES.items()]


def test_no_page_names_a_code_that_is_not_there() -> None:
    for page in PAGES:
        assert set(re.findall(r"VQ\d{4}", page.read_text())) <= set(CODES), page_name(page)


def test_every_exit_code_is_on_its_page() -> None:
    text = (ROOT / "docs" / "diagnostics.md").read_text()
    for code in ExitCode:
        assert re.search(rf"^\| {int(code)} \|", text, re.MULTILINE), code.name


def test_every_preset_gpu_and_level_is_on_its_page() -> None:
    algorithms = (ROOT / "docs" / "algorithms.md").read_text()
    spec = (ROOT / "docs" / "spec.md").read_text()
    for name in presets.names():
        assert f"| `{name}` |" in algorithms
        assert f"| `{name}` |" in spec
    gpus = (ROOT / "docs" / "gpus.md").read_text()
    for name in gpu_names():
        assert f"| `{name}` |" in gpus
    levels = (ROOT / "docs" / "levels.md").read_text()
    for level in LEVELS:
        assert f"`{level}`" in spec
        assert f"| `{level}` |" in levels


def test_the_table_of_presets_is_what_they_are() -> None:
    text = (ROOT / "docs" / "algorithms.md").read_text()
    for name in presets.named():
        algorithm = presets.resolve(name)
        scope = algorithm.scope.spec()
        if algorithm.scope.is_cache:
            heads, groups = algorithm.scope.cache_books(1, 128 // algorithm.vector_size)
            cells = [
                f"`{name}`",
                f"`{algorithm.label}`",
                algorithm.family,
                f"kv-head x {algorithm.scope.channels} channels",
                f"{algorithm.code_bits / algorithm.vector_size:.2f}",
                f"{algorithm.table_bytes:,} bytes",
                f"{heads * groups * algorithm.table_bytes:,} bytes",
            ]
            assert f"| {' | '.join(cells)} |\n" in text
            continue
        cells = [
            f"`{name}`",
            f"`{algorithm.label}`",
            algorithm.family,
            scope if isinstance(scope, str) else " x ".join(map(str, scope.values())),
            algorithm.scales.kind,
            f"{algorithm.residuals * algorithm.code_bits / algorithm.vector_size:.2f}",
            f"{algorithm.bits_per_weight(11008, 4096):.3f}",
            f"{algorithm.table_bytes:,} bytes",
        ]
        assert f"| {' | '.join(cells)} |\n" in text


def test_what_buckets_take_is_what_the_pages_say() -> None:
    """The size of packed codes, and each way to do without them."""
    algorithm, (n, k) = presets.resolve("aqlm-1x16"), (11008, 4096)
    codes = np.random.default_rng(0).integers(0, 1 << 16, (1, n, k // 8), dtype=np.uint16)
    layout = bucket_layout(algorithm, (n, k))
    others = algorithm.bits_per_weight(n, k) - algorithm.code_bits / algorithm.vector_size
    bits = 8 * pack_codes(codes, layout).nbytes / (n * k) + others
    levels, algorithms = ((ROOT / "docs" / page).read_text() for page in ("levels.md", "algorithms.md"))
    assert f"{bits:.2f} bits per weight\ninstead of {algorithm.bits_per_weight(n, k):.2f}" in levels
    assert f"{bits:.2f} bits per weight" in algorithms
    assert f"takes {layout.SLOT_BITS} bits" in levels

    def has_buckets(**changes: Any) -> bool:
        spec = make_spec("aqlm-1x16", **{"n": n, "k": k, "m": 1, "level": "best", **changes})
        problems = [problem for gpu in spec.gpu for problem in problems_of(spec, gpu)]
        return spec.level == "best" and not refusals_of_all(problems, "bucket")

    assert has_buckets()
    assert has_buckets(gpu="a100", k=1024)
    ways = (
        {"m": [1, 16]},
        {"level": "o4"},
        {"cache": {"shared": 1024}},
        {"gpu": ["h200", "rtx4090"]},
        {"gpu": "a100"},
    )
    assert [way for way in ways if has_buckets(**way)] == []


def test_own_codes_become_a_vq_tensor(tmp_path: Path) -> None:
    code = fence("vq-tensors.md", "python", "save_file")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    tensor = load(tmp_path / "own.safetensors")
    spec = parse_spec(fence("vq-tensors.md", "yaml", "name: own").encode(), "own.yaml")
    assert (tensor.shape, tensor.algorithm) == (spec.op.weight_shape, spec.algorithm)


def test_the_occupancy_example_prints_what_it_says() -> None:
    code = fence("gpus.md", "python", "blocks_per_sm")
    *_, wanted = code.strip().splitlines()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == wanted.removeprefix("# ")


def compiled_function(name: str, source: str, directory: Path) -> Any:
    """A C function of a page, by itself."""
    compiler = next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))))
    (directory / "reader.c").write_text(source)
    command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", "reader.so"]
    subprocess.run([*command, "reader.c"], cwd=directory, check=True)
    function = getattr(ctypes.CDLL(str(directory / "reader.so")), name)
    function.restype = ctypes.c_uint32
    return function


def test_the_c_reader_finds_every_rotated_code(tmp_path: Path) -> None:
    """The function of packed-layout.md against the packer, for rows and vectors that leave padding."""
    source = fence("packed-layout.md", "c", "rotated_code_of")
    code_of = compiled_function("rotated_code_of", source, tmp_path)
    for rows, vectors, residuals, code_bits in (
        (33, 40, 2, 8),
        (5, 64, 1, 8),
        (70, 33, 3, 12),
        (8, 50, 1, 12),
    ):
        layout = rotated_layout(vectors, residuals, code_bits)
        codes = np.random.default_rng(1).integers(
            0, 1 << code_bits, (residuals, rows, vectors), dtype=np.uint16
        )
        packed = pack_codes(codes, layout).tobytes()
        fields = (ctypes.c_uint32 * 5)(
            *(value for name, value in layout_mapping(layout).items() if name != "kind")
        )
        found = [
            [
                [code_of(fields, packed, rows, row, vector, stage) for vector in range(vectors)]
                for row in range(rows)
            ]
            for stage in range(residuals)
        ]
        np.testing.assert_array_equal(found, codes)


def test_the_c_reader_finds_every_code_of_a_fragment(tmp_path: Path) -> None:
    """The function of packed-layout.md against the packer: tiles or none, codes that straddle words, padding."""
    code_of = compiled_function(
        "fragment_code_of", fence("packed-layout.md", "c", "fragment_code_of"), tmp_path
    )
    for rows, layout in (
        (33, FragmentLayout(40, 2, 8, 2, 1, 1)),
        (70, FragmentLayout(100, 2, 12, 4, 3, 1)),
        (5, FragmentLayout(130, 1, 8, 4, 1, 64)),
        (64, FragmentLayout(31, 3, 10, 4, 4, 2)),
    ):
        shape = (layout.residuals, rows, layout.vectors)
        codes = np.random.default_rng(1).integers(0, 1 << layout.code_bits, shape, dtype=np.uint16)
        packed = pack_codes(codes, layout).tobytes()
        fields = (ctypes.c_uint32 * 6)(
            *(value for name, value in layout_mapping(layout).items() if name != "kind")
        )
        found = [
            [
                [code_of(fields, packed, rows, row, vector, stage) for vector in range(layout.vectors)]
                for row in range(rows)
            ]
            for stage in range(layout.residuals)
        ]
        np.testing.assert_array_equal(found, codes)


def test_the_c_reader_finds_every_code_of_a_bucket(tmp_path: Path) -> None:
    """The function of packed-layout.md against the packer: stages, panels that are not whole, more than one block."""
    code_of = compiled_function("bucket_code_of", fence("packed-layout.md", "c", "bucket_code_of"), tmp_path)
    for rows, layout in (
        (33, BucketLayout(40, 2, 16, 8192, 40)),
        (300, BucketLayout(50, 1, 14, 8192, 17)),
        (5, BucketLayout(100, 3, 12, 4096, 50)),
    ):
        shape = (layout.residuals, rows, layout.vectors)
        codes = np.random.default_rng(1).integers(0, 1 << layout.code_bits, shape, dtype=np.uint16)
        packed = pack_codes(codes, layout).tobytes()
        fields = (ctypes.c_uint32 * 5)(
            *(value for name, value in layout_mapping(layout).items() if name != "kind")
        )
        found = [
            [
                [code_of(fields, packed, rows, row, vector, stage) for vector in range(layout.vectors)]
                for row in range(rows)
            ]
            for stage in range(layout.residuals)
        ]
        np.testing.assert_array_equal(found, codes)


def test_the_c_reader_finds_every_code(tmp_path: Path) -> None:
    """The function of packed-layout.md against the packer, and the words and id of its example."""
    code_of = compiled_function("code_of", fence("packed-layout.md", "c", " code_of("), tmp_path)
    for vectors, residuals, code_bits in ((1376, 2, 12), (700, 1, 11), (48, 2, 8), (333, 5, 16), (90, 8, 1)):
        layout = choose_layout(vectors, residuals, code_bits)
        codes = np.random.default_rng(0).integers(0, 1 << code_bits, (residuals, 1, vectors), dtype=np.uint16)
        row = pack_codes(codes, layout)[0]
        words = (ctypes.c_uint32 * len(row))(*map(int, row))
        numbers = (
            layout.vectors,
            layout.residuals,
            layout.code_bits,
            layout.chunk_vectors,
            layout.chunk_words,
            layout.lanes,
        )
        fields = (ctypes.c_uint32 * 6)(*numbers)
        found = [
            [code_of(fields, words, vector, stage) for vector in range(vectors)] for stage in range(residuals)
        ]
        np.testing.assert_array_equal(found, codes[:, 0])


def test_the_packed_example_is_computed() -> None:
    text = (ROOT / "docs" / "packed-layout.md").read_text()
    layout = choose_layout(1376, 2, 12)
    codes = np.stack([np.arange(1376), 4095 - np.arange(1376)]).astype(np.uint16)[:, None]
    chunk = pack_codes(codes, layout)[0][80 * 12 : 81 * 12]
    shown = re.findall(r"0x[0-9a-f]{8}", "\n".join(re.findall(r"^ {11}0x.*$", text, re.MULTILINE)))
    assert shown == [f"0x{word:08x}" for word in chunk]
    assert f"`{layout_identity(presets.resolve('aqlm-3'), (4096, 11008), layout)}`" in text


def test_the_c_example_compiles(tmp_path: Path, cache_directory: Path) -> None:
    spec = load_spec(ROOT / "specs" / "demo-gemv.yaml")
    cache = CompileCache(cache_directory / "compiled", 1 << 30)
    write_library(build_library(spec, toolchain=find("nvrtc"), cache=cache), tmp_path / "library")
    (tmp_path / "main.c").write_text(fence("header.md", "c", "int main"))
    wheel = installed(["nvidia-cuda-runtime"])["nvidia-cuda-runtime"]
    include = wheel.root / "nvidia" / f"cu{wheel.version.partition('.')[0]}" / "include"
    compiler = next(filter(None, map(shutil.which, ("gcc", "clang", "cc"))))
    command = [compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", "-fsyntax-only"]
    own = ROOT / "templates" / "host" / "include"
    includes = [f"-I{include}", f"-I{own}", "-Ilibrary"]
    subprocess.run([*command, *includes, "main.c"], cwd=tmp_path, check=True)


def statuses_on(page: str) -> dict[str, int]:
    """Numbers of the statuses in a page's tables, by names less the prefix."""
    rows = re.findall(
        r"^\| ((?:`P_\w+`(?:, )?)+) \| ([\d, ]+) \|", (ROOT / "docs" / page).read_text(), re.MULTILINE
    )
    pairs = [(re.findall(r"`P_(\w+)`", names), numbers.split(", ")) for names, numbers in rows]
    return {
        name: int(number) for names, numbers in pairs for name, number in zip(names, numbers, strict=True)
    }


def test_statuses_of_headers_are_on_their_pages() -> None:
    numbers = {status.name: status.number for status in STATUSES}
    assert statuses_on("header.md") == {name: numbers[name] for name in names_of("cache")}
    assert statuses_on("cubin.md") == {name: numbers[name] for name in names_of("kernels")}
    models = (ROOT / "docs" / "models.md").read_text()
    for name in set(names_of("model")) - set(names_of("cache")):
        assert f"`P_{name}` ({numbers[name]})" in models


def test_the_version_of_headers_and_the_size_of_arguments_are_on_their_pages() -> None:
    for page in ("header.md", "models.md", "cubin.md"):
        (row,) = re.findall(
            r"^\| `P_ABI_VERSION` \|(.*)\|$", (ROOT / "docs" / page).read_text(), re.MULTILINE
        )
        assert re.findall(r"(?<=, )\[?(\d+)\b", row) == [str(ABI_VERSION)], page
    (row,) = re.findall(
        r"^\| `p_args` \| device addresses(.*)$", (ROOT / "docs" / "header.md").read_text(), re.MULTILINE
    )
    assert row.endswith(f"; {ARGS_BYTES['weights']['args']} bytes |")


def test_the_page_of_cmake_names_the_line_that_fails() -> None:
    page = (ROOT / "docs" / "cmake.md").read_text()
    ((name, number),) = re.findall(r"CMake Error at (\S+):(\d+) \(message\)", page)
    assert "message(FATAL_ERROR" in (ROOT / name).read_text().splitlines()[int(number) - 1]
