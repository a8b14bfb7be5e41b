"""What a decoder answers for one line."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """A reading of one line.

    All confidences are the network's own: a language model or a constraint chooses the text, but does not raise them.

    Attributes:
        text: What was read, one code point per entry of the two tuples below.
        confidence: In [0, 1]: the probability of the text given the image, summed over all CTC paths, per character:
            ``p(text) ** (1 / max(1, len(text)))``, so that long and short lines compare. An empty text may be a sure
            reading of a blank line; confidence 0 with an empty text means that nothing could be read (no frames, or no
            text of the constraint's language fits into them).
        char_confidences: For each character, in [0, 1], the highest probability it has within its span.
        spans: For each character the frames [start, end) in which the most probable path of the text emits it. They
            are in order and disjoint; the blank frames between belong to nobody. CTC networks spike: a span says where
            a character is and is mostly narrower than its ink.
    """

    text: str
    confidence: float
    char_confidences: tuple[float, ...]
    spans: tuple[tuple[int, int], ...]

    def x_spans(self, pixels_per_frame: float, width: float = float("inf")) -> list[tuple[float, float]]:
        """The spans in pixels of the input; frame t covers [t * pixels_per_frame, (t + 1) * pixels_per_frame).

        Args:
            pixels_per_frame: Horizontal stride of the network; times the scale of the original, for pixels of that.
            width: Of the image without padding; spans are cut there.
        """
        return [(min(a * pixels_per_frame, width), min(b * pixels_per_frame, width)) for a, b in self.spans]
