"""Augmentation against independent references: SciPy's affine maps, torch.flip, plain statistics."""

from __future__ import annotations

import hydra
import numpy as np
import pytest
import torch
from scipy.ndimage import affine_transform
from scipy.optimize import least_squares
from scipy.stats import kstest
from torch import Tensor

from hwr.config import compose
from hwr.data.augment import Augment
from hwr.errors import HwrError

SIZE = 28
ALL = {
    "rotation": 15, "translation": 2, "scale": (0.8, 1.2), "shear": 10, "crop": 2, "flip_horizontal": 0.5,
    "flip_vertical": 0.5, "elastic": 1, "brightness": 0.3, "contrast": 0.3, "noise": 0.1, "erase": 0.5,
}  # fmt: skip
OPTIONS = {"erase": {"erase": 1}} | {name: {name: value} for name, value in ALL.items() if name != "erase"}


def augmented(images: Tensor, seed: int = 0, **options: object) -> Tensor:
    torch.manual_seed(seed)
    return Augment(**options)(images)


def blobs(n: int = 32) -> Tensor:
    """The same smooth, lopsided picture n times, so that a map can be told from what it made of it."""
    y, x = np.mgrid[:SIZE, :SIZE]
    peaks = ((9, 8, 3, 1.0), (18, 9, 2.5, 0.6), (13, 19, 3.5, 0.8), (20, 20, 2, 0.5))
    image = sum(h * np.exp(-((y - r) ** 2 + (x - c) ** 2) / (2 * s * s)) for r, c, s, h in peaks)
    return torch.from_numpy(np.clip(image, 0, 1)).float().expand(n, 1, SIZE, SIZE).contiguous()


@pytest.fixture(scope="module")
def characters(digits) -> Tensor:
    return torch.from_numpy(digits[0][:64]).unsqueeze(1).float() / 255


def test_all_off_is_the_identity(characters):
    assert torch.equal(augmented(characters), characters)
    none = hydra.utils.instantiate(compose(overrides=["augment=none"]).augment)
    assert torch.equal(none(characters), characters)


@pytest.mark.parametrize("options", [*OPTIONS.values(), ALL], ids=[*OPTIONS, "all"])
def test_every_option_keeps_the_form_and_is_drawn_anew_for_every_image(characters, options):
    before = characters.clone()
    out = augmented(characters, **options)
    assert torch.equal(characters, before)  # the batch that came in is not written to
    assert out.shape == characters.shape
    assert out.dtype == characters.dtype
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(augmented(characters, **options), out)
    assert not torch.equal(augmented(characters, seed=1, **options), out)
    same = augmented(blobs(32), **options)
    kinds = len({image.numpy().tobytes() for image in same})
    assert kinds == 2 if next(iter(options)).startswith("flip") else kinds >= 28


@pytest.mark.parametrize("size", [(32, 32), (20, 28)])
def test_other_sizes(size):
    out = augmented(torch.rand(5, 1, *size), **ALL)
    assert out.shape == (5, 1, *size)
    assert out.isfinite().all()


def rotated(angle: float) -> tuple[np.ndarray, np.ndarray]:
    a = np.deg2rad(angle)
    return np.array([[np.cos(a), -np.sin(a)], [np.sin(a), np.cos(a)]]), np.zeros(2)


def translated(x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    return np.eye(2), np.array([x, y])


def scaled(log_size: float) -> tuple[np.ndarray, np.ndarray]:
    return np.eye(2) / np.exp(log_size), np.zeros(2)


def sheared(x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
    return np.array([[1, np.tan(np.deg2rad(x))], [np.tan(np.deg2rad(y)), 1]]), np.zeros(2)


def cropped(left: float, right: float, top: float, bottom: float) -> tuple[np.ndarray, np.ndarray]:
    """What lies `left` ... from the sides fills the image."""
    kept = np.array([SIZE - left - right, SIZE - top - bottom])
    return np.diag(kept / SIZE), np.array([left - right, top - bottom]) / 2


def mapped(image: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """SciPy's affine map, from (x, y) about the middle of the output to those of the input."""
    middle = np.full(2, (SIZE - 1) / 2)
    matrix, shift = matrix[::-1, ::-1], shift[::-1]  # SciPy counts rows first
    return affine_transform(image, matrix, middle - matrix @ middle + shift, order=1, mode="grid-constant")


@pytest.mark.parametrize(
    ("option", "value", "model", "parameters", "bound"),
    [
        ("rotation", 20, rotated, 1, (-20, 20)),
        ("translation", 3, translated, 2, (-3, 3)),
        ("scale", (0.8, 1.2), scaled, 1, (np.log(0.8), np.log(1.2))),
        ("shear", 15, sheared, 2, (-15, 15)),
        ("crop", 2, cropped, 4, (-2, 2)),
    ],
)
def test_geometry_is_the_affine_map_of_its_docstring(option, value, model, parameters, bound):
    """Finds by least squares the angle, shift ... that turns the picture into each result."""
    images = blobs()
    before = images[0, 0].double().numpy()
    found = []
    for out in augmented(images, **{option: value})[:, 0].double().numpy():
        fit = least_squares(lambda p, out=out: (mapped(before, *model(*p)) - out).ravel(), np.zeros(parameters))
        assert np.abs(fit.fun).max() < 1e-3  # nothing but this map
        found.append(fit.x)
    low, high = bound
    assert np.min(found) >= low - 0.01
    assert np.max(found) <= high + 0.01
    shares = (np.ravel(found) - low) / (high - low)
    assert kstest(shares, "uniform").pvalue > 0.01


def test_translation_moves_the_centre_of_mass_by_at_most_so_many_pixels(characters):
    out = augmented(characters, translation=2)
    grid = torch.stack(torch.meshgrid(torch.arange(SIZE), torch.arange(SIZE), indexing="ij")).float()

    def centre(images: Tensor) -> Tensor:
        return (images * grid).sum((2, 3)) / images.sum((2, 3))

    moved = (centre(out) - centre(characters)).abs()
    assert moved.max() <= 2.001
    assert (moved.amax(0) > 1.5).all()


@pytest.mark.parametrize(("option", "axis"), [("flip_horizontal", 3), ("flip_vertical", 2)])
def test_flips(characters, option, axis):
    mirrored = characters.flip(axis)
    torch.testing.assert_close(augmented(characters, **{option: 1}), mirrored, atol=1e-5, rtol=0)
    many = characters.repeat(8, 1, 1, 1)
    out = augmented(many, **{option: 0.3})
    flipped = (out - many.flip(axis)).abs().amax((1, 2, 3)) < 1e-4
    assert torch.equal(~flipped, (out - many).abs().amax((1, 2, 3)) < 1e-4)
    assert 0.23 < flipped.float().mean() < 0.37


@pytest.mark.parametrize("axis", [2, 3])
def test_elastic_displaces_smoothly_by_about_so_many_pixels(axis):
    ramp = (torch.arange(SIZE) / 27).view(1, 1, 1, SIZE).expand(200, 1, SIZE, SIZE)
    ramp = ramp if axis == 3 else ramp.transpose(2, 3)
    inner = (slice(None), 0, slice(6, -6), slice(6, -6))
    pixels = ((augmented(ramp, elastic=1.5) - ramp) * 27)[inner]  # on a ramp the level tells where it came from
    assert 0.75 < pixels.std() / 1.5 < 1.05
    assert abs(pixels.mean()) < 0.15
    assert pixels.diff(dim=1).std() < 0.3 * pixels.std()  # neighbours move together
    assert pixels.diff(dim=2).std() < 0.3 * pixels.std()
    distant = torch.stack([pixels[:, 0, 0], pixels[:, -1, -1]])
    assert abs(torch.corrcoef(distant)[0, 1]) < 0.3  # and distant points do not


def half_ink(n: int = 400) -> Tensor:
    images = torch.zeros(n, 1, 8, 8)
    images[:, :, 2:6, 2:6] = 0.5
    return images


def test_brightness_shifts_the_ink_and_leaves_the_paper():
    out = augmented(half_ink(), brightness=0.2)
    assert torch.equal(out[half_ink() == 0], torch.zeros(400 * 48))
    change = out[:, 0, 2:6, 2:6] - 0.5
    assert change.flatten(1).std(1).max() < 1e-6
    assert kstest((change[:, 0, 0] + 0.2) / 0.4, "uniform").pvalue > 0.01


def test_contrast_multiplies():
    images = torch.rand(400, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 0.6 + 0.1
    factor = (augmented(images, contrast=0.3) / images).flatten(1)
    assert factor.std(1).max() < 1e-6
    assert kstest((factor[:, 0] - 0.7) / 0.6, "uniform").pvalue > 0.01


def test_noise_is_gaussian_of_this_sigma():
    added = augmented(torch.full((50, 1, 28, 28), 0.5), noise=0.08) - 0.5
    assert kstest(added.flatten() / 0.08, "norm").pvalue > 0.01
    assert augmented(torch.zeros(50, 1, 28, 28), noise=0.08).min() == 0


def test_erase_sets_one_rectangle_of_the_stated_area_to_black():
    side, low, high = 100, 0.02, 0.15
    out = augmented(torch.ones(1000, 1, side, side), erase=0.6, erase_area=(low, high))[:, 0]
    gone = out == 0
    assert torch.equal(out[~gone], torch.ones(int((~gone).sum())))
    assert 0.55 < gone.flatten(1).any(1).float().mean() < 0.65
    areas = []
    for mask in gone[gone.flatten(1).any(1)].numpy():
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        height, width = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert mask.sum() == height * width  # a full rectangle
        if min(rows[0], columns[0]) > 0 and max(rows[-1], columns[-1]) < side - 1:  # not cut by the border
            assert 0.45 < height / width < 2.2
            areas.append(mask.mean())
    assert low - 0.002 < min(areas) < low + 0.01
    assert high - 0.02 < max(areas) < high + 0.005


@pytest.mark.parametrize("name", ["light", "strong"])
def test_shipped_augmentations_leave_characters_in_place(characters, name):
    augment = hydra.utils.instantiate(compose(overrides=[f"augment={name}"]).augment, _convert_="all")
    torch.manual_seed(0)
    out = augment(characters)
    assert not torch.equal(out, characters)
    kept = out.sum((1, 2, 3)) / characters.sum((1, 2, 3))
    assert 0.85 < kept.median() < 1.2
    alike = torch.nn.functional.cosine_similarity(out.flatten(1), characters.flatten(1))
    assert alike.median() > 0.5


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"scale": (1.1, 0.9)}, "augment.scale"),
        ({"scale": (0, 1)}, "augment.scale"),
        ({"scale": (0.5,)}, "augment.scale"),
        ({"erase_area": (0.2, 0.1)}, "augment.erase_area"),
        ({"erase_area": (0.5, 1)}, "augment.erase_area"),
    ],
)
def test_bounds_the_wrong_way_round_are_refused(options, key):
    with pytest.raises(HwrError, match=key):
        Augment(**options)
