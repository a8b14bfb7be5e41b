"""Muon: an optimiser whose steps move matrices in all directions alike."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW

# each polynomial a x + b x³ + c x⁵ is the one that brings what those before it made of [0.02, 1] nearest to 1
POLYNOMIALS = (7.7110, -22.1138, 16.2487), (3.2153, -2.4112, 0.5013), (2.2183, -1.5940, 0.4107)
TALL = 8  # rows of a matrix over its columns, at most


class Muon(AdamW):
    """Momentum, orthogonalised, for matrices and kernels; AdamW for the rest.

    The step of a matrix is its averaged gradient with all singular values brought near 1 (Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon; here by :func:`orthogonal`), times 0.2 and the root of the longer side,
    which is about as large as a step of AdamW (Liu et al. 2025, arXiv:2502.16982). A kernel is a matrix of its output
    channels. To the rest belong kernels of one input channel, and matrices with many more rows than columns: outputs
    of thousands of classes.
    :class:`torch.optim.Muon` takes neither kernels nor the rest.

    Args:
        params: Parameters, or groups of them.
        momentum: Of matrices, with a look ahead (Nesterov).
        **adamw: Of :class:`torch.optim.AdamW`; the learning rate and the weight decay are those of matrices as well.

    Raises:
        ValueError: If a setting is out of range.
    """

    def __init__(self, params: Any, momentum: float = 0.95, **adamw: Any) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum={momentum}: a share of at least 0 and below 1 is needed")
        super().__init__(params, **adamw)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of the parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grads: dict[Tensor, Tensor] = {}
        for group in self.param_groups:
            own = {p: p.grad for p in group["params"] if p.grad is not None and _is_matrix(p)}
            self._move(own, group["lr"], group["weight_decay"])
            grads |= own
        for p in grads:  # AdamW passes over what has no gradient
            p.grad = None
        super().step()
        for p, grad in grads.items():
            p.grad = grad
        return loss

    def _move(self, grads: dict[Tensor, Tensor], lr: float, weight_decay: float) -> None:
        alike: dict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)  # those of one shape are one batch
        for p, grad in grads.items():
            state = self.state[p]
            if not state:
                state.update(step=torch.zeros(()), average=torch.zeros_like(p))  # AdamW looks for a step
            state["average"].lerp_(grad, 1 - self.momentum)
            ahead = grad.lerp(state["average"], self.momentum).flatten(1)
            alike[ahead.shape].append((p, ahead))
        for shape, members in alike.items():
            size = 0.2 * max(shape) ** 0.5
            steps = orthogonal(torch.stack([ahead for _, ahead in members]))
            for (p, _), step in zip(members, steps, strict=True):
                p.mul_(1 - lr * weight_decay).sub_(step.reshape(p.shape), alpha=lr * size)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices (N, R, C) with the singular vectors of those given, and singular values between about 0.9 and 1.1.

    Three polynomials of odd powers in bfloat16, one after the other, each the best after those before it (Polar
    Express, Amsel et al. 2025, arXiv:2505.16932). Before them a matrix is divided by the fourth root of the sum of the
    fourth powers of its singular values, which the first of them has at hand: values below a fiftieth of that end
    smaller. A matrix of zeros stays one.
    """
    tall = matrices.shape[1] > matrices.shape[2]
    x = matrices.mT if tall else matrices
    x = (x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    squares = x @ x.mT
    size = 1.02 * squares.norm(dim=(1, 2), keepdim=True).sqrt() + 1e-7  # bfloat16 rounds: none may come out above 1
    x, squares = x / size, squares / size.square()
    for i, (a, b, c) in enumerate(POLYNOMIALS):
        if i:
            squares = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(squares, squares, squares, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def _is_matrix(p: Tensor) -> bool:
    kernel_of_one = p.ndim > 2 and p.shape[1] == 1
    return p.ndim > 1 and not kernel_of_one and p.shape[0] <= TALL * p[0].numel()
