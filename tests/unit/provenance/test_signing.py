import base64
import json
import stat
import subprocess
from pathlib import Path

import pytest

from components.errors import IntegrityError, SettingsError
from components.provenance.signing import (
    SIGNING_VARIABLE,
    TRUSTED_VARIABLE,
    SigningKey,
    sign,
    signing_key,
    trusted_keys,
    verified,
)

TYPE = "application/vnd.in-toto+json"
PAYLOAD = b'{"a": 1}'


@pytest.fixture(autouse=True)
def no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (SIGNING_VARIABLE, TRUSTED_VARIABLE):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def key(tmp_path: Path) -> SigningKey:
    return signing_key(tmp_path / "keys")


def test_a_local_key_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    first, second = signing_key(tmp_path / "keys"), signing_key(tmp_path / "keys")
    assert first.local and first.public.id == second.public.id
    assert stat.S_IMODE((tmp_path / "keys" / "signing.pem").stat().st_mode) == 0o600
    assert "PRIVATE" not in repr(first)


def test_a_signature_is_the_same_each_time_and_names_its_key(key: SigningKey) -> None:
    envelope = sign(PAYLOAD, TYPE, key)
    assert envelope == sign(PAYLOAD, TYPE, key)
    assert verified(envelope, TYPE, [key.public], "it") == (PAYLOAD, key.public.id)


def test_openssl_agrees_with_the_signature(key: SigningKey, tmp_path: Path) -> None:
    envelope = json.loads(sign(PAYLOAD, TYPE, key))
    # The pre-authentication encoding of DSSE, written down by hand.
    (tmp_path / "signed").write_bytes(b"DSSEv1 %d %b %d %b" % (len(TYPE), TYPE.encode(), len(PAYLOAD), PAYLOAD))
    (tmp_path / "signature").write_bytes(base64.b64decode(envelope["signatures"][0]["sig"]))
    (tmp_path / "public.pem").write_text(key.public.pem)
    command = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "signed"]
    subprocess.run([*command, "-sigfile", "signature"], cwd=tmp_path, check=True, capture_output=True)


def test_a_changed_payload_another_key_and_another_type_are_refused(key: SigningKey, tmp_path: Path) -> None:
    envelope = sign(PAYLOAD, TYPE, key)
    changed = json.loads(envelope)
    changed["payload"] = base64.b64encode(b'{"a": 2}').decode()
    with pytest.raises(IntegrityError, match="no trusted key"):
        verified(json.dumps(changed).encode(), TYPE, [key.public], "it")
    with pytest.raises(IntegrityError, match="no trusted key"):
        verified(envelope, TYPE, [signing_key(tmp_path / "other").public], "it")
    with pytest.raises(IntegrityError, match="of type"):
        verified(envelope, "text/plain", [key.public], "it")


@pytest.mark.parametrize("damaged", [b"", b"[]", b"{}", b"\xff", b'{"payload": 3, "payloadType": 4, "signatures": 5}'])
def test_what_is_no_envelope_is_refused(key: SigningKey, damaged: bytes) -> None:
    with pytest.raises(IntegrityError, match="no DSSE envelope"):
        verified(damaged, TYPE, [key.public], "it")


def test_keys_come_from_the_environment_as_path_or_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, other = signing_key(tmp_path / "a"), signing_key(tmp_path / "b")
    private = tmp_path / "a" / "signing.pem"
    for given in (str(private), private.read_text()):
        monkeypatch.setenv(SIGNING_VARIABLE, given)
        found = signing_key(tmp_path / "unused")
        assert found.public.id == made.public.id and not found.local
        assert [key.id for key in trusted_keys(None)] == [made.public.id]
    (tmp_path / "a.pub").write_text(made.public.pem)
    (tmp_path / "b.pub").write_text(other.public.pem)
    for given in (f"{tmp_path}/a.pub:{tmp_path}/b.pub", made.public.pem + other.public.pem):
        monkeypatch.setenv(TRUSTED_VARIABLE, given)
        assert [key.id for key in trusted_keys(None)] == [made.public.id, other.public.id]
    assert not (tmp_path / "unused").exists()


def test_a_wrong_key_is_named_and_never_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="no key is trusted"):
        trusted_keys(tmp_path)
    secret = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"
    monkeypatch.setenv(SIGNING_VARIABLE, secret)
    with pytest.raises(SettingsError) as failure:
        signing_key(tmp_path)
    assert "c2VjcmV0" not in str(failure.value) and SIGNING_VARIABLE in str(failure.value)
    monkeypatch.setenv(SIGNING_VARIABLE, str(tmp_path / "absent.pem"))
    with pytest.raises(SettingsError, match=r"absent\.pem cannot be read"):
        signing_key(tmp_path)
