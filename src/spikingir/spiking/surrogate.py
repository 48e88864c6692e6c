"""Surrogate derivatives of the spike: ``ds/du`` at ``u = v/theta - 1``, at the extended step ``v/theta - alpha``."""

from collections.abc import Callable
from types import MappingProxyType
from typing import Literal

import torch
from torch import Tensor

Surrogate = Literal["triangle", "rectangle", "arctan"]


def triangle(u: Tensor) -> Tensor:
    """``max(0, 1 - |u|)`` (Bellec et al. 2018)."""
    return (1 - u.abs()).clamp_min(0)


def rectangle(u: Tensor) -> Tensor:
    """1 where ``|u| < 1/2``, else 0 (Wu et al. 2018)."""
    return (u.abs() < 0.5).to(u.dtype)


def arctan(u: Tensor) -> Tensor:
    """``1 / (1 + (pi u)^2)`` (Fang et al. 2021, with its width 2)."""
    return 1 / (1 + (torch.pi * u) ** 2)


SURROGATES: MappingProxyType[str, Callable[[Tensor], Tensor]] = MappingProxyType(
    {"triangle": triangle, "rectangle": rectangle, "arctan": arctan}
)
