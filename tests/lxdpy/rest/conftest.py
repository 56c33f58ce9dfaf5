"""Key pairs for tests that talk TLS."""

import pytest

from cluster.tls.certificates import KeyPair, ensure


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> tuple[KeyPair, KeyPair]:
    folder = tmp_path_factory.mktemp("keys")
    return ensure(folder, "server"), ensure(folder, "client")
