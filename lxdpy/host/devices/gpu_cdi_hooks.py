"""PURE: what the hooks of CDI specs do, read from their arguments; no program of a vendor is run for it.

`nvidia-ctk hook NAME …` and `nvidia-cdi-hook NAME …` are two spellings of the same.
"""

from collections.abc import Iterable, Iterator

from cluster.errors import Unsupported
from lxdpy.host.devices.driver import Finish
from lxdpy.host.gpu.cdi import Hook

NEEDLESS = ("disable-device-node-modification", "enable-cuda-compat")
"""The one keeps programs from making device files, which a user namespace does. The other prefers libraries
that application images bring along; a system container's owner says so to the loader by himself."""
DONE = ("create-symlinks", "update-ldcache", "chmod")


def finish_of(hooks: Iterable[Hook]) -> Finish:
    """What they ask for. Raises Unsupported naming a hook that asks for something else."""
    links: list[tuple[str, str]] = []
    folders: list[str] = []
    modes: list[tuple[str, str]] = []
    for hook in hooks:
        name, arguments = _words(hook)
        options = list(_options(hook, arguments))
        match name:
            case "create-symlinks":
                links += [_link(hook, value) for option, value in options if option == "link"]
            case "update-ldcache":
                folders += [value for option, value in options if option == "folder"]
            case "chmod":
                mode = next((value for option, value in options if option == "mode"), "")
                if not mode or set(mode) - set("01234567"):
                    raise _refused(hook)
                modes += [(mode, value) for option, value in options if option == "path"]
            case _ if name not in NEEDLESS:
                raise _refused(hook)
    return Finish(links=tuple(links), libraries=tuple(dict.fromkeys(folders)), modes=tuple(modes))


def _words(hook: Hook) -> tuple[str, list[str]]:
    """The hook's name and what follows. The first argument is the program's own name."""
    words = [word for word in hook.args[1:] if word != "hook"]
    return (words[0], words[1:]) if words else ("", [])


def _options(hook: Hook, words: list[str]) -> Iterator[tuple[str, str]]:
    """`--link A` and `--link=A`."""
    place = 0
    while place < len(words):
        option, equals, value = words[place].partition("=")
        if not equals and place + 1 < len(words) and not words[place + 1].startswith("--"):
            place += 1
            value = words[place]
        if not option.startswith("--"):
            raise _refused(hook)
        yield option[2:], value
        place += 1


def _link(hook: Hook, value: str) -> tuple[str, str]:
    """`target::path`."""
    target, colons, path = value.partition("::")
    if not target or not colons or not path.startswith("/"):
        raise _refused(hook)
    return target, path


def _refused(hook: Hook) -> Unsupported:
    said = " ".join((hook.path, *hook.args[1:]))
    return Unsupported(
        f'CDI hook "{said[:200]}" is not known; those that are done: {", ".join(DONE)}', hook=said
    )
