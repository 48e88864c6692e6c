"""Networks by name; files of weights, good and bad."""

import contextlib
import inspect
import json
import os
import pickle
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from spikingir.networks import (
    ARCHITECTURES,
    AODNet,
    DnCNN,
    RestorationNetwork,
    WeightsError,
    build_network,
    describe,
    load_network,
    save_network,
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


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_descriptor_tells_the_truth(name: str) -> None:
    architecture = ARCHITECTURES[name]
    network = build_network(name)
    assert architecture.name == name
    assert type(network) is architecture.builder
    assert network.channels in architecture.channels
    assert network.options.keys() == inspect.signature(architecture.builder).parameters.keys()
    assert describe(network) == {"architecture": name, "options": network.options}
    side = max(architecture.smallest, architecture.multiple)
    image = torch.rand(1, network.channels, side, 2 * side)
    assert network(image, 0.1 if network.takes_level else None).shape == image.shape
    others = [other for other in ARCHITECTURES.values() if other is not architecture]
    assert architecture.recognise(network.state_dict()) is not None
    assert all(other.recognise(network.state_dict()) is None for other in others)


def test_descriptor_and_registry_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        ARCHITECTURES["dncnn"].multiple = 2
    with pytest.raises(TypeError):
        ARCHITECTURES["mine"] = ARCHITECTURES["dncnn"]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "dncn",
            {},
            r"unknown architecture 'dncn'; known: dncnn \(denoise\), aodnet \(dehaze\), multiscale \(denoise\)",
        ),
        ("multiscale", {"blocks": (1,)}, r"blocks is \(1,\); expected 2 to 6 scales"),
        ("multiscale", {"form": "hard"}, "form is 'hard'; expected level, residual or soft"),
        ("multiscale", {"activation_bits": (5, 4)}, r"activation_bits is \(5, 4\); expected 1 to 8 bits"),
        ("dncnn", {"layer": 17}, "dncnn has no option 'layer'; did you mean 'layers'?"),
        ("dncnn", {"zoom": 2}, "no option 'zoom'; known: channels, layers, width, batch_norm"),
        ("aodnet", {"layers": 5}, "aodnet has no option 'layers'; known: none"),
        ("dncnn", {"layers": 17.0}, "layers is 17.0; dncnn expects a value of type int"),
        ("dncnn", {"width": True}, "width is True; dncnn expects a value of type int"),
        ("dncnn", {"batch_norm": 1}, "batch_norm is 1; dncnn expects a value of type bool"),
        ("dncnn", {"channels": 2}, "channels is 2; dncnn is for images of 1 or 3"),
        ("dncnn", {"layers": 2}, "layers is 2; DnCNN has at least 3"),
        ("dncnn", {"width": 0}, "width is 0; DnCNN has at least 1"),
    ],
)
def test_build_errors(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build_network(name, **options)


def test_only_known_architectures_are_described() -> None:
    class Mine(DnCNN):
        pass

    with pytest.raises(ValueError, match=r"Mine is of no known architecture; known: dncnn"):
        describe(Mine())


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
            "kind": "network",
            "version": 1,
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
            r"expected weights of one of dncnn \(denoise\), aodnet \(dehaze\)",
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


GOOD = {"kind": "network", "version": 1, "architecture": "dncnn", "options": {**SMALL, "batch_norm": False}}


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("{", "its spikingir header is '{', expected a JSON object"),
        ("3", "its spikingir header is '3', expected a JSON object"),
        ("[" * 100_000, "expected a JSON object"),
        ({**GOOD, "kind": "snn"}, "it holds a 'snn', expected a 'network'"),
        ({**GOOD, "version": 2}, "header has version 2, expected 1; update spikingir"),
        ({**GOOD, "option": {}}, "unknown key 'option'; did you mean 'options'"),
        ({**GOOD, "architecture": "unet"}, "unknown architecture 'unet'; known: dncnn"),
        ({**GOOD, "architecture": ["dncnn"]}, "unknown architecture"),
        ({**GOOD, "options": None}, "its header has options None, expected a mapping"),
        ({**GOOD, "options": {**GOOD["options"], "layers": 10**9}}, "but its tensors are those of"),
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
