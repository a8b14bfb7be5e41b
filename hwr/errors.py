"""The exceptions a user is meant to see."""

from __future__ import annotations

MOST = 2**32 - 1  # of a seed


class HwrError(Exception):
    """Something the user can mend: commands print it as one line and exit with status 1.

    The message says what is wrong, where (file, line or key) and how to mend it.
    """


class Interrupted(HwrError):
    """The user stopped what was going on; the message says how to go on."""


def check_seed(key: str, seed: object) -> None:
    """Raises :class:`HwrError` if a seed is none that NumPy and PyTorch take."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= MOST:
        raise HwrError(f"{key}={seed}: a whole number from 0 to {MOST} is needed")
