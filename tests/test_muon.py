"""Muon against torch's own optimisers, and against singular vectors."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import nn

from hwr.systems.muon import Muon, orthogonal

SETTINGS = {"lr": 0.02, "weight_decay": 0.3}


def learnt(params: list[nn.Parameter], optimizer: torch.optim.Optimizer, steps: range = range(5)) -> list[torch.Tensor]:
    for step in steps:
        draw = torch.Generator().manual_seed(step)
        for p in params:
            p.grad = torch.randn(p.shape, generator=draw).reshape(p.shape)
        optimizer.step()
    return [p.detach().clone() for p in params]


def drawn(*shapes: tuple[int, ...]) -> list[nn.Parameter]:
    draw = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=draw)) for shape in shapes]


@pytest.mark.parametrize("shape", [(64, 20), (20, 64), (20, 20)])
@pytest.mark.parametrize("others", [[], [2, 3]])  # a batch of two matrices, alone and beside other shapes
def test_matrices_move_as_with_torchs_muon(shape: tuple[int, int], others: list[int]) -> None:
    shapes = [shape, shape, *[(n, 7) for n in others]]
    ours, theirs = drawn(*shapes), drawn(*shapes)
    start = learnt(ours, Muon(ours, **SETTINGS), range(0))
    exactly = {"ns_coefficients": (1.875, -1.25, 0.375), "ns_steps": 40}  # all singular values become 1
    reference = torch.optim.Muon(theirs, **SETTINGS, momentum=0.95, adjust_lr_fn="match_rms_adamw", **exactly)
    made, wanted = learnt(ours, Muon(ours, **SETTINGS)), learnt(theirs, reference)
    for before, own, other in zip(start, made, wanted, strict=True):
        moved, expected = own - before, other - before
        assert (moved - expected).norm() < 0.1 * expected.norm()  # ours become 0.9 to 1.1


def test_a_kernel_moves_as_the_matrix_of_its_output_channels() -> None:
    (kernel,), (matrix,) = drawn((8, 4, 3, 3)), drawn((8, 36))
    kernel.data = kernel.data.to(memory_format=torch.channels_last)
    for p in (kernel, matrix):
        learnt([p], Muon([p], **SETTINGS))
    assert torch.equal(kernel.flatten(1), matrix)


def test_the_rest_moves_as_with_adamw() -> None:
    shapes = [(9,), (6, 1, 5, 5), (90, 10), ()]
    ours, theirs = drawn(*shapes), drawn(*shapes)
    moved = learnt(ours, Muon(ours, **SETTINGS, betas=(0.8, 0.9)))
    expected = learnt(theirs, torch.optim.AdamW(theirs, **SETTINGS, betas=(0.8, 0.9)))
    torch.testing.assert_close(moved, expected)


@pytest.mark.parametrize("shape", [(40, 160), (160, 40), (1, 30)])
def test_singular_values_come_near_one_and_singular_vectors_stay(shape: tuple[int, int]) -> None:
    sizes = torch.tensor([1e-6, 1.0, 1e6])[:, None, None]
    given = sizes * torch.randn(3, *shape, generator=torch.Generator().manual_seed(1))
    left, _, right = torch.linalg.svd(given.double(), full_matrices=False)
    between = left.mT @ orthogonal(given).double() @ right.mT
    values = between.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.89
    assert values.max() < 1.13
    assert (between - torch.diag_embed(values)).abs().max() < 0.03
    assert not orthogonal(torch.zeros(1, 3, 5)).any()


def test_matrices_of_nearly_one_direction_are_not_blown_up() -> None:
    draw = torch.Generator().manual_seed(2)
    left, right = (torch.linalg.qr(torch.randn(2, size, 40, generator=draw)).Q for size in (40, 90))
    given = torch.stack([torch.logspace(0, -8, 40), torch.eye(40)[0]])  # falling, and all but one zero
    values = torch.linalg.svdvals(orthogonal(left * given[:, None] @ right.mT).double())
    assert values.max() < 1.13
    assert values[0, 7] > 0.89  # a 27th of the first
    assert values[1, 0] > 0.89
    assert values[1, 1] < 0.1


def test_what_has_no_gradient_stays_to_the_bit() -> None:
    params = drawn((8, 8), (8,), (4, 4), (4,))
    start, optimizer = deepcopy(params[:2]), Muon(params, **SETTINGS)
    learnt(params[2:], optimizer)
    assert all(torch.equal(a, b) for a, b in zip(start, params[:2], strict=True))


def test_a_resumed_optimiser_goes_on_as_it_would_have() -> None:
    shapes = [(8, 12), (8, 2, 3, 3), (8,)]
    unbroken, broken = drawn(*shapes), drawn(*shapes)
    want = learnt(unbroken, Muon(unbroken, **SETTINGS), range(6))
    first = Muon(broken, **SETTINGS)
    learnt(broken, first, range(3))
    second = Muon(broken, **SETTINGS)
    second.load_state_dict(deepcopy(first.state_dict()))
    assert all(torch.equal(a, b) for a, b in zip(want, learnt(broken, second, range(3, 6)), strict=True))


@pytest.mark.parametrize("wrong", [{"momentum": 1.0}, {"momentum": -0.1}, {"lr": -1.0}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"momentum|learning rate"):
        Muon(drawn((2, 2)), **wrong)
