"""Every weights file: what comes back is what was saved, and nothing else is accepted."""

import contextlib
import json
import os
import pickle
import re
import zipfile
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from spikingir.conversion.convert import convert, correct_biases
from spikingir.graph.operations import OPERATIONS
from spikingir.networks import AODNet, DnCNN, RestorationNetwork, describe
from spikingir.spiking.formation import ImageFormation
from spikingir.spiking.kinds import NEURONS
from spikingir.spiking.network import SpikingConfig, SpikingNetwork
from spikingir.spiking.neurons import IFNeuron
from spikingir.spiking.readout import PixelMapper
from spikingir.store import (
    MAX_BYTES,
    StorageError,
    WeightsError,
    from_pretrained,
    load_any,
    load_network,
    save_network,
    save_pretrained,
)

SMALL = {"channels": 1, "layers": 4, "width": 6}


def small(batch_norm: bool = False) -> DnCNN:
    network = DnCNN(**SMALL, batch_norm=batch_norm)
    network.reset_parameters(torch.Generator().manual_seed(5))
    for module in network.body.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2, generator=torch.Generator().manual_seed(6))
    return network.eval()


def same(one: RestorationNetwork, two: RestorationNetwork) -> bool:
    image = torch.rand(2, one.channels, 11, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return describe(one) == describe(two) and torch.equal(one(image), two(image))


def kair(network: DnCNN) -> dict[str, Tensor]:
    """State of a merged network under KAIR's names."""
    return {
        f"model.{2 * int(name.split('.')[1].removeprefix('conv'))}.{name.rpartition('.')[2]}": value
        for name, value in network.state_dict().items()
    }


@pytest.mark.parametrize("make", [small, lambda: small(batch_norm=True), AODNet])
def test_saved_network_comes_back(tmp_path: Path, make: Callable[[], RestorationNetwork]) -> None:
    network, path = make().train(), tmp_path / "new" / "network.safetensors"
    network.to(memory_format=torch.channels_last)
    save_network(network, path)
    state = torch.get_rng_state()
    loaded = load_network(str(path))
    assert torch.equal(torch.get_rng_state(), state)
    assert not loaded.training
    # The layout of the weights changes the order of sums, so compare in one layout.
    assert same(loaded, network.eval().to(memory_format=torch.contiguous_format))
    assert [entry.name for entry in path.parent.iterdir()] == ["network.safetensors"]


def test_header(tmp_path: Path) -> None:
    path = tmp_path / "network.safetensors"
    save_network(small(), path)
    with safe_open(path, framework="pt") as file:
        assert json.loads(file.metadata()["spikingir"]) == {
            "format": "spikingir",
            "version": 2,
            "kind": "conventional",
            "architecture": "dncnn",
            "options": {**SMALL, "batch_norm": False},
        }


def test_same_network_same_file(tmp_path: Path) -> None:
    paths = [tmp_path / f"{i}.safetensors" for i in range(6)]
    for path in paths:
        save_network(small(), path)
    assert len({path.read_bytes() for path in paths}) == 1


def test_half_precision_storage_is_of_kernels_alone(tmp_path: Path) -> None:
    saved = small(batch_norm=True)
    save_network(saved, tmp_path / "half.safetensors", dtype=torch.float16)
    loaded = load_network(tmp_path / "half.safetensors").state_dict()
    for name, tensor in saved.state_dict().items():
        assert torch.equal(loaded[name], tensor.half().float() if tensor.dim() == 4 else tensor)
    with torch.no_grad():
        next(saved.parameters()).fill_(1e5)
    with pytest.raises(WeightsError, match="infinite"):
        save_network(saved, tmp_path / "half.safetensors", dtype=torch.float16)


def test_interrupted_save_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "network.safetensors"
    save_network(small(), path)
    before = path.read_bytes()

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        save_network(AODNet(), path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_save_errors(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"network\.pth: .* ends in \.safetensors"):
        save_network(small(), tmp_path / "network.pth")
    network = small()
    nn.init.constant_(network.body.conv2.weight, float("nan"))
    with pytest.raises(WeightsError, match=r"network\.safetensors: body\.conv2\.weight has NaN"):
        save_network(network, tmp_path / "network.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".pth", ".PT", ".ckpt", ".safetensors"])
@pytest.mark.parametrize("batch_norm", [False, True])
def test_bare_state_dicts(tmp_path: Path, suffix: str, batch_norm: bool) -> None:
    network, path = small(batch_norm), tmp_path / f"weights{suffix}"
    state = network.state_dict()
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert same(load_network(path), network)


@pytest.mark.parametrize("legacy", [False, True])
def test_both_of_torchs_formats(tmp_path: Path, legacy: bool) -> None:
    path = tmp_path / "weights.pth"
    torch.save(small().state_dict(), path, _use_new_zipfile_serialization=not legacy)
    assert same(load_network(path), small())


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3},
        lambda state: {"params": state},
        lambda state: {"params": {name: value + 1 for name, value in state.items()}, "params_ema": state},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {f"module.{name}": value for name, value in state.items()},
        lambda state: {f"module._orig_mod.{name}": value for name, value in state.items()},
        lambda state: {name: value.double() for name, value in state.items()},
    ],
)
def test_wrappers(tmp_path: Path, wrap: Callable[[dict[str, Tensor]], dict[str, Any]]) -> None:
    path = tmp_path / "weights.pth"
    for state in (small().state_dict(), kair(small())):
        torch.save(wrap(dict(state)), path)
        assert same(load_network(path), small())


def test_training_checkpoint_gives_the_average(tmp_path: Path) -> None:
    path, average = tmp_path / "checkpoint.pt", AveragedModel(small(batch_norm=True), use_buffers=True)
    other = DnCNN(**SMALL, batch_norm=True)
    torch.save({"step": 3, "network": other.state_dict(), "average": average.state_dict()}, path)
    assert same(load_network(path), small(batch_norm=True))


class Code:
    """Unpickled, it would create the file it names."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_file_is_not_run(tmp_path: Path, legacy: bool) -> None:
    path, trap = tmp_path / "weights.pth", tmp_path / "trap"
    content = {"body.conv0.weight": torch.zeros(1), "trap": Code(trap)}
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    with pytest.raises(WeightsError, match=r"weights\.pth: it can only be read by running code .*open.*state_dict"):
        load_network(path)
    path.write_bytes(pickle.dumps(Code(trap)))
    with pytest.raises(WeightsError, match=r"weights\.pth: it c"):
        load_network(path)
    assert not trap.exists()


def test_whole_pickled_network_is_refused(tmp_path: Path) -> None:
    torch.save(small(), tmp_path / "network.pth")
    with pytest.raises(WeightsError, match=r"running code \(spikingir\.networks\.dncnn\.DnCNN\)"):
        load_network(tmp_path / "network.pth")


def test_missing_files_and_other_kinds(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no\.pth: there is no such file; expected weights \(\.pth, .*check"):
        load_network(tmp_path / "no.pth")
    with pytest.raises(WeightsError, match="there is no such file"):
        load_network(tmp_path)
    path = tmp_path / "weights.mat"
    path.write_bytes(b"MATLAB")
    with pytest.raises(WeightsError, match=r"weights\.mat: \.mat is not known; expected \.pth, .*\.safetensors"):
        load_network(path)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("content", [b"", b"\0", b"hello, this is a text file\n" * 9, b"PK\3\4" + b"\0" * 90])
def test_files_of_something_else(tmp_path: Path, suffix: str, content: bytes) -> None:
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(WeightsError, match=r"weights.*: it cannot be read \(.+\); expected .* damaged"):
        load_network(path)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_damaged_files(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    path = tmp_path / ("weights.safetensors" if kind == "safetensors" else "weights.pth")
    if kind == "safetensors":
        save_network(small(), path)
    else:
        torch.save(small().state_dict(), path, _use_new_zipfile_serialization=kind == "zip")
    content = bytearray(path.read_bytes())
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 1), label="kept")])
    with pytest.raises(WeightsError):
        load_network(path)
    for _ in range(3):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    # A changed weight cannot be told from a right one; anything else must be the one kind of error.
    with contextlib.suppress(WeightsError):
        load_network(path)


def with_entry(name: str, value: object) -> dict[str, Any]:
    return {**kair(small()), name: value}


def without(name: str) -> dict[str, Tensor]:
    return {key: value for key, value in kair(small()).items() if key != name}


def looped() -> dict[str, Any]:
    loop: dict[str, Any] = {}
    loop["params"] = loop
    return loop


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "it holds an empty mapping, expected tensors by name"),
        (looped(), "an entry 'params' of type dict, expected tensors"),
        ([torch.zeros(2)], "it holds a list, expected tensors by name"),
        (torch.zeros(2), "it holds a Tensor, expected tensors by name"),
        (with_entry("epoch", 3), r"an entry 'epoch' of type int, expected tensors .* save network\.state_dict"),
        ({0: torch.zeros(2)}, "an entry 0 of type Tensor, expected tensors by name"),
        (with_entry("module.model.2.bias", torch.zeros(6)), r"'model\.2\.bias' is there twice"),
        (with_entry("model.2.bias", torch.zeros(6).to_sparse()), r"'model\.2\.bias' is a tensor without plain"),
        (with_entry("model.2.bias", torch.zeros(1).expand(10**12)), r"'model\.2\.bias' of shape .* fewer values"),
        (with_entry("model.2.bias", torch.zeros(6, dtype=torch.int8)), r"torch\.int8, expected floating"),
        (with_entry("model.2.bias", torch.full((6,), float("nan"))), r"'model\.2\.bias' has NaN or inf"),
        (with_entry("model.2.bias", torch.full((6,), 1e300, dtype=torch.float64)), "has NaN or inf"),
        (
            nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)).state_dict(),
            r"its 6 tensors \(0\.weight, 0\.bias, 1\.weight, 1\.bias, \.\.\.\) are not those of a known network; "
            r"expected weights of one of dncnn, aodnet, multiscale",
        ),
        (
            with_entry("model.4.weight", torch.zeros(6, 6, 5, 5)),
            r"looks like dncnn .*'layers': 4.* model\.4\.weight has shape \(6, 6, 5, 5\), expected \(6, 6, 3, 3\)",
        ),
        (with_entry("model.6.weight", torch.zeros(4, 6, 3, 3)), r"model\.6\.weight has shape \(4, 6, 3, 3\)"),
        (with_entry("model.0.weight", torch.zeros(6, 5, 3, 3)), "channels is 5; dncnn is for images of 1 or 3"),
        (without("model.4.bias"), r"looks like dncnn .* body\.conv2\.bias is missing"),
        (with_entry("model.2.scale", torch.zeros(6)), r"model\.2\.scale has no place there"),
        (
            {name: value[..., :1] for name, value in AODNet().state_dict().items()},
            r"looks like aodnet, but body\.conv1\.bias has shape \(1,\), expected \(3,\)",
        ),
    ],
)
@pytest.mark.parametrize("wrapper", [None, "state_dict"])
def test_wrong_content(tmp_path: Path, content: Any, message: str, wrapper: str | None) -> None:
    path = tmp_path / "weights.pth"
    torch.save({wrapper: content} if wrapper and isinstance(content, dict) and content else content, path)
    with pytest.raises(WeightsError, match=message) as caught:
        load_network(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


GOOD = {
    "format": "spikingir",
    "version": 2,
    "kind": "conventional",
    "architecture": "dncnn",
    "options": {**SMALL, "batch_norm": False},
}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "its spikingir header is '{', expected a JSON object"),
        ("3", "its spikingir header is '3', expected a JSON object"),
        ("[" * 100_000, "expected a JSON object"),
        ({**GOOD, "kind": "snn"}, "its header is wrong: kind is 'snn'; expected conventional"),
        ({**GOOD, "version": 3}, "header has version 3, expected 2; update spikingir"),
        ({**GOOD, "option": {}}, "unknown key 'option'; did you mean 'options'"),
        ({**GOOD, "architecture": "unet"}, "the unknown architecture 'unet'; known: dncnn"),
        ({**GOOD, "architecture": ["dncnn"]}, r"architecture is \['dncnn'\]; expected a text"),
        ({**GOOD, "options": None}, "its header is wrong: options is None; expected a table"),
        ({**GOOD, "options": {**GOOD["options"], "layers": 10**9}}, "but its tensors are those of"),
        ('{"format": "spikingir", "format": "spikingir"}', "has the key 'format' twice"),
        ('{"version": NaN}', "holds NaN; expected finite numbers"),
        ('{"version": ' + "9" * 5000 + "}", "expected a JSON object"),
        ({**GOOD, "options": {**GOOD["options"], "zoom": 1}}, "dncnn has no option 'zoom'"),
        ({**GOOD, "architecture": "aodnet", "options": {}}, "its header says aodnet, but its 8 tensors"),
    ],
)
def test_wrong_headers(tmp_path: Path, header: str | dict[str, Any], message: str) -> None:
    path = tmp_path / "network.safetensors"
    text = header if isinstance(header, str) else json.dumps(header)
    save_file(small().state_dict(), path, {"spikingir": text})
    with pytest.raises(WeightsError, match=message):
        load_network(path)


def network(method: str = "spikingir", **arguments: object) -> SpikingNetwork:
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.PixelUnshuffle(2),
        nn.Conv2d(4, 8, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 4, 3, padding=1),
        nn.PixelShuffle(2),
    )
    return convert(body, torch.rand(2, 1, 16, 16), method, time_steps=6, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["spikingir", "if", "rueckauer"])
def test_saved_and_loaded_gives_the_same_output(method: str, tmp_path: Path) -> None:
    saved = network(method, schedule=2)
    save_pretrained(saved, tmp_path / "a.safetensors")
    loaded = from_pretrained(tmp_path / "a.safetensors")
    image = torch.rand(2, 1, 16, 16)
    assert torch.equal(loaded(image), saved(image))
    assert loaded.config == saved.config
    assert loaded.nodes == saved.nodes
    assert loaded.origin == saved.origin
    assert not loaded.training


def test_what_a_sharing_network_added_is_not_kept(tmp_path: Path) -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, image: Tensor) -> Tensor:
            x = torch.relu(self.first(image))
            return torch.relu(x + self.last(x))

    images = torch.rand(2, 1, 16, 16)
    saved = convert(Skip(), images, time_steps=6)
    correct_biases(saved.at(time_steps=5), images)
    save_pretrained(saved, tmp_path / "a.safetensors")
    assert torch.equal(from_pretrained(tmp_path / "a.safetensors")(images), saved(images))


def test_parameters_keep_their_order(tmp_path: Path) -> None:
    """An optimiser's moments, and gradients between processes, go by it."""
    saved = convert(DnCNN(layers=9, width=4), torch.rand(2, 1, 16, 16))
    save_pretrained(saved, tmp_path / "a.safetensors")
    loaded = from_pretrained(tmp_path / "a.safetensors")
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in saved.named_parameters()]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_storage_of_a_spiking_network_is_of_kernels_alone(tmp_path: Path, dtype: torch.dtype) -> None:
    saved = network()
    save_pretrained(saved, tmp_path / "a.safetensors", dtype=dtype)
    loaded = from_pretrained(tmp_path / "a.safetensors")
    kernels = {f"weight.{name}" for name in saved.weight}
    for name, tensor in loaded.state_dict().items():
        wanted = saved.state_dict()[name]
        assert torch.equal(tensor, wanted.to(dtype).float() if name in kernels else wanted)
    stored = load_file(tmp_path / "a.safetensors")
    assert {name for name, tensor in stored.items() if tensor.dtype == dtype} == kernels


def test_double_precision_survives(tmp_path: Path) -> None:
    saved = network().double()
    save_pretrained(saved, tmp_path / "a.safetensors")
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64)
    assert torch.equal(from_pretrained(tmp_path / "a.safetensors")(image), saved(image))


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_pretrained(network(), path)
    with pytest.raises(FileExistsError):
        save_pretrained(network(), path)
    save_pretrained(network(), path, overwrite=True)
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 1, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(torch.sigmoid(x))

    with pytest.raises(StorageError, match="sigmoid"):
        save_pretrained(convert(Own(), torch.rand(1, 1, 8, 8)), tmp_path / "a.safetensors")
    with pytest.raises(StorageError, match="AdaptiveThresholdNeuron"):
        save_pretrained(network("lan"), tmp_path / "a.safetensors")
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    with pytest.raises(FileNotFoundError, match="no file"):
        from_pretrained(path)
    save_pretrained(network(), path)
    whole = path.read_bytes()
    for content in (b"", b"not weights", whole[:100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(StorageError, match=r"a\.safetensors"):
            from_pretrained(path)
    save_file({"x": torch.zeros(1)}, path)
    with pytest.raises(StorageError, match="something else"):
        from_pretrained(path)


def test_a_conventional_network_is_told_apart(tmp_path: Path) -> None:
    save_network(DnCNN(layers=3, width=4), tmp_path / "ann.safetensors")
    with pytest.raises(StorageError, match=r"conventional network; spikingir\.convert"):
        from_pretrained(tmp_path / "ann.safetensors")


def test_a_header_that_lies_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_pretrained(network(), path)
    tensors = load_file(path)
    with safe_open(path, framework="pt") as file:
        header = json.loads(file.metadata()["spikingir"])

    def write(**changes: object) -> None:
        save_file(tensors, path, {"spikingir": json.dumps({**header, **changes})})

    write(version=99)
    with pytest.raises(StorageError, match="version 99"):
        from_pretrained(path)
    write(nodes=[{**node, "op": "os.system"} if node["op"] == "conv2d" else node for node in header["nodes"]])
    with pytest.raises(StorageError, match=r"os\.system"):
        from_pretrained(path)
    write(config={**header["config"], "time_steps": 0})
    with pytest.raises(StorageError, match="time_steps"):
        from_pretrained(path)
    write(config={**header["config"], "formation": "import os"})
    with pytest.raises(StorageError):
        from_pretrained(path)
    del tensors[next(name for name in tensors if name.startswith("weight."))]
    write()
    with pytest.raises(StorageError, match=r"the tensor weight\._1 is missing"):
        from_pretrained(path)


def headers(path: Path) -> dict[str, Any]:
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["spikingir"])


class Joined(nn.Module):
    """A body with the operations that a header can say most about."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.conv3 = (
            nn.Conv2d(3, 3, 1),
            nn.Conv2d(3, 3, 3, padding=1),
            nn.Conv2d(6, 3, 3, padding=1),
        )

    def forward(self, image: Tensor) -> Tensor:
        first = torch.relu(self.conv1(image))
        return torch.relu(self.conv3(torch.cat([first, torch.relu(self.conv2(first))], 1)))


BIG = 10**30


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("config.time_steps", BIG, "config.time_steps is 1000000000000000000000000000000; expected a number from 1 to"),
        ("config.time_steps", 10_000, "expected a number from 1 to 1024"),
        ("config.time_steps", 0, "config.time_steps is 0; expected a number from 1"),
        ("config.time_steps", True, "config.time_steps is True; expected a whole number"),
        ("config.schedule", "clokced", "config.schedule is 'clokced'; expected clocked, phased"),
        ("config.schedule", 10, "config: a delay of 10 does not fit 10 time steps"),
        ("config.schedule", 1.0, "config.schedule is 1.0; expected clocked, phased or a whole number"),
        ("config.formation", ["identity"], "config.formation is"),
        ("config.channels", BIG, "expected a number from 1 to 64"),
        ("config.channels", "3", "config.channels is '3'; expected a whole number"),
        ("config.channels", None, "config.channels is None"),
        ("config.channels", 1.5, "config.channels is 1.5"),
        ("config.channels", 3.0, "config.channels is 3.0"),
        ("config.channels", 4, "conv2d 'conv1' with weights .* does not fit an input of 4 x 64 x 64"),
        ("config.recycling", 1, "config.recycling is 1; expected true or false"),
        ("config.recylcing", True, "config: unknown key 'recylcing'; did you mean 'recycling'"),
        ("config", [], r"config is \[\]; expected a table"),
        ("nodes", {}, "nodes is {}; expected a list"),
        ("nodes", [], "nodes has 0; expected 2 to 10000"),
        ("nodes.3.inputs", ["relu_2"], r"nodes\[3\].inputs: 'conv2' reads 'relu_2', which comes no earlier: a cycle"),
        ("nodes.3.inputs", ["conv2"], "'conv2' reads 'conv2', which comes no earlier: a cycle"),
        ("nodes.3.inputs", ["nope"], "'conv2' reads 'nope', which is no node"),
        ("nodes.3.inputs", [], r"nodes\[3\].inputs has 0; conv2d 'conv2' reads 1"),
        ("nodes.2.inputs", [], "neuron 'relu' reads 1"),
        ("nodes.3.inputs", "relu", "inputs is 'relu'; expected a list"),
        ("nodes.3.inputs", [3], r"inputs\[0\] is 3; expected a text"),
        ("nodes.5.inputs", ["relu"] * 1001, "concat 'cat' reads 1 to 256"),
        ("nodes.5.inputs", ["relu"] * 7, "conv2d 'conv3' with weights .* does not fit an input of 21 x 64 x 64"),
        ("nodes.4.name", "relu", r"nodes\[4\].name is 'relu', as an earlier one is"),
        ("nodes.3.name", "a.b", "has the name 'a.b'; expected letters"),
        ("nodes.3.op", "input", "input 'conv2' reads 0"),
        ("nodes.3.op", "neuron", "weights is 'conv2'; neuron needs none"),
        *(("nodes.3.op", op, f"{op} 'conv2' reads 2") for op in ("add", "sub")),
        *(("nodes.3.op", op, f"{op} needs none") for op in ("slice", "pad", "pixel_shuffle", "pixel_unshuffle")),
        *(("nodes.3.op", op, f"{op} needs none") for op in ("interpolate", "avg_pool2d")),
        ("nodes.3.op", "conv_transpose2d", "the key 'output_padding' is missing"),
        ("nodes.3.op", "conv3d", "an unknown operation; did you mean 'conv2d'"),
        ("nodes.3.weights", None, "weights is None; conv2d needs some"),
        ("nodes.3.weights", "conv9", "the tensor weight.conv9 is missing"),
        ("nodes.3.options.stride", [BIG, BIG], r"options.stride\[0\] is 1.*; expected a number from 1 to 64"),
        ("nodes.3.options.stride", [1.5, 1], r"options.stride\[0\] is 1.5; expected a whole number"),
        ("nodes.3.options.stride", [1], r"options.stride is \[1\]; expected a list of 2"),
        ("nodes.3.options.stride", "1", "options.stride is '1'; expected a list"),
        ("nodes.3.options.stride", None, "options.stride is None"),
        ("nodes.3.options.stride", {}, "options.stride is {}"),
        ("nodes.3.options.padding", [2**63, 2**63], "expected a number from 0 to 512"),
        ("nodes.3.options.padding", "same", "options.padding is 'same'"),
        ("nodes.3.options.padding", [2, 2], "concat 'cat' does not fit an input of 3 x 64 x 64, 3 x 66 x 66"),
        ("nodes.3.options.groups", "1", "options.groups is '1'"),
        ("nodes.3.options.groups", 1.0, "options.groups is 1.0"),
        ("nodes.3.options.groups", None, "options.groups is None"),
        ("nodes.3.options.groups", 2, "does not fit an input of 3 x 64 x 64"),
        ("nodes.3.options", {}, "options: the key 'stride' is missing"),
        ("nodes.3.options.strid", 1, "unknown key 'strid'; did you mean 'stride'"),
        ("neurons.relu.signed", None, "neurons.relu.signed is None; expected true or false"),
        ("neurons.relu.v0", 1.0, "neurons.relu.v0 is 1.0; expected a number from 0 to below 1"),
        ("neurons.relu.alpha", 0.5, "neurons.relu.alpha is 0.5; expected a number above 0.5 to 1"),
        ("neurons.relu.v0", 0.9, "neurons.relu: alpha 0.501 with v0 0.9 rounds twice"),
        ("neurons.relu.activation_bits", 0, "neurons.relu.activation_bits is 0; expected a number from 1 to 8"),
        ("config.coding", "trinary", "config.coding is 'trinary'; expected unary, binary"),
        ("config.coding", "binary", "config: the binary code needs the phased schedule"),
        ("neurons.relu.kind", "lan", "neurons.relu.kind is 'lan'; known: if, mprn"),
        ("neurons.relu.kind", ["if"], "neurons.relu.kind is"),
        ("neurons.relu", 3, "neurons.relu is 3; expected a table"),
        ("neurons.relu9", {}, "neurons: 'relu9' is no neuron of the nodes"),
        ("mapper", None, "mapper is None; expected true or false"),
        ("mapper", False, "mapper.bias has no place there"),
        ("origin", [["a", "b"]], r"origin\[0\] is \['a', 'b'\]; expected a list of 3"),
        ("config.formation", "soft", "an output of 3 channels of 64 x 64 does not fit the formation 'soft'"),
    ],
)  # fmt: skip
def test_a_header_is_checked_by_its_schema(place: str, value: object, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_pretrained(convert(Joined(), torch.rand(1, 3, 16, 16), schedule=2), path)
    tensors, header = load_file(path), headers(path)
    table: Any = header
    *way, last = place.split(".")
    for key in way:
        table = table[int(key) if isinstance(table, list) else key]
    table[last] = value
    save_file(tensors, path, {"spikingir": json.dumps(header)})
    with pytest.raises(StorageError, match=message) as caught:
        from_pretrained(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("neurons.relu.log_threshold", torch.zeros(5), "neurons.relu.log_beta has shape|neurons.relu has 5 thresholds"),
        ("neurons.relu.log_threshold", torch.full((3,), float("nan")), "'neurons.relu.log_threshold' has NaN"),
        ("neurons.relu.log_threshold", torch.zeros(3, dtype=torch.int64), "of type torch.int64, expected floating"),
        (
            "neurons.relu.log_threshold",
            torch.zeros(3, dtype=torch.float64),
            "types .*; expected float32 or float64",
        ),
        ("bias.conv2", torch.zeros(2), "bias.conv2 has 2 values for 3 channels"),
        ("weight.conv2", torch.zeros(3, 3, 3), r"weight.conv2 has shape \(3, 3, 3\); expected 4 dimensions"),
        ("mapper.weight", torch.zeros(10**6, 1, 1, 1), r"mapper.weight has shape .*; expected \(C, C, 3, 3\)"),
        ("mapper.weight", torch.zeros(5, 5, 3, 3), r"mapper.bias has shape \(3,\), expected \(5,\)"),
        ("weight.other", torch.zeros(1), "weight.other has no place there"),
    ],
)
def test_tensors_that_do_not_fit_the_header(name: str, tensor: Tensor, message: str, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_pretrained(convert(Joined(), torch.rand(1, 3, 16, 16)), path)
    save_file({**load_file(path), name: tensor}, path, {"spikingir": json.dumps(headers(path))})
    with pytest.raises(StorageError, match=message):
        from_pretrained(path)


@pytest.mark.parametrize("channels", [5, 6])
def test_thresholds_for_other_channels(channels: int, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_pretrained(convert(Joined(), torch.rand(1, 3, 16, 16)), path)
    other = {f"neurons.relu.log_{what}": torch.zeros(channels) for what in ("threshold", "beta")}
    save_file({**load_file(path), **other}, path, {"spikingir": json.dumps(headers(path))})
    with pytest.raises(StorageError, match=f"neurons.relu has {channels} thresholds for 3 channels; expected one each"):
        from_pretrained(path)


@pytest.mark.parametrize("method", ["spikingir", "if"])
def test_files_of_version_1_load(method: str, tmp_path: Path) -> None:
    path, image = tmp_path / "a.safetensors", torch.rand(1, 1, 16, 16)
    spiking = network(method)
    save_pretrained(spiking, path)
    header = headers(path)
    for settings_ in header["neurons"].values():
        del settings_["kind"]
    old = {key: value for key, value in header.items() if key != "kind"}
    old |= {"format": "spikingir.SpikingNetwork", "version": 1}
    save_file(load_file(path), path, {"spikingir": json.dumps(old)})
    assert torch.equal(from_pretrained(path)(image), spiking(image))
    old["neurons"] = 3
    save_file(load_file(path), path, {"spikingir": json.dumps(old)})
    with pytest.raises(StorageError, match="neurons is 3; expected a table"):
        from_pretrained(path)
    save_network(small(), path)
    old = {"kind": "network", "version": 1, "architecture": "dncnn", "options": {**SMALL, "batch_norm": False}}
    save_file(load_file(path), path, {"spikingir": json.dumps(old)})
    assert same(load_network(path), small())


def test_both_kinds_are_told_apart(tmp_path: Path) -> None:
    ann, snn = tmp_path / "ann.safetensors", tmp_path / "snn.safetensors"
    save_network(small(), ann)
    save_pretrained(network(), snn)
    assert isinstance(load_any(ann), DnCNN)
    assert isinstance(load_any(snn), SpikingNetwork)
    with pytest.raises(StorageError, match=r"holds a spiking network already, which spikingir\.from_pretrained reads"):
        load_network(snn)


def test_save_refuses_what_load_would(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    cases: list[tuple[Callable[[SpikingNetwork], object], str]] = [
        (lambda net: setattr(net, "config", net.at(time_steps=2000).config), "time_steps is 2000; expected a number"),
        (lambda net: net.neurons.update({net.layers[0]: IFNeuron(torch.ones(5))}), "5 thresholds for 8 channels"),
        (lambda net: net.neuron(net.layers[0]).log_threshold.data.fill_(float("nan")), "has NaN or infinite values"),
        (lambda net: setattr(net, "mapper", PixelMapper(3)), "the mapper is for 3 channels; the output has 1"),
        (lambda net: setattr(net, "nodes", net.nodes[::-1]), "expected the input first"),
    ]
    for change, message in cases:
        spiking = network("if" if "thresholds" in message else "spikingir")
        change(spiking)
        with pytest.raises(StorageError, match=message):
            save_pretrained(spiking, path)
    with pytest.raises(StorageError, match=r"ends in \.safetensors"):
        save_pretrained(network(), tmp_path / "a.pth")
    changed = small()
    changed.body.conv2 = nn.Conv2d(6, 6, 5, padding=2)
    with pytest.raises(StorageError, match="looks like dncnn"):
        save_network(changed, path)
    assert not list(tmp_path.iterdir())


def compressed(path: Path, values: int) -> None:
    """An archive of torch's, deflated: reading unpacks it."""
    torch.save({"body.conv0.weight": torch.zeros(values)}, path)
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)


def test_an_archive_that_says_it_spans_disks(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(small().state_dict(), path)
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x06\x07") + 16] = 9  # disks, of the locator at the end
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="disks"):
        load_network(path)


def test_archives_that_unpack_to_more_than_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    compressed(path, 2**22)
    assert path.stat().st_size < 2**18
    with pytest.raises(WeightsError, match=r"unpacks to 0\.02 GiB, more than the limit of 0\.01 GiB; .*raise"):
        load_network(path, max_bytes=2**30 // 100)
    with pytest.raises(WeightsError, match="are not those of a known network"):
        load_network(path, max_bytes=2**25)


def test_torchs_advice_to_run_code_is_not_passed_on(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    contents: list[Callable[[], object]] = [
        lambda: torch.save(nn.Linear(1, 1), path),
        lambda: torch.save({"x": Path("a")}, path),
        lambda: torch.save({"x": os.system}, path),
        lambda: path.write_bytes(pickle.dumps({"x": contextlib.suppress(ValueError)})),
        lambda: path.write_bytes(pickle.dumps(torch.zeros(1).numpy())),
        lambda: path.write_bytes(b"\x80\x04\x95\xff\xff"),
        lambda: zipfile.ZipFile(path, "w").close(),
        lambda: path.write_bytes(b"PK\x03\x04" + bytes(200)),
    ]
    for write in contents:
        path.unlink(missing_ok=True)
        write()
        with pytest.raises(WeightsError) as caught:
            load_network(path)
        assert "weights_only" not in str(caught.value)
        assert "\n" not in str(caught.value)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("net/constants.pkl", b"")
    with pytest.raises(WeightsError, match=r"it is a TorchScript program, which is refused; save network\.state_dict"):
        load_network(path)


def test_the_specification_names_every_operation_and_setting() -> None:
    text = (Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")
    for op, operation in OPERATIONS.items():
        if operation.settings is None:
            continue
        row = next(line for line in text.splitlines() if line.startswith("| ") and f"`{op}`" in line.split("|")[1])
        for setting in fields(operation.settings):
            assert f"`{setting.name}`" in row, (op, setting.name)
    for name in (*(field.name for field in fields(SpikingConfig)), *get_args(ImageFormation)):
        assert f"`{name}`" in text or f'`"{name}"`' in text, name
    for name, kind in NEURONS.items():
        assert kind.settings is None or f'`"{name}"`' in text
    assert f"{MAX_BYTES // 2**30} GiB" in text


def test_the_examples_of_the_specification_are_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "format.md").read_text(encoding="utf-8")
    conventional, spiking = re.findall(r"```json\n(.*?)```", text, re.S)
    path = tmp_path / "a.safetensors"
    save_file(DnCNN(**json.loads(conventional)["options"]).state_dict(), path, {"spikingir": conventional})
    assert isinstance(load_any(path), DnCNN)
    tensors = {
        "weight.conv": torch.zeros(1, 1, 3, 3),
        **{f"neurons.output.log_{what}": torch.zeros(1) for what in ("threshold", "beta")},
        **PixelMapper(1).state_dict(prefix="mapper."),
    }
    save_file({name: tensor.detach() for name, tensor in tensors.items()}, path, {"spikingir": spiking})
    image = torch.rand(1, 1, 8, 8)
    assert torch.equal(from_pretrained(path)(image), image)
