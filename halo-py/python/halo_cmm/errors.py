"""Exceptions of the package.

Each is a built-in exception too, so that ``except ValueError`` keeps working in code that knows nothing of Halo.
"""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "AttestationError",
    "ColumnTypeError",
    "DataError",
    "FormatError",
    "HaloError",
    "IncompatibleError",
    "MissingColumnError",
    "MissingDependencyError",
    "NoiseError",
    "ParameterError",
    "ProtocolError",
    "SaturatedError",
]


class HaloError(Exception):
    """Base of all exceptions that this package raises on purpose."""


class ParameterError(HaloError, ValueError):
    """A parameter is outside of its range. The message names it and the range."""


class NoiseError(ParameterError):
    """Noise for these ε and δ cannot be made. The message says which of them to raise."""


class DataError(HaloError, ValueError):
    """The data cannot be counted: a null, a negative VID, somebody outside of the population, unequal lengths."""


class ColumnTypeError(HaloError, TypeError):
    """The VIDs, or a table, are of a type that cannot be read. The message says which types can be."""


class MissingColumnError(HaloError, KeyError):
    """The table has no such column. The message lists those that it has."""

    def __str__(self) -> str:
        # KeyError would show the message in quotes.
        return str(self.args[0]) if self.args else ""


class IncompatibleError(HaloError, ValueError):
    """Two sketches or vectors have different shapes and cannot be merged."""


class FormatError(HaloError, ValueError):
    """Bytes are not what this package has written: restore them from their source."""


class SaturatedError(HaloError, ArithmeticError):
    """Every register of a sketch is active, so reach is above what it can count: use a larger sketch."""


class ProtocolError(HaloError, RuntimeError):
    """A step of a protocol refused its input. Nothing has been consumed.

    Attributes
    ----------
    culprits : tuple of str
        The Duchies of which at least one deviated; empty when nobody can be named.
    """

    def __init__(self, message: str = "", culprits: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.culprits: tuple[str, ...] = tuple(culprits)

    def __reduce__(self) -> tuple[type[ProtocolError], tuple[str, tuple[str, ...]]]:
        return type(self), (str(self), self.culprits)


class AttestationError(ProtocolError):
    """A trustee's process may not open data: its attestation is simulated, which is not allowed, or is not accepted."""


class MissingDependencyError(HaloError, ImportError):
    """An optional package is not installed. The message says how to install it."""
