"""Causes and remedies of diagnostics: the toolchain, files, the cache and bundles."""

from __future__ import annotations

REASONS = {
    "VQ0601": (
        "NVRTC's wheel or an nvcc is not installed, or is not where it was looked for.",
        "Install what the help names; `vqcc doctor` shows what is there.",
    ),
    "VQ0602": (
        "NVRTC compiles against CUDA's headers, and they are not installed.",
        "pip install the wheel in the help.",
    ),
    "VQ0603": (
        "The compiler refuses what vqcc emitted, which is a bug of vqcc or of a template that was changed.",
        "Report the spec with the source that was kept; `vqcc doctor` checks the toolchain.",
    ),
    "VQ0604": (
        "The compiler is too old or too new for the GPU, or of a CUDA that vqcc was not tried with.",
        "Use a CUDA that the help names, or another GPU.",
    ),
    "VQ0605": (
        "The compiler did not start, did not end in time, or ended without saying what is wrong.",
        "Run `vqcc doctor`; check that nvcc and its host compiler work by themselves.",
    ),
    "VQ0606": (
        "The cubin lacks a kernel or a figure that vqcc asked for: the compiler and vqcc do not "
        "understand each other.",
        "Use the CUDA versions that vqcc asks for; `vqcc doctor` shows them.",
    ),
    "VQ0607": (
        "Every tile that the planner has needs more registers than a thread has, so that the kernel "
        "would spill.",
        "Lower `cache.registers` or leave it out; without it, report the spec.",
    ),
    "VQ0608": (
        "The assembler lets multiplies of warpgroups wait for one another (its notices C7510 and C7511), in every "
        "tile that does not spill. The kernel is right but slow.",
        "Report the spec; another level or GPU may have a faster kernel.",
    ),
    "VQ0609": (
        "A source that `vqcc cubin` was given is not CUDA C++ that the compiler takes.",
        "Mend the line at the caret; the cause may lie before it.",
    ),
    "VQ0610": (
        'A line `#include "..."` names no file that is there, names being relative to the file that has the line; or '
        "one with <> no header of CUDA: those of the host are not there.",
        "Mend the name; headers of CUDA are included with <>, `<cuda/std/cstdint>` instead of `<stdint.h>`.",
    ),
    "VQ0611": (
        "The header of hand-written kernels names each in capitals, for all architectures: two have one name, a name "
        "is no word of C, or an architecture lacks one.",
        "Rename the kernel; leave none out by `#if`.",
    ),
    "VQ0612": (
        "A program finds a kernel by its name, and a hand-written source has none that keeps it: no kernel at all, or "
        'one that is not `extern "C"`, is static or is a template.',
        'Declare it as `extern "C" __global__ void name(...)`; call templates from such kernels.',
    ),
    "VQ0701": (
        "A directory or a stream cannot be read or written: permissions, a full disk, a name that is a "
        "file. Bundles are whole, the old or the new one.",
        "See to what the message says, or name another place with `-o`.",
    ),
    "VQ0702": (
        "The cache directory cannot be written to, is another user's, or may be written by everybody. "
        "Commands go on without it, and compile anew each time.",
        "Give a directory of your own: `--cache-dir`, or XDG_CACHE_HOME.",
    ),
    "VQ0703": (
        "A bundle is replaced as a whole, and the directory holds files that would be lost.",
        "Move them, or choose another directory with `-o`.",
    ),
    "VQ0704": (
        "The directory is not there, or has no `manifest.json` of vqcc.",
        "Give OUT/<name>, the directory that `vqcc compile` wrote.",
    ),
    "VQ0705": (
        "A file of the bundle or its manifest is not what `vqcc compile` wrote: changed, missing, added "
        "or cut.",
        "Compile the spec again; keep files of your own elsewhere.",
    ),
    "VQ0706": (
        "The bundle was written by a vqcc with another format.",
        "Compile the spec again with this one.",
    ),
    "VQ0707": (
        "A bundle is one flat directory of plain file names.",
        "Give the library a plain name.",
    ),
    "VQ0708": (
        "Another process has held the output's parent directory for a minute.",
        "Wait for it to end, or choose another directory with `-o`.",
    ),
    "VQ0709": (
        "Directories and symbols bear a library's name, in which - and _ are one: two specs of the command have "
        "the same, or one is given twice, or headers of two would define one symbol.",
        "Rename one of them, or leave it out.",
    ),
    "VQ0710": (
        "No diagnostic has this code.",
        "Take the code from the message; docs/diagnostics.md lists all.",
    ),
    "VQ0711": (
        "An output would replace what the command reads, or another of its outputs, if only by a link "
        "or within the library. It was not written.",
        "Name another output.",
    ),
    "VQ0712": (
        "The output is a directory, a socket or a block device. Nothing was written.",
        "Name a file, a pipe or a character device.",
    ),
    "VQ0713": (
        "The command needs a library over a weight and was given one over a KV cache, or the other way round.",
        "Weights are named by --tensor, keys and values of a cache by --keys and --values.",
    ),
}
