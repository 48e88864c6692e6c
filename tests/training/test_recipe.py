"""Recipes: data that says exactly what it does, and refuses what it does not know."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from spikingir.data.camera import CameraCurves
from spikingir.data.errors import DataError
from spikingir.data.photographs import PhotographPatches
from spikingir.data.real_haze import RealHazePatches
from spikingir.data.scenes import Scene
from spikingir.networks.registry import build_network
from spikingir.schema import SchemaError
from spikingir.spiking.neurons import IFNeuron
from spikingir.store import from_pretrained, load_any, load_network, save_network
from spikingir.training import follow as following
from spikingir.training.checkpoints import load_checkpoint, save_checkpoint
from spikingir.training.config import FitConfig
from spikingir.training.finetune import finetuning
from spikingir.training.follow import follow
from spikingir.training.recipe import Haze, Noise, RealHaze, Recipe, RecipeError, Stage, load_recipe, recipe_names
from spikingir.zoo.catalogue import Model, Variant, choose_variant

TINY = """
name = "tiny"
architecture = "dncnn"
options = { channels = 1, layers = 3, width = 4, batch_norm = true }
noise = { folder = "clean", sigma = 25, held_back_every = 3 }

[[stages]]
name = "ann"
kind = "ann"
patch = 12
fit = { steps = 3, batch_size = 2, precision = "float32" }

[[stages]]
name = "qann"
kind = "qann"
start = "ann"
time_steps = 4
schedule = "phased"
patch = 12
fit = { steps = 3, batch_size = 2, precision = "float32" }

[[stages]]
name = "snn"
kind = "snn"
start = "qann"
teacher = "ann"
time_steps = 5
patch = 12
fit = { steps = 3, batch_size = 2, distillation = 0.5, precision = "float32" }
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(text)
    return path


def folder_of_images(tmp_path: Path) -> Path:
    (tmp_path / "clean").mkdir()
    for i in range(4):
        pixels = np.random.default_rng(i).integers(0, 256, (16, 20), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "clean" / f"{i}.png")
    return tmp_path / "clean"


@pytest.mark.parametrize("name", recipe_names())
def test_shipped_recipes_load(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.stages


def test_a_recipe_is_followed_stage_by_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)  # compiling three tiny networks would take minutes
    folder_of_images(tmp_path)
    recipe = load_recipe(write(tmp_path, TINY))
    said: list[str] = []
    with pytest.raises(RecipeError, match="needs qann, which has not been run"):
        follow(recipe, tmp_path, tmp_path / "run", stages=["snn"], progress=False)
    done = follow(recipe, tmp_path, tmp_path / "run", progress=False, announce=said.append)
    assert list(done) == ["ann", "qann", "snn"]
    assert len(said) == 6
    snn = from_pretrained(done["snn"])
    assert (snn.config.time_steps, snn.config.schedule) == (5, "clocked")
    assert from_pretrained(done["qann"]).config.phased
    assert load_network(done["ann"])(torch.rand(1, 1, 8, 8)).shape == (1, 1, 8, 8)
    before = done["snn"].read_bytes()
    assert follow(recipe, tmp_path, tmp_path / "run", progress=False) == done
    assert done["snn"].read_bytes() == before
    with pytest.raises(RecipeError, match="no stage 'sn'; did you mean 'snn'"):
        follow(recipe, tmp_path, tmp_path / "run", stages=["sn"])
    other = load_recipe(write(tmp_path, TINY.replace("sigma = 25", "sigma = 50")))
    with pytest.raises(RecipeError, match=r"trained otherwise \(noise\.sigma: 25\.0 there, 50\.0 here\)"):
        follow(other, tmp_path, tmp_path / "run")


def test_a_stage_of_an_earlier_version_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings that it did not know are at their defaults, in what describes a stage and in a checkpoint."""
    monkeypatch.setattr(following, "can_compile", lambda: False)
    folder_of_images(tmp_path)
    recipe = load_recipe(write(tmp_path, TINY))
    done = follow(recipe, tmp_path, tmp_path / "run", stages=["ann"], progress=False)
    file = done["ann"].with_name("stage.json")
    description = json.loads(file.read_text())
    later = ("blocks", "averaged_share", "norm_batches", "fit.energy", "noise.held_back_side")
    file.write_text(json.dumps({key: value for key, value in description.items() if key not in later}))
    checkpoint = done["ann"].with_name("checkpoint.pt")
    state = load_checkpoint(checkpoint)
    for setting in ("energy", "muon_rate", "processes"):
        del state["run"][setting]
    save_checkpoint(state, checkpoint)
    done["ann"].unlink()
    assert follow(recipe, tmp_path, tmp_path / "run", stages=["ann"], progress=False) == done
    other = load_recipe(write(tmp_path, TINY.replace("steps = 3", "energy = 0.5, steps = 3")))
    with pytest.raises(RecipeError, match=r"fit\.energy: 0\.0 there, 0\.5 here"):
        follow(other, tmp_path, tmp_path / "run")


def test_a_quantised_network_is_saved_phased_whatever_its_stage_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    folder_of_images(tmp_path)
    recipe = load_recipe(write(tmp_path, TINY))
    stages = tuple(replace(stage, schedule="clocked") for stage in recipe.stages)
    done = follow(replace(recipe, stages=stages), tmp_path, tmp_path / "run", stages=["ann", "qann"], progress=False)
    assert from_pretrained(done["qann"]).config.phased


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sigma = 25", "sgima = 25", r"tiny\.toml\.noise: unknown key 'sgima'; did you mean 'sigma'"),
        ('kind = "ann"', 'kind = "cnn"', r"stages\[0\]\.kind is 'cnn'; expected ann, qann, snn"),
        ("patch = 12", 'patch = "12"', r"stages\[0\]\.patch is '12'; expected a whole number"),
        ("steps = 3", "steps = 0", "fit.steps is 0; only a stage that takes a mean"),
        ('name = "tiny"', "name = ", "is not TOML"),
        ('architecture = "dncnn"', "", "the key 'architecture' is missing"),
        ("distillation = 0.5", "distillation = 2.0", r"distillation is 2\.0; expected a number from 0 to 1"),
        ("distillation = 0.5", "distillation = 0.0", "a teacher and fit.distillation above 0 go together"),
        ("steps = 3", "steps = 99999999999999999999999", r"fit\.steps is 9+; expected a number from 0 to"),
        ("steps = 3", "steps = inf", r"fit\.steps is inf; expected a whole number"),
        ("batch_size = 2", "log_every = 0", r"fit\.log_every is 0; expected a number from 1"),
        ("batch_size = 2", "validate_every = 0", r"fit\.validate_every is 0; expected a number from 1"),
        ("batch_size = 2", "learning_rate = 1e300", r"learning_rate is 1e\+300; expected a number above 0 to 10"),
        ("batch_size = 2", "learning_rate = 0", r"fit\.learning_rate is 0\.0; expected a number above 0"),
        ("batch_size = 2", "learning_rate = nan", r"fit\.learning_rate is nan; expected a finite number"),
        ("batch_size = 2", "accumulate = 99999999999", r"accumulate is 99999999999; expected a number from 1 to 65536"),
        ("batch_size = 2", "warmup = inf", r"fit\.warmup is inf; expected a finite number"),
        ("batch_size = 2", "warmup = 1" + "0" * 400, r"fit\.warmup is 1.*; expected a finite number"),
        ("patch = 12", "patch = 0", r"stages\[0\]\.patch is 0; expected a number from 1 to 4096"),
        ("patch = 12", "patch = -1", r"stages\[0\]\.patch is -1; expected a number from 1"),
        ("held_back_every = 3", "held_back_every = 0", r"noise\.held_back_every is 0; expected a number from 2"),
        ("sigma = 25", "sigma = -1", r"noise\.sigma is -1\.0; expected a number from 0 to 255"),
        ("sigma = 25", "sigma = [50, 5]", r"noise: sigma is \[50\.0, 5\.0\]; expected the lower one first"),
        ("sigma = 25", "sigma = [5]", r"noise\.sigma is \[5\]; expected a list of 2"),
        ("layers = 3", "layers = 100000000", "option 'layers' of dncnn is 100000000; expected a number from 3 to 256"),
        ("layers = 3", "layers = 999999999999999999999", "option 'layers' of dncnn is 9+; expected"),
        ("width = 4", "width = 1000000000", "option 'width' of dncnn is 1000000000; expected a number from 1 to 4096"),
        ("width = 4", "wdith = 4", "dncnn has no option 'wdith'; did you mean 'width'"),
        ('architecture = "dncnn"', 'architecture = "dncn"', "unknown architecture 'dncn'; did you mean 'dncnn'"),
        (
            "time_steps = 5",
            "time_steps = 1000000000",
            r"stages\[2\]\.time_steps is 1000000000; expected a number",
        ),
        ("time_steps = 5", "time_steps = 1" + "0" * 30, r"stages\[2\]\.time_steps is 10+; expected a number from 1"),
        ('"phased"', '"phassed"', r"stages\[1\]\.schedule is 'phassed'; expected clocked, phased"),
        ('"phased"', "4", r"stages\[1\]: schedule is 4; a delay is below time_steps, here 4"),
        ('kind = "ann"', 'kind = "ann"\nweight_bits = 8', r"stages\[0\]: weight_bits is for a phased spiking network"),
        ("time_steps = 5", "time_steps = 5\nweight_bits = 8", r"stages\[2\]: weight_bits is for a phased"),
        ('"phased"', '"phased"\nweight_bits = 1', r"stages\[1\]\.weight_bits is 1; expected a number from 2 to 16"),
        (
            'name = "tiny"',
            'name = "../tiny"',
            r"tiny\.toml\.name is '\.\./tiny'; expected a name of 1 to 100",
        ),
        ('name = "tiny"', 'name = "a/b"', r"name is 'a/b'; expected a name"),
        ('name = "tiny"', 'name = ""', "name is ''; expected a name"),
        ('name = "qann"', 'name = "/etc/x"', r"stages\[1\]\.name is '/etc/x'; expected a name"),
        ('name = "qann"', 'name = ".."', r"stages\[1\]\.name is '\.\.'; expected a name"),
        ('name = "qann"', 'name = "a\\\\b"', r"stages\[1\]\.name is .*; expected a name"),
        ('name = "qann"', 'name = "ann"', r"stages\[1\]\.name is 'ann', as an earlier one is"),
        ('name = "qann"', 'name = "model"', r"stages\[1\]\.name is 'model', the folder of what is published"),
        ('kind = "ann"', 'kind = "ann"\nconversion = {}', r"stages\[0\]: conversion is given, and a stage of kind ann"),
        ('kind = "qann"', 'kind = "qann"\npublish = "../x"', r"stages\[1\]\.publish is '\.\./x'; expected a name"),
        ('start = "ann"', 'start = "snn"', r"stages\[1\]\.start is 'snn', a stage that comes no earlier: a cycle"),
        ('kind = "ann"', 'kind = "ann"\nreal_haze = {}', r"stages\[0\]\.real_haze is given, and the recipe has no"),
        ('kind = "ann"', 'kind = "ann"\nblocks = [2]', r"blocks is \[2\], and start is missing"),
        ('kind = "ann"', 'kind = "ann"\npointwise_inject = true', "pointwise_inject is given, and start is missing"),
        ('start = "ann"', 'averaged_with = "ann"', r"averaged_with is 'ann', and start is missing"),
        ('start = "ann"', 'start = "qann"', r"stages\[1\]\.start is 'qann', a stage that comes no earlier: a cycle"),
        (
            'name = "tiny"',
            'name = "tiny"\nconversion = { method = "rueckaur" }',
            "unknown method 'rueckaur'; did you",
        ),
        ('name = "tiny"', "a = " + "[" * 3000 + "]" * 3000, "it is nested too deeply"),
        ('name = "tiny"', "a = " + "9" * 5000, "a number has thousands of digits"),
        ('name = "tiny"', "a = 0x" + "f" * 5000, "unknown key 'a'"),
        ("patch = 12", "patch = 0x" + "f" * 5000, r"patch is a number of thousands of digits; expected"),
        ('name = "tiny"', 'name = "tiny"\n#' + "a" * 2**20, "is longer than 1 MiB"),
        ("sigma = 25", "zzz = 25", "known: folder, sigma"),
        (
            'precision = "float32"',
            "epsilon = 2.0",
            r"fit: epsilon is 2\.0; it goes with the objective charbonnier alone",
        ),
        ('precision = "float32"', "epsilon = 0.0", r"fit\.epsilon is 0\.0; expected a number above 0"),
        ("noise = {", "real_haze = { left_out = 2 }\nnoise = {", "expected one of them"),
        ("noise = {", "real_haze = { beta = 0 }\nnoise = {", r"real_haze\.beta is 0\.0; expected a number above 0"),
        ("noise = {", 'photographs = { folder = "a", real = 2 }\nnoise = {', r"photographs\.real is 2\.0; expected a"),
    ],
)
def test_what_it_does_not_know_is_refused(old: str, new: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(write(tmp_path, TINY.replace(old, new)))


@pytest.mark.parametrize("content", [b"name = 'a' # \xff\xfe", "name = 'a'".encode("utf-16"), b"\x89PNG\r\n\x1a\n"])
def test_a_recipe_is_utf_8(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "tiny.toml"
    path.write_bytes(content)
    with pytest.raises(RecipeError, match=r"is no text in UTF-8: byte [0-9]+ is none of it"):
        load_recipe(path)


def test_a_recipe_made_by_hand_is_checked_too() -> None:
    stage = Stage("ann", "ann", 8, FitConfig(2))
    for make, message in (
        (lambda: FitConfig(-1), "steps is -1; expected a number from 0"),
        (lambda: replace(stage, name="../ann"), "name is '../ann'; expected a name"),
        (lambda: Recipe("a/b", "dncnn", (stage,), Noise("clean", 25)), "name is 'a/b'; expected a name"),
        (lambda: Recipe("a", "dncnn", (), Noise("clean", 25)), "stages is empty"),
        (lambda: Recipe("a", "dncnn", (stage,)), "several of noise, haze, photographs and real_haze, or none"),
    ):
        with pytest.raises(SchemaError, match=message):
            make()


def test_a_misspelt_recipe_is_told() -> None:
    with pytest.raises(RecipeError, match=r"no recipe and no .* 'denoise-gray-z5'; did you mean 'denoise-gray-"):
        load_recipe("denoise-gray-z5")


def test_missing_recipe_and_data(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no recipe and no \.toml file 'nothing'; known: .*denoise-gray-25"):
        load_recipe("nothing")
    recipe = load_recipe(write(tmp_path, TINY))
    with pytest.raises(DataError, match="clean"):
        follow(recipe, tmp_path, tmp_path / "run")


def test_a_spiking_network_starts_from_random_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DnSNN: no conventional network before it."""
    monkeypatch.setattr(following, "can_compile", lambda: False)
    folder_of_images(tmp_path)
    head, _, _, snn = TINY.split("[[stages]]")
    alone = f'{head}[conversion]\nmethod = "dnsnn"\n[[stages]]{snn}'
    for given in ('start = "qann"\n', 'teacher = "ann"\n', ", distillation = 0.5"):
        alone = alone.replace(given, "")
    done = follow(load_recipe(write(tmp_path, alone)), tmp_path, tmp_path / "run", progress=False)
    network = from_pretrained(done["snn"])
    assert network.config.method == "dnsnn"
    assert network.config.recycling  # reads the output's membrane
    assert network.mapper is None
    quantised = alone.replace('kind = "snn"', 'kind = "qann"')
    with pytest.raises(RecipeError, match="a network of kind qann starts from another one; name it"):
        follow(load_recipe(write(tmp_path, quantised)), tmp_path, tmp_path / "none", progress=False)


PHOTO = """
name = "photo"
architecture = "multiscale"
options = { channels = 3, width = 4, blocks = [1, 1], form = "residual", batch_norm = true }
photographs = { folder = "clean", real = 0.5, held_back_every = 3, held_back_side = 16 }

[[stages]]
name = "ann"
kind = "ann"
start = "color/ann"
patch = 16
fit = { steps = 3, batch_size = 2, objective = "charbonnier", precision = "float32" }

[[stages]]
name = "quantised"
kind = "qann"
start = "ann"
time_steps = 4
schedule = "phased"
coding = "binary"
activation_bits = [4, 3]
patch = 16
fit = { steps = 2, batch_size = 2, objective = "charbonnier", epsilon = 2.0, precision = "float32" }
"""


def colours(folder: Path, count: int, side: int = 24, prefix: str = "") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        pixels = np.random.default_rng(i).integers(0, 256, (side, side, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{prefix}{i:04}.png")


def test_a_network_of_photographs_goes_on_from_one_with_a_level(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    monkeypatch.setattr(following, "read_curves", lambda folder: CameraCurves(*(np.linspace(0, 1, 9)[None],) * 2))
    colours(tmp_path / "clean", 4)
    for kind in ("noisy", "clean"):
        for camera in ("Canon80D_", "Canon600D_", "Sony_", "NikonD800_"):
            colours(tmp_path / "denoise" / "polyu" / kind, 2, prefix=camera)
    colour = build_network("multiscale", channels=3, width=4, blocks=(1, 1), batch_norm=True)
    (tmp_path / "runs" / "color" / "ann").mkdir(parents=True)
    save_network(colour, tmp_path / "runs" / "color" / "ann" / "model.safetensors")
    recipe = load_recipe(write(tmp_path, PHOTO))
    assert recipe.task == "denoise"
    done = follow(recipe, tmp_path, tmp_path / "runs" / "photo", progress=False)
    ann = load_network(done["ann"])
    assert ann.options["form"] == "residual"
    assert from_pretrained(done["quantised"]).config.phased
    kept = load_network(done["quantised"].with_name(following.QUANTISED))
    assert (kept.options["activation_bits"], kept.options["batch_norm"]) == ((4, 3), True)  # to be trained on
    patches, held_back = following.training_data(recipe, recipe.stages[0], tmp_path)
    assert isinstance(patches, PhotographPatches)
    assert len(patches.pairs) == 2  # Nikon alone
    assert [torch.equal(noisy, clean) for noisy, clean in held_back[2:]] == [True, True]
    assert len(held_back) == 4
    assert len(patches.images) == 2
    missing = load_recipe(write(tmp_path, PHOTO.replace("real = 0.5", 'real = 0.5, left_out = ["Pentax"]')))
    with pytest.raises(DataError, match="no camera 'Pentax'"):
        follow(missing, tmp_path, tmp_path / "runs" / "other", progress=False)


def test_a_network_grows_is_quantised_and_released(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    folder_of_images(tmp_path)
    text = TINY.replace('"dncnn"', '"multiscale"').replace("layers = 3, width = 4", "width = 4, blocks = [1, 1]")
    text = text.replace("time_steps = 4", 'time_steps = 4\ncoding = "binary"\npointwise_inject = true\nblocks = [2, 1]')
    text = text[: text.index('[[stages]]\nname = "snn"')]
    ann = text[text.index("[[stages]]") : text.index('[[stages]]\nname = "qann"')]
    finer = text[text.index('[[stages]]\nname = "qann"') :].replace('name = "qann"\n', 'name = "finer"\n')
    finer = finer.replace('start = "ann"', 'start = "qann"').replace("blocks = [2, 1]", "activation_bits = [4, 3]")
    finer = finer.replace("pointwise_inject = true\n", "")
    free = ann.replace('name = "ann"', 'name = "free"\nstart = "qann"')
    own = finer.replace('"finer"', '"own"').replace('coding = "binary"\nactivation_bits = [4, 3]\n', "")
    recipe = load_recipe(write(tmp_path, text + free + finer + own))
    done = follow(recipe, tmp_path, tmp_path / "run", progress=False)
    options = {name: load_network(done[name]).options for name in ("ann", "free")}
    assert (options["ann"]["blocks"], options["free"]["blocks"]) == ((1, 1), (2, 1))
    assert (options["ann"]["inject_kernel"], options["free"]["inject_kernel"]) == (3, 1)
    assert options["free"]["activation_bits"] == ()
    assert load_network(done["qann"].with_name(following.QUANTISED)).options["activation_bits"] == (4, 4)
    assert load_network(done["finer"].with_name(following.QUANTISED)).options["activation_bits"] == (4, 3)
    assert load_network(done["own"].with_name(following.QUANTISED)).options["activation_bits"] == (4, 4)
    many = text.replace("blocks = [2, 1]\n", "activation_bits = [4, 3, 3]\n")
    with pytest.raises(RecipeError, match=r"activation_bits is \[4, 3, 3\], and the network has 2 scales"):
        follow(load_recipe(write(tmp_path, many)), tmp_path, tmp_path / "many", progress=False)
    assert from_pretrained(done["qann"]).config.phased
    other = TINY.replace('start = "ann"\n', 'start = "ann"\nblocks = [2, 1]\n')
    with pytest.raises(RecipeError, match="stage qann: blocks is for a multi-scale network; ann is none"):
        follow(load_recipe(write(tmp_path, other)), tmp_path, tmp_path / "other", progress=False)
    other = other.replace("blocks = [2, 1]", "pointwise_inject = true")
    with pytest.raises(RecipeError, match="stage qann: pointwise_inject is for a multi-scale network; ann is none"):
        follow(load_recipe(write(tmp_path, other)), tmp_path, tmp_path / "another", progress=False)


def test_a_stage_converts_in_its_own_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    folder_of_images(tmp_path)
    text = TINY[: TINY.index('[[stages]]\nname = "snn"')]
    half = text.replace('kind = "qann"\n', 'kind = "qann"\nconversion = { percentile = 50 }\n')
    largest = {}
    for name, given in {"own": half, "recipe's": text}.items():
        recipe = load_recipe(write(tmp_path, given))
        done = follow(recipe, tmp_path, tmp_path / name, progress=False)
        neurons = [module for module in from_pretrained(done["qann"]).modules() if isinstance(module, IFNeuron)]
        largest[name] = max(neuron.v_threshold.max().item() for neuron in neurons)
    assert largest["own"] < 0.5 * largest["recipe's"]
    with pytest.raises(RecipeError, match=r"conversion\.percentile: 50\.0 there, 99\.9 here"):
        follow(recipe, tmp_path, tmp_path / "own", progress=False)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("conversion = { percentile = 90 }", "conversion is given, and qann spikes already; leave it out"),
        ("activation_bits = [3]", r"activation_bits is \[3\], and layers of qann have 5 bits; a network that spikes"),
    ],
)
def test_a_network_that_spikes_is_not_converted_again(
    given: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    folder_of_images(tmp_path)
    text = TINY.replace("time_steps = 5", f'time_steps = 5\nschedule = "phased"\ncoding = "binary"\n{given}')
    with pytest.raises(RecipeError, match=message):
        follow(load_recipe(write(tmp_path, text)), tmp_path, tmp_path / "run", progress=False)


def test_a_network_of_real_haze_never_sees_the_scenes_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    scenes = [
        Scene(f"{i:04}", np.full((40, 40, 3), i, np.uint8), np.full((40, 40), 9, np.uint8), 0.1) for i in range(60)
    ]

    class Files:
        def __init__(self, scene: Scene) -> None:
            self.name, self.read = scene.name, lambda: scene

    monkeypatch.setattr(following, "list_nyu", lambda folder: [Files(scene) for scene in scenes[:20]])
    monkeypatch.setattr(following, "list_outdoor", lambda folder: [Files(scene) for scene in scenes[:60]])
    photographs = 'photographs = { folder = "clean", real = 0.5, held_back_every = 3, held_back_side = 16 }'
    text = PHOTO.replace(photographs, "real_haze = { held_back = 0.25 }").replace('"residual"', '"soft"')
    recipe = load_recipe(write(tmp_path, text.replace('start = "color/ann"\n', "")))
    assert recipe.task == "dehaze"
    patches, held_back = following.training_data(recipe, recipe.stages[0], tmp_path)
    assert isinstance(patches, RealHazePatches)
    trained = {scene.name for scene in patches.outdoor}
    validated = {scenes[round(float(clean.max() * 255))].name for _, clean in held_back[5:]}
    assert len(trained) == 15
    assert validated <= {"0003", "0007", "0011", "0015", "0019"}
    assert max(trained | validated) < "0020"
    assert not trained & validated
    reside = replace(recipe.stages[0], real_haze=RealHaze(held_back=0.25, reside=0.5))
    assert following.training_data(recipe, reside, tmp_path)[0].reside == 0.5
    done = follow(recipe, tmp_path, tmp_path / "run", progress=False)
    assert load_network(done["ann"]).options["form"] == "soft"
    with pytest.raises(RecipeError, match=r"real_haze.*reside"):
        follow(replace(recipe, stages=(reside, *recipe.stages[1:])), tmp_path, tmp_path / "run", progress=False)
    few = load_recipe(write(tmp_path, text.replace("held_back = 0.25", "left_out = 60")))
    with pytest.raises(DataError, match="has 60 scenes, of which 60 are left out"):
        follow(few, tmp_path, tmp_path / "none", progress=False)


def test_a_stage_starts_from_a_file_or_a_model_that_ships(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    folder_of_images(tmp_path)
    ann = "\n".join(TINY.split("\n")[: TINY.split("\n").index('name = "qann"') - 1])
    follow(load_recipe(write(tmp_path, ann)), tmp_path, tmp_path / "run", progress=False)
    file = tmp_path / "run" / "ann" / "model.safetensors"
    again = ann.replace('kind = "ann"', f'kind = "ann"\nstart = "{file}"').replace("steps = 3", "steps = 1")
    done = follow(load_recipe(write(tmp_path, again)), tmp_path, tmp_path / "again", progress=False)
    before, after = load_network(file), load_network(done["ann"])
    assert all(torch.allclose(a, b, atol=0.1) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    network = load_any(file)
    assert torch.equal(network(torch.ones(1, 1, 8, 8)), before(torch.ones(1, 1, 8, 8)))
    nothing = ann.replace('kind = "ann"', 'kind = "ann"\nstart = "denoise-gray-25/nothing"')
    with pytest.raises(RecipeError, match="needs 'denoise-gray-25/nothing', which is no stage"):
        follow(load_recipe(write(tmp_path, nothing)), tmp_path, tmp_path / "none", progress=False)


def test_a_stage_starts_from_the_mean_of_two_networks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    folder_of_images(tmp_path)
    ann = "\n".join(TINY.split("\n")[: TINY.split("\n").index('name = "qann"') - 1])
    stages = ann[ann.index("[[") :]
    other = stages.replace('"ann"\nkind', '"other"\nkind').replace("steps = 3", "steps = 3, seed = 1")
    mean = stages.replace('"ann"\nkind', '"mean"\nstart = "ann"\naveraged_with = "other"\nkind').replace(
        "steps = 3", "steps = 0"
    )
    done = follow(load_recipe(write(tmp_path, ann + other + mean)), tmp_path, tmp_path / "run", progress=False)
    one, two, both = (load_network(done[name]) for name in ("ann", "other", "mean"))
    assert not all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    for a, b, found in zip(one.parameters(), two.parameters(), both.parameters(), strict=True):
        torch.testing.assert_close(found, (a + b) / 2, atol=1e-6, rtol=0)
    third = mean.replace('"mean"\n', '"third"\naveraged_share = 0.25\nnorm_batches = 3\n')
    done = follow(load_recipe(write(tmp_path, ann + other + third)), tmp_path, tmp_path / "third", progress=False)
    one, two, some = (load_network(done[name]) for name in ("ann", "other", "third"))
    for a, b, found in zip(one.parameters(), two.parameters(), some.parameters(), strict=True):
        torch.testing.assert_close(found, 0.75 * a + 0.25 * b, atol=1e-6, rtol=0)
    norms = [[m for m in n.modules() if isinstance(m, torch.nn.BatchNorm2d)] for n in (one, two, some)]
    assert norms[0]
    for a, b, found in zip(*norms, strict=True):  # of patches, not the others' mean
        assert not torch.allclose(found.running_mean, 0.75 * a.running_mean + 0.25 * b.running_mean, atol=1e-6)
    wide = (ann + mean).replace('averaged_with = "other"', 'averaged_with = "denoise-gray-25/ann"')
    with pytest.raises(RecipeError, match="ann and denoise-gray-25/ann are not the same network"):
        follow(load_recipe(write(tmp_path, wide)), tmp_path, tmp_path / "wide", progress=False)


def test_minutes_fit_the_steps_and_a_resumed_run_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "can_compile", lambda: False)
    seconds: list[float] = []

    def fit_to_time(network: object, pairs: object, config: FitConfig, time: float, teacher: object) -> FitConfig:
        seconds.append(time)
        return replace(config, steps=2)

    monkeypatch.setattr(following, "fit_to_time", fit_to_time)
    folder_of_images(tmp_path)
    recipe = load_recipe(write(tmp_path, TINY))
    said: list[str] = []
    follow(recipe, tmp_path, tmp_path / "run", minutes=1, progress=False, announce=said.append)
    assert sum(seconds) == pytest.approx(60)
    assert seconds[2] == pytest.approx(6 * seconds[1])  # a clocked network of five steps and one makes six passes
    assert said[0] == "tiny/ann: 2 steps"
    (tmp_path / "run" / "ann" / "model.safetensors").unlink()
    follow(recipe, tmp_path, tmp_path / "run", stages=["ann"], minutes=9, progress=False)
    assert len(seconds) == 3


def test_fine_tuning_is_a_recipe_of_one_stage(tmp_path: Path) -> None:
    variant = Variant("snn.safetensors", "clocked", 10)
    model = Model(tmp_path, "mine", "denoise", 1, (variant,), variant.file, sigma=15)
    chosen = choose_variant(model, time_steps=6)

    def recipe(model: Model, sigma: float | None = None) -> Recipe:
        return finetuning(model, chosen, tmp_path, sigma=sigma, steps=9, learning_rate=1e-4, batch_size=2, patch=12)

    made = recipe(model)
    assert made.name == "mine-finetuned"
    assert made.noise == Noise(str(tmp_path), 15)
    assert (made.stages[0].start, made.stages[0].time_steps) == (str(tmp_path / "snn.safetensors"), 6)
    assert recipe(model, 30).noise == Noise(str(tmp_path), 30)
    assert recipe(replace(model, task="dehaze", channels=3)).haze == Haze(str(tmp_path))
    assert recipe(replace(model, sigma=(0, 75))).noise == Noise(str(tmp_path), (0, 75))
    with pytest.raises(RecipeError, match="give --sigma"):
        recipe(replace(model, sigma=None))
    with pytest.raises(RecipeError, match="gray ones alone"):
        recipe(replace(model, channels=3))
