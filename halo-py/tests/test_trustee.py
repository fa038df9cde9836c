"""The trustee, one step at a time: exact, replayed, resumed from bytes, tampered with, and refused without attestation."""

from __future__ import annotations

import pytest

from halo_cmm import (
    AttestationError,
    DataError,
    FormatError,
    FrequencyVector,
    NoiseError,
    ParameterError,
    ProtocolError,
    engine,
    simulate_vectors,
)

VIDS = {"r1": [1, 2, 2], "r2": [2, 3]}


def keys(allow=True):
    return {
        name: engine.EnvelopeKey(f"key of {name}", allow_simulated_attestation=allow, seed=number)
        for number, name in enumerate(VIDS)
    }


def trustee(*, publishers_allow=True, **settings):
    settings = {"requisitions": list(VIDS), "cells": 20, "allow_simulated_attestation": True, "seed": 7, **settings}
    return engine.Trustee("trustee", list(keys(publishers_allow).values()), **settings)


def sealed(name, vids=None):
    vector = FrequencyVector.from_vids(VIDS[name] if vids is None else vids, (1, 20))
    return engine.seal(vector, name, keys()[name], seed=3)


UPLOADS = [sealed(name) for name in VIDS]


def changed(upload, **parts):
    whole = {name: getattr(upload, name) for name in ("requisition", "ciphertext", "wrapped_key", "key")}
    return engine.SealedVector(**{**whole, **parts})


def test_the_result_is_exact_and_the_simulations() -> None:
    output = engine.deliver({"trustee": trustee()}, {"trustee": UPLOADS})
    assert output["reach"] == 3
    assert output["counted"]["histogram"] == {1: 2, 2: 0, 3: 1, **dict.fromkeys(range(4, 11), 0)}
    cells = [[1, 2, *[0] * 18], [0, 1, 1, *[0] * 17]]
    simulated = simulate_vectors(cells, protocol="trustee")
    assert (output["reach"], output["frequency"]) == (simulated.reach, simulated.frequency)


def test_a_step_is_replayed_and_a_computation_resumed_from_bytes() -> None:
    assert sealed("r1").ciphertext == UPLOADS[0].ciphertext
    assert sealed("r1").wrapped_key == UPLOADS[0].wrapped_key
    settings = {"noise": {"reach": (1.0, 1e-6), "frequency": (1.0, 1e-6)}}
    whole = trustee(**settings).start(UPLOADS)
    assert whole.done and whole.state is None and whole.outbox == []
    waits = trustee(**settings).start(UPLOADS[:1])
    assert isinstance(waits.state, bytes) and not waits.done and waits.awaiting == []
    # Another process, which has the seed and the bytes, and the order in which uploads came does not matter.
    assert trustee(**settings).advance(waits.state, [], UPLOADS).output == whole.output
    late = trustee(**settings).start(UPLOADS[1:])
    assert trustee(**settings).advance(late.state, [], UPLOADS[::-1]).output == whole.output
    assert trustee(**settings, max_frequency=9).start(UPLOADS).output != whole.output


def test_simulated_attestation_must_be_allowed_by_everybody() -> None:
    with pytest.raises(AttestationError, match="allow_simulated_attestation=True") as raised:
        trustee(allow_simulated_attestation=False)
    assert isinstance(raised.value, ProtocolError)
    with pytest.raises(AttestationError):
        engine.Trustee("trustee", [], requisitions=["r1"], cells=20)
    with pytest.raises(AttestationError, match="r1.*allow_simulated_attestation=True"):
        trustee(publishers_allow=False).start(UPLOADS)
    waits = trustee(publishers_allow=False).start(UPLOADS[:1])
    with pytest.raises(AttestationError, match="simulated attestation proves nothing"):
        trustee(publishers_allow=False).advance(waits.state, [], UPLOADS)


@pytest.mark.parametrize(
    ("uploads", "error", "message"),
    [
        ([changed(UPLOADS[0], ciphertext=UPLOADS[0].ciphertext[1:])], ProtocolError, "r1.*bytes where"),
        ([changed(UPLOADS[0], wrapped_key=b"no key")], ProtocolError, "r1"),
        ([changed(UPLOADS[0], requisition="r3")], ProtocolError, "r3.*none of the computation's"),
        ([UPLOADS[0], UPLOADS[0]], ProtocolError, "r1.*there twice"),
        # Bound to its requisition: it opens under no other.
        ([changed(UPLOADS[0], requisition="r2"), changed(UPLOADS[1], requisition="r1")], ProtocolError, "r1"),
        ([changed(UPLOADS[0], key="nobody's"), UPLOADS[1]], ProtocolError, "nobody's"),
        ([changed(UPLOADS[0], key="key of r2"), UPLOADS[1]], ProtocolError, "r1"),
    ],
)
def test_bad_uploads_are_refused_by_name(uploads, error, message) -> None:
    with pytest.raises(error, match=message):
        trustee().start(uploads)


def flipped(part):
    """A result, or None where it is refused, for a flipped bit in every byte of one upload's part."""
    whole = getattr(UPLOADS[0], part)
    for position in range(len(whole)):
        bad = bytearray(whole)
        bad[position] ^= 1
        try:
            yield trustee().start([changed(UPLOADS[0], **{part: bytes(bad)}), UPLOADS[1]]).output
        except ProtocolError as refused:
            assert "r1" in str(refused)
            yield None


def test_a_flipped_bit_anywhere_in_a_ciphertext_is_refused() -> None:
    assert list(flipped("ciphertext")) == [None] * len(UPLOADS[0].ciphertext)


def test_a_flipped_bit_in_a_wrapped_key_never_changes_the_result() -> None:
    right = trustee().start(UPLOADS).output
    found = list(flipped("wrapped_key"))
    # Tink describes an encrypted keyset in the clear behind it: what nothing is opened with may be flipped, and is at
    # most that description. The encrypted keyset itself, which comes first, may not.
    assert all(output in (None, right) for output in found)
    described = UPLOADS[0].wrapped_key.index(b"type.googleapis.com") - 16
    assert found[:described] == [None] * described


def test_states_and_inboxes_that_do_not_fit_are_refused() -> None:
    state = trustee().start(UPLOADS[:1]).state
    with pytest.raises(ProtocolError, match="r2.*not arrived"):
        trustee().advance(state, [], UPLOADS[:1])
    with pytest.raises(ProtocolError, match="requisitions differ"):
        trustee().advance(state, [], [sealed("r1", [5]), UPLOADS[1]])
    with pytest.raises(ProtocolError, match="does not belong here"):
        trustee(computation="another").advance(state, [], UPLOADS)
    with pytest.raises(ProtocolError, match="nobody awaits"):
        gossip = engine.Message("worker1", "trustee", "setup phase input", b"", 1)
        trustee().advance(state, [gossip], UPLOADS)
    for damaged in (b"", state[:-1], state + b"0"):
        with pytest.raises(FormatError):
            trustee().advance(damaged, [], UPLOADS)


def test_sticky_noise_follows_from_the_data_and_the_secret() -> None:
    def found(noise_key, seed, uploads=UPLOADS):
        settings = {"noise": {"reach": (0.001, 1e-9), "mechanism": "sticky"}, "max_frequency": 1}
        step = trustee(**settings, noise_key=noise_key, seed=seed).start(uploads)
        return step.output["counted"]["reached"]

    assert found(bytes(32), 1) == found(bytes(32), 2)
    assert found(bytes(32), 1) != found(b"\1" * 32, 1)
    assert found(bytes(32), 1) != found(bytes(32), 1, [sealed("r1", [1, 4]), UPLOADS[1]])


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: trustee(max_frequency=128), ParameterError, "128"),
        (lambda: trustee(max_frequency=0), ParameterError, "max_frequency"),
        (lambda: trustee(cells=1), ParameterError, "cells"),
        (lambda: trustee(sampling_width=0.0), ParameterError, "width"),
        (lambda: trustee(noise_key=b"short"), ParameterError, "noise_key has 5 bytes"),
        (lambda: trustee(noise={"reach": (1.0, 1e-6), "mechanism": "geometric"}), ParameterError, "geometric"),
        (
            lambda: trustee(noise={"reach": (1.0, 1e-6), "mechanism": "sticky"}, max_frequency=1),
            NoiseError,
            "secret",
        ),
        (lambda: engine.Trustee("t", [keys()["r1"]] * 2, requisitions=["r1"], cells=20), ParameterError, "two keys"),
        (
            lambda: engine.seal(FrequencyVector.from_vids([1] * 200, (1, 20), 255), "r1", keys()["r1"]),
            DataError,
            "above the 127",
        ),
    ],
)
def test_bad_input_is_refused_and_told_what_to_do(make, error, message) -> None:
    with pytest.raises(error, match=message):
        make()


def test_secrets_do_not_show() -> None:
    assert repr(keys()["r1"]) == "EnvelopeKey('key of r1')"
    assert repr(UPLOADS[0]) == f"SealedVector('r1', {len(UPLOADS[0].ciphertext)} bytes)"
