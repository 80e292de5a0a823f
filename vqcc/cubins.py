"""Hand-written CUDA source to cubins: what `vqcc cubin` does, so that an engine's own kernels need no CUDA toolkit."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from vqcc.diagnostics import Diagnostic, ExitCode, Span, VqccError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from vqcc.codegen.cache import CompileCache
    from vqcc.codegen.embedding import Machine
    from vqcc.codegen.toolchain import Compiled, RefusedSourceError, Toolchain
    from vqcc.codegen.written_source import WrittenSource
    from vqcc.gpus.model import Gpu

__all__ = [
    "KINDS",
    "STANDARD_HEADERS",
    "CubinOptions",
    "Kind",
    "compile_source",
    "output_names",
    "targets_of",
]

Kind = Literal["cubin", "object", "array"]
KINDS: tuple[Kind, ...] = ("cubin", "object", "array")

#: What compilers say of a line: `kernels.cu(12): error: ...`, and preprocessors: `kernels.cu:12:3: error: ...`.
_MESSAGE = re.compile(
    r"^(?P<file>[A-Za-z0-9_.-]+)(?:\((?P<line>\d+)\)|:(?P<place>\d+)(?::\d+)?):"
    r" (?:fatal |catastrophic )?error(?: #[0-9A-Z-]+)?: (?P<text>.*)$"
)
#: What they say of an include that leads nowhere.
_NO_FILE = re.compile(r'cannot open source file "(?P<name>.+)"|(?P<other>.+): No such file or directory')
_SHOWN_ERRORS = 20
#: Names of files that are specs, and no sources, end so.
_SPEC_SUFFIXES = (".yaml", ".yml")
#: Headers of the standard library that CUDA has as <cuda/std/...>.
STANDARD_HEADERS = frozenset(
    re.findall(
        r"\w+",
        """
        algorithm array atomic barrier bit bitset cassert cfloat charconv chrono climits cmath complex concepts cstddef
        cstdint cstdlib cstring ctime functional initializer_list iterator latch limits memory numbers numeric optional
        ranges ratio semaphore span string_view tuple type_traits utility variant version
        """,
    )
)


@dataclass(frozen=True)
class CubinOptions:
    """For which GPUs, where to, and as what; an object is for hosts of `machine`."""

    gpus: tuple[str, ...]
    out: Path
    emit: tuple[Kind, ...] = ("cubin",)
    machine: Machine | None = None


def compile_source(
    path: Path, options: CubinOptions, toolchain: Toolchain, cache: CompileCache | None
) -> dict[str, Any]:
    """Compile a source to the bundle `options.out/<its name>` and say what was made.

    Raises VqccError with every error of the source; then nothing is written.
    """
    from vqcc.codegen.bundle import write_bundle
    from vqcc.codegen.manifest import WRITTEN_KERNELS
    from vqcc.codegen.written_source import read_source

    name = name_of(path)
    targets = targets_of(options.gpus)
    source = read_source(path)
    made = {target: _compiled(source, name, target, toolchain, cache) for target in targets}
    kernels = _kernels(path, source, made)
    files = _files(path, name, kernels, {target: each.cubin for target, each in made.items()}, options)
    directory = options.out / name
    fields = {
        "kind": WRITTEN_KERNELS,
        "name": name,
        "toolchain": {"identity": toolchain.identity, "options": list(toolchain.options)},
        "minimum_driver": toolchain.minimum_driver,
        "targets": {target: list(names) for target, names in targets.items()},
        "kernels": {target: _resources(each) for target, each in made.items()},
    }
    changed = write_bundle(directory, files, fields=fields)
    return {
        "name": name,
        "source": str(path),
        "directory": str(directory),
        "state": "written" if changed else "unchanged",
        "files": {file: len(content) for file, content in sorted(files.items())},
        "targets": fields["targets"],
        "kernels": fields["kernels"],
        "sources": [str(each) for each in source.files],
    }


def name_of(path: Path) -> str:
    """The name of a source's kernels: the file's, less its ending. VqccError VQ0207 or VQ0208 for no name of C."""
    from pydantic_core import PydanticCustomError

    from vqcc.spec.identifier import check_library_name

    try:
        return check_library_name(path.stem, "the source's name")
    except PydanticCustomError as error:
        context = error.context or {}
        raise VqccError(
            Diagnostic(error.type, str(context["text"]), help=f"{context['help']}; files and symbols bear it")
        ) from error


def targets_of(gpus: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Architectures of the GPUs, in order, each with those that it serves. VqccError VQ0401 for an unknown GPU."""
    from vqcc import gpus as known

    loaded: list[Gpu] = [known.load(name) for name in dict.fromkeys(gpus)]
    return {
        target: tuple(gpu.name for gpu in loaded if gpu.target == target)
        for target in dict.fromkeys(gpu.target for gpu in loaded)
    }


def output_names(name: str, targets: Iterable[str], emit: Iterable[Kind]) -> tuple[str, ...]:
    """Names of the files that a compilation writes, its manifest last."""
    from vqcc.codegen import manifest
    from vqcc.outputs import embedded_files

    kinds = set(emit)
    cubins = [f"{name}.{target}.cubin" for target in targets] if "cubin" in kinds else []
    return (*embedded_files(name, kinds), *cubins, manifest.NAME)


def _compiled(
    source: WrittenSource, name: str, target: str, toolchain: Toolchain, cache: CompileCache | None
) -> Compiled:
    from vqcc.codegen.cache import compile_cached
    from vqcc.codegen.cubin import HiddenKernelsError
    from vqcc.codegen.toolchain import RefusedSourceError

    try:
        return compile_cached(
            toolchain,
            cache,
            source.text,
            target=target,
            want_ptx=False,
            file_name=f"{name}.cu",
            headers=source.headers,
        )
    except RefusedSourceError as error:
        raise _refused(source, target, error) from error
    except HiddenKernelsError as error:
        raise _nameless(source, error.names) from error


def _refused(source: WrittenSource, target: str, error: RefusedSourceError) -> VqccError:
    """What the compiler says, each error at its place in the file that has it."""
    found = []
    for line in error.log.split("\n"):
        match = _MESSAGE.match(line.strip())
        if match is None:
            continue
        file = source.shown.get(match["file"])
        number = int(match["line"] or match["place"])
        found.append(_said(f"for {target}: ", match["text"], file, number))
    if not found:
        found = [
            Diagnostic("VQ0609", f"{source.files[0]} does not compile for {target}", help=error.log.strip())
        ]
    if source.files[0].suffix in _SPEC_SUFFIXES:
        help_text = "this takes CUDA C++; a spec is compiled by `vqcc compile`"
        found[0] = replace(found[0], help=help_text)
    return VqccError(*found[:_SHOWN_ERRORS], exit_code=ExitCode.INPUT)


def _said(before: str, text: str, file: Path | None, number: int) -> Diagnostic:
    """One error of a compiler, at the line `number` of `file` if it is one of the source's."""
    if file is None:
        return Diagnostic("VQ0609", before + text)
    line = _line(file, number)
    missing = _NO_FILE.search(text)
    name = missing and (missing["name"] or missing["other"])
    written = next((each for each in (f'"{name}"', f"<{name}>") if name and each in line), None)
    if name and written:
        column = line.index(written) + 2
        span = Span(str(file), number, column, column + len(name), line)
        return Diagnostic("VQ0610", "an include leads nowhere", span, help=_where_to_look(written))
    return Diagnostic("VQ0609", before + text, _line_span(file, number, line))


def _where_to_look(include: str) -> str:
    """What helps whoever wrote an include, with its quotes or brackets, that leads nowhere."""
    name = include[1:-1]
    if include[0] == '"':
        return "names are relative to the file that includes them; else it is looked for among CUDA's"
    of_c = re.fullmatch(r"(\w+)\.h", name)
    own = f"c{of_c[1]}" if of_c else name
    if own in STANDARD_HEADERS:
        return (
            f"the host's headers are not there: <cuda/std/{own}>, of CUDA's, is what stands in for <{name}>"
        )
    return (
        "names in <> are looked for among CUDA's headers alone, the host's are not there: files of one's own are "
        'included with ""'
    )


def _line(path: Path, number: int) -> str:
    """The text of a line; none where the file has become shorter."""
    from vqcc.codegen.written_source import lines_of

    lines = lines_of(path.read_text(encoding="utf-8-sig", errors="replace"))
    return lines[number - 1] if 0 < number <= len(lines) else ""


def _line_span(path: Path, number: int, text: str) -> Span:
    """All of a line: compilers name no columns."""
    first = len(text) - len(text.lstrip()) + 1
    return Span(str(path), number, first, max(first + 1, len(text.rstrip()) + 1), text)


def _nameless(source: WrittenSource, names: Sequence[str]) -> VqccError:
    """For kernels whose `names` no program knows, or, if there are none, for no kernel at all."""
    help_text = 'declare kernels as extern "C" __global__ void name(...), neither static nor templates'
    if not names:
        return VqccError(Diagnostic("VQ0612", f"{source.files[0]} has no kernel", help=help_text))
    return VqccError(
        *(
            Diagnostic(
                "VQ0612", f'kernel {name} is not extern "C"', _kernel_span(source, name), help=help_text
            )
            for name in names[:_SHOWN_ERRORS]
        )
    )


def _kernel_span(source: WrittenSource, symbol: str) -> Span | None:
    """The line that declares a C++ kernel: its name stands in the symbol after its length."""
    from vqcc.codegen.written_source import lines_of

    for shown, text in zip(source.shown.items(), source.headers.values(), strict=True):
        for number, line in enumerate(lines_of(text)):  # from 1 on, after the line that names the file
            words = re.findall(r"\w+", line)
            if "__global__" in words and any(f"{len(word)}{word}" in symbol for word in words):
                return _line_span(shown[1], number, line)
    return None


def _kernels(path: Path, source: WrittenSource, made: Mapping[str, Compiled]) -> tuple[str, ...]:
    """Names of the kernels, the same for all targets."""
    first, *others = (tuple(each.resources) for each in made.values())
    mangled = [name for name in first if name.startswith("_Z")]
    if mangled:
        raise _nameless(source, mangled)
    for target, names in zip(list(made)[1:], others, strict=True):
        if names != first:
            text = f"{path} has other kernels for {target} than for {next(iter(made))}"
            help_text = "one header names them for all: leave none out by #if, or compile for each by itself"
            raise VqccError(Diagnostic("VQ0611", text, help=help_text))
    return first


def _files(
    path: Path, name: str, kernels: Sequence[str], cubins: Mapping[str, bytes], options: CubinOptions
) -> dict[str, bytes]:
    from vqcc.codegen.written_kernels import cubin_files, written_files
    from vqcc.spec.identifier import to_identifier

    files = cubin_files(name, cubins) if "cubin" in options.emit else {}
    if not {"object", "array"} & set(options.emit):
        return files
    try:
        embedded = written_files(
            name,
            to_identifier(name),
            kernels,
            cubins,
            arrays="array" in options.emit,
            machine=options.machine if "object" in options.emit else None,
        )
    except ValueError as error:
        help_text = 'the header names each in capitals: give kernels plain names, in extern "C"'
        raise VqccError(Diagnostic("VQ0611", f"{path}: {error}", help=help_text)) from error
    return {**files, **embedded}


def _resources(compiled: Compiled) -> dict[str, dict[str, Any]]:
    return {kernel: resources.to_json() for kernel, resources in compiled.resources.items()}
