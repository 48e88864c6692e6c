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
        ``(M, N)`` to the same.

    Source:
        Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks".
    """
    wide = matrix.shape[0] <= matrix.shape[1]
    x: Tensor = matrix if wide else matrix.T
    x = (x / x.norm().clamp_min(_EPS)).to(dtype)
    for _ in range(_STEPS):
        gram = x @ x.T
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return (x if wide else x.T).to(matrix.dtype)


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
            momentum = group["momentum"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                mean: Tensor = state["momentum"].lerp_(weight.grad, 1 - momentum)
                direction = weight.grad.lerp(mean, momentum).flatten(1)
                out, fan_in = direction.shape
                step = orthogonalise(direction, self._dtype).reshape(weight.shape)
                weight.sub_(step, alpha=group["lr"] * max(1.0, out / fan_in) ** 0.5)
        return loss
