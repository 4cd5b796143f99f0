"""What scans say of the pairs that a training sees, made by workers beside its ranks.

    first look     shards ─▶ plain features ─▶ index ─▶ scan
    second look    the model so far ─▶ its vectors ─▶ a scan that looks again in them
                   plain features ─▶ the pairs whose pictures, and whose captions, are most alike

    OUT/matching/plain/            store and indexes of features that never met
    OUT/matching/00000/judged/     the first look: where its scan lies
    OUT/matching/00001/judged/     the second: where its scan lies, and who resembles whom

All of it is public stages, which go through parts: so it holds for as many pairs as they do, resumes by
itself, and gives the same on any number of workers. scan_judge.py reads it, refresh.py says how ranks ask.

Cost: both towers' plain features and one pass of the model over all pairs, two scans, and two searches,
once in a training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.index_tuning import with_what_varies
from roclip_sanitize.matching import Exclusion, MatchSettings, match_store
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.settings import ScanSettings
from roclip_sanitize.scan.stage import scan_store
from roclip_sanitize.storage import remove_tree
from roclip_sanitize.store import Modality
from roclip_sanitize.training.refresh import FOLDER, is_made, window_folder

FIRST_LOOK, SECOND_LOOK = 0, 1  # as windows are counted
JUDGED_STAGE = "judged"
ALIKE = 32  # pairs that resemble another: the trusted among them are its witnesses
# Of pictures as a scan's index has it. Captions from a template may vary in fewer directions.
TRANSFORMS: dict[Modality, str] = {"image": "pca96", "text": ""}


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgementMaker:
    """Makes what a look of ``consensus`` needs.

    Attributes:
        out: the training's folder.
        shards: what is trained on.
        executor: where the stages run.
        seed: of the indexes.
    """

    out: Path
    shards: tuple[Path, ...]
    executor: Executor
    seed: int = 0

    def __call__(self, look: int) -> None:
        """Make a look, or find that it was done.

        Raises:
            RoclipError: one of the stages could not be done.
        """
        if is_made(self.out, look):
            return
        folder, plain = window_folder(self.out, look), self.out / FOLDER / "plain"
        store = self._embedded("plain", plain / "store")
        pictures = self._indexed(store, "image", plain / "index_image")
        weights, seen = str(folder / "weights"), folder / "store"
        second = (self._embedded(weights, seen),) if look == SECOND_LOOK else ()
        told = ScanSettings(store=store, index=pictures, detectors=("cross_prediction",), second_look=second)
        scan_store(told, out=folder / "scan", executor=self.executor)
        facts = {"scan": str(folder / "scan")}
        if look == SECOND_LOOK:
            captions = self._indexed(store, "text", plain / "index_text")
            facts["by_picture"] = self._alike(store, pictures, "image", folder / "by_picture")
            facts["by_caption"] = self._alike(store, captions, "text", folder / "by_caption")
        self._finish(folder, facts)

    def _embedded(self, encoder: str, out: Path) -> Path:
        embed_shards(EmbedSettings(shards=self.shards, encoder=encoder), out=out, executor=self.executor)
        return out

    def _indexed(self, store: Path, modality: Modality, out: Path) -> Path:
        told = IndexSettings(
            store=store, modality=modality, transform=TRANSFORMS[modality], kind="auto", seed=self.seed
        )
        told = with_what_varies(told, out=out, executor=self.executor)
        build_index(told, out=out, executor=self.executor)
        return out

    def _alike(self, store: Path, index: Path, modality: Modality, out: Path) -> str:
        """Neighbours that are no copies: who shares the picture, or the caption, says nothing new."""
        exclude: tuple[Exclusion, ...] = ("uid", "image" if modality == "image" else "caption")
        told = MatchSettings(store=store, index=index, asks=modality, k=ALIKE, exclude=exclude)
        match_store(told, out=out, executor=self.executor)
        return str(out)

    def _finish(self, folder: Path, facts: Mapping[str, Any]) -> None:
        StageFolder.create(folder / "judged", stage=JUDGED_STAGE, settings={}).finish(dict(facts))
        for each in (folder / "weights", folder / "store", folder / "scan" / "work"):
            remove_tree(each)
