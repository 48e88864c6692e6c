"""Scenes: depth as it is stored, and the split that keeps rooms apart."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from spikingir.data.errors import DataError
from spikingir.data.scenes import Scene, hold_back

IMAGE = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_depth_is_its_map_in_units(dtype: type) -> None:
    stored = np.arange(24).reshape(4, 6).astype(dtype)
    scene = Scene("a", IMAGE, stored, unit=0.5, offset=2.0)
    torch.testing.assert_close(scene.depth(), (torch.arange(24.0).reshape(4, 6) + 2) * 0.5)
    assert scene.farthest == scene.depth().max().item() == 12.5
    rows, columns = slice(1, 3), slice(2, 5)
    assert torch.equal(scene.depth(rows, columns), scene.depth()[rows, columns])
    assert torch.equal(scene.clean(rows, columns), torch.from_numpy(IMAGE).permute(2, 0, 1)[:, rows, columns] / 255)


def test_sizes_that_differ_are_refused() -> None:
    with pytest.raises(DataError, match=r"scene a has an image of \(4, 6\) and a depth of \(6, 4\)"):
        Scene("a", IMAGE, np.zeros((6, 4), np.uint8))


@given(st.integers(40, 300), st.floats(0.2, 0.8), st.integers(1, 8))
def test_what_is_held_back_is_runs_of_neighbours(count: int, share: float, blocks: int) -> None:
    train, held = hold_back(range(count), share, blocks)
    assert sorted(train + held) == list(range(count))
    assert train == sorted(train)
    assert len(held) == pytest.approx(share * count, abs=blocks)
    assert sum(b - a > 1 for a, b in pairwise(held)) == blocks - 1


@pytest.mark.parametrize(("count", "share", "blocks"), [(10, 0.0, 1), (10, 1.0, 1), (10, 0.5, 0), (10, 0.01, 2)])
def test_a_split_that_is_none_is_refused(count: int, share: float, blocks: int) -> None:
    with pytest.raises(ValueError, match="share"):
        hold_back(range(count), share, blocks)
