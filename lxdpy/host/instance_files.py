"""What an instance keeps beside its root file system: `metadata.yaml` and the files of `templates/`.

They came with an image, which anyone may have made, so only plain files of a sensible size are read. The
container cannot reach them. All of it blocks, for a moment.
"""

import contextlib
import functools
import os
import stat
from pathlib import Path

import msgspec
import yaml

from cluster.errors import Error, Invalid, NotFound
from lxdpy.host.image_metadata import LARGEST, CorruptImage, Template, as_tree

METADATA = "metadata.yaml"
TEMPLATES = "templates"
LARGEST_TEMPLATE = 1 << 20  # bytes
KNOWN = 16  # metadata that are kept as they were read: reading takes 1 ms and more


class InstanceMetadata(msgspec.Struct, frozen=True):
    """`metadata.yaml` of an instance. Unlike an image's it may say nothing at all."""

    architecture: str = ""
    creation_date: int = 0  # Unix seconds
    expiry_date: int = 0
    properties: dict[str, str] = {}
    templates: dict[str, Template] = {}  # by absolute path in the root file system


def read_metadata(folder: Path) -> InstanceMetadata:
    """Nothing but defaults if there is none. Raises Invalid for what is not metadata."""
    try:
        text = _read(folder / METADATA, LARGEST)
    except FileNotFoundError:
        return InstanceMetadata()
    return _metadata(text)


@functools.lru_cache(KNOWN)
def _metadata(text: bytes) -> InstanceMetadata:
    """Instances of one image have it alike. Not to be changed by who gets it."""
    try:
        return msgspec.convert(as_tree(text), InstanceMetadata, strict=False)
    except msgspec.ValidationError as wrong:
        raise Invalid(f"metadata.yaml of the instance: {wrong}") from None
    except CorruptImage as wrong:
        raise Invalid(wrong.message.replace("Invalid image", "The instance")) from None


def write_metadata(folder: Path, metadata: InstanceMetadata) -> None:
    """Whole or not at all. Raises Invalid for templates that could not be used, or too much of it."""
    check_templates(metadata)
    text = yaml.safe_dump(msgspec.to_builtins(metadata), sort_keys=False, allow_unicode=True).encode()
    if len(text) > LARGEST:
        raise Invalid(f"metadata.yaml is longer than {LARGEST} bytes")
    _write(folder / METADATA, text)


def check_templates(metadata: InstanceMetadata) -> None:
    """Raises Invalid, naming the path."""
    for path, template in metadata.templates.items():
        check_target(path)
        check_name(template.template)


def check_target(path: str) -> None:
    """Of what a template becomes. Raises Invalid unless it names a file within the root, and no other way."""
    parts = path.split("/")
    if parts[0] or len(parts) < 2 or any(part in ("", ".", "..") for part in parts[1:]) or "\0" in path:
        raise Invalid(f'Not an absolute path of a file: "{path[:200]}"', key="templates", value=path)


def check_name(name: str) -> None:
    """Of a file of `templates/`. Raises Invalid."""
    if not name or "/" in name or "\0" in name or name.startswith(".") or len(name.encode()) > 200:
        raise Invalid(f'Invalid template filename "{name[:200]}"', key="path", value=name)


def template_names(folder: Path) -> list[str]:
    with contextlib.suppress(FileNotFoundError), os.scandir(folder / TEMPLATES) as entries:
        return sorted(
            entry.name
            for entry in entries
            if entry.is_file(follow_symlinks=False) and not entry.name.startswith(".")
        )
    return []


def read_template(folder: Path, name: str) -> bytes:
    """Raises NotFound, Invalid."""
    check_name(name)
    try:
        return _read(folder / TEMPLATES / name, LARGEST_TEMPLATE)
    except FileNotFoundError:
        raise NotFound(f'Template "{name}" not found', path=name) from None


def write_template(folder: Path, name: str, text: bytes) -> None:
    """Whole or not at all."""
    check_name(name)
    (folder / TEMPLATES).mkdir(mode=0o755, exist_ok=True)
    _write(folder / TEMPLATES / name, text)


def delete_template(folder: Path, name: str) -> None:
    """Raises NotFound."""
    check_name(name)
    try:
        os.unlink(folder / TEMPLATES / name)
    except FileNotFoundError:
        raise NotFound(f'Template "{name}" not found', path=name) from None


def _read(path: Path, most: int) -> bytes:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as refused:
        raise Error(f"{path.name} cannot be read: {refused.strerror}") from None
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise Invalid(f"{path.name} is not a plain file", path=path.name)
        text = file.read(most + 1)
    if len(text) > most:
        raise Invalid(f"{path.name} is longer than {most} bytes", path=path.name)
    return text


def _write(path: Path, text: bytes) -> None:
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
    with open(handle, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(handle)
    new.replace(path)
