"""How the image of a line becomes what the network sees."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from line_fixtures import line_image

from hwr.config import compose
from hwr.errors import HwrError
from hwr.line_preprocess import LinePreprocess

PREPARE = LinePreprocess()


def reference(image: np.ndarray, height: int = 64) -> np.ndarray:
    """The documented steps for dark ink on lighter paper, written down once more."""
    how = cv2.INTER_AREA if image.shape[0] > height else cv2.INTER_LINEAR
    width = max(1, round(image.shape[1] * height / image.shape[0]))
    light = 255.0 - cv2.resize(image, (width, height), interpolation=how)
    level = np.pad(np.median(light, axis=0), height, mode="edge")
    ground = np.array([level[i : i + 2 * height + 1].mean() for i in range(width)])
    ink = light - ground
    full, noise = np.quantile(ink, 0.995), 1.4826 * np.median(np.abs(ink))
    floor = min(2 * noise, 0.3 * full)
    return np.clip((ink - floor) / (full - floor) * 255, 0, 255)


def paper(
    height: int = 64, width: int = 800, level: float = 200, noise: float = 0, seed: int = 0, shade: float = 0
) -> np.ndarray:
    """Paper, float (H, W), that gets darker to the right by ``shade``."""
    rng = np.random.default_rng(seed)
    return level - shade * np.linspace(0, 1, width) + noise * rng.standard_normal((height, width))


def strokes(height: int = 64, width: int = 800, every: int = 20, thick: int = 3, slant: float = 0) -> np.ndarray:
    """Bool (H, W): upright strokes in the middle half of the height, leaning to the right by ``slant``."""
    y, x = np.mgrid[:height, :width]
    inside = (abs(y - height / 2) < height / 4) & (x > 40) & (x < width - 40)
    return inside & ((x + slant * (y - height / 2)) % every < thick)


def written(ink: np.ndarray, page: np.ndarray, contrast: float = 120) -> np.ndarray:
    return np.clip(page - contrast * ink, 0, 255).astype(np.uint8)


def overlap(found: np.ndarray, ink: np.ndarray) -> float:
    """Intersection over union of what is more than half ink."""
    return float(((found > 127) & ink).sum() / ((found > 127) | ink).sum())


@pytest.mark.parametrize(
    "image",
    [
        line_image(),
        line_image(100, 700, 3),
        written(strokes(), paper(noise=4, shade=60)),
        written(strokes(40, 300), paper(40, 300, 255, 8)),
        np.where(strokes(64, 500), 0, 255).astype(np.uint8),  # binary
        cv2.GaussianBlur(np.where(strokes(64, 500, thick=8), 0, 255).astype(np.uint8), (0, 0), 2),
    ],
)
def test_ordinary_lines(image):
    found = PREPARE(image)
    assert found.shape == (64, max(1, round(image.shape[1] * 64 / image.shape[0])))
    assert found.dtype == np.uint8
    np.testing.assert_allclose(found, reference(image), atol=1.01)
    np.testing.assert_allclose(PREPARE(255 - image), found, atol=4)  # light on dark


def test_uneven_paper():
    ink = strokes()
    assert overlap(PREPARE(written(ink, paper(noise=3, shade=90))), ink) > 0.95
    y = np.linspace(0, 40, 64)[:, None]
    assert overlap(PREPARE(written(ink, paper(noise=3, shade=40) - y)), ink) > 0.9


@pytest.mark.parametrize(("contrast", "noise"), [(60, 5), (20, 3), (15, 1.5), (10, 0.5), (8, 0)])
def test_faint_pencil_becomes_as_dark_as_ink(contrast, noise):
    ink = strokes()
    found = PREPARE(written(ink, paper(noise=noise), contrast))
    assert overlap(found, ink) > 0.8
    assert found[~ink].mean() < 25


@pytest.mark.parametrize("noise", [0, 3, 8])
def test_one_short_word_in_a_long_line(noise):
    ink = np.zeros((64, 4000), bool)
    ink[20:44, 30:90] = strokes(64, 800)[20:44, 60:120]
    assert ink.mean() < 0.001
    assert overlap(PREPARE(written(ink, paper(width=4000, noise=noise))), ink) > 0.85


@pytest.mark.parametrize("polarity", ["auto", "dark_on_light", "light_on_dark"])
@pytest.mark.parametrize(
    "image",
    [
        *(np.full((50, 300), level, np.uint8) for level in (0, 90, 180, 255)),
        paper(noise=5, shade=80).astype(np.uint8),
        (paper(noise=2) - np.linspace(0, 30, 64)[:, None]).astype(np.uint8),
        np.full((1, 1), 255, np.uint8),
    ],
)
def test_blank(image, polarity):
    assert not LinePreprocess(polarity=polarity)(image).any()


def test_without_contrast():
    plain = LinePreprocess(contrast=False)
    image = np.where(strokes(), 40, 231).astype(np.uint8)
    np.testing.assert_array_equal(plain(image), 255 - image)
    np.testing.assert_array_equal(plain(255 - image), 255 - image)
    assert not plain(np.full((64, 90), 255, np.uint8)).any()
    assert not plain(np.zeros((64, 90), np.uint8)).any()
    given = LinePreprocess(contrast=False, polarity="light_on_dark")
    np.testing.assert_array_equal(given(image), image)


def test_tight_crops():
    ink = strokes()
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    tight = ink[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    image = written(tight, paper(*tight.shape, noise=3))
    found = PREPARE(image)
    truth = cv2.resize(tight.astype(np.uint8), found.shape[::-1], interpolation=cv2.INTER_LINEAR) > 0
    assert overlap(found, truth) > 0.6
    assert found[truth].mean() > 4 * found[~truth].mean()


@pytest.mark.parametrize("around", [0, 255])
@pytest.mark.parametrize("level", [110, 170, 215])
def test_lines_cut_out_along_a_polygon(around, level):
    ink = strokes(90, 900)
    page = written(ink, paper(90, 900, level, 3), 90)
    polygon = np.array([[0, 10], [450, 0], [899, 14], [890, 75], [500, 89], [8, 70]], np.int32)
    inside = np.zeros(page.shape, np.uint8)
    cv2.fillPoly(inside, [polygon], 1)
    image = np.where(inside > 0, page, np.uint8(around))
    found, whole = PREPARE(image), PREPARE(page)
    well_inside = cv2.resize(cv2.erode(inside, np.ones((9, 9))), found.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    outside = cv2.resize(cv2.dilate(inside, np.ones((9, 9))), found.shape[::-1], interpolation=cv2.INTER_NEAREST) == 0
    assert found[outside].max() == 0
    assert np.abs(found.astype(int) - whole)[well_inside].mean() < 4
    # The same after JPEG, which blurs the border.
    lossy = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1], cv2.IMREAD_GRAYSCALE)
    assert PREPARE(lossy)[outside].mean() < 5
    assert np.abs(PREPARE(lossy).astype(int) - whole)[well_inside].mean() < 12


@pytest.mark.parametrize("shape", [(64, 1), (32, 1), (3, 40), (1, 60), (500, 7), (1, 1), (20_000, 5), (10, 1250)])
def test_odd_shapes(shape):
    rng = np.random.default_rng(0)
    for image in (rng.integers(0, 256, shape, np.uint8), np.full(shape, 200, np.uint8)):
        levelled = LinePreprocess(deskew=True, deslant=True)
        for preprocess in (PREPARE, levelled, LinePreprocess(contrast=False, median=3)):
            found = preprocess(image)
            assert found.shape[0] == 64
            assert found.dtype == np.uint8
            if not preprocess.deslant:
                assert found.shape[1] == max(1, round(shape[1] * 64 / shape[0]))


@pytest.mark.parametrize("shape", [(64, 20_000), (1, 500), (64, 8001)])
def test_too_wide(shape):
    with pytest.raises(HwrError, match=rf"{shape[1]} x {shape[0]} pixels: at height 64 .* more than .*max_width=8000"):
        PREPARE(np.zeros(shape, np.uint8))
    assert LinePreprocess(max_width=40_000)(np.zeros(shape, np.uint8)).shape[0] == 64
    with pytest.raises(HwrError, match="no pixels"):
        PREPARE(np.zeros((0, 5), np.uint8))


def test_median_removes_specks():
    image = written(strokes(thick=6), paper())
    speckled = image.copy()
    speckled[::9, ::7] = 0
    clean, found = PREPARE(image), LinePreprocess(median=3)(speckled)
    assert np.abs(found.astype(int) - clean).mean() < 0.2 * np.abs(PREPARE(speckled).astype(int) - clean).mean()


def middles(light: np.ndarray) -> np.ndarray:
    """The middle of the ink, in rows, of a twentieth of the line's columns after the other."""
    ink = (light > 127).astype(float)
    spans = [part for part in np.array_split(ink, 20, axis=1) if part.sum() > 20]
    return np.array([np.average(np.arange(len(light)), weights=part.sum(1)) for part in spans])


@pytest.mark.parametrize("contrast", [True, False])
@pytest.mark.parametrize("climb", [-40, -20, 0, 12, 50])
def test_deskew(climb, contrast):
    height, width = 64 + abs(climb), 900
    y, x = np.mgrid[:height, :width]
    base = height / 2 + climb * (0.5 - x / width)
    ink = (abs(y - base) < 16) & (x % 20 < 4) & (x > 30) & (x < width - 30)
    image = written(ink, paper(height, width, noise=2))
    skew = middles(LinePreprocess(contrast=contrast)(image))
    placed = LinePreprocess(contrast=contrast, deskew=True).place(image)
    level = middles(placed.light)
    assert np.ptp(level) < 2.5
    assert np.ptp(skew) >= 0.5 * abs(climb) * 64 / height
    rows = np.flatnonzero((placed.light > 127).any(1))
    assert 64 / 1.6 / 1.45 < np.ptp(rows) < 60  # the writing fills the height, whatever the paper around it
    columns = np.flatnonzero((placed.light > 127).any(0))
    ends = (columns[[0, -1]] - placed.left) * placed.scale  # back in the image
    np.testing.assert_allclose(ends, np.flatnonzero(ink.any(0))[[0, -1]], atol=3)


def test_deskew_keeps_what_is_short_or_blank():
    image = written(strokes(64, 180, thick=4), paper(64, 180))
    off, on = PREPARE(image), LinePreprocess(deskew=True)(image)
    scaled = cv2.resize(off, (on.shape[1], round(64 * on.shape[1] / 180)))
    cut = (len(scaled) - 64) // 2
    assert overlap(on, scaled[cut : cut + 64] > 127) > 0.8
    assert not LinePreprocess(deskew=True)(np.full((64, 200), 255, np.uint8)).any()
    dash = np.full((64, 300), 230, np.uint8)
    dash[30:33, 100:140] = 20
    assert LinePreprocess(deskew=True)(dash).shape[1] <= 1.6 * 300  # a dash alone is not blown up


@pytest.mark.parametrize("contrast", [True, False])
@pytest.mark.parametrize("slant", [-0.7, -0.3, 0, 0.25, 0.6])
def test_deslant(slant, contrast):
    image = written(strokes(slant=slant), paper(noise=2))
    off, on = LinePreprocess(contrast=contrast), LinePreprocess(contrast=contrast, deslant=True)
    flat, upright = off(image).astype(float), on(image).astype(float)
    extra = upright.shape[1] - flat.shape[1]
    assert extra == pytest.approx(abs(slant) * 63, abs=2.5)
    flat, upright = (part - np.median(part) for part in (flat, upright))
    assert upright.clip(0).sum() == pytest.approx(flat.clip(0).sum(), rel=0.05)  # no ink is lost
    # In upright strokes each row has its ink in the columns of the next but one.
    rows = slice(18, 46)
    same = np.corrcoef(upright[rows][:-8].ravel(), upright[rows][8:].ravel())[0, 1]
    assert same > 0.8


def test_deslant_leaves_what_is_upright_or_blank():
    image = written(strokes(), paper())
    np.testing.assert_array_equal(LinePreprocess(deslant=True)(image), PREPARE(image))
    assert not LinePreprocess(deslant=True)(np.full((64, 200), 255, np.uint8)).any()


@pytest.mark.parametrize(
    "setting",
    [
        {"height": 7},
        {"height": 64.0},
        {"polarity": "dark"},
        {"median": 4},
        {"median": -3},
        {"median": 257},
        {"median": 3.0},
        {"max_width": 0},
        {"max_width": 1.5},
    ],
)
def test_wrong_settings(setting):
    (name,) = setting
    with pytest.raises(HwrError, match=rf"preprocess\.{name} must be"):
        LinePreprocess(**setting)


def test_settings_travel():
    custom = LinePreprocess(96, "dark_on_light", False, 3, 5000, True, True)
    assert LinePreprocess.from_dict(custom.to_dict()) == custom
    assert LinePreprocess.from_dict({"height": 48}) == LinePreprocess(48)  # from before deslant
    with pytest.raises(HwrError, match=r"unknown setting hight: the settings are height, .* deslant"):
        LinePreprocess.from_dict({"hight": 3})
    conf = dict(compose("train", ["experiment=synthetic_crnn"]).data.preprocess)
    assert conf.pop("_target_") == "hwr.line_preprocess.LinePreprocess"
    assert conf == PREPARE.to_dict()  # conf/ and the class agree on the defaults


def test_normalize():
    images = torch.tensor([[[0, 255], [51, 102]]], dtype=torch.uint8)
    torch.testing.assert_close(PREPARE.normalize(images), torch.tensor([[[[0.0, 1.0], [0.2, 0.4]]]]))


@pytest.mark.parametrize("width", range(300, 1300, 50))
def test_a_stroke_alone_in_a_wide_image_has_no_slope(width: int) -> None:
    """Nothing is fitted to a single stroke, wherever it stands (that ended in an error of NumPy's)."""
    image = np.full((64, width), 255, np.uint8)
    image[12:52, width // 2 - 2 : width // 2 + 2] = 0
    prepared = LinePreprocess(deskew=True)(image)
    inked = np.flatnonzero((prepared > 128).any(0))
    assert 2 <= len(inked) <= 8


@pytest.mark.parametrize("x", [100, 470, 860, 1500])
def test_a_few_characters_in_a_wide_image_keep_their_shape(x: int) -> None:
    image = np.full((64, 1800), 255, np.uint8)
    cv2.putText(image, "7 L 4", (x, 50), cv2.FONT_HERSHEY_SIMPLEX, 1.3, 0, 3, cv2.LINE_AA)
    level, plain = (LinePreprocess(deskew=deskew)(image) for deskew in (True, False))
    strokes = [np.flatnonzero((each > 128).any(0)) for each in (level, plain)]
    spread = [(ink[-1] - ink[0]) / each.shape[1] for ink, each in zip(strokes, (level, plain), strict=True)]
    assert spread[0] == pytest.approx(spread[1], abs=0.004)  # a shear would widen or narrow it
