"""Readers of line data sets: each gives items to train on and a list of what it rejected."""

from hwr.data.lines.items import (
    LineImage,
    LineItem,
    Lines,
    Rejected,
    Stamp,
    check_disjoint,
    fingerprint,
    right_to_left,
)

__all__ = ["LineImage", "LineItem", "Lines", "Rejected", "Stamp", "check_disjoint", "fingerprint", "right_to_left"]
