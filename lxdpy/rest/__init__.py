"""The plumbing under all handlers: routes, bodies, replies, identity, forwarding. Knows no noun.

A handler declares on its route what it needs (body type, entitlement, owner) and then only checks, proposes
and replies. `app.Api` does the rest in this order: route, identity, entitlement, applied index, owner, body,
handler.
"""
