"""The decoders that ``decoder=greedy`` and ``decoder=beam`` name, made for one model of lines."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from hwr.bundle import Bundle
from hwr.decoding import BeamDecoder, CharNGram, GreedyDecoder, Hypothesis, Lexicon, Regex
from hwr.decoding.constraints import Constraint
from hwr.errors import HwrError

Decoder = Callable[[Tensor, Tensor], list[Hypothesis]]


def greedy(model: Bundle) -> GreedyDecoder:
    """The most probable path."""
    return GreedyDecoder(model.charset)


def beam(
    model: Bundle,
    width: int | None = None,
    lexicon: str | None = None,
    separators: str | None = " ",
    regex: str | None = None,
    lm: str | None = None,
    lm_weight: float | None = None,
    bonus: float | None = None,
) -> BeamDecoder:
    """Beam search, with the n-gram model that ``python -m hwr.ngram`` left in the bundle, if any.

    A regular expression describes what the bundle's n-gram model has never seen; with one it is left aside, unless
    ``lm_weight`` asks for it.

    Args:
        model: The model of lines.
        width: Number of prefixes kept after each frame; None is 10, or 100 with a lexicon or an expression.
        lexicon: A file of words, one a line, UTF-8: nothing else is read.
        separators: Between words of the lexicon; with None or "" an image shows exactly one of its entries.
        regex: What an image shows matches this as a whole, see :class:`hwr.decoding.Regex`.
        lm: File of another :class:`hwr.decoding.CharNGram`.
        lm_weight: Its weight; None is the tuned one, or 0.5 for a file.
        bonus: In nats for each character; None is the tuned one, or 0 for a file.

    Raises:
        HwrError: If a file cannot be used, the expression is wrong, or the n-gram model is of another charset.
    """
    if lexicon is not None and regex is not None:
        raise HwrError("decoder.lexicon and decoder.regex cannot both be given; keep one")
    if width is None:
        width = 10 if lexicon is None and regex is None else 100
    if isinstance(width, bool) or not isinstance(width, int) or width < 1:
        raise HwrError(f"decoder.width={width}: a whole number above 0 is needed")
    for name, value in {"lm_weight": lm_weight, "bonus": bonus}.items():
        if value is not None and not (isinstance(value, int | float) and math.isfinite(value)):
            raise HwrError(f"decoder.{name}={value}: a number is needed")
    if lm_weight is not None and lm_weight < 0:
        raise HwrError(f"decoder.lm_weight={lm_weight}: at least 0 is needed")
    constraint: Constraint | None = Regex(regex) if regex is not None else None
    if lexicon is not None:
        constraint = read_lexicon(Path(lexicon), separators or "")
    ngram, tuned = None, {"weight": 0.5, "bonus": 0.0}
    if lm is not None:
        ngram = CharNGram.load(Path(lm).expanduser())
    elif model.ngram is not None and (regex is None or lm_weight):
        ngram, tuned = CharNGram.load(model.ngram), read_tuning(model.ngram)
    if ngram is not None and ngram.charset != model.charset:
        raise HwrError(
            f"{lm or model.ngram}: an n-gram model of another charset than the network's; "
            "make one for this model with python -m hwr.ngram run=RUN"
        )
    weight = tuned["weight"] if lm_weight is None else lm_weight
    extra = tuned["bonus"] if bonus is None else bonus
    if ngram is None or not weight:
        ngram = None
        if lm_weight or bonus:
            key = "lm_weight" if lm_weight else "bonus"
            mend = "make one with python -m hwr.ngram run=RUN, or give decoder.lm=FILE"
            raise HwrError(f"decoder.{key}: there is no n-gram model that it would weigh; {mend}")
    cutoff = 8.0 if constraint is None else 20.0  # what is allowed may be far less probable than what is not
    try:
        return BeamDecoder(model.charset, width, constraint, ngram, weight, extra, cutoff)
    except HwrError as error:
        raise HwrError(f"{lexicon}: {error}" if lexicon is not None else str(error)) from None


def read_lexicon(path: Path, separators: str) -> Lexicon:
    """Reads a file of words, one a line.

    Raises:
        HwrError: If it cannot be read or is no lexicon.
    """
    try:
        return Lexicon(path.expanduser().read_text(encoding="utf-8-sig").splitlines(), separators)
    except UnicodeDecodeError as error:
        raise HwrError(f"{path}: not UTF-8 (byte {error.start}); save it as UTF-8, one word a line") from None
    except OSError as error:
        raise HwrError(f"decoder.lexicon={path}: cannot be read ({error.strerror})") from None
    except HwrError as error:
        raise HwrError(f"{path}: {error}") from None


def read_tuning(ngram: Path) -> dict[str, float]:
    """Weight and bonus of the n-gram model in a bundle, from the ``ngram.json`` beside it.

    Raises:
        HwrError: If the file is damaged.
    """
    path = ngram.with_suffix(".json")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        found = {name: float(content[name]) for name in ("weight", "bonus")}
        if not math.isfinite(found["bonus"]) or not 0 <= found["weight"] < math.inf:
            raise ValueError(f"weight {found['weight']}, bonus {found['bonus']}")
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HwrError(f"{path}: damaged ({error}); make it again with python -m hwr.ngram run=RUN") from None
