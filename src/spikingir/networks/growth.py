"""A multi-scale network of another form that computes what it did before, or nearly: training goes on from there.

What a longer training of the same network no longer gains, a deeper one may; and what is learnt is not learnt again.

Source:
    Chen et al. 2016, "Net2Net: Accelerating Learning via Knowledge Transfer" (deeper networks by identity layers).
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from spikingir.conversion.qcfs import QCFS
from spikingir.errors import InputError
from spikingir.networks.multiscale import MultiScaleNet

_NORM = 4.0
"""Of every kernel before a batch norm: root mean square of its singular values."""

_CLIP = 3.0  # first clip level behind a new batch norm, in standard deviations


@torch.no_grad()
def grown(
    network: MultiScaleNet, blocks: Sequence[int], images: Tensor, generator: torch.Generator | None = None
) -> MultiScaleNet:
    """The network with more blocks at the end of its chains; it restores as ``network`` does.

    A new block with a residual adds nothing at first: its last batch norm has the scale 0. One of the top scale has
    none, and passes on what it reads: its kernels are Dirac's, its batch norms give back mean and variance, its own
    current of the image is 0. All kernels before a batch norm get one norm, which changes no output: Muon's steps have
    a fixed length, so kernels of one norm learn at one rate, and those that a long training made large learn again.

    Args:
        network: A network with batch norm; it stays as it is.
        blocks: Blocks at each scale, top first, none less than the network has.
        images: Degraded images, with the level where the network reads one, that mean and variance are taken from.
        generator: Source of the new kernels.

    Shape:
        ``images``: (B, C, H, W).

    Raises:
        ValueError: The network has no batch norm, or ``blocks`` has other scales or fewer blocks.
    """
    blocks = tuple(blocks)
    if not network.batch_norm:
        raise InputError("the network has no batch norm; its new blocks would not learn")
    if len(blocks) != len(network.blocks) or any(new < old for new, old in zip(blocks, network.blocks, strict=True)):
        raise InputError(f"blocks is {blocks}; expected {len(network.blocks)} numbers, at least {network.blocks}")
    larger = MultiScaleNet(**{**network.options, "blocks": blocks})  # type: ignore[arg-type]
    larger.reset_parameters(generator)
    larger.load_state_dict({**larger.state_dict(), **network.state_dict()})
    _rescale(larger)
    last = len(blocks) - 1
    chains = [(f"{part}.{i}", i) for i in range(last) for part in ("encoder", "decoder")]
    for place, scale in [*chains, ("middle", last)]:
        added = range(network.blocks[scale], blocks[scale])
        if not added:
            continue
        read = network.body.get_submodule(_last_of(place, scale, network.blocks[scale]))
        residual = network.top_residual or scale > 0
        statistics = None if residual else _statistics(network, read, images)
        for number in added:
            block = dict(larger.body.get_submodule(f"{place}.{number}").named_children())
            if "inject" in block:
                nn.init.zeros_(_parts(block["inject"])[1].weight)
            if statistics is None:
                nn.init.zeros_(_parts(block["conv2"])[1].weight)
            else:
                _pass_on(*_parts(block["conv1"]), *statistics)
                _pass_on(*_parts(block["conv2"]), *statistics)
            if isinstance(read, QCFS):
                inner, outer = cast(QCFS, block["relu1"]), cast(QCFS, block["relu2"])
                inner.log_clip_level.copy_(torch.tensor(math.log(_CLIP)) if residual else read.log_clip_level)
                outer.log_clip_level.copy_(read.log_clip_level)
    return larger.train(network.training)


@torch.no_grad()
def pointwise_inject(network: MultiScaleNet, images: Tensor) -> MultiScaleNet:
    """The network whose blocks read the image by kernels of 1x1, a ninth of the multiplications.

    Each kernel ``w`` is the one that comes nearest to the 3x3 kernel ``W`` before it, up to a constant::

        min over w, c of E[(W * u - w u - c)^2]

    with the image ``u`` as blocks read it. Batch norms take mean and variance of the new sums. So the network restores
    less well until it is trained on. All kernels before a batch norm get one norm, as in :func:`grown`.

    Args:
        network: A network with batch norm whose blocks read the image by 3x3; it stays as it is.
        images: Degraded images, with the level where the network reads one, that the means are taken over.

    Shape:
        ``images``: (B, C, H, W).

    Raises:
        ValueError: The network has no batch norm, or its kernels are 1x1 already.
    """
    if not network.batch_norm:
        raise InputError("the network has no batch norm; what it reads of the image cannot be learnt anew")
    if network.inject_kernel != 3:
        raise InputError(f"inject_kernel is {network.inject_kernel}; expected 3")
    changed = MultiScaleNet(**{**network.options, "inject_kernel": 1})  # type: ignore[arg-type]
    state = network.state_dict()
    u, _ = _run(network, network.body.get_submodule("head"), images)  # as every block reads it
    read = _by_channel(u)
    centred = read - read.mean(1, keepdim=True)
    for name, part in network.named_modules():
        if not name.endswith(".inject"):
            continue
        conv, norm = _parts(part)
        given = _by_channel(conv(u))
        offset = given.mean(1, keepdim=True)
        kernel = torch.linalg.lstsq(centred.T, (given - offset).T, driver="gelsd").solution.T
        sums = kernel @ read
        kept_mean, kept_var = _kept(norm)
        variance = sums.var(1).float()
        state[f"{name}.conv.weight"] = kernel.float()[..., None, None]
        state[f"{name}.norm.running_mean"] = kept_mean + (sums.mean(1) - offset[:, 0]).float()
        state[f"{name}.norm.running_var"] = variance
        state[f"{name}.norm.weight"] = norm.weight * ((variance + norm.eps) / (kept_var + norm.eps)).sqrt()
    changed.load_state_dict(state)
    _rescale(changed)
    return changed.train(network.training)


def _parts(convolution: nn.Module) -> tuple[nn.Conv2d, nn.BatchNorm2d]:
    """A convolution and the batch norm behind it."""
    conv, norm = convolution.children()
    return cast(nn.Conv2d, conv), cast(nn.BatchNorm2d, norm)


def _by_channel(values: Tensor) -> Tensor:
    """Values of each channel in a row, in float64."""
    return values.transpose(0, 1).flatten(1).double()


def _last_of(place: str, scale: int, blocks: int) -> str:
    """Name of the activation that a chain of so many blocks gives, or that it reads where it has none."""
    if blocks:
        return f"{place}.{blocks - 1}.relu2"
    if place.startswith("decoder"):
        return f"up.{scale}.relu"
    return f"down.{scale - 1}.relu" if scale else "relu"


def _rescale(network: MultiScaleNet) -> None:
    """Bring every kernel to the common norm, and what the batch norm keeps of its output with it."""
    for module in network.modules():
        if not isinstance(module, nn.Sequential):
            continue
        conv, norm = _parts(module)
        kernel = conv.weight.flatten(1)
        factor = _NORM * min(kernel.shape) ** 0.5 / kernel.norm().clamp_min(1e-12)
        conv.weight.mul_(factor)
        running_mean, running_var = _kept(norm)
        running_mean.mul_(factor)
        running_var.mul_(factor**2)


def _statistics(network: MultiScaleNet, activation: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel of an activation."""
    _, found = _run(network, activation, images)
    return found.mean((0, 2, 3)), found.var((0, 2, 3))


def _run(network: MultiScaleNet, module: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """What a part of the network reads and gives while it restores images."""
    found: list[tuple[Tensor, Tensor]] = []
    hook = module.register_forward_hook(lambda module, inputs, output: found.append((inputs[0], output)))
    was = network.training
    network.eval()(images)
    network.train(was)
    hook.remove()
    return found[0]


def _pass_on(conv: nn.Conv2d, norm: nn.BatchNorm2d, mean: Tensor, variance: Tensor) -> None:
    """Make a convolution with batch norm the identity on what has this mean and variance."""
    nn.init.dirac_(conv.weight)
    conv.weight.mul_(_NORM)
    running_mean, running_var = _kept(norm)
    running_mean.copy_(_NORM * mean)
    running_var.copy_(_NORM**2 * variance)
    norm.weight.copy_((running_var + norm.eps).sqrt() / _NORM)
    norm.bias.copy_(mean)


def _kept(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Mean and variance that a batch norm keeps."""
    return cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
