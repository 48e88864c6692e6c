"""What a model says of itself, and which of its networks serves a wish."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from spikingir.networks import DnCNN
from spikingir.restoration.restorer import Restorer
from spikingir.store import save_network
from spikingir.tasks import DEHAZE, DENOISE
from spikingir.zoo.catalogue import (
    Model,
    ModelError,
    Variant,
    choose_variant,
    model_names,
    read_model,
    require_model,
)
from spikingir.zoo.pretrained import load_ann, load_spiking, open_model

CLOCKED, PHASED4, PHASED8, BINARY5 = (
    Variant("snn.safetensors", "clocked", 10),
    Variant("snn-phased-t4.safetensors", "phased", 4),
    Variant("snn-phased-t8.safetensors", "phased", 8),
    Variant("snn-phased-t5.safetensors", "phased", 5, "binary"),
)


def model(*variants: Variant) -> Model:
    return Model(Path(), "denoise-some", "denoise", 1, variants, variants[0].file)


ALL = model(CLOCKED, PHASED4, PHASED8)


@pytest.mark.parametrize(
    ("wish", "variant", "time_steps", "noted"),
    [
        ({}, CLOCKED, 10, False),
        ({"time_steps": 3}, CLOCKED, 3, False),  # a clocked network serves any T
        ({"time_steps": 10}, CLOCKED, 10, False),
        ({"time_steps": 4}, PHASED4, 4, False),  # what was trained for it serves best
        ({"schedule": "clocked"}, CLOCKED, 10, False),
        ({"schedule": "phased"}, PHASED8, 8, False),
        ({"schedule": "phased", "time_steps": 4}, PHASED4, 4, False),
        ({"schedule": "phased", "time_steps": 6}, PHASED8, 6, True),  # as near to 4 as to 8
        ({"schedule": "phased", "time_steps": 2}, PHASED4, 2, True),
        ({"schedule": 3}, CLOCKED, 10, True),
        ({"schedule": 3, "time_steps": 5}, PHASED4, 5, True),
    ],
)
def test_choice(wish: dict[str, Any], variant: Variant, time_steps: int, noted: bool) -> None:
    choice = choose_variant(ALL, **wish)
    assert (choice.variant, choice.time_steps) == (variant, time_steps)
    assert choice.schedule == wish.get("schedule", variant.schedule)
    assert len(choice.notes) == noted


@pytest.mark.parametrize(
    ("wish", "variant", "time_steps"),
    [
        ({}, BINARY5, 5),
        ({"time_steps": 5}, BINARY5, 5),
        ({"time_steps": 8}, CLOCKED, 8),  # the binary network cannot run at another T
        ({"time_steps": 10}, CLOCKED, 10),
        ({"schedule": "clocked", "time_steps": 5}, CLOCKED, 5),
        ({"schedule": "phased"}, BINARY5, 5),
    ],
)
def test_a_binary_network_serves_its_own_time_steps(wish: dict[str, Any], variant: Variant, time_steps: int) -> None:
    choice = choose_variant(model(BINARY5, CLOCKED), **wish)
    assert (choice.variant, choice.time_steps, choice.notes) == (variant, time_steps, ())


def test_a_model_that_is_only_phased() -> None:
    only = model(PHASED8)
    assert choose_variant(only).notes == ()
    assert choose_variant(only).schedule == "phased"
    (note,) = choose_variant(only, "clocked", 10).notes
    assert "no network trained clocked" in note
    assert "phased at T = 8" in note


@settings(deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(["clocked", "phased"]), st.integers(1, 20)), min_size=1, max_size=6, unique=True
    ),
    st.data(),
)
def test_what_was_trained_for_is_found_and_needs_no_note(trained: list[tuple[Any, int]], data: st.DataObject) -> None:
    variants = [Variant(f"{i}.safetensors", *clock) for i, clock in enumerate(trained)]
    schedule, time_steps = data.draw(st.sampled_from(trained))
    choice = choose_variant(model(*variants), schedule, time_steps)
    assert choice.variant == variants[trained.index((schedule, time_steps))]
    assert choice.notes == ()


def test_a_folder_of_ones_own(tiny_model: Path, tmp_path: Path) -> None:
    own = open_model(tiny_model)
    assert own.variants == (Variant("snn.safetensors", "clocked", 3),)
    assert (own.name, own.task, own.channels, own.sigma) == (tiny_model.name, "denoise", 1, None)
    assert open_model(tiny_model / "snn.safetensors").variants == own.variants
    assert load_ann(own) is None
    save_network(DnCNN(layers=3, width=4), tmp_path / "ann.safetensors")
    (tmp_path / "snn-mine.safetensors").write_bytes((tiny_model / "snn.safetensors").read_bytes())
    assert open_model(tmp_path).default == "snn-mine.safetensors"
    assert isinstance(load_ann(open_model(tmp_path)), DnCNN)


def test_a_restorer_runs_the_choice_and_keeps_its_notes(tiny_model: Path) -> None:
    assert Restorer.from_pretrained(tiny_model, time_steps=2).notes == ()
    restorer = Restorer.from_pretrained(tiny_model, schedule="phased", time_steps=2)
    assert restorer.network.config.clock == "T = 2, phased"
    assert restorer.notes == choose_variant(open_model(tiny_model), "phased", 2).notes
    assert len(restorer.notes) == 1
    with pytest.raises(ModelError, match="a delay of 9 does not fit"):
        load_spiking(tiny_model, schedule=9)


CONFIG = {
    "name": "mine",
    "task": "denoise",
    "channels": 1,
    "sigma": 15,
    "variants": {"snn.safetensors": {"schedule": "clocked", "time_steps": 3}},
    "default": "snn.safetensors",
}


def test_configuration(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "snn.safetensors").write_bytes((tiny_model / "snn.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    mine = open_model(tmp_path)
    assert (mine.name, mine.sigma, mine.default_variant.time_steps) == ("mine", 15, 3)
    assert mine.purpose == "Gaussian noise in gray images, sigma 15 of 255"
    assert load_spiking(tmp_path).network.config.time_steps == 3


def test_a_model_that_is_told_the_level(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "snn.safetensors").write_bytes((tiny_model / "snn.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "sigma": [0, 75], "takes_level": True}))
    mine = read_model(tmp_path)
    assert (mine.sigma, mine.fixed_sigma, mine.takes_level) == ((0, 75), None, True)
    assert mine.purpose == "Gaussian noise in gray images, sigma 0 to 75 of 255"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"sigma": "15"}, "sigma is '15'; expected a whole number or a number or a list"),
        ({"sigma": [0, 75, 80]}, "sigma is"),
        ({"sigma": [75, 0]}, "sigma is"),
        ({"sigma": [True, 2]}, r"sigma\[0\] is True"),
        ({"sigma": -1}, "sigma is -1"),
        ({"channels": "3"}, "channels is '3'; expected a whole number"),
        ({"takes_level": "yes"}, "takes_level is 'yes'"),
        ({"sigam": 15}, "unknown key 'sigam'; did you mean 'sigma'"),
        ({"folder": "elsewhere"}, "unknown key 'folder'"),
        ({"task": "derain"}, "'derain'; expected denoise or dehaze"),
        ({"default": "snn"}, "the default is 'snn'"),
        ({"variants": {"other.safetensors": {"schedule": "clocked", "time_steps": 3}}}, "default"),
        ({"variants": {"snn.safetensors": {"schedule": "clocked", "time_steps": "3"}}}, "time_steps"),
        ({"variants": {"snn.safetensors": {"schedule": "clocked"}}}, "time_steps"),
        ({"variants": ["snn.safetensors"]}, "no table of variants"),
        ({}, r"names snn\.safetensors, which is not in the folder"),
    ],
)
def test_configurations_that_are_none(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, **change}))
    with pytest.raises(ModelError, match=said):
        read_model(tmp_path)


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '{"name": "mine"}', "\udcff"])
def test_files_that_are_no_configuration(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text, errors="surrogateescape")
    with pytest.raises(ModelError, match=r"config\.json"):
        read_model(tmp_path)


def test_reading_what_ships_loads_no_torch() -> None:
    code = (
        "import sys; from spikingir.zoo.catalogue import model_names, read_shipped\n"
        "[read_shipped(name) for name in model_names()]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_models_come_in_the_order_of_what_a_person_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By task; the default, then those for any noise level, then those for one."""
    wanted = [DENOISE.default_models[0], "denoise-color", "denoise-gray", "denoise-gray-15", "denoise-gray-25"]
    wanted += [DEHAZE.default_models[0], "dehaze-a", "unheard-of"]
    for name in sorted(wanted):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").touch()
    monkeypatch.setattr("spikingir.zoo.catalogue.SHIPPED", tmp_path)
    assert model_names() == wanted


@pytest.mark.parametrize(
    ("name", "family"),
    [
        ("denoise", "denoise-gray-15 or denoise-gray-25 or denoise-gray-50"),
        ("denoise-gray", "denoise-gray-15 or denoise-gray-25 or denoise-gray-50"),
        ("denoise-gray-24", "denoise-gray-15 or denoise-gray-25 or denoise-gray-50"),
        ("denoise-grey-25", "denoise-gray-15 or denoise-gray-25 or denoise-gray-50"),
        ("dehase", "dehaze"),
        ("deh", "dehaze"),
    ],
)
def test_a_name_that_is_nearly_right_gets_its_family(name: str, family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = ["dehaze", "denoise-gray-15", "denoise-gray-25", "denoise-gray-50"]
    monkeypatch.setattr("spikingir.zoo.catalogue.model_names", lambda: known)
    with pytest.raises(ModelError, match=f"; did you mean {re.escape(family)}\\?$"):
        require_model(name)
    with pytest.raises(ModelError, match=f"; those that ship: {', '.join(known)}$"):
        require_model("x")
    with pytest.raises(ModelError, match="there is no model '/dev/null'"):  # neither a file nor a folder
        require_model("/dev/null")


def test_an_empty_name_is_no_model() -> None:
    assert model_names()
    with pytest.raises(ModelError, match="the name of the model is empty"):
        open_model("")
