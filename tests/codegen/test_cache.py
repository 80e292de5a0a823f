from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import vqcc
from vqcc.codegen import cache as module
from vqcc.codegen.cache import CompileCache, cache_key, compile_cached, decode, encode
from vqcc.codegen.resources import Resources
from vqcc.codegen.toolchain import NO_HEADERS, Compiled, find
from vqcc.diagnostics import VqccError

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 1 << 20
USED = {"k": Resources(8, 128, 0, 0, 0, 1), "a": Resources(255, 0, 16, 4, 4, 0)}
COMPILED = Compiled(b"\x7fELF\n\0cubin", "ptx\n", USED, "log\n")


def key_of(number: int) -> str:
    return hashlib.sha256(str(number).encode()).hexdigest()


def entry(cache: CompileCache, key: str) -> Path:
    return cache.directory / key[:2] / key[2:]


def temporaries(directory: Path) -> list[Path]:
    return [path for path in directory.rglob("*") if path.name.startswith(".tmp-")]


@pytest.fixture
def cache(tmp_path: Path) -> CompileCache:
    return CompileCache(tmp_path / "cache", LIMIT)


@dataclass
class Counting:
    """A toolchain that remembers what it was asked to compile."""

    identity: str = "test 1"
    options: tuple[str, ...] = ("-a",)
    name: str = "test"
    minimum_driver: str = "580"
    count: int = 0

    def compile(
        self,
        source: str,
        *,
        target: str,
        want_ptx: bool,
        file_name: str,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> Compiled:
        self.count += 1
        return dataclasses.replace(COMPILED, ptx="ptx" if want_ptx else None, log=f"{source} {target}")


def fetch(toolchain: Counting, cache: CompileCache | None, **changes: object) -> Compiled:
    request = {"source": "s", "target": "sm_90", "want_ptx": False, "file_name": "x.cu", **changes}
    return compile_cached(toolchain, cache, **request)  # type: ignore[arg-type]


def test_what_was_put_is_got(cache: CompileCache) -> None:
    assert cache.get(key_of(1)) is None
    cache.put(key_of(1), b"one")
    cache.put(key_of(2), b"")
    assert (cache.get(key_of(1)), cache.get(key_of(2)), cache.get(key_of(3))) == (b"one", b"", None)
    assert CompileCache(cache.directory, LIMIT).get(key_of(1)) == b"one"
    cache.put(key_of(1), b"another")
    assert cache.get(key_of(1)) == b"another"
    assert cache.warnings == ()
    assert temporaries(cache.directory) == []


@settings(max_examples=50, deadline=None, derandomize=True)
@given(
    cubin=st.binary(max_size=200),
    ptx=st.none() | st.text(max_size=50),
    log=st.text(max_size=50),
    numbers=st.lists(st.integers(0, 1 << 20), min_size=6, max_size=6),
)
def test_results_survive_their_encoding(cubin: bytes, ptx: str | None, log: str, numbers: list[int]) -> None:
    compiled = Compiled(cubin, ptx, {"k": Resources(*numbers)}, log)
    assert decode(encode(compiled)) == compiled


def test_equal_results_encode_to_equal_bytes() -> None:
    turned = dataclasses.replace(COMPILED, resources=dict(reversed(list(COMPILED.resources.items()))))
    assert encode(COMPILED) == encode(turned)


@pytest.mark.parametrize("key", ["", "a" * 63, "a" * 65, "A" * 64, "../" + "a" * 61, "a" * 64 + "\n"])
def test_keys_cannot_name_other_files(cache: CompileCache, key: str) -> None:
    for use in (cache.get, lambda wrong: cache.put(wrong, b""), cache.discard):
        with pytest.raises(ValueError, match="not a cache key"):
            use(key)


def test_every_truncation_is_a_miss_and_is_removed(cache: CompileCache) -> None:
    cache.put(key_of(1), b"payload")
    whole = entry(cache, key_of(1)).read_bytes()
    for end in range(len(whole)):
        entry(cache, key_of(1)).write_bytes(whole[:end])
        assert cache.get(key_of(1)) is None
        assert not entry(cache, key_of(1)).exists()
    assert cache.warnings == ()


def test_every_changed_byte_is_a_miss_and_is_removed(cache: CompileCache) -> None:
    cache.put(key_of(1), b"payload")
    whole = entry(cache, key_of(1)).read_bytes()
    for place in range(len(whole)):
        entry(cache, key_of(1)).write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        assert cache.get(key_of(1)) is None
        assert not entry(cache, key_of(1)).exists()


def test_compiles_once() -> None:
    toolchain = Counting()
    assert fetch(toolchain, None) == fetch(toolchain, None)
    assert toolchain.count == 2


def test_a_cached_result_equals_the_first(cache: CompileCache) -> None:
    toolchain = Counting()
    first = fetch(toolchain, cache, want_ptx=True)
    assert fetch(toolchain, cache, want_ptx=True) == first
    assert toolchain.count == 1


@pytest.mark.parametrize(
    "change",
    [{"source": "s "}, {"target": "sm_89"}, {"want_ptx": True}, {"file_name": "y.cu"}],
    ids=str,
)
def test_whatever_shapes_the_result_is_in_the_key(cache: CompileCache, change: dict[str, object]) -> None:
    toolchain = Counting()
    fetch(toolchain, cache)
    fetch(toolchain, cache, **change)
    assert toolchain.count == 2


def test_the_toolchain_is_in_the_key(monkeypatch: pytest.MonkeyPatch) -> None:
    def key(toolchain: Counting) -> str:
        return cache_key(toolchain, "s", target="sm_90", want_ptx=False, file_name="x.cu")

    keys = {key(Counting()), key(Counting(identity="test 2")), key(Counting(options=("-a", "-b")))}
    monkeypatch.setattr(module, "FORMAT", 2)
    assert len(keys | {key(Counting())}) == 4


def test_the_key_is_the_same_everywhere() -> None:
    expected = "9b0f27fb9200b59e"
    found = cache_key(Counting(), "s", target="sm_90", want_ptx=False, file_name="x.cu")
    assert found.startswith(expected), "changing what a key covers needs a new FORMAT"


@pytest.mark.parametrize(
    "payload", [b"", b"{}\n", b"[]\n", b"null\n", b"\xff\n", encode(COMPILED)[:-1], encode(COMPILED) + b"x"]
)
def test_an_entry_with_another_content_is_compiled_anew(cache: CompileCache, payload: bytes) -> None:
    toolchain = Counting()
    cache.put(cache_key(toolchain, "s", target="sm_90", want_ptx=False, file_name="x.cu"), payload)
    fetch(toolchain, cache)
    fetch(toolchain, cache)
    assert toolchain.count == 1


def test_with_a_real_compiler(cache: CompileCache) -> None:
    source = 'extern "C" __global__ void k(int* p) { p[0] = 1; }'
    results = [
        compile_cached(find("nvrtc"), cache, source, target="sm_90", want_ptx=True, file_name="k.cu")
        for _ in range(2)
    ]
    assert results[0] == results[1]
    assert cache.stats().entries == 1


def test_errors_are_not_cached(cache: CompileCache, tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(VqccError):
            compile_cached(
                find("nvrtc", keep_failed=tmp_path),
                cache,
                "?",
                target="sm_90",
                want_ptx=False,
                file_name="k.cu",
            )
    assert cache.stats().entries == 0


def test_the_least_recently_used_go_first(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path, 10_000)
    for number in range(8):
        cache.put(key_of(number), bytes(1000))
        os.utime(entry(cache, key_of(number)), (1000 + number, 1000 + number))
    assert cache.get(key_of(0)) is not None  # now the most recently used
    for number in (8, 9):
        cache.put(key_of(number), bytes(1000))
    assert cache.stats().total_bytes <= 10_000
    held = {number for number in range(10) if entry(cache, key_of(number)).exists()}
    assert {0, 8, 9} <= held
    assert held == {0, *range(10 - len(held) + 1, 10)}


def test_a_new_process_prunes_what_earlier_ones_left(tmp_path: Path) -> None:
    big = CompileCache(tmp_path, LIMIT)
    for number in range(20):
        big.put(key_of(number), bytes(1000))
    CompileCache(tmp_path, 5000).put(key_of(20), bytes(1000))
    assert CompileCache(tmp_path, 5000).stats().total_bytes <= 5000


def test_an_entry_larger_than_the_limit_does_not_stay(tmp_path: Path) -> None:
    cache = CompileCache(tmp_path, 100)
    cache.put(key_of(1), bytes(1000))
    assert cache.stats().entries == 0
    assert cache.warnings == ()


def test_stats(cache: CompileCache) -> None:
    assert (cache.stats().entries, cache.stats().total_bytes, cache.stats().limit_bytes) == (0, 0, LIMIT)
    cache.put(key_of(1), b"x" * 100)
    (cache.directory / "notes").mkdir()
    (cache.directory / "notes" / "mine").write_text("not ours")
    (cache.directory / key_of(1)[:2] / ".tmp-1").write_bytes(b"half")
    assert cache.stats().entries == 1
    assert cache.stats().total_bytes == entry(cache, key_of(1)).stat().st_size


def test_only_old_temporary_files_are_swept(cache: CompileCache) -> None:
    group = cache.directory / "00"
    group.mkdir(parents=True)
    for name, age in (("young", 10.0), ("old", 10_000.0)):
        (group / f".tmp-{name}").write_bytes(b"half")
        then = time.time() - age
        os.utime(group / f".tmp-{name}", (then, then))
    cache.put(key_of(1), b"")
    assert [path.name for path in temporaries(cache.directory)] == [".tmp-young"]


def test_foreign_files_are_never_pruned(tmp_path: Path) -> None:
    mine = tmp_path / "notes" / "mine"
    mine.parent.mkdir()
    mine.write_bytes(bytes(10_000))
    cache = CompileCache(tmp_path, 100)
    cache.put(key_of(1), bytes(1000))
    assert mine.exists()


def test_a_place_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    cache = CompileCache(tmp_path / "file" / "cache", LIMIT)
    toolchain = Counting()
    fetch(toolchain, cache)
    fetch(toolchain, cache)
    assert toolchain.count == 2
    assert [item.code for item in cache.warnings] == ["VQ0702"]
    assert cache.warnings[0].severity == "warning"
    assert cache.stats().entries == 0


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("step", ["mkdir", "fsync", "replace"])
def test_a_disk_that_refuses(
    cache: CompileCache, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    cache.put(key_of(1), b"one")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, step, refuse)
    toolchain = Counting()
    fetch(toolchain, cache)
    monkeypatch.undo()
    assert toolchain.count == 1
    assert [item.code for item in cache.warnings] == ["VQ0702"]
    assert os.strerror(number) in cache.warnings[0].message
    assert temporaries(cache.directory) == []
    assert cache.get(key_of(1)) == b"one"  # what can be read still serves


def test_an_entry_that_cannot_be_read(cache: CompileCache) -> None:
    entry(cache, key_of(1)).mkdir(parents=True)
    assert cache.get(key_of(1)) is None
    assert [item.code for item in cache.warnings] == ["VQ0702"]


def test_a_directory_open_to_everybody_is_not_trusted(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    cache = CompileCache(tmp_path, LIMIT)
    toolchain = Counting()
    fetch(toolchain, cache)
    fetch(toolchain, cache)
    assert toolchain.count == 2
    assert "everybody may write" in cache.warnings[0].message
    assert list(tmp_path.iterdir()) == []


def test_what_it_makes_is_private(cache: CompileCache) -> None:
    cache.put(key_of(1), b"")
    assert cache.directory.stat().st_mode & 0o777 == 0o700


def test_threads(cache: CompileCache) -> None:
    def work() -> None:
        for number in range(20):
            cache.put(key_of(number), key_of(number).encode() * 100)
            assert cache.get(key_of(number)) in (None, key_of(number).encode() * 100)

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.stats().entries == 20
    assert cache.warnings == ()
    assert temporaries(cache.directory) == []


WRITER = """
import random, sys
from pathlib import Path
from vqcc.codegen.cache import CompileCache
from hashlib import sha256
generator = random.Random(int(sys.argv[2]))
cache = CompileCache(Path(sys.argv[1]), 100_000)
print("ready", flush=True)
while True:
    key = sha256(str(generator.randrange(40)).encode()).hexdigest()
    found = cache.get(key)
    if found not in (None, key.encode() * 100) or cache.warnings:
        print("WRONG", found, cache.warnings, flush=True)
        break
    cache.put(key, key.encode() * 100)
"""


def start_writer(directory: Path, seed: int) -> subprocess.Popen[bytes]:
    root = str(Path(vqcc.__file__).parents[1])
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(directory), str(seed)],
        stdout=subprocess.PIPE,
        env={"PYTHONPATH": root},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def end_writer(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.read() == b""
    process.wait()


def kill_writers(directory: Path, kills: int) -> None:
    """Two processes write, read and prune the same keys; one after the other is killed and replaced."""
    generator = random.Random(20)
    writers = [start_writer(directory, 0), start_writer(directory, 1)]
    try:
        for number in range(kills):
            time.sleep(generator.uniform(0.0, 0.03))
            end_writer(writers.pop(0))
            writers.append(start_writer(directory, 2 + number))
    finally:
        for process in writers:
            process.kill()
    for process in writers:
        end_writer(process)
    cache = CompileCache(directory, LIMIT)
    for number in range(40):
        assert cache.get(key_of(number)) in (None, key_of(number).encode() * 100)
    assert cache.warnings == ()
    for path in temporaries(directory):
        os.utime(path, (0, 0))
    cache.put(key_of(0), b"")
    assert temporaries(directory) == []


def test_writers_killed_at_random(tmp_path: Path) -> None:
    kill_writers(tmp_path, 15)


@pytest.mark.full
def test_writers_killed_at_random_100_times(tmp_path: Path) -> None:
    kill_writers(tmp_path, 100)
