"""Ctrl-C ends long work within moments, and the GIL is free meanwhile."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

from halo_cmm import LiquidLegions, noise, simulate


def long_protocol() -> None:
    people = np.arange(1, 60_001)
    simulate({name: people for name in "abc"}, sketch=(12.0, 50_000), seed=1)


def long_draws() -> None:
    noise.discrete_gaussian(1e6, 200_000_000, seed=1)


def long_sketch() -> None:
    vids = np.arange(4_000_000)
    begun = time.monotonic()
    while time.monotonic() - begun < 60.0:
        LiquidLegions.from_vids(vids, sketch=(12.0, 1_000_000))


@pytest.fixture(autouse=True)
def ctrl_c_interrupts() -> Iterator[None]:
    """A runner in the background ignores the signal, and its children do, too."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("work", [long_protocol, long_draws, long_sketch])
def test_ctrl_c_is_honoured(work) -> None:
    sent: list[float] = []
    ticks: list[float] = []

    def interrupt() -> None:
        # Ticks come while the work runs, because the GIL is released.
        for _ in range(20):
            time.sleep(0.025)
            ticks.append(time.monotonic())
        sent.append(time.monotonic())
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    begun = time.monotonic()
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        work()
    ended = time.monotonic()
    thread.join()
    assert len(ticks) == 20
    assert ended - sent[0] < 10.0, f"{ended - sent[0]:.1f} s after the signal, {ended - begun:.1f} s in all"


def test_other_handlers_raise_their_own() -> None:
    class Alarm(Exception):
        pass

    def handler(*_: object) -> None:
        raise Alarm

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Alarm):
            long_protocol()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
