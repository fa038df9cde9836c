//! Options that were checked, and which protocols can do what they ask for.

use std::{ops::RangeInclusive, path::PathBuf};

use halo_core::{
    measurement::{MeasurementKind, MeasurementType, Population, ProtocolKind},
    privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval},
};
use halo_sketch::liquid_legions::Params;

use super::input::Options;
use crate::{
    cluster::layout::{HMSS_RING_MODULUS, SAMPLING_INDICATOR_SIZE},
    error::{Context, Error, Result},
    kind, truth,
};

/// A share shuffle has two workers and an aggregator.
const HMSS_DUCHIES: usize = 3;
/// What a share shuffle with one-byte cells reaches, with frequencies and without.
const NATIVE_MODULI: (u64, u64) = (256, 251);
/// Vectors over more people than this are made only when the population is given.
const MOST_PEOPLE: u64 = 10_000_000;

/// Options that were checked.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    /// What the consumer asks for.
    pub(super) asked: MeasurementType,
    /// Whom it is counted among.
    pub(super) interval: VidSamplingInterval,
    /// The protocol of the command line.
    pub(super) protocol: Option<ProtocolKind>,
    /// The protocols that the Kingdom may choose from.
    pub(super) offered: Vec<ProtocolKind>,
    /// Why the Kingdom may not choose others: a sentence each.
    pub(super) left_out: Vec<String>,
    pub(super) sketch: Params,
    /// The people that there are: given, or the range of VIDs in the data.
    pub(super) population: Option<Population>,
    /// ε and δ that the consumer asks for, of each released value.
    pub(super) ask: PrivacyParams,
    /// The same, of each noise; `None` without noise.
    pub(super) privacy: Option<PrivacyParams>,
    pub(super) duchies: usize,
    pub(super) publishers: usize,
}

impl Options {
    /// Checks everything that can be checked before any work.
    pub(super) fn plan(&self, publishers: usize) -> Result<Plan> {
        if !(2..=20).contains(&self.duchies) {
            return Err(Error::new(format!("--duchies is {}; it must be from 2 to 20", self.duchies)));
        }
        let ask = PrivacyParams::new(self.epsilon, self.delta)
            .and_then(PrivacyParams::for_protocol_noise)
            .context(|| "--epsilon and --delta cannot be used".into())?;
        // What counts of one person's impressions is no class of a histogram, and may be more.
        let classes = match self.measurement {
            MeasurementKind::Impression => self.maximum_frequency.min(1),
            _ => self.maximum_frequency,
        };
        let maximum_frequency = MaximumFrequency::new(classes).context(|| "--max-frequency cannot be used".into())?;
        if self.maximum_seconds == 0 {
            return Err(Error::new("--max-seconds is 0; it must be at least 1"));
        }
        let asked = match self.measurement {
            MeasurementKind::ReachAndFrequency if maximum_frequency.counts_frequency() => {
                MeasurementType::ReachAndFrequency { reach: ask, frequency: ask, maximum_frequency }
            }
            MeasurementKind::Reach | MeasurementKind::ReachAndFrequency => MeasurementType::Reach { reach: ask },
            MeasurementKind::Impression => {
                MeasurementType::Impression { impression: ask, maximum_frequency_per_user: self.maximum_frequency }
            }
            MeasurementKind::Duration => {
                MeasurementType::Duration { duration: ask, maximum_seconds_per_user: u64::from(self.maximum_seconds) }
            }
            MeasurementKind::Population => MeasurementType::Population,
        };
        let mut plan = Plan {
            asked,
            interval: self.sampling.interval()?,
            protocol: self.protocol,
            offered: self.protocol.into_iter().collect(),
            left_out: Vec::new(),
            sketch: Params::new(self.decay_rate, self.registers, SAMPLING_INDICATOR_SIZE)
                .context(|| "--decay-rate and --registers cannot be used".into())?,
            population: self.population,
            ask,
            privacy: (!self.no_noise).then_some(ask),
            duchies: self.duchies,
            publishers,
        };
        match self.protocol {
            Some(protocol) => match plan.impossible(protocol) {
                Some(reason) => return Err(Error::new(format!("--protocol {protocol} cannot be used: {reason}"))),
                None => return Ok(plan),
            },
            None => plan.offer()?,
        }
        Ok(plan)
    }
}

impl Plan {
    /// Offers every protocol that can be set up with these parties.
    fn offer(&mut self) -> Result<()> {
        for protocol in ProtocolKind::ALL {
            if protocol == ProtocolKind::Trustee {
                let reason =
                    "no hardware here attests what runs in it; --protocol trustee takes a simulated attestation";
                self.left_out.push(format!("{protocol} is not offered: {reason}"));
            } else if is_share_shuffle(protocol) && self.duchies != HMSS_DUCHIES {
                self.left_out.push(format!("{protocol} is not offered: {}", self.wrong_duchies()));
            } else {
                self.offered.push(protocol);
            }
        }
        // The Kingdom says why it does not take one of them; here counts only whether there is any.
        let reasons: Vec<String> = self
            .offered
            .iter()
            .filter_map(|protocol| self.impossible(*protocol).map(|reason| format!("{protocol}: {reason}")))
            .collect();
        // One publisher counts by itself; several are measured together, if they can be.
        let alone = self.publishers == 1 || !kind::is_reach(self.kind());
        let together = self.offered.iter().filter(|protocol| **protocol != ProtocolKind::Direct).count();
        if !alone && reasons.len() >= together {
            let reasons = reasons.join("; ");
            return Err(Error::new(format!("no protocol can measure this over several publishers: {reasons}")));
        }
        Ok(())
    }

    /// Checks that a population which was asked for holds everybody in the data.
    ///
    /// # Errors
    /// When it does not; the error tells the first row, never the VID. When a file cannot be read.
    pub(super) fn check_population(&self, files: &[(String, PathBuf)]) -> Result<()> {
        let Some(population) = self.population else { return Ok(()) };
        let Some((path, row)) = truth::first_outside(files, &(population.first()..=population.last()))? else {
            return Ok(());
        };
        Err(Error::new(format!(
            "row {row} of {} (the first row is 1): its VID is outside of --population {population}; give a range that \
             holds everybody, or none: then that of the VIDs in the data is taken",
            path.display()
        )))
    }

    /// Takes note of the VIDs in the data: where no population was asked for, it is their range.
    ///
    /// # Errors
    /// When a protocol was asked for that cannot do it.
    pub(super) fn with_data(mut self, vids: Option<&RangeInclusive<u64>>) -> Result<Self> {
        if self.population.is_some() {
            return Ok(self);
        }
        // At least two people, of whom a shuffle hides which is which.
        let (first, last) =
            vids.map_or((0, 1), |vids| (*vids.start(), (*vids.end()).max(vids.start().saturating_add(1))));
        let reason = match Population::new(first, last) {
            Err(error) => error.to_string(),
            Ok(population) if population.size() <= MOST_PEOPLE || self.protocol.is_some() => {
                self.population = Some(population);
                return Ok(self);
            }
            Ok(population) => format!(
                "the VIDs range over {} people, more than {MOST_PEOPLE}; --population states that it is meant",
                population.size()
            ),
        };
        if let Some(protocol) = self.protocol.filter(|protocol| protocol.uses_vectors()) {
            return Err(Error::new(format!("--protocol {protocol} cannot be used: {reason}")));
        }
        if self.kind() == MeasurementKind::Population {
            return Err(Error::new(format!("--measurement population cannot be used: {reason}")));
        }
        let vectors = self.offered.extract_if(.., |protocol| protocol.uses_vectors());
        self.left_out.extend(vectors.map(|protocol| format!("{protocol} is not offered: {reason}")));
        Ok(self)
    }

    /// F, as it is measured: 1 where frequencies are not.
    pub(super) const fn maximum_frequency(&self) -> MaximumFrequency {
        self.asked.maximum_frequency()
    }

    /// Whether each publisher is asked in a measurement of its own: that is how several count people alone.
    pub(super) fn one_each(&self) -> bool {
        self.protocol == Some(ProtocolKind::Direct) && self.publishers > 1 && kind::is_reach(self.kind())
    }

    /// What is counted.
    pub(super) const fn kind(&self) -> MeasurementKind {
        self.asked.kind()
    }

    fn wrong_duchies(&self) -> String {
        format!(
            "a share shuffle has {HMSS_DUCHIES} Duchies, two workers and an aggregator, but --duchies is {}",
            self.duchies
        )
    }

    /// Why the protocol cannot do what is asked for; `None` when it can.
    fn impossible(&self, protocol: ProtocolKind) -> Option<String> {
        if protocol == ProtocolKind::Direct {
            return None;
        }
        if !kind::is_reach(self.kind()) {
            let name = kind::name(self.kind());
            return Some(format!("{name} is counted by every publisher on its own, which is --protocol direct"));
        }
        if self.publishers == 1 {
            return Some("one publisher alone is asked directly; measure several, or take --protocol direct".into());
        }
        let counts_frequency = self.kind().counts_frequency();
        if protocol == ProtocolKind::Rollv2 && counts_frequency {
            return Some("it measures reach alone; ask for --measurement reach, or take llv2".into());
        }
        if matches!(protocol, ProtocolKind::Llv2 | ProtocolKind::Rollv2)
            && let Err(error) = self.interval.without_wrapping()
        {
            return Some(format!("sketches need an interval that does not go round the end of the circle: {error}"));
        }
        if !is_share_shuffle(protocol) {
            return None;
        }
        if self.duchies != HMSS_DUCHIES {
            return Some(self.wrong_duchies());
        }
        let modulus = match protocol {
            ProtocolKind::Hmss => u64::from(HMSS_RING_MODULUS),
            _ if counts_frequency => NATIVE_MODULI.0,
            _ => NATIVE_MODULI.1,
        };
        let frequency = self.maximum_frequency();
        let sum = u64::from(frequency.get()) * self.publishers as u64;
        (sum + 1 >= modulus).then(|| {
            format!(
                "a cell adds up to {frequency} (--max-frequency) times {} (publishers) = {sum}, and the modulus of the \
                 shares, {modulus}, must be above {}; lower --max-frequency or measure fewer publishers",
                self.publishers,
                sum + 1
            )
        })
    }
}

const fn is_share_shuffle(protocol: ProtocolKind) -> bool {
    matches!(protocol, ProtocolKind::Hmss | ProtocolKind::HmssNative)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quickstart::input::{Sampling, tests::options};

    #[track_caller]
    fn refused(options: &Options, publishers: usize, words: &[&str]) {
        let message = options.plan(publishers).unwrap_err().to_string();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
    }

    fn with(protocol: ProtocolKind) -> Options {
        Options { protocol: Some(protocol), ..options() }
    }

    #[test]
    fn options_out_of_range_are_named() {
        assert!(options().plan(3).is_ok());
        for (bad, word) in [
            (Options { duchies: 1, ..options() }, "--duchies"),
            (Options { maximum_frequency: 0, ..options() }, "--max-frequency"),
            (Options { maximum_seconds: 0, ..options() }, "--max-seconds"),
            (Options { decay_rate: 0.5, ..options() }, "--decay-rate"),
            (Options { registers: 0, ..options() }, "--registers"),
            (Options { epsilon: -1.0, ..options() }, "--epsilon"),
            (Options { delta: 0.0, ..options() }, "--delta"),
            (Options { sampling: Sampling { start: 0.5, width: 0.0 }, ..options() }, "--sampling-width"),
        ] {
            refused(&bad, 3, &[word]);
        }
    }

    #[test]
    fn impossible_combinations_are_refused_in_a_sentence() {
        refused(&with(ProtocolKind::Rollv2), 3, &["rollv2", "--measurement reach"]);
        for kind in [MeasurementKind::Impression, MeasurementKind::Duration, MeasurementKind::Population] {
            for protocol in ProtocolKind::ALL.into_iter().filter(|protocol| *protocol != ProtocolKind::Direct) {
                let options = Options { measurement: kind, ..with(protocol) };
                refused(&options, 3, &[protocol.name(), kind::name(kind), "--protocol direct"]);
            }
        }
        let wrapping = Sampling { start: 0.75, width: 0.5 };
        refused(&Options { sampling: wrapping, ..with(ProtocolKind::Llv2) }, 3, &["llv2", "circle"]);
        assert!(Options { sampling: wrapping, ..with(ProtocolKind::Hmss) }.plan(3).is_ok());
        refused(&with(ProtocolKind::Llv2), 1, &["llv2", "one publisher", "--protocol direct"]);
        for protocol in [ProtocolKind::Hmss, ProtocolKind::HmssNative] {
            refused(&Options { duchies: 4, ..with(protocol) }, 3, &[protocol.name(), "--duchies is 4"]);
        }
    }

    #[test]
    fn frequencies_must_fit_the_modulus() {
        let at = |protocol, maximum_frequency| Options { maximum_frequency, ..with(protocol) };
        assert!(at(ProtocolKind::HmssNative, 127).plan(2).is_ok());
        refused(&at(ProtocolKind::HmssNative, 128), 2, &["128", "256", "--max-frequency"]);
        assert!(at(ProtocolKind::Hmss, 83).plan(3).is_ok());
        refused(&at(ProtocolKind::Hmss, 84), 3, &["252", "251"]);
        let reach = Options { measurement: MeasurementKind::Reach, ..at(ProtocolKind::HmssNative, 255) };
        assert!(reach.plan(249).is_ok());
        refused(&reach, 250, &["251"]);
        assert!(at(ProtocolKind::Trustee, 255).plan(20).is_ok());
    }

    #[test]
    fn what_is_not_offered_is_told_why() {
        let names = |plan: &Plan| plan.offered.iter().map(|protocol| protocol.name()).collect::<Vec<_>>();
        let plan = options().plan(3).unwrap();
        assert_eq!(names(&plan), ["llv2", "rollv2", "hmss", "hmss-native", "direct"]);
        assert!(plan.left_out[0].contains("trustee"), "{:?}", plan.left_out);
        let plan = Options { duchies: 2, ..options() }.plan(3).unwrap();
        assert_eq!(names(&plan), ["llv2", "rollv2", "direct"]);
        let wrapping = Options { duchies: 2, sampling: Sampling { start: 0.75, width: 0.5 }, ..options() };
        refused(&wrapping, 3, &["no protocol", "llv2", "rollv2", "circle"]);
        assert!(wrapping.plan(1).is_ok(), "one publisher counts by itself");
        let impressions = Options { measurement: MeasurementKind::Impression, ..wrapping };
        assert!(impressions.plan(3).is_ok());
    }

    #[test]
    fn the_population_holds_the_data() {
        let plan = |protocol, population: Option<&str>| {
            let population = population.map(|text| text.parse().unwrap());
            Options { protocol, population, ..options() }.plan(3).unwrap()
        };
        let population = |plan: Result<Plan>| plan.unwrap().population.unwrap().to_string();
        assert_eq!(population(plan(None, None).with_data(Some(&(5..=90)))), "5..90");
        assert_eq!(population(plan(None, Some("1..100")).with_data(Some(&(5..=90)))), "1..100");
        assert_eq!(population(plan(None, None).with_data(Some(&(5..=5)))), "5..6");
        assert_eq!(population(plan(None, None).with_data(None)), "0..1");

        let wide = plan(None, None).with_data(Some(&(0..=1 << 30))).unwrap();
        assert!(wide.offered.iter().all(|protocol| !protocol.uses_vectors()) && wide.population.is_none());
        assert!(wide.left_out.iter().any(|reason| reason.contains("hmss-native") && reason.contains("--population")));
        assert!(plan(Some(ProtocolKind::Hmss), None).with_data(Some(&(0..=1 << 30))).is_ok());
        let error = plan(Some(ProtocolKind::Hmss), None).with_data(Some(&(0..=1 << 40))).unwrap_err().to_string();
        assert!(error.contains("hmss") && error.contains("population"), "{error}");
        assert!(plan(Some(ProtocolKind::Llv2), None).with_data(Some(&(0..=1 << 40))).unwrap().population.is_none());
    }
}
