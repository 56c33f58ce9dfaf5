"""What comes from outside makes plain data."""

import pytest
import yaml

from lxdpy.host import safe_yaml


@pytest.mark.parametrize("text", ["!!python/object/apply:os.system [id]", "!!python/name:os.system", "a: [1"])
def test_what_is_more_or_less_than_plain_data_is_refused(text: str) -> None:
    with pytest.raises(yaml.YAMLError):
        safe_yaml.load(text)


def test_plain_data_is_read_and_written() -> None:
    data = {"a": [1, "x\ny", None], "b": {"c": 1.5}}
    assert safe_yaml.load(yaml.dump(data, Dumper=safe_yaml.Dumper)) == data
