"""AOD-Net: five small convolutions that estimate haze.

Li et al. 2017, "AOD-Net: All-in-One Dehazing Network". The body gives ``K``, transmission and atmospheric
light in one map; ``J = relu(K * I - K + 1)``.
"""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from spikingir.networks.base import Recognised, RestorationNetwork, reset_convolutions

# Our own names, the two PyTorch ports' and the authors' (Caffe).
_PREFIXES = ("body.conv", "e_conv", "conv")


class AODNetBody(nn.Module):
    """``K``-estimation of AOD-Net: five convolutions of three features each, joined by concatenations.

    ``x1 = conv1(y)``, ``x2 = conv2(x1)``, ``x3 = conv3([x1, x2])``, ``x4 = conv4([x2, x3])``,
    ``K = conv5([x1, x2, x3, x4])``, with a ReLU after each, the last included.

    Shape:
        ``(B, 3, H, W)`` to the same.

    Source:
        Li et al. 2017, ICCV, Section 3.2 and Figure 2.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 3, 1)
        self.conv2 = nn.Conv2d(3, 3, 3, padding=1)
        self.conv3 = nn.Conv2d(6, 3, 5, padding=2)
        self.conv4 = nn.Conv2d(6, 3, 7, padding=3)
        self.conv5 = nn.Conv2d(12, 3, 3, padding=1)
        # One ReLU each, because each becomes a layer of neurons with a state of its own.
        self.relu1, self.relu2, self.relu3, self.relu4, self.relu5 = (nn.ReLU() for _ in range(5))

    def forward(self, image: Tensor) -> Tensor:
        """The map ``K``."""
        x1 = self.relu1(self.conv1(image))
        x2 = self.relu2(self.conv2(x1))
        x3 = self.relu3(self.conv3(torch.cat([x1, x2], dim=1)))
        x4 = self.relu4(self.conv4(torch.cat([x2, x3], dim=1)))
        k: Tensor = self.relu5(self.conv5(torch.cat([x1, x2, x3, x4], dim=1)))
        return k


class AODNet(RestorationNetwork):
    """All-in-one dehazing network.

    ``J = relu(K * I - K + 1)`` with ``K = body(I)``, which is the haze model ``I = J t + A (1 - t)``
    solved for the clean image ``J`` (the paper's constant bias ``b`` is 1).

    Shape:
        ``(B, 3, H, W)``, RGB in [0, 1], to the same; the result is not clipped at 1.

    Source:
        Li et al. 2017, ICCV, Eq. 4 and 5. 1,761 parameters, of which 1,746 are weights.
    """

    def __init__(self) -> None:
        super().__init__(AODNetBody(), "atmospheric", channels=3)

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw the weights anew (He et al. 2015, fan-in); biases are zero but the last, which is one.

        So ``K`` starts around 1, where the network returns the hazy image. With a last bias of zero a whole
        channel of ``K`` often starts below zero, behind the last ReLU, and never learns.
        """
        reset_convolutions(self.body, generator)
        nn.init.ones_(self.get_parameter("body.conv5.bias"))


def recognise_aodnet(tensors: Mapping[str, Tensor]) -> Recognised | None:
    """Read an AOD-Net out of named tensors, or None where the names are not an AOD-Net's.

    Known conventions: our own (``body.conv1``), ``e_conv1`` (PyTorch ports), ``conv1`` (the authors' Caffe
    model). Shapes are left to the caller, who compares them with the network's.

    Args:
        tensors: Tensors by name, without wrappers' prefixes.
    """
    ends = [f"{i}.{kind}" for i in range(1, 6) for kind in ("weight", "bias")]
    for prefix in _PREFIXES:
        names = {f"body.conv{end}": prefix + end for end in ends}
        if set(names.values()) == set(tensors):
            return Recognised({}, {own: tensors[name] for own, name in names.items()}, names)
    return None
