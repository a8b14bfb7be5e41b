"""Reading image files of any kind as 8-bit greyscale arrays; whatever is wrong with one is an HwrError."""

from __future__ import annotations

import glob
import io
import logging
import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from hwr.errors import HwrError

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".avif", ".bmp", ".dib", ".gif", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg",
    ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff", ".webp",
})
# fmt: on
MAX_PIXELS = 100_000_000

# Formats whose further "frames" are a preview, a gain map or the layers of the one picture they hold.
_ONE_PICTURE_FORMATS = frozenset({"MPO", "PSD"})

# Pillow warns about odd but readable metadata. Process-wide filters, because warnings.catch_warnings is not
# thread-safe and images are decoded in threads.
warnings.filterwarnings("ignore", module=r"PIL\.")
logging.getLogger("PIL").addHandler(logging.NullHandler())

Grey = npt.NDArray[np.uint8]


def read_grey(source: str | Path | bytes | Image.Image | npt.NDArray[Any]) -> Grey:
    """Reads one image as 8-bit greyscale, upright (EXIF orientation applied).

    Transparent pixels get the colour of the visible paper, or, where only ink is visible, white behind dark ink and
    black behind light ink. 16-bit grey levels keep their upper byte; other integer and float levels are stretched
    from their minimum and maximum to 0 and 255.

    Args:
        source: A path, the bytes of an image file, a Pillow image, or an array of shape (H, W), (H, W, 3) RGB or
            (H, W, 4) RGBA: uint8, bool, or float in [0, 1].

    Returns:
        Grey levels, uint8, shape (H, W), 0 = black.

    Raises:
        HwrError: The source is missing, unreadable, not an image, damaged, empty, larger than MAX_PIXELS or holds
            several frames or pages.
    """
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, Image.Image):
        return _from_pillow(source, _shown(str(getattr(source, "filename", "")) or "the Pillow image"))
    if isinstance(source, bytes):
        if not source:
            raise HwrError("the image bytes are empty: pass the whole content of an image file")
        return _decode(io.BytesIO(source), "the image bytes")
    if not isinstance(source, (str, Path)):
        raise HwrError(f"cannot read an image from {type(source).__name__}: pass a path, bytes, array or Pillow image")
    where = _shown(str(source))
    try:
        path = Path(source)
        if path.is_dir():
            raise HwrError(f"{where}: is a folder: name an image file in it, or a pattern such as {where}/*.png")
        if not path.exists():
            raise HwrError(f"{where}: no such file: check the path (relative paths start at {Path.cwd()})")
        if not path.is_file():
            raise HwrError(f"{where}: is not a regular file: name an image file")
        if path.stat().st_size == 0:
            raise HwrError(f"{where}: the file is empty (0 bytes): copy or export it again")
        with path.open("rb") as file:
            return _decode(file, where)
    except (OSError, ValueError) as error:
        raise HwrError(f"{where}: cannot be opened ({_reason(error)}): check the path and its permissions") from error


def list_images(patterns: str | Path | Sequence[str | Path]) -> list[Path]:
    """Finds the image files that files, folders and glob patterns name.

    Args:
        patterns: One or several of: a file (taken whatever its suffix), a folder (its image files, not those of its
            subfolders) or a glob pattern (`*`, `?`, `[...]`, `**` for any depth; only image files are kept). A path
            that exists is taken literally even if it contains glob characters.

    Returns:
        The files in natural order (`2.png` before `10.png`), each once.

    Raises:
        HwrError: No pattern was given, or one of them matches no image.
    """
    given = [patterns] if isinstance(patterns, (str, Path)) else list(patterns)
    if not given:
        raise HwrError("no images given: name image files, folders or glob patterns")
    found: dict[str, Path] = {}
    for pattern in given:
        for path in _matches(str(pattern)):
            found.setdefault(os.path.abspath(path), path)
    return sorted(found.values(), key=_natural_key)


def _decode(file: BinaryIO, where: str) -> Grey:
    """Decodes an open binary file; Pillow's plugins raise almost any exception on damaged data."""
    try:
        with Image.open(file) as image:
            return _from_pillow(image, where)
    except HwrError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _too_large(where, "the header declares far too many pixels") from error
    except UnidentifiedImageError as error:
        raise HwrError(f"{where}: not an image in a known format: convert it to PNG, JPEG or TIFF") from error
    except Exception as error:
        raise _damaged(where, error) from error


def _from_pillow(image: Image.Image, where: str) -> Grey:
    width, height = image.size
    if width * height == 0:
        raise HwrError(f"{where}: the image is {width} x {height} pixels: it holds nothing to read")
    if width * height > MAX_PIXELS:
        raise _too_large(where, f"{width} x {height} pixels")
    try:
        frames = 1 if image.format in _ONE_PICTURE_FORMATS else getattr(image, "n_frames", 1)
        if frames == 1:
            image.load()
            return _grey_levels(ImageOps.exif_transpose(image), where, image.format)
    except HwrError:
        raise
    except Exception as error:
        raise _damaged(where, error) from error
    raise HwrError(f"{where}: holds {frames} frames or pages: extract one frame as an image file of its own")


def _grey_levels(image: Image.Image, where: str, file_format: str | None) -> Grey:
    """Converts a loaded Pillow image of any mode; file_format is that of the file it came from."""
    if image.mode.startswith("I;16") or (image.mode == "I" and file_format == "PPM"):  # levels 0..65535 either way
        levels = np.asarray(image)
        used = int(levels.max(initial=0)).bit_length()  # many a camera has 10 or 12 bits, many a program writes 8
        return (levels >> max(0, used - 8)).astype(np.uint8)
    if image.mode in ("I", "F"):
        return _stretched(np.asarray(image, np.float64), where)
    if image.has_transparency_data:
        return _on_background(image.convert("RGBA"))
    if image.mode == "LAB":
        return np.array(image.getchannel("L"))
    if image.mode not in ("1", "L", "RGB", "YCbCr"):
        image = image.convert("RGB")
    return np.array(image.convert("L"))


def _stretched(levels: npt.NDArray[np.float64], where: str) -> Grey:
    finite = np.isfinite(levels)
    if not finite.any():
        raise HwrError(f"{where}: the image holds no finite grey level: export it again as 8-bit")
    low, high = levels[finite].min(), levels[finite].max()
    levels = np.nan_to_num(levels, nan=low, posinf=high, neginf=low)
    span = high - low
    stretched: Grey = np.rint((levels - low) * (255 / span if span > 0 else 0)).astype(np.uint8)
    return stretched


def _on_background(image: Image.Image) -> Grey:
    """Composites an RGBA image on what its visible pixels call for: their own paper, else contrast to all the ink.

    Where a program made paper transparent, ink keeps a seam of nearly the paper's shade.
    """
    alpha = np.asarray(image.getchannel("A"), np.float32) / 255
    grey = np.asarray(image.convert("RGB").convert("L"), np.float32)
    seen = alpha > 0.5
    visible, step = grey[seen] if seen.any() else grey[alpha > 0], _step_outwards(grey, seen)
    darkest, lightest = np.percentile(visible, (2, 98)) if visible.size else (0.0, 0.0)
    varied = lightest - darkest > 64
    background = 255.0
    if varied and visible.size > alpha.size / 2:
        background = float(np.median(visible))
    elif abs(step) > 4:
        background = 255.0 if step > 0 else 0.0
    elif darkest > 255 - lightest:
        background = 0.0
    return np.rint(grey * alpha + background * (1 - alpha)).astype(np.uint8)


def _step_outwards(grey: npt.NDArray[np.float32], seen: npt.NDArray[np.bool_]) -> float:
    """By how much pixels at the edge of what is seen are lighter than those beside them that are not; their median."""
    edge = seen & ~np.logical_and.reduce(_neighbours(seen))
    found = []
    for near, within in zip(_neighbours(grey), _neighbours(seen & ~edge), strict=True):
        found.append((grey - near)[edge & within])
    steps = np.concatenate(found)
    return float(np.median(steps)) if steps.size else 0.0


def _neighbours(image: npt.NDArray[Any]) -> list[npt.NDArray[Any]]:
    """The image moved so that each pixel shows what is above, below, left and right of it; 0 outside."""
    padded = np.pad(image, 1)
    return [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]


def _from_array(array: npt.NDArray[Any]) -> Grey:
    where = f"the array of shape {array.shape} and type {array.dtype}"
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise HwrError(f"{where} is not an image: pass shape (H, W), (H, W, 3) or (H, W, 4)")
    if array.size == 0:
        raise HwrError(f"{where} holds no pixel: pass an image of at least 1 x 1")
    if array.dtype == np.bool_:
        array = array * np.uint8(255)
    elif np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):
            raise HwrError(f"{where} has values outside 0..1: scale them to 0..1, or pass uint8 levels 0..255")
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype != np.uint8:
        raise HwrError(f"{where} has an unsupported type: pass uint8, bool, or float in 0..1")
    return array.copy() if array.ndim == 2 else _from_pillow(Image.fromarray(np.ascontiguousarray(array)), where)


def _matches(pattern: str) -> list[Path]:
    """Image files named by one pattern, whose longest existing folder is taken literally."""
    shown = _shown(pattern)
    if not pattern:
        raise HwrError("an empty path was given as image: name an image file, a folder or a glob pattern")
    path = Path(pattern)
    if os.path.isfile(path):
        return [path]
    if os.path.isdir(path):
        base, rest = path, "*"
    else:
        base = next((parent for parent in path.parents if os.path.isdir(parent)), Path())
        rest = str(path.relative_to(base))
    names = glob.glob(rest, root_dir=base, recursive=True)
    matches = [base / name for name in names if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    matches = [match for match in matches if match.is_file()]
    if matches:
        return matches
    problem = f"{shown}: no image in this folder" if base == path else f"{shown}: no such image"
    where = "it" if base == path else _shown(str(base))
    raise HwrError(f"{problem}: {where} holds {_contents(base)}; name an image file, a folder or a glob pattern")


def _contents(folder: Path) -> str:
    try:
        names = sorted((_shown(p.name + "/" * p.is_dir()) for p in folder.iterdir()), key=_natural_key)
    except OSError as error:
        return f"files that cannot be listed ({_reason(error)})"
    if not names:
        return "nothing"
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _natural_key(path: str | Path) -> list[tuple[list[str | int], str]]:
    """Sort key that compares runs of digits as numbers, folder by folder."""
    return [
        ([int(run) if run.isdecimal() else run.casefold() for run in re.split(r"(\d+)", part)], part)
        for part in Path(path).parts
    ]


def _too_large(where: str, size: str) -> HwrError:
    return HwrError(f"{where}: too large ({size}, the limit is {MAX_PIXELS // 10**6} million): crop or scale it down")


def _damaged(where: str, error: Exception) -> HwrError:
    return HwrError(f"{where}: the image is damaged or cut off ({_reason(error)}): copy or export it again")


def _reason(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _shown(name: str) -> str:
    """A file's name on one line, whatever characters it contains."""
    return name if name.isprintable() else repr(name)
