"""The study on disk: one SQLite file in the folder of the sweep, and who may write it.

SQLite rather than Optuna's journal: a transaction that ``kill -9`` or a power cut breaks off is as if it had never been
begun, and the kernel gives its locks back. Half a line at the end of a journal spoils it once something is appended,
and its lock is a file that a killed process leaves behind.
"""

from __future__ import annotations

import fcntl
import sqlite3
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection

from hwr.errors import HwrError

NAME = "sweep"  # of the study; there is one in each file


class Storage:
    """The study of one folder.

    Args:
        folder: Of the sweep.
    """

    def __init__(self, folder: str | Path) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        path = Path(folder) / "study.db"
        connect = partial(sqlite3.connect, path, timeout=60, check_same_thread=False)  # a URL cannot hold every path
        self.base = RDBStorage("sqlite://", engine_kwargs={"creator": connect, "poolclass": sqlalchemy.NullPool})

    def create(self, directions: list[StudyDirection]) -> optuna.Study:
        """The study, new or as it is."""
        return optuna.create_study(storage=self.base, study_name=NAME, directions=directions, load_if_exists=True)

    def load(self, pruner: optuna.pruners.BasePruner | None = None) -> optuna.Study:
        """The study as a trial needs it."""
        return optuna.load_study(storage=self.base, study_name=NAME, pruner=pruner)

    def trial(self, study: optuna.Study, number: int) -> optuna.Trial:
        """One that has not ended, to go on with."""
        study_id = self.base.get_study_id_from_name(NAME)
        return optuna.Trial(study, self.base.get_trial_id_from_study_id_trial_number(study_id, number))


@contextmanager
def alone(folder: Path, patience: float = 15.0) -> Iterator[None]:
    """Makes sure that no other process runs the sweep; the kernel lets go of the lock whatever becomes of this one.

    Args:
        folder: Of the sweep.
        patience: Seconds that are waited: those who load data for a process that was killed outlive it a little.

    Raises:
        HwrError: If another does.
    """
    end = time.monotonic() + patience
    with (folder / ".lock").open("a") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > end:
                    mend = "wait for it, or choose hydra.sweep.dir=FOLDER"
                    raise HwrError(f"{folder}: another process runs this sweep; {mend}") from None
                time.sleep(0.1)
        yield


@contextmanager
def told_if_damaged(folder: Path) -> Iterator[None]:
    """Turns what SQLite says of a broken or full file into one line."""
    try:
        yield
    except (sqlalchemy.exc.DatabaseError, StorageInternalError) as error:
        cause = error if isinstance(error, sqlalchemy.exc.DatabaseError) else error.__cause__
        why = getattr(cause, "orig", cause)
        raise HwrError(
            f"{folder / 'study.db'}: {why}; if it is damaged, begin another sweep with hydra.sweep.dir=FOLDER"
        ) from error


def same_settings(study: optuna.Study, settings: Mapping[str, Any], folder: Path) -> None:
    """Notes what a new sweep is about; an old one must be about the same.

    Args:
        study: New or old.
        settings: Flat.
        folder: For the message.

    Raises:
        HwrError: With the first key that differs.
    """
    known = study.user_attrs.get("settings")
    if known is None:
        study.set_user_attr("settings", dict(settings))
        return
    for key in {**known, **settings}:
        if (before := known.get(key)) != (now := settings.get(key)):
            raise HwrError(
                f"{folder} is a sweep with other settings: {key} was {before} and is {now} now; "
                "repeat its settings, or begin another sweep with hydra.sweep.dir=FOLDER"
            )
