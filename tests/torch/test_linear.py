"""Weights and layers: read from packed files, moved, saved and loaded, copied, and compiled."""

from __future__ import annotations

import copy
import pickle
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch._dynamo.testing import CompileCounter, CompileCounterWithBackend

import vqcc.torch
from vqcc.tensors.packed_file import save_packed
from vqcc.torch import runtime

if TYPE_CHECKING:
    from pathlib import Path

    Files = Any


@pytest.fixture(scope="module")
def library(gate: Files, cache_directory: Path) -> vqcc.torch.LinearLibrary:
    loaded = vqcc.torch.load(gate.bundle, emulator_cache=cache_directory / "emulator")
    assert isinstance(loaded, vqcc.torch.LinearLibrary)
    return loaded


@pytest.fixture(scope="module")
def weight(gate: Files, library: Any) -> vqcc.torch.Weight:
    return library.weight(gate.packed, device="cpu")


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).half()


def test_a_weight_has_the_bytes_of_its_file(gate: Files, weight: Any) -> None:
    packed = gate.library.pack(gate.tensor).arrays()
    buffers = dict(weight.named_buffers())
    assert buffers.keys() == packed.keys()
    for name, array in packed.items():
        assert buffers[name].numpy().tobytes() == array.tobytes()
        assert not buffers[name].is_floating_point()


def test_what_the_library_says_of_itself(library: Any) -> None:
    assert (library.name, library.shape, library.max_rows) == ("gate", (72, 264), 4)
    assert (set(library.dtypes), library.gpus) == ({torch.float16, torch.bfloat16}, ("h200",))
    assert repr(library) == "LinearLibrary('gate', gpus=['h200'])"
    assert library.workspace_bytes() == 0


def test_conversions_of_a_model_leave_packed_bits_alone(library: Any, weight: Any) -> None:
    layer = vqcc.torch.Linear(library, copy.deepcopy(weight), torch.zeros(72))
    layer.to(torch.bfloat16)
    assert layer.bias is not None
    assert layer.bias.dtype == torch.bfloat16
    for own, other in zip(layer.weight.buffers(), weight.buffers(), strict=True):
        assert torch.equal(own, other)
    assert layer.to("meta").weight.device.type == "meta"


def test_a_state_goes_round(library: Any, weight: Any, tmp_path: Path) -> None:
    layer = vqcc.torch.Linear(library, weight, draw(72))
    torch.save(layer.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert all(isinstance(value, torch.Tensor) for value in state.values())
    other = vqcc.torch.Linear(library, bias=torch.zeros(72).half())
    x = draw(3, 264)
    assert not torch.equal(other(x), layer(x))
    assert not any(other.load_state_dict(state))
    assert torch.equal(other(x), layer(x))
    state["weight._extra_state"] = torch.tensor(list(b"0123456789ab"), dtype=torch.uint8)
    with pytest.raises(RuntimeError, match="layout '0123456789ab', library gate reads"):
        other.load_state_dict(state)


def test_codes_in_buckets_are_as_long_as_they_are(
    library: Any, weight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = {**library.expected_parts(), "codes": ("uint32", None)}
    monkeypatch.setattr(library, "expected_parts", lambda: parts)
    empty = vqcc.torch.Weight.empty(library)
    assert empty.codes.shape == (0,)
    state = {**weight.state_dict(), "codes": torch.arange(7, dtype=torch.int32)}
    empty.load_state_dict(state)
    assert torch.equal(empty.codes, torch.arange(7, dtype=torch.int32))


def test_copies_share_the_library(library: Any, weight: Any) -> None:
    layer = vqcc.torch.Linear(library, weight)
    assert copy.deepcopy(layer).library is library
    again = pickle.loads(pickle.dumps(layer))
    assert again.library is not library
    x = draw(1, 264)
    assert torch.equal(again(x), layer(x))


def test_a_library_of_a_relative_path_is_found_from_anywhere(
    gate: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each library from its own directory, though their kernels are loaded once, with all that it was loaded with."""
    monkeypatch.setattr(runtime, "_registered", {})
    there, gone, elsewhere = (tmp_path / name for name in ("there", "gone", "elsewhere"))
    for directory in (there, gone):
        shutil.copytree(gate.bundle, directory / "gate")
    elsewhere.mkdir()
    vqcc.torch.load(gone / "gate")
    shutil.rmtree(gone)
    monkeypatch.chdir(there)
    options: dict[str, Any] = {"rows": 2, "overlap": True, "emulator_cache": "kept"}
    vqcc.torch.load("gate", overlap=True)
    pickled = pickle.dumps([vqcc.torch.load("gate"), vqcc.torch.load("gate", **options)])
    monkeypatch.chdir(elsewhere)
    monkeypatch.setattr(runtime, "_registered", {})
    plain, again = pickle.loads(pickled)
    assert (plain._rows, plain._runtime.overlap, plain._runtime.emulator_cache) == (None, False, None)
    assert (again._rows, again._runtime.overlap) == (2, True)
    assert again._runtime.emulator_cache == there / "kept"


def test_a_workspace_is_shared_or_owned(gate: Files, weight: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    library: Any = vqcc.torch.load(gate.bundle)

    def make(device: torch.device) -> torch.Tensor | None:
        return torch.zeros(512, dtype=torch.uint8) if device.type == "cpu" else None

    monkeypatch.setattr(library, "new_workspace", make)
    shared = library.workspace(torch.device("cpu"))
    first, second = (vqcc.torch.Weight(library, dict(weight.named_buffers())) for _ in range(2))
    assert first.workspace is second.workspace is shared
    assert first.half().workspace is shared
    assert "workspace" not in first.state_dict()
    own = first.own_workspace().workspace
    assert own is not None
    assert own is not shared
    # A captured graph may hold its address: it stays while the weight does.
    for same_place in (
        first.half(),
        first.to("cpu", torch.bfloat16),
        first.own_workspace(),
        torch.nn.ModuleList([first]).to("cpu")[0],
        first.to_empty(device="cpu"),
    ):
        assert same_place.workspace is own
    assert second.half().workspace is shared
    assert first.to("meta").workspace is None
    assert isinstance(moved := first.to_empty(device="cpu").workspace, torch.Tensor)
    assert moved is not shared
    assert moved is not own


def test_a_workspace_is_zeroed_before_any_stream_uses_it(
    gate: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    library: Any = vqcc.torch.load(gate.bundle)
    done: list[Any] = []

    class Stream:
        def synchronize(self) -> None:
            done.append("synchronized")

    def zeros(size: int, *, dtype: torch.dtype, device: torch.device) -> str:
        done.append((size, dtype, device))
        return "workspace"

    monkeypatch.setattr(library, "workspace_bytes", lambda: 512)
    monkeypatch.setattr(library._runtime, "loaded", lambda device: done.append(f"loaded {device}"))
    monkeypatch.setattr(torch, "zeros", zeros)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: Stream())
    place = torch.device("cuda:1")
    assert library.workspace(place) == library.workspace(place) == "workspace"
    assert done == ["loaded 1", (512, torch.uint8, place), "synchronized"]


def test_files_that_are_not_for_the_library(gate: Files, library: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\[VQ05\d\d\]"):
        library.weight(tmp_path / "none.safetensors", device="cpu")
    with pytest.raises(ValueError, match="has no 'v': it holds w"):
        library.weight(gate.packed, "v", device="cpu")
    both = tmp_path / "both.safetensors"
    packed = gate.library.pack(gate.tensor)
    save_packed(both, gate.library, [(gate.tensor, packed), (replace(gate.tensor, name="v"), packed)])
    with pytest.raises(ValueError, match="holds v, w: say which one by name"):
        library.weight(both, device="cpu")
    library.weight(both, "v", device="cpu")
    data = gate.packed.read_bytes()
    wrong = tmp_path / "wrong.safetensors"
    wrong.write_bytes(data.replace(gate.library.layout_id.encode(), b"0123456789ab"))
    with pytest.raises(ValueError, match=r"\[VQ0531\].*Help: pack the VQ tensor for this library"):
        library.weight(wrong, device="cpu")


def test_a_weight_of_another_layout_is_refused(library: Any, weight: Any) -> None:
    other = copy.deepcopy(weight)
    other.library = copy.copy(library)
    library.linear(draw(1, 264), other)  # the same layout, of another build
    other.library.layout_id = "0123456789ab"
    with pytest.raises(ValueError, match="the weight has layout 0123456789ab, library gate reads"):
        library.linear(draw(1, 264), other)


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_whole_and_without_a_graph_for_each_m(library: Any, weight: Any, backend: str) -> None:
    model = torch.nn.Sequential(
        vqcc.torch.Linear(library, weight, draw(72)), torch.nn.ReLU(), torch.nn.Flatten(0)
    )
    torch._dynamo.reset()
    counter = CompileCounterWithBackend(backend)
    compiled = torch.compile(model, fullgraph=True, backend=counter, dynamic=True)
    with torch.no_grad():
        for rows in (2, 3, 4):
            x = draw(rows, 264)
            assert torch.equal(compiled(x), model(x))
    assert counter.frame_count == 1


def test_layers_of_a_library_share_a_graph(library: Any, weight: Any) -> None:
    """A block of a model is compiled once, not once for each layer."""
    torch._dynamo.reset()
    counter = CompileCounter()

    @torch.compile(fullgraph=True, backend=counter)
    def block(layer: Any, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = layer(x) + 1
        return result

    x = draw(2, 264)
    with torch.no_grad():
        for _ in range(3):
            layer = vqcc.torch.Linear(library, copy.deepcopy(weight))
            assert torch.equal(block(layer, x), layer(x) + 1)
    assert counter.frame_count == 1


@pytest.mark.full
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own parts
def test_compiled_by_inductor(library: Any, weight: Any) -> None:
    layer = vqcc.torch.Linear(library, weight, draw(72))
    torch._dynamo.reset()
    with torch.no_grad():
        x = draw(3, 264)
        compiled = torch.compile(lambda x: layer(x.relu()) * 2, fullgraph=True)
        assert torch.equal(compiled(x), layer(x.relu()) * 2)


def test_exported_programs_name_the_library(library: Any, weight: Any) -> None:
    layer = vqcc.torch.Linear(library, weight)
    rows = torch.export.Dim("rows", min=1, max=4)
    with torch.no_grad():
        program = torch.export.export(layer, (draw(2, 264),), dynamic_shapes=({0: rows},))
    (call,) = [node for node in program.graph.nodes if node.target is torch.ops.vqcc.linear.default]
    assert library._identity in call.args
    x = draw(3, 264)
    assert torch.equal(program.module()(x), layer(x))
    assert np.isfinite(layer(x).numpy()).all()
