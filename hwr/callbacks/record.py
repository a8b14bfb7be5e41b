"""What a run is, written once it is one."""

from __future__ import annotations

from collections.abc import Callable

from lightning import Callback, LightningModule, Trainer


class Record(Callback):
    """Writes what a run is when its training begins: what is refused before leaves that of an earlier run as it was.

    Args:
        write: Called in the first process.
    """

    def __init__(self, write: Callable[[], None]) -> None:
        self._write = write

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A checkpoint and the other callbacks have been accepted by now."""
        if trainer.is_global_zero:
            self._write()
