"""Finding the ink of one character in an image, be it a clean scan or a photo of uneven, ruled or noisy paper."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Grey = npt.NDArray[np.uint8]
Plane = npt.NDArray[np.float32]
Mask = npt.NDArray[np.uint8]

WORKING_SIDE = 256  # pixels; larger images are reduced to this before anything is looked for
TINY = 20  # pixels: a smaller image is a tight crop, with too little paper around to compare with
FAINTEST_INK = 12.0  # grey levels of contrast to the paper below which nothing counts as ink
HOLE = 33  # pixels of an image reduced to 64: a dip of the background smaller than this is ink, not paper
SEGMENTS = 48  # parts into which a row is cut to see whether a ruled line runs through all of it


def find_ink(image: Grey, polarity: str) -> Plane | None:
    """Cuts out the ink of the character in an image and removes everything else.

    Args:
        image: Grey levels, shape (H, W), at least 1 x 1.
        polarity: "dark_on_light", "light_on_dark", or "auto" to tell from the image.

    Returns:
        How much ink there is at each pixel, 0..1, cropped to the ink; its longest side is at most WORKING_SIDE
        pixels, less if the image is smaller. None if there is no ink.
    """
    work = reduced(image, WORKING_SIDE)
    found = _contrast_to_flat_paper(work, polarity)
    if found is None and max(image.shape) <= TINY:
        image = work = _roomy(image)
        found = _contrast_to_flat_paper(work, polarity)
    clean = found is not None
    if found is None:
        image = _without_frame(image)
        work = reduced(image, WORKING_SIDE)
        found = _contrast_to_uneven_paper(work, polarity)
    contrast, noise = found
    if clean:
        smooth, peak, low = contrast, float(contrast.max()), 0.12
    else:
        _erase_lines(contrast, _full_ink(contrast, noise))
        smooth = np.asarray(cv2.GaussianBlur(contrast, (0, 0), 0.6 + 0.4 * max(work.shape) / WORKING_SIDE), np.float32)
        peak, low = _full_ink(smooth, _noise(smooth)), 0.3
    if peak < max(FAINTEST_INK, 5 * _noise(smooth)):
        return None
    pieces = _pieces(smooth, max(low * peak, min(3 * _noise(smooth), 0.4 * peak)), 0.5 * peak)
    if pieces is None:
        return None
    left, top, width, height = cv2.boundingRect(pieces)
    side = max(width, height)
    if side < 0.45 * max(work.shape) and max(image.shape) > WORKING_SIDE:  # look again, closer
        zoom, margin = max(image.shape) / max(work.shape), 0.6 * side
        rows = slice(max(0, int((top - margin) * zoom)), int((top + height + margin) * zoom) + 1)
        columns = slice(max(0, int((left - margin) * zoom)), int((left + width + margin) * zoom) + 1)
        return find_ink(image[rows, columns], polarity)
    floor = 0.0 if clean else min(2 * noise, 0.3 * peak)
    ink = np.clip((contrast - floor) * (1 / (peak - floor)), 0, 1) * cv2.dilate(pieces, np.ones((3, 3), np.uint8))
    left, top, width, height = cv2.boundingRect((ink > (0 if clean else 0.3)).astype(np.uint8))
    return np.asarray(ink[top : top + height, left : left + width], np.float32) if width else None


def _roomy(image: Grey) -> Grey:
    """Enlarges a tiny image four times and frames it with the grey of its corners."""
    corners = image[[0, 0, -1, -1], [0, -1, 0, -1]]
    size = (4 * image.shape[1], 4 * image.shape[0])
    large = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_CUBIC), np.uint8)
    return np.pad(large, max(size) // 2, constant_values=np.uint8(np.median(corners)))


def reduced(image: Grey, side: int) -> Grey:
    """Scales an image down, if need be, so that its longest side is `side` pixels."""
    scale = side / max(image.shape)
    if scale >= 1:
        return image
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def ink_sign(contrast: Plane, polarity: str) -> float:
    """Returns 1.0 if the ink is lighter than the paper, which has contrast 0, and -1.0 if it is darker."""
    if polarity != "auto":
        return 1.0 if polarity == "light_on_dark" else -1.0
    return 1.0 if cv2.mean(contrast * contrast * contrast)[0] >= 0 else -1.0


def _contrast_to_flat_paper(image: Grey, polarity: str) -> tuple[Plane, float] | None:
    """Contrast to a background of one grey level, ink positive, and its noise; None if there is no such background."""
    rim = np.sort(np.concatenate((image[0], image[-1], image[:, 0], image[:, -1])))
    low, level, high = int(rim[rim.size // 8]), int(rim[rim.size // 2]), int(rim[-1 - rim.size // 8])
    if high - low > 2 or 2 * _count(image, level) < image.size:
        corners = np.sort(image[[0, 0, -1, -1], [0, -1, 0, -1]])
        low, level, high = int(corners[1]), int(corners[1]), int(corners[2])
        tight = _count(rim[None], level) < 0.95 * rim.size  # a crop whose ink meets the rim, and no frame around a page
        flat = _count(image, level) > max(0.2 * image.size, 0.8 * _count(image, level, 8))
        if high - low > 2 or not tight or not flat:
            return None
    contrast = image - np.float32(level)
    return contrast * np.float32(ink_sign(contrast, polarity)), (high - low) / 2


def _count(image: Grey, level: int, reach: int = 1) -> int:
    """Pixels within `reach` of a level."""
    return int(cv2.countNonZero(cv2.inRange(image, level - reach, level + reach)))


def _contrast_to_uneven_paper(image: Grey, polarity: str) -> tuple[Plane, float]:
    """Contrast to the paper around each pixel, ink positive, and its noise, both in grey levels."""
    small = reduced(image, 64)
    coarse = np.asarray(cv2.medianBlur(small, int(0.5 * max(small.shape)) | 1), np.float32)
    sign = ink_sign(np.asarray(small - coarse, np.float32), polarity)
    wider = np.pad(coarse, HOLE, mode="reflect", reflect_type="odd")  # goes on beyond the edges as it does inside
    flatten = cv2.MORPH_OPEN if sign > 0 else cv2.MORPH_CLOSE
    filled = cv2.GaussianBlur(cv2.morphologyEx(wider, flatten, np.ones((HOLE, HOLE), np.uint8)), (0, 0), 2)
    ground = cv2.resize(filled[HOLE:-HOLE, HOLE:-HOLE], (image.shape[1], image.shape[0]))
    contrast = np.asarray((image - ground) * np.float32(sign), np.float32)
    around = (int(0.2 * max(image.shape)) | 1,) * 2
    for _ in range(2):  # what the paper around each pixel is off by
        noise = _noise(contrast)
        ink = (contrast > max(3 * noise, 0.5 * _full_ink(contrast, noise))).astype(np.uint8)
        paper = (1 - cv2.dilate(ink, np.ones((5, 5), np.uint8))).astype(np.float32)
        shade = cv2.blur(contrast * paper, around) / (cv2.blur(paper, around) + np.float32(0.02))
        contrast = np.asarray(contrast - cv2.blur(shade, (9, 9)), np.float32)
    return contrast, _noise(contrast)


def _noise(contrast: Plane) -> float:
    """Standard deviation of the paper's contrast, from the flattest quarter of the pixels, whatever the rest is."""
    return float(np.percentile(np.abs(contrast.ravel()[:: max(1, contrast.size // 10_000)]), 25)) / 0.3186


def _full_ink(contrast: Plane, noise: float) -> float:
    """Contrast of full ink: the top of the upper of the two classes that Otsu's method finds above the noise, or 0."""
    values = contrast[contrast > max(3 * noise, 1.0)]
    if values.size == 0:
        return 0.0
    top = float(values.max())
    split = cv2.threshold((values * (255 / top)).astype(np.uint8), 0, 255, cv2.THRESH_OTSU)[0] * top / 255
    upper = np.sort(values[values >= split])
    return float(upper[int(0.95 * upper.size)])


def _without_frame(image: Grey) -> Grey:
    """Cuts off a dark or light frame, as scanners leave: up to a fifth of each side, ending in a sharp step."""
    small = reduced(image, 128).astype(np.int16)
    if min(small.shape) < 20:
        return image
    cuts: list[float] = []
    for lines in (small, small.T):
        fifth = lines.shape[1] // 5
        levels = np.sort(lines[:, fifth : lines.shape[1] - fifth], axis=1)
        tenth = levels.shape[1] // 10
        low, high = levels[:, tenth], levels[:, -1 - tenth]
        depth = len(low) // 5
        for lows, highs in ((low, high), (low[::-1], high[::-1])):
            up = lows[3 : depth + 3] - np.maximum.accumulate(highs)[:depth]
            down = np.minimum.accumulate(lows)[:depth] - highs[3 : depth + 3]
            steps = np.flatnonzero(np.maximum(up, down) > 25)
            cuts.append(float(steps[-1] + 4) / len(low) if steps.size else 0.0)
    height, width = image.shape
    rows = slice(int(cuts[0] * height), height - int(cuts[1] * height))
    return image[rows, int(cuts[2] * width) : width - int(cuts[3] * width)]


def _erase_lines(contrast: Plane, ink: float) -> None:
    """Sets to 0, in place, straight lines fainter than the ink that run from edge to edge, up to 12 degrees off axis.

    Lines as dark as the ink stay: they may be strokes of a character cut out without a margin.

    A row (or column) is cut into segments, which are shifted against each other by every slope in turn: a line then
    shows in the weakest segment of its row, whereas a stroke, which does not reach both edges, does not.
    """
    if min(contrast.shape) < SEGMENTS:
        return
    for plane in (contrast, contrast.T):
        height, width = plane.shape
        segments = cv2.resize(np.ascontiguousarray(plane), (SEGMENTS, height), interpolation=cv2.INTER_AREA)
        segments = np.pad(cv2.dilate(segments, np.ones((3, 1), np.uint8)), ((0, 1), (0, 0)), constant_values=1e3)
        rows, columns = np.arange(height)[:, None], np.arange(SEGMENTS)
        best, best_rows, best_shift = 0.0, np.zeros(height, bool), columns
        for rise in range(-int(0.21 * width), int(0.21 * width) + 1, 2):
            shift = np.rint(rise * ((columns + 0.5) / SEGMENTS - 0.5)).astype(np.intp)
            places = rows + shift
            places[(places < 0) | (places > height)] = height  # outside the image: never the weakest
            aligned = segments[places, columns]
            weakest = (aligned[:, ::2] + aligned[:, 1::2]).min(axis=1) / 2
            usual = np.median(weakest)
            excess = weakest - usual - max(4 * np.median(np.abs(weakest - usual)), 0.08 * ink)
            score = float(np.square(excess, where=excess > 0, out=np.zeros_like(excess)).sum())
            if score > best:
                best, best_rows, best_shift = score, excess > 0, shift
        if best > 0:
            best_rows = np.convolve(best_rows, np.ones(3), "same") > 0
            mask = best_rows[np.clip(rows - best_shift, 0, height - 1)].astype(np.uint8)
            lined = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST) > 0
            level = float(np.percentile(plane[lined], 75))
            if level < 0.75 * ink:
                plane[lined & (plane < 0.5 * (level + ink))] = 0


def _pieces(contrast: Plane, low: float, high: float) -> Mask | None:
    """Mask of the connected pieces that make up the character; None if there are none.

    Args:
        contrast: Contrast to the paper, ink positive, shape (H, W).
        low: Contrast above which neighbouring pixels belong together.
        high: Contrast of full ink; only pixels above count when pieces are compared.
    """
    count, labels, stats, _ = cv2.connectedComponentsWithStats((contrast > low).astype(np.uint8), connectivity=8)
    mass = np.bincount(labels[contrast > high], minlength=count)
    mass[0] = 0
    left, top, wide, tall = (stats[:, column] for column in range(4))
    right, bottom = left + wide, top + tall
    height, width = contrast.shape
    contact = (left == 0) * 1 + (top == 0) + (right == width) + (bottom == height)
    main = int((mass * np.array([1, 0.5, 0.2, 0.03, 0.03])[contact]).argmax())
    if mass[main] == 0:
        return None
    across = np.maximum(left - right[main], left[main] - right)
    down = np.maximum(top - bottom[main], top[main] - bottom)
    near = np.maximum(across, down) < 0.5 * max(wide[main], tall[main])
    kept = near & (mass > 0.02 * mass[main]) & ((contact == 0) | (contact[main] > 0))
    kept[main] = True
    return np.asarray(kept[labels], np.uint8)
