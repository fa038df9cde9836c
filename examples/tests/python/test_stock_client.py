"""A client that knows the reference's wire facts and nothing of this project's code uses the Kingdom.

Its stubs are generated from the fact tables with grpcio-tools, its signatures come from `cryptography`, its ciphertexts
from Tink.
"""

import hashlib
import pathlib
import re
import secrets
import uuid

import grpc
import pytest
import tink
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from google.protobuf import unknown_fields
from tink import hybrid

from organisation import Kingdom, Organisation, pack

# The first field number that is this project's own.
OURS = 1000
TIMEOUT = 30


def own_numbers(message) -> list[int]:
    """Numbers of the fields that the stubs do not know, in the message and all that is inside of it."""
    numbers = [field.field_number for field in unknown_fields.UnknownFieldSet(message)]
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for inner in value if field.is_repeated else [value]:
                numbers += own_numbers(inner)
    return numbers


class Consumer:
    """What a measurement consumer's own program would do."""

    def __init__(self, api, kingdom: Kingdom) -> None:
        self.api = api
        self.organisation = kingdom.consumer
        self.publishers = kingdom.publishers
        channel = kingdom.channel(kingdom.consumer)
        self.measurements = api("measurements_service_pb2_grpc").MeasurementsStub(channel)
        self.data_providers = api("data_providers_service_pb2_grpc").DataProvidersStub(channel)

    def create(self, measurement, request_id: str = ""):
        request = self.api("measurements_service_pb2").CreateMeasurementRequest(
            parent=self.organisation.name, measurement=measurement, request_id=request_id
        )
        return self.measurements.CreateMeasurement(request, timeout=TIMEOUT)

    def get(self, name: str):
        request = self.api("measurements_service_pb2").GetMeasurementRequest(name=name)
        return self.measurements.GetMeasurement(request, timeout=TIMEOUT)

    def list(self, page_size: int = 0) -> list[list]:
        """All measurements, page by page."""
        request = self.api("measurements_service_pb2").ListMeasurementsRequest(
            parent=self.organisation.name, page_size=page_size
        )
        pages = []
        while True:
            page = self.measurements.ListMeasurements(request, timeout=TIMEOUT)
            pages.append(list(page.measurements))
            request.page_token = page.next_page_token
            if not request.page_token:
                return pages

    def data_provider(self, publisher: Organisation):
        """The publisher as the Kingdom describes it, its key's signature verified."""
        request = self.api("data_providers_service_pb2").GetDataProviderRequest(name=publisher.name)
        found = self.data_providers.GetDataProvider(request, timeout=TIMEOUT)
        certificate = x509.load_der_x509_certificate(found.certificate_der)
        assert certificate == publisher.consent
        certificate.public_key().verify(
            found.public_key.signature, found.public_key.message.value, ec.ECDSA(hashes.SHA256())
        )
        return found

    def measurement(self):
        """Reach and frequency over both publishers, signed and encrypted."""
        measurement = self.api("measurement_pb2")
        spec = self.api("measurement_spec_pb2").MeasurementSpec
        nonces = [secrets.randbits(64) for _ in self.publishers]
        nonce_hashes = [hashlib.sha256(nonce.to_bytes(8, "big")).digest() for nonce in nonces]
        privacy = self.api("differential_privacy_pb2").DifferentialPrivacyParams(epsilon=1.0, delta=1e-9)
        measurement_spec = spec(
            measurement_public_key=pack(self.organisation.public_key(self.api)),
            nonce_hashes=nonce_hashes,
            vid_sampling_interval=spec.VidSamplingInterval(start=0.0, width=1.0),
            reach_and_frequency=spec.ReachAndFrequency(
                reach_privacy_params=privacy, frequency_privacy_params=privacy, maximum_frequency=10
            ),
        )
        return measurement.Measurement(
            measurement_consumer_certificate=self.organisation.certificate_name,
            measurement_spec=self.organisation.signed(self.api, measurement_spec),
            data_providers=[self.entry(*each) for each in zip(self.publishers, nonces, nonce_hashes)],
            measurement_reference_id="stock",
        )

    def entry(self, publisher: Organisation, nonce: int, nonce_hash: bytes):
        """One publisher's part: what it is asked, encrypted with the key that the Kingdom handed out."""
        requisition_spec = self.api("requisition_spec_pb2").RequisitionSpec(
            events=self.api("requisition_spec_pb2").RequisitionSpec.Events(),
            measurement_public_key=pack(self.organisation.public_key(self.api)),
            nonce=nonce,
        )
        signed = self.organisation.signed(self.api, requisition_spec)
        found = self.data_provider(publisher)
        key = self.api("crypto_pb2").EncryptionPublicKey.FromString(found.public_key.message.value)
        encrypt = tink.proto_keyset_format.parse_without_secret(key.data).primitive(hybrid.HybridEncrypt)
        entry = self.api("measurement_pb2").Measurement.DataProviderEntry
        return entry(
            key=found.name,
            value=entry.Value(
                data_provider_certificate=found.certificate,
                data_provider_public_key=found.public_key.message,
                encrypted_requisition_spec=self.api("crypto_pb2").EncryptedMessage(
                    ciphertext=encrypt.encrypt(signed.SerializeToString(), b""), type_url=pack(signed).type_url
                ),
                nonce_hash=nonce_hash,
            ),
        )


@pytest.fixture
def consumer(api, kingdom: Kingdom) -> Consumer:
    return Consumer(api, kingdom)


def refused(call) -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as refusal:
        call()
    return refusal.value


def messages(found) -> list:
    """The descriptors of messages, and of those inside of them."""
    return [each for one in found for each in [one, *messages(one.nested_types)]]


def test_the_stubs_know_nothing_of_this_project(api) -> None:
    modules = ("measurement_pb2", "measurements_service_pb2", "protocol_config_pb2", "data_provider_pb2", "crypto_pb2")
    known = messages(one for name in modules for one in api(name).DESCRIPTOR.message_types_by_name.values())
    assert len(known) > 40
    assert not [field.full_name for message in known for field in message.fields if field.number >= OURS]


def test_a_measurement_is_created_read_and_listed(api, consumer: Consumer) -> None:
    asked = consumer.measurement()
    created = consumer.create(asked)
    assert created.name.startswith(f"{consumer.organisation.name}/measurements/")
    assert created.state == api("measurement_pb2").Measurement.AWAITING_REQUISITION_FULFILLMENT
    assert created.measurement_reference_id == "stock"
    assert created.create_time.seconds > 0
    assert len(created.protocol_config.protocols) == 1
    llv2 = created.protocol_config.protocols[0].liquid_legions_v2
    assert (llv2.sketch_params.max_size, llv2.elliptic_curve_id) == (100_000, 1087)
    # What was signed comes back byte for byte, and so does what was encrypted.
    assert created.measurement_spec == asked.measurement_spec
    assert {entry.key: entry.value for entry in created.data_providers} == {
        entry.key: entry.value for entry in asked.data_providers
    }
    for entry, publisher in zip(asked.data_providers, consumer.publishers):
        decrypt = publisher.keyset.primitive(hybrid.HybridDecrypt)
        assert decrypt.decrypt(entry.value.encrypted_requisition_spec.ciphertext, b"")

    assert consumer.get(created.name) == created
    assert consumer.list() == [[created]]
    others = [consumer.create(consumer.measurement()) for _ in range(2)]
    pages = consumer.list(page_size=2)
    assert [len(page) for page in pages] == [2, 1]
    assert {one.name for page in pages for one in page} == {one.name for one in [created, *others]}


def test_what_the_stubs_do_not_know_is_this_projects_own(consumer: Consumer) -> None:
    numbers = own_numbers(consumer.create(consumer.measurement()))
    assert numbers, "the deadline at least is there"
    assert all(number >= OURS for number in numbers), numbers


def test_the_same_request_again_is_the_same_measurement(consumer: Consumer) -> None:
    request_id = str(uuid.uuid4())
    asked = consumer.measurement()
    created = consumer.create(asked, request_id)
    assert consumer.create(asked, request_id) == created
    assert consumer.list() == [[created]]
    other = consumer.create(asked, str(uuid.uuid4()))
    assert other.name != created.name


def flipped_bit(consumer: Consumer, signed) -> None:
    signature = bytearray(signed.signature)
    signature[-1] ^= 1
    signed.signature = bytes(signature)


def altered_message(consumer: Consumer, signed) -> None:
    spec = consumer.api("measurement_spec_pb2").MeasurementSpec.FromString(signed.message.value)
    spec.reach_and_frequency.reach_privacy_params.epsilon = 100.0
    signed.message.CopyFrom(pack(spec))


def other_signer(consumer: Consumer, signed) -> None:
    signed.signature = consumer.publishers[0].sign(signed.message.value)


def no_signature(consumer: Consumer, signed) -> None:
    signed.signature = b""


@pytest.mark.parametrize("tamper", [flipped_bit, altered_message, other_signer, no_signature])
def test_a_tampered_signature_is_refused(consumer: Consumer, tamper) -> None:
    measurement = consumer.measurement()
    tamper(consumer, measurement.measurement_spec)
    refusal = refused(lambda: consumer.create(measurement))
    assert refusal.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert refusal.details().startswith("measurement_spec.signature: "), refusal.details()
    assert consumer.list() == [[]]


def test_a_publisher_cannot_create_for_the_consumer(api, kingdom: Kingdom, consumer: Consumer) -> None:
    service = api("measurements_service_pb2_grpc").MeasurementsStub(kingdom.channel(kingdom.publishers[0]))
    request = api("measurements_service_pb2").CreateMeasurementRequest(
        parent=kingdom.consumer.name, measurement=consumer.measurement()
    )
    refusal = refused(lambda: service.CreateMeasurement(request, timeout=TIMEOUT))
    assert refusal.code() == grpc.StatusCode.PERMISSION_DENIED
    assert consumer.list() == [[]]


def certificate_of_nobody(kingdom: Kingdom, directory: pathlib.Path) -> Organisation:
    """All that it says of itself is the consumer's, but its authority is one of its own."""
    return Organisation(directory / "other" / "consumer", kingdom.consumer.collection, kingdom.consumer.number)


def no_certificate(kingdom: Kingdom, directory: pathlib.Path) -> None:
    return None


@pytest.mark.parametrize(
    ("stranger", "alert", "reason"),
    [
        (certificate_of_nobody, "TLSV1_ALERT_UNKNOWN_CA", "UnknownIssuer"),
        (no_certificate, "TLSV1_ALERT_CERTIFICATE_REQUIRED", "peer sent no certificates"),
    ],
)
def test_a_stranger_is_not_let_in(
    api, kingdom: Kingdom, tmp_path: pathlib.Path, capfd: pytest.CaptureFixture[str], stranger, alert: str, reason: str
) -> None:
    channel = kingdom.channel(stranger(kingdom, tmp_path))
    service = api("measurements_service_pb2_grpc").MeasurementsStub(channel)
    request = api("measurements_service_pb2").ListMeasurementsRequest(parent=kingdom.consumer.name)
    refusal = refused(lambda: service.ListMeasurements(request, timeout=TIMEOUT))
    # In the status grpcio says no more than that there is no connection. Why, it writes to the standard error stream:
    # the alert that the Kingdom sent.
    assert refusal.code() == grpc.StatusCode.UNAVAILABLE
    assert alert in capfd.readouterr().err
    assert re.search(f"a client was refused in the TLS handshake .*{reason}", kingdom.log())
    # Those who belong here are served as before.
    assert Consumer(api, kingdom).list() == [[]]
