"""A trained model's utility as LAION's CLIP_benchmark writes it, so that its tables can take it in.

    OUT/clip_benchmark.json      all objects, one per model, data set and task
    OUT/clip_benchmark/*.json    each by itself, as ``clip_benchmark build`` reads them

Field names, tasks and metrics are those of its result files; ``pretrained`` is the arm. Recall is
counted as it does: nothing but a picture's own caption is right, even where another says the same,
so that these numbers lie at or below retrieval_rK. Top-5 is left out where there are five classes
or fewer.

Dimension key: N pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from roclip_sanitize.encoder_facts import MODEL_FILE
from roclip_sanitize.evaluation.encoding import Arrays, Weights
from roclip_sanitize.evaluation.measuring import RETRIEVAL_CUTOFFS, own_caption_ranks
from roclip_sanitize.evaluation.results import Result
from roclip_sanitize.runfiles import read_json, write_json

LANGUAGE = "en"
CLASSIFICATION: Mapping[str, Mapping[str, str]] = {  # task → our metric → its metric
    "zeroshot_classification": {
        "zero_shot_top1": "acc1",
        "zero_shot_top5": "acc5",
        "mean_per_class_recall": "mean_per_class_recall",
    },
    "linear_probe": {
        "linear_probe_top1": "acc1",
        "linear_probe_top5": "acc5",
        "linear_probe_mean_per_class_recall": "mean_per_class_recall",
    },
}


def benchmark_lines(
    results: Sequence[Result], seen: Arrays, *, weights: Weights, dataset: str
) -> list[dict[str, Any]]:
    """One object per task that was measured: dataset, model, pretrained, task, metrics, language."""
    metrics: dict[str, dict[str, float]] = {
        task: {
            names[one.metric]: round(one.value, 6)
            for one in results
            if one.attack is None and one.metric in names
        }
        for task, names in CLASSIFICATION.items()
    }
    if "caption" in seen:
        captions_2N = own_caption_ranks(seen)
        for name, rank_N in zip(("text_retrieval", "image_retrieval"), captions_2N, strict=True):
            for cutoff in RETRIEVAL_CUTOFFS:
                share = float((rank_N < cutoff).mean())
                metrics.setdefault("zeroshot_retrieval", {})[f"{name}_recall@{cutoff}"] = round(share, 6)
    return [
        {
            "dataset": dataset,
            "model": str(read_json(weights.folder / MODEL_FILE)["model"]),
            "pretrained": weights.arm,
            "task": task,
            "metrics": found,
            "language": LANGUAGE,
        }
        for task, found in metrics.items()
        if found
    ]


def write_benchmark(out: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Write all objects into one file, and each into one of its own."""
    lines = list(lines)
    write_json(out / "clip_benchmark.json", lines)
    for line in lines:
        said = [
            str(line[name]).replace("/", "_")
            for name in ("dataset", "pretrained", "model", "language", "task")
        ]
        write_json(out / "clip_benchmark" / f"benchmark_{'_'.join(said)}.json", line)
