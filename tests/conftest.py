"""What holds for every test."""

import os

from hypothesis import settings

# A busy machine is slow, not wrong: no deadlines. `make quick` takes fewer examples than `make test`.
settings.register_profile("house", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)
settings.load_profile("house")

if (
    "PYTEST_XDIST_WORKER" in os.environ
):  # as many tests as cores are at work: more threads only get in the way
    os.environ |= dict.fromkeys(["OMP_NUM_THREADS", "POLARS_MAX_THREADS"], "1")
