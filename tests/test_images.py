"""Reading images: conversions against expected values, and one clear error for every kind of bad input."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hwr import images
from hwr.errors import HwrError
from hwr.images import list_images, read_grey


def png_bytes(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def fails(source: object, *words: str) -> str:
    """Reads a bad source; its error must be one line that contains the words."""
    with pytest.raises(HwrError) as caught:
        read_grey(source)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


GREY = (np.arange(48, dtype=np.uint8) * 5).reshape(6, 8)


@pytest.mark.parametrize("kind", ["str", "Path", "bytes", "Pillow", "array"])
def test_every_source_gives_the_same_levels(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "grey.png"
    Image.fromarray(GREY).save(path)
    sources = {"str": str(path), "Path": path, "bytes": path.read_bytes(), "Pillow": Image.open(path), "array": GREY}
    grey = read_grey(sources[kind])
    assert grey.dtype == np.uint8
    np.testing.assert_array_equal(grey, GREY)
    grey[0, 0] = 99  # writable, and not the caller's own array
    assert GREY[0, 0] == 0


def test_16_bit_keeps_the_upper_byte(tmp_path: Path) -> None:
    levels = np.array([[0, 255, 256, 32768, 65535]], np.uint16)
    for suffix in ("png", "tif"):
        Image.fromarray(levels).save(tmp_path / f"deep.{suffix}")
        np.testing.assert_array_equal(read_grey(tmp_path / f"deep.{suffix}"), [[0, 0, 1, 128, 255]])
    (tmp_path / "deep.pgm").write_bytes(b"P5 5 1 65535\n" + levels.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_grey(tmp_path / "deep.pgm"), [[0, 0, 1, 128, 255]])


def test_other_integers_and_floats_are_stretched(tmp_path: Path) -> None:
    Image.fromarray(np.array([[-1000, 0, 1000]], np.int32)).save(tmp_path / "i.tif")
    np.testing.assert_array_equal(read_grey(tmp_path / "i.tif"), [[0, 128, 255]])
    Image.fromarray(np.array([[0.25, 0.5, 1.25, np.nan, np.inf]], np.float32)).save(tmp_path / "f.tif")
    np.testing.assert_array_equal(read_grey(tmp_path / "f.tif"), [[0, 64, 255, 0, 255]])
    constant = Image.fromarray(np.full((2, 2), 7.0, np.float32))
    assert np.ptp(read_grey(constant)) == 0
    fails(Image.fromarray(np.full((2, 2), np.nan, np.float32)), "no finite grey level")


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "YCbCr", "HSV", "LAB", "RGBX"])
def test_every_mode_keeps_black_grey_and_white(mode: str) -> None:
    row = np.repeat(np.array([[0, 255]], np.uint8), 4, axis=0)
    if mode == "LAB":
        image = Image.merge("LAB", [Image.fromarray(plane) for plane in (row, np.zeros_like(row), np.zeros_like(row))])
    else:
        image = Image.fromarray(np.repeat(row[..., None], 3, 2)).convert(mode)
    np.testing.assert_allclose(read_grey(image).astype(int), row, atol=2)


def test_cmyk_jpeg_and_colour_weights(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (0, 0, 0, 255)).save(tmp_path / "black.jpg")
    assert read_grey(tmp_path / "black.jpg").max() <= 3
    red_green_blue = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_allclose(read_grey(red_green_blue).astype(int), [[76, 150, 29]], atol=1)


def alpha_image(ink: int, hidden: int) -> np.ndarray:
    pixels = np.full((8, 8, 4), hidden, np.uint8)
    pixels[..., 3] = 0
    pixels[2:6, 3] = (ink, ink, ink, 255)
    return pixels


@pytest.mark.parametrize("hidden", [0, 255])
def test_transparent_pixels_contrast_with_the_ink(hidden: int) -> None:
    dark = read_grey(alpha_image(20, hidden))
    assert dark[3, 3] == 20
    assert dark[0, 0] == 255
    light = read_grey(alpha_image(230, hidden))
    assert light[3, 3] == 230
    assert light[0, 0] == 0
    half = alpha_image(0, hidden)
    half[2:6, 3, 3] = 128
    assert abs(int(read_grey(half)[3, 3]) - 127) <= 1


@pytest.mark.parametrize("limit", [160, 225, 250])
@pytest.mark.parametrize("light_ink", [False, True])
def test_paper_that_was_made_transparent_comes_back(limit: int, light_ink: bool) -> None:
    levels = np.full((40, 60), 255.0)
    levels[10:30, 10:14] = levels[10:30, 30:34] = levels[18:22, 10:34] = 10
    blurred = cv2.GaussianBlur(levels, (0, 0), 1.5).astype(np.uint8)
    plain = 255 - blurred if light_ink else blurred
    seen = np.where(blurred >= limit, 0, 255).astype(np.uint8)
    grey = read_grey(np.dstack([plain, plain, plain, seen])).astype(int)
    assert grey[0, 0] == (0 if light_ink else 255)
    assert np.abs(grey - plain).max() <= 255 - limit


@pytest.mark.parametrize("rule", [(220, 40, 40), (255, 150, 0), (150, 150, 150), (250, 220, 0)])
@pytest.mark.parametrize("width", [4, 7, 12])
def test_ink_of_several_shades_and_widths_is_on_white(rule: tuple[int, int, int], width: int) -> None:
    """Dark strokes and a lighter, wider rule below them, both drawn on nothing."""
    pixels = np.zeros((80, 200, 4), np.uint8)
    pixels[10:40, 10:190:12] = pixels[10:40, 11:190:12] = (0, 0, 60, 255)
    pixels[60 : 60 + width, 10:190] = (*rule, 255)
    assert read_grey(pixels)[0, 0] == 255


def test_transparent_corners_take_the_colour_of_visible_paper() -> None:
    pixels = np.full((20, 20, 4), (210, 210, 210, 255), np.uint8)
    pixels[5:15, 9:11, :3] = 30
    pixels[:4, :4] = 0
    grey = read_grey(pixels)
    assert grey[0, 0] == 210
    assert grey[10, 10] == 30


def test_palette_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1, 1, 0]], np.uint8))
    image.putpalette([0, 0, 0, 10, 10, 10])
    image.save(tmp_path / "palette.png", transparency=0)
    np.testing.assert_array_equal(read_grey(tmp_path / "palette.png"), [[255, 10, 10, 255]])


@pytest.mark.parametrize(
    ("orientation", "expected"),
    [
        (1, GREY),
        (2, GREY[:, ::-1]),
        (3, GREY[::-1, ::-1]),
        (4, GREY[::-1]),
        (5, GREY.T),
        (6, np.rot90(GREY, -1)),
        (7, GREY[::-1, ::-1].T),
        (8, np.rot90(GREY)),
    ],
)
def test_exif_orientation(tmp_path: Path, orientation: int, expected: np.ndarray) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("png", "tif"):
        path = tmp_path / f"turned.{suffix}"
        Image.fromarray(GREY).save(path, exif=exif)
        np.testing.assert_array_equal(read_grey(path), expected)


def test_arrays() -> None:
    np.testing.assert_array_equal(read_grey(np.array([[True, False]])), [[255, 0]])
    np.testing.assert_array_equal(read_grey(np.array([[0.0, 0.5, 1.0]])), [[0, 128, 255]])
    np.testing.assert_array_equal(read_grey(np.ones((2, 3, 3), np.float32)), np.full((2, 3), 255))
    np.testing.assert_array_equal(read_grey(np.repeat(GREY[..., None], 3, 2)[:, ::2]), GREY[:, ::2])
    for array, words in [
        (np.zeros((0, 5), np.uint8), "holds no pixel"),
        (np.zeros((5, 0, 3), np.uint8), "holds no pixel"),
        (np.zeros(5, np.uint8), "not an image"),
        (np.zeros((2, 2, 2), np.uint8), "not an image"),
        (np.zeros((1, 2, 2, 3), np.uint8), "not an image"),
        (np.array([[0.0, 1.5]]), "outside 0..1"),
        (np.array([[0.0, np.nan]]), "outside 0..1"),
        (np.zeros((2, 2), np.int64), "unsupported type"),
        (np.zeros((2, 2), complex), "unsupported type"),
    ]:
        fails(array, words)


def test_bad_paths(tmp_path: Path) -> None:
    fails(tmp_path / "none.png", "none.png", "no such file")
    fails(str(tmp_path), str(tmp_path), "is a folder")
    (tmp_path / "empty.png").touch()
    fails(tmp_path / "empty.png", "empty.png", "0 bytes")
    fails(b"", "empty")
    fails(None, "NoneType")
    fails("a\0b.png")
    fails("x" * 5000 + ".png")
    fails(tmp_path / "line\nbreak.png", "line\\nbreak.png")
    os.mkfifo(tmp_path / "pipe.png")
    fails(tmp_path / "pipe.png", "not a regular file")


def test_not_an_image_or_damaged(tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("hello")
    fails(tmp_path / "text.png", "text.png", "not an image")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8))
    for suffix in ("png", "jpg", "tif", "bmp", "gif", "webp"):
        path = tmp_path / f"cut.{suffix}"
        noise.save(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
        fails(path, f"cut.{suffix}", "damaged or cut off")
    good = png_bytes(noise)
    for seed in range(60):  # whatever bytes are wrong: an image or an HwrError, nothing else
        damaged = bytearray(good)
        for place in np.random.default_rng(seed).integers(8, len(good), 5):
            damaged[place] ^= 0xFF
        with contextlib.suppress(HwrError):
            assert read_grey(bytes(damaged)).dtype == np.uint8


def test_several_frames(tmp_path: Path) -> None:
    frames = [Image.fromarray(GREY), Image.fromarray(255 - GREY)]
    for suffix in ("gif", "tif", "webp", "png"):
        path = tmp_path / f"frames.{suffix}"
        frames[0].save(path, save_all=True, append_images=frames[1:])
        fails(path, f"frames.{suffix}", "2 frames", "extract one frame")
    frames[0].save(tmp_path / "camera.jpg", "MPO", save_all=True, append_images=frames[1:])  # phones store gain maps so
    assert read_grey(tmp_path / "camera.jpg").shape == GREY.shape


def huge_png(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")  # pytest undoes the module's own filter
def test_huge_image_is_refused_by_its_header() -> None:
    fails(huge_png(10_001, 10_000), "10001 x 10000", "too large")
    fails(huge_png(60_000, 60_000), "too large")


def test_nothing_on_stderr(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(huge_png(9_700, 9_700))  # Pillow warns of this one; its missing data make it fail quickly
    code = f"from hwr.images import read_grey\ntry: read_grey({str(path)!r})\nexcept Exception as e: print(type(e))"
    root = Path(images.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("<class 'hwr.errors.HwrError'>\n", "")


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_list_images(tmp_path: Path) -> None:
    touch(tmp_path, "10.png", "2.png", "1.JPG", "notes.txt", ".hidden.png", "sub/3.png", "sub/deep/4.tif", "odd.xyz")

    def names(*patterns: str) -> list[str]:
        return [str(path.relative_to(tmp_path)) for path in list_images([tmp_path / pattern for pattern in patterns])]

    assert names("") == ["1.JPG", "2.png", "10.png"]
    assert names("*.png") == ["2.png", "10.png"]
    assert names("**/*.*") == ["1.JPG", "2.png", "10.png", "sub/3.png", "sub/deep/4.tif"]
    assert names("10.png", "*.png", "./2.png", "sub/../10.png") == ["2.png", "10.png"]
    assert names("odd.xyz") == ["odd.xyz"]
    assert list_images(str(tmp_path / "sub")) == [tmp_path / "sub/3.png"]


def test_list_images_takes_existing_names_literally(tmp_path: Path) -> None:
    touch(tmp_path, "[1].png", "1.png", "set[a]/7.png", "seta/8.png")
    assert list_images(tmp_path / "[1].png") == [tmp_path / "[1].png"]
    assert list_images(tmp_path / "[12].png") == [tmp_path / "1.png"]
    assert list_images(tmp_path / "set[a]/*.png") == [tmp_path / "set[a]/7.png"]


def test_list_images_says_what_is_there_instead(tmp_path: Path) -> None:
    touch(tmp_path, "a.txt", "b.tiff", *[f"c{i}.txt" for i in range(9)])
    with pytest.raises(HwrError, match=r"\*\.png.*holds a\.txt, b\.tiff, c0\.txt, c1\.txt, c2\.txt and 6 more"):
        list_images(tmp_path / "*.png")
    with pytest.raises(HwrError, match=r"none\.png.*a\.txt"):
        list_images([tmp_path / "b.tiff", tmp_path / "none.png"])
    (tmp_path / "void").mkdir()
    with pytest.raises(HwrError, match=r"void.*no image.*holds nothing"):
        list_images(tmp_path / "void")
    for nothing in ([], "", [""]):
        with pytest.raises(HwrError):
            list_images(nothing)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_sixteen_bits_that_hold_fewer(tmp_path: Path, bits: int) -> None:
    """As programs and cameras write them: the paper stays white."""
    levels = np.linspace(0, 2**bits - 1, 300).astype(np.uint16).reshape(20, 15)
    Image.fromarray(levels).save(tmp_path / "image.png")
    np.testing.assert_array_equal(read_grey(tmp_path / "image.png"), levels >> (bits - 8))
