"""The table of a sweep for readers: Markdown.

Success of each attack by method, mean over seeds; then what each method costs; what authors
published, apart; what could not be done.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from benchmarks.sweep.controls import SUCCESS_METRICS, published
from benchmarks.sweep.methods import UNDEFENDED
from benchmarks.sweep.settings import CLEAN
from roclip_sanitize.outcome import CONTROL_SUCCESS
from roclip_sanitize.runfiles import write_bytes

if TYPE_CHECKING:
    import polars

UTILITY = (("zero_shot_top1", "zero-shot"), ("retrieval_r1", "R@1"), ("retrieval_r10", "R@10"))
ANYWAY = {"attack_success": "clean_target_rate", "hit_at_1": "clean_hit_at_1"}  # the same of clean input
TRUE_CLASS = "true_class_accuracy"


def write_report(frame: polars.DataFrame, run: Path, *, title: str, failed: Mapping[str, str]) -> None:
    """RUN/table.md.

    Args:
        frame: what table.py made.
        run: the sweep's folder.
        title: which sweep it is, and of what.
        failed: cell, in words → why it could not be done.
    """
    parts = ["# Attacks against methods", "", f"Sweep {title}.", ""]
    for model, length in _unique(frame, "model", "length"):
        mine = frame.filter((frame["model"] == model) & (frame["length"] == length))
        parts += [f"## {model}, {length}", "", *_success_lines(mine), "", *_beyond_lines(mine), ""]
    parts += ["## What it costs", "", *_utility_lines(frame), ""]
    parts += ["## What authors published, on their own data and models", "", *_published_lines(), ""]
    if failed:
        parts += ["## Could not be done", "", *(f"- {cell}: {why}" for cell, why in failed.items()), ""]
    write_bytes(run / "table.md", "\n".join(parts).encode())


def _success_lines(frame: polars.DataFrame) -> list[str]:
    methods = _methods(frame)
    lines = [
        "Share of cases in which the attack succeeds, mean over seeds with the lowest and highest. "
        f"{UNDEFENDED}: undefended, the control of the others. "
        f"*Void*: undefended CLIP fell in less than {100 * CONTROL_SUCCESS:.0f} % of cases with a seed: that "
        "row says nothing about defences. Rate: what the sweep varies. Planted: pairs, by all attacks that "
        "share the training. † shares its training with another attack: not independent.",
        "",
        "| attack | rate | planted | seeds | " + " | ".join(methods) + " | control |",
        "|---|---|---|---|" + "---|" * (len(methods) + 1),
    ]
    for title, rate, its in _attacked(frame):
        values = [_values(its, method) for method in methods]
        void = "*void*" if its["void"].any() else "took"
        cells = [title, rate, _several(its["poisons"].to_list())]
        cells += [str(its["seed"].n_unique()), *map(share_of, values), void]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _beyond_lines(frame: polars.DataFrame) -> list[str]:
    """What of each success is the attacker's doing, and what becomes of pictures with a trigger."""
    import polars

    methods = _methods(frame)
    lines = [
        "How much more often than on clean input, in points: success less the share of clean pictures, or "
        "captions, that are called the same anyway. In brackets: how often the attacked pictures are still "
        "called what they are.",
        "",
        "| attack | rate | " + " | ".join(methods) + " |",
        "|---|---|" + "---|" * len(methods),
    ]
    for title, rate, its in _attacked(frame):
        cells = [title, rate]
        where = ["row", "attack", "rate"]
        (told,) = its.select(where).unique().rows(named=True)
        same = frame.filter(polars.all_horizontal(polars.col(key).eq_missing(told[key]) for key in where))
        for method in methods:
            mine = same.filter(polars.col("method") == method)
            successes, anyway = (
                _by_seed(mine, metric) for metric in (its["metric"][0], ANYWAY[its["metric"][0]])
            )
            beyond = [100 * (value - anyway[seed]) for seed, value in successes.items() if seed in anyway]
            kept = _by_seed(mine, TRUE_CLASS).values()
            shown = f"{fmean(beyond):+.1f}" if beyond else "–"
            shown += f" ({min(beyond):+.1f} to {max(beyond):+.1f})" if len(beyond) > 1 else ""
            cells.append(shown + (f" [{100 * fmean(kept):.1f} %]" if kept else ""))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _methods(frame: polars.DataFrame) -> list[str]:
    import polars

    found = frame.filter(polars.col("metric").is_in(SUCCESS_METRICS))
    return [method for (method,) in _unique(found, "method")]


def _attacked(frame: polars.DataFrame) -> Iterator[tuple[str, str, polars.DataFrame]]:
    """(title, rate, successes) of each attack at each rate."""
    import polars

    found = frame.filter(polars.col("metric").is_in(SUCCESS_METRICS))
    for row, attack, rate, metric in _unique(found, "row", "attack", "rate", "metric"):
        its = found.filter(
            (polars.col("row") == row)
            & (polars.col("attack") == attack)
            & polars.col("rate").eq_missing(rate)
            & (polars.col("metric") == metric)
        )
        title = attack if row == attack else f"{row}: {attack}"
        title += " †" if its["together"].any() else ""
        title += "" if metric == SUCCESS_METRICS[0] else f" ({metric})"
        yield title, "" if rate is None else f"{rate:g}", its


def _values(frame: polars.DataFrame, method: str) -> list[float]:
    import polars

    values: list[float] = frame.filter(polars.col("method") == method)["value"].to_list()
    return values


def _by_seed(frame: polars.DataFrame, metric: str) -> dict[int, float]:
    import polars

    return dict(frame.filter(polars.col("metric") == metric).select("seed", "value").rows())


def _utility_lines(frame: polars.DataFrame) -> list[str]:
    import polars

    kinds = [(CLEAN, True), ("poisoned", False)]
    shards = [(name, clean) for name, clean in kinds if ((frame["row"] == CLEAN) == clean).any()]
    titles = [f"{title}, {name}" for _, title in UTILITY for name, _ in shards]
    lines = [
        "Accuracy of zero-shot classes, and how often a caption finds its own picture first, or among ten; "
        "mean over all trainings of a method, by model, on "
        f"{' and on '.join(name for name, _ in shards)} shards.",
        "",
        "| method | model | length | " + " | ".join(titles) + " |",
        "|---|---|---|" + "---|" * len(titles),
    ]
    for method, model, length in _unique(frame, "method", "model", "length"):
        its = frame.filter(
            (polars.col("method") == method)
            & (polars.col("model") == model)
            & (polars.col("length") == length)
        )
        cells = [method, model, length]
        for metric, _ in UTILITY:
            values = its.filter(polars.col("attack").is_null() & (polars.col("metric") == metric))
            for _, clean in shards:
                cells.append(
                    share_of(values.filter((polars.col("row") == CLEAN) == clean)["value"].to_list())
                )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _published_lines() -> list[str]:
    lines = [
        "Not measured here, and not comparable one by one: other data, models and poisons of the same kind.",
        "",
        "| attack | method | success | what | source |",
        "|---|---|---|---|---|",
    ]
    return lines + [
        f"| {each.attack} | {each.method} | {each.percent} % | {each.about} | {each.source} |"
        for each in published()
    ]


def share_of(values: Sequence[float]) -> str:
    """A mean in per cent, with the range of several: "94.0 %", "93.1 % (91.0–95.2)", "–" for none."""
    if not values:
        return "–"
    mean = f"{fmean(values):.1%}".replace("%", " %")
    if len(values) == 1:
        return mean
    return f"{mean} ({100 * min(values):.1f}–{100 * max(values):.1f})"


def _several(counts: Sequence[int]) -> str:
    return f"{min(counts):,}" if min(counts) == max(counts) else f"{min(counts):,}–{max(counts):,}"


def _unique(frame: polars.DataFrame, *columns: str) -> list[tuple[Any, ...]]:
    return frame.select(columns).unique(maintain_order=True).rows()
