"""What every verb stands on: a client for its coroutine, and errors said in one line."""

import asyncio
import functools
import importlib
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Concatenate, ParamSpec

import click

from cluster.errors import Error
from lxdpy.client.client import Client

P = ParamSpec("P")


class Said(click.Group):
    """A group whose errors are one line on stderr and exit status 1; wrong usage is 2, as click has it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except Error as error:
            raise click.ClickException(error.message) from error
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            raise click.ClickException(f"{where}{error.strerror or error}") from error


class Late(click.Group):
    """A group with verbs that are imported when they are asked for: each brings libraries with it, and what
    reads a stopped member's log half of the daemon."""

    late: Mapping[str, str] = {}  # name of the verb -> "module:name"

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *self.late])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.late:
            return super().get_command(ctx, cmd_name)
        module, _, name = self.late[cmd_name].partition(":")
        found = getattr(importlib.import_module(module), name)
        assert isinstance(found, click.Command)
        return found


def asks(run: Callable[Concatenate[Client, P], Awaitable[None]]) -> Callable[P, None]:
    """A click callback from a coroutine, whose first argument is a client of the local daemon."""

    @functools.wraps(run)
    def verb(*args: P.args, **kwargs: P.kwargs) -> None:
        async def within() -> None:
            async with Client.local() as client:
                await run(client, *args, **kwargs)

        asyncio.run(within())

    return verb
