"""The multi-scale network: what it computes, which files it is read from."""

import pytest
import torch

from spikingir import load_network
from spikingir.inputs import pad_to_multiple, with_level
from spikingir.networks.multiscale import MultiScaleNet, without_level
from spikingir.spiking.formation import form_image, one_airlight
from spikingir.store import save_network


def _network(**options: object) -> MultiScaleNet:
    torch.manual_seed(0)
    network = MultiScaleNet(**{"width": 4, "blocks": (1, 1, 1), **options})
    network.reset_parameters(torch.Generator().manual_seed(0))
    return network.eval()


def test_a_level_of_zero_is_the_identity() -> None:
    image = torch.rand(2, 1, 24, 16)
    assert torch.equal(_network()(image, 0.0), image)


@pytest.mark.parametrize("size", [(1, 1), (3, 5), (8, 8), (17, 24)])
def test_every_size_is_restored_and_a_constant_map_is_the_number(size: tuple[int, int]) -> None:
    network = _network()
    image = torch.rand(2, 1, *size)
    number = network(image, 0.1)
    assert number.shape == image.shape
    assert torch.equal(number, network(image, torch.full((2, 1, *size), 0.1)))
    assert torch.equal(number, network(image, torch.tensor([0.1, 0.1])))
    assert torch.equal(number, network(with_level(image, 0.1)))


def test_padding_repeats_the_last_row_and_column() -> None:
    padded = pad_to_multiple(torch.arange(6.0).reshape(1, 1, 2, 3), 4)
    assert padded[0, 0].tolist() == [[0, 1, 2, 2], [3, 4, 5, 5], [3, 4, 5, 5], [3, 4, 5, 5]]


def test_soft_formation_has_two_maps() -> None:
    network = _network(channels=3, form="soft", blocks=(1, 1, 1, 1))
    image = torch.rand(1, 3, 32, 32)
    k, b = network.body(image).chunk(2, 1)
    torch.testing.assert_close(network(image), k * image - b + image)


def test_one_airlight_takes_the_haze_away_and_leaves_the_air_as_it_came() -> None:
    generator = torch.Generator().manual_seed(0)
    clean, t = torch.rand(2, 3, 20, 30, generator=generator), torch.rand(2, 1, 20, 30, generator=generator) * 0.8 + 0.2
    light = torch.tensor([[0.9, 0.8, 0.7], [0.5, 0.5, 0.6]]).view(2, 3, 1, 1)
    hazy = clean * t + light * (1 - t)
    k = (1 / t - 1).expand(-1, 3, -1, -1)
    unevenly = light * k * (1 + 0.1 * (torch.arange(30) % 2 * 2 - 1))  # wrong by a tenth, up and down
    evenly, as_they_are = (form_image(form, hazy, torch.cat([k, unevenly], 1)) for form in ("airlight", "soft"))
    assert (evenly - clean).abs().mean() < 0.02
    assert (as_they_are - clean).abs().mean() > 0.06
    air = light.expand(-1, -1, 20, 30)
    assert (form_image("airlight", air, torch.cat([k, light * k], 1)) - air).abs().max() < 0.003


def test_the_airlight_of_a_tensor_does_not_depend_on_the_order_of_its_pixels() -> None:
    maps = torch.randn(1, 6, 40, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = one_airlight(maps.flip(-1, -2))
    k, light = one_airlight(maps)
    assert torch.equal(turned[0].flip(-1, -2), k)
    assert torch.equal(turned[1], light)


def test_k_is_not_negative_and_the_airlight_is_a_light() -> None:
    maps = torch.tensor([-1.0, 2.0, 3.0, -4.0, 9.0, 0.3]).view(1, 6, 1, 1).expand(1, 6, 2, 2).clone()
    k, light = one_airlight(maps)
    assert k.unique().item() == pytest.approx(4 / 3)
    assert light.flatten().tolist() == pytest.approx([0, 1, 0.3 * 3 / 4], abs=1e-3)
    assert one_airlight(-maps)[0].unique().tolist() == [0]


def test_a_gradient_leads_back_to_what_k_and_the_airlight_may_be() -> None:
    maps = torch.cat([torch.full((1, 3, 2, 2), -1.0), torch.zeros(1, 3, 2, 2)], 1).requires_grad_()
    for sign, leads in ((1, False), (-1, True)):  # a loss that falls as K falls, and one that falls as it rises
        (gradient,) = torch.autograd.grad(sign * one_airlight(maps)[0].sum(), maps)
        assert bool(gradient.any()) == leads


def test_without_haze_there_is_an_airlight_all_the_same() -> None:
    image = torch.rand(1, 3, 8, 8)
    assert torch.equal(form_image("airlight", image, torch.zeros(1, 6, 8, 8)), image)


@pytest.mark.parametrize("level", [-0.1, float("nan"), float("inf")])
def test_a_level_out_of_range_is_refused(level: float) -> None:
    with pytest.raises(ValueError, match="negative or not finite"):
        _network()(torch.rand(1, 1, 8, 8), level)


def test_a_level_map_of_another_size_is_refused() -> None:
    with pytest.raises(ValueError, match="the level has shape"):
        _network()(torch.rand(1, 1, 8, 8), torch.zeros(1, 1, 8, 4))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"channels": 3, "form": "soft", "blocks": (1, 2, 1, 1)},
        {"channels": 3, "form": "airlight"},
        {"form": "residual", "batch_norm": True},
        {"inject_kernel": 1, "blocks": (2, 1)},
        {"activation_bits": (5, 4, 3), "batch_norm": True, "top_residual": True},
    ],
)
def test_a_saved_network_is_the_same(options: dict[str, object], tmp_path) -> None:
    network = _network(**options)
    save_network(network, tmp_path / "n.safetensors")
    loaded = load_network(tmp_path / "n.safetensors")
    assert isinstance(loaded, MultiScaleNet)
    assert loaded.options == network.options
    image = torch.rand(1, network.channels, 32, 32)
    given = with_level(image, 0.1) if network.takes_level else image
    assert torch.equal(loaded(given), network(given))


@pytest.mark.parametrize("batch_norm", [False, True])
@pytest.mark.parametrize("bits", [(), (5, 4, 3)])
def test_a_network_at_a_fixed_level_is_a_blind_one(batch_norm: bool, bits: tuple[int, ...]) -> None:
    network = _network(batch_norm=batch_norm, activation_bits=bits, channels=3)
    generator = torch.Generator().manual_seed(1)
    for name, tensor in network.state_dict().items():  # statistics and biases that matter
        if name.endswith(("running_mean", "bias")):
            tensor.normal_(0, 0.1, generator=generator)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    blind = without_level(network, 0.2)
    assert (blind.form, blind.takes_level, blind.activation_bits) == ("residual", False, bits)
    image = torch.rand(1, 3, 160, 160)
    # the map of the level is padded with zeros, which is felt as far from the frame as the network reads
    difference = (network(image, 0.2) - blind(image))[..., 72:88, 72:88]
    assert difference.abs().max() < (5e-6 if not bits else 1e-3)  # a quantised activation turns rounding into a step
    other = (network(image, 0.3) - blind(image))[..., 72:88, 72:88]
    assert other.abs().max() > 1e-3
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_only_a_level_can_be_fixed() -> None:
    with pytest.raises(ValueError, match="the network has the form residual"):
        without_level(_network(form="residual"), 0.2)
    with pytest.raises(ValueError, match="level is 0"):
        without_level(_network(), 0)


def test_bare_tensors_are_recognised(tmp_path) -> None:
    network = _network(channels=3, blocks=(1, 0, 2))
    torch.save(network.state_dict(), tmp_path / "n.pth")
    assert load_network(tmp_path / "n.pth").options == network.options
