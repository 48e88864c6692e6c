"""What was found in a photograph: figures against their definition, and the words for them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spikingir.restoration import findings
from spikingir.restoration.findings import BANDS, Finding, find


def three_bands(*levels: float) -> tuple[np.ndarray, np.ndarray]:
    """A clean picture of dark, middle and bright thirds, and one that differs from it by ``levels`` of 255 in them."""
    clean = np.repeat(np.float32([0.1, 0.5, 0.9]), 8)[:, None, None] * np.ones((1, 10, 3), np.float32)
    signs = np.where(np.arange(10)[:, None] % 2, 1, -1)
    noisy = clean + np.repeat(np.float32(levels), 8)[:, None, None] * signs / np.float32(255)
    return noisy.astype(np.float32), clean


@given(st.tuples(*[st.floats(0, 20, width=32)] * 3), st.sampled_from([1, 7, 2**20]))
def test_figures_are_those_of_the_definition(levels: tuple[float, ...], chunk: int) -> None:
    noisy, clean = three_bands(*levels)
    before, findings._CHUNK = findings._CHUNK, chunk
    try:
        found = find(noisy, clean, "noise")
    finally:
        findings._CHUNK = before
    assert found.rms == pytest.approx(np.sqrt(np.mean(np.square(levels))), abs=1e-4)
    assert found.bands == pytest.approx(levels, abs=1e-4)


def test_what_is_clipped_in_writing_is_not_removed() -> None:
    noisy = np.zeros((4, 4, 1), np.float32)
    assert find(noisy, noisy - 0.5, "noise").rms == 0
    assert find(noisy + 1, noisy + 1.5, "noise").rms == 0


def test_a_band_of_a_few_pixels_has_no_figure() -> None:
    clean = np.full((20, 20, 3), 0.1, np.float32)
    clean[0, :3] = 0.9  # .75 % of all
    found = find(clean + np.float32(0.01), clean, "noise")
    assert found.bands == (pytest.approx(2.55, abs=0.01), None, None)
    assert found.strongest is None


@pytest.mark.parametrize(
    ("levels", "said"),
    [
        ((4, 4, 4), "noise about 4 levels"),
        ((8, 3, 2), "noise about 5 levels, strongest in the shadows"),
        ((2, 3, 8), "noise about 5 levels, strongest in the highlights"),
        ((4, 6, 4), "noise about 5 levels, strongest in the midtones"),
        ((4.2, 4, 4), "noise about 4 levels"),
        ((1, 1, 1), "noise about 1 level"),
        ((1.3, 1.3, 1.3), "noise about 1.3 levels"),
        ((1.96, 1.96, 1.96), "noise about 2 levels"),
        ((0.6, 0.6, 0.6), "noise about 0.6 levels"),
        ((0.4, 0.4, 0.4), "no noise found"),
        ((0, 0, 0), "no noise found"),
        ((23.4, 23, 23), "noise about 23 levels"),
    ],
)
def test_words(levels: tuple[float, ...], said: str) -> None:
    found = find(*three_bands(*levels), "noise")
    assert str(found) == said
    assert found.found == said.startswith("noise")


def test_a_share_says_what_was_found_and_not_only_what_was_removed() -> None:
    quarter = find(*three_bands(1, 1, 1), "haze", 0.25)
    assert (str(quarter), quarter.did, quarter.found) == ("haze about 4 levels", "25 % of it removed", True)
    assert quarter.rms == pytest.approx(1, abs=1e-4)
    nothing = Finding("noise", 0.0, (0.0,) * len(BANDS), 0.0)
    assert (str(nothing), nothing.found) == ("nothing removed at strength 0", None)
