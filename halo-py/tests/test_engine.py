"""One party and one step at a time: replayed, resumed from bytes, tampered with."""

from __future__ import annotations

import pickle

import pytest

from halo_cmm import DataError, FormatError, FrequencyVector, LiquidLegions, ParameterError, ProtocolError, engine

DUCHIES = ("worker1", "worker2", "aggregator")
ONE, OTHER = LiquidLegions.from_vids([1, 2, 2]), LiquidLegions.from_vids([2, 3])


def ring_of(make, encrypt, **settings):
    shares = {duchy: engine.KeyShare(seed=number) for number, duchy in enumerate(DUCHIES)}
    ring = [share.participant(duchy) for duchy, share in shares.items()]
    duchies = {
        duchy: make(duchy, ring, share, publishers=2, seed=number, **settings)
        for number, (duchy, share) in enumerate(shares.items())
    }
    uploads = {"worker1": [encrypt(ONE, ring, seed=1)], "aggregator": [encrypt(OTHER, ring, seed=2)]}
    return duchies, uploads


def llv2(**settings):
    return ring_of(engine.LiquidLegionsV2, engine.encrypt, **settings)


def rollv2(**settings):
    return ring_of(engine.ReachOnlyLiquidLegionsV2, engine.encrypt_reach_only, **settings)


def shuffle(**settings):
    keys = {duchy: engine.HybridKey(seed=number) for number, duchy in enumerate(DUCHIES)}
    requisitions = ["r1", "r2"]
    duchies = {
        duchy: engine.ShareShuffle(duchy, DUCHIES, keys[duchy], requisitions=requisitions, cells=20, seed=number, **settings)
        for number, duchy in enumerate(DUCHIES)
    }
    vectors = [FrequencyVector.from_vids(vids, (1, 20)) for vids in ([1, 2, 2], [2, 3])]
    modulus = settings.get("modulus", 127) or 256
    uploads = {
        "worker1": [engine.share(vectors[0], "r1", keys["worker2"].public, modulus=modulus, seed=1)],
        "worker2": [engine.share(vectors[1], "r2", keys["worker1"].public, modulus=modulus, seed=2)],
    }
    return duchies, uploads


PROTOCOLS = {"llv2": llv2, "rollv2": rollv2, "shuffle": shuffle, "native": lambda: shuffle(modulus=None)}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_runs_are_exact_and_replayed(name) -> None:
    def run():
        duchies, uploads = PROTOCOLS[name]()
        steps = []
        output = engine.deliver(duchies, uploads, lambda duchy, step: steps.append((duchy, step.state, step.outbox)))
        return output, steps

    output, steps = run()
    assert output["counted"].get("active_registers", output["counted"].get("reached")) == 3
    if name != "rollv2":
        assert output["frequency"][1] == pytest.approx(2 / 3)
        assert output["frequency"][3] == pytest.approx(1 / 3)
    assert run() == (output, steps)
    assert all(state is None or isinstance(state, bytes) for _, state, _ in steps)


@pytest.mark.parametrize("name", PROTOCOLS)
def test_messages_survive_pickling(name) -> None:
    duchies, uploads = PROTOCOLS[name]()

    class Stored:
        def __init__(self, duchy):
            self.duchy = duchy

        def start(self, uploads):
            return self.duchy.start(uploads)

        def advance(self, state, inbox, uploads):
            return self.duchy.advance(bytes(state), pickle.loads(pickle.dumps(inbox)), uploads)

    found = engine.deliver({duchy: Stored(side) for duchy, side in duchies.items()}, uploads)
    assert found["counted"].get("active_registers", found["counted"].get("reached")) == 3


def edited(message, body):
    return engine.Message(message.sender, message.to, message.description, body, message.record_bytes)


def test_tampering_is_refused_and_blamed() -> None:
    duchies, uploads = llv2()
    steps = {duchy: side.start(uploads.get(duchy, [])) for duchy, side in duchies.items()}
    aggregator, state = duchies["aggregator"], steps["aggregator"].state
    from_one, from_two = (steps[worker].outbox[0] for worker in DUCHIES[:2])
    assert repr(from_one) == "Message(setup phase input: worker1 → aggregator, 2 records of 192 bytes)"

    def refused(inbox, error=ProtocolError):
        with pytest.raises(error) as raised:
            aggregator.advance(state, inbox, uploads["aggregator"])
        return raised.value

    bad = refused([edited(from_one, b"\xff" * 192), from_two])
    assert bad.culprits == ("worker1",) and isinstance(bad, RuntimeError)
    assert "record 0 of the message from worker1" in str(bad)
    assert refused([from_one, from_one]).culprits == ("worker1",)
    assert "missing" in str(refused([from_one]))
    foreign = engine.Message("worker2", "aggregator", "execution phase one input", from_two.body, 192)
    assert "nobody awaits" in str(refused([from_one, foreign]))
    assert "whole number of records" in str(refused([edited(from_one, b"123"), from_two], DataError))
    with pytest.raises(ProtocolError, match="requisitions differ"):
        aggregator.advance(state, [from_one, from_two], [])
    with pytest.raises(ProtocolError, match="does not belong here"):
        duchies["worker1"].advance(state, [])
    for damaged in (b"", state[:-1], state + b"0"):
        with pytest.raises(FormatError, match="does not decode"):
            aggregator.advance(damaged, [from_one, from_two], uploads["aggregator"])
    # What was refused has consumed nothing.
    assert aggregator.advance(state, [from_one, from_two], uploads["aggregator"]).outbox


def test_a_flipped_share_changes_the_result() -> None:
    duchies, uploads = shuffle()
    [upload] = uploads["worker1"]
    for cell in (0, 7, 19):
        share = bytearray(upload.share)
        share[cell] = (share[cell] + 1) % 127
        changed = {**uploads, "worker1": [engine.Upload("r1", bytes(share), upload.encrypted_seed)]}
        assert engine.deliver(duchies, changed)["counted"] != engine.deliver(duchies, uploads)["counted"]
    with pytest.raises(ProtocolError, match="r1 is not acceptable"):
        duchies["worker1"].start([engine.Upload("r1", b"\x7f" * 20, upload.encrypted_seed)])
    with pytest.raises(ProtocolError, match="19 cells where 20 are due"):
        duchies["worker1"].start([engine.Upload("r1", upload.share[1:], upload.encrypted_seed)])
    # Bound to its requisition: nobody opens a seed under another name.
    stolen = engine.Upload("r2", upload.share, upload.encrypted_seed)
    with pytest.raises(ProtocolError):
        engine.deliver(duchies, {"worker1": [stolen], "worker2": []})


def test_shares_alone_are_uniform() -> None:
    vector = FrequencyVector.from_vids([1, 1, 1], range(20_000))
    to = engine.HybridKey(seed=1).public
    share = engine.share(vector, "r", to, modulus=8, seed=1).share
    counts = [share.count(value) for value in range(8)]
    # χ² with 7 degrees of freedom, α = 0.001.
    assert sum((count - 2_500) ** 2 / 2_500 for count in counts) < 24.3


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: llv2(max_frequency=0), ParameterError, "max_frequency"),
        (lambda: llv2(sampling_width=2.0), ParameterError, "width"),
        (lambda: llv2()[0]["worker1"].start([b"short"]), DataError, "upload 0 has 5 bytes"),
        (lambda: llv2()[0]["worker1"].start([b"\xff" * 192]), ProtocolError, "not acceptable"),
        (lambda: shuffle(max_frequency=10, modulus=21), ParameterError, "modulus 21 is too small"),
        (lambda: shuffle(max_frequency=1, modulus=128), ParameterError, "no prime"),
        (lambda: shuffle(modulus=257), ParameterError, "from 2 to 256"),
        (lambda: engine.KeyShare().participant("Worker 1"), ParameterError, "Duchy id"),
        (lambda: engine.Participant("worker1", bytes(32), bytes(64)), ProtocolError, "identity|proof|element"),
        (lambda: engine.encrypt(ONE, []), ParameterError, "no common key"),
        (lambda: engine.share(FrequencyVector((1, 5)), "r", b"no key"), ParameterError, "no public key"),
        (lambda: engine.Message("a", "b", "gossip", b"", 1), ParameterError, "messages are setup phase input"),
        (lambda: engine.deliver({}, {"worker1": []}), ProtocolError, "no Duchy of this computation"),
        (lambda: engine.deliver({"worker1": llv2()[0]["worker1"]}, {}), ProtocolError, "every Duchy waits"),
    ],
)
def test_bad_input_is_refused_and_told_what_to_do(make, error, message) -> None:
    with pytest.raises(error, match=message):
        make()


def test_secrets_do_not_show() -> None:
    for secret in (engine.KeyShare(seed=1), engine.HybridKey(seed=1)):
        assert repr(secret).endswith("(…)")
