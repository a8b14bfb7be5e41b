"""The exceptions a user is meant to see."""

from __future__ import annotations


class HwrError(Exception):
    """Something the user can mend: commands print it as one line and exit with status 1.

    The message says what is wrong, where (file, line or key) and how to mend it.
    """


class Interrupted(HwrError):
    """The user stopped what was going on; the message says how to go on."""
