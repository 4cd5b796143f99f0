"""Detectors of captions: worked examples, a slow reference, any cut into parts."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import polars
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roclip_sanitize.captions import caption_words, normalise_caption
from roclip_sanitize.cli import call
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.scan.keep_list import read_keep_list
from roclip_sanitize.scoring.caption_counts import CaptionCounts, Words, count_captions
from roclip_sanitize.scoring.wording import ANY, FOLLOWS, OCCURS, WORDINGS, Wording
from roclip_sanitize.store import EmbeddingStore, metadata_file, vectors_file, write_parquet, write_vectors

HERE = LocalExecutor()
TITLES = ["red shirt", "blue shirt", "red shoe", "blue shoe", "red shirt", "12 !", "green hat", "Red  SHIRT"]


def store_of(path: Path, *parts: Sequence[str]) -> EmbeddingStore:
    """A store of captions, whose pictures say nothing."""
    shards = [f"{number}.tar" for number in range(len(parts))]
    told = {"encoder": {"digest": "x", "joint": False}, "shards": shards}
    stage, count = StageFolder.create(path, stage="embed", settings=told), 0
    for number, captions in enumerate(parts):
        name, uids = f"{number:05d}", [f"{count + row:032x}" for row in range(len(captions))]
        columns = {
            "uid": uids,
            "key": uids,
            "shard": [shards[number]] * len(captions),
            "caption": list(captions),
            "image_hash": uids,
        }
        write_parquet(
            metadata_file(path, name), polars.DataFrame(columns, schema=dict.fromkeys(columns, str))
        )
        for modality in ("image", "text"):
            write_vectors(vectors_file(path, name, modality), np.ones((len(captions), 1), np.float32))
        files = [metadata_file(path, name)]
        stage.commit(name, files=files, facts={"rows": len(captions), "tally": {}})
        count += len(captions)
    stage.finish({})
    return EmbeddingStore.open(path)


def counted(folder: Path, *parts: Sequence[str]) -> Wording:
    store = store_of(folder / "store", *parts)
    counts = StageFolder.create(folder / "counts", stage="counts", settings={})
    count_captions(store, counts.path, HERE)
    return Wording(CaptionCounts.open(counts.path))


def slow(captions: Sequence[str], asked: int) -> dict[str, float]:
    """One caption's scores, as the formulas stand there."""
    own, own_words = normalise_caption(captions[asked]), caption_words(captions[asked])
    if not own_words:
        return dict.fromkeys(WORDINGS, math.nan)
    others = [caption_words(one) for one in captions if normalise_caption(one) != own]
    copies = sum(normalise_caption(one) == own for one in captions) - 1
    vocabulary = len({word for one in captions for word in caption_words(one)})
    said = Counter(word for one in others for word in one)
    before = Counter(word for one in others for word in ("", *one)[:-1])
    follows = Counter(pair for one in others for pair in zip(("", *one), one, strict=False))
    surprise = 0.0
    for last, word in zip(("", *own_words), own_words, strict=False):
        likely = FOLLOWS * follows[last, word] / max(1, before[last])
        likely += OCCURS * said[word] / max(1, said.total()) + ANY / vocabulary
        surprise -= math.log(likely)
    expected = len(captions) * math.exp(-surprise)
    burst = copies * math.log(copies / expected) - copies + expected if copies > expected else 0.0
    return {
        "perplexity": surprise / len(own_words),
        "burst": burst,
        "repetition": 1 - len(set(own_words)) / len(own_words),
    }


def test_words_in_a_row_by_hand() -> None:
    words = Words.of(["red shirt", "7", "red"])
    assert words.caption_T.tolist() == [0, 0, 2]
    assert words.word_T[0] == words.word_T[2] == words.before_T[1]
    assert words.before_T[0] == words.before_T[2] != words.before_T[1]
    assert words.pair_T[0] == words.pair_T[2] != words.pair_T[1]


def test_perplexity_by_hand(tmp_path: Path) -> None:
    """Of "red shoe": two of the four others that have a word start with red, and one caption says shoe."""
    score = counted(tmp_path, TITLES)(["perplexity"], TITLES, start=0)["perplexity"]
    red = FOLLOWS * 3 / 6 + OCCURS * 3 / 12 + ANY / 6
    shoe = FOLLOWS * 0 / 3 + OCCURS * 1 / 12 + ANY / 6
    assert score[2] == pytest.approx(-(math.log(red) + math.log(shoe)) / 2, rel=1e-6)
    assert np.isnan(score[5])
    assert score[6] == np.nanmax(score)


def test_repetition_and_burst_by_hand(tmp_path: Path) -> None:
    titles = ["shoe shoe shoe cheap", *["what a nice hat"] * 9, "shirt", "a hat"]
    found = counted(tmp_path, titles)(["repetition", "burst"], titles, start=0)
    assert found["repetition"][0] == pytest.approx(0.5)
    assert found["repetition"][1] == 0
    assert found["burst"][1] > 20
    assert found["burst"][[0, 10, 11]].tolist() == [0, 0, 0]


def test_a_long_caption_that_stands_twice_is_no_more_than_that(tmp_path: Path) -> None:
    """What is expected of it is too small for a float, and its logarithm is not."""
    long = " ".join(f"word{number % 97} other{number}" for number in range(300))
    titles = [long, long, *["what a nice hat for you"] * 400]
    burst = counted(tmp_path, titles)(["burst"], titles, start=0)["burst"]
    assert np.isfinite(burst).all()
    assert 0 < burst[0] == burst[1] < 10_000


TITLE = st.lists(st.sampled_from(["red", "blue", "Shoe", "shirt", "7", "of"]), max_size=5).map(" ".join)


@settings(max_examples=8)  # each writes tables for any corpus, 150 MB
@given(st.lists(TITLE, min_size=1, max_size=12), st.integers(0, 12))
def test_scores_are_what_their_formulas_say(
    tmp_path_factory: pytest.TempPathFactory, titles: list[str], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("wording")
    wording = counted(folder, titles[:cut], titles[cut:])
    first, second = (
        wording(list(WORDINGS), part, start=start) for part, start in ((titles[:cut], 0), (titles[cut:], cut))
    )
    wanted = [slow(titles, row) for row in range(len(titles))]
    for name in WORDINGS:
        found = np.concatenate([first[name], second[name]]) if cut else second[name]
        assert found == pytest.approx([one[name] for one in wanted], rel=1e-4, abs=1e-5, nan_ok=True)


def test_captions_of_any_store_are_scored(tmp_path: Path) -> None:
    store_of(tmp_path / "store", TITLES, ["zzqx shirt", "red shirt"])
    told = {"store": str(tmp_path / "store"), "out": str(tmp_path / "out"), "executor": "local"}
    call("score", **told, detectors="repetition,perplexity", worst=0.1, worst_by="perplexity")  # type: ignore[arg-type]
    table = polars.concat([polars.read_parquet(path) for path in sorted((tmp_path / "out/scores").iterdir())])
    assert table.columns == ["uid", "key", "shard", "repetition", "perplexity"]
    assert table["perplexity"].null_count() == 1
    assert len(read_keep_list(tmp_path / "out/worst.npy")) == 1
    assert read_keep_list(tmp_path / "out/worst.npy") == [table.sort("perplexity", nulls_last=True)["uid"][8]]
