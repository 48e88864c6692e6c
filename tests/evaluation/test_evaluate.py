"""What `evaluate` reports is what a reader would measure by hand."""

import json
import math
from collections.abc import Callable
from dataclasses import fields, replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from spikingir.conversion.convert import convert
from spikingir.data.noise import add_gaussian_noise, sample_generator
from spikingir.data.testsets import TestPair
from spikingir.deploy.fold import fold
from spikingir.energy.paper import ann_energy, paper_energy
from spikingir.evaluation.evaluate import Evaluation, Measures, confidence_interval, conversion_rate, evaluate
from spikingir.measures import psnr, ssim
from spikingir.networks import AODNet, DnCNN
from spikingir.networks.base import RestorationNetwork
from spikingir.restoration.restorer import Restorer
from spikingir.spiking.network import SpikingNetwork

SIZES = ((14, 18), (12, 11), (17, 16))


def make(build: Callable[[], RestorationNetwork]) -> tuple[RestorationNetwork, SpikingNetwork]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build()
    images = torch.rand(2, network.channels, 16, 16, generator=torch.Generator().manual_seed(0))
    return network.eval(), convert(network, images, time_steps=3)


def testset(channels: int) -> list[TestPair]:
    pairs = []
    for i, size in enumerate(SIZES):
        clean = torch.rand(channels, *size, generator=sample_generator(1, i))
        pairs.append(TestPair(f"image {i}", add_gaussian_noise(clean, 25, sample_generator(0, i)), clean))
    return pairs


testset.__test__ = False  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def networks() -> tuple[RestorationNetwork, SpikingNetwork]:
    return make(lambda: DnCNN(layers=3, width=4))


def test_measures_are_those_of_the_deployment_form(networks: tuple[RestorationNetwork, SpikingNetwork]) -> None:
    ann, snn = networks
    progress: list[tuple[int, int]] = []
    found = evaluate(Restorer(snn), testset(1), ann, progress=lambda *counts: progress.append(counts))
    assert progress == [(1, 3), (2, 3), (3, 3)]
    folded = fold(snn)
    for (name, measures), pair in zip(found.images, testset(1), strict=True):
        noisy, clean = pair.degraded[None], pair.clean[None]
        restored, trace = folded.trace(noisy)
        with torch.inference_mode():
            reference = ann(noisy)
        energy = paper_energy(folded, trace)
        wanted = {
            "degraded_psnr": psnr(noisy, clean).item(),
            "degraded_ssim": ssim(noisy, clean).item(),
            "psnr": psnr(restored, clean).item(),
            "ssim": ssim(restored, clean).item(),
            "ann_psnr": psnr(reference, clean).item(),
            "ann_ssim": ssim(reference, clean).item(),
            "psnr_loss": psnr(reference, clean).item() - psnr(restored, clean).item(),
            "conversion_rate_uncapped": 100 * (psnr(restored, clean) / psnr(reference, clean)).item(),
            "synaptic_operations": energy.synaptic_operations,
            "spikes_per_neuron": trace.spikes_per_neuron,
            "snn_mj": energy.snn_mj,
            "ann_mj": ann_energy(ann, (clean.shape[-2], clean.shape[-1])),
        }
        wanted["conversion_rate"] = min(100, wanted["conversion_rate_uncapped"])
        assert name == pair.name
        assert set(wanted) == {field.name for field in fields(Measures)}
        for key, value in wanted.items():
            assert getattr(measures, key) == pytest.approx(value, rel=1e-5), key


def test_sizes_that_the_stride_does_not_divide() -> None:
    """Both networks see the padded image, and what it gained is cut off what both make of it."""
    body = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.PixelShuffle(2))
    ann, snn = make(lambda: RestorationNetwork(body, "residual", 1))
    found = evaluate(Restorer(snn), testset(1), ann)
    for (_, measures), pair in zip(found.images, testset(1), strict=True):
        height, width = pair.clean.shape[1:]
        even = nn.functional.pad(pair.degraded[None], (0, width % 2, 0, height % 2), "replicate")
        with torch.inference_mode():
            wanted = [network(even)[..., :height, :width] for network in (ann, fold(snn))]
        assert measures.ann_psnr == pytest.approx(psnr(wanted[0], pair.clean[None]).item())
        assert measures.psnr == pytest.approx(psnr(wanted[1], pair.clean[None]).item())


def test_tiles_change_nothing(networks: tuple[RestorationNetwork, SpikingNetwork]) -> None:
    ann, snn = networks
    whole, tiled = (evaluate(Restorer(snn, tile=tile), testset(1), ann).mean for tile in (None, 5))
    for field in fields(Measures):
        assert getattr(tiled, field.name) == pytest.approx(getattr(whole, field.name), rel=1e-6)


def test_dehazing_rates_weigh_both_measures() -> None:
    ann, snn = make(AODNet)
    (_, measures), *_ = evaluate(Restorer(snn), testset(3)[:1], ann, task="dehaze").images
    assert measures.ann_psnr is not None
    assert measures.ann_ssim is not None
    wanted = 50 * (measures.psnr / measures.ann_psnr + measures.ssim / measures.ann_ssim)
    assert measures.conversion_rate_uncapped == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("psnr", "ssim", "printed"), [(19.63, 0.7884, 98.5), (19.76, 0.7952, 99.3), (19.95, 0.8106, 100)]
)
def test_dehazing_rates_that_the_paper_prints(psnr: float, ssim: float, printed: float) -> None:
    assert round(min(conversion_rate(psnr / 19.53, ssim / 0.8165, "dehaze"), 100), 1) == printed


@pytest.mark.parametrize(
    ("ann", "snn", "printed"), [(31.564, 31.378, 99.4), (28.879, 28.658, 99.2), (25.114, 25.007, 99.6)]
)
def test_denoising_rates_that_the_paper_prints(ann: float, snn: float, printed: float) -> None:
    assert round(conversion_rate(snn / ann, math.nan, "denoise"), 1) == printed


def test_without_a_conventional_network(networks: tuple[RestorationNetwork, SpikingNetwork]) -> None:
    mean = evaluate(Restorer(networks[1]), testset(1)).mean
    for name in ("ann_psnr", "ann_ssim", "psnr_loss", "conversion_rate", "conversion_rate_uncapped"):
        assert getattr(mean, name) is None
    assert mean.psnr > 0
    assert mean.ann_mj > 0


def test_what_cannot_be_evaluated(networks: tuple[RestorationNetwork, SpikingNetwork]) -> None:
    with pytest.raises(ValueError, match="no image"):
        evaluate(Restorer(networks[1]), [])
    small = TestPair("small", torch.rand(1, 8, 30), torch.rand(1, 8, 30))
    with pytest.raises(ValueError, match="11x11"):
        evaluate(Restorer(networks[1]), [small])


ONE = Measures(20, 0.5, 26, 0.7, 28, 0.8, 2, 92, 92, 1e6, 2.0, 3.0, 4.0)


@given(st.lists(st.floats(50, 150), min_size=1, max_size=8))
def test_means_are_over_images_and_the_rate_is_capped_once(rates: list[float]) -> None:
    images = [replace(ONE, psnr=rate / 4, ann_psnr=20.0 + i) for i, rate in enumerate(rates)]
    found = Evaluation(tuple((str(i), measures) for i, measures in enumerate(images)))
    mean, rate = found.mean, 100 * sum(rates) / 4 / sum(20 + i for i in range(len(rates)))
    assert mean.psnr == pytest.approx(sum(rates) / len(rates) / 4)
    assert mean.conversion_rate_uncapped == pytest.approx(rate)  # of the means, not the mean of each image's
    assert mean.conversion_rate == pytest.approx(min(100, rate))
    hazy = replace(found, task="dehaze").mean
    assert hazy.conversion_rate_uncapped == pytest.approx((rate + 100 * 0.7 / 0.8) / 2)
    assert mean.snn_mj == 3.0


def test_as_dict_is_plain_json() -> None:
    endless = Evaluation((("a", ONE), ("b", replace(ONE, degraded_psnr=math.inf))))
    found = json.loads(json.dumps(endless.as_dict(), allow_nan=False))
    assert found["images"][0] == {"name": "a", **{field.name: getattr(ONE, field.name) for field in fields(ONE)}}
    assert found["images"][1]["degraded_psnr"] is None
    assert found["mean"]["degraded_psnr"] is None
    assert found["mean"]["psnr"] == 26
    assert found["psnr_ci95"] == [26, 26]
    assert Evaluation((("a", ONE),)).as_dict()["psnr_ci95"] is None


def test_images_of_a_scene_are_one_draw() -> None:
    values, scenes = [1.0, 3.0, 10.0, 12.0, 5.0], ["a", "a", "b", "b", ""]
    low, high = confidence_interval([2.0, 11.0, 5.0]) or (0.0, 0.0)
    half = (high - low) / 2
    assert confidence_interval(values, scenes) == pytest.approx((6.2 - half, 6.2 + half))
    assert confidence_interval([1.0, 2.0], ["a", "a"]) is None


@pytest.mark.parametrize("count", [2, 3, 4, 5, 12, 68, 500])
def test_confidence_interval_is_students(count: int) -> None:
    values = torch.randn(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64).tolist()
    interval = confidence_interval(values)
    wanted = stats.t.interval(0.95, count - 1, loc=sum(values) / count, scale=stats.sem(values))
    assert interval == pytest.approx(wanted, rel=2e-3)


def test_no_confidence_without_spread() -> None:
    assert confidence_interval([1.0]) is None
    assert confidence_interval([1.0, math.inf]) is None
