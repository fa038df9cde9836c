"""An organisation with a certificate authority of its own, made with nothing but the `cryptography` package."""

import datetime
import ipaddress
import pathlib

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID


class Organisation:
    """Root certificate, TLS certificate and consent-signaling certificate, as PEM files in one directory."""

    def __init__(self, directory: pathlib.Path, name: str) -> None:
        self.directory = directory
        directory.mkdir(parents=True)
        self.root_key = ec.generate_private_key(ec.SECP256R1())
        self.root = self._certificate(name + " root", self.root_key.public_key(), None)
        tls_key = ec.generate_private_key(ec.SECP256R1())
        self.consent_key = ec.generate_private_key(ec.SECP256R1())
        self.consent = self._certificate(name, self.consent_key.public_key(), None, leaf=True)
        self._write("root.pem", self.root)
        self._write("tls.pem", self._certificate(name, tls_key.public_key(), ExtendedKeyUsageOID, leaf=True))
        self._write("consent.pem", self.consent)
        (directory / "tls.key").write_bytes(
            tls_key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def path(self, name: str) -> pathlib.Path:
        return self.directory / name

    def sign(self, message: bytes) -> bytes:
        """DER ECDSA P-256 with SHA-256."""
        return self.consent_key.sign(message, ec.ECDSA(hashes.SHA256()))

    def _write(self, name: str, certificate: x509.Certificate) -> None:
        self.path(name).write_bytes(certificate.public_bytes(serialization.Encoding.PEM))

    def _certificate(self, name, public_key, usage, leaf=False) -> x509.Certificate:
        issuer = self.root.subject if leaf else x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=30))
            .add_extension(x509.BasicConstraints(ca=not leaf, path_length=None), critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(self.root_key.public_key()), critical=False
            )
            .add_extension(
                x509.KeyUsage(
                    digital_signature=True,
                    key_cert_sign=not leaf,
                    crl_sign=not leaf,
                    content_commitment=False,
                    key_encipherment=False,
                    data_encipherment=False,
                    key_agreement=False,
                    encipher_only=False,
                    decipher_only=False,
                ),
                critical=True,
            )
        )
        if usage is not None:
            builder = builder.add_extension(
                x509.ExtendedKeyUsage([usage.SERVER_AUTH, usage.CLIENT_AUTH]), critical=False
            ).add_extension(
                x509.SubjectAlternativeName(
                    [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
                ),
                critical=False,
            )
        return builder.sign(self.root_key, hashes.SHA256())
