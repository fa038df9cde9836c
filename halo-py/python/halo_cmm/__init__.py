"""Private reach and frequency across publishers.

Sketches and vectors of people (`LiquidLegions`, `FrequencyVector`), whole measurements with all parties in this process
(`simulate`, `simulate_registers`, `simulate_vectors`), and what they are made of: `engine`, each protocol one party and one
step at a time; `noise`, `accounting` and `estimators`.

Examples
--------
>>> import numpy as np
>>> import halo_cmm
>>> news, sports = np.arange(1, 601), np.arange(401, 1001)
>>> result = halo_cmm.simulate({"news": news, "sports": sports}, protocol="hmss", max_frequency=2)
>>> result.reach, result.frequency
(1000.0, {1: 0.8, 2: 0.2})
"""

from halo_cmm import accounting, engine, errors, estimators, noise
from halo_cmm._halo import FrequencyVector, LiquidLegions, Population, __version__
from halo_cmm._simulation import Exact, Result, TraceRow, simulate, simulate_registers, simulate_vectors
from halo_cmm.errors import (
    AttestationError,
    ColumnTypeError,
    DataError,
    FormatError,
    HaloError,
    IncompatibleError,
    MissingColumnError,
    MissingDependencyError,
    NoiseError,
    ParameterError,
    ProtocolError,
    SaturatedError,
)
from halo_cmm.estimators import Estimate, FrequencyEstimate

__all__ = [
    "AttestationError",
    "ColumnTypeError",
    "DataError",
    "Estimate",
    "Exact",
    "FormatError",
    "FrequencyEstimate",
    "FrequencyVector",
    "HaloError",
    "IncompatibleError",
    "LiquidLegions",
    "MissingColumnError",
    "MissingDependencyError",
    "NoiseError",
    "ParameterError",
    "Population",
    "ProtocolError",
    "Result",
    "SaturatedError",
    "TraceRow",
    "__version__",
    "accounting",
    "engine",
    "errors",
    "estimators",
    "noise",
    "simulate",
    "simulate_registers",
    "simulate_vectors",
]
