"""Names of instances: which are allowed, and made-up ones."""

import random
import re

from cluster.errors import Invalid

HOST_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
ADJECTIVES = (
    "able", "bold", "brisk", "calm", "clever", "crisp", "eager", "fair", "fine", "fond", "fresh",
    "glad", "grand", "keen", "kind", "light", "lucky", "merry", "mild", "neat", "nimble", "noble",
    "proud", "quick", "quiet", "rapid", "ready", "sharp", "smooth", "solid", "still", "sunny",
    "swift", "tidy", "warm", "wise",
)  # fmt: skip
ANIMALS = (
    "badger", "beetle", "bison", "cod", "crane", "dingo", "dove", "eagle", "eel", "falcon",
    "ferret", "finch", "fox", "gecko", "goose", "hare", "heron", "ibex", "jay", "koala", "lark",
    "lynx", "marten", "mole", "newt", "otter", "owl", "panda", "perch", "pika", "raven", "robin",
    "seal", "stoat", "swan", "tapir", "toad", "trout", "wren",
)  # fmt: skip


def check_name(name: str) -> None:
    """Raises Invalid unless it is a host name, which is what it becomes inside."""
    if not HOST_NAME.fullmatch(name):
        raise Invalid(
            f"Invalid instance name {name!r}: at most 63 letters, digits and dashes, beginning with a letter "
            "and not ending with a dash",
            key="name",
            value=name,
        )


def pet_name(taken: set[str]) -> str:
    """Two words that no instance has yet; a number is added when they run out."""
    dice = random.SystemRandom()
    for _ in range(50):
        name = f"{dice.choice(ADJECTIVES)}-{dice.choice(ANIMALS)}"
        if name not in taken:
            return name
    return f"{dice.choice(ADJECTIVES)}-{dice.choice(ANIMALS)}-{dice.randrange(10**6)}"
