"""Learning from what a larger model says, not from labels alone."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hwr.bundle import Bundle
from hwr.errors import HwrError


class Distillation:
    """Pulls a model's probabilities toward those of its teacher (Hinton et al. 2015, arXiv:1503.02531).

    Only the classes that both know are compared, so that the teacher may have been made for other ones; lines are
    compared frame by frame, the blank included. Not a module: the teacher is no part of the model and of its
    checkpoints.

    Args:
        teacher: The larger model, with its weights.
        student: The model that learns.
        weight: Of the teacher, from 0 to 1; the labels have the rest.
        temperature: Both sides' logits are divided by it.

    Raises:
        HwrError: If the teacher reads something else, sees other images, or gives frames of another size, or if a
            setting is out of range.
    """

    def __init__(self, teacher: Bundle, student: Bundle, weight: float = 0.5, temperature: float = 2.0) -> None:
        if not 0 < weight <= 1 or temperature <= 0:
            raise HwrError("distill.weight must be above 0 and at most 1, and distill.temperature above 0")
        if teacher.kind != student.kind:
            raise HwrError(f"distill.teacher reads {teacher.kind}s, and this model reads {student.kind}s")
        if teacher.preprocess != student.preprocess:
            theirs, ours = teacher.preprocess.to_dict(), student.preprocess.to_dict()
            other = ", ".join(f"{key} {theirs[key]}, here {ours[key]}" for key in ours if theirs[key] != ours[key])
            raise HwrError(f"distill.teacher sees other images than this model ({other}); set data.preprocess alike")
        common = [name for name in student.classes if name in teacher.classes]
        if len(common) < 2:
            raise HwrError("distill.teacher has fewer than two classes in common with the data; choose another teacher")
        first = [0] if student.kind == "line" else []  # the blank
        self._theirs = torch.tensor(first + [teacher.classes.index(name) + len(first) for name in common])
        self._ours = torch.tensor(first + [student.classes.index(name) + len(first) for name in common])
        self.weight, self.temperature = weight, temperature
        self.network = teacher.build().eval().requires_grad_(False)
        strides = [getattr(network, "stride", 0) for network in (self.network, student.build())]
        if strides[0] != strides[1]:
            raise HwrError(
                f"distill.teacher gives a frame for every {strides[0]} pixels, this model for every {strides[1]}; "
                "their networks must pool alike along the line"
            )

    def characters(self, loss: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """The loss of labels and teacher together, of logits (B, C) for images (B, 1, H, W)."""
        with torch.no_grad():
            said = self.network.to(images.device)(images)
        return self._mixed(loss, self._divergence(logits, said) / len(logits))

    def lines(self, loss: Tensor, logits: Tensor, images: Tensor, widths: Tensor, labels: Tensor) -> Tensor:
        """The same of logits (B, T, C) for images (B, 1, H, W) of these widths (B,), for each of ``labels`` labels."""
        with torch.no_grad():
            said, frames, _ = self.network.to(images.device)(images, widths)
        inside = torch.arange(logits.shape[1], device=frames.device) < frames[:, None]  # (B, T)
        return self._mixed(loss, self._divergence(logits[inside], said[inside]) / labels.clamp(min=1))

    def _divergence(self, logits: Tensor, said: Tensor) -> Tensor:
        """Kullback-Leibler, in float32, summed over rows (N, C) of logits, of the classes in common."""
        with torch.autocast(logits.device.type, enabled=False):
            ours, theirs = (
                (rows.float()[:, columns.to(rows.device)] / self.temperature).log_softmax(1)
                for rows, columns in ((logits, self._ours), (said, self._theirs))
            )
            return F.kl_div(ours, theirs, reduction="sum", log_target=True) * self.temperature**2

    def _mixed(self, loss: Tensor, divergence: Tensor) -> Tensor:
        return (1 - self.weight) * loss + self.weight * divergence
