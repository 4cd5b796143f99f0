"""The command line: results on stdout, one line on stderr when something is wrong, and an exit code."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from roclip_sanitize import __version__
from roclip_sanitize.cli import run
from roclip_sanitize.cli.failing import too_many
from roclip_sanitize.cli.session import open_session
from roclip_sanitize.records import Tally
from tests.commands import Roclip
from tests.corpora import pair_members, uid, write_shard, write_tar

HEAVY = ("torch", "ray", "faiss", "sklearn", "scipy", "polars", "open_clip", "matplotlib", "PIL.Image")


@pytest.fixture
def roclip(capsys: pytest.CaptureFixture[str]) -> Roclip:
    return Roclip(capsys)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_shard(tmp_path / "0.tar", range(8))


def embed(shard: Path | str, out: Path, *more: object) -> tuple[object, ...]:
    return ("embed", "--shards", shard, "--out", out, "--executor", "local", *more)


def settings_file(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


# Exit codes


def test_done_is_0_and_the_result_is_on_stdout(roclip: Roclip, shard: Path, tmp_path: Path) -> None:
    said = roclip(*embed(shard, tmp_path / "out"))
    assert said.code == 0
    assert [line.split() for line in said.out.splitlines()] == [
        ["8", "pairs", "seen"],
        ["8", "kept"],
        ["store", str(tmp_path / "out")],
    ]


def test_what_bounded_the_work_is_beside_the_result(roclip: Roclip, shard: Path, tmp_path: Path) -> None:
    said = roclip(*embed(shard, tmp_path / "out"))
    assert said.lines[0] == "pairs/s of a worker"
    shown = [line.split()[1].rstrip(",:") for line in said.lines[1:]]
    assert shown == ["read", "decode", "model", "write", "reached"]


def test_a_result_is_json_if_asked_for(roclip: Roclip, shard: Path, tmp_path: Path) -> None:
    said = roclip(*embed(shard, tmp_path / "out", "--json"))
    result = json.loads(said.out)
    assert result.pop("seconds") >= 0
    assert set(result.pop("limits")) == {"pairs_per_second", "reached", "bound", "share"}
    assert result == {
        "seen": 8,
        "kept": 8,
        "failed": {},
        "quarantined": {},
        "store": str(tmp_path / "out"),
    }


def test_a_failed_run_is_1(roclip: Roclip, tmp_path: Path) -> None:
    said = roclip(*embed(tmp_path / "gone.tar", tmp_path / "out"))
    assert (said.code, said.out) == (1, "")
    assert said.line == f"roclip: shard {tmp_path}/gone.tar does not exist"


@pytest.mark.parametrize(
    ("command", "line"),
    [
        (["embed", "--shard", "x"], "roclip: No such option: --shard"),
        (["embed", "--shards", "x"], "roclip: Missing option '--out'; see 'roclip embed --help'"),
        (["embd"], "roclip: No such command 'embd'"),
        (
            ["embed", "--out", "x", "--shards", "y", "--workers", "many"],
            "roclip: Invalid value for '--workers'",
        ),
        (["embed", "--out", "x", "--shards", "y", "--seed", "-1"], "roclip: Invalid value for '--seed': "),
        (["embed", "--out", "x", "--shards", "::"], "roclip: no shards named in '::'"),
        (
            ["embed", "--out", "", "--shards", "x"],
            "roclip: --out is empty, wanted a path; see 'roclip embed --",
        ),
        (
            ["rewrite", "--store", "s", "--verdicts", "v", "--out", "o", "--also-drop", ""],
            "roclip: --also-drop is",
        ),
        (
            ["explain", "uid", "--scan", ""],
            "roclip: --scan is empty, wanted a path; see 'roclip explain --help'",
        ),
        (["verify", ""], "roclip: folder is empty, wanted a path; see 'roclip verify --help'"),
        (
            ["train", "--train-data", "x", "--out", "o", "--lr", "nan"],
            "roclip: --lr is nan, wanted a number; see 'roclip train --help'",
        ),
        (["--config", "", "embed"], "roclip: --config is empty, wanted a path"),
        (
            ["embed", "--out", "x", "--shards", "a/0.tar", "a/1.tar"],
            "roclip: Got unexpected extra argument(s) (a/1.tar); did the shell expand a pattern? quote it: '",
        ),
        (["embed", "--out", "x", "--shards", "{0.."], "roclip: '{0..' leaves a brace open"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_command_that_makes_no_sense_is_2(roclip: Roclip, command: list[str], line: str) -> None:
    said = roclip(*command)
    assert (said.code, said.out) == (2, "")
    assert said.line.startswith(line)


def test_an_unknown_executor_is_2(roclip: Roclip, shard: Path, tmp_path: Path) -> None:
    said = roclip("embed", "--shards", shard, "--out", tmp_path / "out", "--executor", "dask")
    assert (said.code, said.line) == (2, "roclip: executor is 'dask', wanted one of ray, local")


def test_too_many_failed_pairs_are_3(roclip: Roclip, tmp_path: Path) -> None:
    shard = write_tar(tmp_path / "0.tar", [*pair_members("a", 1, image=b"?"), *pair_members("b", 2)])
    said = roclip(*embed(shard, tmp_path / "out", "--json"))
    assert said.code == 3
    assert json.loads(said.out)["failed"] == {"image_undecodable": 1}
    assert said.line == (
        "roclip: 1 of 2 failed (50.00%, at most 1.00% allowed): image_undecodable 1; "
        f"the rest is done, and {tmp_path}/out/failures lists each one"
    )
    again = roclip(*embed(shard, tmp_path / "out", "--max-failed", "0.5", "--json"))
    assert (again.code, again.lines) == (0, [])


def test_a_broken_shard_is_3_whatever_may_fail(roclip: Roclip, tmp_path: Path) -> None:
    shard = write_shard(tmp_path / "0.tar", range(9))
    shard.write_bytes(shard.read_bytes()[:-12_000])
    said = roclip(*embed(shard, tmp_path / "out", "--max-failed", "1"))
    assert said.code == 3
    assert said.lines[-1] == (
        "roclip: 1 of 8 failed (12.50%): truncated_shard 1; a broken shard always counts: 0.tar; "
        f"the rest is done, and {tmp_path}/out/failures lists each one"
    )


@pytest.mark.parametrize("place", ["store", "run/rewrite", "run/cache/0123"])
def test_failures_are_looked_for_where_they_are_listed(roclip: Roclip, tmp_path: Path, place: str) -> None:
    """A scan lists none, its store does; cleaning ends with a rewrite; a training's are in its cache."""
    shards = [write_shard(tmp_path / f"{n}.tar", range(9)) for n in range(6)]
    for shard in shards[1:]:
        shard.write_bytes(shard.read_bytes()[:-12_000])
    roclip(*embed("::".join(map(str, shards)), tmp_path / place))
    with open_session() as running:
        running.values = {"out": tmp_path / "run", "store": tmp_path / "store", "cache": None}
        said = too_many(Tally(seen=8, failed=Counter(truncated_shard=5)), max_failed=0.5)
    assert said == (
        "5 of 8 failed (62.50%, at most 50.00% allowed): truncated_shard 5; a broken shard always counts: "
        f"1.tar, 2.tar, 3.tar and 2 more; the rest is done, and {tmp_path / place}/failures lists each one"
    )


def test_what_does_not_belong_together_is_4(roclip: Roclip, shard: Path, tmp_path: Path) -> None:
    roclip(*embed(shard, tmp_path / "out"))
    said = roclip(*embed(shard, tmp_path / "out", "--batch-size", 7))
    assert (said.code, said.out) == (4, "")
    assert said.line == (
        f"roclip: {tmp_path}/out was made with other settings (batch_size was 256, now 7): "
        "choose another folder or remove it"
    )
    wrong = roclip("index", "--store", tmp_path, "--out", tmp_path / "index", "--executor", "local")
    assert (wrong.code, wrong.line) == (
        1,
        f"roclip: {tmp_path} is no folder made by 'roclip embed': it has no stage.json",
    )


def test_a_file_in_place_of_the_folder_is_one_line(roclip: Roclip, shard: Path) -> None:
    said = roclip(*embed(shard, shard))
    assert said.code == 1
    assert said.line.startswith(f"roclip: cannot write {shard}/stage.json: a file stands where a folder")


def test_interrupted_is_130(roclip: Roclip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def interrupted(spec: str) -> list[Path]:
        raise KeyboardInterrupt

    monkeypatch.setattr("roclip_sanitize.shards.expand_shards", interrupted)
    said = roclip(*embed(tmp_path, tmp_path))
    assert (said.code, said.line) == (
        130,
        "roclip: interrupted; the same command again goes on from here",
    )


@pytest.mark.slow
def test_an_unknown_model_suggests_its_neighbours(roclip: Roclip, shard: Path, tmp_path: Path) -> None:
    said = roclip(*embed(shard, tmp_path / "out", "--encoder", "open_clip:ViT-B-33"))
    assert (said.code, said.out) == (2, "")
    assert said.line.startswith("roclip: open_clip has no model 'ViT-B-33'; did you mean ")
    assert "ViT-B-32" in said.line
    assert not (tmp_path / "out").exists()


# Settings from a file


def test_a_file_gives_defaults_and_options_go_first(roclip: Roclip, shard: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    lines = ["[embed]", f'shards = "{shard}"', f'out = "{out}"', 'executor = "local"', "batch-size = 3"]
    path = settings_file(tmp_path, "\n".join(lines))
    assert roclip("--config", path, "embed").code == 0
    assert json.loads((out / "stage.json").read_text())["settings"]["batch_size"] == 3
    said = roclip("--config", path, "embed", "--batch-size", 4)
    assert "batch_size was 3, now 4" in said.line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "[embed]\nbatchsize = 3",
            "[embed] has no setting 'batchsize'; did you mean 'batch_size'? known are batch_size, ",
        ),
        ("[embd]\nseed = 3", "[embd] is no command; did you mean 'embed'? known are adopt, attacks, "),
        ("seed = 3", "[seed] is no command; did you mean "),
        ("[embed\n", "is no TOML: "),
        ("[embed]\nseed = 'many'", "[embed] seed is 'many', wanted a whole number of 0 or more"),
        ("[embed]\nseed = -1", "[embed] seed is -1, wanted a whole number of 0 or more"),
        ("[embed]\nmax-failed = 2", "[embed] max_failed is 2, wanted a number from 0 to 1"),
        ("[embed]\nseed = true", "[embed] seed is true, wanted a whole number of 0 or more"),
        ("[embed]\nshards = ['a']", "[embed] shards is ['a'], wanted text"),
        (
            "[attacks.rebuild]\nledgr = 'a'",
            "[attacks.rebuild] has no setting 'ledgr'; did you mean 'ledger'? known",
        ),
        ("embed = 3", "[embed] is 3, wanted a table of settings"),
    ],
    ids=repr,
)
def test_a_file_that_makes_no_sense_is_2(roclip: Roclip, tmp_path: Path, text: str, line: str) -> None:
    path = settings_file(tmp_path, text)
    said = roclip("--config", path, *embed(tmp_path / "0.tar", tmp_path / "out"))
    assert (said.code, said.out) == (2, "")
    assert line in said.line


def test_a_missing_file_is_2(roclip: Roclip, tmp_path: Path) -> None:
    said = roclip("--config", tmp_path / "gone.toml", "embed")
    assert (said.code, said.line) == (2, f"roclip: run file {tmp_path}/gone.toml does not exist")


# Help


def test_the_version_is_printed(roclip: Roclip) -> None:
    said = roclip("--version")
    assert (said.code, said.out.strip(), said.lines) == (0, __version__, [])


@pytest.mark.parametrize("command", [[], ["embed"], ["demo"]], ids=lambda command: " ".join(command) or "all")
def test_help_is_on_stdout(roclip: Roclip, command: list[str]) -> None:
    said = roclip(*command, "--help")
    assert (said.code, said.lines) == (0, [])
    assert f"Usage: {' '.join(['roclip', *command])} " in said.out


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        (["explain"], "UID <str>  The pair's uid, see SCAN/verdicts."),
        (["explain"], "--scan FOLDER"),
        (["attacks", "show"], "ATTACK <str>"),
        (["config", "show"], "COMMAND <list[str]>"),
        ([], "List, show and rebuild attacks; make a patch."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_help_calls_what_it_wants_by_its_name(roclip: Roclip, command: list[str], shown: str) -> None:
    assert shown in roclip(*command, "--help").out


def test_a_folder_that_is_not_there_is_said_to_be_missing(roclip: Roclip, tmp_path: Path) -> None:
    for command in ("verify", "status"):
        said = roclip(command, tmp_path / "nowhere")
        assert (said.code, said.line) == (1, f"roclip: {tmp_path}/nowhere does not exist")


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("report", "--out FILE File for the page; report.html in FOLDER by default."),
        ("attacks optimise-patch", "--out FILE File for the patch."),
        (
            "train",
            "--pretrained TEXT Start from these weights: a training's folder, or open_clip:NAME/WEIGHTS.",
        ),
        ("train", "--match-from SHARE Share of training before matching starts (roclip only)."),
        ("train", "2 % of the pairs (roclip, roclip_released, unimodal, safeclip only)."),
        ("train", "--doubtful SHARE Share of the pairs that are not trusted (consensus only)."),
        ("pair", "--store FOLDER Embedding store of a CLIP, such as by 'roclip embed"),
        ("score", "--store FOLDER Embedding store: of a CLIP for clip_score, rematch_rank and risk"),
        ("submit", "this machine's if not told."),
    ],
)
def test_help_says_what_an_option_takes(roclip: Roclip, command: str, words: str) -> None:
    said = roclip(*command.split(), "--help")
    assert words in " ".join(said.out.split())


def test_nothing_asked_is_help_and_2(roclip: Roclip) -> None:
    said = roclip()
    assert (said.code, said.out) == (2, "")
    assert said.lines[0].startswith("Usage: roclip ")
    assert len(said.lines) > 10


def test_help_names_every_exit_code(roclip: Roclip) -> None:
    said = roclip("--help")
    assert {"0", "1", "2", "3", "4", "130", "143"} <= set(said.out.partition("Exit codes:")[2].split())


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys, roclip_sanitize\n"
        "from roclip_sanitize.cli import run\n"
        "try: run(['--help'])\n"
        f"finally: print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "Usage: roclip" in done.stdout
    assert done.stderr.strip() == "[]"


def test_a_traceback_means_a_bug(shard: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is raised on purpose becomes one line."""

    def broken(spec: str) -> list[Path]:
        raise AssertionError(uid(0))

    monkeypatch.setattr("roclip_sanitize.shards.expand_shards", broken)
    with pytest.raises(AssertionError, match=uid(0)):
        run([str(argument) for argument in embed(shard, tmp_path / "out")])
