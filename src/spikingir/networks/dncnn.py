"""DnCNN: a plain stack of convolutions that estimates the noise.

Zhang et al. 2017, "Beyond a Gaussian Denoiser": 17 layers for a known noise level, 20 for a blind one;
``clean = noisy - body(noisy)``.
"""

import re
from collections import OrderedDict
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spikingir.errors import InputError
from spikingir.networks.base import Recognised, RestorationNetwork, reset_convolutions
from spikingir.schema import SchemaError

_OWN_NAME = re.compile(r"(?:body\.)?(conv|norm)(\d{1,4})\.(\w+)")
_NUMBERED_NAME = re.compile(r"(model|dncnn)\.(\d{1,4})\.(\w+)")
_EPS = 1e-5  # torch's default, which our batch norm has
_IRCNN_LAYERS = 7


class DnCNN(RestorationNetwork):
    """Denoising convolutional network.

    Conv + ReLU, then ``layers - 2`` times Conv (+ BN) + ReLU, then Conv; all 3x3, ``width`` features.

    Args:
        channels: 1 for gray, 3 for colour.
        layers: Number of convolutions; 17 for a fixed noise level, 20 for a blind one.
        width: Features of the hidden layers.
        batch_norm: Whether the hidden convolutions have batch norm, as in training; published weights
            come with it and without it (merged).

    Shape:
        ``(B, channels, H, W)``, values in [0, 1], to the same.

    Raises:
        ValueError: Fewer than 3 layers, or no channels or features.

    Source:
        Zhang et al. 2017, IEEE TIP 26(7). 554,112 weights at the defaults.
    """

    def __init__(self, channels: int = 1, layers: int = 17, width: int = 64, batch_norm: bool = False) -> None:
        for name, value, least in (("channels", channels, 1), ("layers", layers, 3), ("width", width, 1)):
            if value < least:
                raise InputError(f"{name} is {value}; DnCNN has at least {least}")
        modules: OrderedDict[str, nn.Module] = OrderedDict()
        for i in range(layers):
            normed = batch_norm and 0 < i < layers - 1
            before, after = (channels if i == 0 else width), (channels if i == layers - 1 else width)
            modules[f"conv{i}"] = nn.Conv2d(before, after, 3, padding=1, bias=not normed)
            if normed:
                modules[f"norm{i}"] = nn.BatchNorm2d(after, eps=_EPS)
            if i < layers - 1:
                modules[f"relu{i}"] = nn.ReLU()
        super().__init__(nn.Sequential(modules), "residual", channels)
        self.layers, self.width, self.batch_norm = layers, width, batch_norm

    @property
    def options(self) -> dict[str, int]:
        """Arguments that build this network anew."""
        return {
            "channels": self.channels,
            "layers": self.layers,
            "width": self.width,
            "batch_norm": self.batch_norm,
        }

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew (He et al. 2015, fan-in); those of the last convolution are zero.

        So the network starts as the identity, and training need not first undo noise of its own.
        """
        reset_convolutions(self.body, generator)
        nn.init.zeros_(self.get_parameter(f"body.conv{self.layers - 1}.weight"))

    def noise(self, image: Tensor) -> Tensor:
        """The body's estimate of the noise in ``image``."""
        estimate: Tensor = self.body(image)
        return estimate


def recognise_dncnn(tensors: Mapping[str, Tensor]) -> Recognised | None:
    """Read a DnCNN out of named tensors, or None where the names are not a DnCNN's.

    Known conventions: our own (``body.conv0.weight``, with or without ``body.``), KAIR's ``model.N``,
    SaoYan's and cszn's ``dncnn.N``, each with batch norm or merged. Shapes beyond those that give channels
    and width are left to the caller, who compares them with the network's.

    Two things that the files do not say are settled here. *Biases*: a convolution before batch norm has none
    in our network, so KAIR's is moved into the running mean, ``mean' = mean - bias``; ``dncnn.N`` files leave
    out biases that are zero. *eps of batch norm*: 1e-4 in KAIR and cszn, 1e-5 in SaoYan; the difference is
    moved into the running variance, ``var' = var + eps - 1e-5``, which gives the same function.

    Args:
        tensors: Tensors by name, without wrappers' prefixes.

    Raises:
        SchemaError: The names fit DnCNN and another network alike (KAIR's IRCNN).

    Source:
        cszn/KAIR ``models/network_dncnn.py`` and ``basicblock.py``; SaoYan/DnCNN-PyTorch ``models.py``;
        cszn/DnCNN ``TrainingCodes/dncnn_pytorch/main_train.py``.
    """
    names = _own_names(tensors)
    if names is None or len(names) < len(tensors):  # two names of the file may mean the same
        return None
    state = {own: tensors[name] for own, name in names.items()}
    first = state.get("body.conv0.weight")
    if first is None or first.dim() != 4 or first.numel() == 0:
        return None
    layers = sum(own.startswith("body.conv") and own.endswith(".weight") for own in state)
    batch_norm = any(own.startswith("body.norm") for own in state)
    if layers < 3:
        return None
    family = next(iter(tensors)).partition(".")[0]
    if family == "model" and layers == _IRCNN_LAYERS and not batch_norm:
        raise SchemaError(
            "7 convolutions named model.0 to model.12 are IRCNN's, whose dilations a file does not show; "
            "expected DnCNN; if it is one, rename them to body.conv0 to body.conv6"
        )
    if family == "dncnn":
        # SaoYan's first convolution has no bias, cszn's has: nothing else tells their files apart.
        eps = 1e-4 if "body.conv0.bias" in state else 1e-5
        _complete(state, layers, batch_norm, eps, zero_biases=True)
    else:
        _complete(state, layers, batch_norm, 1e-4 if family == "model" else _EPS, zero_biases=False)
    options = {
        "channels": first.shape[1],
        "layers": layers,
        "width": first.shape[0],
        "batch_norm": batch_norm,
    }
    return Recognised(options, state, names)


def _own_names(tensors: Mapping[str, Tensor]) -> dict[str, str] | None:
    """The file's name of each of our names, or None where one does not fit."""
    own = {name: _OWN_NAME.fullmatch(name) for name in tensors}
    if all(own.values()):
        return {f"body.{match[1]}{match[2]}.{match[3]}": name for name, match in own.items() if match}
    numbered = {name: match for name in tensors if (match := _NUMBERED_NAME.fullmatch(name))}
    if len(numbered) < len(tensors) or len({match[1] for match in numbered.values()}) != 1:
        return None
    # N counts the modules of a Sequential, ReLUs included: conv, relu, (conv, [norm,] relu)..., conv.
    batch_norm = any(match[3] == "running_mean" for match in numbered.values())
    last = max(int(match[2]) for match in numbered.values())
    stride = 3 if batch_norm else 2
    places = {0: "conv0"}
    for i in range(1, last // stride + 2):
        places[stride * i - batch_norm] = f"conv{i}"
        if batch_norm and stride * i < last:
            places[stride * i] = f"norm{i}"
    if any(int(match[2]) not in places for match in numbered.values()):
        return None
    return {f"body.{places[int(match[2])]}.{match[3]}": name for name, match in numbered.items()}


def _complete(state: dict[str, Tensor], layers: int, batch_norm: bool, eps: float, zero_biases: bool) -> None:
    """Bring biases and batch norm of ``state`` to our network's convention, in place."""
    for i in range(layers):
        conv, norm = f"body.conv{i}", f"body.norm{i}"
        if batch_norm and 0 < i < layers - 1:
            bias, mean, variance = (
                state.get(key) for key in (f"{conv}.bias", f"{norm}.running_mean", f"{norm}.running_var")
            )
            if bias is not None and mean is not None and bias.shape == mean.shape:
                state[f"{norm}.running_mean"] = mean - bias
                del state[f"{conv}.bias"]
            if variance is not None:
                state[f"{norm}.running_var"] = variance + (eps - _EPS)
            state.setdefault(f"{norm}.num_batches_tracked", torch.tensor(0))
        elif zero_biases and f"{conv}.weight" in state:
            state.setdefault(f"{conv}.bias", torch.zeros(len(state[f"{conv}.weight"])))
