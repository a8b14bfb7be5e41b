"""Lines that are made up: strings of real digits, and text drawn with fonts."""

from __future__ import annotations

import shutil
import unicodedata
from itertools import pairwise
from pathlib import Path

import cv2
import hydra
import matplotlib
import numpy as np
import pytest
from conftest import write_idx
from HersheyFonts import HersheyFonts
from PIL import Image, ImageDraw, ImageFont

from hwr.config import compose
from hwr.data.lines.batches import LineBatch, WidthOrder
from hwr.data.lines.digit_strings import DigitLines, DigitStrings, Hand, embedded
from hwr.data.lines.endless import EndlessLines, EndlessSet
from hwr.data.lines.outlines import OutlineFont
from hwr.data.lines.strokes import FONTS as STROKE_FONTS
from hwr.data.lines.strokes import StrokeFont
from hwr.data.lines.synthetic import Synthetic, TextLines, drawable, read_text
from hwr.errors import HwrError
from hwr.experiment import fit
from hwr.line_preprocess import LinePreprocess
from hwr.networks import CRNN
from hwr.text import normalise

FONTS = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
FEW = ["data.train_lines=60", "data.val_lines=12", "data.test_lines=12"]
STEADY = Hand(scale=(0.7, 0.7), gap=(0.4, 0.4), slant=0, wobble=0)


def make(name: str, *overrides: str, seed: int = 1) -> EndlessLines:
    cfg = compose("train", [f"data={name}", *FEW, *overrides], run_dir="unused")
    return hydra.utils.instantiate(cfg.data, _convert_="all", seed=seed)


def ready(name: str, *overrides: str, seed: int = 1) -> EndlessLines:
    data = make(name, *overrides, seed=seed)
    data.setup()
    return data


@pytest.fixture(scope="module", params=["digit_strings", "synthetic"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def data(name: str) -> EndlessLines:
    return ready(name)


def same(a: LineBatch, b: LineBatch) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a, b, strict=True))


# What both have in common


def test_a_position_always_gives_the_same_line(name: str, data: EndlessLines) -> None:
    again = ready(name)
    for positions in ([3, 1, 59], [60 + 3, 60 * 7 + 1]):
        assert same(data.sets["train"][positions], again.sets["train"][positions])
    for split in ("val", "test"):
        assert same(data.sets[split][list(range(12))], again.sets[split][list(range(12))])


def test_the_second_epoch_is_new_and_as_long(data: EndlessLines) -> None:
    train = data.sets["train"]
    assert isinstance(train, EndlessSet)
    first, second = ([train.line(i + start) for i in range(60)] for start in (0, 60))
    assert sum(a[0] == b[0] for a, b in zip(first, second, strict=True)) < 5
    assert [text for text, _ in first] == train.texts
    widths = np.array([image.shape[1] for _, image in second])
    assert np.corrcoef(widths, train.widths)[0, 1] > 0.7  # so that batches hold lines of similar width
    assert 0.8 < widths.mean() / train.widths.mean() < 1.25


def test_another_seed_trains_on_other_lines_but_is_judged_on_the_same(name: str, data: EndlessLines) -> None:
    other = ready(name, seed=2)
    assert other.sets["train"].texts != data.sets["train"].texts
    for split in ("val", "test"):
        assert same(other.sets[split][[0, 5]], data.sets[split][[0, 5]])
        assert other.sets[split].texts == data.sets[split].texts
    assert data.sets["val"].texts != data.sets["test"].texts


def test_a_resumed_order_sees_what_an_unbroken_one_would(data: EndlessLines) -> None:
    def loader():
        return data.loader("train")

    unbroken, resumed = loader(), loader()
    assert isinstance(unbroken.sampler, WidthOrder)
    epochs = []
    for epoch in range(3):
        unbroken.sampler.set_epoch(epoch)
        epochs.append(list(unbroken))
    resumed.sampler.set_epoch(2)
    assert all(same(a, b) for a, b in zip(resumed, epochs[2], strict=True))
    ids = [sorted(np.concatenate([batch.ids for batch in epoch]).tolist()) for epoch in epochs]
    assert ids == [list(range(60 * e, 60 * (e + 1))) for e in range(3)]  # no line comes twice


def test_labels_widths_and_pixels_of_a_batch(data: EndlessLines) -> None:
    train = data.sets["train"]
    positions = [61, 7, 130]
    batch = train[positions]
    labels = np.split(batch.targets.numpy(), np.cumsum(batch.lengths.numpy())[:-1])
    for row, position in enumerate(positions):
        text, image = train.line(position)
        assert data.charset.decode(labels[row].tolist()) == text == normalise(text)
        width = int(batch.widths[row])
        assert image.shape == (data.preprocess.height, width)
        np.testing.assert_array_equal(batch.images[row, :, :width], image)
        assert not batch.images[row, :, width:].any()
        assert image.max() > 200  # there is ink
        assert np.median(image) < 60  # on paper of 0


def test_every_training_line_has_the_frames_that_ctc_needs(name: str) -> None:
    data = ready(name, "data.length=[30,30]" if name == "synthetic" else "data.length=[9,9]")
    network = CRNN(len(data.classes) + 1, data.preprocess.height, [{"channels": 2, "pool": [2, 16]}])
    data.check_feasible(network)
    assert next(iter(data.sets)) == "train"
    assert len(data.sets["train"]) == 60
    for position in range(120):
        text, image = data.sets["train"].line(position)
        repeats = sum(a == b for a, b in pairwise(text))
        assert -(-image.shape[1] // 16) >= len(text) + repeats
    for split in ("val", "test"):  # what is too narrow there counts as wrong
        assert len(data.sets[split]) + len(data.sets[split].lost) == 12


def test_sizes_are_recorded(data: EndlessLines, tmp_path: Path) -> None:
    data.record(tmp_path / "splits.json")
    assert '"train": 60' in (tmp_path / "splits.json").read_text()
    assert [len(data.sets[split]) for split in ("train", "val", "test")] == [60, 12, 12]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.length=[5,3]", r"data\.length must be two numbers, the lower first, from 1, not \[5, 3\]"),
        ("data.length=[0,3]", "data.length must be two numbers"),
        ("data.val_lines=0", "must be at least 1"),
    ],
)
def test_wrong_settings(name: str, override: str, message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        make(name, override)
    assert isinstance(caught.value.__cause__, HwrError)


def test_a_charset_that_lacks_what_is_drawn_is_refused(tmp_path: Path) -> None:
    with pytest.raises(HwrError, match=r"charset lacks .* of the texts to be drawn"):
        fit(compose("train", ["experiment=synthetic_crnn", *FEW, "charset=digits"], run_dir=tmp_path))


@pytest.mark.parametrize("experiment", ["digit_strings_crnn", "synthetic_crnn"])
def test_an_experiment_trains(experiment: str, tmp_path: Path) -> None:
    more = ["trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.max_epochs=2", "data.columns=1500"]
    limits = [f"+trainer.limit_{part}_batches=2" for part in ("train", "val", "test")]
    result = fit(compose("train", [f"experiment={experiment}", *FEW, *more, *limits], run_dir=tmp_path))
    assert result.trainer.global_step == 4
    assert 0 <= result.metrics["test/cer"] <= 2
    assert (result.run_dir / "bundle" / "weights.safetensors").is_file()


# Digits


def test_no_image_of_a_digit_is_in_two_splits() -> None:
    from sklearn.datasets import load_digits

    banks = embedded(Path("unused"), False)
    sizes = {name: len(images) for name, (images, _) in banks.items()}
    assert sizes == {"train": 1258, "val": 180, "test": 359}
    labels = np.concatenate([banks[name][1] for name in ("train", "val", "test")])
    np.testing.assert_array_equal(labels, load_digits().target)  # in the file's order: writers stay together
    seen = {name: {image.tobytes() for image in images} for name, (images, _) in banks.items()}
    assert not seen["train"] & (seen["val"] | seen["test"])
    assert not seen["val"] & seen["test"]


def ink_runs(line: np.ndarray) -> list[np.ndarray]:
    """The pieces of a line between empty columns."""
    columns = np.flatnonzero(np.diff(np.concatenate([[0], (line > 60).any(0).astype(int), [0]])))
    return [line[:, a:b] for a, b in columns.reshape(-1, 2)]


def framed(image: np.ndarray) -> np.ndarray:
    """Ink cropped and scaled to 16 x 16, of length 1."""
    rows, columns = (np.flatnonzero((image > 60).any(axis)) for axis in (1, 0))
    crop = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    vector = np.asarray(Image.fromarray(crop).resize((16, 16)), float).ravel()
    return vector / np.linalg.norm(vector)


def test_the_digits_of_a_line_are_those_of_its_text() -> None:
    """Each piece of a line that is spaced out looks most like a genuine digit of the class that the text says."""
    images, labels = embedded(Path("unused"), False)["test"]
    source = DigitLines((images, labels), STEADY, LinePreprocess(height=32))
    references = np.stack([framed(image) for image in images])
    right = total = 0
    for i in range(40):
        rng = np.random.default_rng(i)
        text = source.text(rng, 6)
        pieces = ink_runs(source.compose(rng, text))
        assert len(pieces) == 6
        found = [int(labels[np.argmax(references @ framed(piece))]) for piece in pieces]
        right += sum(int(c) == digit for c, digit in zip(text, found, strict=True))
        total += 6
    assert right / total > 0.97


def test_digits_touch_lean_and_leave_the_baseline_only_when_asked_to() -> None:
    bank = embedded(Path("unused"), False)["train"]
    rng = np.random.default_rng(0)
    apart, touching, leaning, wobbly = (
        DigitLines(bank, hand, LinePreprocess(height=32))
        for hand in (
            STEADY,
            Hand((0.7, 0.7), (-0.2, -0.2), 0, 0),
            Hand((0.5, 0.5), (0.4, 0.4), 30, 0),
            Hand((0.5, 0.5), (0.4, 0.4), 0, 0.3),
        )
    )
    assert {len(ink_runs(apart.compose(rng, "12345678"))) for _ in range(20)} == {8}
    assert np.mean([len(ink_runs(touching.compose(rng, "12345678"))) for _ in range(20)]) < 4

    def tops(source: DigitLines) -> float:
        return float(
            np.mean(
                [
                    np.std([np.argmax((p > 60).any(1)) for p in ink_runs(source.compose(rng, "00000000"))])
                    for _ in range(20)
                ]
            )
        )

    assert tops(apart) < 0.8 < tops(wobbly)
    slopes = []
    for _ in range(40):
        for piece in ink_runs(leaning.compose(rng, "1111")):
            y, x = np.nonzero(piece > 100)
            slopes.append(np.polyfit(y, x, 1)[0])
    upright = [
        np.polyfit(*np.nonzero(piece > 100), 1)[0] for _ in range(40) for piece in ink_runs(apart.compose(rng, "1111"))
    ]
    assert np.std(slopes) > 1.3 * np.std(upright)


def test_mnist_gives_its_own_digits(mnist_root: Path) -> None:
    root = [f"data.root={mnist_root}", "data.download=false", "data.source=mnist"]
    data = ready("digit_strings", *root)
    banks = [source.digits for source in data.sources().values()]
    assert [sum(map(len, digits)) for digits in banks] == [367, 33, 100]
    assert data.classes == tuple("0123456789")
    assert data.sets["train"][[0, 61]].images.shape[1] == 32
    write_idx(mnist_root / "MNIST" / "raw" / "t10k-labels-idx1-ubyte", np.zeros(100))
    with pytest.raises(HwrError, match=r"no image of the digits 1, 2, .* take another"):
        make("digit_strings", *root).setup()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.source=nist", "data.source=nist: there are digits, mnist"),
        ("data.scale=[0.5,1.5]", "at most 1"),
        ("data.gap=[-2,0]", "data.gap must be two numbers"),
        ("data.slant=90", "data.slant must be 0 to 60"),
    ],
)
def test_wrong_settings_of_digits(override: str, message: str) -> None:
    with pytest.raises(Exception, match=message) as caught:
        make("digit_strings", override)
    assert isinstance(caught.value.__cause__, HwrError)


def test_missing_mnist_is_told(tmp_path: Path) -> None:
    data = make("digit_strings", "data.source=mnist", f"data.root={tmp_path}", "data.download=false")
    assert isinstance(data, DigitStrings)
    with pytest.raises(HwrError, match=r"MNIST: no .*data\.root"):
        data.setup()


# Text


def text_file(folder: Path, lines: list[str]) -> Path:
    path = folder / "text.txt"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def test_validation_and_test_have_other_lines_of_the_text(tmp_path: Path) -> None:
    lines = [f"mot{i} suite{i}" for i in range(50)]
    data = ready("synthetic", f"data.text={text_file(tmp_path, lines)}")
    words = {name: {word for text in part.texts for word in text.split()} for name, part in data.sets.items()}
    whole = {word for line in lines for word in line.split()}
    cut = {name: found - whole for name, found in words.items()}
    assert not any(cut.values())
    assert not words["train"] & (words["val"] | words["test"])
    assert not words["val"] & words["test"]


def normalised(image: np.ndarray) -> np.ndarray:
    """Ink cropped, scaled to 48 x 400 and smoothed, of mean 0 and length 1."""
    rows, columns = (np.flatnonzero((image > 60).any(axis)) for axis in (1, 0))
    crop = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    plane = cv2.GaussianBlur(cv2.resize(crop, (400, 48), interpolation=cv2.INTER_AREA).astype(float), (0, 0), 2)
    plane -= plane.mean()
    return plane / np.linalg.norm(plane)


WORDS = ["maison", "jardin", "lettre", "voisin", "copier", "quatre", "monsieur", "wagon", "MAISON", "18 juin"]


@pytest.mark.parametrize("font", STROKE_FONTS)
def test_stroke_fonts_draw_what_the_package_draws(font: str) -> None:
    """The picture of a word looks like the package's own lines for that word, not for another one."""
    package = HersheyFonts()
    package.load_default_font(font)
    references = []
    for word in WORDS:
        sheet = np.zeros((120, 900), np.uint8)
        for start, end in package.lines_for_text(word):
            points = [tuple(int(3 * c) + 40 for c in point) for point in (start, end)]
            cv2.line(sheet, *points, 255, 4)
        references.append(normalised(sheet))
    ours = StrokeFont(font)
    rng = np.random.default_rng(0)
    for steady in (True, False):
        scores = np.array(
            [[float((normalised(ours.draw(rng, w, 80, steady)) * r).sum()) for r in references] for w in WORDS]
        )
        best = scores.argmax(1) == np.arange(len(WORDS))
        assert best.all() if steady else best.mean() >= 0.6
        if steady:
            assert scores.diagonal().min() > 0.85


def test_outline_fonts_draw_what_pillow_draws() -> None:
    font = OutlineFont(FONTS / "DejaVuSans.ttf", set("".join(WORDS)))
    reader = ImageFont.truetype(str(FONTS / "DejaVuSans.ttf"), 60)
    references = []
    for word in WORDS:
        sheet = Image.new("L", (900, 120))
        ImageDraw.Draw(sheet).text((20, 20), word, fill=255, font=reader)
        references.append(normalised(np.asarray(sheet)))
    rng = np.random.default_rng(0)
    for steady, least in ((True, 1.0), (False, 0.6)):
        found = [
            int(np.argmax([(normalised(font.draw(rng, word, 60, steady)) * r).sum() for r in references]))
            for word in WORDS
        ]
        assert np.mean(np.array(found) == np.arange(len(WORDS))) >= least


@pytest.mark.parametrize("name", ["cursive", "scriptc", "rowmans", "timesi"])
def test_accents_are_above_their_letter_and_cedillas_below(name: str) -> None:
    font = StrokeFont(name)
    for character in "éèêëàâäôöîïñùûüÿçÉÀÊÔÎÇ":
        letter, mark = unicodedata.normalize("NFD", character)
        plain, whole = (np.concatenate(font.glyphs[c].strokes) for c in (letter, character))
        if mark == "\u0327":
            assert whole[:, 1].max() > plain[:, 1].max() + 3
            assert whole[:, 1].min() == plain[:, 1].min()
        elif letter != "i":  # which loses its dot
            assert whole[:, 1].min() < plain[:, 1].min() - 3
            assert whole[:, 1].max() == plain[:, 1].max()
        assert font.glyphs[character].width == font.glyphs[letter].width
    dots = {c: sum(np.ptp(s[:, 1]) < 4 for s in font.glyphs[c].strokes) for c in "iï"}
    assert dots["ï"] >= 2
    shapes = [font.draw(np.random.default_rng(0), c, 60, steady=True) for c in "eéèêë"]
    assert len({shape.tobytes() for shape in shapes}) == 5


def test_the_built_in_text_has_french_and_english_numbers_and_punctuation() -> None:
    data = ready("synthetic")
    assert set("éèêëàâçîïôùûœ«»0123456789.,;:!?'()- azAZ").issubset(data.classes)
    assert isinstance(data, Synthetic)


def test_a_font_draws_only_texts_it_has_all_characters_of(tmp_path: Path) -> None:
    lines = ["ελληνικά γράμματα", "λόγος", "latin letters", "more words", "encore", "des mots"]
    fonts = [StrokeFont("rowmans"), OutlineFont(FONTS / "DejaVuSans.ttf", set("".join(lines)))]
    kept, able = drawable([*lines, "漢字"], fonts)
    assert kept == lines
    assert able == fonts
    asked: list[tuple[str, str]] = []

    class Watched:
        def __init__(self, font):
            self.name, self.characters, self.font = font.name, font.characters, font

        def draw(self, rng, text, size, steady=False):
            asked.append((self.name, text))
            return self.font.draw(rng, text, size, steady)

    source = TextLines(kept, [Watched(font) for font in fonts], LinePreprocess(height=32))
    for i in range(60):
        rng = np.random.default_rng(i)
        source.draw(rng, source.text(rng, 20))
    assert all(set(text) <= font.characters for font in fonts for name, text in asked if name == font.name)
    assert any("λ" in text for _, text in asked)
    assert {name for name, _ in asked} == {"rowmans", "DejaVuSans.ttf"}


def test_own_fonts_and_words_are_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "fonts" / "mine"
    folder.mkdir(parents=True)
    for font in ("DejaVuSans.ttf", "STIXSizOneSymReg.ttf"):  # letters; signs alone
        shutil.copy(FONTS / font, folder)
    lines = ["абв", "где", "жзи", "клм", "漢字", "cloche \x07"]
    settings = [f"data.text={text_file(tmp_path, lines)}", f"data.fonts={folder.parent}"]
    data = ready("synthetic", *settings)
    assert set(data.classes) - {" "} <= set("абвгдежзиклм")
    assert data.sets["train"].line(99)[1].max() > 200
    told = caplog.text
    assert "1 of 5 lines of text cannot be drawn: 字 (U+5B57)" in told or "漢 (U+6F22)" in told
    assert "line 6 is left out" in told
    assert "left out: cursive" in told
    assert "STIXSizOneSymReg.ttf" in told


def test_text_that_nothing_draws(tmp_path: Path) -> None:
    data = make("synthetic", f"data.text={text_file(tmp_path, ['漢', '字', '漢字', '字漢'])}")
    with pytest.raises(HwrError, match=r"of 4 lines the fonts can draw 0.*U\+6F22.*data\.fonts=FOLDER"):
        data.setup()


def test_text_files_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(HwrError, match=r"data\.text=.*none\.txt: cannot be read \(No such file"):
        read_text(tmp_path / "none.txt")
    with pytest.raises(HwrError, match="cannot be read"):
        read_text(tmp_path)
    for content, message in (("", "0 different lines"), ("a\na\nb\n", "2 different lines")):
        path = text_file(tmp_path, [content])
        with pytest.raises(HwrError, match=message):
            read_text(path)
    path.write_bytes("un\ndéjà\n".encode("latin-1"))
    with pytest.raises(HwrError, match=r"not UTF-8 \(byte 4\)"):
        read_text(path)
    path.write_bytes("\ufeffe\u0301te\u0301\r\nun  mot\r\n\r\ndeux".encode())
    assert read_text(path) == ["été", "un mot", "deux"]


def test_fonts_that_cannot_be_used(tmp_path: Path) -> None:
    def told(*overrides: str) -> str:
        data = make("synthetic", *overrides)
        with pytest.raises(HwrError) as caught:
            data.setup()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such folder" in told(f"data.fonts={tmp_path / 'none'}")
    (tmp_path / "fonts").mkdir()
    assert "no font in it" in told(f"data.fonts={tmp_path / 'fonts'}")
    (tmp_path / "fonts" / "bad.ttf").write_bytes(b"no font")
    assert "bad.ttf: not a font that can be read" in told(f"data.fonts={tmp_path / 'fonts'}")
    assert "there is no font comic; there are cursive" in told("data.hershey=[comic]")
    assert "there is no font greek" in told("data.hershey=[greek]")  # its a is an alpha
    with pytest.raises(Exception, match="nothing to draw with"):
        make("synthetic", "data.hershey=[]")
