"""Losses. Those for characters take logits (B, C), features (B, F) and labels (B,) and give a scalar.

Their configuration names a loss without knowing the data: it is finished by ``num_classes``, ``num_features`` and
``class_counts``, which every loss takes and uses as it needs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwr.errors import HwrError

Weights = Sequence[float] | str | None


def weights_of(weights: Weights, num_classes: int, class_counts: Tensor) -> Tensor | None:
    """Float (C,): as given, or ``balanced`` = N / (C * count), as scikit-learn does; None for None.

    Raises:
        HwrError: If the weights do not fit the classes.
    """
    if weights is None:
        return None
    if weights == "balanced":
        return class_counts.sum() / (num_classes * class_counts.clamp(min=1).float())
    if isinstance(weights, str) or len(weights) != num_classes:
        raise HwrError(f"loss.class_weights must be null, balanced or {num_classes} numbers, not {weights}")
    return torch.tensor([float(w) for w in weights])


class CrossEntropy(nn.Module):
    """Cross-entropy with label smoothing and class weights.

    Args:
        label_smoothing: Share of the probability that is spread over all classes.
        class_weights: See :func:`weights_of`.
        num_classes: C.
        num_features: Not used.
        class_counts: Training samples of each class (C,).
    """

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        class_counts: Tensor,
        label_smoothing: float = 0.0,
        class_weights: Weights = None,
    ) -> None:
        super().__init__()
        self.label_smoothing = label_smoothing
        self.register_buffer("weight", weights_of(class_weights, num_classes, class_counts), persistent=False)

    def forward(self, logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        """The mean over the batch (weighted, if there are weights)."""
        return F.cross_entropy(logits, labels, self.get_buffer("weight"), label_smoothing=self.label_smoothing)


class Focal(nn.Module):
    """Focal loss, -(1 - p)^gamma log p (Lin et al. 2017, arXiv:1708.02002).

    Args:
        gamma: 0 gives cross-entropy.
        class_weights: See :func:`weights_of`.
        num_classes: C.
        num_features: Not used.
        class_counts: Training samples of each class (C,).
    """

    def __init__(
        self,
        num_classes: int,
        num_features: int,
        class_counts: Tensor,
        gamma: float = 2.0,
        class_weights: Weights = None,
    ) -> None:
        super().__init__()
        self.gamma = gamma
        self.register_buffer("weight", weights_of(class_weights, num_classes, class_counts), persistent=False)

    def forward(self, logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        """The mean over the batch (weighted, if there are weights)."""
        log_p = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
        weight = self.get_buffer("weight")
        rest = (1 - log_p.exp()).clamp(min=1e-12)  # below 1, gamma has an infinite slope at 0
        scale = rest**self.gamma * (1 if weight is None else weight[labels])
        norm = len(labels) if weight is None else weight[labels].sum()
        return -(scale * log_p).sum() / norm


class Centre(nn.Module):
    """Centre loss (Wen et al. 2016): half the squared distance of the features to a learnt centre of their class.

    Args:
        num_classes: C.
        num_features: F.
        class_counts: Not used.
    """

    def __init__(self, num_classes: int, num_features: int, class_counts: Tensor) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.zeros(num_classes, num_features))

    def forward(self, logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        """The mean over the batch."""
        return (features.float() - self.centres[labels]).square().sum(1).mean() / 2


class Sum(nn.Module):
    """A weighted sum of losses.

    Args:
        terms: Name -> ``{"weight": float, "loss": loss without the data's arguments}``.
        data: ``num_classes``, ``num_features`` and ``class_counts``, handed to every term.
    """

    def __init__(self, terms: Mapping[str, Mapping[str, Any]], **data: Any) -> None:
        super().__init__()
        self.weights = {name: float(term["weight"]) for name, term in terms.items()}
        make: dict[str, Callable[..., nn.Module]] = {name: term["loss"] for name, term in terms.items()}
        self.losses = nn.ModuleDict({name: loss(**data) for name, loss in make.items()})

    def forward(self, logits: Tensor, features: Tensor, labels: Tensor) -> Tensor:
        """The sum."""
        return torch.stack([w * self.losses[n](logits, features, labels) for n, w in self.weights.items()]).sum()


class CTC(nn.Module):
    """Connectionist temporal classification (Graves et al. 2006), in float32 whatever the precision of the network.

    The loss is that of the whole batch for each character, so that long lines count for what they hold.

    Args:
        shortcut: Weight of the same loss of the network's second outputs, where it has any (Retsinas et al. 2022,
            arXiv:2404.11339).
        consistency: Weight of the divergence between the readings of two views of each line, frame by frame (CR-CTC,
            Yao et al. 2025, arXiv:2410.05101); means nothing where every line comes once.
    """

    def __init__(self, shortcut: float = 0.1, consistency: float = 0.2) -> None:
        super().__init__()
        self.shortcut, self.consistency = shortcut, consistency

    def forward(
        self,
        logits: Tensor,
        frames: Tensor,
        aside: Tensor | None,
        targets: Tensor,
        lengths: Tensor,
        views: int = 1,
    ) -> Tensor:
        """The loss of a batch.

        Args:
            logits: (B, T, C).
            frames: int64 (B,), the true ones.
            aside: Second logits like the first.
            targets: int64 (sum of lengths,), from 1.
            lengths: int64 (B,).
            views: 2 if the second half of the batch holds other views of the lines of the first.
        """
        with torch.autocast(logits.device.type, enabled=False):
            log_probs = logits.float().log_softmax(2)
            loss = self.ctc(log_probs, frames, targets, lengths)
            if views == 2 and self.consistency:
                loss = loss + self.consistency * divergence(log_probs, frames) / lengths.sum().clamp(min=1)
            if aside is not None and self.shortcut:
                loss = loss + self.shortcut * self.ctc(aside.float().log_softmax(2), frames, targets, lengths)
        return loss

    def ctc(self, log_probs: Tensor, frames: Tensor, targets: Tensor, lengths: Tensor) -> Tensor:
        """Minus the log-probability of the labels, for each of them."""
        total = F.ctc_loss(log_probs.transpose(0, 1), targets, frames, lengths, reduction="sum")
        return total / lengths.sum().clamp(min=1)


def divergence(log_probs: Tensor, frames: Tensor) -> Tensor:
    """How far two views of each line are from being read alike (equations 4 and 5 of arXiv:2410.05101).

    Each view learns from the other as from a fixed teacher: the Kullback-Leibler divergence, both ways, summed over the
    true frames.

    Args:
        log_probs: (2 B, T, C), the second B the other views of the first.
        frames: int64 (2 B,), the true ones.
    """
    one, other = log_probs.chunk(2)
    inside = torch.arange(one.shape[1], device=frames.device) < frames[: len(one), None]  # (B, T)
    one, other = one[inside], other[inside]
    both = F.kl_div(one, other.detach(), reduction="sum", log_target=True)
    return both + F.kl_div(other, one.detach(), reduction="sum", log_target=True)
