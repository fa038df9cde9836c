//! The classes of `halo_cmm.accounting`.

use halo_core::privacy::{Delta, Epsilon};
use halo_sketch::accounting::{self, Acdp as InnerAcdp, Gdp as InnerGdp, Zcdp as InnerZcdp, pld};
use pyo3::prelude::*;

use crate::error::Error;
use crate::noise::sensitivity;
use crate::params;

fn epsilon(value: f64) -> Result<Epsilon, Error> {
    Ok(Epsilon::new(value)?)
}

fn delta(value: f64) -> Result<Delta, Error> {
    Ok(Delta::new(value)?)
}

fn change(value: Option<&Bound<'_, PyAny>>) -> PyResult<halo_sketch::noise::Sensitivity> {
    value.map_or(Ok(halo_sketch::noise::Sensitivity::scalar(1)), sensitivity)
}

/// μ of Gaussian differential privacy; μ² adds up, and conversions are exact for Gaussian noise.
///
/// Parameters
/// ----------
/// mu : float
///     At least 0.
///
/// Examples
/// --------
/// How many queries of (0.1, 1e-12) fit into a budget of (1, 1e-9)?
///
/// >>> from halo_cmm.accounting import Gdp
/// >>> query = Gdp.within(0.1, 1e-12)
/// >>> next(count for count in range(1000) if (query * (count + 1)).delta(1.0) > 1e-9)
/// 125
#[pyclass(module = "halo_cmm.accounting", frozen, eq)]
#[derive(Clone, PartialEq)]
pub(crate) struct Gdp(InnerGdp);

#[pymethods]
impl Gdp {
    #[new]
    fn new(mu: f64) -> PyResult<Self> {
        Ok(Self(InnerGdp::new(mu).map_err(Error::from)?))
    }

    /// What Gaussian noise of this variance costs. `sensitivity` is by how much one person changes the number, or
    /// "histogram".
    #[staticmethod]
    #[pyo3(signature = (variance, *, sensitivity = None))]
    fn of_gaussian(variance: f64, sensitivity: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        Ok(Self(InnerGdp::of_gaussian(change(sensitivity)?, variance).map_err(Error::from)?))
    }

    /// The largest cost that keeps (ε, δ).
    #[staticmethod]
    fn within(epsilon: f64, delta: f64) -> PyResult<Self> {
        Ok(Self(InnerGdp::within(params::privacy((epsilon, delta))?)))
    }

    /// float : μ.
    #[getter]
    const fn mu(&self) -> f64 {
        self.0.mu()
    }

    /// δ at this ε.
    fn delta(&self, epsilon: f64) -> PyResult<f64> {
        Ok(self.0.delta(self::epsilon(epsilon)?))
    }

    /// The smallest ε at this δ.
    fn epsilon(&self, delta: f64) -> PyResult<f64> {
        Ok(self.0.epsilon(self::delta(delta)?))
    }

    /// The same cost in zero-concentrated differential privacy.
    fn to_zcdp(&self) -> Zcdp {
        Zcdp(self.0.to_zcdp())
    }

    fn __add__(&self, other: &Self) -> Self {
        Self(self.0.and(other.0))
    }

    fn __mul__(&self, count: u32) -> Self {
        Self(self.0.repeated(count))
    }

    fn __rmul__(&self, count: u32) -> Self {
        self.__mul__(count)
    }

    fn __repr__(&self) -> String {
        format!("Gdp(mu={:?})", self.0.mu())
    }
}

/// ρ of zero-concentrated differential privacy; ρ adds up, for any mechanism that has one.
///
/// Parameters
/// ----------
/// rho : float
///     At least 0.
///
/// Examples
/// --------
/// >>> from halo_cmm.accounting import Zcdp
/// >>> cost = 10 * Zcdp.of_gaussian(400.0) + Zcdp.of_pure(0.1)
/// >>> round(cost.rho, 4), cost.delta(1.0) < 1e-5
/// (0.0175, True)
#[pyclass(module = "halo_cmm.accounting", frozen, eq)]
#[derive(Clone, PartialEq)]
pub(crate) struct Zcdp(InnerZcdp);

#[pymethods]
impl Zcdp {
    #[new]
    fn new(rho: f64) -> PyResult<Self> {
        Ok(Self(InnerZcdp::new(rho).map_err(Error::from)?))
    }

    /// What Gaussian or discrete Gaussian noise of this variance costs. `sensitivity` is by how much one person changes
    /// the number, or "histogram".
    #[staticmethod]
    #[pyo3(signature = (variance, *, sensitivity = None))]
    fn of_gaussian(variance: f64, sensitivity: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        Ok(Self(InnerZcdp::of_gaussian(change(sensitivity)?, variance).map_err(Error::from)?))
    }

    /// What an ε-private mechanism without δ costs.
    #[staticmethod]
    fn of_pure(epsilon: f64) -> PyResult<Self> {
        Ok(Self(InnerZcdp::of_pure(self::epsilon(epsilon)?)))
    }

    /// The largest cost that keeps (ε, δ).
    #[staticmethod]
    fn within(epsilon: f64, delta: f64) -> PyResult<Self> {
        Ok(Self(InnerZcdp::within(params::privacy((epsilon, delta))?)))
    }

    /// float : ρ.
    #[getter]
    const fn rho(&self) -> f64 {
        self.0.rho()
    }

    /// δ at this ε, by the best conversion known.
    fn delta(&self, epsilon: f64) -> PyResult<f64> {
        Ok(self.0.delta(self::epsilon(epsilon)?))
    }

    /// The smallest ε at this δ, by the best conversion known.
    fn epsilon(&self, delta: f64) -> PyResult<f64> {
        Ok(self.0.epsilon(self::delta(delta)?))
    }

    /// ε = ρ + 2·√(ρ·ln(1/δ)), for comparison with what others quote.
    fn loose_epsilon(&self, delta: f64) -> PyResult<f64> {
        Ok(self.0.loose_epsilon(self::delta(delta)?))
    }

    /// μ for a cost that Gaussian noise alone has made up.
    fn as_gaussian(&self) -> Gdp {
        Gdp(self.0.as_gaussian())
    }

    fn __add__(&self, other: &Self) -> Self {
        Self(self.0.and(other.0))
    }

    fn __mul__(&self, count: u32) -> Self {
        Self(self.0.repeated(count))
    }

    fn __rmul__(&self, count: u32) -> Self {
        self.__mul__(count)
    }

    fn __repr__(&self) -> String {
        format!("Zcdp(rho={:?})", self.0.rho())
    }
}

/// The pair (ρ, θ) that the reference system charges; θ pays for noise that was cut to a range.
///
/// Parameters
/// ----------
/// rho, theta : float
///     At least 0.
///
/// Examples
/// --------
/// >>> from halo_cmm.accounting import Acdp
/// >>> cost = Acdp.multi_party(1.0, 1e-9, contributors=3)
/// >>> cost.rho > 0 and cost.theta > 0
/// True
/// >>> (cost + cost).rho == 2 * cost.rho
/// True
#[pyclass(module = "halo_cmm.accounting", frozen, eq)]
#[derive(Clone, PartialEq)]
pub(crate) struct Acdp(InnerAcdp);

#[pymethods]
impl Acdp {
    #[new]
    fn new(rho: f64, theta: f64) -> PyResult<Self> {
        Ok(Self(InnerAcdp::new(rho, theta).map_err(Error::from)?))
    }

    /// What a result costs whose noise so many Duchies add up, calibrated to (ε, δ) as the reference does.
    #[staticmethod]
    #[pyo3(signature = (epsilon, delta, *, contributors))]
    fn multi_party(epsilon: f64, delta: f64, contributors: u32) -> PyResult<Self> {
        let params = params::privacy((epsilon, delta))?;
        Ok(Self(InnerAcdp::multi_party(params, contributors).map_err(Error::from)?))
    }

    /// What a result costs that its publisher made with Gaussian noise of this variance.
    #[staticmethod]
    #[pyo3(signature = (variance, *, sensitivity = None))]
    fn direct(variance: f64, sensitivity: Option<&Bound<'_, PyAny>>) -> PyResult<Self> {
        Ok(Self(InnerAcdp::direct(change(sensitivity)?, variance).map_err(Error::from)?))
    }

    /// float : What the noise costs.
    #[getter]
    const fn rho(&self) -> f64 {
        self.0.rho()
    }

    /// float : What the cut costs.
    #[getter]
    const fn theta(&self) -> f64 {
        self.0.theta()
    }

    /// δ at this ε, as the reference compares it with its budget. It is a bound: it says nothing above 1.
    fn delta(&self, epsilon: f64) -> PyResult<f64> {
        Ok(self.0.delta(self::epsilon(epsilon)?))
    }

    /// The same with the exact conversion, which holds when all noise was Gaussian.
    fn gaussian_delta(&self, epsilon: f64) -> PyResult<f64> {
        Ok(self.0.gaussian_delta(self::epsilon(epsilon)?))
    }

    fn __add__(&self, other: &Self) -> Self {
        Self(self.0.and(other.0))
    }

    fn __mul__(&self, count: u32) -> Self {
        Self(self.0.repeated(count))
    }

    fn __rmul__(&self, count: u32) -> Self {
        self.__mul__(count)
    }

    fn __repr__(&self) -> String {
        format!("Acdp(rho={:?}, theta={:?})", self.0.rho(), self.0.theta())
    }
}

/// A whole distribution of the privacy loss; compositions are exact up to the grid, which errs towards more loss.
///
/// Made by one of the static methods. `interval` is the width of a cell of the grid.
///
/// Examples
/// --------
/// >>> from halo_cmm.accounting import Gdp, PrivacyLoss
/// >>> one = PrivacyLoss.discrete_gaussian(100.0)
/// >>> composed, formula = (one * 10).delta(1.0), (10 * Gdp.of_gaussian(100.0)).delta(1.0)
/// >>> abs(composed / formula - 1) < 0.1
/// True
#[pyclass(module = "halo_cmm.accounting", frozen)]
pub(crate) struct PrivacyLoss(pld::PrivacyLoss);

/// The usual width of a cell.
const INTERVAL: f64 = 1e-4;

#[pymethods]
impl PrivacyLoss {
    /// Continuous Gaussian noise of this cost.
    #[staticmethod]
    #[pyo3(signature = (cost, *, interval = INTERVAL))]
    fn gaussian(cost: &Gdp, interval: f64) -> PyResult<Self> {
        Ok(Self(pld::PrivacyLoss::gaussian(cost.0, interval).map_err(Error::from)?))
    }

    /// Discrete Gaussian noise of this variance on a whole number that one person moves by `change`.
    #[staticmethod]
    #[pyo3(signature = (variance, *, change = 1, interval = INTERVAL))]
    fn discrete_gaussian(variance: f64, change: u32, interval: f64) -> PyResult<Self> {
        Ok(Self(pld::PrivacyLoss::discrete_gaussian(variance, change, interval).map_err(Error::from)?))
    }

    /// Two-sided geometric noise of ratio exp(−rate) on a whole number that one person moves by `change`.
    #[staticmethod]
    #[pyo3(signature = (rate, *, change = 1, interval = INTERVAL))]
    fn discrete_laplace(rate: f64, change: u32, interval: f64) -> PyResult<Self> {
        Ok(Self(pld::PrivacyLoss::discrete_laplace(epsilon(rate)?, change, interval).map_err(Error::from)?))
    }

    /// Any mechanism with finitely many outcomes: their probabilities with one data set and with its neighbour.
    #[staticmethod]
    #[pyo3(signature = (one, other, *, interval = INTERVAL))]
    fn of_outcomes(one: Vec<f64>, other: Vec<f64>, interval: f64) -> PyResult<Self> {
        Ok(Self(pld::PrivacyLoss::of_outcomes(&one, &other, interval).map_err(Error::from)?))
    }

    /// δ at this ε.
    fn delta(&self, epsilon: f64) -> PyResult<f64> {
        Ok(self.0.delta(self::epsilon(epsilon)?))
    }

    /// The smallest ε at this δ.
    fn epsilon(&self, py: Python<'_>, delta: f64) -> PyResult<f64> {
        let delta = self::delta(delta)?;
        Ok(py.detach(|| self.0.epsilon(delta)))
    }

    fn __add__(&self, py: Python<'_>, other: &Self) -> PyResult<Self> {
        Ok(Self(py.detach(|| self.0.and(&other.0)).map_err(Error::from)?))
    }

    fn __mul__(&self, py: Python<'_>, count: u32) -> PyResult<Self> {
        Ok(Self(py.detach(|| self.0.repeated(count)).map_err(Error::from)?))
    }

    fn __rmul__(&self, py: Python<'_>, count: u32) -> PyResult<Self> {
        self.__mul__(py, count)
    }
}

/// σ of the least continuous Gaussian noise that keeps (ε, δ); `sensitivity` is by how much one person changes the number,
/// or "histogram".
///
/// Examples
/// --------
/// >>> from halo_cmm import accounting
/// >>> round(accounting.gaussian_sigma(1.0, 1e-5), 6)
/// 3.730632
#[pyfunction]
#[pyo3(signature = (epsilon, delta, *, sensitivity = None))]
pub(crate) fn gaussian_sigma(epsilon: f64, delta: f64, sensitivity: Option<&Bound<'_, PyAny>>) -> PyResult<f64> {
    Ok(accounting::gaussian_sigma(params::privacy((epsilon, delta))?, change(sensitivity)?))
}
