import io
import json
import shutil
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spikingir.photo.images import FORMATS, ImageError, Photo, encode_image, read_image, write_image
from spikingir.photo.photo import to_samples
from spikingir.restoration.batch import Options, as_record, restore_all
from spikingir.restoration.choice import Chooser, Wishes
from spikingir.restoration.jobs import Job
from spikingir.restoration.restorer import Restorer
from spikingir.web.service import Answer, Box, GoneError, Limits, RequestError, Service, mix, plain_name
from tests.restoration.test_batch import model

LIMITS = Limits(megabytes=1, megapixels=0.001, waiting=1, time_steps=5)


@pytest.fixture
def service(tiny_model: Path) -> Service:
    return Service([str(tiny_model)], limits=LIMITS)


def photo_of(seed: int = 0, bits: int = 16) -> Photo:
    """A photograph with all that can be lost: 16 bits, colour, transparency, EXIF."""
    values = np.random.default_rng(seed).random((12, 20, 4), dtype=np.float32)
    exif = Image.Exif()
    exif[0x010E] = "a small photograph"
    return Photo(np.ascontiguousarray(values[..., :3]), np.ascontiguousarray(values[..., 3]), bits, exif.tobytes())


@pytest.fixture
def deep(tmp_path: Path) -> Path:
    """A file as the desk keeps it: without a suffix, in a folder of its own."""
    path = tmp_path / "sent" / "photo"
    path.parent.mkdir()
    write_image(photo_of(), path, format=FORMATS["tiff"])
    return path


def restore(service: Service, path: Path, name: str = "deep.tiff", **wishes: Any) -> Answer:
    return service.restore(path, service.check(**wishes), name)


def test_result_is_that_of_the_restorer_at_full_depth(service: Service, deep: Path, tiny_model: Path) -> None:
    answer = restore(service, deep)
    expected = Restorer.from_pretrained(tiny_model)(read_image(deep))
    assert service.result(answer) == encode_image(expected, "deep.tiff")[0]
    found = read_image(service.result(answer))
    assert answer.name == "deep_denoised.tiff"
    assert (found.bits, found.exif) == (16, read_image(deep).exif)
    np.testing.assert_array_equal(found.alpha, read_image(deep).alpha)


@pytest.mark.parametrize("strength", [0.0, 0.25, 0.7])
def test_a_strength_mixes_photograph_and_result(service: Service, deep: Path, strength: float) -> None:
    answer = restore(service, deep)
    before, after = read_image(deep), read_image(service.result(answer))
    found = read_image(service.result(answer, strength))
    expected = before.pixels + strength * (after.pixels - before.pixels)
    assert np.abs(found.pixels - expected).max() <= 0.5 / 65535 + 1e-7
    assert (found.bits, found.exif) == (16, before.exif)
    np.testing.assert_array_equal(found.alpha, before.alpha)


@pytest.mark.parametrize("bits", [8, 16])
def test_strengths_at_the_ends_are_the_two_themselves(bits: int) -> None:
    photo, restored = photo_of(0, bits), photo_of(1, bits)
    samples = to_samples(restored.pixels, restored.alpha, bits)
    np.testing.assert_array_equal(mix(photo, samples, 0).pixels, photo.pixels)
    np.testing.assert_array_equal(to_samples(mix(photo, samples, 1).pixels, None, bits), samples[..., :3])


@pytest.mark.parametrize("strength", [-0.01, 1.01, float("nan"), float("inf")])
def test_strengths_that_are_none(service: Service, deep: Path, strength: float) -> None:
    answer = restore(service, deep)
    with pytest.raises(RequestError, match="expected a number from 0 to 1"):
        service.result(answer, strength)


@pytest.mark.parametrize("strength", [1.0, 0.5])
def test_where_nothing_is_found_the_result_is_the_file(tmp_path: Path, deep: Path, strength: float) -> None:
    service = Service([str(model(tmp_path / "harmless", 1e-5))])
    answer = restore(service, deep)
    assert service.result(answer, strength) == deep.read_bytes()
    report = answer.report
    assert (report["found"], report["copied"], report["bytes"]) == (False, True, deep.stat().st_size)
    assert report["finding"] == "no noise found; the file is copied as it is"
    assert service.picture(answer, "before") == service.picture(answer, "after")


def test_what_is_too_large_is_said_to_visitors_not_to_those_who_type_commands(tiny_model: Path, deep: Path) -> None:
    service = Service([str(tiny_model)], limits=Limits(megapixels=0.0001))
    with pytest.raises(ImageError, match=r"or ask who serves this page to allow more \(--max-megapixels\)$"):
        restore(service, deep)


def test_page_and_command_line_say_the_same(service: Service, deep: Path, tiny_model: Path, tmp_path: Path) -> None:
    report = restore(service, deep).report
    jobs = [Job(deep, tmp_path / "result.tiff")]
    (outcome,) = restore_all(jobs, Chooser(Wishes(str(tiny_model))), Options())
    record = as_record(outcome)
    for key in ("finding", "found", "removed_rms", "bands", "copied", "megapixels", "notes"):
        assert report[key] == record[key], key
    assert report["finding"].startswith("noise about ")


def test_what_the_name_of_a_model_was_before_is_not_told_here(
    tiny_dehazer: Path, deep: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page and its API never offered the other network."""
    folder = tmp_path / "shipped" / "dehaze"
    shutil.copytree(tiny_dehazer, folder)
    config = {"name": "dehaze", "task": "dehaze", "channels": 3, "default": "snn.safetensors"}
    variants = {"snn.safetensors": {"schedule": "clocked", "time_steps": 2}}
    (folder / "config.json").write_text(json.dumps(config | {"variants": variants}))
    monkeypatch.setattr("spikingir.zoo.catalogue.SHIPPED", folder.parent)
    assert "is a new network" in Restorer.from_pretrained("dehaze").notes[0]
    assert "is a new network" not in str(restore(Service(), deep, model="dehaze").report["notes"])


def test_report(service: Service, deep: Path) -> None:
    report = restore(service, deep, time_steps="2", schedule="clocked").report
    assert (report["width"], report["height"], report["bits"]) == (20, 12, 16)
    assert (report["schedule"], report["time_steps"], report["task"]) == ("clocked", 2, "denoise")
    assert report["model"] == next(iter(service.models))
    assert 0 < report["snn_mj"] < report["ann_mj"]
    assert len(report["firing_rates"]) > 1
    # an extended step follows the two
    assert all(0 <= rate <= 1.5 for rate in report["firing_rates"].values())


def test_pictures_to_look_at_are_upright_opaque_and_small(service: Service, tmp_path: Path) -> None:
    service.limits = Limits()
    wide = tmp_path / "photo"
    Image.new("LA", (2400, 12), (90, 0)).save(wide, "PNG")
    answer = restore(service, wide, "wide.png")
    for side in ("before", "after"):
        for _ in range(2):  # made, and kept
            shown = Image.open(io.BytesIO(service.picture(answer, side)))
            assert (shown.size, shown.mode) == ((2000, 10), "L")
            assert np.asarray(shown).min() == 255  # what is transparent shows as white


@pytest.mark.parametrize("side", ["before", "after"])
def test_parts_are_the_pixels_themselves(service: Service, deep: Path, side: str) -> None:
    answer = restore(service, deep)
    file = read_image(deep) if side == "before" else read_image(service.result(answer))
    assert file.alpha is not None
    whole = file.pixels * file.alpha[..., None] + 1 - file.alpha[..., None]
    part = Image.open(io.BytesIO(service.picture(answer, side, Box(4, 2, 10, 30))))  # type: ignore[arg-type]
    assert part.size == (10, 10)  # cut at the edge
    assert np.abs(np.asarray(part) - 255 * whole[2:, 4:14]).max() < 2  # of 8 bits, rounded three times


def test_sixteen_bits_are_shown_as_the_nearest_of_eight(service: Service, tmp_path: Path) -> None:
    service.limits = Limits()
    path = tmp_path / "photo"
    Image.fromarray(np.arange(65536, dtype=np.uint16).reshape(256, 256)).save(path, "PNG")
    answer = restore(service, path, "all.png")
    shown = np.asarray(Image.open(io.BytesIO(service.picture(answer, "before"))))
    np.testing.assert_array_equal(shown.ravel(), np.rint(np.arange(65536) / 257))


@pytest.mark.parametrize(
    "box", [(20, 0, 1, 1), (0, 12, 1, 1), (-1, 0, 5, 5), (0, 0, 0, 5), (0, 0, 5, 0), (0, 0, 2001, 1), (0, 0, 1, 2001)]
)
def test_parts_that_are_none(service: Service, deep: Path, box: tuple[int, int, int, int]) -> None:
    answer = restore(service, deep)
    with pytest.raises(RequestError, match="inside the 20 x 12"):
        service.picture(answer, "before", Box(*box))


def test_what_is_deleted_is_said(service: Service, deep: Path) -> None:
    answer = restore(service, deep)
    for path in deep.parent.iterdir():
        path.unlink()
    for ask in (lambda: service.result(answer), lambda: service.picture(answer, "after")):
        with pytest.raises(GoneError, match="deleted meanwhile; send it again"):
            ask()


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"model": "auto"}, "no model 'auto'"),
        ({"model": "/etc"}, "no model '/etc'"),
        ({"model": ""}, "no model ''"),
        ({"time_steps": "6"}, "up to 5"),
        ({"time_steps": "1.5"}, "whole number"),
        ({"time_steps": "nan"}, "whole number"),
        ({"time_steps": "-1"}, "whole number"),
        ({"time_steps": ""}, "whole number"),
        pytest.param({"time_steps": "1" + 400 * "0"}, "whole number", id="huge"),
        ({"schedule": "backwards"}, "'backwards'"),
        ({"sigma": "25"}, "goes with the model auto"),
    ],
)
def test_wishes_beyond_choices_and_limits(service: Service, wish: dict[str, str], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        service.check(**wish)  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", ["many", "-1", "256", "nan", "", pytest.param("1" + 400 * "0", id="huge")])
def test_noise_levels_that_are_none(sigma: str) -> None:
    with pytest.raises(RequestError, match="expected auto, or a number from 0 to 255"):
        Service().check("auto", sigma)


def test_the_model_for_the_noise_comes_first_where_the_shipped_ones_are_offered(tmp_path: Path) -> None:
    service = Service(limits=LIMITS)
    tasks = [offer["task"] for offer in service.offers()]
    assert (service.offers()[0]["name"], tasks[0]) == ("auto", "denoise")
    assert set(tasks) == {"denoise", "dehaze"}
    path = tmp_path / "photo"
    Image.effect_noise((20, 12), 60).save(path, "PNG")
    found = service.restore(path, service.check(sigma="25")).report
    assert (found["model"], found["sigma"], found["task"]) == ("denoise-gray", 25.0, "denoise")


@pytest.mark.parametrize("format", FORMATS)
def test_pixels_are_limited_before_they_are_unpacked(service: Service, tmp_path: Path, format: str) -> None:
    path = tmp_path / "photo"
    Image.new("L", (40, 26)).save(path, format)
    with pytest.raises(ImageError, match=r"many: 40 x 26 .* expected at most 0\.001"):
        restore(service, path, "many")
    assert list(tmp_path.iterdir()) == [path]


def test_models_of_one_name(tiny_model: Path) -> None:
    with pytest.raises(RequestError, match="two models"):
        Service([str(tiny_model), str(tiny_model)])


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("photo.png", "photo.png"),
        ("", ""),
        ("..", ""),
        ("../../etc/passwd", "passwd"),
        ("C:\\photos\\a.png", "a.png"),
        ("a\r\nSet-Cookie: x.png", "aSet-Cookie x.png"),
        ("\u202egnp.exe", "gnp.exe"),
        ("\ud800.png", "png"),
        ("Gräser 草.jpg", "Gräser 草.jpg"),
        (300 * "草" + ".jpg", 116 * "草" + ".jpg"),
        ("." + 300 * "a", 120 * "a"),
    ],
)
def test_names_that_visitors_give(name: str, plain: str) -> None:
    assert plain_name(name) == plain


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["", "..", "no-suffix", "two.gif"])
def test_results_have_a_name_that_can_be_written(service: Service, tmp_path: Path, format: str, name: str) -> None:
    path = tmp_path / "photo"
    Image.effect_noise((20, 12), 60).convert("RGB").save(path, format)
    answer = restore(service, path, name)
    stem, suffix = answer.name.rsplit(".", 1)
    assert stem == f"{name.strip('.').partition('.')[0] or 'photo'}_denoised"
    assert f".{suffix}" in FORMATS["png" if name.strip(".") else format].suffixes
    assert read_image(service.result(answer, 0.5)).pixels.shape == (12, 20, 3)


def test_one_at_a_time_whoever_asks(service: Service, deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    running, most = 0, 0
    trace = Restorer.trace

    def watched(*arguments: Any, **options: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        time.sleep(0.05)
        answer = trace(*arguments, **options)
        running -= 1
        return answer

    monkeypatch.setattr(Restorer, "trace", watched)
    threads = [threading.Thread(target=restore, args=(service, deep)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (running, most) == (0, 1)
