"""Splits a safetensors file into shards with an index, as large checkpoints are published."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from safetensors import safe_open
from safetensors.numpy import load_file, save_file

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path


def split_file(source: Path, directory: Path, shards: int = 2, *, metadata_in: str = "shards") -> Path:
    """Deal the arrays of `source` out to shards; parts of one VQ tensor come to lie in different ones.

    The metadata goes to every one of the `shards`, to the `first`, or to the `index`.
    """
    arrays = load_file(source)
    with safe_open(source, "np") as file:
        metadata = file.metadata()
    names = [f"model-{shard + 1:05}-of-{shards:05}.safetensors" for shard in range(shards)]
    places = {array: names[index % shards] for index, array in enumerate(sorted(arrays))}
    directory.mkdir(exist_ok=True)
    for shard, name in enumerate(names):
        own = {array: arrays[array] for array, place in places.items() if place == name}
        has = metadata_in == "shards" or (metadata_in == "first" and shard == 0)
        save_file(own, directory / name, metadata=metadata if has else None)
    return write_index(directory, places, metadata if metadata_in == "index" else {})


def write_index(directory: Path, places: Mapping[str, object], metadata: Mapping[str, object]) -> Path:
    path = directory / "model.safetensors.index.json"
    document = {"metadata": {"total_size": 123, **metadata}, "weight_map": dict(places)}
    path.write_text(json.dumps(document, indent=1))
    return path


def read_index(path: Path) -> dict[str, str]:
    places: dict[str, str] = json.loads(path.read_text())["weight_map"]
    return places
