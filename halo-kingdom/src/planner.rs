//! From what a consumer asks for to a protocol, its parameters and the Duchies that compute it.
//!
//! [`Planner::plan`] is a pure function of the specification and of what each publisher can do. It looks at the protocols
//! in a fixed order and takes the first that can compute the measurement:
//!
//! 1. *direct*, for impressions, durations and populations, and for whatever is asked of one publisher alone;
//! 2. *trustee*, *hmss-native*, *hmss*: every publisher must be able to take part;
//! 3. *rollv2*, for reach alone;
//! 4. *llv2*.
//!
//! A protocol other than direct counts when the Kingdom's configuration has its section. Why each protocol was taken or
//! not is a part of the plan, or of the refusal when none is left. What a Duchy or a publisher could only find out later
//! is checked here, when the consumer can still correct it; how little noise a Duchy's or a publisher's operator accepts,
//! these say themselves.

mod direct;
mod liquid_legions;
#[cfg(test)]
mod tests;
mod vectors;

use std::{collections::BTreeSet, fmt};

use halo_core::{
    measurement::{
        DirectConfig, HmssConfig, Llv2Config, MeasurementKind, MeasurementSpec, MeasurementType, Protocol,
        ProtocolConfig, ProtocolKind, Rollv2Config, TrusteeConfig, TrusteeNoise,
    },
    privacy::{NoiseCalibration, NoiseMechanism, PrivacyParams},
    resource::{DataProviderName, DuchyId},
};
use halo_sketch::noise::{NoiseSpec, Sensitivity, ShiftedNoise};

use crate::Error;
use liquid_legions::LiquidLegions;

/// The largest number of publishers of one measurement.
///
/// A computation keeps one record more for each publisher in every group of equal registers, and its configuration and
/// requisitions travel in messages of at most 4 MiB.
pub const MAX_PUBLISHERS: usize = 1000;

/// In which order the protocols are looked at.
const PRECEDENCE: [ProtocolKind; 6] = [
    ProtocolKind::Direct,
    ProtocolKind::Trustee,
    ProtocolKind::HmssNative,
    ProtocolKind::Hmss,
    ProtocolKind::Rollv2,
    ProtocolKind::Llv2,
];

/// So many publishers are named where something is said of several.
const NAMED: usize = 3;

/// How this Kingdom plans each protocol. One that is `None` is not planned.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Liquid Legions v2.
    pub llv2: Option<Llv2Settings>,
    /// Reach-only Liquid Legions v2.
    pub rollv2: Option<Rollv2Settings>,
    /// The share shuffle as the reference has it.
    pub hmss: Option<HmssConfig>,
    /// The share shuffle with one-byte cells.
    pub hmss_native: Option<HmssConfig>,
    /// One Duchy's trusted execution environment.
    pub trustee: Option<TrusteeConfig>,
    /// What publishers may do on their own.
    pub direct: DirectConfig,
}

impl Settings {
    /// The protocols whose results may have no noise.
    pub fn without_noise(&self) -> impl Iterator<Item = ProtocolKind> {
        let hmss = |settings: &Option<HmssConfig>| settings.as_ref().is_some_and(|hmss| hmss.noise.is_none());
        let noiseless = [
            (ProtocolKind::Llv2, self.llv2.as_ref().is_some_and(|llv2| llv2.protocol.noise.is_none())),
            (ProtocolKind::Rollv2, self.rollv2.as_ref().is_some_and(|rollv2| rollv2.protocol.noise.is_none())),
            (ProtocolKind::Hmss, hmss(&self.hmss)),
            (ProtocolKind::HmssNative, hmss(&self.hmss_native)),
            (ProtocolKind::Trustee, self.trustee.as_ref().is_some_and(|one| one.noise == TrusteeNoise::None)),
            (ProtocolKind::Direct, self.direct.noise.contains(&None)),
        ];
        noiseless.into_iter().filter(|(_, without)| *without).map(|(kind, _)| kind)
    }
}

/// How this Kingdom plans Liquid Legions v2.
#[derive(Clone, Debug, PartialEq)]
pub struct Llv2Settings {
    /// Parameters of every measurement.
    pub protocol: Llv2Config,
    /// The least number of Duchies, at least 2.
    pub minimum_duchies: usize,
}

/// How this Kingdom plans reach-only Liquid Legions v2.
#[derive(Clone, Debug, PartialEq)]
pub struct Rollv2Settings {
    /// Parameters of every measurement.
    pub protocol: Rollv2Config,
    /// The least number of Duchies, at least 2.
    pub minimum_duchies: usize,
}

/// What a publisher's software can do, as it says itself. Liquid Legions protocols and direct measurements, every
/// publisher can take part in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Capabilities {
    /// Can share frequency vectors as the reference does.
    pub hmss: bool,
    /// Can share frequency vectors of one-byte cells.
    pub hmss_native: bool,
    /// Can send frequency vectors to a trusted execution environment.
    pub trustee: bool,
    /// Accepts measurements without noise.
    pub no_noise: bool,
    /// Accepts deterministic noise in a trusted execution environment.
    pub deterministic_noise: bool,
}

/// A publisher that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publisher {
    /// Resource name.
    pub name: DataProviderName,
    /// What it can do.
    pub capabilities: Capabilities,
}

/// A planned measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The protocol with its parameters.
    pub config: ProtocolConfig,
    /// The Duchies that compute it, ascending by id; none where publishers do so themselves.
    pub participants: Vec<DuchyId>,
    /// Why this protocol was taken, and each of the others was not, in the order in which they were looked at.
    pub reasons: Vec<Reason>,
}

/// Why a protocol was taken or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The protocol.
    pub protocol: ProtocolKind,
    /// Whether it was taken.
    pub taken: bool,
    /// Why, in words.
    pub why: String,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let not = if self.taken { "" } else { "not " };
        write!(f, "{not}{}: {}", self.protocol, self.why)
    }
}

impl Plan {
    /// The reasons in one line, that of the protocol which was taken first.
    #[must_use]
    pub fn explanation(&self) -> String {
        let mut ordered: Vec<&Reason> = self.reasons.iter().collect();
        ordered.sort_by_key(|reason| !reason.taken);
        joined(ordered)
    }
}

/// Reasons, one after the other.
pub(crate) fn joined<'a>(reasons: impl IntoIterator<Item = &'a Reason>) -> String {
    reasons.into_iter().map(Reason::to_string).collect::<Vec<_>>().join("; ")
}

/// Plans measurements for the Duchies of this Kingdom.
#[derive(Clone, Debug)]
pub struct Planner {
    settings: Settings,
    duchies: Vec<DuchyId>,
}

impl Planner {
    /// Checks the settings against the Duchies.
    ///
    /// # Errors
    /// [`Error::Settings`] names the setting that is not usable.
    pub fn new(settings: Settings, duchies: impl IntoIterator<Item = DuchyId>) -> Result<Self, Error> {
        let duchies: BTreeSet<DuchyId> = duchies.into_iter().collect();
        let duchies: Vec<DuchyId> = duchies.into_iter().collect();
        if let Some(llv2) = &settings.llv2 {
            LiquidLegions::from(llv2).check_settings(&duchies)?;
        }
        if let Some(rollv2) = &settings.rollv2 {
            LiquidLegions::from(rollv2).check_settings(&duchies)?;
        }
        if let Some(hmss) = &settings.hmss {
            vectors::check_hmss_settings("hmss", hmss, &duchies)?;
        }
        if let Some(hmss) = &settings.hmss_native {
            vectors::check_hmss_settings("hmss_native", hmss, &duchies)?;
        }
        if let Some(trustee) = &settings.trustee {
            known_duchy("trustee.duchy", &trustee.duchy, &duchies)?;
        }
        if settings.direct.noise.is_empty() {
            return Err(refuse_setting("direct.noise_mechanisms", "it is empty; name at least one noise".into()));
        }
        Ok(Self { settings, duchies })
    }

    /// The Duchies of this Kingdom, ascending by id.
    #[must_use]
    pub fn duchies(&self) -> &[DuchyId] {
        &self.duchies
    }

    /// Plans one measurement of these publishers.
    ///
    /// # Errors
    /// [`Error::Infeasible`] names the field that no protocol could compute; [`Error::NoProtocol`] says of every
    /// protocol why it is none for this measurement.
    pub fn plan(&self, spec: &MeasurementSpec, publishers: &[Publisher]) -> Result<Plan, Error> {
        check_publishers(publishers.len())?;
        if let MeasurementType::ReachAndFrequency { maximum_frequency, .. } = spec.kind
            && !maximum_frequency.counts_frequency()
        {
            return Err(Error::Infeasible {
                field: "measurement_spec.reach_and_frequency.maximum_frequency",
                detail: "it is 1; ask for reach instead, or for a frequency above 1".into(),
            });
        }
        let mut taken: Option<Protocol> = None;
        let mut reasons = Vec::with_capacity(PRECEDENCE.len());
        for kind in PRECEDENCE {
            let outcome = match &taken {
                Some(protocol) => Err(format!("{} comes before it", protocol.kind())),
                None => self.consider(kind, spec, publishers).and_then(|(protocol, why)| {
                    if !is_noisy(&protocol) {
                        all_can(publishers, "accepts measurements without noise", |can| can.no_noise)?;
                    }
                    Ok((protocol, why))
                }),
            };
            let (is_taken, why) = match outcome {
                Ok((protocol, why)) => {
                    taken = Some(protocol);
                    (true, why)
                }
                Err(why) => (false, why),
            };
            reasons.push(Reason { protocol: kind, taken: is_taken, why });
        }
        let Some(protocol) = taken else {
            return Err(Error::NoProtocol { reasons });
        };
        let participants = self.participants(&protocol);
        Ok(Plan { config: ProtocolConfig { kind: spec.kind.kind(), protocol }, participants, reasons })
    }

    /// The Duchies that compute with a protocol, ascending by id.
    fn participants(&self, protocol: &Protocol) -> Vec<DuchyId> {
        match protocol {
            Protocol::Llv2(_) | Protocol::Rollv2(_) => self.duchies.clone(),
            Protocol::Hmss(hmss) => {
                let mut three = vec![hmss.first_worker.clone(), hmss.second_worker.clone(), hmss.aggregator.clone()];
                three.sort_unstable();
                three
            }
            Protocol::Trustee(trustee) => vec![trustee.duchy.clone()],
            Protocol::Direct(_) => Vec::new(),
        }
    }

    /// The protocol with its parameters and why it can be taken, or why not.
    fn consider(
        &self,
        kind: ProtocolKind,
        spec: &MeasurementSpec,
        publishers: &[Publisher],
    ) -> Result<(Protocol, String), String> {
        let settings = &self.settings;
        let asked = spec.kind.kind();
        match kind {
            ProtocolKind::Direct => {
                let why = direct::applies(asked, publishers.len())?;
                let config = direct::feasible(&settings.direct, spec)?;
                Ok((Protocol::Direct(config), why))
            }
            ProtocolKind::Trustee => {
                let trustee = offered(settings.trustee.as_ref(), "trustee")?;
                counts_people(asked)?;
                vectors::check_trustee(trustee, spec, publishers)?;
                Ok((Protocol::Trustee(trustee.clone()), everybody_can(publishers.len())))
            }
            ProtocolKind::HmssNative => {
                let hmss = offered(settings.hmss_native.as_ref(), "hmss_native")?;
                self.consider_hmss(hmss, spec, publishers, |can| can.hmss_native)
            }
            ProtocolKind::Hmss => {
                let hmss = offered(settings.hmss.as_ref(), "hmss")?;
                self.consider_hmss(hmss, spec, publishers, |can| can.hmss)
            }
            ProtocolKind::Rollv2 => {
                let rollv2 = offered(settings.rollv2.as_ref(), "rollv2")?;
                if asked != MeasurementKind::Reach {
                    return Err(format!("it computes reach alone, and {asked} is asked for"));
                }
                LiquidLegions::from(rollv2).check(spec, publishers.len(), self.duchies.len())?;
                Ok((Protocol::Rollv2(rollv2.protocol.clone()), "only reach is asked for".into()))
            }
            ProtocolKind::Llv2 => {
                let llv2 = offered(settings.llv2.as_ref(), "llv2")?;
                counts_people(asked)?;
                LiquidLegions::from(llv2).check(spec, publishers.len(), self.duchies.len())?;
                Ok((Protocol::Llv2(llv2.protocol.clone()), "no protocol before it can be taken".into()))
            }
        }
    }

    fn consider_hmss(
        &self,
        hmss: &HmssConfig,
        spec: &MeasurementSpec,
        publishers: &[Publisher],
        capability: impl Fn(&Capabilities) -> bool,
    ) -> Result<(Protocol, String), String> {
        counts_people(spec.kind.kind())?;
        all_can(publishers, "can take part in it", capability)?;
        vectors::check_hmss(hmss, spec, publishers.len())?;
        Ok((Protocol::Hmss(hmss.clone()), everybody_can(publishers.len())))
    }
}

/// Refuses a number of publishers that no measurement has.
///
/// # Errors
/// [`Error::Infeasible`].
pub fn check_publishers(publishers: usize) -> Result<(), Error> {
    if (1..=MAX_PUBLISHERS).contains(&publishers) {
        return Ok(());
    }
    let detail = format!("there are {publishers}; a measurement has 1 to {MAX_PUBLISHERS} publishers");
    Err(Error::Infeasible { field: "data_providers", detail })
}

fn refuse_setting(field: impl Into<String>, detail: String) -> Error {
    Error::Settings { field: field.into(), detail }
}

fn known_duchy(field: impl Into<String>, duchy: &DuchyId, duchies: &[DuchyId]) -> Result<(), Error> {
    if duchies.contains(duchy) {
        return Ok(());
    }
    Err(refuse_setting(field, format!("Duchy {duchy} is not among the configured Duchies")))
}

fn offered<'a, T>(settings: Option<&'a T>, section: &str) -> Result<&'a T, String> {
    settings.ok_or_else(|| format!("the Kingdom's configuration has no section [{section}]"))
}

/// Whether some noise hides the result. Where publishers choose among several noises, one is enough.
fn is_noisy(protocol: &Protocol) -> bool {
    match protocol {
        Protocol::Llv2(llv2) => llv2.noise.is_some(),
        Protocol::Rollv2(rollv2) => rollv2.noise.is_some(),
        Protocol::Hmss(hmss) => hmss.noise.is_some(),
        Protocol::Trustee(trustee) => trustee.noise != TrusteeNoise::None,
        Protocol::Direct(direct) => direct.noise.iter().any(Option::is_some),
    }
}

fn counts_people(asked: MeasurementKind) -> Result<(), String> {
    if matches!(asked, MeasurementKind::Reach | MeasurementKind::ReachAndFrequency) {
        return Ok(());
    }
    Err(format!("it computes reach and frequency, and {asked} is asked for"))
}

fn everybody_can(publishers: usize) -> String {
    format!("all {publishers} publishers can take part in it")
}

/// Refuses when some publisher cannot do something, and names such publishers.
fn all_can(publishers: &[Publisher], what: &str, can: impl Fn(&Capabilities) -> bool) -> Result<(), String> {
    let lacking: Vec<String> =
        publishers.iter().filter(|one| !can(&one.capabilities)).map(|one| one.name.to_string()).collect();
    if lacking.is_empty() {
        return Ok(());
    }
    let more = if lacking.len() > NAMED { format!(" and {} more", lacking.len() - NAMED) } else { String::new() };
    let named = lacking.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
    let verb = if lacking.len() == 1 { "does" } else { "do" };
    Err(format!("{named}{more} {verb} not say to the Kingdom that it {what}"))
}

/// The noises of a measurement of people, each with the field that asks for it and what one person changes.
fn noises_of_people(spec: &MeasurementSpec) -> Vec<(&'static str, PrivacyParams, Sensitivity)> {
    match spec.kind {
        MeasurementType::Reach { reach } => {
            vec![("measurement_spec.reach.privacy_params", reach, Sensitivity::scalar(1))]
        }
        MeasurementType::ReachAndFrequency { reach, frequency, .. } => vec![
            ("measurement_spec.reach_and_frequency.reach_privacy_params", reach, Sensitivity::scalar(1)),
            ("measurement_spec.reach_and_frequency.frequency_privacy_params", frequency, Sensitivity::histogram()),
        ],
        MeasurementType::Impression { .. } | MeasurementType::Duration { .. } | MeasurementType::Population => {
            Vec::new()
        }
    }
}

/// Noise, and who adds it.
#[derive(Clone, Copy)]
struct NoiseMakers {
    mechanism: NoiseMechanism,
    calibration: NoiseCalibration,
    contributors: usize,
    honest_contributors: u32,
}

impl NoiseMakers {
    /// One alone.
    const fn one(mechanism: NoiseMechanism) -> Self {
        Self { mechanism, calibration: NoiseCalibration::Exact, contributors: 1, honest_contributors: 1 }
    }

    /// The noise of each of them.
    fn calibrate(self, params: PrivacyParams, sensitivity: Sensitivity) -> Result<ShiftedNoise, String> {
        let spec = NoiseSpec {
            mechanism: self.mechanism,
            calibration: self.calibration,
            params: params.for_protocol_noise().map_err(|error| error.to_string())?,
            sensitivity,
            contributors: u32::try_from(self.contributors).map_err(|error| error.to_string())?,
            honest_contributors: self.honest_contributors,
        };
        spec.calibrate().map_err(|error| error.to_string())
    }

    /// The noises that a specification asks for, with ε not below `least_epsilon`.
    fn calibrate_people(self, spec: &MeasurementSpec, least_epsilon: f64) -> Result<Vec<ShiftedNoise>, String> {
        let one = |(field, params, sensitivity): (&str, PrivacyParams, Sensitivity)| {
            if params.epsilon.get() < least_epsilon {
                return Err(format!("{field}: epsilon is {}; at least {least_epsilon} is possible", params.epsilon));
            }
            self.calibrate(params, sensitivity).map_err(|detail| format!("{field}: {detail}"))
        };
        noises_of_people(spec).into_iter().map(one).collect()
    }
}
