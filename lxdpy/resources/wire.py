"""What all nouns' wire forms share: dates, URLs of rows, what names and configs may be.

Messages are LXD's where it has one that says what is wrong. Ours differ on purpose in naming the thing that
was not found, and the key and value that do not fit; and what LXD's database reports as 500 is 400, 404, 409.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from urllib.parse import parse_qs, quote, urlsplit

from cluster.errors import Invalid

NEVER = "0001-01-01T00:00:00Z"  # Go's zero time


def rfc3339(seconds: float, zero: str = NEVER) -> str:
    """Unix seconds as LXD writes dates; 0 is `zero`."""
    if not seconds:
        return zero
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def seconds_of(text: str | None) -> float:
    """Unix seconds of an RFC 3339 date; 0 for Go's zero time, the epoch and nothing. Raises ValueError."""
    if not text:
        return 0.0
    head, _, fraction = text.removesuffix("Z").partition(".")
    digits = fraction[:6]  # Go writes nanoseconds
    moment = datetime.fromisoformat(f"{head}.{digits:0<6}+00:00" if digits.isdigit() else text)
    return max(0.0, moment.timestamp()) if moment.year > 1 else 0.0


def url(path: str, *names: str, project: str = "default") -> str:
    """`/1.0/<path>/<names>`, with `?project=` where it is not the default one."""
    whole = "/".join(["/1.0", path, *(quote(name, safe="") for name in names)])
    return whole if project == "default" else f"{whole}?project={quote(project)}"


def check_name(noun: str, name: str, forbidden: Mapping[str, str] | None = None) -> None:
    """`forbidden` characters by what they are called, slashes always among them. Raises Invalid."""
    if not name:
        raise Invalid("No name provided", key="name")
    for what, characters in {"slashes": "/", **(forbidden or {})}.items():
        if any(character in name for character in characters):
            raise Invalid(f"{noun} names may not contain {what}", key="name", value=name)
    if name in (".", ".."):
        raise Invalid(f'Invalid {noun.lower()} name "{name}"', key="name", value=name)


def only_set(config: Mapping[str, str] | None) -> dict[str, str]:
    """Without the keys whose value is empty: that is how clients unset them."""
    return {key: value for key, value in (config or {}).items() if value}


def options_set(devices: Mapping[str, Mapping[str, str]] | None) -> dict[str, dict[str, str]]:
    """Devices without the options whose value is empty."""
    return {name: only_set(options) for name, options in (devices or {}).items()}


def project_of(path: str) -> str:
    """The project that a URL of `url` is in."""
    return parse_qs(urlsplit(path).query).get("project", ["default"])[0]
