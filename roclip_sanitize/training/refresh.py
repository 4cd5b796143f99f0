"""Tables that keep up with a training: made anew for each window, from the model's own vectors.

    a window ends ─▶ weights saved ─▶ embed actors ─▶ FAISS index in parts ─▶ pair table ─▶ the next window
                          └───────── while the ranks go on with ordinary steps ─────────┘

    OUT/matching/00003/weights/   the model when the table of window 3 was asked for
    OUT/matching/00003/pairs/     that table, in the format of ``roclip pair``
    OUT/matching/00003/judged/    or what a scan says of all pairs: see judging.py
    OUT/matching/00003/failed     why there is neither

The ranks ask by leaving weights, and wait for the table when the window opens. Who makes it they do not
know: a thread of the driver, with workers of its own beside the ranks, or, in one process, whoever asks.
Weights are those of a fixed step, so that the tables, and what is trained with them, do not depend on how
long the making takes; nor on kills, since a table that is there is not made again.

Tables stay until the training is done, since a resume may want any of them; all else goes once they are
made.

Cost: every window embeds all pairs once, and searches them all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.encoder_facts import MODEL_FILE
from roclip_sanitize.errors import DataError, RoclipError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.pairing import PairSettings, pair_store
from roclip_sanitize.runfiles import StageFolder, write_bytes
from roclip_sanitize.storage import exists, names_in, read_bytes, remove, remove_tree

FOLDER = "matching"
FAILED = "failed"
RESULTS = ("pairs", "judged")
LOOK_EVERY_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class TableMaker:
    """Makes the pair table of a window.

    Attributes:
        out: the training's folder.
        shards: what is trained on.
        pairing: "first" or "final": what is matched with what.
        executor: where to embed and search.
        seed: of the index.
    """

    out: Path
    shards: tuple[Path, ...]
    pairing: str
    executor: Executor
    seed: int = 0

    def __call__(self, window: int) -> None:
        """Embed, index and pair with the weights that were left for the window; or find that it was done.

        Raises:
            RoclipError: one of the stages could not be done.
        """
        folder = window_folder(self.out, window)
        if is_made(self.out, window):
            return
        store, pairs = folder / "store", folder / "pairs"
        told = EmbedSettings(shards=self.shards, encoder=str(folder / "weights"))
        embed_shards(told, out=store, executor=self.executor)
        indexes = {"index_text": self._index(folder, "text")}
        if self.pairing == "first":
            indexes["index_image"] = self._index(folder, "image")
        asked = PairSettings(store=store, method=self.pairing, **indexes)  # type: ignore[arg-type]
        pair_store(asked, out=pairs, executor=self.executor)
        for each in ("weights", "store", "index_text", "index_image"):
            remove_tree(folder / each)

    def _index(self, folder: Path, modality: str) -> Path:
        path = folder / f"index_{modality}"
        settings = IndexSettings(store=folder / "store", modality=modality, seed=self.seed)  # type: ignore[arg-type]
        build_index(settings, out=path, executor=self.executor)
        return path


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What a rank knows of the tables.

    Attributes:
        out: the training's folder.
        save: writes the model's weights into a folder; on one rank, elsewhere it does nothing.
        make: makes a table at once; None where somebody else does.
    """

    out: Path
    save: Callable[[Path], None]
    make: Callable[[int], None] | None = None

    def ask(self, window: int) -> None:
        """Leave the weights from which a window's table is to be made."""
        if not is_made(self.out, window):
            self.save(window_folder(self.out, window) / "weights")

    def get(self, window: int) -> Path:
        """The table of a window, once it is there.

        Raises:
            DataError: it could not be made.
        """
        if self.make is not None:
            self.make(window)
        failed = window_folder(self.out, window) / FAILED
        while (made := result_of(self.out, window)) is None:
            if exists(failed):
                raise DataError(f"no table for window {window}: {read_bytes(failed).decode()}")
            time.sleep(LOOK_EVERY_SECONDS)
        return made


@contextmanager
def clerk(make: Callable[[int], None], out: Path) -> Iterator[None]:
    """A thread that makes every table that is asked for while the block runs.

    What a table could not be made for is left where the ranks look, so that they end with it. What nobody
    foresaw is raised here, too, when they have: there is more to see of it than they can tell.
    """
    ended, unforeseen = threading.Event(), list[Exception]()
    for window in _windows(out):
        remove(window_folder(out, window) / FAILED)  # of a run before, which no rank should still see
    told = (make, out, ended, unforeseen)
    thread = threading.Thread(target=_serve, args=told, name="pair tables", daemon=True)
    thread.start()
    try:
        yield
    except RoclipError as error:
        if unforeseen:
            raise unforeseen[0] from error
        raise
    finally:
        ended.set()
        thread.join()
    if unforeseen:
        raise unforeseen[0]


def window_folder(out: Path, window: int) -> Path:
    """Where all of a window lies."""
    return out / FOLDER / f"{window:05d}"


def result_of(out: Path, window: int) -> Path | None:
    """A window's table, if it is there, whole."""
    folders = (window_folder(out, window) / name for name in RESULTS)
    return next((folder for folder in folders if StageFolder(folder).finished), None)


def is_made(out: Path, window: int) -> bool:
    """Whether a window's table is there, whole."""
    return result_of(out, window) is not None


def remove_tables(out: Path) -> None:
    """Of a training that is done."""
    remove_tree(out / FOLDER)


def asked(out: Path) -> Iterator[int]:
    """Windows whose table was asked for and is not there yet, earliest first."""
    for window in _windows(out):
        if exists(window_folder(out, window) / "weights" / MODEL_FILE) and not is_made(out, window):
            yield window


def _windows(out: Path) -> list[int]:
    return [int(name) for name in names_in(out / FOLDER) if name.isdecimal()]


def _serve(
    make: Callable[[int], None], out: Path, ended: threading.Event, unforeseen: list[Exception]
) -> None:
    while not ended.wait(LOOK_EVERY_SECONDS):
        for window in asked(out):
            try:
                make(window)
            except RoclipError as error:
                write_bytes(window_folder(out, window) / FAILED, str(error).encode())
                return
            except Exception as error:  # noqa: BLE001  # whatever it is, the ranks would wait for ever
                unforeseen.append(error)
                write_bytes(window_folder(out, window) / FAILED, f"{type(error).__name__}: {error}".encode())
                return
