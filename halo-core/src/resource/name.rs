//! The names that are one path.

use std::fmt;
use std::str::FromStr;

use super::{DuchyId, ExternalId};
use crate::Error;

/// Reads and writes types in configuration files and JSON as the text of their `FromStr` and `Display`.
macro_rules! text_in_serde {
    ($($name:ty),+ $(,)?) => {$(
        #[cfg(feature = "serde")]
        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        #[cfg(feature = "serde")]
        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                <String as serde::Deserialize>::deserialize(deserializer)?
                    .parse()
                    .map_err(serde::de::Error::custom)
            }
        }
    )+};
}
pub(super) use text_in_serde;

/// Defines names as pairs of a collection and the type of the id in it, and perhaps a last word for a resource of which
/// the parent has only one.
macro_rules! resource_name {
    ($(
        $(#[$doc:meta])*
        $name:ident = $collection:literal / $part:ident: $id:ty
            $(, $collections:literal / $parts:ident: $ids:ty)* $(; $single:literal)?
    )+) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name {
            #[doc = concat!("The id in `", $collection, "`.")]
            pub $part: $id,
            $(
                #[doc = concat!("The id in `", $collections, "`.")]
                pub $parts: $ids,
            )*
        }

        impl $name {
            /// The form of the name, with what each id identifies in braces.
            pub const PATTERN: &'static str = concat!(
                $collection, "/{", stringify!($part), "}"
                $(, "/", $collections, "/{", stringify!($parts), "}")* $(, "/", $single)?
            );

            /// Puts the name together.
            #[must_use]
            pub const fn new($part: $id $(, $parts: $ids)*) -> Self {
                Self { $part $(, $parts)* }
            }
        }

        impl FromStr for $name {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                let mut path = Path::new(Self::PATTERN, text);
                let name = Self {
                    $part: path.id($collection)?,
                    $($parts: path.id($collections)?,)*
                };
                $(path.word($single)?;)?
                path.end()?;
                Ok(name)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}/{}", $collection, self.$part)?;
                $(write!(f, "/{}/{}", $collections, self.$parts)?;)*
                $(write!(f, "/{}", $single)?;)?
                Ok(())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({self})", stringify!($name))
            }
        }

        text_in_serde!($name);
    )+};
}

resource_name! {
    /// A publisher.
    DataProviderName = "dataProviders" / data_provider: ExternalId
    /// A party that asks for measurements and reads their results.
    MeasurementConsumerName = "measurementConsumers" / measurement_consumer: ExternalId
    /// A party that makes models of who a viewer is.
    ModelProviderName = "modelProviders" / model_provider: ExternalId
    /// A Duchy.
    DuchyName = "duchies" / duchy: DuchyId
    /// A measurement.
    MeasurementName =
        "measurementConsumers" / measurement_consumer: ExternalId, "measurements" / measurement: ExternalId
    /// A requisition, as its publisher sees it. This is the form that counts, also in hashes.
    RequisitionName = "dataProviders" / data_provider: ExternalId, "requisitions" / requisition: ExternalId
    /// A requisition, as a part of its measurement.
    MeasurementRequisitionName =
        "measurementConsumers" / measurement_consumer: ExternalId, "measurements" / measurement: ExternalId,
        "requisitions" / requisition: ExternalId
    /// A group of events at a publisher.
    EventGroupName = "dataProviders" / data_provider: ExternalId, "eventGroups" / event_group: ExternalId
    /// A group of events, as its measurement consumer sees it.
    MeasurementConsumerEventGroupName =
        "measurementConsumers" / measurement_consumer: ExternalId, "eventGroups" / event_group: ExternalId
    /// What the Duchies compute for one measurement.
    ComputationName = "computations" / computation: ExternalId
    /// One Duchy in a computation.
    ComputationParticipantName = "computations" / computation: ExternalId, "participants" / participant: DuchyId
    /// One publisher's data in a computation; the id is that of the requisition at the publisher.
    ComputationRequisitionName = "computations" / computation: ExternalId, "requisitions" / requisition: ExternalId
    /// What one Duchy wrote about its work on a computation.
    ComputationLogEntryName =
        "computations" / computation: ExternalId, "participants" / participant: DuchyId,
        "logEntries" / log_entry: ExternalId
    /// The stage at which one Duchy's work on a computation stands.
    ComputationStageName =
        "computations" / computation: ExternalId, "participants" / duchy: DuchyId; "computationStage"
}

impl RequisitionName {
    /// The publisher that the requisition asks.
    #[must_use]
    pub const fn parent(&self) -> DataProviderName {
        DataProviderName::new(self.data_provider)
    }
}

impl MeasurementName {
    /// The consumer that asked for the measurement.
    #[must_use]
    pub const fn parent(&self) -> MeasurementConsumerName {
        MeasurementConsumerName::new(self.measurement_consumer)
    }
}

impl ComputationParticipantName {
    /// The computation.
    #[must_use]
    pub const fn parent(&self) -> ComputationName {
        ComputationName::new(self.computation)
    }
}

impl ComputationRequisitionName {
    /// The computation.
    #[must_use]
    pub const fn parent(&self) -> ComputationName {
        ComputationName::new(self.computation)
    }
}

/// Reads a name from left to right and remembers what it should look like.
pub(super) struct Path<'a> {
    pattern: &'static str,
    whole: &'a str,
    rest: Option<&'a str>,
}

impl<'a> Path<'a> {
    pub(super) const fn new(pattern: &'static str, whole: &'a str) -> Self {
        Self { pattern, whole, rest: Some(whole) }
    }

    fn refuse(&self, reason: String) -> Error {
        Error::name(self.pattern, self.whole, reason)
    }

    fn next(&mut self) -> Option<&'a str> {
        let rest = self.rest?;
        let (segment, rest) = rest.split_once('/').map_or((rest, None), |(segment, rest)| (segment, Some(rest)));
        self.rest = rest;
        Some(segment)
    }

    /// The fixed word that comes next.
    pub(super) fn word(&mut self, expected: &str) -> Result<(), Error> {
        match self.next() {
            Some(found) if found == expected => Ok(()),
            Some(found) => {
                let found = crate::error::quote(found);
                Err(self.refuse(format!("it has {found} where {expected:?} belongs")))
            }
            None => Err(self.refuse(format!("it ends where {expected:?} belongs"))),
        }
    }

    /// The id that comes next, behind the name of its collection.
    pub(super) fn id<T: FromStr<Err = Error>>(&mut self, collection: &str) -> Result<T, Error> {
        self.word(collection)?;
        let Some(id) = self.next() else {
            return Err(self.refuse(format!("it has no id in {collection:?}")));
        };
        id.parse().map_err(|error: Error| self.refuse(error.to_string()))
    }

    /// Nothing may come after.
    pub(super) fn end(self) -> Result<(), Error> {
        match self.rest {
            None => Ok(()),
            Some(rest) => Err(self.refuse(format!("{} is too much at its end", crate::error::quote(rest)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_those_of_the_wire_contract() {
        for (ours, theirs) in [
            (DataProviderName::PATTERN, "dataProviders/{data_provider}"),
            (MeasurementConsumerName::PATTERN, "measurementConsumers/{measurement_consumer}"),
            (ModelProviderName::PATTERN, "modelProviders/{model_provider}"),
            (DuchyName::PATTERN, "duchies/{duchy}"),
            (MeasurementName::PATTERN, "measurementConsumers/{measurement_consumer}/measurements/{measurement}"),
            (RequisitionName::PATTERN, "dataProviders/{data_provider}/requisitions/{requisition}"),
            (
                MeasurementRequisitionName::PATTERN,
                "measurementConsumers/{measurement_consumer}/measurements/{measurement}/requisitions/{requisition}",
            ),
            (EventGroupName::PATTERN, "dataProviders/{data_provider}/eventGroups/{event_group}"),
            (
                MeasurementConsumerEventGroupName::PATTERN,
                "measurementConsumers/{measurement_consumer}/eventGroups/{event_group}",
            ),
            (ComputationName::PATTERN, "computations/{computation}"),
            (ComputationParticipantName::PATTERN, "computations/{computation}/participants/{participant}"),
            (ComputationRequisitionName::PATTERN, "computations/{computation}/requisitions/{requisition}"),
            (
                ComputationLogEntryName::PATTERN,
                "computations/{computation}/participants/{participant}/logEntries/{log_entry}",
            ),
            (ComputationStageName::PATTERN, "computations/{computation}/participants/{duchy}/computationStage"),
        ] {
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn names_round_trip() {
        fn check<T: FromStr<Err = Error> + fmt::Display>(text: &str) {
            match text.parse::<T>() {
                Ok(name) => assert_eq!(name.to_string(), text),
                Err(error) => panic!("{error}"),
            }
        }
        check::<DataProviderName>("dataProviders/AAAAAAAAAAE");
        check::<MeasurementName>("measurementConsumers/AAAAAAAAAAE/measurements/ASNFZ4mrze8");
        check::<RequisitionName>("dataProviders/AAAAAAAAAAE/requisitions/ASNFZ4mrze8");
        check::<MeasurementRequisitionName>(
            "measurementConsumers/AAAAAAAAAAE/measurements/ASNFZ4mrze8/requisitions/AAAAAAAAAAI",
        );
        check::<DuchyName>("duchies/worker1");
        check::<ComputationParticipantName>("computations/AAAAAAAAAAE/participants/worker1");
        check::<ComputationStageName>("computations/AAAAAAAAAAE/participants/worker1/computationStage");
        check::<ComputationLogEntryName>("computations/AAAAAAAAAAE/participants/worker1/logEntries/AAAAAAAAAAI");
    }

    #[test]
    fn other_texts_are_refused_with_the_reason() {
        for (text, reason) in [
            ("", r#"has "" where "dataProviders" belongs"#),
            ("dataProviders", r#"no id in "dataProviders""#),
            ("dataProviders/", "stands for 0 bytes"),
            ("dataProviders/AAAAAAAAAAE", r#"ends where "requisitions" belongs"#),
            ("dataProviders/AAAAAAAAAAE/requisitions/-", "11 base64url"),
            ("dataProviders/AAAAAAAAAAE/requisitions/AAAAAAAAAAI/", r#""" is too much"#),
            ("dataProviders/AAAAAAAAAAE/requisitions/AAAAAAAAAAI/x/y", r#""x/y" is too much"#),
            ("/dataProviders/AAAAAAAAAAE/requisitions/AAAAAAAAAAI", r#"has "" where "dataProviders""#),
            ("measurementConsumers/AAAAAAAAAAE", r#"has "measurementConsumers" where"#),
        ] {
            let error = text.parse::<RequisitionName>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(error.contains(RequisitionName::PATTERN), "{error}");
        }
        let stage = "computations/AAAAAAAAAAE/participants/worker1/stage".parse::<ComputationStageName>();
        assert!(stage.unwrap_err().to_string().contains("computationStage"));
    }

    #[test]
    fn the_canonical_form_of_a_requisition_names_its_publisher() {
        let name: RequisitionName = "dataProviders/AAAAAAAAAAE/requisitions/AAAAAAAAAAI".parse().unwrap();
        assert_eq!(name.parent().to_string(), "dataProviders/AAAAAAAAAAE");
    }
}
