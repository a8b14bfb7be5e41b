"""From log-probabilities of frames to text: greedy, and one beam search with a constraint and a language model."""

from hwr.decoding.alignment import best_path, hypotheses
from hwr.decoding.beam import BeamDecoder, LanguageModel
from hwr.decoding.constraints import Automaton, Constraint, Lexicon, Regex
from hwr.decoding.greedy import GreedyDecoder
from hwr.decoding.hypothesis import Hypothesis
from hwr.decoding.ngram import CharNGram

__all__ = [
    "Automaton",
    "BeamDecoder",
    "CharNGram",
    "Constraint",
    "GreedyDecoder",
    "Hypothesis",
    "LanguageModel",
    "Lexicon",
    "Regex",
    "best_path",
    "hypotheses",
]
