"""Embeddings that others made: the store that comes of them, and what is refused."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars
import pytest

from roclip_sanitize.adopt import AdoptSettings, adopt_embeddings
from roclip_sanitize.embed import EmbedSettings, embed_shards
from roclip_sanitize.errors import ConfigError, DataError, MismatchError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import IndexSettings, build_index
from roclip_sanitize.rewrite import RewriteSettings, rewrite_shards
from roclip_sanitize.scan import ScanSettings, scan_store
from roclip_sanitize.store import EmbeddingStore, write_parquet
from tests.corpora import pair_members, write_shard, write_tar
from tests.squares import colour_of, write_square_shards

HERE = LocalExecutor()
PAIRS = 48  # of each of two shards
WIDTH = 12
MODEL = "some-clip/v1"


@pytest.fixture
def shards(tmp_path: Path) -> tuple[Path, ...]:
    return write_square_shards(tmp_path / "squares", shards=2, pairs=PAIRS)


@pytest.fixture
def embeddings(tmp_path: Path) -> Path:
    """Of all squares, cut into three files and in an order of their own; rows of length 3."""
    folder, rng = tmp_path / "embeddings", np.random.default_rng(0)
    for name, numbers in zip("012", np.array_split(rng.permutation(2 * PAIRS), 3), strict=True):
        for kind, offset in (("img_emb", 0), ("text_emb", 1)):
            (folder / kind).mkdir(parents=True, exist_ok=True)
            np.save(folder / kind / f"{kind}_{name}.npy", rows_of(numbers, offset))
        keys = polars.DataFrame({"image_path": [f"some/where/{number:06d}.jpg" for number in numbers]})
        write_parquet(folder / "metadata" / f"metadata_{name}.parquet", keys)
    return folder


def rows_of(numbers: np.ndarray, offset: int) -> np.ndarray:
    """Rows that tell whose they are."""
    drawn = [np.random.default_rng([offset, int(number)]).normal(size=WIDTH) for number in numbers]
    row_ND = np.array(drawn)
    long_ND: np.ndarray = (3 * row_ND / np.linalg.norm(row_ND, axis=1, keepdims=True)).astype(np.float16)
    return long_ND


def adopted(embeddings: Path, shards: tuple[Path, ...], out: Path) -> EmbeddingStore:
    told = AdoptSettings(embeddings=embeddings, shards=shards, model=MODEL)
    adopt_embeddings(told, out=out, executor=HERE)
    return EmbeddingStore.open(out)


def test_every_pair_gets_its_own_vectors(embeddings: Path, shards: tuple[Path, ...], tmp_path: Path) -> None:
    store = adopted(embeddings, shards, tmp_path / "store")
    assert [part.rows for part in store.parts] == [PAIRS, PAIRS]
    for number, part in enumerate(store.parts):
        mine = np.arange(PAIRS) + number * PAIRS
        for modality, offset in (("image", 0), ("text", 1)):
            found = np.asarray(store.vectors(part.name, modality), np.float32)  # type: ignore[arg-type]
            assert found == pytest.approx(rows_of(mine, offset).astype(np.float32) / 3, abs=1e-3)
            assert np.linalg.norm(found, axis=1) == pytest.approx(1, abs=1e-3)
    assert store.joint


@pytest.mark.parametrize("folder", ["./", "v1.2/", "./v1.2/"])
def test_keys_are_found_in_folders_of_a_tar(folder: str, tmp_path: Path) -> None:
    """clip-retrieval tells pairs of shards by the keys that WebDataset gives them."""
    webdataset = pytest.importorskip("webdataset")
    members = [member for number in range(4) for member in pair_members(f"{folder}{number}", number)]
    shard = write_tar(tmp_path / "0.tar", members)
    keys = [sample["__key__"] for sample in webdataset.WebDataset(str(shard), shardshuffle=False)]
    (tmp_path / "embeddings" / "img_emb").mkdir(parents=True)
    np.save(tmp_path / "embeddings" / "img_emb" / "img_emb_0.npy", rows_of(np.arange(4), 0))
    names = polars.DataFrame({"image_path": keys})
    write_parquet(tmp_path / "embeddings" / "metadata" / "metadata_0.parquet", names)
    store = adopted(tmp_path / "embeddings", (shard,), tmp_path / "store")
    assert store.all_metadata(("key",))["key"].to_list() == keys
    found = np.asarray(store.vectors("00000", "image"), np.float32)
    assert found == pytest.approx(rows_of(np.arange(4), 0).astype(np.float32) / 3, abs=1e-3)


def test_names_are_those_that_embedding_gives(
    embeddings: Path, shards: tuple[Path, ...], tmp_path: Path
) -> None:
    embed_shards(EmbedSettings(shards=shards, encoder="plain"), out=tmp_path / "embedded", executor=HERE)
    wanted, found = (
        EmbeddingStore.open(tmp_path / "embedded"),
        adopted(embeddings, shards, tmp_path / "store"),
    )
    assert found.all_metadata().equals(wanted.all_metadata())


def test_a_pair_without_a_vector_is_counted(
    embeddings: Path, shards: tuple[Path, ...], tmp_path: Path
) -> None:
    for kind in ("img_emb", "text_emb"):
        path = embeddings / kind / f"{kind}_1.npy"
        np.save(path, np.load(path)[:-5])
    path = embeddings / "metadata" / "metadata_1.parquet"
    write_parquet(path, polars.read_parquet(path)[:-5])
    vector_ND = np.load(embeddings / "img_emb" / "img_emb_0.npy")
    vector_ND[3], vector_ND[4] = 0, np.nan
    np.save(embeddings / "img_emb" / "img_emb_0.npy", vector_ND)
    store = adopted(embeddings, shards, tmp_path / "store")
    assert store.rows == 2 * PAIRS - 7
    assert store.tally.failed == {"no_embedding": 7}
    details = {text for part in store.parts for text in store.failures(part.name)["detail"]}
    assert details == {
        "its key is not among those of the embeddings",
        "its image vector has length 0.0",
        "its image vector has length nan",
    }


def write_captions(embeddings: Path, *, of_first: str | None = "a {colour} square, item {number}") -> None:
    """Tell what was embedded under each key; under the first of each file something else, if asked for."""
    for path in (embeddings / "metadata").glob("*.parquet"):
        frame = polars.read_parquet(path)
        numbers = [int(Path(name).stem) for name in frame["image_path"]]
        told = [f"  a {colour_of(number)}  square, item {number}\n" for number in numbers]
        told[0] = of_first and of_first.format(colour=colour_of(numbers[0]), number=numbers[0])  # type: ignore[assignment]
        write_parquet(path, frame.with_columns(polars.Series("caption", told)))


@pytest.mark.parametrize(("of_first", "failed"), [(None, 0), ("a red square, item 1000", 3)])
def test_a_pair_with_another_caption_has_no_vector(
    of_first: str | None, failed: int, embeddings: Path, shards: tuple[Path, ...], tmp_path: Path
) -> None:
    """Every dataset has a pair 000000. White space is none, and what isn't told contradicts nothing."""
    write_captions(embeddings, of_first=of_first)
    store = adopted(embeddings, shards, tmp_path / "store")
    assert store.rows == 2 * PAIRS - failed
    details = {text for part in store.parts for text in store.failures(part.name)["detail"]}
    assert details == ({"the embeddings have another caption under its key"} if failed else set())


def test_other_shards_with_the_same_keys_are_refused(
    embeddings: Path, shards: tuple[Path, ...], tmp_path: Path
) -> None:
    write_captions(embeddings)
    other = write_shard(tmp_path / "other.tar", range(PAIRS))
    with pytest.raises(MismatchError, match=r"none of the 48 pairs of .*other.tar and others has a vector"):
        adopted(embeddings, (other,), tmp_path / "store")
    assert adopted(embeddings, (*shards, other), tmp_path / "both").rows == 2 * PAIRS


def test_no_row_is_two_pairs(embeddings: Path, shards: tuple[Path, ...], tmp_path: Path) -> None:
    other = write_shard(tmp_path / "other.tar", range(5, 9))
    with pytest.raises(
        MismatchError, match=r"00000.tar and other.tar both have a pair '000005', and .* has one"
    ):
        adopted(embeddings, (*shards, other), tmp_path / "store")


def test_the_key_of_the_shard_goes_before_the_one_in_the_json(
    embeddings: Path, shards: tuple[Path, ...], tmp_path: Path
) -> None:
    """A resharder gives pairs other keys, and leaves their JSON as it was."""
    for path in (embeddings / "metadata").glob("*.parquet"):
        frame = polars.read_parquet(path)
        write_parquet(path, frame.with_columns(key=polars.col("image_path").str.slice(-10, 6).reverse()))
    store = adopted(embeddings, shards, tmp_path / "store")
    found = np.asarray(store.vectors("00000", "image"), np.float32)
    assert found == pytest.approx(rows_of(np.arange(PAIRS), 0).astype(np.float32) / 3, abs=1e-3)


@pytest.mark.slow
def test_it_can_be_scanned_and_rewritten(embeddings: Path, shards: tuple[Path, ...], tmp_path: Path) -> None:
    store, index, scan = (tmp_path / name for name in ("store", "index", "scan"))
    adopted(embeddings, shards, store)
    build_index(IndexSettings(store=store), out=index, executor=HERE)
    scan_store(ScanSettings(store=store, index=index, neighbours=10), out=scan, executor=HERE)
    told = RewriteSettings(store=store, verdicts=scan)
    tally = rewrite_shards(told, out=tmp_path / "rewrite", executor=HERE)
    assert tally.seen == 2 * PAIRS


def no_embeddings(folder: Path) -> None:
    for path in (folder / "img_emb").glob("*.npy"):
        path.unlink()


def no_metadata(folder: Path) -> None:
    (folder / "metadata" / "metadata_2.parquet").unlink()


def pickled(folder: Path) -> None:
    (folder / "img_emb" / "img_emb_0.npy").write_bytes(pickle.dumps([1, 2]))


def other_columns(folder: Path) -> None:
    write_parquet(folder / "metadata" / "metadata_0.parquet", polars.DataFrame({"url": ["a"] * 32}))


def fewer_rows(folder: Path) -> None:
    path = folder / "metadata" / "metadata_0.parquet"
    write_parquet(path, polars.read_parquet(path)[:-1])


def fewer_captions(folder: Path) -> None:
    path = folder / "text_emb" / "text_emb_1.npy"
    np.save(path, np.load(path)[:-1])


def more_captions(folder: Path) -> None:
    path = folder / "text_emb" / "text_emb_1.npy"
    vector_ND = np.load(path)
    np.save(path, np.concatenate([vector_ND, vector_ND[:1]]))


def another_width(folder: Path) -> None:
    path = folder / "img_emb" / "img_emb_2.npy"
    np.save(path, np.pad(np.load(path), ((0, 0), (0, 1))))


def same_keys(folder: Path) -> None:
    path = folder / "metadata" / "metadata_0.parquet"
    write_parquet(path, polars.DataFrame({"key": ["000007"] * len(polars.read_parquet(path))}))


def other_keys(folder: Path) -> None:
    for path in (folder / "metadata").glob("*.parquet"):
        keys = [f"{path.stem}_{row}" for row in range(len(polars.read_parquet(path)))]
        write_parquet(path, polars.DataFrame({"key": keys}))


@pytest.mark.parametrize(
    ("spoil", "kind", "message"),
    [
        (no_embeddings, DataError, r"has no img_emb/img_emb_\*.npy: wanted clip-retrieval's layout"),
        (no_metadata, DataError, r"metadata_2.parquet does not exist, but img_emb_2.npy does"),
        (pickled, DataError, r"img_emb_0.npy is no .npy: it starts with"),
        (other_columns, DataError, r"metadata_0.parquet has the columns url, wanted one of image_path, key"),
        (fewer_rows, MismatchError, r"metadata_0.parquet has 31 rows, and img_emb_0.npy has 32"),
        (fewer_captions, MismatchError, r"metadata_1.parquet has 32 rows, and text_emb_1.npy has 31"),
        (more_captions, MismatchError, r"metadata_1.parquet has 32 rows, and text_emb_1.npy has 33"),
        (another_width, MismatchError, r"img_emb_2.npy of .* is 13 wide, and img_emb_0.npy 12: wanted"),
        (same_keys, MismatchError, r"metadata_0.parquet has the key '000007', which came before"),
        (other_keys, MismatchError, r"none of the 96 pairs of .*00000.tar and others has a vector in"),
    ],
)
def test_what_does_not_fit_is_refused(
    spoil: Callable[[Path], None],
    kind: type[Exception],
    message: str,
    embeddings: Path,
    shards: tuple[Path, ...],
    tmp_path: Path,
) -> None:
    spoil(embeddings)
    with pytest.raises(kind, match=message):
        adopted(embeddings, shards, tmp_path / "store")


def test_a_model_must_be_named(embeddings: Path, shards: tuple[Path, ...]) -> None:
    with pytest.raises(ConfigError, match="no model named: wanted what made the vectors"):
        AdoptSettings(embeddings=embeddings, shards=shards, model=" ")
