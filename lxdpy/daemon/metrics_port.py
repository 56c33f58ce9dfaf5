"""`core.metrics_address`: a port where there is nothing but metrics, for networks that see nothing else."""

from typing import TYPE_CHECKING

from lxdpy.resources.metrics.handlers import routes
from lxdpy.resources.server.model import member_setting
from lxdpy.rest.app import Api
from lxdpy.rest.listener import Listener

if TYPE_CHECKING:
    from lxdpy.daemon.context import Daemon

ADDRESS = "core.metrics_address"


class MetricsPort:
    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon
        self._listener = Listener(daemon.tasks)
        api = Api(daemon, [routes])
        api.phase = "ready"  # reading needs nothing that has to be set up
        self._server = api.server()

    async def follow(self) -> None:
        """Listen where the state says. Raises Invalid when that cannot be."""
        await self.listen(member_setting(self._daemon.state, self._daemon.member_id, ADDRESS))

    async def listen(self, address: str) -> None:
        """ "" closes it. Raises Invalid, and then all is as before."""
        await self._listener.listen(
            address, self._server, self._daemon.membership.tls, lambda sock: sock.close()
        )

    @property
    def addresses(self) -> list[str]:
        return self._listener.addresses

    async def close(self) -> None:
        await self._listener.close()
        await self._server.shutdown(1.0)
