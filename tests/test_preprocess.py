"""Preparing characters: clean images stay as they are, photos come out like clean images."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from photos import photo
from sklearn.datasets import load_digits

from hwr.errors import HwrError
from hwr.preprocess import CharacterPreprocess

PREPARE = CharacterPreprocess()


def mnist_like(fit: int = 20) -> list[np.ndarray]:
    """Forty real digits, drawn smoothly and put into MNIST's form by an independent implementation."""
    made = []
    for small in load_digits().images[:40]:
        large = cv2.GaussianBlur(cv2.resize(np.pad(small, 2), (384, 384), interpolation=cv2.INTER_CUBIC), (0, 0), 8)
        mask = ((large > 0.5 * large.max()) * 255).astype(np.uint8)
        rows, columns = np.nonzero(mask)
        mask = mask[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
        scale = fit / max(mask.shape)
        size = (max(1, round(mask.shape[1] * scale)), max(1, round(mask.shape[0] * scale)))
        ink = cv2.resize(mask, size, interpolation=cv2.INTER_AREA)
        height, width = ink.shape
        row = float((ink.sum(1) * (np.arange(height))).sum() / ink.sum())
        column = float((ink.sum(0) * (np.arange(width))).sum() / ink.sum())
        top, left = min(max(round(14 - row), 0), 28 - height), min(max(round(14 - column), 0), 28 - width)
        image = np.zeros((28, 28), np.uint8)
        image[top : top + height, left : left + width] = ink
        made.append(image)
    return made


CLEAN = mnist_like()


def likeness(one: np.ndarray, other: np.ndarray) -> float:
    """Correlation of two images after a blur of one pixel, which forgives small shifts; 0 for a blank one."""
    first, second = (cv2.GaussianBlur(image.astype(np.float32), (0, 0), 1).ravel() for image in (one, other))
    return float(np.corrcoef(first, second)[0, 1]) if first.std() > 0 and second.std() > 0 else 0.0


def bounds(image: np.ndarray, level: int = 60) -> tuple[int, int, int, int]:
    """Top, left, height and width of what is brighter than the level."""
    rows, columns = np.nonzero(image > level)
    return rows.min(), columns.min(), int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def test_mnist_images_stay_as_they_are() -> None:
    differences = [np.abs(PREPARE(image).astype(int) - image).mean() for image in CLEAN]
    assert np.mean(differences) < 1
    assert np.mean(np.array(differences) < 2) > 0.9
    for image in CLEAN:
        once = PREPARE(image)
        assert np.abs(PREPARE(once).astype(int) - once).mean() < 1


def test_whole_frame_of_the_right_size_is_bit_identical() -> None:
    keep = CharacterPreprocess(fit=None, polarity="light_on_dark")
    automatic = CharacterPreprocess(fit=None)
    for image in CLEAN:
        np.testing.assert_array_equal(keep(image), image)
        np.testing.assert_array_equal(automatic(image), image)
        np.testing.assert_array_equal(automatic(255 - image), image)


def test_whole_frame_is_padded_to_a_square() -> None:
    wide = np.full((28, 56), 200, np.uint8)
    wide[4:24, 10:14] = 0
    out = CharacterPreprocess(fit=None)(wide)
    assert out.shape == (28, 28)
    assert (out[:7] == 55).all()  # padded in the paper's level, inverted
    assert out[14, 5:7].min() == 255


@pytest.mark.parametrize("zoom", [1.0, 3.0, 0.5, 11.0])
def test_scale_and_polarity_do_not_matter(zoom: float) -> None:
    for image in CLEAN[:20]:  # at half the size, strokes are a pixel wide
        scaled = cv2.resize(image, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
        assert likeness(PREPARE(scaled), image) > (0.93 if zoom >= 1 else 0.85)
        np.testing.assert_array_equal(PREPARE(255 - scaled), PREPARE(scaled))


def test_position_does_not_matter() -> None:
    for image in CLEAN[:10]:
        frame = np.full((90, 70), 240, np.uint8)
        frame[60:88, 3:31] = 240 - (image * 0.8).astype(np.uint8)
        assert likeness(PREPARE(frame), image) > 0.98


def test_given_polarity_is_obeyed() -> None:
    image = np.full((60, 60), 128, np.uint8)
    image[10:50, 10:16] = 250
    image[10:50, 40:46] = 5
    for polarity in ("light_on_dark", "dark_on_light"):
        assert bounds(CharacterPreprocess(polarity=polarity)(image))[3] <= 5  # one of the two bars only
    both = CharacterPreprocess(polarity="dark_on_light", fit=None, size=60)(image)
    assert both[30, 43] == 250
    assert both[30, 13] == 5


def test_fit_and_centre() -> None:
    triangle = np.zeros((100, 100), np.uint8)
    cv2.fillPoly(triangle, [np.array([[10, 10], [10, 80], [60, 80]])], 255)
    top, left, height, width = bounds(CharacterPreprocess(fit=24, center="box")(triangle), 20)
    assert (top, height) == (2, 24)
    assert abs(left - (28 - width) / 2) <= 1
    by_mass = CharacterPreprocess(size=40)(triangle).astype(float)
    assert by_mass.shape == (40, 40)
    assert max(bounds(by_mass, 20)[2:]) == 20
    rows, columns = np.mgrid[:40, :40]
    assert abs((rows * by_mass).sum() / by_mass.sum() - 20) <= 0.5
    assert abs((columns * by_mass).sum() / by_mass.sum() - 20) <= 0.5


def test_upright_stroke_of_any_width_is_centred() -> None:
    for width in (1, 2, 3, 5):
        image = np.zeros((28, 28), np.uint8)
        image[0:20, 3 : 3 + width] = 255
        expected = np.zeros((28, 28), np.uint8)
        left = round(14 - (width - 1) / 2)
        expected[4:24, left : left + width] = 255
        np.testing.assert_array_equal(PREPARE(image), expected)


def test_ink_far_off_its_centre_of_mass_stays_inside() -> None:
    image = np.zeros((100, 100), np.uint8)
    image[5:30, 5:95] = 255
    image[30:95, 48:51] = 255
    out = CharacterPreprocess(fit=28)(image)
    assert max(bounds(out, 20)[2:]) == 28


PHOTOS: dict[str, dict[str, Any]] = {
    "plain": {},
    "texture": {"texture": 9.0},
    "lighting": {"gradient": 0.7},
    "shadow": {"shadow": 0.4},
    "ruled": {"lines": "ruled", "line_contrast": 0.7, "angle": 4.0},
    "grid": {"lines": "grid", "line_contrast": 0.65, "angle": -5.0},
    "noise": {"noise": 20.0},
    "blur": {"blur": 0.025},
    "jpeg": {"jpeg": 12},
    "pale ink": {"ink": 150.0},
    "fine pen": {"pen": 0.025, "frame": (400, 500)},
    "small": {"fill": 0.16, "frame": (400, 500)},
    "full": {"fill": 0.92},
    "at the edge": {"offset": (0.9, -0.9)},
    "tiny": {"frame": (40, 40), "fill": 0.7},
    "large": {"frame": (900, 1200), "fill": 0.05},
    "stains": {"stains": 2},
    "specks": {"specks": 12},
    "frame of a scanner": {"border": 0.05},
    "chalk": {"paper": 45.0, "ink": 200.0, "texture": 6.0},
}


@pytest.mark.parametrize("kind", PHOTOS)
def test_photo_comes_out_like_the_clean_image(kind: str) -> None:
    rng = np.random.default_rng(0)
    chosen = CLEAN[:3] if kind in ("large", "fine pen") else CLEAN[:8]
    alike = [likeness(PREPARE(photo(image, rng, **PHOTOS[kind])), image) for image in chosen]
    assert np.mean(alike) > 0.85, alike
    assert np.mean(np.array(alike) > 0.7) > 0.9, alike


def test_photo_has_black_paper_and_white_strokes() -> None:
    rng = np.random.default_rng(1)
    for image in CLEAN[:10]:
        out = PREPARE(photo(image, rng, gradient=0.5, noise=8.0, ink=140.0))
        assert np.percentile(out, 40) == 0
        assert np.sort(out.ravel())[-20] > 235


def test_stroke_of_a_fine_pen_is_not_thin() -> None:
    rng = np.random.default_rng(2)
    for pen in (0.015, 0.03):
        out = PREPARE(photo(CLEAN[1], rng, pen=pen, frame=(500, 600), fill=0.6))
        assert out.max() == 255
        assert (out > 127).sum() > 0.6 * (PREPARE(photo(CLEAN[1], rng, pen=0.1, fill=0.6)) > 127).sum()


def test_dot_of_an_i_is_kept_and_specks_are_dropped() -> None:
    rng = np.random.default_rng(3)
    for noise in (0.0, 6.0):
        frame = np.full((240, 240), 220.0)
        frame[90:190, 110:124] = 40  # the stem
        frame[60:74, 110:124] = 40  # its dot
        plain = np.clip(frame + rng.normal(0, noise, frame.shape), 0, 255).astype(np.uint8)
        frame[20:23, 30:33] = 40  # specks: far away, and near the stem
        frame[215:219, 200:203] = 40
        frame[140:143, 140:143] = 40
        specked = np.clip(frame + rng.normal(0, noise, frame.shape), 0, 255).astype(np.uint8)
        out = PREPARE(specked)
        assert likeness(out, PREPARE(plain)) > 0.99
        column = out[:, 14] > 127
        assert np.count_nonzero(column[1:] > column[:-1]) == 2  # two runs of ink: dot and stem
        assert bounds(out)[2:] in ((20, 2), (20, 3), (20, 4))


def test_blank_paper_is_all_zero() -> None:
    rng = np.random.default_rng(4)
    assert PREPARE(np.full((50, 60), 255, np.uint8)).max() == 0
    assert PREPARE(np.zeros((28, 28), np.uint8)).max() == 0
    assert PREPARE(np.full((1, 1), 7, np.uint8)).max() == 0
    assert CharacterPreprocess(fit=None)(np.full((50, 60), 255, np.uint8)).max() == 0
    for noise in (2.0, 8.0, 20.0):
        paper = np.clip(rng.normal(200, noise, (200, 260)) * np.linspace(0.6, 1, 260), 0, 255)
        assert PREPARE(paper.astype(np.uint8)).max() == 0


@pytest.mark.parametrize("threshold", ["otsu", "adaptive"])
def test_threshold_makes_faint_strokes_full(threshold: str) -> None:
    image = np.full((80, 80), 250, np.uint8)
    image[10:70, 20:30] = 20
    image[60:70, 30:60] = 110
    grey, two_valued = PREPARE(image), CharacterPreprocess(threshold=threshold)(image)
    assert 100 < grey[bounds(grey)[0] + 18, 17] < 200
    assert two_valued[bounds(two_valued)[0] + 18, 17] == 255


def test_median_removes_salt_and_pepper() -> None:
    rng = np.random.default_rng(5)
    image = photo(CLEAN[3], rng, frame=(120, 120), noise=0.0)
    dirty = image.copy()
    hit = rng.random(image.shape)
    dirty[hit < 0.06], dirty[hit > 0.94] = 0, 255
    assert likeness(CharacterPreprocess(median=5)(dirty), PREPARE(image)) > 0.95


def test_any_shape_gives_an_image() -> None:
    rng = np.random.default_rng(6)
    variants = [PREPARE, CharacterPreprocess(fit=None, threshold="adaptive"), CharacterPreprocess(threshold="otsu"),
                CharacterPreprocess(threshold="adaptive", median=3, center="box", size=32, fit=32)]  # fmt: skip
    for shape in [(1, 1), (1, 2), (2, 1), (3, 3), (1, 500), (500, 1), (7, 300), (33, 9), (28, 28), (300, 40)]:
        for image in (rng.integers(0, 256, shape), (rng.random(shape) > 0.5) * 255, np.full(shape, 9)):
            for prepare in variants:
                out = prepare(image.astype(np.uint8))
                assert (out.shape, out.dtype) == ((prepare.size, prepare.size), np.uint8)


def test_input_is_checked_and_not_changed() -> None:
    image = CLEAN[0].copy()
    image.flags.writeable = False
    for prepare in (PREPARE, CharacterPreprocess(fit=None), CharacterPreprocess(median=3)):
        prepare(image)
    for bad in (np.zeros((28, 28)), np.zeros((28, 28, 3), np.uint8), np.zeros((0, 28), np.uint8)):
        with pytest.raises(ValueError, match="uint8"):
            PREPARE(bad)


def test_normalize() -> None:
    images = torch.tensor([[[0, 255], [51, 0]]], dtype=torch.uint8)
    out = CharacterPreprocess(mean=0.2, std=0.5).normalize(images)
    assert out.dtype == torch.float32
    assert out.shape == (1, 1, 2, 2)
    np.testing.assert_allclose(out.flatten().tolist(), [-0.4, 1.6, 0.0, -0.4], atol=1e-6)
    with pytest.raises(ValueError, match="uint8"):
        PREPARE.normalize(images.float())


def test_dict_round_trip() -> None:
    prepare = CharacterPreprocess(size=32, fit=None, center="box", median=3, threshold="otsu", mean=0.5, std=0.25)
    assert CharacterPreprocess.from_dict(prepare.to_dict()) == prepare
    assert {type(value) for value in prepare.to_dict().values()} <= {int, float, str, type(None)}
    assert CharacterPreprocess.from_dict({"mean": [0.5], "std": (1,)}) == CharacterPreprocess(mean=0.5, std=1.0)
    with pytest.raises(HwrError, match=r"colour.*the settings are size, fit"):
        CharacterPreprocess.from_dict({"colour": 1})


@pytest.mark.parametrize(
    "bad",
    [
        {"size": 0}, {"size": 28.0}, {"size": True}, {"fit": 0}, {"fit": 29}, {"fit": "20"}, {"center": "middle"},
        {"polarity": None}, {"polarity": ["auto"]}, {"median": 2}, {"median": 1}, {"median": -3}, {"threshold": "yes"},
        {"mean": "0.1"}, {"mean": [0.1, 0.2, 0.3]}, {"mean": float("nan")}, {"std": 0}, {"std": -1.0}, {"std": None},
    ],
)  # fmt: skip
def test_bad_settings(bad: dict[str, Any]) -> None:
    with pytest.raises(HwrError, match=f"preprocess.{next(iter(bad))}: ") as caught:
        CharacterPreprocess.from_dict(bad)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("zoom", [1, 2, 3, 10])
def test_a_tight_crop_is_read_without_paper_around_it(zoom: int) -> None:
    digits = (load_digits().images[:60] * 15.9).astype(np.uint8)  # 8 x 8 pixels, the ink meets the rim
    for digit in digits:
        crop = np.kron(digit, np.ones((zoom, zoom), np.uint8))
        out = PREPARE(crop)
        assert out.any()
        np.testing.assert_array_equal(PREPARE(255 - crop), out)
        room = np.pad(crop, crop.shape[0])
        assert likeness(out, PREPARE(room)) > 0.9
