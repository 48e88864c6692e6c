import io
import os
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spikingir.restoration.images import FORMATS, ImageError, Photo, read_image, write_image
from spikingir.restoration.restorer import Restorer
from spikingir.web.service import Limits, RequestError, Service

LIMITS = Limits(megabytes=1, megapixels=0.001, waiting=1, time_steps=5)


@pytest.fixture
def service(tmp_path: Path, tiny_model: Path) -> Service:
    folder = tmp_path / "results"
    folder.mkdir()
    return Service(folder, [str(tiny_model)], limits=LIMITS)


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A photograph with all that can be lost: 16 bits, colour, transparency, EXIF."""
    values = np.random.default_rng(0).random((12, 20, 4), dtype=np.float32)
    exif = Image.Exif()
    exif[0x010E] = "a small photograph"
    photo = Photo(np.ascontiguousarray(values[..., :3]), np.ascontiguousarray(values[..., 3]), 16, exif.tobytes())
    path = tmp_path / "deep.tiff"
    write_image(photo, path)
    return path


def test_result_is_that_of_the_restorer_at_full_depth(service: Service, deep: Path, tiny_model: Path) -> None:
    name = next(iter(service.models))
    answer = service.restore(deep, name)
    expected = Restorer.from_pretrained(tiny_model)(read_image(deep))
    found = read_image(answer.file)
    assert answer.file.name == "deep_denoised.tiff"
    assert (found.bits, found.exif) == (16, read_image(deep).exif)
    assert np.abs(found.pixels - expected.pixels.clip(0, 1)).max() <= 0.5 / 65535 + 1e-7
    np.testing.assert_array_equal(found.alpha, read_image(deep).alpha)


def test_report(service: Service, deep: Path) -> None:
    report = service.restore(deep, next(iter(service.models)), time_steps=2, schedule="clocked").report
    assert (report["width"], report["height"], report["bits"]) == (20, 12, 16)
    assert (report["schedule"], report["time_steps"], report["task"]) == ("clocked", 2, "denoise")
    assert 0 < report["snn_mj"] < report["ann_mj"]
    assert len(report["firing_rates"]) > 1
    # an extended step follows the two
    assert all(0 <= rate <= 1.5 for rate in report["firing_rates"].values())


def test_pictures_to_look_at_are_upright_opaque_and_small(service: Service, tmp_path: Path) -> None:
    service.limits = Limits()
    wide = tmp_path / "wide.png"
    Image.new("LA", (2400, 12), (90, 0)).save(wide)
    answer = service.restore(wide, next(iter(service.models)))
    for path in (answer.before, answer.after):
        shown = Image.open(path)
        assert (shown.size, shown.mode) == ((2000, 10), "L")
        assert np.asarray(shown).min() == 255  # what is transparent shows as white


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"model": "auto"}, "no model 'auto'"),
        ({"model": "/etc"}, "no model '/etc'"),
        ({"time_steps": 6}, "up to 5"),
        ({"time_steps": 1.5}, "whole number"),
        ({"time_steps": float("nan")}, "whole number"),
        pytest.param({"time_steps": 10**400}, "whole number", id="huge"),
        ({"schedule": "backwards"}, "'backwards'"),
    ],
)
def test_wishes_beyond_choices_and_limits(service: Service, deep: Path, wish: dict[str, object], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        service.restore(deep, **{"model": next(iter(service.models)), **wish})


@pytest.mark.parametrize("sigma", ["many", -1, "256", "nan", None, [25], pytest.param(10**400, id="huge")])
def test_noise_levels_that_are_none(tmp_path: Path, deep: Path, sigma: Any) -> None:
    shipped = Service(tmp_path)
    assert "auto" in shipped.choices.values()
    with pytest.raises(RequestError, match="expected auto, or a number from 0 to 255"):
        shipped.restore(deep, "auto", sigma)


def test_a_photograph_must_be_there(service: Service) -> None:
    with pytest.raises(RequestError, match="choose one"):
        service.restore(None, next(iter(service.models)))


@pytest.mark.parametrize("format", FORMATS)
def test_pixels_are_limited_before_they_are_unpacked(service: Service, tmp_path: Path, format: str) -> None:
    path = tmp_path / "many-pixels"
    Image.new("L", (40, 26)).save(path, format)
    with pytest.raises(ImageError, match=r"expected at most 0\.001"):
        service.restore(path, next(iter(service.models)))
    assert not list(service.folder.iterdir())


def test_bytes_are_limited(service: Service, tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, "BMP")
    path = tmp_path / "long.bmp"
    path.write_bytes(file.getvalue() + bytes(2**20))
    with pytest.raises(RequestError, match="at most 1: give a smaller one"):
        service.restore(path, next(iter(service.models)))


def test_models_of_one_name(tmp_path: Path, tiny_model: Path) -> None:
    with pytest.raises(RequestError, match="two models"):
        Service(tmp_path, [str(tiny_model), str(tiny_model)])


def test_one_at_a_time_whoever_asks(service: Service, deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, running, most = next(iter(service.models)), 0, 0
    restore = service._restore

    def watched(*arguments: object) -> object:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.05)
        answer = restore(*arguments)  # type: ignore[arg-type]
        running -= 1
        return answer

    monkeypatch.setattr(service, "_restore", watched)
    threads = [threading.Thread(target=service.restore, args=(deep, name)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (running, most) == (0, 1)


def test_old_results_are_deleted_and_no_pictures_are_made_for_nobody(service: Service, deep: Path) -> None:
    name = next(iter(service.models))
    answer = service.restore(deep, name, pictures=False)
    assert (answer.before, answer.after) == (None, None)
    assert [path.name for path in answer.file.parent.iterdir()] == [answer.file.name]
    os.utime(answer.file.parent, (0, 0))
    assert service.restore(deep, name).file.exists()
    assert not answer.file.exists()


def test_what_clients_leave_out_or_delete(service: Service, deep: Path, tmp_path: Path) -> None:
    name = next(iter(service.models))
    assert service.restore(deep, name, time_steps=None).report["time_steps"] == 3
    with pytest.raises(RequestError, match=r"\[3\] time steps were asked for; expected a whole number"):
        service.restore(deep, name, time_steps=[3])  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="deleted meanwhile; send it again"):
        service.restore(tmp_path / "gone.png", name)
