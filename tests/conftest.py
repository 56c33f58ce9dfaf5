"""What makes all unit tests quicker."""

import gc

from hypothesis import settings

from tests.effort import examples

settings.register_profile("usual", examples(100))
settings.load_profile("usual")


def pytest_collection_finish() -> None:
    """What was imported stays: the garbage collector need not look at it again and again."""
    gc.collect()
    gc.freeze()
