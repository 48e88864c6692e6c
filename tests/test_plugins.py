"""A package beside ours adds a neuron, a network, a task, a conversion method and an export format."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from spikingir.photo.images import read_image
from spikingir.plugins import PluginError, Registry

PACKAGE = {
    "__init__.py": "",
    "neurons.py": '''
        from spikingir.spiking.kinds import NEURONS, IFSettings
        from spikingir.spiking.neurons import IFNeuron

        @NEURONS.register("eager", settings=IFSettings, folds=lambda neuron: neuron, phased=True, delayed=True)
        class EagerNeuron(IFNeuron):
            """An IF neuron of a name of its own."""
    ''',
    "networks.py": '''
        from torch import nn
        from spikingir.networks.base import Recognised, RestorationNetwork
        from spikingir.networks.registry import ARCHITECTURES

        def recognise(tensors):
            if set(tensors) != {f"body.{i}.{kind}" for i in (0, 2) for kind in ("weight", "bias")}:
                return None
            return Recognised({"width": len(tensors["body.0.bias"])}, dict(tensors), {name: name for name in tensors})

        @ARCHITECTURES.register("twice", channels=(1,), recognise=recognise, paper="none")
        class Twice(RestorationNetwork):
            scale = 2

            def __init__(self, width: int = 8) -> None:
                layers = nn.Conv2d(1, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 4, 3, padding=1)
                super().__init__(nn.Sequential(*layers, nn.PixelShuffle(2)), "identity", 1)
                self.width = width

            @property
            def options(self):
                return {"width": self.width}
    ''',
    "tasks.py": '''
        from spikingir.tasks import TASKS, Task

        def degradation():
            from functools import partial
            from torch.nn.functional import avg_pool2d
            from spikingir.data.folders import list_images, read_gray, to_tensor
            from spikingir.data.samples import Sample
            from spikingir.data.testsets import Degradation, TestPair

            def pair(path):
                clean = to_tensor(read_gray(path))
                return TestPair(path.stem, avg_pool2d(clean[None], 2)[0], clean)

            def pairs(folder, request):
                return [partial(pair, path) for path in list_images(folder)]

            return Degradation((1,), pairs, {}, lambda: None)

        UPSCALE = Task(
            name="upscale", done="upscaled", removes="pixels' edges", sigma_of=None, formations=(),
            default_models=("upscale",), conversion_rate=lambda psnr, ssim: psnr, degradation=degradation,
        )
    ''',
    "methods.py": '''
        from spikingir.conversion.convert import METHODS
        from my_plugin.neurons import EagerNeuron

        METHODS.register(
            "hasty", v0=0.5, percentile=100.0, per_channel=True, mapper=False, recycling=True, source="nobody",
        )(EagerNeuron)
        hasty = METHODS["hasty"]
    ''',
    "exports.py": '''
        from spikingir.export.drift import measure, spikes_of
        from spikingir.export.export import FORMATS

        @FORMATS.register("thing", suffix=".thing")
        def write(network, sample):
            expected = spikes_of(network, sample)
            layers = "\\n".join(network.clocks)
            return layers.encode(), measure(expected, *expected), ("a thing holds names alone",)
    ''',
    "broken.py": "import my_plugin.nowhere",
    "wrong.py": "thing = 3",
}  # fmt: skip
ENTRY_POINTS = """
    [spikingir.neurons]
    eager = my_plugin.neurons:EagerNeuron
    broken = my_plugin.broken:Neuron
    [spikingir.networks]
    twice = my_plugin.networks:Twice
    [spikingir.tasks]
    upscale = my_plugin.tasks:UPSCALE
    broken = my_plugin.broken:TASK
    denoise = my_plugin.tasks:UPSCALE
    [spikingir.methods]
    hasty = my_plugin.methods:hasty
    wrong = my_plugin.wrong:thing
    [spikingir.exports]
    thing = my_plugin.exports:write
    broken = my_plugin.broken:write
"""


@pytest.fixture(scope="module")
def beside(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that holds the one that adds to ours, as an installer leaves it."""
    site = tmp_path_factory.mktemp("site")
    (site / "my_plugin").mkdir()
    for name, code in PACKAGE.items():
        (site / "my_plugin" / name).write_text(textwrap.dedent(code), encoding="utf-8")
    info = site / "my_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-plugin\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(textwrap.dedent(ENTRY_POINTS), encoding="utf-8")
    return site


def run(beside: Path, code: str, *arguments: object) -> Any:
    """What a program says on its last line, in JSON, in an interpreter that sees the package."""
    program = f"import json, sys\nsys.path.insert(0, {str(beside)!r})\n{textwrap.dedent(code)}"
    done = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


COMMANDS = """
import contextlib, io
from spikingir.cli import main

def call(*arguments):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(argument) for argument in arguments])
    return code, out.getvalue(), err.getvalue()
"""


def test_help_names_what_is_added_and_imports_nothing_of_it(beside: Path) -> None:
    code = f"""
{COMMANDS}
code, out, _ = call("--help")
import spikingir
loaded = [name for name in ("torch", "my_plugin") if name in sys.modules]
print(json.dumps([code, "upscale" in out, loaded]))
"""
    assert run(beside, code) == [0, True, []]


def test_one_of_each_is_used(beside: Path, tmp_path: Path) -> None:
    """Build by name, convert by method and neuron, keep in a file, restore, evaluate and export, by the commands."""
    photos, model = tmp_path / "photos", tmp_path / "model"
    photos.mkdir()
    model.mkdir()
    rng = np.random.default_rng(0)
    for i in range(2):
        Image.fromarray(rng.integers(0, 256, (24, 32), dtype=np.uint8)).save(photos / f"{i}.png")
    variants = {"snn.safetensors": {"schedule": "clocked", "time_steps": 10}}
    config = {"name": "model", "task": "upscale", "channels": 1, "variants": variants, "default": "snn.safetensors"}
    (model / "config.json").write_text(json.dumps(config))
    code = f"""
{COMMANDS}
from pathlib import Path
photos, model = map(Path, sys.argv[1:])
import torch
torch.manual_seed(0)
from spikingir.networks import build_network
from spikingir.store import from_pretrained, load_network, save_network
ann, snn = model / "ann.safetensors", model / "snn.safetensors"
save_network(build_network("twice", width=6), ann)
said = [call("convert", ann, "--data", photos, "--method", "hasty", "-o", snn)]
network = from_pretrained(snn)
said.append(call("evaluate", model, "--data", photos, "--json"))
said.append(call("upscale", photos / "0.png", "--model", model, "--compare"))
said.append(call("energy", model, "--image", photos / "0.png"))
said.append(call("export", model, "--to", "thing", "-o", model / "a.thing"))
said.append(call("upscale", "--help"))
kinds = [type(network.neuron(name)).__name__ for name in network.layers]
print(json.dumps([kinds, network.config.method, load_network(model / "ann.safetensors").width, said]))
"""
    kinds, method, width, said = run(beside, code, photos, model)
    assert (set(kinds), method, width) == ({"EagerNeuron"}, "hasty", 6)
    assert [code for code, _, _ in said] == [0] * 6, said
    evaluated = json.loads(said[1][1])["mean"]
    assert evaluated["psnr"] == pytest.approx(evaluated["ann_psnr"], abs=3)
    assert evaluated["degraded_psnr"] is not None
    assert read_image(photos / "0_upscaled.png").pixels.shape == (48, 64, 1)
    assert read_image(photos / "0_upscaled_compare.png").pixels.shape[0] == 48
    assert (model / "a.thing").read_text().split() == ["_1", "output"]
    assert "a thing holds names alone" in said[4][2]
    assert ": 0 of " in said[4][1]
    assert "Remove pixels' edges from photographs" in said[5][1]


BROKEN = [
    (
        ["broken", "a.png"],
        1,
        "the task 'broken' of the package my-plugin (my_plugin.broken:TASK) cannot be loaded: Mod",
    ),
    (
        ["export", "denoise-gray", "--to", "broken", "-o", "{}/a.thing"],
        1,
        "the export format 'broken' of the package my",
    ),
    (
        ["convert", "{}/a.pth", "--data", "{}", "--method", "wrong"],
        1,
        "(my_plugin.wrong:thing) is a int; expected a Met",
    ),
    (
        ["export", "denoise-gray", "--to", "none", "-o", "a.thing"],
        2,
        "npz, onnx, torch, nir, spikingjelly, broken, thing",
    ),
    (["convert", "a.pth", "--data", ".", "--method", "none"], 2, "spikingir, if, rueckauer, hasty, wrong"),
]


def test_what_is_broken_is_named_in_one_sentence(beside: Path, tmp_path: Path) -> None:
    Image.new("L", (16, 16)).save(tmp_path / "a.png")
    given = [[argument.format(tmp_path) for argument in arguments] for arguments, _, _ in BROKEN]
    program = f"""
{COMMANDS}
import torch
from spikingir.networks import DnCNN
torch.save(DnCNN(layers=3).state_dict(), sys.argv[1])
print(json.dumps([call(*arguments) for arguments in json.loads(sys.argv[2])]))
"""
    found = run(beside, program, tmp_path / "a.pth", json.dumps(given))
    for (arguments, code, words), (exit_code, out, err) in zip(BROKEN, found, strict=True):
        sentences = [line for line in err.splitlines() if line.startswith("spikingir: ")]
        assert (exit_code, out, len(sentences)) == (code, "", 1), (arguments, err)
        assert words in sentences[0]


def test_broken_ones_stop_nothing_else(beside: Path) -> None:
    code = """
    import logging
    told = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())
    logging.getLogger("spikingir").addHandler(handler)
    from torch import nn
    import torch
    from spikingir.spiking.kinds import NEURONS, kind_of
    from spikingir.spiking.neurons import IFNeuron
    from spikingir.tasks import TASKS
    before = [name for name in sys.modules if name.startswith("my_plugin")]
    found = kind_of(IFNeuron(1.0))[0]
    after = [name for name in sys.modules if name.startswith("my_plugin")]
    class Own(IFNeuron): ...
    print(json.dumps([before, found, after, kind_of(Own(1.0)), [name for name, _ in TASKS.usable()], told]))
    """
    before, found, after, own, tasks, told = run(beside, code)
    assert (before, found, after, own) == ([], "if", [], None)
    assert tasks == ["denoise", "dehaze", "upscale"]
    assert [sentence.split(" (")[0] for sentence in told] == [
        "the neuron 'broken' of the package my-plugin",
        "the package my-plugin adds the task 'denoise', which SpikingIR has already; it is left out",
        "the task 'broken' of the package my-plugin",
    ]


def test_a_registry() -> None:
    def record(name: str, made: Any, end: str = "") -> str:
        return f"{name} {made.__name__}{end}"

    registry: Registry[str] = Registry("spikingir.none", "word", str, record, {"one": "own"})

    @registry.register("two", end="!")
    def function() -> None: ...

    assert dict(registry) == dict(registry.usable()) == {"one": "own", "two": "two function!"}
    assert (len(registry), registry.added, "three" in registry) == (2, (), False)
    with pytest.raises(PluginError, match="there is a word 'two' already; choose another name"):
        registry.register("two")(function)
    with pytest.raises(TypeError, match="'three' is a int; expected a str"):
        registry["three"] = 3  # type: ignore[assignment]
    with pytest.raises(KeyError):
        registry["three"]
    del registry["two"]
    assert list(registry) == ["one"]
