"""A run of Weights & Biases: the door to wandb, which is not among this package's own requirements."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.runfiles import write_bytes
from roclip_sanitize.storage import exists, read_bytes
from roclip_sanitize.training.watching.contract import Report

ID_FILE = "wandb_id"


class WandbRun:
    """Tells a project. A resume goes on with the same run, and what it was told before stands.

    Args:
        project: of Weights & Biases.
        out: the run's folder, whose name the run gets.
        config: what the run was told.

    Raises:
        ConfigError: wandb is not installed, or would not start.
    """

    def __init__(self, project: str, *, out: Path, config: Mapping[str, Any]) -> None:
        wandb = find_wandb()
        try:
            self._run = wandb.init(
                project=project,
                name=out.name,
                id=run_id(out),
                resume="allow",
                dir=str(out),
                config=dict(config),
                settings={"console": "off"},  # else it takes stderr, where the progress line is
            )
        except wandb.Error as error:
            raise ConfigError(f"wandb would not start: {' '.join(str(error).split())}") from error

    def told(self, report: Report) -> None:
        """See Watcher.told. wandb leaves out steps that it knows already."""
        self._run.log(report.scalars(), step=report.step)

    def end(self) -> None:
        """See Watcher.end."""
        self._run.finish()


def find_wandb() -> Any:
    """The module.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise ConfigError("--wandb needs the package wandb, which is not installed") from error
    return wandb


def run_id(out: Path) -> str:
    """What a run is called as long as its folder is there; one that is begun anew is another run."""
    path = out / ID_FILE
    if not exists(path):
        write_bytes(path, uuid4().hex[:12].encode())
    return read_bytes(path).decode()
