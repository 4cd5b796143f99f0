"""A linear probe: what classes can be read off image vectors by a linear model?

The image tower stays as it is; logistic regression on its vectors learns the classes from
labelled training pairs and is scored on test pairs, as Radford et al. 2021 do (appendix A.3):
L-BFGS, at most 1,000 iterations, the strength of the L2 penalty chosen on held-out training
pairs. Theirs sweeps 96 strengths, this one STRENGTHS; and columns are standardised first, since
CLIP's unit rows lie close together, so that a penalty of any usual strength sees one point.

No part of the text tower is asked, so that a backdoor there does not show.

Dimension key: M training pictures, N test pictures, C classes, K best of them, D width.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import DataError

STRENGTHS = (0.001, 0.01, 0.1, 1.0)  # scikit-learn's C
MOST_ITERATIONS = 1_000
HELD_OUT = 0.2


def linear_probe(
    train_MD: NDArray[np.float32],
    label_M: NDArray[np.int64],
    test_ND: NDArray[np.float32],
    *,
    most: int,
    seed: int = 0,
) -> NDArray[np.int64]:
    """Learn classes from vectors, and name those of others.

    Args:
        train_MD: unit rows.
        label_M: their classes.
        test_ND: unit rows.
        most: how many classes to name for each at most.
        seed: of the choice of held-out training rows.

    Returns:
        (N, K) int64: the likeliest classes, best first; of equally likely ones the lower number first.

    Raises:
        DataError: the training rows show fewer than two classes.
    """
    known_C = np.unique(label_M)
    if len(known_C) < 2:
        raise DataError(f"a linear probe tells classes apart: wanted two or more, found {len(known_C)}")
    model = _fitted(train_MD, label_M, _best_strength(train_MD, label_M, seed))
    score_NC = model.predict_log_proba(test_ND)
    class_NC = known_C[np.argsort(-score_NC, axis=1, kind="stable")]
    return class_NC[:, :most].astype(np.int64)


def _best_strength(train_MD: NDArray[np.float32], label_M: NDArray[np.int64], seed: int) -> float:
    """The C that names most held-out rows right, of equal ones the smallest; a middle one if few are left."""
    from sklearn.metrics import accuracy_score
    from sklearn.model_selection import train_test_split

    rows = np.arange(len(label_M))
    fit, held_out = train_test_split(rows, test_size=HELD_OUT, random_state=seed, shuffle=True)
    if len(np.unique(label_M[fit])) < 2:
        return STRENGTHS[len(STRENGTHS) // 2]
    scores = [
        accuracy_score(
            label_M[held_out], _fitted(train_MD[fit], label_M[fit], strength).predict(train_MD[held_out])
        )
        for strength in STRENGTHS
    ]
    return STRENGTHS[int(np.argmax(scores))]


def _fitted(train_MD: NDArray[np.float32], label_M: NDArray[np.int64], strength: float) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=MOST_ITERATIONS))
    with warnings.catch_warnings():  # the limit on iterations is part of the protocol
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(train_MD, label_M)
