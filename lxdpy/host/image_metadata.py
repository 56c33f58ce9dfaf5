"""`metadata.yaml`: what an image says of itself. Source: LXD doc/image-handling.md."""

from datetime import date
from typing import Any

import msgspec
import yaml

from cluster.errors import Invalid
from lxdpy.config.types import ARCHITECTURES

LARGEST = 2**18  # bytes; real ones take under 4 kB

ALIASES = {
    "amd64": "x86_64", "x86": "i686", "i386": "i686", "i586": "i686", "generic_32": "i686",
    "arm64": "aarch64", "generic_64": "x86_64", "armhf": "armv7l", "armv7": "armv7l", "arm": "armv7l",
    "ppc64el": "ppc64le",
}  # fmt: skip
"""Debian's and others' names of the architectures, beside the kernel's own."""

Scalar = str | int | float | bool | date | None
"""What YAML may hold where we want text. No lists: nested aliases can make a small one endless."""


class CorruptImage(Invalid):
    """The files are not an image, or not all of one."""


class Template(msgspec.Struct, frozen=True):
    """A file the daemon writes into the root file system when an event named in `when` happens."""

    template: str  # file below `templates/`
    when: tuple[str, ...] = ()
    create_only: bool = False
    properties: dict[str, str] = {}


class ImageMetadata(msgspec.Struct, frozen=True):
    architecture: str  # the kernel's name of it: x86_64
    creation_date: int  # Unix seconds
    expiry_date: int = 0  # Unix seconds; 0: never
    properties: dict[str, str] = {}
    templates: dict[str, Template] = {}  # by absolute path in the root file system


def parse_metadata(text: bytes) -> ImageMetadata:
    """Raises CorruptImage, saying what is wrong."""
    tree = as_tree(text)
    for key in ("architecture", "creation_date"):
        if not tree.get(key):
            raise CorruptImage(f"Invalid image: metadata.yaml has no {key}")
    try:
        metadata = msgspec.convert(tree, ImageMetadata, strict=False)
    except msgspec.ValidationError as error:
        raise CorruptImage(f"Invalid image: metadata.yaml: {error}") from None
    return _checked(metadata)


def as_tree(text: bytes) -> dict[str, Any]:
    """What `metadata.yaml` says, properties as texts. Raises CorruptImage for what is no mapping."""
    if len(text) > LARGEST:
        raise CorruptImage(f"Invalid image: metadata.yaml is larger than {LARGEST} bytes")
    try:
        tree = yaml.safe_load(text)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptImage(f"Invalid image: metadata.yaml is not YAML: {_line(error)}") from None
    if not isinstance(tree, dict):
        raise CorruptImage("Invalid image: metadata.yaml holds no keys")
    tree["properties"] = _texts(_mapping(tree, "properties"))
    tree["templates"] = _mapping(tree, "templates")
    return tree


def _checked(metadata: ImageMetadata) -> ImageMetadata:
    architecture = ALIASES.get(metadata.architecture, metadata.architecture)
    if architecture not in ARCHITECTURES:
        raise CorruptImage(f'Invalid image: unknown architecture "{metadata.architecture[:80]}"')
    if not (0 < metadata.creation_date < 2**40 and 0 <= metadata.expiry_date < 2**40):
        raise CorruptImage("Invalid image: a date in metadata.yaml is not in Unix seconds")
    for path, template in metadata.templates.items():
        name = template.template
        if not path.startswith("/") or not name or "/" in name or name in (".", ".."):
            raise CorruptImage(f'Invalid image: template "{name[:80]}" of "{path[:80]}" is not a file name')
    return msgspec.structs.replace(metadata, architecture=architecture)


def _mapping(tree: dict[str, Any], key: str) -> dict[Any, Any]:
    value = tree.get(key) or {}
    if not isinstance(value, dict):
        raise CorruptImage(f"Invalid image: {key} in metadata.yaml are no keys and values")
    return value


def _texts(properties: dict[Any, Any]) -> dict[str, str]:
    """YAML takes `release: 12` for a number, and `serial: 2024-01-01` for a date."""
    for key, value in properties.items():
        if not isinstance(value, Scalar):
            raise CorruptImage(f'Invalid image: property "{str(key)[:80]}" is not text')
    return {str(key): "" if value is None else str(value) for key, value in properties.items()}


def _line(error: Exception) -> str:
    mark = getattr(error, "problem_mark", None)
    return f"line {mark.line + 1}" if mark else type(error).__name__
