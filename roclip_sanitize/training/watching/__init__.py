"""Who is told what becomes of a training's steps: every twentieth and the last.

contract.py     what a watcher is, and what it is told
json_lines.py   OUT/log.jsonl
tensorboard.py  OUT/tensorboard/
wandb_run.py    a run of Weights & Biases, if asked for
cluster.py      metrics of the Ray cluster, where there is one
progress.py     a line for people, told from the log
poisons.py      how many poisons are matched away, where a ledger says which pairs they are

A value has one name everywhere: that of the log and of wandb; TensorBoard puts ``train/`` before it, Ray
``roclip_train_``, with the run's folder as the tag ``run``. (Prometheus sees ``ray_`` before that, and
``_total`` after the counter.)

    name                   unit     what it is                                      missing from
    step total_steps       steps    made since the very first; in the whole run     all but the log
    samples                pairs    seen so far; in Ray a counter
    loss                            of the last step, over all ranks                Ray
    loss_mean                       mean over the steps since the last report
    kind                            of the last step, as its method calls it        all but the log
    learning_rate                   of the last step, its method's factor included
    logit_scale                     what cosines are multiplied by, 1 to 100
    samples_per_second     pairs/s  over all ranks, since the last report
    agreement              cosine   RoCLIP: of captions and their matches, -1 to 1
    poisons_matched_away   share    with a ledger, 0 to 1: see poisons.py
    (others)                        notes of other methods: see their modules       Ray
    seconds                s        limits.Work: what each part of a step took      all but the log

Notes are means over those steps since the last report that made them, and missing where none did. Only
what is named after seconds differs between two runs of the same seed; after a resume the first means are
of the steps made since.
"""

from __future__ import annotations

from pathlib import Path

from roclip_sanitize.training.settings import TrainSettings
from roclip_sanitize.training.watching.contract import Watcher


def open_watchers(settings: TrainSettings, *, out: Path, first_step: int) -> list[Watcher]:
    """All that should be told of a run, on the rank that tells.

    Args:
        settings: what the run is told.
        out: its folder.
        first_step: steps made before: what was told of later ones will be told again.

    Raises:
        ConfigError: Weights & Biases is asked for, and cannot be had.
    """
    from roclip_sanitize.training.watching.cluster import ClusterMetrics
    from roclip_sanitize.training.watching.json_lines import JsonLines, log_file
    from roclip_sanitize.training.watching.tensorboard import EventFile
    from roclip_sanitize.training.watching.wandb_run import WandbRun

    watchers: list[Watcher] = [
        JsonLines(log_file(out), first_step=first_step),
        EventFile(out / "tensorboard", first_step=first_step),
        ClusterMetrics(run=out.name, first_samples=first_step * settings.batch_size),
    ]
    if settings.wandb:
        watchers.append(WandbRun(settings.wandb, out=out, config=settings.to_json()))
    return watchers


def require_watchable(settings: TrainSettings) -> None:
    """Find out at once what a run would only find out after all pairs are decoded.

    Raises:
        ConfigError: wandb is asked for, and not installed.
        DataError: there is no ledger where one should be.
        MismatchError: it was made by another stage, or never finished.
    """
    if settings.wandb:
        from roclip_sanitize.training.watching.wandb_run import find_wandb

        find_wandb()
    if settings.ledger is not None:
        from roclip_sanitize.attacks.ledger import Ledger

        Ledger.open(settings.ledger)
