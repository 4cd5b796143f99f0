"""Which classes a test set is measured on, and whether its labels go with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from roclip_sanitize.attacks.ledger import Ledger
from roclip_sanitize.errors import DataError
from roclip_sanitize.evaluation.settings import EvaluateSettings
from roclip_sanitize.evaluation.test_sets import TestSet

LABELS_SHOWN = 3


def choose_classes(
    settings: EvaluateSettings, test_set: TestSet, labels: Sequence[Counter[str]]
) -> list[str]:
    """Names to choose from, each once: those of one name have one vector, and no model tells them apart.

    Args:
        settings: may name them, or a ledger that does.
        test_set: likewise.
        labels: of each part of the test set, how many of each label; the commonest, if nobody names any.
    """
    named = settings.classes or test_set.classes
    if not named and settings.ledger:
        named = Ledger.open(settings.ledger).classes
    if named:
        return [*dict.fromkeys(named)]
    counts = sum(labels, Counter[str]())
    in_order = sorted(counts.items(), key=lambda entry: (-entry[1], entry[0]))
    return [label for label, _ in in_order[: settings.class_count]]


def require_labelled(
    field: str, labels: Sequence[Counter[str]], *, classes: Sequence[str], what: str = "test"
) -> None:
    """Refuse pictures of which none shows any of the classes.

    Args:
        field: that holds a pair's class; "" of a public data set.
        labels: of each part, how many of each label.
        classes: names to choose from.
        what: the pictures are for.

    Raises:
        DataError: says what is there instead.
    """
    found = sum(labels, Counter[str]())
    if not found:
        raise DataError(
            f"the field {field!r} has 0 values in the pairs of {len(labels)} {what} shards, wanted some"
        )
    if not any(found[name] for name in classes):
        others = [name for name, _ in found.most_common()]
        raise DataError(
            f"no {what} picture shows any of the {len(classes)} classes ({_few(classes)}): "
            f"they show {_few(others)}"
        )


def _few(names: Sequence[str]) -> str:
    more = [f"{len(names) - LABELS_SHOWN} more"] if len(names) > LABELS_SHOWN else []
    return ", ".join([*map(repr, names[:LABELS_SHOWN]), *more])
