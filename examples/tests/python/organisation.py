"""The parties: organisations with certificate authorities of their own, and the Kingdom's process that knows them."""

import base64
import datetime
import ipaddress
import os
import pathlib
import re
import secrets
import signal
import subprocess
import time

import grpc
import tink
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from google.protobuf import any_pb2
from tink import hybrid

ECDSA_WITH_SHA256 = "1.2.840.10045.4.3.2"
# A proxy of the machine's must not come between the parties on loopback.
CHANNEL_OPTIONS = [("grpc.enable_http_proxy", 0)]


def external_id() -> str:
    """The last part of a resource name: 64 bits, not all of them 0, as 11 characters of base64url."""
    return base64.urlsafe_b64encode((secrets.randbits(62) + 1).to_bytes(8, "big")).decode().rstrip("=")


def pack(message) -> any_pb2.Any:
    """A message inside of an Any, its bytes being those that are signed."""
    packed = any_pb2.Any()
    packed.Pack(message, deterministic=True)
    return packed


class Organisation:
    """A certificate authority, a TLS certificate, a consent certificate and a Tink key pair, in one directory."""

    def __init__(self, directory: pathlib.Path, collection: str, number: str) -> None:
        self.directory = directory
        self.collection, self.number = collection, number
        self.consent_number = external_id()
        directory.mkdir(parents=True)
        self._root_key = ec.generate_private_key(ec.SECP256R1())
        self._root_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{directory.name} root")])
        self._write("root.pem", self._certificate(self._root_name, self._root_key.public_key(), True, []))
        tls_key = ec.generate_private_key(ec.SECP256R1())
        addresses = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
        both_ends = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        tls = [x509.SubjectAlternativeName(addresses), x509.ExtendedKeyUsage(both_ends)]
        own_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, directory.name)])
        self._write("tls.pem", self._certificate(own_name, tls_key.public_key(), False, tls))
        self.path("tls.key").write_bytes(
            tls_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        self._consent_key = ec.generate_private_key(ec.SECP256R1())
        self.consent = self._certificate(own_name, self._consent_key.public_key(), False, [])
        self._write("consent.pem", self.consent)
        hybrid.register()
        self.keyset = tink.new_keyset_handle(
            hybrid.hybrid_key_templates.DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_AES_256_GCM
        )

    @property
    def name(self) -> str:
        return f"{self.collection}/{self.number}"

    @property
    def certificate_name(self) -> str:
        """Resource name of the consent certificate."""
        return f"{self.name}/certificates/{self.consent_number}"

    def path(self, name: str) -> pathlib.Path:
        return self.directory / name

    def sign(self, message: bytes) -> bytes:
        return self._consent_key.sign(message, ec.ECDSA(hashes.SHA256()))

    def signed(self, api, message):
        """The message as a SignedMessage of this organisation."""
        packed = pack(message)
        return api("crypto_pb2").SignedMessage(
            message=packed, signature=self.sign(packed.value), signature_algorithm_oid=ECDSA_WITH_SHA256
        )

    def public_key(self, api):
        """The EncryptionPublicKey of the Tink key pair."""
        crypto = api("crypto_pb2")
        data = tink.proto_keyset_format.serialize_without_secret(self.keyset.public_keyset_handle())
        return crypto.EncryptionPublicKey(format=crypto.EncryptionPublicKey.TINK_KEYSET, data=data)

    def _write(self, name: str, certificate: x509.Certificate) -> None:
        self.path(name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _certificate(self, subject, public_key, authority: bool, extensions) -> x509.Certificate:
        now = datetime.datetime.now(datetime.timezone.utc)
        usage = dict.fromkeys(
            ["content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
            + ["encipher_only", "decipher_only"],
            False,
        )
        usage |= {"digital_signature": not authority, "key_cert_sign": authority, "crl_sign": authority}
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._root_name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.KeyUsage(**usage), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self._root_key.public_key()), critical=False
            )
        )
        for extension in extensions:
            builder = builder.add_extension(extension, critical=False)
        return builder.sign(self._root_key, hashes.SHA256())


class Kingdom:
    """`halo-kingdom serve` with a consumer, two publishers and three Duchies in its configuration."""

    def __init__(self, api, program: pathlib.Path, directory: pathlib.Path) -> None:
        self._own = Organisation(directory / "kingdom", "kingdoms", "kingdom")
        self.consumer = Organisation(directory / "consumer", "measurementConsumers", external_id())
        self.publishers = [
            Organisation(directory / name, "dataProviders", external_id()) for name in ("news", "sports")
        ]
        duchies = [Organisation(directory / name, "duchies", name) for name in ("aggregator", "worker1", "worker2")]
        noise = "{ epsilon = 1.0, delta = 1e-9 }"
        text = f"""
listen = "127.0.0.1:0"
state_dir = "state"
[tls]
certificate = "tls.pem"
private_key = "tls.key"
[llv2]
aggregator = "aggregator"
minimum_duchies = 3
data_provider_noise = {noise}
blinded_histogram_noise = {noise}
noise_for_publisher_noise = {noise}
"""
        tables = [("measurement_consumers", [self.consumer]), ("data_providers", self.publishers), ("duchies", duchies)]
        text += "".join(self._table(api, kind, party) for kind, parties in tables for party in parties)
        configuration = self._own.path("kingdom.toml")
        configuration.write_text(text, encoding="utf-8")
        self._log = self._own.path("log.txt")
        self._channels: list[grpc.Channel] = []
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [program, "serve", "--config", configuration], stderr=log, env={**os.environ, "RUST_LOG": "info"}
            )
        self._address = self._wait_for(r"serving address=(\S+)")

    @staticmethod
    def _table(api, kind: str, party: Organisation) -> str:
        text = (
            f'[[{kind}]]\nid = "{party.number}"\nroot_certificate = "{party.path("root.pem")}"\n'
            f'consent_certificate = {{ id = "{party.consent_number}", file = "{party.path("consent.pem")}" }}\n'
        )
        if kind == "duchies":
            return text
        key = party.path("encryption_public_key.bin")
        key.write_bytes(party.signed(api, party.public_key(api)).SerializeToString())
        return text + f'display_name = "{party.directory.name}"\nencryption_public_key = "{key}"\n'

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8")

    def _wait_for(self, pattern: str) -> str:
        """The group of the first match in the log."""
        end = time.monotonic() + 30
        while not (found := re.search(pattern, self.log())):
            if self._process.poll() is not None or time.monotonic() > end:
                self._process.kill()
                raise AssertionError(f"the Kingdom did not say {pattern!r}, but:\n{self.log()}")
            time.sleep(0.02)
        return found[1]

    def channel(self, caller: Organisation | None) -> grpc.Channel:
        """A channel over mutual TLS as `caller`, or over TLS with no certificate."""
        credentials = grpc.ssl_channel_credentials(
            root_certificates=self._own.path("root.pem").read_bytes(),
            private_key=caller and caller.path("tls.key").read_bytes(),
            certificate_chain=caller and caller.path("tls.pem").read_bytes(),
        )
        self._channels.append(grpc.secure_channel(self._address, credentials, CHANNEL_OPTIONS))
        return self._channels[-1]

    def close(self) -> None:
        """Asks the process to stop and expects that it does."""
        for channel in self._channels:
            channel.close()
        self._process.send_signal(signal.SIGTERM)
        try:
            status = self._process.wait(timeout=30)
        finally:
            self._process.kill()
        assert status == 0, f"the Kingdom ended with {status}:\n{self.log()}"
