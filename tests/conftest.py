"""What holds for every test."""

from hypothesis import settings

# A busy machine is slow, not wrong: no deadlines. `make quick` takes fewer examples than `make test`.
settings.register_profile("house", deadline=None)
settings.register_profile("quick", deadline=None, max_examples=20)
settings.load_profile("house")
