"""What a sweep file may say, which cells it means, and how a bad one is refused."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars
import pytest

from benchmarks.attack_success import main, require_models
from benchmarks.sweep.cells import Cell, Corpus, Poisoning, cells_of
from benchmarks.sweep.controls import control_of, is_void, published
from benchmarks.sweep.corpus import Survey
from benchmarks.sweep.preparing import poison_settings, prepare
from benchmarks.sweep.report import share_of, write_report
from benchmarks.sweep.running import waves
from benchmarks.sweep.settings import Rendered, Sweep, expand_list
from benchmarks.sweep.sweep_file import PRESETS, load_sweep, sweep_from
from benchmarks.sweep.table import SCHEMA
from roclip_sanitize.errors import ConfigError, RoclipError
from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.sanitize import SanitizeSettings
from roclip_sanitize.scan.settings import ScanSettings
from roclip_sanitize.training.settings import TrainSettings

CORPUS = Corpus(shards=(Path("a.tar"),), test_shards=(Path("t.tar"),), label="kind", classes=30)
BASE = """
label = "kind"
shards = "a.tar"
test_shards = "t.tar"
models = ["roclip-rn-64"]
methods = ["roclip_final"]
[[attacks]]
spec = "patch:rate={rate}"
rates = [0.01, 30]
"""


def sweep(text: str = "", *, base: str = BASE) -> Sweep:
    """The sweep of BASE, with what another file says put in place or, of attacks, added."""
    more, values = tomllib.loads(text), tomllib.loads(base)
    attacks = [*values["attacks"], *more.pop("attacks", [])]
    return sweep_from({**values, **more, "attacks": attacks}, name="s")


def cells(text: str = "", **told: Any) -> list[Cell]:
    return cells_of(sweep(text), CORPUS, **told)


def test_a_cell_has_the_same_name_wherever_the_data_lies(monkeypatch: pytest.MonkeyPatch) -> None:
    names = list[list[str]]()
    for root in ("/data", "/mnt/shared/data"):
        monkeypatch.setenv("ROCLIP_DATA", root)
        corpus = Corpus(
            shards=(Path(root) / "a.tar",), test_shards=(Path("t.tar"),), label="kind", classes=30
        )
        assert corpus.to_json()["shards"] == ["$ROCLIP_DATA/a.tar"]
        assert corpus.to_json()["test_shards"] == ["t.tar"]
        names.append([cell.name for cell in cells_of(sweep(), corpus)])
    assert names[0] == names[1]


def test_a_cell_on_rendered_scenes_has_the_same_name_in_every_run_folder() -> None:
    folders = (Path("runs/one"), Path("runs/two"))
    names = [
        [cell.name for cell in cells_of(sweep(), replace(CORPUS, shards=(run / "a.tar",), rendered=rendered))]
        for rendered in (Rendered(pairs=60), Rendered(pairs=80))
        for run in folders
    ]
    assert names[0] == names[1]
    assert names[2] == names[3]
    assert set(names[0]).isdisjoint(names[2])


def test_a_change_of_one_setting_leaves_the_others_of_its_table(tmp_path: Path) -> None:
    (tmp_path / "s.toml").write_text(BASE + "[train]\nepochs = 4\nbatch_size = 32\n[resources]\ncores = 3\n")
    changed = load_sweep(str(tmp_path / "s.toml"), changes=["train.epochs = 1", "resources = {ranks = 2}"])
    assert changed.train == {"epochs": 1, "batch_size": 32}
    assert (changed.resources.cores, changed.resources.ranks) == (3, 2)
    assert len(load_sweep(str(tmp_path / "s.toml"), changes=["attacks = [{spec = 'sig'}]"]).attacks) == 1


def test_an_attack_is_the_same_in_whatever_words() -> None:
    """What is a default, and in what order it is told, decides nothing; another name is another draw."""
    names = [
        Poisoning(corpus=CORPUS, specs=(spec,), seed=0).name
        for spec in (
            "patch:rate=30,share=0.2",
            "patch:cells=4,rate=30.0",
            "patch:rate=30,as=mine",
            "patch:rate=31",
        )
    ]
    assert names[0] == names[1]
    assert len(set(names)) == 3


def test_controls_come_by_themselves_and_clean_cells_are_shared() -> None:
    found = [(cell.attack, cell.rate, cell.arm.name) for cell in cells()]
    assert found == [
        (attack, rate, method)
        for attack, rate in (("clean", None), ("patch", 0.01), ("patch", 30))
        for method in ("clip", "clip_augmented", "roclip_final")
    ]


def test_every_augmentation_brings_its_own_plain_clip() -> None:
    found = [
        cell.arm for cell in cells('augmentations = ["mild", "strong"]\nclean = false', rates={"patch": 30})
    ]
    assert [(arm.name, arm.train["augmentation"]) for arm in found] == [
        ("clip", "none"),
        ("clip_augmented+mild", "mild"),
        ("clip_augmented+strong", "strong"),
        ("roclip_final+mild", "mild"),
        ("roclip_final+strong", "strong"),
    ]


def test_an_identity_is_of_what_decides_the_result() -> None:
    plain = {cell.name for cell in cells()}
    assert len(plain) == 9
    assert {cell.name for cell in cells("[resources]\ncores = 8\n")} == plain
    assert {cell.name for cell in cells("[train]\nlr = 0.5\n")}.isdisjoint(plain)
    assert {cell.name for cell in cells("seeds = [1]")}.isdisjoint(plain)
    assert {cell.name for cell in cells("seeds = [0, 1]")} > plain
    renamed = sweep(
        '[method.mine]\nmethod = "roclip"\npairing = "final"', base=BASE.replace("roclip_final", "mine")
    )
    assert {cell.name for cell in cells_of(renamed, CORPUS)} == plain


def test_a_cell_that_scans_is_of_the_scans_defaults_too() -> None:
    scanned = cells('methods = ["scan_clip"]')[-1]
    told = scanned.to_json()["scan"]
    assert told["budget"] == ScanSettings(store=Path("s"), index=Path("i")).budget
    assert isinstance(told["detectors"], list)
    assert cells()[-1].to_json()["scan"] is None
    once = cells('methods = ["scan_clip"]\n[scan]\nyoung_clips = 0')[-1]
    assert told["young_clips"] == SanitizeSettings(shards=()).young_clips
    assert once.to_json()["scan"] == {**told, "young_clips": 0}


def test_clean_cells_are_scanned_with_their_own_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Poisoned ones are of one seed with their scan, and are called what they were."""
    scanned = [cell for cell in cells('methods = ["scan_clip"]\nseeds = [0, 2]') if cell.arm.scan]
    seeds = [(cell.poisoning.seed, cell.seed, cell.to_json()["scan"].get("seed")) for cell in scanned]
    assert seeds == [(0, 0, None), (0, 2, 2), *[(0, 0, None), (2, 2, None)] * 2]
    ran = list[tuple[str, int]]()

    def sanitize(settings: SanitizeSettings, *, out: Path, **told: Any) -> None:
        ran.append((out.relative_to(tmp_path).as_posix(), settings.seed))

    monkeypatch.setattr("roclip_sanitize.sanitize.sanitize_shards", sanitize)
    monkeypatch.setattr("roclip_sanitize.rewrite.kept_shards", lambda out: [out / "kept.tar"])
    monkeypatch.setattr("benchmarks.sweep.preparing.build_cache", lambda *told, **named: tmp_path)
    clean = scanned[0].poisoning
    known = Survey(classes=(), held_out=frozenset(), pairs=100)
    prepared = prepare(clean, scanned[:2], tmp_path, known=known, executor=LocalExecutor())
    scratch = f"scratch/{clean.name}"
    assert ran == [(scratch, 0), (f"{scratch}/seed_2", 2)]
    assert [prepared.shards_of(cell)[0].parent.parent.name for cell in scanned[:2]] == [clean.name, "seed_2"]


def test_a_control_is_of_the_same_shards_seed_and_model() -> None:
    several = cells("seeds = [0, 1]")
    for cell in several:
        control = control_of(cell, several)
        assert control.arm.name == "clip"
        assert (control.poisoning, control.seed) == (cell.poisoning, cell.seed)


@pytest.mark.parametrize(("success", "void"), [(None, True), (0.7999, True), (0.8, False), (1.0, False)])
def test_a_cell_is_void_below_four_in_five(success: float | None, void: bool) -> None:
    assert is_void(success) == void


def test_rates_are_put_into_specs() -> None:
    (row,) = sweep().attacks
    assert [row.specs_at(rate) for rate in (0.0001, 0.00123456789, 0.25, 1.0, 30, 1_000_000)] == [
        ("patch:rate=0.0001",),
        ("patch:rate=0.00123456789",),
        ("patch:rate=0.25",),
        ("patch:rate=1",),
        ("patch:rate=30",),
        ("patch:rate=1000000",),
    ]


def test_a_scaled_sweep_has_fewer_shards_and_shorter_schedules_but_as_many_poisons() -> None:
    whole = sweep(
        "[train]\nwarmup = 10000\nmatch_every = 2000\nmatch_for = 1000\nlr = 0.1\n",
        base=BASE.replace('"a.tar"', '"{00000..00099}.tar"'),
    )
    small = whole.scaled(0.015)
    assert small.shards == ("00000.tar", "00001.tar")
    assert small.train == {"warmup": 150, "match_every": 30, "match_for": 15, "lr": 0.1}
    assert small.attacks == whole.attacks
    assert whole.scaled(1) is whole


def test_what_a_sweep_tells_all_methods_goes_to_those_that_read_it() -> None:
    told = {
        cell.arm.train["method"]: cell.settings(()) for cell in cells("[train]\nmatch_every = 2000\nlr = 0.1")
    }
    assert {method: (one.match_every, one.lr) for method, one in told.items()} == {
        "clip": (TrainSettings(shards=()).match_every, 0.1),
        "roclip": (2000, 0.1),
    }
    with pytest.raises(ConfigError, match=r"doubtful is .*: it is for consensus"):
        cells('methods = ["mine"]\n[method.mine]\nmethod = "clip"\ndoubtful = 0.2')[-1].settings(())


def test_shards_may_come_from_a_list(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("s3://b/1.tar\n\nc/2.tar\n")
    assert expand_list([f"@{tmp_path}/list.txt", "{8..9}.tar::x.tar"]) == (
        *("s3://b/1.tar", "c/2.tar"),
        *("8.tar", "9.tar", "x.tar"),
    )


@pytest.mark.parametrize(("least", "sizes"), [(1, [3, 3, 3]), (4, [6, 3]), (100, [9])])
def test_a_wave_takes_whole_poisonings_until_there_is_enough_to_do(least: int, sizes: Sequence[int]) -> None:
    found = list(waves(cells(), least=least))
    assert [sum(len(its) for _, its in wave) for wave in found] == sizes


@pytest.mark.slow
@pytest.mark.parametrize(
    "preset", sorted(path.stem for path in PRESETS.glob("*.toml") if path.stem != "published")
)
def test_every_preset_means_cells_that_can_be_run(
    preset: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("ROCLIP_DATA", "CC3M", "LAION"):
        monkeypatch.setenv(name, str(tmp_path))
    (tmp_path / "train.txt").write_text("1.tar\n2.tar\n")
    (tmp_path / "test.txt").write_text("3.tar\n")
    for scale in (1, 0.01):
        found = load_sweep(preset).scaled(scale)
        require_models(found)
        for cell in cells_of(found, CORPUS):
            cell.to_json()
            if cell.poisoning.specs:
                poison_settings(cell.poisoning)
            assert control_of(cell, [cell, *cells_of(found, CORPUS)]).arm.train["method"] == "clip"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            'colour = "red"',
            r"sweep 's' has an unknown key 'colour': known are about, attacks, augmentations, ",
        ),
        ('augmentations = ["wild"]', "augmentation is 'wild', wanted one of none, mild, strong"),
        ("[train]\nspeed = 9", r"\[train\] has an unknown key 'speed': known are pretrained, epochs, "),
        ('[train]\nmethod = "clip"', r"\[train\] has an unknown key 'method'"),
        ("[resources]\nram = 9", r"\[resources\] has an unknown key 'ram': known are cores, gpus, ranks"),
        ("[resources]\ncores = 0", "wanted cores and ranks of 1 or more"),
        ("[scan]\ndepth = 9", r"\[scan\] has an unknown key 'depth': known are detectors, "),
        ("[method.clip]\nlr = 9", "method 'clip' is known already"),
        ("[method.mine]\nlearn = 9", r"\[method.mine\] has an unknown key 'learn': known are scan, "),
        ("[rendered]\npairs = 9", r"a sweep has shards and \[rendered\]: wanted one of them"),
        ("seeds = [-1]", "seeds are whole numbers of 0 or more"),
        ('[[attacks]]\nspec = "patch"', "two attacks are called 'patch'"),
        ('[[attacks]]\nname = "x"', r"\[\[attacks\]\] wants one of spec"),
        ('[[attacks]]\nspec = "warp"\nrates = [1]', r"attack 'warp' has rates, but no spec with \{rate\}"),
        ('[[attacks]]\nspec = "warp:rate={rate}"', r"attack 'warp' has a spec with \{rate\} but no rates"),
        ('[[attacks]]\nspec = "warp:rate={rate}"\nrates = [0]', "wanted shares or whole numbers above 0"),
        (
            '[[attacks]]\nspec = "warp:rate={rate}"\nrates = [1.5]',
            r"are \[1\.5\], wanted shares or whole",
        ),
        ('[[attacks]]\nspec = "warp:rate={rate}"\nrates = [nan]', "wanted shares or whole numbers above 0"),
        ('[[attacks]]\nspec = "warp:rate={rate}"\nrates = [inf]', "wanted shares or whole numbers above 0"),
        (
            '[[attacks]]\nspec = "warp"\nrate = 1',
            r"\[\[attacks\]\] has an unknown key 'rate': known are name, spec, ",
        ),
        ('[[attacks]]\nspec = "clean"', "but not 'clean'"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_in_one_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        sweep(text)
    assert "\n" not in str(refused.value)


def test_unknown_methods_attacks_models_and_lengths_are_refused() -> None:
    with pytest.raises(
        ConfigError, match="no method 'magic': known are clip, clip_augmented, roclip_first, "
    ):
        sweep(base=BASE.replace("roclip_final", "magic"))
    with pytest.raises(ConfigError, match="no attack 'warp_drive': known are targeted, patch, "):
        poison_settings(cells('[[attacks]]\nspec = "warp_drive"')[-1].poisoning)
    with pytest.raises(ConfigError, match="open_clip has no model 'resnet'"):
        require_models(sweep(base=BASE.replace("roclip-rn-64", "resnet")))
    with pytest.raises(ConfigError, match=r"\[model.RN50\] is of none of the sweep's models"):
        require_models(sweep("[model.RN50]\nlr = 1"))
    with pytest.raises(ConfigError, match="scale is 2, wanted more than 0"):
        sweep().scaled(2)


def test_a_sweep_that_is_not_there(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["attack_success", "nowhere"])
    assert main() == ConfigError.exit_code
    known = "cc3m, defences, fashion, finetuning, laion, long, matching, scenes, smoke, stronger"
    assert capsys.readouterr().err == (
        f"error: there is no sweep 'nowhere': wanted a TOML file, or one of {known}\n"
    )


def test_values_of_the_wrong_kind(tmp_path: Path) -> None:
    for name, text in (("classes", 'classes = "many"'), ("cores", 'resources = {cores = "all"}')):
        (tmp_path / f"{name}.toml").write_text(f"{text}\n{BASE}")
        with pytest.raises(ConfigError, match="has a value of the wrong kind"):
            load_sweep(str(tmp_path / f"{name}.toml"))
    with pytest.raises(ConfigError, match="of the wrong kind"):
        cells('[train]\nlr = "fast"')[0].to_json()


def test_a_variable_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC3M", raising=False)
    with pytest.raises(RoclipError, match="names the environment variable CC3M, which is not set"):
        load_sweep("cc3m")


def test_published_figures_have_their_source() -> None:
    assert {each.percent for each in published()} == {"93.75", "12.5", "0"}
    assert all("arXiv" in each.source and each.about for each in published())


def test_means_have_their_range() -> None:
    assert share_of([]) == "–"
    assert share_of([0.94]) == "94.0 %"
    assert share_of([0.9, 0.95, 1.0]) == "95.0 % (90.0–100.0)"


def test_a_void_row_says_so(tmp_path: Path) -> None:
    shared = {"sweep": "s", "row": "patch", "attack": "patch", "rate": 30.0, "poisons": 30, "together": False}
    shared |= {"model": "m", "length": "4 epochs", "seed": 0, "metric": "attack_success", "control": 0.5}
    rows = [
        {**shared, "method": "clip", "value": 0.5, "void": True},
        {**shared, "method": "roclip_final", "value": 0.25, "void": True},
    ]
    frame = polars.DataFrame(rows, schema=SCHEMA)
    write_report(frame, tmp_path, title="s: a few squares", failed={"that cell": "too few pairs"})
    text = (tmp_path / "table.md").read_text("utf-8")
    assert "| patch | 30 | 30 | 1 | 50.0 % | 25.0 % | *void* |" in text
    assert "- that cell: too few pairs" in text
    assert "Sweep s: a few squares." in text
    assert "zero-shot, poisoned" in text
    assert "zero-shot, clean" not in text  # this sweep has no clean shards
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("| ")]
    assert [len({line.count("|") for line in table}) for table in tables] == [1, 1, 1, 1]


def test_what_is_beyond_the_clean_rate_is_told_by_attack(tmp_path: Path) -> None:
    shared = {"sweep": "s", "row": "patch", "attack": "patch", "rate": 30.0, "poisons": 30, "together": False}
    shared |= {"model": "m", "length": "4 epochs", "method": "clip", "void": False}
    measured = {
        "attack_success": (0.9, 0.8),
        "clean_target_rate": (0.02, 0.01),
        "true_class_accuracy": (0.1, 0.3),
    }
    rows = [
        {**shared, "seed": seed, "metric": metric, "value": value}
        for metric, values in measured.items()
        for seed, value in enumerate(values)
    ]
    write_report(polars.DataFrame(rows, schema=SCHEMA), tmp_path, title="s", failed={})
    assert "| patch | 30 | +83.5 (+79.0 to +88.0) [20.0 %] |" in (tmp_path / "table.md").read_text("utf-8")
