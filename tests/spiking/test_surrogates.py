"""The three surrogate derivatives: values, symmetry, area."""

import math

import pytest
import torch

from spikingir.spiking.surrogate import SURROGATES

VALUES = {
    "triangle": {0: 1, 0.25: 0.75, 0.5: 0.5, 1: 0, 3: 0},
    "rectangle": {0: 1, 0.25: 1, 0.49: 1, 0.5: 0, 3: 0},
    "arctan": {0: 1, 1 / math.pi: 0.5, 2 / math.pi: 0.2, 3 / math.pi: 0.1},
}


@pytest.mark.parametrize("name", SURROGATES)
def test_values_on_both_sides(name: str) -> None:
    u = torch.tensor(list(VALUES[name]), dtype=torch.float64)
    wanted = torch.tensor(list(VALUES[name].values()), dtype=torch.float64)
    torch.testing.assert_close(SURROGATES[name](u), wanted)
    torch.testing.assert_close(SURROGATES[name](-u), wanted)


@pytest.mark.parametrize("name", SURROGATES)
def test_is_a_smoothed_step(name: str) -> None:
    """A derivative of a step from 0 to 1 has area 1."""
    u = torch.linspace(-1000, 1000, 4_000_001, dtype=torch.float64)
    assert torch.trapezoid(SURROGATES[name](u), u).item() == pytest.approx(1, abs=1e-3)
