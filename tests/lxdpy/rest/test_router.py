import pytest
from aiohttp import web

from lxdpy.rest.route import AnyCall, Routes
from lxdpy.rest.router import Router, names_of


async def nothing(call: AnyCall) -> web.StreamResponse:
    raise AssertionError


def router(*patterns: str) -> Router:
    routes = Routes("")
    for pattern in patterns:
        routes.on("GET", pattern)(nothing)
    return Router(routes.all)


def found(router: Router, path: str) -> tuple[str, dict[str, str]] | None:
    routes, values = router.find(path)
    if not routes:
        return None
    return routes["GET"].pattern, names_of(routes["GET"], values)


def test_a_literal_wins_over_a_name() -> None:
    made = router("/1.0/images/{fp}", "/1.0/images/aliases", "/1.0/images/aliases/{name}")
    assert found(made, "/1.0/images/aliases") == ("/1.0/images/aliases", {})
    assert found(made, "/1.0/images/abc") == ("/1.0/images/{fp}", {"fp": "abc"})
    assert found(made, "/1.0/images/aliases/a%2Fb") == ("/1.0/images/aliases/{name}", {"name": "a/b"})


def test_the_rest_of_a_path_is_taken_where_nothing_else_fits() -> None:
    made = router("/1.0/aliases", "/1.0/aliases/{name...}", "/1.0/aliases/fixed/{x}")
    assert found(made, "/1.0/aliases") == ("/1.0/aliases", {})
    assert found(made, "/1.0/aliases/debian/12/cloud") == (
        "/1.0/aliases/{name...}", {"name": "debian/12/cloud"},
    )  # fmt: skip
    assert found(made, "/1.0/aliases/debian%2F12") == ("/1.0/aliases/{name...}", {"name": "debian/12"})
    assert found(made, "/1.0/aliases/fixed") == ("/1.0/aliases/{name...}", {"name": "fixed"})
    assert found(made, "/1.0/aliases/fixed/a") == ("/1.0/aliases/fixed/{x}", {"x": "a"})
    assert found(made, "/1.0/aliases/fixed/a/b") == ("/1.0/aliases/{name...}", {"name": "fixed/a/b"})


def test_names_at_one_place_may_differ_between_routes() -> None:
    made = router("/a/{x}/one", "/a/{y}/two")
    assert found(made, "/a/1/one") == ("/a/{x}/one", {"x": "1"})
    assert found(made, "/a/1/two") == ("/a/{y}/two", {"y": "1"})


@pytest.mark.parametrize(
    "path", ["", "/", "/1.0", "/1.0/images/", "/1.0/images/a/b", "/1.0/images//b", "images", "*"]
)
def test_what_was_not_declared_is_not_found(path: str) -> None:
    assert found(router("/1.0/images/{fp}"), path) is None


def test_the_root_is_a_path_of_its_own() -> None:
    assert found(router("/"), "/") == ("/", {})


def test_a_route_declared_twice_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="declared twice"):
        router("/a/{x}", "/a/{y}")
