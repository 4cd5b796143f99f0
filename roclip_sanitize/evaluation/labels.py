"""Whether a test set's labels and the classes that it is to be measured on go together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from roclip_sanitize.errors import DataError

LABELS_SHOWN = 3


def require_labelled(field: str, labels: Sequence[Counter[str]], *, classes: Sequence[str]) -> None:
    """Refuse a test set of whose pictures none shows any of the classes.

    Args:
        field: that holds a pair's class; "" of a public data set.
        labels: of each part, how many of each label.
        classes: names to choose from.

    Raises:
        DataError: says what is there instead.
    """
    found = sum(labels, Counter[str]())
    if not found:
        raise DataError(
            f"the field {field!r} has 0 values in the pairs of {len(labels)} test shards, wanted some"
        )
    if not any(found[name] for name in classes):
        others = [name for name, _ in found.most_common()]
        raise DataError(
            f"no test picture shows any of the {len(classes)} classes ({_few(classes)}): "
            f"they show {_few(others)}"
        )


def _few(names: Sequence[str]) -> str:
    more = [f"{len(names) - LABELS_SHOWN} more"] if len(names) > LABELS_SHOWN else []
    return ", ".join([*map(repr, names[:LABELS_SHOWN]), *more])
