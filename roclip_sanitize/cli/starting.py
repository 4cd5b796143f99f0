"""Where commands start: an executor, and a record beside the results.

A command builds its settings, which refuse what makes no sense, calls start() once, and hands the executor
to the package. All that is to be so for every command is done here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from roclip_sanitize.cli.alone import alone
from roclip_sanitize.cli.output import say
from roclip_sanitize.cli.run_file import command_told, write_run_file
from roclip_sanitize.cli.session import GoesNoFurther, session
from roclip_sanitize.errors import MismatchError
from roclip_sanitize.executors import open_executor, require_executor
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.remote import source_name
from roclip_sanitize.runfiles import RUN_FILE, STAGE_FILE, read_told
from roclip_sanitize.storage import exists

OF_STAGES = frozenset({"sanitize", "demo"})  # commands whose stages have folders of their own in OUT


def start(out: Path, executor: str, *, workers: int = 0, gpus_per_worker: float = 0.0) -> Executor:
    """Start the command: call it once, between its settings and its work.

    Args:
        out: folder of its results; run.toml and events.jsonl will be there, see status/record.py.
        executor: "ray" or "local".
        workers: how many side by side; 0 takes what there is.
        gpus_per_worker: GPUs that each worker holds.

    Raises:
        ConfigError: there is no such executor, or another run is at work in the folder.
        MismatchError: another command made the folder.
        GoesNoFurther: the command is only tried.
    """
    from roclip_sanitize.status.record import RunRecord
    from roclip_sanitize.status.watching import Watching

    running = session()
    if running.dry:
        require_executor(executor)
        raise GoesNoFurther
    require_own(out)
    running.held.enter_context(alone(out, say=say))
    opened = open_executor(executor, workers=workers, gpus_per_worker=gpus_per_worker)
    running.record = RunRecord(
        out,
        command=" ".join(running.words),
        run_file=write_run_file(running.command, running.words, running.values),
        facts={"executor": opened.name, "workers": opened.size},
    )
    running.watching = Watching(out, running.record, name=running.words[0], stream=sys.stderr)
    return opened


def sign(shards: str) -> None:
    """Let this run know how the URLs of a store's shards are signed, which the store does not."""
    from roclip_sanitize.shards import expand_shards

    if shards:
        expand_shards(shards)


def require_own(out: Path) -> None:
    """Refuse a folder that another command made: its stages would no longer be seen, nor verified.

    Stages compare what they made themselves, see StageFolder.create(). What they cannot see is a run of
    several stages, which has no stage.json of its own.

    Raises:
        MismatchError: run.toml or stage.json names another command.
    """
    command = " ".join(session().words)
    if exists(out / STAGE_FILE):
        maker = read_told(out / STAGE_FILE)["stage"] if command in OF_STAGES else command
    else:
        maker = command_told(out / RUN_FILE) or command
    if maker != command:
        raise MismatchError(
            f"{source_name(out)} was made by 'roclip {maker}', wanted one of 'roclip {command}': "
            "choose another folder"
        )
