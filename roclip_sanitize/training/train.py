"""The ``train`` stage: kept shards → a CLIP.

OUT/model/           weights.safetensors and model.json: what open_clip loads
OUT/snapshots/       the same after each epoch but the last, to see how attacks take hold
OUT/best/            with held-out pairs: the same after the epoch that did best on them
OUT/checkpoints/     while it runs: what a resume needs
OUT/stop             whoever makes this file stops the run, as SIGTERM and SIGINT do
OUT/log.jsonl        loss, logit scale, speed and what each part of a step took: watching/ has a table
OUT/tensorboard/     the same for TensorBoard
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from functools import cache as kept
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from roclip_sanitize.errors import ConfigError, StorageError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.held import shards_content
from roclip_sanitize.limits import Limits
from roclip_sanitize.records import Tally
from roclip_sanitize.remote import is_url
from roclip_sanitize.runfiles import StageFolder, read_json
from roclip_sanitize.storage import cache_folder, exists, read_bytes
from roclip_sanitize.trained import is_trained, model_folder
from roclip_sanitize.training.data import build_cache, cache_tally
from roclip_sanitize.training.inputs import ReadShards, inputs_of
from roclip_sanitize.training.judging import JudgementMaker
from roclip_sanitize.training.refresh import TableMaker, clerk, remove_tables
from roclip_sanitize.training.settings import MODEL, TrainSettings
from roclip_sanitize.training.stopping import Stopping
from roclip_sanitize.training.watching import require_watchable
from roclip_sanitize.training.watching.json_lines import log_file
from roclip_sanitize.training.watching.progress import followed

STEPS = ("read", "augment", "model", "optimiser")  # model: forward and backward, loss and pool


def train_clip(
    settings: TrainSettings,
    *,
    out: Path,
    executor: Executor,
    cache: Path | None = None,
    ranks: int = 1,
    aside: int = 1,
    progress: TextIO | None = None,
) -> Tally:
    """Train one model, or finish a training that was cut short. See train_all()."""
    runs, where = {out: settings}, cache or out / "cache"
    return train_all(runs, executor=executor, cache=where, ranks=ranks, aside=aside, progress=progress)[out]


def train_all(
    runs: Mapping[Path, TrainSettings],
    *,
    executor: Executor,
    cache: Path,
    ranks: int = 1,
    aside: int = 1,
    progress: TextIO | None = None,
) -> dict[Path, Tally]:
    """Train several models one after the other in one gang, since starting a gang takes its time.

    Args:
        runs: each run's folder and what it is told.
        executor: where.
        cache: folder for decoded pairs, which the runs share.
        ranks: how many workers share each step.
        aside: how many workers make tables beside them, for those that match by an index or judge by a scan.
        progress: where people look who wait, such as stderr.

    Returns:
        Pairs seen and failed while decoding, by run.

    Raises:
        ConfigError: a model is unknown, or wandb is asked for and not there.
        DataError: too few pairs, or the loss is no longer a number.
        MismatchError: a folder was made with other settings, or of other pairs, weights or tables than are
            there now.
        Stopped: it was asked to stop, by a signal or by a file; all runs do, and keep what they have.
    """
    folders = {
        out: StageFolder.create(out, stage="train", settings=told.to_json()) for out, told in runs.items()
    }
    waiting = {out: told for out, told in runs.items() if not folders[out].finished}
    read = kept(partial(shards_content, executor=executor))  # runs may share shards
    for out in runs.keys() - waiting.keys():
        _require_same_inputs(folders[out], runs[out], cache, read)
    for told in waiting.values():
        require_watchable(told)
    decoded, members, held_out = dict[Path, Path](), [], dict[Path, Path]()
    asking = any(told.asks_for_tables for told in waiting.values())
    with executor.aside(aside) if asking else nullcontext() as beside:
        for out, told in waiting.items():
            model = model_facts(told, executor)
            decoded[out] = build_cache(told.shards, **model, root=cache, executor=executor)
            if told.val_shards:
                held_out[out] = build_cache(told.val_shards, **model, root=cache, executor=executor)
            inputs = inputs_of(told, cache=cache, read=read)
            StageFolder.create(out, stage="train", settings=told.to_json(), inputs=inputs)
            members.append(
                partial(
                    _run_member,
                    settings=told,
                    cache=decoded[out],
                    held_out=held_out.get(out),
                    out=out,
                    fit=model["fit"],
                    make_table=None if beside else _table_maker(out, told, executor),
                )
            )
        with (
            Stopping([*waiting]) as stopping,
            followed([log_file(out) for out in waiting], progress),
            _clerks(waiting, beside),
        ):
            if members:
                executor.gang(
                    partial(_run_in_turn, members), folder=_ray_folder(next(iter(waiting))), ranks=ranks
                )
    for out, told in waiting.items():
        if not is_trained(out):
            stopping.require_not_stopped()
            raise _no_model(out)
        val = {"val_tally": cache_tally(held_out[out]).to_json()} if out in held_out else {}
        _finish(folders[out], told, cache_tally(decoded[out]), **val)
        remove_tables(out)
    stopping.require_not_stopped()
    return {out: Tally.from_json(folder.facts["tally"]) for out, folder in folders.items()}


def train_limits(out: Path) -> Limits:
    """What bounded a training, over all runs that it took; steps that a kill undid are left out."""
    log = log_file(out)
    lines = read_bytes(log).decode().splitlines() if exists(log) else []
    return Limits.noted(map(json.loads, lines), order=STEPS)


def _ray_folder(out: Path) -> str:
    """Where Ray Train may keep what it notes of a run, none of which is needed again."""
    return str((cache_folder() / "ray" if is_url(out) else out / "ray").absolute())


def _no_model(out: Path) -> StorageError:
    """A rank on another machine may have written to another disk."""
    return StorageError(
        f"the training ended, but left no model in {model_folder(out)}: is it on storage that all share?"
    )


def _finish(folder: StageFolder, settings: TrainSettings, tally: Tally, **more: Any) -> None:
    rows = tally.seen - tally.failed.total()
    steps_per_epoch = rows // settings.batch_size
    folder.finish(
        {
            **more,
            "tally": tally.to_json(),
            "samples": settings.steps(steps_per_epoch) * settings.batch_size,
            "samples_per_epoch": steps_per_epoch * settings.batch_size,
        }
    )


def _require_same_inputs(folder: StageFolder, settings: TrainSettings, cache: Path, read: ReadShards) -> None:
    """Of a finished training."""
    if folder.inputs:
        inputs = inputs_of(settings, cache=cache, read=read)
        StageFolder.create(folder.path, stage="train", settings=settings.to_json(), inputs=inputs)


def model_facts(settings: TrainSettings, executor: Executor) -> dict[str, Any]:
    """What the decoder must know. Models of others are asked in a worker: the driver stays free of torch."""
    own = Path(__file__).parent.parent / "models" / f"{settings.model}.json"
    if own.exists() and not settings.pretrained:
        side = read_json(own)["vision_cfg"]["image_size"]
        return {"model": settings.model, "side": side, "fit": "squash"}
    (facts,) = executor.map(partial(_ModelFacts, settings), [None])
    return dict(facts)


class _ModelFacts:
    """Opens a model to tell what the decoder must know. Runs in a worker: the driver stays free of torch."""

    def __init__(self, settings: TrainSettings) -> None:
        from roclip_sanitize.encoder import image_side, load_clip, require_model

        name, fit = settings.model, "crop"
        if settings.pretrained:
            _, name, fit = load_clip(settings.pretrained)
            if settings.model not in (MODEL, name):
                raise ConfigError(f"model is {settings.model!r}, but {settings.pretrained} is of {name!r}")
        require_model(name)
        self._facts = {"model": name, "side": image_side(name), "fit": fit}

    def __call__(self, task: None) -> dict[str, Any]:
        return self._facts


def _run_in_turn(members: Sequence[Callable[[int, int], bool]], rank: int, size: int) -> None:
    for member in members:
        if not member(rank, size):
            return  # asked to stop: the others are to stop, too


def _run_member(rank: int, size: int, **told: Any) -> bool:
    from roclip_sanitize.training.loop import Member

    return Member(**told)(rank, size)


def _table_maker(out: Path, settings: TrainSettings, executor: Executor) -> Callable[[int], None] | None:
    if settings.judge_by == "scan":
        return JudgementMaker(out=out, shards=settings.shards, executor=executor, seed=settings.seed)
    if settings.match_by != "index":
        return None
    return TableMaker(
        out=out,
        shards=settings.shards,
        pairing=settings.pairing,
        executor=executor,
        seed=settings.seed,
    )


@contextmanager
def _clerks(runs: Mapping[Path, TrainSettings], beside: Executor | None) -> Iterator[None]:
    """Whoever makes tables for those of the runs that want some."""
    with ExitStack() as stack:
        for out, told in runs.items():
            if beside is not None and (maker := _table_maker(out, told, beside)):
                stack.enter_context(clerk(maker, out))
        yield
