import pytest

from lxdpy.resources.server.model import SETTINGS, Setting
from lxdpy.resources.server.proxies import proxy_for
from tests.lxdpy.fakes import LocalStore

PROXY = "http://proxy:3128"


@pytest.mark.parametrize(
    ("ignored", "url", "proxy"),
    [
        ("", "https://images.test/x", PROXY),
        ("", "http://images.test", ""),
        ("images.test", "https://images.test:8443", ""),
        ("other, .TEST", "https://images.test", ""),
        ("*.test", "https://images.test", ""),
        ("ges.test", "https://images.test", PROXY),
        ("10.0.0.1", "https://10.0.0.1:8443", ""),
        ("*", "https://images.test", ""),
    ],
)
def test_a_request_goes_through_the_proxy_unless_its_host_is_left_out(
    ignored: str, url: str, proxy: str
) -> None:
    store = LocalStore()
    store.put(SETTINGS, "core.proxy_https", Setting(PROXY))
    store.put(SETTINGS, "core.proxy_ignore_hosts", Setting(ignored))
    assert proxy_for(store.state, url) == proxy
