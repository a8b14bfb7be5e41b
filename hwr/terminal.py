"""What a command that trains many models shows, and what it keeps for a log."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def told_elsewhere(log: Path, title: str) -> Iterator[None]:
    """Lets what a run prints go into a file; a terminal shows what is going on."""
    from rich.console import Console

    log.parent.mkdir(parents=True, exist_ok=True)
    console = Console(file=sys.stderr)
    status = console.status(f"{title}: {log}") if console.is_terminal else contextlib.nullcontext()
    file = log.open("a", encoding="utf-8", buffering=1)
    with status, file, contextlib.redirect_stdout(file), contextlib.redirect_stderr(file):
        yield


def duration(seconds: float) -> str:
    """Seconds, minutes or hours, whichever reads best."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
