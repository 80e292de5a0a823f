"""Causes and remedies of diagnostics: specs: their YAML, their fields, what these mean."""

from __future__ import annotations

REASONS = {
    "VQ0101": (
        "The path of a spec names nothing, a directory, or a file that may not be read.",
        "Give the path of a YAML file that you may read.",
    ),
    "VQ0102": (
        "A spec has more than 1,000,000 bytes, which none needs; larger files are not parsed.",
        "Give the right file; a spec is a few lines.",
    ),
    "VQ0103": (
        "The bytes of the file are no UTF-8: it was saved in another encoding, or is no text, as a safetensors file.",
        "Save the spec as UTF-8.",
    ),
    "VQ0104": (
        "A control character, or the escape of one, that YAML forbids: it could drive a terminal or "
        "hide text.",
        "Remove the character at the caret.",
    ),
    "VQ0105": (
        "The text is not YAML: a bracket or quote that is not closed, a wrong indent, a tab, or a "
        "number that no machine holds.",
        "Mend the line at the caret; the cause may lie just before it.",
    ),
    "VQ0106": (
        "`&name` and `*name` let a few lines stand for millions of values, so specs have none.",
        "Write the value out in each place.",
    ),
    "VQ0107": (
        "`!tag` and `%` lines make YAML build other things than text, numbers, lists and mappings.",
        "Remove the tag or the directive.",
    ),
    "VQ0108": (
        "`<<` merges one mapping into another, so that a field's value stands elsewhere than it seems.",
        "Write the fields out.",
    ),
    "VQ0109": (
        "A mapping has a key twice; readers of YAML disagree on which one counts.",
        "Keep one of the two.",
    ),
    "VQ0110": (
        "Values are nested more than 32 deep; a spec needs about four levels.",
        "Close brackets earlier, or mend the indents.",
    ),
    "VQ0111": (
        "The file has more than 10,000 values and keys, which no spec needs.",
        "Give the right file, or split it into several specs.",
    ),
    "VQ0112": (
        "A line `---` starts a second document; one file holds one spec.",
        "Remove the line, or make a file of each document.",
    ),
    "VQ0113": (
        "The file is empty, or has comments only.",
        "Start with `vqcc: 1`; `specs/` has examples.",
    ),
    "VQ0114": (
        "A key is a number, `true`, a date or missing; the names of fields are words.",
        "Write the field's name; the help of VQ0201 lists those there are.",
    ),
    "VQ0201": (
        "A spec or a part of it has no such field; a typing error would otherwise change nothing, silently.",
        "Take the name that the help gives, or remove the field.",
    ),
    "VQ0202": (
        "A field without a default is not there.",
        "Add it; the help shows how it is written.",
    ),
    "VQ0203": (
        "A value is of another type than its field: text for a number, a list for a mapping. `yes` is "
        "text, and `8.0` no whole number.",
        "Write a value of the type that the label beside the caret names.",
    ),
    "VQ0204": (
        "A number is below or above what its field allows.",
        "Use a number of the range in the help.",
    ),
    "VQ0205": (
        "Codes name entries by bits, so that a codebook has a power of two of them.",
        "Use one of the two powers that the help names.",
    ),
    "VQ0206": (
        "A field takes one of a few words, and this is none of them.",
        "Take the word that the help proposes.",
    ),
    "VQ0207": (
        "The name becomes a file name, a directory and C symbols, so that only words of a-z and 0-9 "
        "joined by - or _ will do.",
        "Use the name that the help proposes.",
    ),
    "VQ0208": (
        "C, C++ or CUDA uses the word itself; or symbols of vqcc's own headers begin with it; or the header of "
        "a layer's library would define what that of the model or of another layer defines.",
        "Add to it, such as `-kernels`; rename one of the layers.",
    ),
    "VQ0209": (
        "A list, such as `gpu` or `m`, has no value, or more than a library may have.",
        "Give as many as the help says.",
    ),
    "VQ0210": (
        "A list holds a value twice; each value of a list makes one kernel or one cubin.",
        "Remove one of them.",
    ),
    "VQ0211": (
        "`family` names no way to decode that vqcc has.",
        "Use `kmeans` for learnt codebooks, `e8p` for QuIP#'s; `vqcc list algorithms` has the presets "
        "of both.",
    ),
    "VQ0212": (
        "`op.kind` names no op that vqcc has kernels for.",
        "`vqcc list ops` has those there are.",
    ),
    "VQ0213": (
        "`vqcc` is the version of the spec's form, and this vqcc reads another.",
        "Write `vqcc: 1`, or use the vqcc that the spec was written for.",
    ),
    "VQ0214": (
        "A text is empty, too long or of another form than its field needs.",
        "Write it as the help says.",
    ),
    "VQ0215": (
        "Two values exclude each other, as a cache whose part in shared memory ends before that in "
        "registers.",
        "Change one of the two, as the help says.",
    ),
    "VQ0216": (
        "A layer names a way for ranks to share it that its op does not have: linear layers have `column` (outputs) "
        "and `row` (inputs), attention has `heads`.",
        "Write one of the op's ways, or leave `parallel` out: every rank then has the whole layer.",
    ),
    "VQ0217": (
        "With tensor parallelism every rank has the same kernels, so the fields that a layer is divided by must be "
        "multiples of the number of ranks.",
        "Choose a `tensor_parallel` that divides them, or leave the layer's `parallel` out.",
    ),
    "VQ0218": (
        "Layers become one where they differ in nothing but how many outputs they have, divided alike, and each in one "
        "place of `fuse` only.",
        "Make them alike, or take them out of `fuse`.",
    ),
    "VQ0219": (
        "A spec with `layers` has an algorithm and an op for each of them; what takes one algorithm, as "
        "`vqcc quantize` does, or one op, cannot choose.",
        "Give the preset of the layer's algorithm, or a spec of the layer alone.",
    ),
    "VQ0301": (
        "`algorithm` is a name, and no preset has it.",
        "`vqcc list algorithms` has the presets; VQ<x, y, z> is `vq-x-y-z`; else write the algorithm out.",
    ),
    "VQ0302": (
        "The algorithm is one for weights and the op reads a KV cache, or the other way round, or a head has more "
        "channel groups than kernels have registers for.",
        "Use a preset of the help: those of scope tensor or tiles are for weights, cq-* and kv-* for caches.",
    ),
    "VQ0303": (
        "Vectors run along k, and the last of a row would be cut.",
        "Use a k that is a multiple of the vector size, or another vector size.",
    ),
    "VQ0304": (
        "A tile with books of its own would cut a vector.",
        "Make the columns of the scope's tile a multiple of the vector size.",
    ),
    "VQ0305": (
        "`code_bits` says how wide packed codes are, which the number of entries decides.",
        "Leave `code_bits` out, or change `entries`.",
    ),
    "VQ0306": (
        "A codebook cannot be learnt from fewer vectors than it has entries.",
        "Use fewer entries, a wider scope, or a larger weight.",
    ),
    "VQ0307": (
        "Kernels count bytes and elements of codes, books and scales in 32 bits; this weight has more.",
        "Split the weight into libraries of fewer rows.",
    ),
    "VQ0308": (
        "The GPU has no instructions for the element type, such as bfloat16 before compute capability 8.0.",
        "Use a type of the help, or another GPU.",
    ),
    "VQ0309": (
        "Columns that share a scale come in groups, and a group would cut a vector.",
        "Make the group a multiple of the vector size.",
    ),
    "VQ0310": (
        "`direction: out`, vectors down a column, has no kernels.",
        "Use `direction: in`, and quantize so.",
    ),
    "VQ0311": (
        "Codes have 16 bits at most, so that a codebook has 65,536 entries at most.",
        "Use fewer entries and more residual stages.",
    ),
    "VQ0312": (
        "The codebook is fixed, and one for the whole tensor.",
        "Write `scope: tensor`, or leave it out.",
    ),
    "VQ0313": (
        "The algorithm has no scales of this kind.",
        "Use those that the help names.",
    ),
    "VQ0314": (
        "`cache` keeps more entries than a table has.",
        "Use at most the number in the help, or leave `cache` out: the planner then decides.",
    ),
    "VQ0315": (
        "The level keeps all entries in one place, and has no boundary to set.",
        "Leave `cache` out, or use a level that caches by slack.",
    ),
    "VQ0316": (
        "The profile counted tensors of other algorithms or shapes than the spec's.",
        "Profile the tensors that the library is for, or name their profile.",
    ),
    "VQ0317": (
        "A level of the paper makes one kernel of a spec; only `best` chooses between several.",
        "Tune the spec with `level: best`, the default.",
    ),
    "VQ0318": (
        "The lock file beside the spec is of another spec, of other device code or tiles than today's, or of a session "
        "that was interrupted.",
        "Run `vqcc tune` again on the GPU; what has no times is decided by the model.",
    ),
    "VQ0319": (
        "`algorithm` has one for keys and one for values, which only an op over a KV cache has.",
        "Write one algorithm; to quantize keys or values, name the preset of the one that is meant.",
    ),
    "VQ0320": (
        "The part of the spec says something of a weight's codes or codebook, and the op reads a KV cache.",
        "Leave the part out.",
    ),
}
