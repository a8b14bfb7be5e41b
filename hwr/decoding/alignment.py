"""Where in the frames a text lies, how probable it is, and the hypotheses made of both."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import ctc_loss

from hwr.decoding.hypothesis import Hypothesis
from hwr.text import Charset

_IMPOSSIBLE = -1e6  # instead of -inf, so that a constraint's text has a path even then


def checked(log_probs: Tensor, lengths: Tensor | Sequence[int], charset: Charset) -> tuple[Tensor, np.ndarray]:
    """Brings what a network gave into the form that decoders work on.

    Args:
        log_probs: (B, T, C), any float type and device; log_softmax over C, -inf allowed.
        lengths: (B,) frames that count, at most T.
        charset: Whose ``num_classes`` is C.

    Returns:
        log_probs on the CPU as float32 or float64, lengths as int64 (B,).

    Raises:
        ValueError: If shapes, lengths or values cannot be right.
    """
    log_probs = log_probs.detach().cpu()
    log_probs = log_probs if log_probs.dtype == torch.float64 else log_probs.float()
    frames = np.asarray(torch.as_tensor(lengths).cpu(), dtype=np.int64)
    if log_probs.ndim != 3 or log_probs.shape[2] != charset.num_classes or frames.shape != log_probs.shape[:1]:
        shapes = f"{tuple(log_probs.shape)} with {frames.shape} lengths"
        raise ValueError(f"log-probabilities (B, T, {charset.num_classes}) and B lengths expected, not {shapes}")
    if ((frames < 0) | (frames > log_probs.shape[1])).any():
        raise ValueError(f"lengths must lie between 0 and {log_probs.shape[1]} frames: {frames.tolist()}")
    if log_probs.numel() and not log_probs.amax() <= 1e-3:  # NaN too
        raise ValueError("log-probabilities must be at most 0 and not NaN: apply log_softmax to the network's output")
    return log_probs, frames


def best_path(log_probs: np.ndarray, lengths: np.ndarray, labels: Sequence[Sequence[int]]) -> np.ndarray:
    """The most probable CTC path of each given text (forced alignment, Viterbi over the trellis of Graves 2006).

    Args:
        log_probs: (B, T, C).
        lengths: (B,) frames of each line.
        labels: Indices of each text, from 1.

    Returns:
        int64 (B, T): the class of each frame, blank after the end; all blank where the text does not fit.
    """
    rows, steps = log_probs.shape[:2]
    sizes = np.array([len(text) for text in labels], dtype=np.int64)
    states = np.zeros((rows, 2 * int(sizes.max(initial=0)) + 1), dtype=np.int64)  # blank, a, blank, b, blank ...
    for row, text in enumerate(labels):
        states[row, 1 : 2 * len(text) : 2] = text
    path = np.zeros((rows, steps), dtype=np.int64)
    if not steps:
        return path
    skips = np.zeros(states.shape, dtype=bool)  # from one character to a different one, without a blank between
    skips[:, 3::2] = states[:, 3::2] != states[:, 1:-2:2]

    at, back = np.arange(rows), np.zeros((steps, *states.shape), dtype=np.int8)
    score = np.full(states.shape, -np.inf)
    score[:, :2] = np.maximum(log_probs[at[:, None], 0, states[:, :2]], _IMPOSSIBLE)
    last = score.copy()  # of each line, at its own last frame
    candidates = np.full((3, *states.shape), -np.inf)
    for t in range(1, steps):
        candidates[0] = score
        candidates[1, :, 1:] = score[:, :-1]
        candidates[2, :, 2:] = np.where(skips[:, 2:], score[:, :-2], -np.inf)
        back[t] = candidates.argmax(0)
        score = candidates.max(0) + np.maximum(log_probs[at[:, None], t, states], _IMPOSSIBLE)
        last = np.where((t < lengths)[:, None], score, last)

    final, before = last[at, 2 * sizes], last[at, np.maximum(2 * sizes - 1, 0)]
    state = 2 * sizes - ((before > final) & (sizes > 0))
    fits = np.maximum(final, before) > -np.inf
    for t in range(steps - 1, -1, -1):
        inside = (t < lengths) & fits
        path[inside, t] = states[inside, state[inside]]
        state = state - np.where(inside, back[t, at, state], 0)
    return path


def hypotheses(log_probs: Tensor, lengths: np.ndarray, path: np.ndarray, charset: Charset) -> list[Hypothesis]:
    """Reads off the text of each path, with spans and confidences.

    Args:
        log_probs: (B, T, C) on the CPU.
        lengths: (B,) frames of each line.
        path: int (B, T), a class for each frame, blank after the end.
        charset: Names the classes.
    """
    rows, steps = path.shape
    if not rows or not steps:
        return [Hypothesis("", 0.0, (), ())] * rows
    flat = np.pad(path, ((0, 0), (0, 1))).ravel()  # one blank after each line, so that runs end there
    starts = np.flatnonzero((flat != 0) & (flat != np.roll(flat, 1)))
    ends = np.flatnonzero((flat != 0) & (flat != np.roll(flat, -1))) + 1
    along = log_probs.gather(2, torch.from_numpy(path)[:, :, None])[:, :, 0]  # (B, T)
    values = np.pad(along.exp().numpy(), ((0, 0), (0, 1))).ravel()
    peaks = np.maximum.reduceat(values, np.stack([starts, ends], 1).ravel())[::2] if len(starts) else values[:0]

    counts = np.bincount(starts // (steps + 1), minlength=rows)
    frames = torch.from_numpy(np.maximum(lengths, 1))  # ctc_loss refuses 0; such lines are answered below
    targets = torch.from_numpy(flat[starts])
    loss = ctc_loss(log_probs.transpose(0, 1), targets, frames, torch.from_numpy(counts), reduction="none")
    per_character = (-loss.double().numpy() / np.maximum(counts, 1)).clip(max=0)
    confidence = np.where(lengths > 0, np.exp(per_character), 0.0).tolist()

    indices, peak_list = flat[starts].tolist(), peaks.clip(0, 1).tolist()
    begin, end = (starts % (steps + 1)).tolist(), (ends - starts + starts % (steps + 1)).tolist()
    bounds = [0, *np.cumsum(counts).tolist()]
    return [
        Hypothesis(
            charset.decode(indices[a:b]),
            confidence[row],
            tuple(peak_list[a:b]),
            tuple(zip(begin[a:b], end[a:b], strict=True)),
        )
        for row, (a, b) in enumerate(pairwise(bounds))
    ]
