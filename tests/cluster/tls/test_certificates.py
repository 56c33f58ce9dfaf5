import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from cluster.errors import Invalid
from cluster.tls.certificates import (
    KeyPair,
    adopt,
    der_to_pem,
    ensure,
    fingerprint_of,
    make,
    pem_to_der,
    pem_to_ders,
    prepared,
    write,
)


def loaded(pair: KeyPair) -> x509.Certificate:
    return x509.load_der_x509_certificate(pair.der())


def test_a_key_pair_is_p384_and_lasts_ten_years(tmp_path: Path) -> None:
    certificate = loaded(ensure(tmp_path, "server"))
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key.curve.name == "secp384r1"
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    assert timedelta(days=3649) < left <= timedelta(days=3650)


def test_it_serves_and_calls_and_names_the_host(tmp_path: Path) -> None:
    certificate = loaded(ensure(tmp_path, "server", ["10.1.2.3", "n1.example"]))
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert set(usage) == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    addresses = [str(address) for address in names.get_values_for_type(x509.IPAddress)]
    assert addresses == ["10.1.2.3", "127.0.0.1", "::1"]
    assert "n1.example" in names.get_values_for_type(x509.DNSName)


def test_asking_twice_makes_it_once(tmp_path: Path) -> None:
    first = ensure(tmp_path / "new", "server").fingerprint()
    assert ensure(tmp_path / "new", "server").fingerprint() == first


def test_only_the_owner_may_read_the_key(tmp_path: Path) -> None:
    pair = ensure(tmp_path, "server")
    assert stat.S_IMODE(pair.key.stat().st_mode) == 0o600
    assert stat.S_IMODE(pair.certificate.stat().st_mode) == 0o644
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server.crt", "server.key"]


def test_a_key_left_by_a_crash_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "server.key").write_text("half")
    assert ensure(tmp_path, "server").fingerprint()


def test_a_certificate_without_its_key_is_refused_and_kept(tmp_path: Path) -> None:
    pair = ensure(tmp_path, "server")
    before = pair.pem()
    pair.key.write_text(ensure(tmp_path, "other").key.read_text())
    with pytest.raises(Invalid, match=r"Bad key pair .*server\.crt"):
        ensure(tmp_path, "server")
    pair.key.unlink()
    with pytest.raises(Invalid, match="Bad key pair"):
        ensure(tmp_path, "server")
    assert pair.pem() == before


def test_a_pair_that_does_not_match_is_not_written(tmp_path: Path) -> None:
    pair = ensure(tmp_path, "server")
    before = pair.pem()
    with pytest.raises(Invalid, match="does not belong"):
        write(pair, make("a")[0], make("b")[1])
    with pytest.raises(Invalid, match="PEM"):
        write(pair, "no", "no")
    assert pair.pem() == before


def test_pem_and_der_are_the_same_certificate(tmp_path: Path) -> None:
    pair = ensure(tmp_path, "server")
    assert pem_to_der(der_to_pem(pair.der())) == pair.der()
    assert fingerprint_of(pair.pem()) == fingerprint_of(pair.der()) == pair.fingerprint()
    assert len(pair.fingerprint()) == 64


@pytest.mark.parametrize(
    "text", ["", "hello", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"]
)
def test_what_is_no_certificate_is_invalid(text: str) -> None:
    with pytest.raises(Invalid, match="PEM"):
        pem_to_der(text)


def test_a_host_name_too_long_for_a_subject_is_cut() -> None:
    certificate = x509.load_pem_x509_certificate(make("h" * 60 + ".example")[0].encode())
    [name] = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
    assert len(str(name.value)) == 64


def test_a_prepared_pair_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    pair = ensure(tmp_path, "server")
    certificate, key = make("n1")
    write(prepared(pair), certificate, key)
    assert ensure(tmp_path, "server").pem() != certificate, "not yet"
    adopt(pair)
    assert (pair.pem(), pair.key.read_text()) == (certificate, key)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server.crt", "server.key"]


def test_a_crash_between_key_and_certificate_is_mended(tmp_path: Path) -> None:
    pair = ensure(tmp_path, "server")
    certificate, key = make("n1")
    write(prepared(pair), certificate, key)
    prepared(pair).key.replace(pair.key)
    assert ensure(tmp_path, "server").pem() == certificate
    assert sorted(path.name for path in tmp_path.iterdir()) == ["server.crt", "server.key"]


def test_a_pair_that_does_not_match_is_not_adopted(tmp_path: Path) -> None:
    pair = ensure(tmp_path, "server")
    before = pair.pem()
    write(prepared(pair), *make("n1"))
    prepared(pair).certificate.write_text(make("n2")[0])
    with pytest.raises(Invalid, match="does not belong"):
        adopt(pair)
    assert ensure(tmp_path, "server").pem() == before


def test_all_certificates_of_a_text_are_found() -> None:
    one, two = make("n1")[0], make("n2")[0]
    assert pem_to_ders(one + two) == [pem_to_der(one), pem_to_der(two)]
    with pytest.raises(Invalid):
        pem_to_ders("nothing")
