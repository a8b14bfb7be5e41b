"""Augmentation of whole batches of characters, on whatever device they are."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hwr.errors import HwrError


class Augment(nn.Module):
    """Random changes, drawn anew for every image of a batch.

    All geometric changes are one warp, so that an image is interpolated once. Everything is off by default; randomness
    comes from torch's global generator.

    Args:
        rotation: Degrees, uniform in ±rotation.
        translation: Pixels, uniform in ±translation along each axis.
        scale: Smallest and largest factor, log-uniform.
        shear: Degrees, uniform in ±shear along each axis.
        crop: Each of the four sides moves by up to so many pixels in or out, and the rest is stretched back.
        flip_horizontal: Probability of a mirror image (for scripts where that makes sense).
        flip_vertical: Probability of an upside-down image.
        elastic: Standard deviation in pixels, at 5 x 5 knots, of a smooth displacement (after Simard et al. 2003).
        brightness: Ink is lightened or darkened by up to this much, of 1.
        contrast: Ink is multiplied by 1 ± up to this much.
        noise: Standard deviation of Gaussian noise, of 1.
        erase: Probability that a random rectangle is set to black (Zhong et al. 2017).
        erase_area: Smallest and largest share of the image that it covers.
    """

    def __init__(
        self,
        rotation: float = 0,
        translation: float = 0,
        scale: Sequence[float] = (1, 1),
        shear: float = 0,
        crop: float = 0,
        flip_horizontal: float = 0,
        flip_vertical: float = 0,
        elastic: float = 0,
        brightness: float = 0,
        contrast: float = 0,
        noise: float = 0,
        erase: float = 0,
        erase_area: Sequence[float] = (0.02, 0.15),
    ) -> None:
        super().__init__()
        if len(scale) != 2 or not 0 < scale[0] <= scale[1]:
            raise HwrError(f"augment.scale must be two factors, the smaller first, not {list(scale)}")
        if len(erase_area) != 2 or not 0 < erase_area[0] <= erase_area[1] < 1:
            raise HwrError(f"augment.erase_area must be two shares of 1, the smaller first, not {list(erase_area)}")
        self.rotation, self.translation, self.scale, self.shear, self.crop = rotation, translation, scale, shear, crop
        self.flip_horizontal, self.flip_vertical, self.elastic = flip_horizontal, flip_vertical, elastic
        self.brightness, self.contrast, self.noise = brightness, contrast, noise
        self.erase, self.erase_area = erase, erase_area
        self.warps = any((rotation, translation, shear, crop, flip_horizontal, flip_vertical, elastic)) or tuple(
            scale
        ) != (1, 1)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Changes images (B, 1, H, W) in [0, 1], light ink on black; same shape and range come out."""
        if self.warps:
            images = self._warp(images)
        if self.brightness or self.contrast:
            factor = 1 + _uniform(images, self.contrast)
            images = (images * factor + _uniform(images, self.brightness) * (images > 0.1)).clamp_(0, 1)
        if self.noise:
            images = torch.randn_like(images).mul_(self.noise).add_(images).clamp_(0, 1)
        if self.erase:
            images = self._erase(images)
        return images

    def _warp(self, images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        new = images.new_empty
        angle = new(batch).uniform_(-1, 1) * math.radians(self.rotation)
        shear_x, shear_y = (new(2, batch).uniform_(-1, 1) * math.radians(self.shear)).tan()
        low, high = map(math.log, self.scale)
        size = new(batch).uniform_(low, high).exp()
        sides = new(4, batch).uniform_(-1, 1) * self.crop * 2
        left, right, top, bottom = sides[0] / width, sides[1] / width, sides[2] / height, sides[3] / height
        stretch_x, stretch_y = 1 - (left + right) / 2, 1 - (top + bottom) / 2
        flip_x = 1 - 2 * (torch.rand_like(size) < self.flip_horizontal).float()
        flip_y = 1 - 2 * (torch.rand_like(size) < self.flip_vertical).float()
        cos, sin = angle.cos() / size, angle.sin() / size
        # output -> input coordinates in [-1, 1]: rotation and scale, then shear, then stretch and mirror
        theta = torch.stack(
            [
                torch.stack(
                    [(cos + shear_x * sin) * stretch_x * flip_x, (shear_x * cos - sin) * stretch_x * flip_x], -1
                ),
                torch.stack(
                    [(sin + shear_y * cos) * stretch_y * flip_y, (cos - shear_y * sin) * stretch_y * flip_y], -1
                ),
            ],
            1,
        )  # (B, 2, 2)
        shift = new(batch, 2).uniform_(-1, 1) * images.new_tensor(
            [2 * self.translation / width, 2 * self.translation / height]
        )
        shift = shift + torch.stack([(left - right) / 2, (top - bottom) / 2], -1)
        grid = F.affine_grid(torch.cat([theta, shift.unsqueeze(2)], 2), list(images.shape), align_corners=False)
        if self.elastic:
            coarse = torch.randn(batch, 2, 5, 5, device=images.device)  # one knot every 7 pixels of 28
            field = F.interpolate(coarse, (height, width), mode="bicubic", align_corners=True)
            pixels = field * images.new_tensor([2 * self.elastic / width, 2 * self.elastic / height]).view(1, 2, 1, 1)
            grid = grid + pixels.permute(0, 2, 3, 1)
        return F.grid_sample(images, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    def _erase(self, images: Tensor) -> Tensor:
        batch, _, height, width = images.shape
        draw = images.new_empty
        area = draw(batch).uniform_(*self.erase_area) * height * width
        ratio = draw(batch).uniform_(math.log(0.5), math.log(2)).exp()
        half_h, half_w = (area * ratio).sqrt() / 2, (area / ratio).sqrt() / 2
        y, x = draw(batch).uniform_(0, height), draw(batch).uniform_(0, width)
        rows = (torch.arange(height, device=images.device) + 0.5 - y[:, None]).abs() < half_h[:, None]
        columns = (torch.arange(width, device=images.device) + 0.5 - x[:, None]).abs() < half_w[:, None]
        hit = (draw(batch).uniform_() < self.erase)[:, None, None]
        return images.masked_fill((rows[:, :, None] & columns[:, None, :] & hit).unsqueeze(1), 0)


def _uniform(images: Tensor, limit: float) -> Tensor:
    return images.new_empty(len(images), 1, 1, 1).uniform_(-limit, limit)
