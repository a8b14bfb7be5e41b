"""Augmentation of whole batches of lines, on whatever device they are."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwr.errors import HwrError


class LineAugment(nn.Module):
    """Random changes, drawn anew for every line of a batch; all geometric ones are a single warp.

    Everything is off by default; randomness comes from torch's global generator.

    Args:
        shear: Degrees by which the writing leans, uniform in ±shear.
        rotation: Degrees, uniform in ±rotation, around the middle of the line.
        narrow: Smallest horizontal scale, uniform in [narrow, 1] (a line is never cut off).
        tall: Vertical scale, log-uniform between 1/tall and tall.
        shift: Pixels, uniform in ±shift, up and down.
        jitter: Pixels of paper that are added, a random share of them on the left, the rest on the right.
        elastic: Pixels at the knots (16 pixels apart along the line) of a smooth displacement.
        stroke: Probability of thicker, and of thinner strokes.
        contrast: Ink is multiplied by 1 ± up to this much.
        brightness: Paper is lightened by up to this much, of 1.
        noise: Standard deviation of Gaussian noise, of 1, drawn up to this.
        blur: Probability of a 3 x 3 blur.
        masks: Spans that are erased, for every 1,000 pixels.
        mask_width: Widest span, in pixels.
        views: 2 gives every line twice: in the same place, for frames to be compared, but inked, blurred and erased in
            two ways, see :class:`hwr.systems.losses.CTC`.

    Raises:
        HwrError: If a value makes no sense.
    """

    def __init__(
        self,
        shear: float = 0,
        rotation: float = 0,
        narrow: float = 1,
        tall: float = 1,
        shift: float = 0,
        jitter: int = 0,
        elastic: float = 0,
        stroke: float = 0,
        contrast: float = 0,
        brightness: float = 0,
        noise: float = 0,
        blur: float = 0,
        masks: float = 0,
        mask_width: int = 24,
        views: int = 1,
    ) -> None:
        super().__init__()
        if not 0 < narrow <= 1:
            raise HwrError(f"augment.narrow must be above 0 and at most 1, not {narrow!r}")
        if tall < 1:
            raise HwrError(f"augment.tall must be at least 1, not {tall!r}")
        if not isinstance(jitter, int) or jitter < 0:
            raise HwrError(f"augment.jitter must be a whole number of pixels, not {jitter!r}")
        if views not in (1, 2):
            raise HwrError(f"augment.views must be 1 or 2, not {views!r}")
        self.shear, self.rotation, self.narrow, self.tall = shear, rotation, narrow, tall
        self.shift, self.jitter, self.elastic, self.stroke, self.contrast = shift, jitter, elastic, stroke, contrast
        self.brightness, self.noise, self.blur = brightness, noise, blur
        self.masks, self.mask_width, self.views = masks, mask_width, views
        self.warps = any((shear, rotation, shift, jitter, elastic)) or narrow != 1 or tall != 1

    @torch.no_grad()
    def forward(self, images: Tensor, widths: Tensor) -> tuple[Tensor, Tensor]:
        """Changes float images (B, 1, H, W) in [0, 1], ink light on 0, of these widths (B,).

        Returns:
            Images (B * views, 1, H, W') and widths (B * views,), all lines and then, with two views, all once more.
        """
        images, widths = F.pad(images, (0, self.jitter)), widths + self.jitter
        if self.warps:
            images = self._warp(images, widths)
        images, widths = images.repeat(self.views, 1, 1, 1), widths.repeat(self.views)
        inside = torch.arange(images.shape[3], device=images.device) < widths[:, None]  # (B, W)
        draw = torch.rand(len(images), device=images.device)
        for chosen, change in ((draw < self.stroke, _thicker), (draw > 1 - self.stroke, _thinner)):
            images = _some(images, chosen, change)
        images = _some(images, torch.rand_like(draw) < self.blur, _blurred)
        if self.contrast or self.brightness:
            factor = 1 + _spread(images, self.contrast)
            images = torch.addcmul(_spread(images, self.brightness).clamp_(min=0), images, factor)
        if self.noise:
            sigma = images.new_empty(len(images), 1, 1, 1).uniform_(0, self.noise)
            images = torch.addcmul(images, torch.randn_like(images), sigma)
        if self.masks:
            images = self._mask(images)
        return images.clamp_(0, 1) * inside[:, None, None], widths

    def _warp(self, images: Tensor, widths: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        draw = images.new_empty
        aspect = width / height
        lean = (draw(batch).uniform_(-1, 1) * math.radians(self.shear)).tan() / aspect
        turn = (draw(batch).uniform_(-1, 1) * math.radians(self.rotation)).tan() * aspect
        across = 1 / draw(batch).uniform_(self.narrow, 1)
        up = (draw(batch).uniform_(-1, 1) * math.log(self.tall)).exp()
        middle = widths / width - 1  # the middle of each line in [-1, 1]
        # the writing shrinks towards its left end, so that none of it leaves the image
        theta = torch.zeros(batch, 2, 3, device=images.device)
        theta[:, 0, 0], theta[:, 0, 1] = across, lean
        left = draw(batch).uniform_(0, 1) * self.jitter
        theta[:, 0, 2] = across * (1 - 2 * left / width) - 1
        theta[:, 1, 0], theta[:, 1, 1] = turn, up
        theta[:, 1, 2] = draw(batch).uniform_(-1, 1) * 2 * self.shift / height - turn * middle
        grid = _affine_grid(theta, height, width)
        if self.elastic:
            pixels = images.new_tensor([2 * self.elastic / width, 2 * self.elastic / height]).view(1, 2, 1, 1)
            knots = torch.randn(batch, 2, 4, max(4, width // 16), device=images.device) * pixels
            grid += _upsampled(knots, height, width)
        grid = grid.permute(0, 2, 3, 1)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def _mask(self, images: Tensor) -> Tensor:
        batch, _, _, width = images.shape
        count = max(1, round(self.masks * width / 1000))
        centres = torch.rand(batch, count, 1, device=images.device) * width
        halves = torch.rand(batch, count, 1, device=images.device) * self.mask_width / 2
        hit = ((torch.arange(width, device=images.device) - centres).abs() < halves).any(1)  # (B, W)
        return images.masked_fill(hit[:, None, None], 0)


def _affine_grid(theta: Tensor, height: int, width: int) -> Tensor:
    """:func:`torch.nn.functional.affine_grid` of (B, 2, 3) as planes (B, 2, H, W): several times as fast on a CPU."""
    x, y = (((2 * torch.arange(n, device=theta.device) + 1) / n - 1) for n in (width, height))
    across, down, middle = theta[..., None, None].unbind(2)  # each (B, 2, 1, 1)
    return across * x + (down * y[:, None] + middle)


def _upsampled(knots: Tensor, height: int, width: int) -> Tensor:
    """Bilinear between knots (B, 2, h, w) from corner to corner, one direction after the other: (B, 2, H, W)."""
    batch, _, rows, _ = knots.shape
    along = F.interpolate(knots.flatten(0, 1), width, mode="linear", align_corners=True)
    down = F.interpolate(torch.eye(rows, device=knots.device)[None], height, mode="linear", align_corners=True)[0].T
    return (down @ along).view(batch, 2, height, width)


def _some(images: Tensor, chosen: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
    """Changes the chosen (B,) lines; the others cost nothing."""
    rows = chosen.nonzero()[:, 0]
    return images.index_copy(0, rows, change(images[rows])) if len(rows) else images


def _thicker(images: Tensor) -> Tensor:
    return (_highest(images) + images) / 2


def _thinner(images: Tensor) -> Tensor:
    return (images - _highest(-images)) / 2


def _highest(images: Tensor) -> Tensor:
    """``max_pool2d(images, 3, 1, 1)``, one direction after the other: several times as fast on a CPU."""
    for dim in (2, 3):
        last = images.shape[dim] - 1
        pairs = torch.maximum(images.narrow(dim, 0, last), images.narrow(dim, 1, last))
        images = images.clone()
        for part in (images.narrow(dim, 0, last), images.narrow(dim, 1, last)):
            torch.maximum(part, pairs, out=part)
    return images


def _blurred(images: Tensor) -> Tensor:
    return F.avg_pool2d(images, 3, 1, 1)


def _spread(images: Tensor, limit: float) -> Tensor:
    return images.new_empty(len(images), 1, 1, 1).uniform_(-limit, limit)
