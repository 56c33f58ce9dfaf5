import pytest

from lxdpy.host.image_metadata import CorruptImage, parse_metadata
from tests.lxdpy.host.image_files import METADATA


def test_what_yaml_takes_for_numbers_and_dates_is_text() -> None:
    found = parse_metadata(METADATA)
    assert found.properties == {"os": "Test", "release": "12", "serial": "2024-01-01", "empty": ""}


def test_debians_names_of_architectures_become_the_kernels() -> None:
    assert parse_metadata(METADATA).architecture == "x86_64"


def test_templates_are_read() -> None:
    template = parse_metadata(METADATA).templates["/etc/hostname"]
    assert (template.template, template.when, template.create_only) == (
        "hostname.tpl",
        ("create", "copy"),
        False,
    )


def test_only_architecture_and_date_are_needed() -> None:
    found = parse_metadata(b"architecture: aarch64\ncreation_date: 1\nproperties:\nnew_key: [1]\n")
    assert (found.architecture, found.creation_date, found.properties) == ("aarch64", 1, {})


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (b"", "holds no keys"),
        (b"[1, 2]", "holds no keys"),
        (b"a: b: c", "not YAML: line 1"),
        (b"\xff\xfe\xff", "not YAML"),
        (b"[" * 600, "not YAML"),
        (b"creation_date: 1", "no architecture"),
        (b"architecture: x86_64", "no creation_date"),
        (b"architecture: x86_64\ncreation_date: 0", "no creation_date"),
        (b"architecture: z80\ncreation_date: 1", "unknown architecture"),
        (b"architecture: x86_64\ncreation_date: yesterday", r"creation_date"),
        (b"architecture: x86_64\ncreation_date: -5", "not in Unix seconds"),
        (b"architecture: x86_64\ncreation_date: 1\nproperties: [1]", "properties"),
        (b"architecture: x86_64\ncreation_date: 1\nproperties: {a: [b]}", '"a" is not text'),
        (
            b"architecture: arm64\ncreation_date: 1\ntemplates: {/x: {template: ../../x}}",
            "not a file name",
        ),
        (b"architecture: x86_64\ncreation_date: 1\ntemplates: {etc/x: {template: x}}", "not a file name"),
        (b"architecture: x86_64\ncreation_date: 1\ntemplates: {/etc/x: 5}", "templates"),
        (b"!!python/object/apply:os.system [id]", "not YAML"),
        (b"#" * (2**18 + 1), "larger than"),
    ],
)
def test_bad_metadata_is_refused_with_the_reason(text: bytes, complaint: str) -> None:
    with pytest.raises(CorruptImage, match=complaint):
        parse_metadata(text)


def test_aliases_that_multiply_take_no_time() -> None:
    """Nine lines of YAML that would be a billion values if written out."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    bomb = "\n".join([*lines, "architecture: x86_64", "creation_date: 1", "properties: {p: *a9}"])
    with pytest.raises(CorruptImage, match="not text"):
        parse_metadata(bomb.encode())
