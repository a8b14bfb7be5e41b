"""Cutting a line out of a page along its outline, and laying it straight along its baseline."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from hwr.errors import HwrError
from hwr.images import Grey

Points = npt.NDArray[np.float64]  # (N, 2): x to the right, y down, pixels
_ABOVE, _BELOW = 0.75, 0.3  # of the distance between two lines: what of a line is above and below its baseline
_REMAP_LIMIT = 32766  # OpenCV's remap addresses pixels with 16-bit integers


def cut(page: Grey, outline: Sequence[tuple[float, float]]) -> Grey:
    """The part of a page inside an outline; what is around it in the bounding box takes the colour of the paper.

    Args:
        page: Grey levels, uint8 (H, W).
        outline: Corners (x, y) in pixels; what lies outside the page is cut off.

    Returns:
        uint8, of the size of the outline's bounding box on the page.

    Raises:
        HwrError: If nothing of it is on the page.
    """
    part, mask, _ = _masked(page, np.asarray(outline, np.float64))
    return _on_paper(part, mask)


def cut_straight(page: Grey, outline: Sequence[tuple[float, float]], baseline: Sequence[tuple[float, float]]) -> Grey:
    """Like :func:`cut`, with the baseline turned level and each column then shifted to where it is straight.

    Shifting keeps upright strokes upright relative to the whole line and has no seams where the baseline bends; it is
    meant for writing that waves, not for writing in a circle.

    Args:
        page: Grey levels, uint8 (H, W).
        outline: Corners (x, y) in pixels.
        baseline: At least two points (x, y) in pixels: of a rather level line from either end, of a steep one in the
            order of reading.

    Raises:
        HwrError: If nothing of it is on the page, or it is too large for straightening.
    """
    part, mask, corner = _masked(page, np.asarray(outline, np.float64))
    line = np.asarray(baseline, np.float64) - corner
    along, across, origin = _axes(line)
    steps, heights = (line - origin) @ along, (line - origin) @ across
    order = np.argsort(steps, kind="stable")
    steps, heights = steps[order], heights[order]

    edge = _dense(np.asarray(outline, np.float64) - corner) - origin
    u, v = edge @ along, edge @ across
    v = v - np.interp(u, steps, heights)
    wide, high = (int(np.ceil(side.max()) - np.floor(side.min())) + 1 for side in (u, v))
    if max(wide, high, *part.shape) > _REMAP_LIMIT:
        raise HwrError(f"a line of {wide} x {high} pixels is too large to be straightened")
    columns, rows = np.floor(u.min()) + np.arange(wide), np.floor(v.min()) + np.arange(high)
    down = np.interp(columns, steps, heights)[None, :] + rows[:, None]  # (H, W): distance from the chord
    x, y = ((origin[i] + columns[None, :] * along[i] + down * across[i]).astype(np.float32) for i in (0, 1))
    straight = cv2.remap(part, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.remap(mask, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    filled = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
    if not len(filled[0]):
        raise HwrError("nothing of the outline is left after straightening")
    box = tuple(slice(f[0], f[-1] + 1) for f in filled)
    return _on_paper(np.asarray(straight, np.uint8)[box], np.asarray(inside, np.uint8)[box])


def around(baseline: Sequence[tuple[float, float]], spacing: float) -> list[tuple[float, float]]:
    """An outline for a line of which only the baseline is known.

    Args:
        baseline: At least two points (x, y) in pixels.
        spacing: Distance from line to line, pixels.
    """
    line = np.asarray(baseline, np.float64)
    _, across, _ = _axes(line)
    above, below = line - _ABOVE * spacing * across, line + _BELOW * spacing * across
    return [(float(x), float(y)) for x, y in np.concatenate([above, below[::-1]])]


def gaps(baselines: Sequence[Sequence[tuple[float, float]]]) -> list[float]:
    """Of each baseline the distance to the nearest of those that run alongside it, in pixels; lines without one: none.

    Args:
        baselines: Of at least two points (x, y) each.
    """
    starts, ends = (np.asarray([line[i] for line in baselines], np.float64).reshape(-1, 2) for i in (0, -1))
    found = []
    for i, (start, end) in enumerate(zip(starts, ends, strict=True)):
        length = max(float(np.hypot(*(end - start))), 1e-9)
        along = (end - start) / length
        sides = np.sort(np.stack([(starts - start) @ along, (ends - start) @ along]), axis=0)
        beside = np.minimum(sides[1], length) > np.maximum(sides[0], 0)
        beside[i] = False
        away = np.abs(((starts + ends) / 2 - start) @ np.array([-along[1], along[0]]))
        found += [float(away[beside].min())] if beside.any() else []
    return found


def area(outline: Sequence[tuple[float, float]]) -> float:
    """Square pixels of the convex hull of an outline, which may cross itself; 0 with fewer than three corners."""
    if len(outline) < 3:
        return 0.0
    return float(cv2.contourArea(cv2.convexHull(np.asarray(outline, np.float32))))


def _axes(line: Points) -> tuple[Points, Points, Points]:
    """Unit vectors along the line and across it, and where it begins.

    A line that is rather level begins at its left end, whichever its points begin with; in a steep one (a note in the
    margin, a page on its side) its points are in the order of reading.
    """
    chord = line[-1] - line[0]
    origin = line[0]
    if chord[0] < 0 and abs(chord[0]) >= abs(chord[1]):
        chord, origin = -chord, line[-1]
    length = float(np.hypot(*chord))
    along = chord / length if length > 0 else np.array([1.0, 0.0])
    return along, np.array([-along[1], along[0]]), origin


def _masked(page: Grey, outline: Points) -> tuple[Grey, Grey, Points]:
    """The bounding box of an outline on the page, uint8 (H, W), its mask (255 inside), and its corner (x, y)."""
    height, width = page.shape
    low, high = np.rint(outline.min(0)), np.rint(outline.max(0))
    left, top = (int(max(n, 0)) for n in low)
    right, bottom = int(min(high[0], width - 1)), int(min(high[1], height - 1))
    if right < left or bottom < top:
        raise HwrError("the outline is outside the page")
    part = page[top : bottom + 1, left : right + 1]
    mask = np.zeros(part.shape, np.uint8)
    corners = np.rint(outline - [left, top]).astype(np.int32)
    cv2.fillPoly(mask, [corners], 255)
    # An outline that crosses itself leaves holes where it overlaps: fill them.
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(mask, contours, -1, 255, cv2.FILLED)
    if not mask.any():
        raise HwrError("the outline is outside the page")
    return part, mask, np.array([left, top], np.float64)


def _on_paper(part: Grey, mask: Grey) -> Grey:
    """Paints what is outside the mask with the median inside: ink covers less than half of a line."""
    inside = mask > 0
    if inside.all():
        return part.copy()
    out: Grey = np.where(inside, part, np.uint8(np.median(part[inside])))
    return out


def _dense(outline: Points, step: float = 4.0) -> Points:
    """The outline with points at most ``step`` pixels apart."""
    closed = np.concatenate([outline, outline[:1]])
    sides = [np.linspace(a, b, max(1, int(np.hypot(*(b - a)) / step)) + 1) for a, b in pairwise(closed)]
    return np.concatenate(sides)
