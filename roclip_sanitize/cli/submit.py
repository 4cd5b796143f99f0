"""The command that hands another one to a Ray cluster as a job."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from roclip_sanitize.cli.helping import METAVARS
from roclip_sanitize.cli.output import say
from roclip_sanitize.cli.settings import Setting, meant, settings_of
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.redaction import is_secret, redacted

URL = re.compile(r"[a-z][a-z0-9+.-]+:")
PATCH_FILE = re.compile(r"([:,]\s*file\s*=\s*)(.*?)(?=\s*(?:,\s*[a-z_]+\s*=|$))")  # of an attack: file=PATH
PROGRAM = ("python", "-m", "roclip_sanitize.cli")


def register(app: typer.Typer) -> None:
    """Add this module's command."""
    app.command(context_settings={"allow_interspersed_args": False})(submit)


def submit(
    stage: Annotated[
        list[str],
        typer.Argument(
            metavar="STAGE [OPTIONS]", help="The command to run, with its options, as it is run here."
        ),
    ],
    address: Annotated[
        str,
        typer.Option(help="The cluster's job server, such as http://head:8265; this machine's if not told."),
    ] = "",
    working_dir: Annotated[
        str,
        typer.Option(help="Folder or .zip that is sent along and run in, such as '.', if nodes lack roclip."),
    ] = "",
    runtime_env: Annotated[
        Path | None, typer.Option(help="JSON or YAML file with more of Ray's runtime environment.")
    ] = None,
    env: Annotated[
        list[str] | None, typer.Option(help="NAME=VALUE to set in the job; repeat for several. No secrets.")
    ] = None,
    cores: Annotated[float, typer.Option(min=0, help="Cores that the job's driver holds.")] = 0.0,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs that the job's driver holds.")] = 0.0,
    memory_gb: Annotated[float, typer.Option(min=0, help="Memory that the job's driver holds, in GB.")] = 0.0,
    wait: Annotated[bool, typer.Option(help="Follow the job's log, and end as the job ends.")] = True,
) -> None:
    """Run a command on a Ray cluster, as a job: the same options, its output, its exit code.

    Relative paths become absolute: they must lie on storage that all nodes see at the same place, or be
    URLs. Ctrl-C ends the following, not the job.
    """
    from roclip_sanitize.executors import submission

    job = submission.Job(
        command=shlex.join([*PROGRAM, *arguments_of(stage)]),
        cores=cores,
        gpus=gpus,
        memory_bytes=round(memory_gb * 1e9),
        environment=environment(runtime_env, working_dir=working_dir, variables=env or ()),
    )
    client = submission.connect(address)
    name = submission.submit(job, client)
    say(f"submit: job {name}: {job.command}")
    if not wait:
        print(name)
        return
    try:
        submission.follow(name, client, lambda text: print(text, end="", flush=True))
    except KeyboardInterrupt:
        say(
            f"submit: job {name} goes on; 'ray job logs --follow {name}' follows it again, "
            f"'ray job stop {name}' ends it"
        )
        raise


def environment(path: Path | None, *, working_dir: str, variables: Any) -> dict[str, Any]:
    """Ray's runtime environment of a job.

    Raises:
        ConfigError: the file cannot be read, or a variable is not NAME=VALUE or holds a secret.
    """
    from roclip_sanitize.executors import submission

    found = submission.read_environment(path) if path else {}
    if working_dir:
        found["working_dir"] = working_dir
    told = dict(found.get("env_vars", {}))
    for each in variables:
        name, equals, value = each.partition("=")
        if not equals or not name:
            raise ConfigError(f"--env is {each!r}, wanted NAME=VALUE")
        told[name] = value
    if secret := sorted(name for name, value in told.items() if is_secret(name) or redacted(value) != value):
        raise ConfigError(
            f"environment variable {secret[0]} holds a secret, which a job would show to all who see "
            "the dashboard: give it to the nodes"
        )
    return found | ({"env_vars": told} if told else {})


def arguments_of(stage: list[str]) -> list[str]:
    """A command line that does on any node what the given one does here, run files and all.

    Raises:
        ConfigError: there is no such command, or a setting holds a secret.
    """
    from roclip_sanitize.cli import command_tree

    command, words, rest = command_tree(), list[str](), list(stage)
    while rest and rest[0] in getattr(command, "commands", {}):
        words.append(rest.pop(0))
        command = command.commands[words[-1]]
    if not words or words[0] == "submit":
        name = stage[0] if stage else ""
        raise ConfigError(f"no command {name!r} to submit{meant(name, command_tree().commands)}")
    with command.make_context(" ".join(["roclip", *words]), rest) as context:
        values = dict(context.params)
    for setting in settings_of(command).values():
        value = values.get(setting.parameter)
        if value is None or value == setting.default:
            continue
        plain = setting.plain(value)
        for each in plain if setting.many else [plain]:
            words += list(_arguments(setting, each))
    return words


def _arguments(setting: Setting, value: Any) -> Iterator[str]:
    if isinstance(value, bool):
        yield setting.shown if value else setting.off
        return
    text = _everywhere(setting, str(value))
    if text and (is_secret(setting.name) or redacted(text) != text):
        raise ConfigError(
            f"{setting.name} holds a secret, which a job would show to all who see the dashboard: "
            "give it to the nodes, say as AWS_SECRET_ACCESS_KEY"
        )
    if not setting.positional:
        yield setting.shown
    yield text


def _everywhere(setting: Setting, value: str) -> str:
    """A value in which relative paths are absolute; one that holds none is left, whatever lies here."""
    if not value:
        return value
    if METAVARS.get(setting.name) == "SHARDS":
        return _each_absolute(value)
    if setting.kind is Path:
        return _absolute(value)
    return HOLD_PATHS.get(setting.name, str)(value)


def _absolute(path: str) -> str:
    return path if URL.match(path) else str(Path.cwd() / path)


def _each_absolute(paths: str) -> str:
    return "::".join(map(_absolute, paths.split("::")))


def _folder_absolute(value: str, *, between: str) -> str:
    """Of NAME=FOLDER, say."""
    name, found, folder = value.partition(between)
    return f"{name}{found}{_absolute(folder)}" if found else value


def _weights_absolute(spec: str) -> str:
    """Of an encoder: see encoders.open_encoder()."""
    from roclip_sanitize.encoder_facts import OPEN_CLIP
    from roclip_sanitize.encoders import UNLEARNT

    if spec in UNLEARNT:
        return spec
    if not spec.startswith(OPEN_CLIP):
        return _absolute(spec)
    name, _, weights = spec.partition("/")  # a tag of open_clip's, or a file
    return f"{name}/{_absolute(weights)}" if Path(weights).is_file() else spec


# How settings of text hold paths; all others hold none.
HOLD_PATHS: Mapping[str, Callable[[str], str]] = {
    "arm": lambda value: _folder_absolute(value, between="=") if "=" in value else _absolute(value),
    "attacks": lambda spec: PATCH_FILE.sub(lambda found: found[1] + _absolute(found[2]), spec),
    "checkpoints": _absolute,
    "dataset": partial(_folder_absolute, between=":"),
    "urls": _each_absolute,
    **dict.fromkeys(("encoder", "pretrained", "young"), _weights_absolute),
}
