from typing import Any

import pytest

from lxdpy.resources.openapi.description import describe
from lxdpy.resources.routes import ROUTES

DOCUMENT: dict[str, Any] = describe(ROUTES, "1")


def test_every_route_but_those_between_members_is_described() -> None:
    described = {(method.upper(), path) for path, methods in DOCUMENT["paths"].items() for method in methods}
    public = {
        (route.method, route.pattern.replace("...}", "}"))
        for noun in ROUTES
        for route in noun.all
        if not route.pattern.startswith("/internal/")
    }
    assert described == public
    assert ("GET", "/1.0/openapi.json") in described


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*map(references, value.values()))
    return set().union(*map(references, value)) if isinstance(value, list) else set()


def test_what_is_referred_to_is_there() -> None:
    there = {f"#/components/schemas/{name}" for name in DOCUMENT["components"]["schemas"]}
    assert references(DOCUMENT) <= there


def test_parameters_of_a_path_are_those_it_names() -> None:
    for path, methods in DOCUMENT["paths"].items():
        for operation in methods.values():
            named = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
            assert named == {part[1:-1] for part in path.split("/") if part.startswith("{")}


@pytest.mark.parametrize(
    ("path", "types"),
    [
        ("/1.0/profiles", {"application/json"}),
        ("/1.0/instances", {"application/json", "application/octet-stream"}),
    ],
)
def test_bodies_have_their_types(path: str, types: set[str]) -> None:
    assert set(DOCUMENT["paths"][path]["post"]["requestBody"]["content"]) == types
