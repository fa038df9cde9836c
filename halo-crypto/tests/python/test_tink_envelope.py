"""Google's Tink opens the envelopes that this library makes, and this library opens Tink's."""

import io
import os
import pathlib
import subprocess

import pytest
import tink
from tink import aead, secret_key_access, streaming_aead

HERE = pathlib.Path(__file__).resolve().parent
TARGET = pathlib.Path(os.environ.get("HALO_TARGET_DIR", HERE.parents[2] / "target" / "debug"))
EXAMPLE = TARGET / "examples" / "tink_envelope"
SEGMENT = 1 << 20
FIRST = SEGMENT - 40 - 16
BINDING = b"halo trustee requisition v1\0requisitions/7"


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    aead.register()
    streaming_aead.register()


def kek_of(case: pathlib.Path) -> aead.Aead:
    keyset = (case / "kek").read_bytes()
    handle = tink.proto_keyset_format.parse(keyset, secret_key_access.TOKEN)
    return handle.primitive(aead.Aead)


def opened(case: pathlib.Path) -> bytes:
    """What Tink finds in the envelope of a case."""
    associated_data = (case / "associated_data").read_bytes()
    wrapped = (case / "wrapped_key").read_bytes()
    handle = tink.proto_keyset_format.parse_encrypted(wrapped, kek_of(case), associated_data)
    primitive = handle.primitive(streaming_aead.StreamingAead)
    source = io.BytesIO((case / "ciphertext").read_bytes())
    with primitive.new_decrypting_stream(source, associated_data) as stream:
        return stream.read()


def sealed(case: pathlib.Path, plaintext: bytes, associated_data: bytes) -> None:
    """A case that Tink makes."""
    case.mkdir(parents=True)
    kek = tink.new_keyset_handle(aead.aead_key_templates.AES256_GCM)
    handle = tink.new_keyset_handle(streaming_aead.streaming_aead_key_templates.AES256_GCM_HKDF_1MB)
    wrapped = tink.proto_keyset_format.serialize_encrypted(
        handle, kek.primitive(aead.Aead), associated_data
    )

    class Kept(io.BytesIO):
        """Tink closes what it writes to."""

        def close(self) -> None:
            self.kept = self.getvalue()
            super().close()

    target = Kept()
    primitive = handle.primitive(streaming_aead.StreamingAead)
    with primitive.new_encrypting_stream(target, associated_data) as stream:
        stream.write(plaintext)
    (case / "kek").write_bytes(tink.proto_keyset_format.serialize(kek, secret_key_access.TOKEN))
    (case / "wrapped_key").write_bytes(wrapped)
    (case / "associated_data").write_bytes(associated_data)
    (case / "ciphertext").write_bytes(target.kept)
    (case / "plaintext").write_bytes(plaintext)


def test_tink_opens_what_rust_made(tmp_path: pathlib.Path) -> None:
    subprocess.run([EXAMPLE, "write", tmp_path], check=True)
    cases = sorted(tmp_path.iterdir())
    assert len(cases) == 8
    for case in cases:
        assert opened(case) == (case / "plaintext").read_bytes(), case.name


def test_rust_opens_what_tink_made(tmp_path: pathlib.Path) -> None:
    lengths = [0, 1, 1000, FIRST - 1, FIRST, FIRST + 1, FIRST + SEGMENT - 16, 3 * SEGMENT + 5]
    for number, length in enumerate(lengths):
        plaintext = bytes(range(127)) * (length // 127 + 1)
        case = tmp_path / f"python-{length}"
        sealed(case, plaintext[:length], BINDING if number % 2 else b"")
        assert opened(case) == plaintext[:length]
    found = subprocess.run([EXAMPLE, "check", tmp_path], check=True, capture_output=True, text=True)
    assert found.stdout == "8 cases\n"


def test_a_difference_is_noticed(tmp_path: pathlib.Path) -> None:
    case = tmp_path / "altered"
    sealed(case, b"\1\2\3", b"")
    altered = bytearray((case / "ciphertext").read_bytes())
    altered[-1] ^= 1
    (case / "ciphertext").write_bytes(altered)
    found = subprocess.run([EXAMPLE, "check", tmp_path], check=False, capture_output=True, text=True)
    assert found.returncode != 0
    assert "DoesNotOpen" in found.stderr
