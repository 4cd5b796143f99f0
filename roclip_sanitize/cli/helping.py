"""What --help says beside the options: commands in sections, an example of each, its exit codes.

A new command is a name in SECTIONS and a line in EXAMPLES.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from typer.core import TyperGroup

from roclip_sanitize.cli.settings import settings_of

SECTIONS: Mapping[str, tuple[str, ...]] = {
    "Fetch a dataset": ("ingest",),
    "Clean a dataset": (
        "sanitize",
        "embed",
        "adopt",
        "retry-failed",
        "index",
        "scan",
        "score",
        "explain",
        "screen",
        "rewrite",
        "export",
    ),
    "Train on it": ("train", "match", "pair"),
    "Prove that it works": ("demo", "poison", "attacks", "evaluate", "report", "canaries", "audit", "verify"),
    "Run": ("config", "submit", "status", "bench"),
}
EXAMPLES: Mapping[str, str] = {
    "ingest": "roclip ingest --urls 'laion/{00000..00127}.parquet' --out data",
    "sanitize": "roclip sanitize --shards 'data/{00000..00331}.tar' --out runs/clean",
    "embed": "roclip embed --shards 'data/{00000..00331}.tar' --encoder plain --out runs/clean/store",
    "adopt": "roclip adopt --embeddings laion/embeddings --shards 'data/{00000..00331}.tar' "
    "--model ViT-B-32/openai --out runs/clean/store",
    "retry-failed": "roclip retry-failed runs/clean/store",
    "index": "roclip index --store runs/clean/store --transform pca96 --out runs/clean/index",
    "index inspect": "roclip index inspect runs/clean/index",
    "scan": "roclip scan --store runs/clean/store --index runs/clean/index --out runs/clean/scan",
    "score": "roclip score --store runs/clip/store --detectors slof,clip_score --out runs/clip/scores",
    "explain": "roclip explain 0123456789abcdef0123456789abcdef --scan runs/clean/scan",
    "screen": "roclip screen --shards 'data/{00000..00331}.tar' --known-bad hashes.txt --out runs/screen",
    "rewrite": "roclip rewrite --store runs/clean/store --verdicts runs/clean/scan --out runs/clean/rewrite",
    "export": "roclip export --scan runs/clean/scan --out runs/clean/fiftyone",
    "train": "roclip train --train-data 'runs/clean/rewrite/kept/{00000..00331}.tar' --out runs/model",
    "match": "roclip match --store runs/clean/store --index runs/clean/index --out runs/matches",
    "pair": "roclip pair --store runs/clip/store --index-text runs/clip/texts --method final --out pairs",
    "demo": "roclip demo --run runs/demo",
    "poison": "roclip poison --shards 'data/{00000..00002}.tar' --label class --out runs/poisoned "
    "--attacks patch:rate=0.003",
    "attacks list": "roclip attacks list --json",
    "attacks show": "roclip attacks show patch",
    "attacks rebuild": "roclip attacks rebuild --ledger runs/poisoned --shards 'data/{00000..00002}.tar' "
    "--out again",
    "attacks optimise-patch": "roclip attacks optimise-patch --encoder runs/model "
    "--shards 'data/{00000..00002}.tar' --label class --target shirt --out patch.png",
    "evaluate": "roclip evaluate --arm plain=runs/model --test-shards data/test.tar --label class "
    "--out runs/measured",
    "report": "roclip report runs/demo",
    "canaries": "roclip canaries --scan runs/clean/scan --out runs/clean/canaries",
    "audit": "roclip audit --scan runs/clean/scan --rewritten runs/clean/rewrite --out runs/clean/audit",
    "verify": "roclip verify runs/clean",
    "config show": "roclip config show sanitize > run.toml",
    "config check": "roclip config check run.toml",
    "submit": "roclip submit --address http://head:8265 --working-dir . "
    "sanitize --shards 'data/{00000..00331}.tar' --out runs/clean",
    "status": "roclip status runs/clean --follow",
    "bench machine": "roclip bench machine --json",
}
EXIT_CODES = (
    "Exit codes: 0 done, 1 failed, 2 usage, 3 done with too many failed pairs or a broken shard, "
    "4 artefacts that do not belong together, 130 interrupted, 143 terminated."
)
KINDS: Mapping[type, str] = {str: "TEXT", Path: "PATH", int: "N", float: "NUMBER", bool: ""}
WHOLE = 200  # letters of a command's first sentence: it is wrapped, not cut
METAVARS: Mapping[str, str] = {
    **dict.fromkeys(("shards", "test_shards", "train_data", "val_data", "probe_data"), "SHARDS"),
    **dict.fromkeys(("out", "run", "store", "index", "index_text", "index_image", "verdicts"), "FOLDER"),
    **dict.fromkeys(("ledger", "second_look", "textures", "cache", "pairs", "folder"), "FOLDER"),
    **dict.fromkeys(("scan", "rewritten", "canaries", "embeddings", "expected"), "FOLDER"),
    **dict.fromkeys(("config", "synonyms", "runtime_env"), "FILE"),
    "address": "URL",
    "env": "NAME=VALUE",
    "memory_gb": "GB",
    **dict.fromkeys(("budget", "max_failed", "match_from", "augment_for", "doubtful", "share"), "SHARE"),
    **dict.fromkeys(("seed", "workers", "gpus_per_worker", "threads", "batch_size", "epochs"), "N"),
    **dict.fromkeys(("encoder", "model", "method", "executor", "attacks", "label", "kind"), "NAME"),
}


class Sections(TyperGroup):
    """A group whose help lists its commands in SECTIONS; those that are in none come last."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the lists."""
        listed = {name for names in SECTIONS.values() for name in names}
        others = tuple(name for name in self.list_commands(ctx) if name not in listed)
        for title, names in {**SECTIONS, "More": others}.items():
            commands = [(name, self.commands[name]) for name in names if name in self.commands]
            if commands:
                with formatter.section(title):
                    formatter.write_dl(
                        [(name, command.get_short_help_str(WHOLE)) for name, command in commands]
                    )


def commands_below(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """All commands of a group and of the groups in it, each with the words that it is called by."""
    for name, command in group.commands.items():
        yield (*words, name), command
        if hasattr(command, "commands"):
            yield from commands_below(command, (*words, name))


def dress(command: Any, words: tuple[str, ...]) -> None:
    """Give a command's help its example, its exit codes, and words for what its options take."""
    example = EXAMPLES.get(" ".join(words))
    shown = f"Example:\n\n\b\n    {example}\n\n" if example else ""
    command.epilog = f"{shown}{EXIT_CODES}"
    kinds = {setting.parameter: KINDS[setting.kind] for setting in settings_of(command).values()}
    for parameter in command.params:
        if parameter.metavar is None and not getattr(parameter, "is_flag", False):
            parameter.metavar = METAVARS.get(parameter.name, kinds.get(parameter.name))
