"""Each protocol, one party and one step at a time.

A Duchy's side of a protocol is *started* with what its publishers have uploaded, and *advanced* with what its peers have
sent. Every step says what to deliver (`Step.outbox`), what to keep (`Step.state`) and whom to wait for (`Step.awaiting`);
states, uploads and the bodies of messages are bytes. Nothing here has a socket or a clock, and a step that is repeated with
the same seed gives the same bytes.

Examples
--------
`deliver` carries all messages and gives what the aggregator learns:

>>> from halo_cmm import LiquidLegions, engine
>>> shares = {duchy: engine.KeyShare() for duchy in ("worker1", "worker2", "aggregator")}
>>> ring = [share.participant(duchy) for duchy, share in shares.items()]
>>> duchies = {
...     duchy: engine.LiquidLegionsV2(duchy, ring, share, publishers=2, max_frequency=3)
...     for duchy, share in shares.items()
... }
>>> uploads = {
...     "worker1": [engine.encrypt(LiquidLegions.from_vids([1, 2]), ring, max_frequency=3)],
...     "worker2": [engine.encrypt(LiquidLegions.from_vids([2, 2, 3]), ring, max_frequency=3)],
... }
>>> engine.deliver(duchies, uploads)["frequency"]
{1: 0.666..., 2: 0.0, 3: 0.333...}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from halo_cmm._halo import (
    EnvelopeKey,
    HybridKey,
    KeyShare,
    LiquidLegionsV2,
    Message,
    Participant,
    ReachOnlyLiquidLegionsV2,
    SealedVector,
    ShareShuffle,
    Step,
    Trustee,
    Upload,
    encrypt,
    encrypt_reach_only,
    seal,
    share,
)
from halo_cmm.errors import ProtocolError

__all__ = [
    "Duchy",
    "EnvelopeKey",
    "HybridKey",
    "KeyShare",
    "LiquidLegionsV2",
    "Message",
    "Participant",
    "ReachOnlyLiquidLegionsV2",
    "SealedVector",
    "ShareShuffle",
    "Step",
    "Trustee",
    "Upload",
    "deliver",
    "encrypt",
    "encrypt_reach_only",
    "seal",
    "share",
]


class Duchy(Protocol):
    """One Duchy's side of any protocol."""

    def start(self, uploads: Any = ...) -> Step:
        """Begins with the uploads of this Duchy's publishers."""

    def advance(self, state: bytes, inbox: Any, uploads: Any = ...) -> Step:
        """Goes on with the messages that the state awaits."""


def deliver(
    duchies: Mapping[str, Duchy],
    uploads: Mapping[str, Sequence[Any]],
    observe: Callable[[str, Step], None] | None = None,
) -> dict[str, Any]:
    """Carry all messages until every Duchy is done, and give what the aggregator learns.

    Parameters
    ----------
    duchies : mapping of str to Duchy
        All Duchies by id.
    uploads : mapping of str to sequence
        What publishers have sent, by the Duchy that they have sent it to.
    observe : callable, optional
        Is called with a Duchy's id and every step that it has taken.

    Returns
    -------
    dict
        `Step.output` of the aggregator.

    Raises
    ------
    ProtocolError
        A Duchy refuses a message, or all wait and no message is under way.
    """
    unknown = sorted(set(uploads) - set(duchies))
    if unknown:
        raise ProtocolError(f"uploads are for {', '.join(unknown)}, which is no Duchy of this computation")
    waiting: dict[str, Step] = {}
    under_way: list[Message] = []
    output: dict[str, Any] | None = None

    def take(duchy: str, step: Step) -> None:
        nonlocal output
        if observe is not None:
            observe(duchy, step)
        under_way.extend(step.outbox)
        if step.output is not None:
            output = step.output
        if not step.done:
            waiting[duchy] = step

    for duchy, side in duchies.items():
        take(duchy, side.start(list(uploads.get(duchy, ()))))
    while waiting:
        for duchy, step in waiting.items():
            slots = set(step.awaiting)
            inbox = [
                message
                for message in under_way
                if message.to == duchy and (message.sender, message.description) in slots
            ]
            if step.state is not None and len(inbox) == len(slots):
                break
        else:
            missing = [f"{slot[1]} from {slot[0]}" for step in waiting.values() for slot in step.awaiting]
            raise ProtocolError(f"every Duchy waits and no message is under way; missing: {', '.join(missing)}")
        under_way = [message for message in under_way if message not in inbox]
        del waiting[duchy]
        take(duchy, duchies[duchy].advance(step.state, inbox, list(uploads.get(duchy, ()))))
    if output is None:
        raise ProtocolError("no Duchy has learned a result")
    return output
