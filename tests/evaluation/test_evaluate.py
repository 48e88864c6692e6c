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
from spikingir.data.testsets import Photograph, TestPair
from spikingir.deploy.fold import fold
from spikingir.energy.columns import COLUMNS, energy_columns
from spikingir.energy.paper import ann_energy, paper_energy
from spikingir.evaluation.evaluate import (
    Assessed,
    Assessment,
    Evaluation,
    Measures,
    assess,
    confidence_interval,
    conversion_rate,
    evaluate,
)
from spikingir.evaluation.record import row_of
from spikingir.measures import Visibility, psnr, ssim, visibility
from spikingir.networks import AODNet, DnCNN
from spikingir.networks.base import RestorationNetwork
from spikingir.restoration.restorer import Restorer
from spikingir.spiking.network import SpikingNetwork
from spikingir.zoo.measured import ENERGY_COLUMNS

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


def test_energy_by_all_columns_is_that_of_each_image(networks: tuple[RestorationNetwork, SpikingNetwork]) -> None:
    ann, snn = networks
    restorer = Restorer(snn, tile=8)
    found = evaluate(restorer, testset(1), ann, columns=True)
    assert found.images == evaluate(restorer, testset(1), ann).images
    for pair, columns in zip(testset(1), found.columns, strict=True):
        noisy = pair.degraded[None]
        with torch.no_grad():
            wanted = energy_columns(restorer.network, restorer.network.trace(noisy, trains=True)[1], noisy, ann)
        assert columns.snn_mj == pytest.approx(wanted.snn_mj)
        assert columns.ann_mj == pytest.approx(wanted.ann_mj)
        assert columns.int8_twin == wanted.int8_twin
    row = row_of(found, data="set12", network="snn.safetensors", clock="T = 3", sigma=25, seed=1)
    assert (row.data, row.images, row.sigma, row.seed) == ("set12", 3, 25, 1)
    assert row.psnr == found.mean.psnr
    assert row.snn_mj["paper"] == pytest.approx(found.mean.snn_mj)
    assert row.ann_mj.keys() == row.snn_mj.keys() == COLUMNS.keys() == ENERGY_COLUMNS.keys()
    assert row.int8_twin_mj == pytest.approx(sum(one.int8_twin.mj for one in found.columns if one.int8_twin) / 3)


def test_photographs_without_clean_ones_are_assessed(networks: tuple[RestorationNetwork, SpikingNetwork]) -> None:
    ann, snn = networks
    restorer = Restorer(snn)
    photographs = [Photograph(pair.name, pair.degraded.clamp(0, 1)) for pair in testset(1)]
    found = assess(restorer, photographs, ann, columns=True)
    for (name, one), photograph in zip(found.images, photographs, strict=True):
        restored, took = restorer.trace(photograph.degraded)
        assert name == photograph.name
        assert one.visibility == visibility(photograph.degraded, restored)
        assert (one.spikes_per_neuron, one.snn_mj) == (took.spikes_per_neuron, took.snn_mj)
    mean = found.mean
    assert mean["r"] == pytest.approx(sum(one.visibility.r for _, one in found.images) / 3)
    assert json.loads(json.dumps(found.as_dict()))["mean"] == mean
    row = row_of(found, data="dehaze-real", network="snn.safetensors", clock="T = 3")
    assert (row.r, row.saturated, row.psnr) == (mean["r"], mean["sigma"], None)
    assert row.judged_alone
    unseen = Assessed(Visibility(math.inf, math.nan, 0.5), 1, 1, 1)
    both = Assessment((("a", unseen), ("b", replace(unseen, visibility=Visibility(0.5, 2, 0)))))
    assert (both.mean["e"], both.mean["r"], both.mean["sigma"]) == (0.5, 2, 0.25)
    assert Assessment((("a", unseen),)).mean["e"] is None
    with pytest.raises(ValueError, match="no photograph to assess"):
        assess(restorer, [])
