"""A file of another tool becomes a model again: the same spikes, folded, saved and loaded."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import spikingir
from spikingir.deploy.fold import FoldError, fold
from spikingir.deploy.folded import FoldedNetwork
from spikingir.deploy.unfold import unfold
from spikingir.export.drift import measure, sample_images, spikes_of
from spikingir.export.errors import ExportError
from spikingir.export.export import FORMATS, export_network, import_network
from spikingir.networks.dncnn import DnCNN
from spikingir.spiking.network import SpikingNetwork
from spikingir.zoo.pretrained import load_spiking
from tests.export.test_export import NETWORKS, OwnNetwork, images, made, multiscale, plain
from tests.export.test_nir import made as made_for_nir

Run = Callable[..., tuple[int, str, str]]


def trained(network: SpikingNetwork) -> SpikingNetwork:
    """Thresholds, betas and a mapper as training leaves them."""
    generator = torch.Generator().manual_seed(8)
    parts = [*network.neurons.parameters(), *([] if network.mapper is None else network.mapper.parameters())]
    for parameter in parts:
        parameter.data.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


def assert_same(network: FoldedNetwork, again: SpikingNetwork, x: Tensor) -> None:
    drift = measure(spikes_of(network, x), *spikes_of(fold(again), x))
    assert drift.spikes > 100
    assert drift.different == 0
    assert drift.largest < 1e-5


@pytest.mark.parametrize("name", NETWORKS)
def test_every_network_comes_back(name: str) -> None:
    network = made(name)
    assert_same(network, unfold(network), images(network))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("clocked", lambda: plain(DnCNN(layers=4, width=8), time_steps=6)),
        ("phased", lambda: plain(DnCNN(layers=4, width=8), time_steps=6, schedule="phased")),
        ("binary", lambda: multiscale("level", time_steps=4, schedule="phased", coding="binary")),
        ("own", lambda: plain(OwnNetwork(), time_steps=4)),
        ("own delayed", lambda: plain(OwnNetwork(), time_steps=6, schedule=2)),
        ("if", lambda: plain(OwnNetwork(), time_steps=4, method="if")),
    ],
)
def test_trained_networks_come_back(name: str, make: Callable[[], SpikingNetwork]) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = fold(trained(make()))
    again = unfold(network)
    assert_same(network, again, images(network))
    folded = fold(again)
    for node in network.nodes:
        kernel, found = network.kernel(node.name), folded.kernel(node.name)
        if kernel is not None and found is not None:
            assert torch.equal(found.grid, kernel.grid)  # type: ignore[arg-type]
            if network.spiking.issuperset(node.inputs):
                assert torch.equal(found.spike, kernel.spike)


@pytest.mark.parametrize("method", ["spikingir", "if"])
@pytest.mark.parametrize("name", ["dncnn", "aodnet", "difference"])
def test_nir(tmp_path: Path, name: str, method: str) -> None:
    network = made_for_nir(name, method)
    export_network(network, tmp_path / "a.nir", "nir")
    done = import_network(tmp_path / "a.nir", "nir")
    assert done.drift.spikes > 1000
    assert (done.drift.different, done.drift.largest < 1e-6) == (0, True)
    if method == "if":  # the file says all of it
        assert_same(network, done.network, images(network))


def test_command(run: Run, tiny_model: Path, tmp_path: Path) -> None:
    file, model, again = tmp_path / "a.npz", tmp_path / "again.safetensors", tmp_path / "b.npz"
    assert run("export", tiny_model, "--to", "npz", "-o", file)[0] == 0
    arguments = ["import", file, "--from", "npz", "-o", model]
    code, said, _ = run(*arguments)
    assert code == 0
    assert said.startswith(f"{model}: 0 of ")
    assert "spikes differ, " in said
    code, _, error = run(*arguments)
    assert (code, "--overwrite replaces it" in error) == (1, True)
    assert run(*arguments, "--overwrite")[0] == 0
    assert run("export", model, "--to", "npz", "-o", again)[0] == 0
    with np.load(file) as first, np.load(again) as second:
        kernels = [name for name in first.files if name.endswith((".spike", ".grid")) and name.startswith("kernel.")]
        assert kernels
        for name in kernels:
            assert np.array_equal(first[name], second[name]), name


def test_a_change_by_another_tool_is_kept(tmp_path: Path) -> None:
    export_network(NETWORKS["dncnn phased"](), tmp_path / "a.npz", "npz")
    with np.load(tmp_path / "a.npz") as file:
        arrays = {name: file[name] for name in file.files}
    name = next(name for name in arrays if name.endswith(".spike") and name.startswith("kernel."))
    for part in ("spike", "extended", "analog"):
        arrays[name.replace("spike", part)] *= 2
    np.savez(tmp_path / "b.npz", **arrays)
    before, after = (import_network(tmp_path / file, "npz") for file in ("a.npz", "b.npz"))
    assert after.drift.different == 0
    assert after.drift.spikes != before.drift.spikes


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "schedule"), [("denoise-gray-25", "clocked"), ("denoise-gray", "phased"), ("dehaze-aodnet", "clocked")]
)
def test_shipped_networks_come_back(tmp_path: Path, name: str, schedule: str) -> None:
    export_network(load_spiking(name, schedule=schedule).network, tmp_path / "a.npz", "npz")  # type: ignore[arg-type]
    drift = import_network(tmp_path / "a.npz", "npz").drift
    assert drift.spikes > 1000
    assert drift.different == 0
    assert drift.largest < 1e-5


def test_refusals(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.npz").write_bytes(b"nothing")
    for source in ("onnx", "csv"):
        with pytest.raises(ExportError, match=r"those that can be read are npz, nir, spikingjelly"):
            import_network(tmp_path / "a.npz", source)
    with pytest.raises(ExportError, match="no npz file"):
        import_network(tmp_path / "a.npz", "npz")
    with pytest.raises(FileNotFoundError):
        import_network(tmp_path / "none.npz", "npz")
    for source in ("npz", "nir", "spikingjelly"):
        code, _, error = run("import", tmp_path / "a.npz", "--from", source, "-o", tmp_path / "b.safetensors")
        assert (code, error.count("\n")) == (1, 1), error
    assert run("import", tmp_path / "a.npz", "--from", "csv", "-o", tmp_path / "b.safetensors")[0] == 2
    export_network(NETWORKS["dncnn clocked"](), tmp_path / "a.npz", "npz", overwrite=True)
    code, _, error = run("import", tmp_path / "a.npz", "--from", "npz", "-o", tmp_path / "b.pth")
    assert (code, r"ends in .safetensors" in error) == (1, True)
    monkeypatch.setitem(__import__("sys").modules, "nir", None)
    monkeypatch.delitem(__import__("sys").modules, "spikingir.export.nir", raising=False)
    with pytest.raises(ExportError, match=r"pip install 'spikingir\[nir\]'"):
        import_network(tmp_path / "a.npz", "nir")


def test_what_no_spiking_network_has(tmp_path: Path) -> None:
    with pytest.raises(FoldError, match="lies on no grid"):
        unfold(fold(NETWORKS["dncnn phased"](), grid=None, dtype=torch.float64))
    export_network(NETWORKS["dncnn clocked"](), tmp_path / "a.npz", "npz")
    with np.load(tmp_path / "a.npz") as file:
        arrays = {name: file[name] for name in file.files}
    header = json.loads(arrays["header"].tobytes())
    for clock in header["clocks"].values():
        clock["v0"] = 0.5
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    np.savez(tmp_path / "b.npz", **arrays)
    with pytest.raises(FoldError, match=r"fires at T \+ 1 at 0\.50\d+ thresholds .* expected v0 \+ 1/2 to 1"):
        import_network(tmp_path / "b.npz", "npz")


def test_public_name_and_registry() -> None:
    assert spikingir.import_network is import_network
    assert [name for name in FORMATS if FORMATS[name].read] == ["npz", "nir", "spikingjelly"]
    assert sample_images(made("level binary")).shape[1] == 2
