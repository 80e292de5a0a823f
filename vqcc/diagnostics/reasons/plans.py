"""Causes and remedies of diagnostics: GPUs, plans and tensor files."""

from __future__ import annotations

REASONS = {
    "VQ0401": (
        "No built-in GPU has this name.",
        "`vqcc list gpus` has the names; a spec may also describe a GPU of its own.",
    ),
    "VQ0402": (
        "The numbers of a GPU that a spec describes cannot all be so, as a block with more shared "
        "memory than its SM.",
        "Correct the number at the caret by the vendor's documentation.",
    ),
    "VQ0403": (
        "The level keeps whole codebooks in shared memory, and a block of the GPU has less than one takes.",
        "Use level `o1`, which caches what fits, a smaller codebook, or another GPU.",
    ),
    "VQ0404": (
        "A spec describes a GPU by the name of a built-in one, and the cubin's name would not tell "
        "which it is for.",
        "Write the name alone to use the built-in one, or give yours another name.",
    ),
    "VQ0405": (
        "One block needs more registers, threads or shared memory than an SM has.",
        "Check the limits of a GPU of your own; else use smaller vectors or a smaller m.",
    ),
    "VQ0406": (
        "`cache` keeps more entries in registers or in shared memory than a thread or a block of the "
        "GPU has room for.",
        "Lower the boundary, or leave it out: the planner then decides by the slack.",
    ),
    "VQ0407": (
        "`vqcc calibrate` keeps what it does not measure from a known GPU's file, and none or several "
        "have the device's compute capability and SMs.",
        "Name the GPU whose other numbers hold for the device with `--gpu`.",
    ),
    "VQ0408": (
        "`--gpu` names a GPU of another compute capability, whose limits do not hold for the device.",
        "Name a GPU of the device's compute capability, or none.",
    ),
    "VQ0409": (
        "A micro-benchmark gave a number that is out of range: something else was using the GPU, or its clock "
        "changed while it ran.",
        "Close what else uses the GPU and run again; if it stays so, report it with `vqcc doctor`.",
    ),
    "VQ0501": (
        "The path names nothing, a directory, or a file that may not be read or mapped.",
        "Give the path of a safetensors file that you may read.",
    ),
    "VQ0502": (
        "The file is empty, or too short to say how long its header is.",
        "Give a safetensors file; other formats must be converted first.",
    ),
    "VQ0503": (
        "The first 8 bytes give the length of a header that is longer than the file: it was cut, or is "
        "of another format.",
        "Download or write the file again.",
    ),
    "VQ0504": (
        "The header of a safetensors file is JSON with each key once, and this is not.",
        "The file is damaged: download or write it again.",
    ),
    "VQ0505": (
        "A tensor's entry in the header lacks its type, shape or offsets, or has them in another form.",
        "The file is damaged or written by a faulty program: write it again.",
    ),
    "VQ0506": (
        "The header names an element type that safetensors does not have, or vqcc does not read.",
        "Convert the tensor to a type of the help.",
    ),
    "VQ0507": (
        "A tensor's offsets lie past the end of the file: its end is missing.",
        "Download or copy the file again, whole.",
    ),
    "VQ0508": (
        "Two tensors claim the same bytes, so that one of them must be wrong.",
        "Write the file again by another program.",
    ),
    "VQ0509": (
        "Between the tensors or behind them are bytes of none, in which anything could hide.",
        "Write the file again: tensors must cover it without gaps.",
    ),
    "VQ0510": (
        "The bytes of a tensor are more or fewer than its type and shape need.",
        "The file is damaged or written by a faulty program: write it again.",
    ),
    "VQ0511": (
        "The file has tensors, but no `vqcc.algorithm` in its metadata: they are plain weights, or packed already.",
        "Make VQ tensors of weights by `vqcc quantize`, or describe what you have as docs/vq-tensors.md says; of a "
        "packed file, give the one that it was packed from.",
    ),
    "VQ0512": (
        "`vqcc.algorithm` is not the JSON that it must be, lacks a field, or differs between shards.",
        "Write the metadata as docs/vq-tensors.md says, or quantize again.",
    ),
    "VQ0513": (
        "The metadata gives an algorithm that vqcc does not have, or with fields that do not fit each other.",
        "Correct the field that the message names.",
    ),
    "VQ0514": (
        "The file holds no tensor of the name given by `--tensor`.",
        "Use a name that the help lists.",
    ),
    "VQ0515": (
        "A file holds several VQ tensors, and the function needs one.",
        "Name one of them.",
    ),
    "VQ0516": (
        "A safetensors header has 100,000,000 bytes at most.",
        "The file is damaged, or its tensors must be spread over several files.",
    ),
    "VQ0517": (
        "The metadata describes a VQ tensor of which codes, codebooks or scales are not in the file.",
        "Write the missing part, or quantize again.",
    ),
    "VQ0518": (
        "A part is there that the algorithm has no use for, as scales with `scales: none`.",
        "Remove the part, or describe the algorithm that uses it.",
    ),
    "VQ0519": (
        "A part's elements are of another type than the algorithm says.",
        "Convert the part to the type in the help.",
    ),
    "VQ0520": (
        "A part's shape does not follow from the weight's shape and the algorithm.",
        "Give the part the shape in the message, or correct the metadata.",
    ),
    "VQ0521": (
        "A code names an entry that its codebook does not have.",
        "The codes are damaged, or the metadata gives too few entries: quantize again or correct it.",
    ),
    "VQ0522": (
        "An entry of a codebook is infinite or NaN, and every weight that uses it would be.",
        "Find out how the quantizer made it; a range that float16 lacks is a common cause.",
    ),
    "VQ0523": (
        "A scale is infinite or NaN, and all that it multiplies would be.",
        "Find out how the quantizer made it; a row of zeros is a common cause.",
    ),
    "VQ0524": (
        "The weight is of integers, float64 or a type of 8 bits.",
        "Convert it to float16, bfloat16 or float32.",
    ),
    "VQ0525": (
        "The tensor is a vector, has more than two axes, or has no elements.",
        "Name a weight [out, in]; `--tensor` picks it.",
    ),
    "VQ0526": (
        "The weight holds an infinity or a NaN, from which no codebook can be learnt.",
        "Mend the weight; the message says where the first one is.",
    ),
    "VQ0527": (
        "The directory is not there or may not be written to, or the disk is full. What was there "
        "before is still there.",
        "Name an output in a directory of yours with room.",
    ),
    "VQ0528": (
        "Learning codebooks needs faiss, which is an extra.",
        "pip install 'vqcc[quantize]'",
    ),
    "VQ0529": (
        "Two tensors of one name would be one in the file.",
        "Rename one of them.",
    ),
    "VQ0530": (
        "The file has no `vqcc.packed` metadata, its arrays are not those that it describes, or its codes lead past "
        "their end.",
        "Make it by `vqcc pack` for the library.",
    ),
    "VQ0531": (
        "The weights were packed for another algorithm, shape or layout than the library's kernels read.",
        "Pack the VQ tensors for this library.",
    ),
    "VQ0532": (
        "A `*.json` given as tensors is the index of a sharded file, and this one is not of that form.",
        "Give the `*.safetensors.index.json` of the checkpoint, or one of its files.",
    ),
    "VQ0533": (
        "The index names a file that is not beside it, or a tensor that its file does not hold.",
        "Download all files of the checkpoint into one directory.",
    ),
    "VQ0534": (
        "Two shards hold a tensor of one name, and nothing says which one counts.",
        "Remove it from one of them; the files may be of different checkpoints.",
    ),
    "VQ0535": (
        "A directory given as tensors must hold exactly one `*.safetensors.index.json`.",
        "Name the index, or the file.",
    ),
    "VQ0536": (
        "The file that the spec's `profile` names is not there, or may not be read.",
        "Give its path relative to the spec; `vqcc profile` makes it.",
    ),
    "VQ0537": (
        "The file is no JSON, or not that of `vqcc profile`.",
        "Make profiles by `vqcc profile VQ.safetensors -o hotness.json`.",
    ),
    "VQ0538": (
        "The profile was written by a newer or an older vqcc.",
        "Profile the tensors again with this one.",
    ),
    "VQ0539": (
        "A count, a hash, a shape or the list of tensors is missing or not of its form, or does not fit the others.",
        "Profile the tensors again; a profile is not to be changed by hand.",
    ),
    "VQ0540": (
        "The library's kernels were planned for the look-ups that its profile counted, and the file "
        "holds other codes. Results would be right, times perhaps not as planned.",
        "Profile this file and compile again, or pack with `--other-codes`.",
    ),
    "VQ0541": (
        "Plots need matplotlib, which is an extra.",
        "pip install 'vqcc[report]'",
    ),
    "VQ0542": (
        "The plot's name ends in neither .svg nor .png, a profile has more tensors than a plot has room for, or no "
        "library of level gc was timed, against which levels are drawn.",
        "Name the plot so; choose tensors with `--tensor`; time a library of level gc too.",
    ),
    "VQ0543": (
        "Parts of fewer rows would take more counters than memory should be spent on.",
        "Use `--part-rows` with at least the number in the help, or leave it out.",
    ),
    "VQ0544": (
        "The library was built from a profile and keeps the first entries nearest; the file's entries "
        "are in their old order. Results are right, times are not as planned.",
        "Pack the VQ tensors for this library.",
    ),
    "VQ0545": (
        "The packed file has other bytes than `vqcc pack` makes of the tensor: it was made of another one, or is "
        "damaged. Few wrong codes may hide in the rounding of a launch.",
        "Pack the VQ tensor again.",
    ),
    "VQ0546": (
        "`--fisher` says how much keys or values count in the clustering; the algorithm quantizes a weight.",
        "Leave it out, or use a preset of KV caches.",
    ),
    "VQ0547": (
        "Kernels of the library add up residual stages in float16. The largest entries of the tensor's stages add up "
        "to more than that type has: combinations, also such as padding has, would be infinite.",
        "Use a level of the paper, or bfloat16, or scale the weight down and x up.",
    ),
    "VQ0548": (
        "The rows of several weights become one weight's only if all have as many columns and one type.",
        "Fuse layers of the same inputs, stored alike.",
    ),
    "VQ0549": (
        "Codes, codebooks and scales of the tensor take 16 bits or more for each weight or activation, as many as "
        "float16 takes: books are large beside what they serve.",
        "Use fewer entries, larger vectors or a wider scope, or leave a weight so small as it is.",
    ),
}
