"""Noise: how much is needed for (ε, δ), and integer-exact draws, fresh or the same for the same data.

Examples
--------
>>> from halo_cmm import noise
>>> reach = noise.calibrate(1.0, 1e-9, contributors=3, honest_contributors=1)
>>> total = sum(reach.sample(1000, seed=party) for party in range(3))
>>> bool(abs(total.std() / reach.standard_deviation - 1) < 0.1)
True
"""

from halo_cmm._halo import Noise, StickyNoise, calibrate, discrete_gaussian, geometric

__all__ = ["Noise", "StickyNoise", "calibrate", "discrete_gaussian", "geometric"]
