//! From what a consumer asks for to a protocol, its parameters and the Duchies that compute it.
//!
//! Every measurement is planned for Liquid Legions v2; other kinds than reach and reach-and-frequency are refused by
//! name. What a Duchy or a publisher could only find out later is checked here, when the consumer can still correct it,
//! each noise by itself. How much all noises together may need, and how little a Duchy's operator accepts, the Duchies
//! say when they are asked for their keys: the measurement then fails at once, with their words.

use std::collections::BTreeSet;

use halo_core::{
    measurement::{Llv2Config, MeasurementSpec, MeasurementType, Protocol, ProtocolConfig},
    privacy::PrivacyParams,
    resource::DuchyId,
};
use halo_sketch::{
    liquid_legions::Params,
    noise::{NoiseSpec, Sensitivity},
};

use crate::Error;

/// The largest number of publishers of one measurement.
///
/// A computation keeps one record more for each publisher in every group of equal registers, and its configuration and
/// requisitions travel in messages of at most 4 MiB.
pub const MAX_PUBLISHERS: usize = 1000;

/// How this Kingdom plans Liquid Legions v2.
#[derive(Clone, Debug, PartialEq)]
pub struct Llv2Settings {
    /// Parameters of every measurement.
    pub protocol: Llv2Config,
    /// The least number of Duchies, at least 2.
    pub minimum_duchies: usize,
}

/// A planned measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The protocol with its parameters.
    pub config: ProtocolConfig,
    /// The Duchies that compute it, ascending by id.
    pub participants: Vec<DuchyId>,
}

/// Plans measurements for the Duchies of this Kingdom.
#[derive(Clone, Debug)]
pub struct Planner {
    llv2: Llv2Config,
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
        let Llv2Settings { protocol: llv2, minimum_duchies } = settings;
        if !duchies.contains(&llv2.aggregator) {
            let detail = format!("Duchy {} is not among the configured Duchies", llv2.aggregator);
            return Err(refuse("llv2.aggregator", detail));
        }
        if minimum_duchies < 2 {
            let detail = format!("it is {}; one Duchy alone could decrypt every upload", minimum_duchies);
            return Err(refuse("llv2.minimum_duchies", detail));
        }
        if duchies.len() < minimum_duchies {
            let detail = format!("it is {}, but {} Duchies are configured", minimum_duchies, duchies.len());
            return Err(refuse("llv2.minimum_duchies", detail));
        }
        Params::new(llv2.decay_rate, llv2.max_size, llv2.sampling_indicator_size)
            .map_err(|error| refuse("llv2", error.to_string()))?;
        // Wider than this, the numbers would be negative in the messages.
        for (field, size) in
            [("llv2.max_size", llv2.max_size), ("llv2.sampling_indicator_size", llv2.sampling_indicator_size)]
        {
            i64::try_from(size).map_err(|_| refuse(field, format!("{size} is more than {}", i64::MAX)))?;
        }
        if let Some(noise) = &llv2.noise
            && !(1..=duchies.len()).contains(&(noise.honest_contributors as usize))
        {
            let detail = format!("it is {}, with {} Duchies configured", noise.honest_contributors, duchies.len());
            return Err(refuse("llv2.honest_contributors", detail));
        }
        let planner = Self { llv2, duchies: duchies.into_iter().collect() };
        if let Some(noise) = planner.llv2.noise {
            let publisher = NoiseSpec::publisher(noise.mechanism, noise.calibration, noise.data_provider);
            publisher.calibrate().map_err(|error| refuse("llv2.data_provider_noise", error.to_string()))?;
            // How many publishers share a register is a histogram. How much noise they added depends on their number,
            // and may be impossible for very many; for one publisher it must be possible.
            planner
                .calibrate(noise.blinded_histogram, Sensitivity::histogram())
                .map_err(|detail| refuse("llv2.blinded_histogram_noise", detail))?;
            planner.check_publisher_noise(1).map_err(|detail| refuse("llv2.noise_for_publisher_noise", detail))?;
        }
        Ok(planner)
    }

    /// The Duchies of this Kingdom, ascending by id.
    #[must_use]
    pub fn duchies(&self) -> &[DuchyId] {
        &self.duchies
    }

    /// Plans one measurement of so many publishers.
    ///
    /// # Errors
    /// [`Error::Infeasible`] names the field of the specification and what would do.
    pub fn plan(&self, spec: &MeasurementSpec, publishers: usize) -> Result<Plan, Error> {
        let refuse = |field, detail: String| Error::Infeasible { field, detail };
        match spec.kind {
            MeasurementType::Impression { .. } | MeasurementType::Duration { .. } | MeasurementType::Population => {
                let detail =
                    format!("{} is not computed by this Kingdom; ask for reach or reach_and_frequency", spec.kind);
                return Err(refuse("measurement_spec.measurement_type", detail));
            }
            MeasurementType::Reach { reach } => {
                self.check_noise("measurement_spec.reach.privacy_params", reach, Sensitivity::scalar(1))?;
            }
            MeasurementType::ReachAndFrequency { reach, frequency, maximum_frequency } => {
                if !maximum_frequency.counts_frequency() {
                    let detail = "it is 1; ask for reach instead, or for a frequency above 1".into();
                    return Err(refuse("measurement_spec.reach_and_frequency.maximum_frequency", detail));
                }
                let field = "measurement_spec.reach_and_frequency.reach_privacy_params";
                self.check_noise(field, reach, Sensitivity::scalar(1))?;
                let field = "measurement_spec.reach_and_frequency.frequency_privacy_params";
                self.check_noise(field, frequency, Sensitivity::histogram())?;
            }
        }
        spec.vid_sampling_interval
            .without_wrapping()
            .map_err(|error| refuse("measurement_spec.vid_sampling_interval", error.to_string()))?;
        if publishers == 0 || publishers > MAX_PUBLISHERS {
            let detail = format!("there are {publishers}; a measurement has 1 to {MAX_PUBLISHERS} publishers");
            return Err(refuse("data_providers", detail));
        }
        self.check_publisher_noise(publishers).map_err(|detail| {
            let detail = format!("noise_for_publisher_noise is not possible for {publishers} publishers: {detail}");
            refuse("data_providers", detail)
        })?;
        let config = ProtocolConfig { kind: spec.kind.kind(), protocol: Protocol::Llv2(self.llv2.clone()) };
        Ok(Plan { config, participants: self.duchies.clone() })
    }

    fn check_noise(&self, field: &'static str, params: PrivacyParams, sensitivity: Sensitivity) -> Result<(), Error> {
        self.calibrate(params, sensitivity).map_err(|detail| Error::Infeasible { field, detail })
    }

    /// Whether the Duchies can hide the noise of so many publishers: one person may be known to all of them.
    fn check_publisher_noise(&self, publishers: usize) -> Result<(), String> {
        let Some(noise) = self.llv2.noise else {
            return Ok(());
        };
        let publishers = u32::try_from(publishers).map_err(|error| error.to_string())?;
        self.calibrate(noise.for_publisher_noise, Sensitivity::scalar(publishers))
    }

    /// Whether the Duchies can add this noise.
    fn calibrate(&self, params: PrivacyParams, sensitivity: Sensitivity) -> Result<(), String> {
        let Some(noise) = self.llv2.noise else {
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
    use halo_core::{
        measurement::{LiquidLegionsNoise, MeasurementKind},
        privacy::{MaximumFrequency, NoiseCalibration, NoiseMechanism, VidSamplingInterval},
    };

    use super::*;

    fn id(text: &str) -> DuchyId {
        DuchyId::new(text).unwrap()
    }

    fn params(epsilon: f64, delta: f64) -> PrivacyParams {
        PrivacyParams::new(epsilon, delta).unwrap()
    }

    fn settings() -> Llv2Settings {
        let config = Llv2Config {
            aggregator: id("aggregator"),
            decay_rate: 12.0,
            max_size: 100_000,
            sampling_indicator_size: 10_000_000,
            noise: Some(LiquidLegionsNoise {
                mechanism: NoiseMechanism::DiscreteGaussian,
                calibration: NoiseCalibration::Exact,
                honest_contributors: 1,
                data_provider: params(1.0, 1e-9),
                blinded_histogram: params(1.0, 1e-9),
                for_publisher_noise: params(1.0, 1e-9),
            }),
        };
        Llv2Settings { protocol: config, minimum_duchies: 3 }
    }

    fn with(change: impl FnOnce(&mut Llv2Settings)) -> Llv2Settings {
        let mut settings = settings();
        change(&mut settings);
        settings
    }

    /// Settings of the reference's calibration, which itself has no use for honest contributors, with a change.
    fn with_noise(change: impl FnOnce(&mut LiquidLegionsNoise)) -> Llv2Settings {
        with(|settings| {
            let noise = settings.protocol.noise.as_mut().unwrap();
            noise.calibration = NoiseCalibration::Reference;
            change(noise);
        })
    }

    fn three() -> [DuchyId; 3] {
        [id("worker2"), id("worker1"), id("aggregator")]
    }

    fn asked(kind: MeasurementType) -> MeasurementSpec {
        MeasurementSpec {
            kind,
            vid_sampling_interval: VidSamplingInterval::FULL,
            nonce_hashes: Vec::new(),
            measurement_public_key: Vec::new(),
        }
    }

    fn reach(epsilon: f64, delta: f64) -> MeasurementSpec {
        asked(MeasurementType::Reach { reach: params(epsilon, delta) })
    }

    #[track_caller]
    fn assert_infeasible(planner: &Planner, spec: &MeasurementSpec, publishers: usize, field: &str) {
        match planner.plan(spec, publishers) {
            Err(Error::Infeasible { field: found, detail }) => assert_eq!(found, field, "{detail}"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_duchy_takes_part_in_order() {
        let plan = Planner::new(settings(), three()).unwrap().plan(&reach(1.0, 1e-9), 2).unwrap();
        assert_eq!(plan.participants, [id("aggregator"), id("worker1"), id("worker2")]);
        assert_eq!(plan.config.kind, MeasurementKind::Reach);
    }

    #[test]
    fn other_kinds_are_refused_by_name() {
        let planner = Planner::new(settings(), three()).unwrap();
        let error = planner.plan(&asked(MeasurementType::Population), 2).unwrap_err();
        assert!(error.to_string().contains("POPULATION is not computed"), "{error}");
    }

    #[test]
    fn what_cannot_be_computed_is_refused_with_its_field() {
        let planner = Planner::new(settings(), three()).unwrap();
        assert_infeasible(&planner, &reach(1.0, 0.0), 2, "measurement_spec.reach.privacy_params");
        assert_infeasible(&planner, &reach(1e-12, 1e-9), 2, "measurement_spec.reach.privacy_params");
        let wrapped = VidSamplingInterval::new(0.7, 0.5).unwrap();
        let wrapped = MeasurementSpec { vid_sampling_interval: wrapped, ..reach(1.0, 1e-9) };
        assert_infeasible(&planner, &wrapped, 2, "measurement_spec.vid_sampling_interval");
        for publishers in [0, MAX_PUBLISHERS + 1] {
            assert_infeasible(&planner, &reach(1.0, 1e-9), publishers, "data_providers");
        }
        let once = MeasurementType::ReachAndFrequency {
            reach: params(1.0, 1e-9),
            frequency: params(1.0, 1e-9),
            maximum_frequency: MaximumFrequency::REACH_ONLY,
        };
        assert_infeasible(&planner, &asked(once), 2, "measurement_spec.reach_and_frequency.maximum_frequency");
    }

    #[test]
    fn the_publishers_noise_is_hidden_for_as_many_as_there_are() {
        let tight = with(|settings| settings.protocol.noise.as_mut().unwrap().for_publisher_noise = params(1e-4, 1e-9));
        let planner = Planner::new(tight, three()).unwrap();
        planner.plan(&reach(1.0, 1e-9), 1).unwrap();
        assert_infeasible(&planner, &reach(1.0, 1e-9), MAX_PUBLISHERS, "data_providers");
        let planner = Planner::new(settings(), three()).unwrap();
        planner.plan(&reach(1.0, 1e-9), MAX_PUBLISHERS).unwrap();
    }

    #[test]
    fn without_noise_nothing_is_calibrated() {
        let planner = Planner::new(with(|settings| settings.protocol.noise = None), three()).unwrap();
        assert!(planner.plan(&reach(1e-12, 0.0), 2).is_ok());
    }

    #[test]
    fn settings_that_make_no_sense_are_refused() {
        for (settings, duchies) in [
            (with(|settings| settings.protocol.aggregator = id("nobody")), three().to_vec()),
            (with(|settings| settings.minimum_duchies = 1), three().to_vec()),
            (with(|settings| settings.minimum_duchies = 4), three().to_vec()),
            (with(|settings| settings.protocol.decay_rate = 0.5), three().to_vec()),
            (with(|settings| settings.protocol.max_size = 0), three().to_vec()),
            (with(|settings| settings.protocol.max_size = 1 << 63), three().to_vec()),
            (with(|settings| settings.protocol.sampling_indicator_size = 1 << 63), three().to_vec()),
            (with_noise(|noise| noise.honest_contributors = 0), three().to_vec()),
            (with_noise(|noise| noise.honest_contributors = 4), three().to_vec()),
            (with_noise(|noise| noise.honest_contributors = u32::MAX), three().to_vec()),
            (settings(), vec![id("aggregator")]),
        ] {
            assert!(matches!(Planner::new(settings, duchies), Err(Error::Settings { .. })));
        }
    }
}
