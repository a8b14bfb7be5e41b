"""What is written: character sets and error rates. Needs neither torch nor Lightning."""

from hwr.text.charset import Charset, code_points, make_charset, normalise
from hwr.text.errors import Confusion, ErrorRate, Operation, alignment, confusions, distance, words

__all__ = [
    "Charset",
    "Confusion",
    "ErrorRate",
    "Operation",
    "alignment",
    "code_points",
    "confusions",
    "distance",
    "make_charset",
    "normalise",
    "words",
]
