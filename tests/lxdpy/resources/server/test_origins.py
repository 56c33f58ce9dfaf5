from lxdpy.resources.server.model import SETTINGS, Setting
from lxdpy.resources.server.origins import headers_for
from tests.lxdpy.fakes import LocalStore

PAGE = "https://elsewhere"


def test_pages_of_other_origins_are_allowed_what_the_server_is_configured_for() -> None:
    store = LocalStore()
    assert headers_for(store.state, PAGE) == {}
    for key, value in (("origin", "*"), ("methods", "GET, PUT"), ("credentials", "true")):
        store.put(SETTINGS, f"core.https_allowed_{key}", Setting(value))
    assert headers_for(store.state, "") == {}
    assert headers_for(store.state, PAGE) == {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": "GET, PUT",
        "Access-Control-Allow-Credentials": "true",
    }
