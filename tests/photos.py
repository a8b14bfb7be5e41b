"""Makes photo-like pictures of a handwritten character, for tests: paper, lighting, ruling, pen, noise, blur, JPEG."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]


def photo(
    digit: Grey,
    rng: np.random.Generator,
    *,
    frame: tuple[int, int] = (240, 320),
    fill: float = 0.5,
    offset: tuple[float, float] = (0.0, 0.0),
    angle: float = 0.0,
    pen: float | None = None,
    paper: float = 215.0,
    ink: float = 50.0,
    texture: float = 3.0,
    gradient: float = 0.0,
    shadow: float = 0.0,
    lines: str = "none",
    line_contrast: float = 0.4,
    stains: int = 0,
    specks: int = 0,
    border: float = 0.0,
    noise: float = 2.0,
    blur: float = 0.0,
    jpeg: int | None = None,
) -> Grey:
    """Draws one character as a camera might see it.

    Args:
        digit: Light ink on black, uint8, shape (h, w), as in MNIST.
        rng: Source of everything random.
        frame: Height and width of the photo in pixels.
        fill: The character's longest side as a share of the frame's shorter side.
        offset: Where the character sits, down and right, -1..1 (1 = at the frame's edge), (0, 0) = middle.
        angle: Rotation in degrees.
        pen: Stroke width as a share of the character's longest side; None keeps that of `digit`.
        paper: Grey level of the paper (less than `ink` for chalk on a board).
        ink: Grey level of the ink.
        texture: Amplitude of the paper's grain in grey levels.
        gradient: Lighting falls by this share (0..1) from one side of the frame to the other.
        shadow: Share of light (0..1) that a soft-edged shadow over a part of the frame takes away.
        lines: "none", "ruled" or "grid", turned with the character.
        line_contrast: Contrast of the lines as a share of that of the ink.
        stains: Number of soft brownish stains.
        specks: Number of ink-coloured specks, up to 3 % of the character's size, anywhere.
        border: Width of a dark frame around the picture (as scanners leave) as a share of the shorter side.
        noise: Standard deviation of the sensor's noise in grey levels.
        blur: Standard deviation of the lens's blur as a share of the character's longest side.
        jpeg: Quality of a JPEG compression, None for none.

    Returns:
        The photo, uint8, shape `frame`.
    """
    height, width = frame
    side = fill * min(frame)
    cover = _placed(_strokes(digit, side, pen), frame, offset, angle)
    contrast = paper - ink
    board = paper + texture * _grain(rng, frame, side)
    board -= contrast * line_contrast * _ruling(rng, frame, lines, side, angle)
    for _ in range(stains):
        spot = _spot(frame, rng.uniform(0, 1, 2), rng.uniform(0.1, 0.35) * min(frame), 0.25)
        board -= contrast * rng.uniform(0.1, 0.3) * spot
    for _ in range(specks):
        spot = _spot(frame, rng.uniform(0, 1, 2), max(0.5, rng.uniform(0.003, 0.015) * side), 0.1)
        cover = np.maximum(cover, spot)
    view = board + (ink - board) * cover
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32) / max(frame) - 0.5
    turn = rng.uniform(0, 2 * np.pi)
    view *= 1 - gradient * np.clip(0.5 + rows * np.sin(turn) + columns * np.cos(turn), 0, 1)
    edge = rows * np.sin(turn + 1) + columns * np.cos(turn + 1) - rng.uniform(-0.2, 0.2)
    view *= 1 - shadow / (1 + np.exp(-edge / 0.04))
    if border:
        rim = round(border * min(frame))
        dark = np.ones(frame, bool)
        dark[rim : height - rim, rim : width - rim] = False
        view[dark] = min(paper, ink) * 0.6
    if blur:
        view = cv2.GaussianBlur(view, (0, 0), blur * side)
    photographed = np.clip(np.rint(view + rng.normal(0, noise, frame)), 0, 255).astype(np.uint8)
    if jpeg is not None:
        coded = cv2.imencode(".jpg", photographed, [cv2.IMWRITE_JPEG_QUALITY, jpeg])[1]
        photographed = np.asarray(cv2.imdecode(coded, cv2.IMREAD_GRAYSCALE), np.uint8)
    return photographed


def _strokes(digit: Grey, side: float, pen: float | None) -> Plane:
    """The character's ink (0..1) with crisp edges, its longest side `side` pixels long, drawn with the given pen."""
    rows, columns = np.nonzero(digit > 0)
    crop = digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1].astype(np.float32) / 255
    crop = np.pad(crop, 2)
    zoom = max(8.0, side / (max(crop.shape) - 4))
    large = cv2.resize(crop, None, fx=zoom, fy=zoom, interpolation=cv2.INTER_CUBIC)
    mask = (cv2.GaussianBlur(large, (0, 0), zoom / 4) > 0.5).astype(np.uint8)
    if pen is not None:
        bone = 192 / max(mask.shape)  # thinning at a fixed size keeps it quick
        small = cv2.resize(mask * np.uint8(255), None, fx=bone, fy=bone, interpolation=cv2.INTER_AREA) > 127
        skeleton = cv2.resize(thinned(small).astype(np.float32), mask.shape[::-1], interpolation=cv2.INTER_LINEAR)
        skeleton = cv2.GaussianBlur(skeleton, (0, 0), 0.5 / bone)
        away = cv2.distanceTransform((skeleton < 0.2).astype(np.uint8), cv2.DIST_L2, 5)
        mask = (away <= max(0.5, pen * max(mask.shape) / 2 - 0.8 / bone)).astype(np.uint8)
    shrink = side / (max(crop.shape) - 4) / zoom
    smooth = cv2.resize(mask.astype(np.float32), None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA)
    return np.asarray(smooth, np.float32)


def thinned(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Zhang and Suen's thinning: the one-pixel-wide skeleton of a bool mask of shape (H, W)."""
    kept = np.pad(mask, 1).astype(np.uint8)
    while True:
        before = int(kept.sum())
        for step in (0, 1):
            ring = [np.roll(kept, shift, (0, 1)) for shift in
                    ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))]  # fmt: skip
            count = np.sum(ring, axis=0)
            turns = np.sum([(ring[i] == 0) & (ring[(i + 1) % 8] == 1) for i in range(8)], axis=0)
            north, east, south, west = ring[0], ring[2], ring[4], ring[6]
            gone = (kept == 1) & (count >= 2) & (count <= 6) & (turns == 1)
            pairs = (north * east * south, east * south * west) if step == 0 else (
                north * east * west, north * south * west)  # fmt: skip
            kept[gone & (pairs[0] == 0) & (pairs[1] == 0)] = 0
        if int(kept.sum()) == before:
            return kept[1:-1, 1:-1].astype(bool)


def _placed(ink: Plane, frame: tuple[int, int], offset: Sequence[float], angle: float) -> Plane:
    """Turns the ink about its middle and puts it into an empty frame, shifted but never cut off."""
    height, width = frame
    room = [(frame[axis] - max(ink.shape) * 1.03) / 2 for axis in (0, 1)]
    matrix = cv2.getRotationMatrix2D((ink.shape[1] / 2, ink.shape[0] / 2), angle, 1.0)
    matrix[0, 2] += width / 2 - ink.shape[1] / 2 + offset[1] * max(0.0, room[1])
    matrix[1, 2] += height / 2 - ink.shape[0] / 2 + offset[0] * max(0.0, room[0])
    return np.asarray(cv2.warpAffine(ink, matrix, (width, height), flags=cv2.INTER_LINEAR), np.float32)


def _grain(rng: np.random.Generator, frame: tuple[int, int], side: float) -> Plane:
    """Paper grain at three scales, of unit standard deviation."""
    total = np.zeros(frame, np.float32)
    for scale in (0.01, 0.04, 0.15):
        step = max(1.0, scale * side)
        size = (max(2, int(frame[1] / step)), max(2, int(frame[0] / step)))
        coarse = rng.standard_normal((size[1], size[0])).astype(np.float32)
        total += cv2.resize(coarse, (frame[1], frame[0]), interpolation=cv2.INTER_CUBIC)
    return np.asarray(total / total.std(), np.float32)


def _ruling(rng: np.random.Generator, frame: tuple[int, int], lines: str, side: float, angle: float) -> Plane:
    """Ruled or squared paper's lines (0..1): thin, and between 0.25 and 0.9 of the character's side apart."""
    height, width = frame
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    turn = np.deg2rad(angle)
    across = rows * np.cos(turn) + columns * np.sin(turn)
    along = columns * np.cos(turn) - rows * np.sin(turn)
    pitch = side * (rng.uniform(0.7, 0.9) if lines == "ruled" else rng.uniform(0.25, 0.6))
    thickness = max(1.0, 0.015 * side)
    drawn = np.zeros(frame, np.float32)
    for axis in {"none": (), "ruled": (across,), "grid": (across, along)}[lines]:
        away = np.abs((axis + rng.uniform(0, pitch)) % pitch - pitch / 2)
        drawn = np.maximum(drawn, np.clip(thickness / 2 + 0.5 - away, 0, 1))
    return drawn


def _spot(frame: tuple[int, int], centre: npt.NDArray[np.float64], radius: float, softness: float) -> Plane:
    rows, columns = np.ogrid[0 : frame[0], 0 : frame[1]]
    away = np.hypot(rows - centre[0] * frame[0], columns - centre[1] * frame[1]) / radius
    return np.asarray(np.clip((1 + softness - away) / (2 * softness), 0, 1), np.float32)
