"""``python -m hwr.ngram run=RUN``: give a model of lines a language model of its training texts, for beam search."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from omegaconf import DictConfig

from hwr.config import command
from hwr.errors import HwrError

if TYPE_CHECKING:
    import numpy as np

    from hwr.data.lines.base import LineDataModule
    from hwr.decoding import BeamDecoder, CharNGram, GreedyDecoder
    from hwr.line_recognizer import LineRecognizer
    from hwr.text import ErrorRate

T = TypeVar("T")
WEIGHTS = (0.2, 0.4, 0.6, 0.8, 1.0)
BONUSES = (0.0, 0.5, 1.0, 1.5, 2.0)
TUNING_LINES = 300  # the weights are looked for on at most so many lines


class Line(NamedTuple):
    """A validation line: log-probabilities (T, C) of its frames, and its transcript."""

    log_probs: np.ndarray
    text: str


def run(cfg: DictConfig) -> None:
    """Trains the n-gram model, tunes its weight on the validation split, and puts both into the run's bundle."""
    from rich.console import Console
    from rich.table import Table

    from hwr import bundle
    from hwr.data.lines.base import LineDataModule
    from hwr.decoding import BeamDecoder, CharNGram, GreedyDecoder
    from hwr.files import write_json
    from hwr.line_recognizer import LineRecognizer
    from hwr.parts import data_of

    if not isinstance(cfg.order, int) or not 1 <= cfg.order <= 20:
        raise HwrError(f"order={cfg.order}: a whole number from 1 to 20 is needed")
    folder, config = Path(cfg.run) / "bundle", Path(cfg.run) / "config.yaml"
    model = bundle.load(cfg.run)
    if model.kind != "line":
        raise HwrError(f"run={cfg.run}: reads single characters; n-gram models are for models of lines")
    if not (folder / "bundle.json").is_file() or not config.is_file():
        raise HwrError(f"run={cfg.run}: a run directory with bundle/ and config.yaml is needed; did its training end?")
    more = read_lines(Path(cfg.text)) if cfg.text is not None else []
    recognizer = LineRecognizer(model)
    data = data_of(model, cfg.run)
    assert isinstance(data, LineDataModule)  # as the model is of lines
    data.check_feasible(recognizer.network)
    charset = model.charset
    ngram = CharNGram.train([*data.transcripts, *more], charset, cfg.order)
    lines, lost = outputs(data, recognizer), [line.text for line in data.sets["val"].lost]

    weight, bonus = tune(lines, ngram)
    decoders: dict[str, GreedyDecoder | BeamDecoder] = {
        "greedy": GreedyDecoder(charset),
        "beam": BeamDecoder(charset),
        "beam and n-grams": BeamDecoder(charset, model=ngram, weight=weight, bonus=bonus),
    }
    rates = {name: read(lines, decoder, lost) for name, decoder in decoders.items()}
    (folder / "ngram.json").unlink(missing_ok=True)  # first away and last back: without it there is no n-gram model
    ngram.save(folder / "ngram.npz")
    cers = {f"val/cer {name}": rate.cer for name, rate in rates.items()}
    write_json(folder / "ngram.json", {"weight": weight, "bonus": bonus, "order": ngram.order, **cers})

    table = Table("validation", "CER", "WER")
    for name, rate in rates.items():
        table.add_row(name, f"{rate.cer:.2%}", f"{rate.wer:.2%}")
    console = Console()
    console.print(table)
    texts = len(data.transcripts) + len(more)
    console.print(f"order {ngram.order} from {texts:,} texts, weight {weight:g}, bonus {bonus:g}", highlight=False)
    console.print(f"{folder / 'ngram.npz'}", soft_wrap=True, highlight=False, markup=False)
    next_ = f"Next:\n  python -m hwr.predict model={cfg.run} decoder=beam images=YOUR_LINE.png"
    console.print(next_, soft_wrap=True, highlight=False, markup=False)


def read_lines(path: Path) -> list[str]:
    """The lines of a text file.

    Raises:
        HwrError: If it cannot be read as UTF-8.
    """
    try:
        return path.expanduser().read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise HwrError(f"text={path}: not UTF-8 (byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise HwrError(f"text={path}: cannot be read ({error.strerror})") from None


def outputs(data: LineDataModule, recognizer: LineRecognizer) -> list[Line]:
    """What the network says of each validation line."""
    from hwr.data.lines.batches import WidthOrder

    part = data.sets["val"]
    lines = []
    batches = list(WidthOrder(part.widths, columns=8000, shuffle=False))
    for positions in _progress(batches, "Validation lines"):
        log_probs, frames = recognizer.log_probs([part.image(i) for i in positions])
        for i, values, length in zip(positions, log_probs.numpy(), frames.tolist(), strict=True):
            lines.append(Line(values[:length].copy(), part.texts[i]))
    return lines


def tune(lines: Sequence[Line], ngram: CharNGram) -> tuple[float, float]:
    """Weight and bonus of the fewest character errors; 0 and 0 if none is better than no language model."""
    import numpy as np

    from hwr.decoding import BeamDecoder

    some = np.random.default_rng(0).permutation(len(lines))[:TUNING_LINES]
    chosen = [lines[i] for i in some]
    found: dict[tuple[float, float], float] = {}
    for weight, bonus in _progress([(0.0, 0.0), *product(WEIGHTS, BONUSES)], "Weights"):
        model = ngram if weight else None
        decoder = BeamDecoder(ngram.charset, model=model, weight=weight, bonus=bonus)
        found[weight, bonus] = read(chosen, decoder).cer
    return min(found, key=lambda pair: (found[pair], pair))


def read(lines: Iterable[Line], decoder: GreedyDecoder | BeamDecoder, lost: Iterable[str] = ()) -> ErrorRate:
    """Error rates of a decoder; the lost texts, of lines that cannot be read at all, count as wrong."""
    import torch

    from hwr.decoding import BeamDecoder
    from hwr.text import ErrorRate

    rate = ErrorRate()
    for line in lines:
        if isinstance(decoder, BeamDecoder):  # confidences are not needed
            text = decoder.charset.decode(decoder.search(line.log_probs)[0][0])
        else:
            text = decoder(torch.from_numpy(line.log_probs)[None], [len(line.log_probs)])[0].text
        rate.add(line.text, text)
    for text in lost:
        rate.add(text, "")
    return rate


def _progress(items: Sequence[T], what: str) -> Iterable[T]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, what, console=console, disable=not console.is_terminal)


main = command("ngram", run)

if __name__ == "__main__":
    main()
