"""Muon: the library's, for kernels."""

import pytest
import torch
from torch import nn

from spikingir.training.muon import Muon, orthogonalise, takes_muon


@pytest.mark.parametrize("shape", [(8, 72), (24, 8), (16, 16)])
def test_orthogonalised_matrix_has_singular_values_near_one(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    values = torch.linalg.svdvals(orthogonalise(matrix))
    assert values.min() > 0.5
    assert values.max() < 1.3
    u, _, vh = torch.linalg.svd(matrix, full_matrices=False)
    # the singular vectors stay: in their basis the result is diagonal
    middle = u.T @ orthogonalise(matrix) @ vh.T
    assert torch.allclose(middle, torch.diag(middle.diagonal()), atol=1e-4)


def test_a_silent_gradient_moves_nothing() -> None:
    weight = nn.Parameter(torch.ones(8, 8, 3, 3))
    weight.grad = torch.zeros_like(weight)
    Muon([weight], lr=0.1).step()
    assert torch.equal(weight, torch.ones_like(weight))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_steps_are_those_of_torch(layout: torch.memory_format) -> None:
    generator = torch.Generator().manual_seed(1)
    start, gradients = torch.randn(16, 8, 3, 3, generator=generator), torch.randn(4, 16, 8, 3, 3, generator=generator)
    ours = nn.Parameter(start.clone().contiguous(memory_format=layout))
    theirs = nn.Parameter(start.flatten(1).clone())
    one = Muon([ours], lr=0.02)
    other = torch.optim.Muon([theirs], lr=0.02, weight_decay=0.0)
    for gradient in gradients:
        ours.grad, theirs.grad = gradient.contiguous(memory_format=layout), gradient.flatten(1).clone()
        one.step()
        other.step()
    moved = (theirs - start.flatten(1)).norm()
    assert (ours.flatten(1) - theirs).norm() < 0.02 * moved  # theirs are computed in bfloat16


def test_hidden_kernels_alone_take_it() -> None:
    assert takes_muon(torch.zeros(64, 64, 3, 3))
    assert not takes_muon(torch.zeros(64, 1, 3, 3))
    assert not takes_muon(torch.zeros(1, 64, 3, 3))
    assert not takes_muon(torch.zeros(64, 64))


def test_kernels_of_one_shape_step_as_each_alone() -> None:
    torch.manual_seed(2)
    start, gradients = torch.randn(3, 8, 8, 3, 3), torch.randn(3, 8, 8, 3, 3)
    together = [nn.Parameter(kernel.clone()) for kernel in start]
    alone = [nn.Parameter(kernel.clone()) for kernel in start]
    optimizers = [Muon(together, lr=0.02), *(Muon([kernel], lr=0.02) for kernel in alone)]
    for _ in range(3):
        for kernel, other, gradient in zip(together, alone, gradients, strict=True):
            kernel.grad = other.grad = gradient
        for optimizer in optimizers:
            optimizer.step()
    for kernel, other in zip(together, alone, strict=True):
        torch.testing.assert_close(kernel, other)
