"""Causes and remedies of diagnostics: validation, running kernels and the emulator."""

from __future__ import annotations

REASONS = {
    "VQ0801": (
        "A kernel's result is farther from float64 than rounding explains: a bug of vqcc or of the "
        "toolchain, or packed weights that are not those of `--tensors`.",
        "Validate without `--packed`; if that fails too, report the spec and `vqcc doctor`.",
    ),
    "VQ0802": (
        "The emulator needs the library's `.cu`, a GPU its cubin, `vqcc explain` its plan, and the "
        "bundle was written without.",
        "Compile with `--emit` naming it among the others.",
    ),
    "VQ0803": (
        "The VQ tensor is of another algorithm or shape than the library was compiled for.",
        "Compile a spec with the tensor's algorithm and shape.",
    ),
    "VQ0804": (
        "A kernel changed bytes beside the rows that it should write: a bug of vqcc.",
        "Report the spec.",
    ),
    "VQ0805": (
        "The library has no kernels for the GPU that was named, or for the one of this machine.",
        "Compile the spec for it: `--gpu`, or the spec's `gpu`.",
    ),
    "VQ0806": (
        "There is no GPU, no driver, or no PyCUDA to run kernels through.",
        "Run `vqcc doctor`; `--backend emulate` needs none of them.",
    ),
    "VQ0807": (
        "The driver refused a call, or a kernel failed while it ran.",
        "Run `vqcc doctor`; if validation on the emulator passes, report the spec and the message.",
    ),
    "VQ0808": (
        "The same launch gave other bits the second time, so that the order of its sums is not fixed: a "
        "bug of vqcc.",
        "Report the spec.",
    ),
    "VQ0820": (
        "The emulator compiles kernels for the CPU, and there is no C++ compiler on the PATH.",
        "Install g++ 11 or newer, or validate on a GPU with `--backend cuda`.",
    ),
    "VQ0821": (
        "The host compiler refuses the emulator itself: it is too old, or its installation is not whole.",
        "Use g++ 11 or newer.",
    ),
    "VQ0822": (
        "The host compiler refuses the emitted code, though it may compile for the GPU.",
        "Report the spec with the compiler's lines; try another compiler.",
    ),
    "VQ0823": (
        "The source that is emulated has no kernel of the name that was launched.",
        "Use a name that the message lists.",
    ),
    "VQ0824": (
        "The arguments of an emulated launch are not those of the kernel's parameters.",
        "Give as many, of the types that the message says.",
    ),
    "VQ0825": (
        "The grid, the block or the shared memory of an emulated launch is one that no GPU takes.",
        "Keep to the limits that the message says.",
    ),
    "VQ0826": (
        "The system gives no room for the buffers of a launch.",
        "Use a smaller op, lift limits on memory (`ulimit -v`), or use a machine with more.",
    ),
    "VQ0827": (
        "The compiled kernels cannot be mapped, as on a file system that forbids execution.",
        "Set XDG_CACHE_HOME to a place that allows it.",
    ),
    "VQ0830": (
        "A kernel reads or writes where no buffer is: past an end, through a null or wild pointer, or "
        "on another thread's stack.",
        "A bug of vqcc: report the spec. In a kernel of your own, check the index at the place shown.",
    ),
    "VQ0831": (
        "A kernel reads shared or global memory that nothing has written.",
        "A bug of vqcc: report the spec. In a kernel of your own, write it first.",
    ),
    "VQ0832": (
        "A kernel writes to an input or to a constant.",
        "A bug of vqcc: report the spec. In a kernel of your own, write to an output.",
    ),
    "VQ0833": (
        "Two threads of a block use a byte of shared memory without a barrier between, one of them writing.",
        "A bug of vqcc: report the spec. In a kernel of your own, add __syncthreads() or __syncwarp().",
    ),
    "VQ0834": (
        "Two blocks use a byte without an order between them, or one reads what its SM's cache may hold "
        "from before.",
        "A bug of vqcc: report the spec. In a kernel of your own, use atomics, or a fence and a counter.",
    ),
    "VQ0835": (
        "An address is no multiple of the size of what is read or written there.",
        "A bug of vqcc: report the spec. In a kernel of your own, align the address.",
    ),
    "VQ0836": (
        "Some threads of a block or a cluster wait at a barrier that others never reach, or for a phase that never "
        "ends.",
        "A bug of vqcc: report the spec. In a kernel of your own, let all threads reach it.",
    ),
    "VQ0837": (
        "Lanes that a warp operation names in its mask are elsewhere, or it reads one that takes no part.",
        "A bug of vqcc: report the spec. In a kernel of your own, let the lanes of the mask meet.",
    ),
    "VQ0838": (
        "The launch passed the emulator's limit of accesses and barriers, as a loop without end does.",
        "A bug of vqcc: report the spec. In a kernel of your own, raise the limit for a long run.",
    ),
    "VQ0839": (
        "The kernel divided by zero, trapped, or ran out of stack.",
        "A bug of vqcc: report the spec. In a kernel of your own, look at the place shown.",
    ),
    "VQ0840": (
        "A kernel ends, or reads the data, with an asynchronous copy that nobody waited for.",
        "A bug of vqcc: report the spec. In a kernel of your own, wait for the copy.",
    ),
    "VQ0841": (
        "A block uses shared memory of another one of its cluster before a cluster barrier tells that it has begun, "
        "with none between that and its end, or of one that there is not.",
        "A bug of vqcc: report the spec. In a kernel of your own, let the blocks meet at a cluster barrier.",
    ),
    "VQ0842": (
        "A barrier of stages is used before it is seen to be made, by plain accesses, or by more arrivals, bytes or "
        "phases than it was made for or told of.",
        "A bug of vqcc: report the spec. In a kernel of your own, keep to the protocol that the message names.",
    ),
    "VQ0843": (
        "Operands or sums of a warpgroup's multiply are touched while it may still read or write them, it is not "
        "fenced, committed or waited for, or the warpgroup's warps do not issue the same.",
        "A bug of vqcc: report the spec. In a kernel of your own, add the fence or the wait that the message names.",
    ),
    "VQ0901": (
        "Something happened in vqcc that its authors did not foresee.",
        "Report it with the command and its input; `vqcc --traceback COMMAND ...` shows where.",
    ),
}
