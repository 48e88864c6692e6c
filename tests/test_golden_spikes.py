"""Spikes that SpikingJelly's IF neurons fired, kept by `make test-peers`: ours fire the same, step for step."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from spikingir.conversion.convert import convert
from spikingir.deploy.fold import fold
from spikingir.networks import build_network
from spikingir.spiking.formation import form_image

FIXTURES = Path(__file__).parent / "fixtures"


def tensor(kept: dict[str, Any], unit: float) -> Tensor:
    values = np.frombuffer(bytes.fromhex(kept["int8"]), np.int8).reshape(kept["shape"])
    return torch.from_numpy(values * unit)


@pytest.mark.parametrize("architecture", ["dncnn", "aodnet"])
def test_spikes_are_those_of_spikingjelly(architecture: str) -> None:
    kept = json.loads((FIXTURES / f"spikes_{architecture}.json").read_text(encoding="utf-8"))
    tensors = {
        name: tensor(value, kept["unit"]) for name, value in kept.items() if isinstance(value, dict) and "int8" in value
    }
    network = build_network(kept["architecture"], **kept["options"]).double()
    network.load_state_dict(
        {name.removeprefix("weights "): value for name, value in tensors.items() if name.startswith("weights ")}
    )
    spiking = convert(
        network,
        tensors["calibration"],
        "rueckauer",
        time_steps=kept["time_steps"],
        per_channel=False,
        mapper=False,
        recycling=True,
    )
    layers = {name.removeprefix("layer "): value for name, value in kept.items() if name.startswith("layer ")}
    current = torch.tensor(kept["mean_current"], dtype=torch.float64)
    expected = form_image(network.formation, tensors["image"], current if architecture == "dncnn" else current.relu())
    for form in (spiking, fold(spiking, grid=None, dtype=torch.float64)):
        restored, trace = form.trace(tensors["image"], trains=True)
        torch.testing.assert_close(restored, expected, rtol=0, atol=1e-8)
        fired = {layer.name: layer for layer in trace.layers}
        # the output neuron of a DnCNN is signed, which SpikingJelly's is not
        assert list(fired)[: len(layers)] == list(layers)
        for name, layer in layers.items():
            trains = fired[name].trains
            assert trains is not None
            assert spiking.neuron(name).v_threshold.item() == pytest.approx(layer["v_threshold"], rel=1e-12)
            assert trains.sum((1, 2, 3, 4)).tolist() == layer["spikes_per_step"]
            assert hashlib.sha256(np.packbits(trains.bool().numpy())).hexdigest() == layer["sha256"]
