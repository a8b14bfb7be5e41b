"""A bidirectional LSTM that does not see padding."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from hwr.networks.dropout import Dropout

T = TypeVar("T")


class BiLSTM(nn.Module):
    """Layers of bidirectional LSTM over sequences of different lengths (Graves and Schmidhuber 2005).

    The backward direction reads each sequence from its true end: it is a forward LSTM over the frames in reverse order.
    The result is that of a packed ``nn.LSTM``, but every step takes the whole batch, which is several times faster on a
    CPU, and it can be exported to ONNX. On a CPU the two directions of a layer are computed at the same time: one LSTM
    alone is hardly faster in two threads than in one.

    Args:
        features: F, of the input.
        hidden: Units in each direction.
        layers: Number of layers.
        dropout: Between the layers.
    """

    def __init__(self, features: int, hidden: int, layers: int = 1, dropout: float = 0.0) -> None:
        super().__init__()
        inputs = [features, *[2 * hidden] * (layers - 1)]
        self.forwards = nn.ModuleList(nn.LSTM(n, hidden, batch_first=True) for n in inputs)
        self.backwards = nn.ModuleList(nn.LSTM(n, hidden, batch_first=True) for n in inputs)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(B, T, F) and true lengths (B,) -> (B, T, 2 x hidden); what comes beyond a true length means nothing."""
        frames = torch.arange(x.shape[1], device=x.device)
        order = torch.where(frames < lengths[:, None], lengths[:, None] - 1 - frames, frames)  # (B, T), its own inverse
        order = order + len(frames) * torch.arange(len(x), device=x.device)[:, None]  # among the frames of all lines
        for i, (ahead, back) in enumerate(zip(self.forwards, self.backwards, strict=True)):
            x = self.dropout(x) if i else x
            there, returning = _both(ahead, back, x, _reordered(x, order))
            x = torch.cat([there, _reordered(returning, order)], 2)
        return x


def _reordered(x: Tensor, order: Tensor) -> Tensor:
    return x.flatten(0, 1).index_select(0, order.flatten()).view(x.shape)


def _both(ahead: nn.Module, back: nn.Module, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """What the first makes of x (B, T, F), and the second of y."""
    exported = torch.compiler.is_compiling() or torch.jit.is_tracing()
    if exported or x.device.type != "cpu" or torch.get_num_threads() < 2:
        return ahead(x)[0], back(y)[0]
    learns = torch.is_grad_enabled()
    there, returning = _AtOnce.apply(learns, ahead, back, x, y, *ahead.parameters(), *back.parameters())
    return there, returning


class _AtOnce(torch.autograd.Function):
    """Two LSTMs, forward and backward at the same time.

    Each has a graph of its own, from a copy of its input on. Their parameters are arguments so that gradients reach
    them the usual way (accumulation, hooks of ``DistributedDataParallel``).
    """

    @staticmethod
    def forward(
        ctx: Any, learns: bool, ahead: nn.Module, back: nn.Module, x: Tensor, y: Tensor, *parameters: Tensor
    ) -> tuple[Tensor, ...]:
        """Both outputs (B, T, hidden)."""
        half, dtype = torch.is_autocast_enabled("cpu"), torch.get_autocast_dtype("cpu")  # of this thread alone

        def run(lstm: nn.Module, x: Tensor) -> tuple[nn.Module, Tensor, Tensor]:
            with torch.set_grad_enabled(learns), torch.autocast("cpu", dtype, enabled=half):
                x = x.detach().requires_grad_(learns and x.requires_grad)
                return lstm, x, lstm(x)[0]

        ctx.graphs = _at_once(lambda: run(ahead, x), lambda: run(back, y))
        return tuple(out.detach() for _, _, out in ctx.graphs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, ...]:
        """The slopes of what :meth:`forward` was given."""

        def run(lstm: nn.Module, x: Tensor, out: Tensor, slope: Tensor) -> list[Tensor | None]:
            inputs = [x, *lstm.parameters()]
            learn = [tensor for tensor in inputs if tensor.requires_grad]
            found = iter(torch.autograd.grad(out, learn, slope, retain_graph=True) if learn else ())
            return [next(found) if tensor.requires_grad else None for tensor in inputs]

        one, other = ((*graph, slope) for graph, slope in zip(ctx.graphs, slopes, strict=True))
        (x, *ahead), (y, *back) = _at_once(lambda: run(*one), lambda: run(*other))
        return None, None, None, x, y, *ahead, *back


def _at_once(one: Callable[[], T], other: Callable[[], T]) -> tuple[T, T]:
    """Calls both, each with half of the threads."""
    threads = torch.get_num_threads()

    def with_half(work: Callable[[], T]) -> T:
        torch.set_num_threads(threads // 2)  # of the thread that it is called in
        return work()

    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(with_half, other)
        try:
            return with_half(one), pending.result()
        finally:
            torch.set_num_threads(threads)
