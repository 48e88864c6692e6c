"""Muon: momentum whose matrix is made orthogonal, for the kernels between hidden features.

Adam's steps on a kernel are dominated by a few directions; Muon gives all of them the same length, and a DnCNN is
trained in a small part of the steps. torch.optim.Muon is the same for matrices, and refuses kernels of convolutions.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

_A, _B, _C = 3.4445, -4.7750, 2.0315
_STEPS, _EPS = 5, 1e-7
_LEAST = 8


def takes_muon(parameter: Tensor) -> bool:
    """Whether a parameter is a kernel between hidden features, which have at least 8 channels on both sides.

    The first and the last layer of a restoration network have the image's few channels on one side; they, biases,
    norms and thresholds are left to Adam.
    """
    return parameter.dim() == 4 and min(parameter.shape[:2]) >= _LEAST


def orthogonalise(matrix: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """``U S' V^T`` for ``matrix = U S V^T``, with all of ``S'`` around 1: five Newton-Schulz steps of degree 5.

    Args:
        matrix: The matrix.
        dtype: What the steps are computed in; they forgive the rounding of bfloat16, as published.

    Shape:
        ``(..., M, N)`` to the same.

    Source:
        Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    wide = matrix.shape[-2] <= matrix.shape[-1]
    x: Tensor = matrix if wide else matrix.mT
    x = (x / x.norm(dim=(-2, -1), keepdim=True).clamp_min(_EPS)).to(dtype)
    for _ in range(_STEPS):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return (x if wide else x.mT).to(matrix.dtype)


class Muon(torch.optim.Optimizer):
    """Muon on convolution kernels, read as matrices (out, in x height x width).

    ``m <- mu m + (1 - mu) g``; ``w <- w - lr sqrt(max(1, M / N)) orthogonalise(mu m + (1 - mu) g)``

    Args:
        parameters: Kernels, or groups of them.
        lr: Learning rate, the spectral norm of a step.
        momentum: ``mu``.
        dtype: What matrices are made orthogonal in, see :func:`orthogonalise`.

    Source:
        Jordan et al. 2024; :class:`torch.optim.Muon` without weight decay gives the same on matrices.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": momentum})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step, from the gradients that are there."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            kernels: dict[torch.Size, list[Tensor]] = {}
            for weight in group["params"]:
                if weight.grad is not None:
                    kernels.setdefault(weight.shape, []).append(weight)
            for weights in kernels.values():  # of one shape together: a GPU waits for calls, not for numbers
                self._step(weights, group["lr"], group["momentum"])
        return loss

    def _step(self, weights: list[Tensor], lr: float, momentum: float) -> None:
        """One step of kernels of one shape."""
        for weight in weights:
            if not self.state[weight]:
                self.state[weight]["momentum"] = torch.zeros_like(weight)
        means = [self.state[weight]["momentum"] for weight in weights]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        torch._foreach_lerp_(means, gradients, 1 - momentum)
        directions = torch._foreach_lerp(gradients, means, momentum)
        matrices = torch.stack([direction.flatten(1) for direction in directions])
        out, fan_in = matrices.shape[1:]
        steps = orthogonalise(matrices, self._dtype).reshape(len(weights), *weights[0].shape)
        torch._foreach_add_(weights, list(steps.unbind()), alpha=-lr * max(1.0, out / fan_in) ** 0.5)
