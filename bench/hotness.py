"""Which presets have hot entries: weights of a file quantized by each preset, and their codes counted.

    python bench/hotness.py WEIGHTS.safetensors [--keep DIR] [-o FILE.json]

Prints the tables of docs/hotness.md. Presets with fewer vectors than entries are named and left out. With `--keep`
the VQ tensors stay in DIR and are not made again.
"""

from __future__ import annotations

import argparse
import datetime
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from vqcc import api
from vqcc.diagnostics import VqccError
from vqcc.hotness import load_profile
from vqcc.tensors.header import TensorFile

PRESETS = (
    "quip-2",
    "quip-4",
    "gptvq-2",
    "gptvq-4",
    "aqlm-2x8",
    "aqlm-3",
    "aqlm-1x16",
    "vq-4-8-1",
    "vq-2-8-1",
)


def names_in(path: Path) -> list[str]:
    """The weights of the file: its matrices that are called so."""
    with TensorFile(path) as file:
        return [
            name for name, entry in file.entries.items() if len(entry.shape) == 2 and name.endswith(".weight")
        ]


def short(name: str) -> str:
    """The part of a weight's name that tells it from the others."""
    return name.removesuffix(".weight").split(".", 3)[-1]


def profile(weights: Path, name: str, preset: str, directory: Path) -> dict[str, Any] | None:
    """Quantize and count one weight; None if the preset has more entries than the weight vectors."""
    path = directory / f"{preset}-{short(name)}.safetensors"
    if not path.exists():
        try:
            api.quantize(weights, name, preset, path)
        except VqccError as error:
            if {item.code for item in error.diagnostics} != {"VQ0306"}:
                raise
            return None
    output = path.with_suffix(".hotness.json")
    (summary,), _ = api.profile(path, output)
    (read,) = load_profile(output).tensors
    means, sigmas = read.counts.mean(axis=-1), read.counts.std(axis=-1)
    hot = np.count_nonzero(read.counts > (means + 3 * sigmas)[..., None], axis=-1)
    # Per stage: a mean over the books.
    told = {key: value for key, value in summary.to_json().items() if key != "algorithm"}
    return {"preset": preset, **told, "hot_of_stages": hot.mean(axis=0).tolist()}


def percent(share: float) -> str:
    """A share as the tables have it."""
    return f"{100 * share:.1f}"


def print_details(rows: list[dict[str, Any]], name: str) -> None:
    """All that is counted of one weight, a line per preset."""
    shares = ("1", "8", "32", "10%", "50%")
    print(
        "| preset | tables of entries | mean | sigma | hot | by chance | medium | cold | "
        + " | ".join(f"top {share}" for share in shares)
        + " | overlap | kept | correlation |"
    )
    print("|" + "---|" * 16)
    for row in (row for row in rows if row["tensor"] == name):
        found = row["consistency"]
        numbers = [
            f"{row['mean']:.1f}",
            f"{row['sigma']:.1f}",
            f"{row['hot']:.1f}",
            f"{row['hot_by_chance']:.1f}",
            f"{row['medium']:.1f}",
            f"{row['cold']:.1f}",
        ]
        numbers += [percent(row["coverage"][share]) for share in shares]
        numbers += [percent(found["overlap"]), percent(found["kept"]), f"{found['correlation']:.2f}"]
        tables = f"{row['books'] * row['tables']} of {row['entries']:,}"
        print(f"| `{row['preset']}` | {tables} | " + " | ".join(numbers) + " |")


def print_hot(rows: list[dict[str, Any]], names: list[str]) -> None:
    """Hot entries of a table, by stage, of every weight."""
    print("| preset | by chance | " + " | ".join(f"`{short(name)}`" for name in names) + " |")
    print("|" + "---|" * (len(names) + 2))
    for preset in PRESETS:
        found = {row["tensor"]: row for row in rows if row["preset"] == preset}
        cells = [
            " + ".join(f"{hot:.1f}" for hot in found[name]["hot_of_stages"]) if name in found else "-"
            for name in names
        ]
        chance = [row["hot_by_chance"] for row in found.values()]
        print(f"| `{preset}` | {min(chance):.1f} to {max(chance):.1f} | " + " | ".join(cells) + " |")


def main() -> None:
    """Quantize, count, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--keep", type=Path)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    names = names_in(options.weights)
    with tempfile.TemporaryDirectory() as scratch:
        directory = options.keep or Path(scratch)
        directory.mkdir(parents=True, exist_ok=True)
        found = {
            (preset, name): profile(options.weights, name, preset, directory)
            for preset in PRESETS
            for name in names
        }
    rows = [row for row in found.values() if row is not None]
    left_out = [[preset, name] for (preset, name), row in found.items() if row is None]
    largest = max(rows, key=lambda row: row["shape"][0] * row["shape"][1])["tensor"]
    print_details(rows, largest)
    print()
    print_hot(rows, names)
    for preset, name in left_out:
        print(f"left out: {preset} on {name}, fewer vectors than entries")
    if options.output is not None:
        meta = {
            "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
            "command": f"python bench/hotness.py {options.weights.name}",
        }
        document = {"meta": meta, "left_out": left_out, "rows": rows}
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
