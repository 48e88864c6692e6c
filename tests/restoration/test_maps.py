"""Maps of a photograph are estimated on a smaller one; at full size they follow the photograph's own edges."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from spikingir.conversion.convert import convert
from spikingir.data.haze import add_haze, transmission
from spikingir.data.testsets import TestPair
from spikingir.evaluation.evaluate import evaluate
from spikingir.measures import psnr
from spikingir.networks.multiscale import MultiScaleNet
from spikingir.photo.photo import Photo
from spikingir.restoration import maps as module
from spikingir.restoration.maps import (
    GuidedMaps,
    eased,
    estimated_size,
    form_with_maps,
    reduced,
    removed,
    restore_by_network,
    veil,
)
from spikingir.restoration.restorer import Restorer
from spikingir.spiking.formation import form_image, one_airlight

Small = Callable[[int], None]

SOFT = partial(form_image, "soft")


def noise(seed: int, *shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Small:
    """Lets photographs of more than so many pixels be large."""
    return lambda pixels: monkeypatch.setattr(module, "PIXELS", pixels)


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_estimated_sizes(height: int, width: int) -> None:
    h, w = estimated_size(height, width)
    assert 1 <= h <= height
    assert 1 <= w <= width
    assert estimated_size(width, height) == (w, h)
    if height * width <= module.PIXELS:
        assert (h, w) == (height, width)
    else:
        assert h * w <= module.PIXELS
        assert max(abs(h / height * width - w), abs(w / width * height - h)) <= max(height / width, width / height)


def test_reducing_takes_the_mean_over_areas(small: Small) -> None:
    image = (noise(0, 2, 3, 24, 36) * 255).round() / 255
    assert reduced(image) is image
    small(96)
    found = reduced(image)
    wanted = image.double().unflatten(-1, (12, 3)).unflatten(-3, (8, 3)).mean((-3, -1))
    assert found.shape == (2, 3, 8, 12)
    assert (found - wanted).abs().max() < 2**-12
    # exact sums: no order of them shows
    assert torch.equal(reduced(image.flip(-1)).flip(-1), found)
    assert torch.equal(reduced(image.flip(-2)).flip(-2), found)
    assert torch.equal(reduced(image.to(memory_format=torch.channels_last)), found)
    assert reduced(torch.full((1, 1, 25, 37), 0.25)).unique().tolist() == [0.25]


def brute_force(guide: np.ndarray, p: np.ndarray, radius: int) -> np.ndarray:
    """The guided filter as its paper defines it."""
    height, width = p.shape
    a, b = np.zeros_like(p), np.zeros_like(p)

    def window(i: int, j: int) -> tuple[slice, slice]:
        return slice(max(0, i - radius), i + radius + 1), slice(max(0, j - radius), j + radius + 1)

    for i in range(height):
        for j in range(width):
            x, y = guide[window(i, j)], p[window(i, j)]
            a[i, j] = ((x * y).mean() - x.mean() * y.mean()) / (x.var() + module.EPSILON)
            b[i, j] = y.mean() - a[i, j] * x.mean()
    means = [[(a[window(i, j)].mean(), b[window(i, j)].mean()) for j in range(width)] for i in range(height)]
    return np.array(means)


def test_the_guided_filter_is_that_of_its_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RADIUS", 1 / 5)
    guide, maps = noise(0, 2, 3, 17, 22), 3 * noise(1, 2, 2, 17, 22) - 1
    fitted = GuidedMaps.fit(guide, maps)
    for one in range(2):
        for which in range(2):
            wanted = brute_force(guide[one].double().mean(0).numpy(), maps[one, which].double().numpy(), 3)
            assert np.abs(fitted.slope[one, which].numpy() - wanted[..., 0]).max() < 2e-3
            assert np.abs(fitted.offset[one, which].numpy() - wanted[..., 1]).max() < 2e-3


def test_what_lies_beside_a_photograph_changes_nothing() -> None:
    guide, maps = noise(0, 3, 3, 20, 30), noise(1, 3, 6, 20, 30)
    image = noise(2, 3, 3, 41, 59)
    fitted = GuidedMaps.fit(guide, maps)
    for i in range(3):
        one = GuidedMaps.fit(guide[i : i + 1], maps[i : i + 1])
        assert torch.equal(one.form(image[i : i + 1], SOFT), fitted.form(image, SOFT)[i : i + 1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_strips_do_not_show(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted, image = GuidedMaps.fit(noise(0, 1, 3, 20, 30), noise(1, 1, 6, 20, 30)), noise(2, 1, 3, 41, 59).to(dtype)
    whole = fitted.form(image, SOFT)
    assert whole.dtype == dtype
    for pixels in (1, 200, 59 * 40):
        monkeypatch.setattr(module, "_STRIP", pixels)
        assert torch.equal(fitted.form(image, SOFT), whole)


def test_maps_that_are_constant_stay_so_at_every_size() -> None:
    for size in ((5, 7), (20, 30), (41, 59), (1, 1), (1, 9)):
        image, maps = noise(2, 1, 3, *size), torch.tensor([0.5, 0.25, 0, 0.125, 0.25, -0.5]).view(1, 6, 1, 1)
        formed = GuidedMaps.fit(noise(0, 1, 3, 5, 7), maps.expand(1, 6, 5, 7)).form(image, SOFT)
        torch.testing.assert_close(formed, maps[:, :3] * image - maps[:, 3:] + image, atol=1e-6, rtol=0)


def hazy(height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """A bright scene before a dark one that is farther, in haze; what is hazy, what is clean, and its K and B."""
    clean = torch.full((1, 3, height, width), 0.2)
    clean[..., : width // 2] = 0.7
    depth = torch.full((1, height, width), 1.0)
    depth[..., : width // 2] = 0.2
    t = transmission(depth, 1.0, 1.0)[:, None]
    maps = torch.cat([(1 / t - 1).expand_as(clean), (0.8 * (1 - t) / t).expand_as(clean)], 1)
    return add_haze(clean, depth, 1.0, 0.8, 1.0), clean, maps


def test_maps_of_haze_undo_it_at_full_size() -> None:
    image, clean, _ = hazy(240, 360)
    small, _, maps = hazy(60, 90)
    formed = GuidedMaps.fit(small, maps).form(image, SOFT)
    enlarged = torch.nn.functional.interpolate(maps, scale_factor=4, mode="bilinear")
    k, b = enlarged.chunk(2, 1)
    assert psnr(image, clean) < 12
    assert psnr(formed, clean) > 34
    assert psnr(formed, clean) > psnr(k * image - b + image, clean) + 3  # the edge is the photograph's own


def test_the_veil_is_the_light_of_the_air() -> None:
    image, clean, maps = hazy(30, 40)
    t = (image - 0.8) / (clean - 0.8)
    wanted = (0.8 * (1 - t)).mean((1, 2, 3))
    torch.testing.assert_close(veil(*maps.chunk(2, 1)), wanted.double(), atol=1e-5, rtol=0)
    assert veil(*torch.zeros(2, 6, 4, 4).chunk(2, 1)).tolist() == [0, 0]
    brightened = maps.clone()
    brightened[..., :10] *= -1  # takes no veil away, and gives none back
    assert 0 < veil(*brightened.chunk(2, 1)) < veil(*maps.chunk(2, 1))


@pytest.mark.parametrize("levels", [255, 65535])
def test_values_come_near_to_black_and_white_and_never_reach_them(levels: int) -> None:
    image = (torch.arange(levels + 1) / levels).view(1, 1, 1, -1)
    moved = torch.tensor([-1e4, -1.0, -0.1, 0, 0.1, 1, 1e4]).view(-1, 1, 1, 1)
    found = eased(image, image + moved)
    assert (found[3] == image).all()
    written = (found * levels).round()[..., 1:-1]
    assert written.min() >= 1
    assert written.max() <= levels - 1


@given(st.floats(0.01, 0.99), st.floats(0, 3))
def test_values_keep_their_order(airlight: float, k: float) -> None:
    image = torch.linspace(0, 1, 4097, dtype=torch.float64)
    assert (eased(image, image + k * (image - airlight)).diff() >= -1e-12).all()


def test_small_moves_are_as_formed() -> None:
    image = torch.linspace(0.02, 0.98, 97, dtype=torch.float64)
    for move in (-0.5 * image, 0.5 * (1 - image)):
        assert torch.allclose(eased(image, image + move), image + move, atol=1e-12)


def test_with_one_airlight_one_map_is_filtered() -> None:
    image, maps = noise(0, 2, 3, 40, 60), noise(1, 2, 6, 40, 60)
    k, light = one_airlight(maps)
    wanted = form_with_maps("soft", image, image, torch.cat([k.expand(-1, 3, -1, -1), light * k], 1))
    torch.testing.assert_close(form_with_maps("airlight", image, image, maps), wanted, atol=2e-3, rtol=0)
    assert not torch.equal(form_with_maps("soft", image, image, maps), wanted)


def network(*, veiled: bool = True) -> MultiScaleNet:
    ann = MultiScaleNet(channels=3, width=4, blocks=(1, 1), form="soft").eval()
    ann.reset_parameters(torch.Generator().manual_seed(0))
    ann.body.last.weight.data.mul_(5)
    ann.body.last_of_image.weight.data.mul_(float(veiled))
    ann.body.last.bias.data.fill_(0.1 * veiled)
    if not veiled:
        ann.body.last.weight.data.zero_()
    return ann


def restorer(ann: MultiScaleNet, **options: int) -> Restorer:
    with torch.no_grad():
        made = convert(ann, noise(0, 2, 3, 16, 16), time_steps=4, schedule="phased", coding="binary")
    return Restorer(made, **options)


@pytest.fixture(scope="module")
def dehazer() -> Restorer:
    return restorer(network())


def test_a_large_photograph_is_estimated_small_and_restored_large(dehazer: Restorer, small: Small) -> None:
    image = noise(3, 1, 3, 45, 70)
    small(800)
    seen = reduced(image)
    assert seen.shape[-2:] == (22, 34)
    assert dehazer.seen(image).shape[-2:] == (24, 36)
    padded = torch.nn.functional.pad(seen, (0, 2, 0, 2), mode="replicate")
    maps = dehazer.network.without_formation()(padded)[..., :22, :34]
    assert maps.shape[1] == 6
    share = removed(veil(*maps.chunk(2, 1)))
    assert share > 0
    restored = dehazer(image)
    assert torch.equal(restored, eased(image, GuidedMaps.fit(seen, maps * share.float()).form(image, SOFT)))
    traced, took = dehazer.trace(image, counts=True)
    assert torch.equal(traced, restored)
    assert took.trace.image_size == (24, 36)
    assert all(layer.counts is not None for layer in took.trace.layers)
    torch.testing.assert_close(dehazer(image, strength=0.5), image.lerp(restored, 0.5))


def test_every_engine_and_tile_gives_the_same_bits(small: Small) -> None:
    image, ann = noise(3, 3, 45, 70), network()
    small(800)
    wanted = restorer(ann)(image)
    assert torch.equal(restorer(ann, tile=8)(image), wanted)
    assert torch.equal(Restorer(convert_again(ann), engine="torch")(image), wanted)


def convert_again(ann: MultiScaleNet):  # type: ignore[no-untyped-def]
    with torch.no_grad():
        return convert(ann, noise(0, 2, 3, 16, 16), time_steps=4, schedule="phased", coding="binary")


def test_photographs_of_every_form(dehazer: Restorer, small: Small) -> None:
    small(300)
    rgb = noise(4, 30, 41, 3).numpy()
    photo = Photo(rgb, np.full((30, 41), 0.5, np.float32))
    restored = dehazer(photo)
    assert np.array_equal(restored.alpha, photo.alpha)
    assert np.array_equal(restored.pixels, dehazer(rgb))
    gray = dehazer(np.ascontiguousarray(rgb[..., :1]))
    equal = dehazer(np.repeat(rgb[..., :1], 3, 2))
    assert np.allclose(gray, equal.mean(2, keepdims=True), atol=1e-6)
    both = torch.stack([noise(5, 3, 30, 41), noise(6, 3, 30, 41)])
    assert torch.equal(dehazer(both), torch.stack([dehazer(one) for one in both]))


def test_no_jump_where_photographs_become_large(small: Small) -> None:
    """One pixel more than the limit, and the restored photograph is nearly the same."""
    image, _, maps = hazy(60, 60)
    whole = GuidedMaps.fit(image, maps).form(image, SOFT)
    small(3599)
    assert estimated_size(60, 60) == (59, 59)
    assert psnr(GuidedMaps.fit(reduced(image), reduced(maps)).form(image, SOFT), whole) > 38


def test_without_a_veil_the_photograph_comes_back_as_it_is(small: Small) -> None:
    ann = network(veiled=False)
    clear = restorer(ann)
    for pixels in (10**6, 300):
        small(pixels)
        image = noise(7, 1, 3, 30, 41)
        restored, _ = clear.trace(image)
        assert torch.equal(restored, image)
        assert torch.equal(clear(image), image)
        assert torch.equal(clear.by_ann(ann, image), image)
    photo = (noise(8, 20, 20, 3) * 255).byte().numpy()
    assert np.array_equal(clear(photo), photo)


def test_of_a_batch_only_the_veiled_are_changed(dehazer: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    both = noise(9, 2, 3, 24, 24)
    veils = [veil(*dehazer.network.without_formation()(one[None]).chunk(2, 1)).item() for one in both]
    monkeypatch.setattr(module, "VEIL", sum(veils) / 2)
    monkeypatch.setattr(module, "HAZY", max(veils))
    restored = dehazer(both)
    assert [torch.equal(*pair) for pair in zip(restored, both, strict=True)] == [v < sum(veils) / 2 for v in veils]


def test_of_a_thin_veil_a_part_is_removed(dehazer: Restorer, monkeypatch: pytest.MonkeyPatch) -> None:
    image = noise(12, 1, 3, 24, 24)
    found = veil(*dehazer.network.without_formation()(image).chunk(2, 1)).item()
    errors = []
    for hazy in (found, found + 0.05, found + 0.5, 10):
        monkeypatch.setattr(module, "VEIL", found / 2)
        monkeypatch.setattr(module, "HAZY", hazy)
        errors.append((dehazer(image) - image).square().mean().item())
    assert errors == sorted(errors, reverse=True)
    assert 0 < errors[-1] < 0.01 * errors[0]


def test_evaluation_measures_what_restoring_gives(dehazer: Restorer, small: Small) -> None:
    ann = network()
    small(300)
    pair = TestPair("scene", noise(10, 3, 30, 41), noise(11, 3, 30, 41))
    ((_, measures),) = evaluate(dehazer, [pair], ann, task="dehaze").images
    for found, restored in (
        (measures.psnr, dehazer(pair.degraded)),
        (measures.ann_psnr, dehazer.by_ann(ann, pair.degraded)),
    ):
        assert found == pytest.approx(psnr(restored[None], pair.clean[None]).item())
    whole = restore_by_network(ann, pair.degraded[None])[0]
    torch.testing.assert_close(whole, dehazer.by_ann(ann, pair.degraded), atol=1e-5, rtol=0)


def test_other_formations_see_the_whole_photograph(tiny_model: Path, small: Small) -> None:
    image = noise(12, 1, 40, 40)
    wanted = Restorer.from_pretrained(tiny_model)(image)
    small(100)
    assert torch.equal(Restorer.from_pretrained(tiny_model)(image), wanted)
