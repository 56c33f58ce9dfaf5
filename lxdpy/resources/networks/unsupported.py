"""Nouns that need a network of type `ovn`, or more than a bridge here does. There are none, and none can be
made; clients list them all the same.
"""

from aiohttp import web

from cluster.errors import Unsupported
from lxdpy.resources.networks.model import NETWORKS
from lxdpy.resources.projects.model import home
from lxdpy.rest.replies import sync
from lxdpy.rest.route import Call, Routes

acls = Routes("/1.0/network-acls")
zones = Routes("/1.0/network-zones")
peers = Routes("/1.0/networks/{network}/peers")

ROUTES = (acls, zones, peers)


@acls.on("GET", entitlement="can_view")
@zones.on("GET", entitlement="can_view")
async def list_none(call: Call[None]) -> web.Response:
    return sync([])


@peers.on("GET", entitlement="can_view")
async def list_none_of_network(call: Call[None]) -> web.Response:
    own = home(call.state, call.project, "networks")
    call.state.get(NETWORKS, f"{own}/{call.path('network')}")
    return sync([])


@acls.on("POST", entitlement="can_create_network_acls")
async def create_acl(call: Call[None]) -> web.Response:
    raise Unsupported("Network ACLs are not supported yet")


@zones.on("POST", entitlement="can_create_network_zones")
async def create_zone(call: Call[None]) -> web.Response:
    raise Unsupported("Network zones are not supported yet")


@peers.on("POST", entitlement="can_edit")
async def create_peer(call: Call[None]) -> web.Response:
    raise Unsupported('Network peers are not supported: there are no networks of type "ovn"')
