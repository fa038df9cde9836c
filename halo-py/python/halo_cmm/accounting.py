"""How much privacy many releases cost together.

Costs add up with ``+`` and repeat with ``*``; each converts to (ε, δ) and back.

Examples
--------
>>> from halo_cmm.accounting import Zcdp
>>> budget = Zcdp.within(1.0, 1e-9)
>>> query = Zcdp.of_gaussian(1_000_000.0)
>>> int(budget.rho / query.rho)
29946
"""

from halo_cmm._halo import Acdp, Gdp, PrivacyLoss, Zcdp, gaussian_sigma

__all__ = ["Acdp", "Gdp", "PrivacyLoss", "Zcdp", "gaussian_sigma"]
