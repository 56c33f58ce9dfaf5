"""PURE: the API in the form of OpenAPI 3.1, from the routes and their bodies: it says what is."""

import inspect
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from lxdpy.rest.route import Route, Routes

Json = dict[str, Any]

INTERNAL = "/internal/"  # between members; nothing that others can count on
REF = "#/components/schemas/{name}"

# What any request may ask; each noun takes what makes sense for it and lets the rest be.
QUERIES: Mapping[str, tuple[str, Json]] = {
    "project": ("Of which project; the default one without it.", {"type": "string"}),
    "all-projects": ("Of all projects.", {"type": "boolean"}),
    "recursion": ("0 for URLs, 1 for objects, 2 for instances with all about them.", {"enum": [0, 1, 2]}),
    "filter": ("`FIELD eq VALUE`, joined by `and` and `or`.", {"type": "string"}),
    "target": ("Name of the member that is meant, or @ and a group.", {"type": "string"}),
}
FOR_LISTS = ("project", "all-projects", "recursion", "filter")
OTHERWISE = ("project", "target")

ENVELOPE: Json = {
    "type": "object",
    "required": ["type", "status", "status_code", "operation", "error_code", "error", "metadata"],
    "properties": {
        "type": {"enum": ["sync", "async", "error"]},
        "status": {"type": "string"},
        "status_code": {"type": "integer"},
        "operation": {"type": "string", "description": "URL of the operation, of what goes on by itself"},
        "error_code": {"type": "integer"},
        "error": {"type": "string"},
        "metadata": {"description": "What was asked for, or the operation"},
    },
}


def describe(nouns: Iterable[Routes], version: str) -> Json:
    """The whole document."""
    routes = [route for noun in nouns for route in noun.all if not route.pattern.startswith(INTERNAL)]
    bodies = {type_ for route in routes if (type_ := route.body or route.takes) is not None}
    types = sorted(bodies, key=lambda one: str(one))
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    schema_of = dict(zip(types, schemas, strict=True))
    paths: Json = {}
    for route in routes:
        place = paths.setdefault(path_of(route), {})
        place[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "lxdpy",
            "version": version,
            "description": "LXD's REST API 1.0 for system containers on a cluster. "
            "What is empty is null as well, and fields that are not known are let be.",
        },
        "paths": paths,
        "components": {"schemas": {"Envelope": ENVELOPE, **components}},
    }


def path_of(route: Route) -> str:
    return route.pattern.replace("...}", "}")


def _operation(route: Route, schema_of: Mapping[Any, Any]) -> Json:
    is_list = route.method == "GET" and not route.names
    found: Json = {
        "operationId": f"{route.method.lower()}{route.pattern}",
        "summary": _summary(route),
        "tags": [route.pattern.split("/")[2] if route.pattern.count("/") > 1 else "server"],
        "parameters": [_in_path(name) for name in route.names]
        + [_in_query(name) for name in (FOR_LISTS if is_list else OTHERWISE)],
        "responses": {"default": _answer("Anything: `status_code` or `error_code` say what")},
        "x-entitlement": "none" if route.untrusted else route.entitlement,
    }
    if (body := route.body or route.takes) is not None:
        content: Json = {"application/json": {"schema": schema_of[body]}}
        if route.body is None:
            content["application/octet-stream"] = {}
        found["requestBody"] = {"required": route.body is not None, "content": content}
    return found


def _summary(route: Route) -> str:
    """The handler's own words, or its name."""
    text = inspect.getdoc(inspect.unwrap(route.handler)) or ""
    words = getattr(route.handler, "__name__", "").replace("_", " ").capitalize()
    return text.partition("\n\n")[0].replace("\n", " ") or words


def _in_path(name: str) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}


def _in_query(name: str) -> Json:
    text, schema = QUERIES[name]
    return {"name": name, "in": "query", "required": False, "description": text, "schema": schema}


def _answer(text: str) -> Json:
    schema = {"$ref": REF.format(name="Envelope")}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
