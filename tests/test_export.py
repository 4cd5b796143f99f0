"""Exports: what FiftyOne is told of each pair, whose pictures are whose, what a kill or a change leads to."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import polars
import pytest

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.cli import call
from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.export import ExportSettings, export_scan
from roclip_sanitize.records import Tally
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan import read_scores, read_verdicts
from roclip_sanitize.shards import Shard
from roclip_sanitize.store import EmbeddingStore
from roclip_sanitize.verification import verify_folder
from tests.stages import poisoned_scan, scan_of

Sample = dict[str, Any]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("run")
    poisoned_scan(root)
    return root


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    """All that was set aside, and thirty random pairs."""
    settings = ExportSettings(scan=run / "scan", drawn=30, ledger=run / "poison")
    export_scan(settings, out=run / "exported", executor=LocalExecutor())
    return run / "exported"


def samples_in(out: Path) -> dict[str, Sample]:
    samples: list[Sample] = json.loads((out / "samples.json").read_bytes())["samples"]
    assert len({sample["filepath"] for sample in samples}) == len(samples)
    return {sample["uid"]: sample for sample in samples}


def aside(scan: Path) -> polars.DataFrame:
    return read_verdicts(scan).filter(~polars.col("kept"))


def test_all_that_was_set_aside_is_there_and_a_sample_of_all(run: Path, exported: Path) -> None:
    samples = samples_in(exported)
    assert {uid for uid, sample in samples.items() if not sample["kept"]} == set(aside(run / "scan")["uid"])
    drawn = [sample for sample in samples.values() if "drawn" in sample["tags"]]
    assert len(drawn) == 30
    assert all("drawn" in sample["tags"] for sample in samples.values() if sample["kept"])


def test_a_sample_tells_what_the_scan_tells(run: Path, exported: Path) -> None:
    samples = samples_in(exported)
    verdicts = {row["uid"]: row for row in read_verdicts(run / "scan").iter_rows(named=True)}
    scores = {row["uid"]: row for row in read_scores(run / "scan").iter_rows(named=True)}
    store = EmbeddingStore.open(run / "store")
    captions = dict(store.all_metadata(("uid", "caption")).iter_rows())
    poisons = Ledger.open(run / "poison").poisons
    for uid, sample in samples.items():
        told = {**scores[uid], **verdicts[uid], "caption": captions[uid]}
        neighbours = (scores[uid]["neighbours"] or "").split(";")
        told |= {"neighbours": [each for each in neighbours if each]}
        told |= {"reasons": [each for each in verdicts[uid]["reasons"].split(";") if each]}
        others = {"filepath", "tags", "_media_type", "_rand"}
        found = {name: value for name, value in sample.items() if name not in others}
        assert found == {**told, "label": None, "attack": poisons.get(uid)}
        assert 0.999 <= sample["_rand"] < 1
        side = "kept" if sample["kept"] else "quarantined"
        assert [tag for tag in sample["tags"] if tag != "drawn"] == [side, *told["reasons"]]
        assert sample["_media_type"] == "image"
    assert {*poisons.values()} == {sample["attack"] for sample in samples.values()} - {None}


def test_fields_are_declared_and_every_sample_has_them(exported: Path) -> None:
    told = json.loads((exported / "metadata.json").read_text("ascii"))
    kinds = {field["name"]: field["ftype"].rpartition(".")[2] for field in told["sample_fields"]}
    assert {name for sample in samples_in(exported).values() for name in sample} <= kinds.keys()
    assert len({tuple(sample) for sample in samples_in(exported).values()}) == 1
    assert (kinds["reasons"], kinds["neighbours"]) == ("ListField", "ListField")
    assert (kinds["suspicion"], kinds["kept"], kinds["attack"]) == (
        "FloatField",
        "BooleanField",
        "StringField",
    )


def test_pictures_are_those_of_the_shards(run: Path, exported: Path) -> None:
    pictures = dict[str, bytes]()
    for path in EmbeddingStore.open(run / "store").shards:
        with Shard(Path(path)) as shard:
            pictures.update((pair.uid, pair.image) for pair in shard.pairs())
    for uid, sample in samples_in(exported).items():
        assert not Path(sample["filepath"]).is_absolute(), "the folder may be moved"
        assert (exported / sample["filepath"]).read_bytes() == pictures[uid]
        assert sample["filepath"].endswith((".jpg", ".png"))


def test_only_the_most_suspicious(run: Path, tmp_path: Path) -> None:
    tally = export_scan(
        ExportSettings(scan=run / "scan", most=3, drawn=0), out=tmp_path, executor=LocalExecutor()
    )
    assert (tally.seen, tally.quarantined.total()) == (3, 3)
    joined = read_scores(run / "scan").filter(~read_verdicts(run / "scan")["kept"])
    least = joined["suspicion"].sort(descending=True)[2]
    assert all(sample["suspicion"] >= least for sample in samples_in(tmp_path).values())


def test_nothing_asked_for_is_an_empty_data_set(run: Path, tmp_path: Path) -> None:
    told = ExportSettings(scan=run / "scan", most=0, drawn=0)
    assert export_scan(told, out=tmp_path, executor=LocalExecutor()) == Tally(seen=0)
    assert samples_in(tmp_path) == {}


class OneTask(LocalExecutor):
    """Dies after a task."""

    def map(self, make_worker: Callable[[], Callable[[Any], Any]], tasks: Iterable[Any]) -> Iterator[Any]:
        yield from super().map(make_worker, list(tasks)[:1])
        raise KeyboardInterrupt


def test_killed_and_gone_on_with_it_has_the_same_bytes(run: Path, exported: Path, tmp_path: Path) -> None:
    settings = ExportSettings(scan=run / "scan", drawn=30, ledger=run / "poison")
    with pytest.raises(KeyboardInterrupt):
        export_scan(settings, out=tmp_path, executor=OneTask())
    assert not (tmp_path / "samples.json").exists()
    export_scan(settings, out=tmp_path, executor=LocalExecutor())
    for path in exported.rglob("*"):
        if path.is_file() and "done" not in path.parts and path.name not in {"run.toml", "events.jsonl"}:
            assert (tmp_path / path.relative_to(exported)).read_bytes() == path.read_bytes()
    assert export_scan(settings, out=tmp_path, executor=OneTask()).seen, "which has nothing left to do"


def test_another_draw_wants_another_folder(run: Path, exported: Path) -> None:
    with pytest.raises(MismatchError, match="seed was 0, now 1"):
        export_scan(
            ExportSettings(scan=run / "scan", drawn=30, ledger=run / "poison", seed=1),
            out=exported,
            executor=LocalExecutor(),
        )


def moved_run(run: Path, to: Path) -> Path:
    shutil.copytree(run, to)
    for folder in ("store", "scan"):
        path = to / folder / "stage.json"
        path.write_text(path.read_text().replace(str(run), str(to)))
    return to


def reworded(shard: Path) -> None:
    """Gives every pair another caption, under its old uid."""
    with tarfile.open(shard) as tar:
        members = [(member, tar.extractfile(member).read()) for member in tar]  # type: ignore[union-attr]
    with tarfile.open(shard, "w") as tar:
        for member, data in members:
            tar.addfile(member, io.BytesIO(data[::-1] if member.name.endswith(".txt") else data))


def test_a_pair_that_says_something_else_by_now_is_refused(run: Path, tmp_path: Path) -> None:
    moved = moved_run(run, tmp_path / "run")
    for shard in EmbeddingStore.open(moved / "store").shards:
        reworded(Path(shard))
    with pytest.raises(MismatchError, match=r"has another caption than when it was embedded"):
        export_scan(ExportSettings(scan=moved / "scan"), out=tmp_path / "out", executor=LocalExecutor())


def test_a_shard_that_has_changed_is_refused(run: Path, tmp_path: Path) -> None:
    moved = moved_run(run, tmp_path / "run")
    first, second = EmbeddingStore.open(moved / "store").shards[:2]
    shutil.copy(second, first)
    with pytest.raises(MismatchError, match=r"has no pair .* as .*store knows it: it has changed since"):
        export_scan(ExportSettings(scan=moved / "scan"), out=tmp_path / "out", executor=LocalExecutor())


def test_verify_finds_another_picture(run: Path, tmp_path: Path) -> None:
    export_scan(ExportSettings(scan=run / "scan", most=2, drawn=0), out=tmp_path, executor=LocalExecutor())
    assert "2 pairs seen" in " ".join(str(check) for check in verify_folder(tmp_path))
    picture = tmp_path / next(iter(samples_in(tmp_path).values()))["filepath"]
    picture.write_bytes(picture.read_bytes()[:-1] + b"?")
    with pytest.raises(MismatchError, match="has changed since it was written"):
        list(verify_folder(tmp_path))


def test_the_command(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = call("export", scan=str(run / "scan"), out=str(out), drawn=5, executor="local")
    assert said["seen"] == len(samples_in(out))
    assert said["dataset"] == str(out)
    assert StageFolder.open(out, stage="export").settings["drawn"] == 5
    with pytest.raises(ConfigError, match="most is -1, wanted 0 or more"):
        ExportSettings(scan=run / "scan", most=-1)


PYTHON = "ROCLIP_FIFTYONE"  # a Python that has fiftyone and its database, where this one has not
OPENED = """
import json, sys
from pathlib import Path
import fiftyone
from fiftyone import ViewField
pairs = fiftyone.Dataset.from_dir(
    dataset_dir=sys.argv[1], dataset_type=fiftyone.types.FiftyOneDataset, progress=False
)
worst = pairs.match_tags("quarantined").sort_by("suspicion", reverse=True).first()
reasons = pairs.distinct("reasons")
print(json.dumps({
    "fields": {name: type(field).__name__ for name, field in pairs.get_field_schema().items()},
    "uids": pairs.values("uid"),
    "reasons": pairs.values("reasons"),
    "by_reason": {each: len(pairs.match(ViewField("reasons").contains(each))) for each in reasons},
    "worst": [worst.uid, worst.suspicion],
    "sizes": [Path(path).stat().st_size for path in pairs.values("filepath")],
}))
pairs.delete()
"""


def test_fiftyone_opens_it(exported: Path, tmp_path: Path) -> None:
    """With the real one, where it and its database are installed; in a process of its own."""
    python = os.environ.get(PYTHON) or (sys.executable if importlib.util.find_spec("fiftyone") else "")
    if not python:
        pytest.skip(f"no fiftyone here: name a Python that has it, and its database, in {PYTHON}")
    shutil.copytree(exported, tmp_path / "moved")
    command = [python, "-c", OPENED, str(tmp_path / "moved")]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    told, samples = json.loads(done.stdout.splitlines()[-1]), samples_in(exported)
    assert told["uids"] == list(samples)
    assert told["reasons"] == [sample["reasons"] for sample in samples.values()]
    counts = Counter(reason for sample in samples.values() for reason in sample["reasons"])
    assert told["by_reason"] == counts
    worst, suspicion = told["worst"]
    aside = [sample for sample in samples.values() if not sample["kept"]]
    assert suspicion == samples[worst]["suspicion"] == max(sample["suspicion"] for sample in aside)
    sizes = [(exported / sample["filepath"]).stat().st_size for sample in samples.values()]
    assert told["sizes"] == sizes
    assert told["fields"]["cross_prediction"] == "FloatField"
    assert told["fields"]["reasons"] == "ListField"


@pytest.mark.parametrize("meant", ["squares", "others"])
def test_the_ledger_of_other_shards_is_refused(run: Path, tmp_path: Path, meant: str) -> None:
    shards = tuple(sorted((run / "squares").glob("*.tar")))
    if meant == "others":
        shards = (Path(shutil.copy(shards[0], tmp_path / "other.tar")),)
    scan_of(shards, tmp_path)
    found = {
        "squares": r"has 10 of the 10 pairs that .* planted in shard 00000 not as they were planted, such",
        "others": "was made from no shard in which .* planted anything: wanted the ledger of the shards that",
    }
    settings = ExportSettings(scan=tmp_path / "scan", ledger=run / "poison")
    with pytest.raises(MismatchError, match=found[meant]):
        export_scan(settings, out=tmp_path / "out", executor=LocalExecutor())
    assert not (tmp_path / "out").exists()
