//! From what a consumer asks for to a protocol, its parameters and the Duchies that compute it.
//!
//! Every measurement is planned for Liquid Legions v2; other kinds than reach and reach-and-frequency are refused by
//! name. What a Duchy or a publisher could only find out later is checked here, when the consumer can still correct it.

use std::collections::BTreeSet;

use halo_core::{
    privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval},
    resource::DuchyId,
};
use halo_sketch::{
    liquid_legions::Params,
    noise::{Calibration, Mechanism, NoiseSpec, Sensitivity},
};

use crate::Error;

/// The elliptic curve of Halo's Liquid Legions v2: Ristretto255.
pub const RISTRETTO255: i32 = 1087;

/// The largest number of publishers of one measurement.
///
/// A computation keeps one record more for each publisher in every group of equal registers, and its configuration and
/// requisitions travel in messages of at most 4 MiB.
pub const MAX_PUBLISHERS: usize = 1000;

/// What a measurement counts, with the noise that it pays for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// How many people were reached.
    Reach {
        /// Noise of the reach.
        reach: PrivacyParams,
    },
    /// How many people were reached, and how often.
    ReachAndFrequency {
        /// Noise of the reach.
        reach: PrivacyParams,
        /// Noise of the frequency histogram.
        frequency: PrivacyParams,
        /// The highest frequency that is told apart, above 1.
        maximum_frequency: MaximumFrequency,
    },
    /// Something that is not computed here, by the name of its field in the specification.
    Other(&'static str),
}

/// What planning needs to know of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request {
    /// What is counted.
    pub kind: Kind,
    /// Whom it is counted among.
    pub sampling: VidSamplingInterval,
    /// Number of publishers.
    pub publishers: usize,
}

/// The three noises inside the protocol; see the contract's `ProtocolConfig.LiquidLegionsV2`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct InternalNoise {
    /// What every publisher adds, so that its sketch's size is hidden.
    pub data_provider: PrivacyParams,
    /// What the Duchies add, so that it is hidden how many publishers share a register.
    pub blinded_histogram: PrivacyParams,
    /// What the Duchies add, so that the publishers' noise is hidden.
    pub for_publisher_noise: PrivacyParams,
}

/// Noise of a measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NoiseSettings {
    /// Distribution.
    pub mechanism: Mechanism,
    /// How its width follows from ε and δ.
    pub calibration: Calibration,
    /// The number of Duchies whose noise alone must suffice, at least 1.
    pub honest_contributors: u32,
    /// Noises inside the protocol.
    pub internal: InternalNoise,
}

/// How this Kingdom plans Liquid Legions v2.
#[derive(Clone, Debug, PartialEq)]
pub struct Llv2Settings {
    /// The Duchy that hands in results.
    pub aggregator: DuchyId,
    /// The least number of Duchies, at least 2.
    pub minimum_duchies: usize,
    /// Shape of the sketches: decay rate, above 1 and at most 36.
    pub decay_rate: f64,
    /// Shape of the sketches: number of registers.
    pub max_size: u64,
    /// Shape of the sketches: number of different keys.
    pub sampling_indicator_size: u64,
    /// Noise; `None` switches off every noise anywhere.
    pub noise: Option<NoiseSettings>,
}

/// A planned measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Parameters of the protocol.
    pub settings: Llv2Settings,
    /// Whether frequencies are computed.
    pub counts_frequency: bool,
    /// The Duchies that compute it, ascending by id.
    pub participants: Vec<DuchyId>,
}

/// Plans measurements for the Duchies of this Kingdom.
#[derive(Clone, Debug)]
pub struct Planner {
    settings: Llv2Settings,
    duchies: Vec<DuchyId>,
}

impl Planner {
    /// Checks the settings against the Duchies.
    ///
    /// # Errors
    /// [`Error::Settings`] names the setting that is not usable.
    pub fn new(settings: Llv2Settings, duchies: impl IntoIterator<Item = DuchyId>) -> Result<Self, Error> {
        let duchies: BTreeSet<DuchyId> = duchies.into_iter().collect();
        let refuse = |field, detail: String| Error::Settings { field, detail };
        if !duchies.contains(&settings.aggregator) {
            let detail = format!("Duchy {} is not among the configured Duchies", settings.aggregator);
            return Err(refuse("llv2.aggregator", detail));
        }
        if settings.minimum_duchies < 2 {
            let detail = format!("it is {}; one Duchy alone could decrypt every upload", settings.minimum_duchies);
            return Err(refuse("llv2.minimum_duchies", detail));
        }
        if duchies.len() < settings.minimum_duchies {
            let detail = format!("it is {}, but {} Duchies are configured", settings.minimum_duchies, duchies.len());
            return Err(refuse("llv2.minimum_duchies", detail));
        }
        Params::new(settings.decay_rate, settings.max_size, settings.sampling_indicator_size)
            .map_err(|error| refuse("llv2", error.to_string()))?;
        let planner = Self { settings, duchies: duchies.into_iter().collect() };
        if let Some(noise) = planner.settings.noise {
            let publisher = NoiseSpec::publisher(noise.mechanism, noise.calibration, noise.internal.data_provider);
            publisher.calibrate().map_err(|error| refuse("llv2.data_provider_noise", error.to_string()))?;
            // How many publishers share a register is a histogram; how much noise they added is one number.
            for (field, params, sensitivity) in [
                ("llv2.blinded_histogram_noise", noise.internal.blinded_histogram, Sensitivity::histogram()),
                ("llv2.noise_for_publisher_noise", noise.internal.for_publisher_noise, Sensitivity::scalar(1)),
            ] {
                planner.calibrate(params, sensitivity).map_err(|detail| refuse(field, detail))?;
            }
        }
        Ok(planner)
    }

    /// The Duchies of this Kingdom, ascending by id.
    #[must_use]
    pub fn duchies(&self) -> &[DuchyId] {
        &self.duchies
    }

    /// Plans one measurement.
    ///
    /// # Errors
    /// [`Error::Infeasible`] names the field of the specification and what would do.
    pub fn plan(&self, request: &Request) -> Result<Plan, Error> {
        let refuse = |field, detail: String| Error::Infeasible { field, detail };
        let counts_frequency = match request.kind {
            Kind::Other(name) => {
                let detail = format!(
                    "{name} measurements are not computed by this Kingdom; ask for reach or reach_and_frequency"
                );
                return Err(refuse("measurement_spec.measurement_type", detail));
            }
            Kind::Reach { reach } => {
                self.check_noise("measurement_spec.reach.privacy_params", reach, Sensitivity::scalar(1))?;
                false
            }
            Kind::ReachAndFrequency { reach, frequency, maximum_frequency } => {
                if !maximum_frequency.counts_frequency() {
                    let detail = "it is 1; ask for reach instead, or for a frequency above 1".into();
                    return Err(refuse("measurement_spec.reach_and_frequency.maximum_frequency", detail));
                }
                let field = "measurement_spec.reach_and_frequency.reach_privacy_params";
                self.check_noise(field, reach, Sensitivity::scalar(1))?;
                let field = "measurement_spec.reach_and_frequency.frequency_privacy_params";
                self.check_noise(field, frequency, Sensitivity::histogram())?;
                true
            }
        };
        request
            .sampling
            .without_wrapping()
            .map_err(|error| refuse("measurement_spec.vid_sampling_interval", error.to_string()))?;
        if request.publishers == 0 || request.publishers > MAX_PUBLISHERS {
            let detail =
                format!("there are {}; a measurement has 1 to {MAX_PUBLISHERS} publishers", request.publishers);
            return Err(refuse("data_providers", detail));
        }
        Ok(Plan { settings: self.settings.clone(), counts_frequency, participants: self.duchies.clone() })
    }

    fn check_noise(&self, field: &'static str, params: PrivacyParams, sensitivity: Sensitivity) -> Result<(), Error> {
        self.calibrate(params, sensitivity).map_err(|detail| Error::Infeasible { field, detail })
    }

    /// Whether the Duchies can add this noise.
    fn calibrate(&self, params: PrivacyParams, sensitivity: Sensitivity) -> Result<(), String> {
        let Some(noise) = self.settings.noise else {
            return Ok(());
        };
        let contributors = u32::try_from(self.duchies.len()).map_err(|error| error.to_string())?;
        let spec = NoiseSpec {
            mechanism: noise.mechanism,
            calibration: noise.calibration,
            params: params.for_protocol_noise().map_err(|error| error.to_string())?,
            sensitivity,
            contributors,
            honest_contributors: noise.honest_contributors,
        };
        spec.calibrate().map(drop).map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> DuchyId {
        DuchyId::new(text).unwrap()
    }

    fn params(epsilon: f64, delta: f64) -> PrivacyParams {
        PrivacyParams::new(epsilon, delta).unwrap()
    }

    fn settings() -> Llv2Settings {
        Llv2Settings {
            aggregator: id("aggregator"),
            minimum_duchies: 3,
            decay_rate: 12.0,
            max_size: 100_000,
            sampling_indicator_size: 10_000_000,
            noise: Some(NoiseSettings {
                mechanism: Mechanism::DiscreteGaussian,
                calibration: Calibration::Exact,
                honest_contributors: 1,
                internal: InternalNoise {
                    data_provider: params(1.0, 1e-9),
                    blinded_histogram: params(1.0, 1e-9),
                    for_publisher_noise: params(1.0, 1e-9),
                },
            }),
        }
    }

    fn three() -> [DuchyId; 3] {
        [id("worker2"), id("worker1"), id("aggregator")]
    }

    fn reach(epsilon: f64, delta: f64) -> Request {
        Request {
            kind: Kind::Reach { reach: params(epsilon, delta) },
            sampling: VidSamplingInterval::FULL,
            publishers: 2,
        }
    }

    #[track_caller]
    fn assert_infeasible(planner: &Planner, request: &Request, field: &str) {
        match planner.plan(request) {
            Err(Error::Infeasible { field: found, detail }) => assert_eq!(found, field, "{detail}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_duchy_takes_part_in_order() {
        let plan = Planner::new(settings(), three()).unwrap().plan(&reach(1.0, 1e-9)).unwrap();
        assert_eq!(plan.participants, [id("aggregator"), id("worker1"), id("worker2")]);
        assert!(!plan.counts_frequency);
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        let planner = Planner::new(settings(), three()).unwrap();
        let error = planner.plan(&Request { kind: Kind::Other("impression"), ..reach(1.0, 1e-9) }).unwrap_err();
        assert!(error.to_string().contains("impression measurements are not computed"), "{error}");
    }

    #[test]
    fn what_cannot_be_computed_is_refused_with_its_field() {
        let planner = Planner::new(settings(), three()).unwrap();
        assert_infeasible(&planner, &reach(1.0, 0.0), "measurement_spec.reach.privacy_params");
        assert_infeasible(&planner, &reach(1e-12, 1e-9), "measurement_spec.reach.privacy_params");
        let wrapped = VidSamplingInterval::new(0.7, 0.5).unwrap();
        assert_infeasible(
            &planner,
            &Request { sampling: wrapped, ..reach(1.0, 1e-9) },
            "measurement_spec.vid_sampling_interval",
        );
        for publishers in [0, MAX_PUBLISHERS + 1] {
            assert_infeasible(&planner, &Request { publishers, ..reach(1.0, 1e-9) }, "data_providers");
        }
        let once = Kind::ReachAndFrequency {
            reach: params(1.0, 1e-9),
            frequency: params(1.0, 1e-9),
            maximum_frequency: MaximumFrequency::REACH_ONLY,
        };
        assert_infeasible(
            &planner,
            &Request { kind: once, ..reach(1.0, 1e-9) },
            "measurement_spec.reach_and_frequency.maximum_frequency",
        );
    }

    #[test]
    fn without_noise_nothing_is_calibrated() {
        let planner = Planner::new(Llv2Settings { noise: None, ..settings() }, three()).unwrap();
        assert!(planner.plan(&reach(1e-12, 0.0)).is_ok());
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (settings, duchies) in [
            (Llv2Settings { aggregator: id("nobody"), ..settings() }, three().to_vec()),
            (Llv2Settings { minimum_duchies: 1, ..settings() }, three().to_vec()),
            (Llv2Settings { minimum_duchies: 4, ..settings() }, three().to_vec()),
            (Llv2Settings { decay_rate: 0.5, ..settings() }, three().to_vec()),
            (Llv2Settings { max_size: 0, ..settings() }, three().to_vec()),
            (settings(), vec![id("aggregator")]),
        ] {
            assert!(matches!(Planner::new(settings, duchies), Err(Error::Settings { .. })));
        }
    }
}
