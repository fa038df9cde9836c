"""A client that knows the reference's wire facts only, and nothing of this project's code, speaks to the Kingdom.

Its protos are generated from the fact tables and compiled with grpcio-tools, its signatures come from `cryptography`
and its ciphertexts from Tink.
"""

import base64
import hashlib
import importlib
import pathlib
import secrets
import signal
import socket
import subprocess
import sys

import grpc
import pytest
import tink
from google.protobuf import any_pb2
from grpc_tools import protoc
from tink import hybrid

from organisation import Organisation

API = "wfa/measurement/api/v2alpha"
TYPE_URL = "type.googleapis.com/wfa.measurement.api.v2alpha."


def resource_id() -> str:
    """A server-side id: a positive 64-bit integer as base64url."""
    number = secrets.randbits(62) + 1
    return base64.urlsafe_b64encode(number.to_bytes(8, "big")).decode().rstrip("=")


@pytest.fixture(scope="session")
def api(target: pathlib.Path, tmp_path_factory: pytest.TempPathFactory):
    """Imports modules generated from the fact tables."""
    protos = tmp_path_factory.mktemp("protos")
    generated = tmp_path_factory.mktemp("generated")
    subprocess.run([target / "examples" / "fact_protos", protos], check=True)
    files = sorted(str(path) for path in protos.rglob("*.proto") if "google/protobuf" not in str(path))
    include = pathlib.Path(importlib.import_module("grpc_tools").__file__).parent / "_proto"
    arguments = ["protoc", f"-I{protos}", f"-I{include}", f"--python_out={generated}", f"--grpc_python_out={generated}"]
    assert protoc.main(arguments + files) == 0
    sys.path.insert(0, str(generated))
    yield lambda module: importlib.import_module(f"{API}/{module}".replace("/", "."))
    sys.path.remove(str(generated))


def pack(message) -> any_pb2.Any:
    return any_pb2.Any(type_url="type.googleapis.com/" + message.DESCRIPTOR.full_name, value=message.SerializeToString())


def signed(api, organisation: Organisation, message):
    packed = pack(message)
    return api("crypto_pb2").SignedMessage(
        message=packed, signature=organisation.sign(packed.value), signature_algorithm_oid="1.2.840.10045.4.3.2"
    )


def encryption_key(api):
    """A Tink key pair, and the public half as the API carries it."""
    hybrid.register()
    template = hybrid.hybrid_key_templates.DHKEM_X25519_HKDF_SHA256_HKDF_SHA256_AES_256_GCM
    private = tink.new_keyset_handle(template)
    data = tink.proto_keyset_format.serialize_without_secret(private.public_keyset_handle())
    crypto = api("crypto_pb2")
    return private, crypto.EncryptionPublicKey(format=crypto.EncryptionPublicKey.TINK_KEYSET, data=data)


class System:
    """A Kingdom with three Duchies, two publishers and a consumer on its list."""

    def __init__(self, api, target: pathlib.Path, directory: pathlib.Path) -> None:
        self.api = api
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.address = f"127.0.0.1:{probe.getsockname()[1]}"
        self.kingdom = Organisation(directory / "kingdom", "kingdom")
        self.consumer = Organisation(directory / "consumer", "consumer")
        self.consumer_id, self.consumer_certificate = resource_id(), resource_id()
        self.publishers = [Organisation(directory / f"publisher{n}", f"publisher{n}") for n in (1, 2)]
        self.publisher_ids = [(resource_id(), resource_id()) for _ in self.publishers]
        self.keys = [encryption_key(api) for _ in self.publishers]
        self.consumer_key = encryption_key(api)
        text = f"""
listen = "{self.address}"
state_dir = "state"
[tls]
certificate = "tls.pem"
private_key = "tls.key"
[llv2]
aggregator = "aggregator"
minimum_duchies = 3
decay_rate = 12.0
max_size = 100000
sampling_indicator_size = 10000000
noise_mechanism = "discrete_gaussian"
noise_calibration = "exact"
honest_contributors = 1
data_provider_noise = {{ epsilon = 1.0, delta = 1e-9 }}
blinded_histogram_noise = {{ epsilon = 1.0, delta = 1e-9 }}
noise_for_publisher_noise = {{ epsilon = 1.0, delta = 1e-9 }}
"""
        for duchy in ("worker1", "worker2", "aggregator"):
            text += self._entity("duchies", Organisation(directory / duchy, duchy), duchy, resource_id(), None)
        for organisation, (number, certificate), (_, key) in zip(self.publishers, self.publisher_ids, self.keys):
            text += self._entity("data_providers", organisation, number, certificate, key)
        text += self._entity(
            "measurement_consumers", self.consumer, self.consumer_id, self.consumer_certificate, self.consumer_key[1]
        )
        config = directory / "kingdom" / "kingdom.toml"
        config.write_text(text)
        self.process = subprocess.Popen([target / "halo-kingdom", "serve", "--config", config])

    def _entity(self, kind, organisation, number, certificate, key) -> str:
        text = f'[[{kind}]]\nid = "{number}"\nroot_certificate = "{organisation.path("root.pem")}"\n'
        if key is not None:
            path = organisation.path("encryption_public_key.bin")
            path.write_bytes(signed(self.api, organisation, key).SerializeToString())
            text += f'display_name = "{organisation.directory.name}"\nencryption_public_key = "{path}"\n'
        return text + (
            f'consent_certificate = {{ id = "{certificate}", file = "{organisation.path("consent.pem")}" }}\n'
        )

    def channel(self, organisation: Organisation) -> grpc.Channel:
        credentials = grpc.ssl_channel_credentials(
            root_certificates=self.kingdom.path("root.pem").read_bytes(),
            private_key=organisation.path("tls.key").read_bytes(),
            certificate_chain=organisation.path("tls.pem").read_bytes(),
        )
        channel = grpc.secure_channel(self.address, credentials)
        grpc.channel_ready_future(channel).result(timeout=30)
        return channel

    def measurement(self):
        """A reach-and-frequency measurement over both publishers."""
        measurement_spec = self.api("measurement_spec_pb2")
        requisition_spec = self.api("requisition_spec_pb2")
        measurement = self.api("measurement_pb2")
        crypto = self.api("crypto_pb2")
        privacy = self.api("differential_privacy_pb2")
        nonces = [secrets.randbits(63) + 1 for _ in self.publishers]
        hashes = [hashlib.sha256(nonce.to_bytes(8, "big")).digest() for nonce in nonces]
        params = privacy.DifferentialPrivacyParams(epsilon=0.1, delta=1e-9)
        spec = measurement_spec.MeasurementSpec(
            measurement_public_key=pack(self.consumer_key[1]),
            nonce_hashes=hashes,
            vid_sampling_interval=measurement_spec.MeasurementSpec.VidSamplingInterval(start=0.0, width=1.0),
            reach_and_frequency=measurement_spec.MeasurementSpec.ReachAndFrequency(
                reach_privacy_params=params, frequency_privacy_params=params, maximum_frequency=10
            ),
        )
        entries = []
        for (number, certificate), (private, key), nonce, nonce_hash in zip(
            self.publisher_ids, self.keys, nonces, hashes
        ):
            own = requisition_spec.RequisitionSpec(
                measurement_public_key=pack(self.consumer_key[1]),
                nonce=nonce,
                events=requisition_spec.RequisitionSpec.Events(),
            )
            encrypt = private.public_keyset_handle().primitive(hybrid.HybridEncrypt)
            ciphertext = encrypt.encrypt(signed(self.api, self.consumer, own).SerializeToString(), b"")
            entries.append(
                measurement.Measurement.DataProviderEntry(
                    key=f"dataProviders/{number}",
                    value=measurement.Measurement.DataProviderEntry.Value(
                        data_provider_certificate=f"dataProviders/{number}/certificates/{certificate}",
                        data_provider_public_key=pack(key),
                        encrypted_requisition_spec=crypto.EncryptedMessage(
                            ciphertext=ciphertext, type_url=TYPE_URL + "SignedMessage"
                        ),
                        nonce_hash=nonce_hash,
                    ),
                )
            )
        return measurement.Measurement(
            measurement_consumer_certificate=f"{self.parent}/certificates/{self.consumer_certificate}",
            measurement_spec=signed(self.api, self.consumer, spec),
            data_providers=entries,
            measurement_reference_id="stock",
        )

    @property
    def parent(self) -> str:
        return f"measurementConsumers/{self.consumer_id}"

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=30)


@pytest.fixture
def system(api, target, tmp_path):
    system = System(api, target, tmp_path)
    yield system
    if system.process.poll() is None:
        assert system.stop() == 0


def test_creates_and_lists_a_measurement(api, system: System) -> None:
    service = api("measurements_service_pb2")
    stub = api("measurements_service_pb2_grpc").MeasurementsStub(system.channel(system.consumer))
    request = service.CreateMeasurementRequest(
        parent=system.parent, measurement=system.measurement(), request_id="11111111-2222-3333-4444-555555555555"
    )
    created = stub.CreateMeasurement(request, timeout=30)
    assert created.name.startswith(system.parent + "/measurements/")
    assert created.state == api("measurement_pb2").Measurement.AWAITING_REQUISITION_FULFILLMENT
    assert created.protocol_config.protocols[0].liquid_legions_v2.elliptic_curve_id == 1087
    assert created.measurement_spec == request.measurement.measurement_spec

    # The same request again is the same measurement.
    assert stub.CreateMeasurement(request, timeout=30).name == created.name
    second = service.CreateMeasurementRequest(parent=system.parent, measurement=system.measurement())
    other = stub.CreateMeasurement(second, timeout=30)

    names = []
    token = ""
    while True:
        page = stub.ListMeasurements(
            service.ListMeasurementsRequest(parent=system.parent, page_size=1, page_token=token), timeout=30
        )
        names += [measurement.name for measurement in page.measurements]
        token = page.next_page_token
        if not token:
            break
    assert sorted(names) == sorted([created.name, other.name])


def test_a_signature_of_somebody_else_is_refused(api, system: System) -> None:
    service = api("measurements_service_pb2")
    stub = api("measurements_service_pb2_grpc").MeasurementsStub(system.channel(system.consumer))
    measurement = system.measurement()
    measurement.measurement_spec.signature = system.publishers[0].sign(measurement.measurement_spec.message.value)
    with pytest.raises(grpc.RpcError) as refused:
        stub.CreateMeasurement(
            service.CreateMeasurementRequest(parent=system.parent, measurement=measurement), timeout=30
        )
    assert refused.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "signature" in refused.value.details()


def test_another_organisation_is_not_let_in(system: System, tmp_path: pathlib.Path) -> None:
    stranger = Organisation(tmp_path / "stranger", "stranger")
    system.channel(system.consumer).close()
    with pytest.raises((grpc.FutureTimeoutError, grpc.RpcError)):
        channel = grpc.secure_channel(
            system.address,
            grpc.ssl_channel_credentials(
                root_certificates=system.kingdom.path("root.pem").read_bytes(),
                private_key=stranger.path("tls.key").read_bytes(),
                certificate_chain=stranger.path("tls.pem").read_bytes(),
            ),
        )
        stub_ready = grpc.channel_ready_future(channel)
        stub_ready.result(timeout=2)
        method = channel.unary_unary("/grpc.health.v1.Health/Check")
        method(b"", timeout=5)


def test_the_kingdom_stops_cleanly(system: System) -> None:
    system.channel(system.consumer).close()
    assert system.stop() == 0
