"""What a network reads part by part is what it would read at once."""

import pytest
import torch
from torch import Tensor

from spikingir.errors import InputError
from spikingir.inputs import pad_to_multiple, with_level
from spikingir.restoration.planes import Planes

LEVELS = {
    "none": None,
    "a number": 0.1,
    "one for each": torch.tensor([0.1, 0.25]),
    "a map": torch.rand(2, 1, 13, 18, generator=torch.Generator().manual_seed(1)),
}


def samples(dtype: torch.dtype) -> Tensor:
    values = torch.rand(2, 3, 13, 18, generator=torch.Generator().manual_seed(0))
    if dtype.is_floating_point:
        return values.to(dtype)
    return (values * torch.iinfo(dtype).max).round().to(dtype)


def values_of(image: Tensor) -> Tensor:
    return image if image.is_floating_point() else image.float() / torch.tensor(float(torch.iinfo(image.dtype).max))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("multiple", [1, 8])
def test_parts_are_those_of_the_whole(dtype: torch.dtype, level: str, multiple: int) -> None:
    image, told = samples(dtype), LEVELS[level]
    wanted = values_of(image) if told is None else with_level(values_of(image), told)
    wanted = pad_to_multiple(wanted, multiple)
    planes = Planes.of(image, told, multiple)
    assert planes.shape == tuple(wanted.shape)
    assert torch.equal(planes.whole(), wanted)
    height, width = wanted.shape[-2:]
    for rows in (slice(0, 5), slice(3, 8), slice(8, height), slice(0, height)):
        for columns in (slice(0, 7), slice(8, width), slice(0, width)):
            for i in range(2):
                assert torch.equal(planes.part(i, rows, columns), wanted[i : i + 1, :, rows, columns])


def test_a_level_of_a_number_takes_no_memory_for_each_pixel() -> None:
    level = Planes.of(samples(torch.uint8), 0.1).level
    assert level is not None
    assert level.untyped_storage().nbytes() == level.dtype.itemsize


@pytest.mark.parametrize(
    "level", [-0.1, torch.inf, 1e39, torch.ones(3), torch.ones(2, 1, 5, 5)], ids=lambda level: f"{level}"[:24]
)
def test_levels_that_are_none(level: float | Tensor) -> None:
    with pytest.raises(InputError, match="the level"):
        Planes.of(samples(torch.uint8), level)
