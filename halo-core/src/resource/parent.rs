//! Names that several kinds of parents have.

use std::fmt;
use std::str::FromStr;

use super::name::text_in_serde;
use super::{DataProviderName, DuchyName, ExternalId, MeasurementConsumerName, ModelProviderName};
use crate::Error;

/// Defines the parents that a kind of name may have.
macro_rules! parents {
    ($(#[$doc:meta])* $parent:ident { $($variant:ident($name:ty)),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $parent {
            $(
                #[doc = concat!("A [`", stringify!($name), "`].")]
                $variant($name),
            )+
        }

        impl fmt::Display for $parent {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant(name) => name.fmt(f),)+
                }
            }
        }

        impl FromStr for $parent {
            type Err = Error;

            /// Reads the name of any of the parents.
            fn from_str(text: &str) -> Result<Self, Error> {
                // The first word decides which parent is meant, so that the error speaks of that one.
                let collection = text.split_once('/').map_or(text, |(collection, _)| collection);
                $(
                    if <$name>::PATTERN.split_once('/').is_some_and(|(word, _)| word == collection) {
                        return text.parse().map(Self::$variant);
                    }
                )+
                let expected = concat!("the name of one of" $(, " ", stringify!($variant))+);
                Err(Error::name(expected, text, "no parent of this kind begins so"))
            }
        }

        $(
            impl From<$name> for $parent {
                fn from(name: $name) -> Self {
                    Self::$variant(name)
                }
            }
        )+

        text_in_serde!($parent);
    };
}

parents! {
    /// Whose certificate it is.
    CertificateParent {
        DataProvider(DataProviderName),
        Duchy(DuchyName),
        MeasurementConsumer(MeasurementConsumerName),
        ModelProvider(ModelProviderName),
    }
}

parents! {
    /// Whose encryption key it is.
    PublicKeyParent {
        DataProvider(DataProviderName),
        MeasurementConsumer(MeasurementConsumerName),
    }
}

/// A certificate that signs consents: `{parent}/certificates/{certificate}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CertificateName {
    /// Whose certificate it is.
    pub parent: CertificateParent,
    /// The id in `certificates`.
    pub certificate: ExternalId,
}

impl CertificateName {
    /// The forms of the name.
    pub const PATTERNS: [&'static str; 4] = [
        "dataProviders/{data_provider}/certificates/{certificate}",
        "measurementConsumers/{measurement_consumer}/certificates/{certificate}",
        "duchies/{duchy}/certificates/{certificate}",
        "modelProviders/{model_provider}/certificates/{certificate}",
    ];

    /// Puts the name together.
    #[must_use]
    pub fn new(parent: impl Into<CertificateParent>, certificate: ExternalId) -> Self {
        Self { parent: parent.into(), certificate }
    }
}

impl FromStr for CertificateName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        const FORM: &str = "{parent}/certificates/{certificate}";
        let (parent, certificate) = text
            .split_once("/certificates/")
            .ok_or_else(|| Error::name(FORM, text, r#"it has no "/certificates/" in it"#))?;
        let refuse = |error: Error| Error::name(FORM, text, error.to_string());
        Ok(Self { parent: parent.parse().map_err(refuse)?, certificate: certificate.parse().map_err(refuse)? })
    }
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/certificates/{}", self.parent, self.certificate)
    }
}

/// The encryption key of a publisher or a consumer: `{parent}/publicKey`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKeyName {
    /// Whose key it is.
    pub parent: PublicKeyParent,
}

impl PublicKeyName {
    /// The forms of the name.
    pub const PATTERNS: [&'static str; 2] =
        ["dataProviders/{data_provider}/publicKey", "measurementConsumers/{measurement_consumer}/publicKey"];

    /// Puts the name together.
    #[must_use]
    pub fn new(parent: impl Into<PublicKeyParent>) -> Self {
        Self { parent: parent.into() }
    }
}

impl FromStr for PublicKeyName {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        const FORM: &str = "{parent}/publicKey";
        let parent = text
            .strip_suffix("/publicKey")
            .ok_or_else(|| Error::name(FORM, text, r#"it does not end in "/publicKey""#))?;
        Ok(Self { parent: parent.parse().map_err(|error: Error| Error::name(FORM, text, error.to_string()))? })
    }
}

impl fmt::Display for PublicKeyName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/publicKey", self.parent)
    }
}

text_in_serde!(CertificateName, PublicKeyName);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_of_all_four_parents_round_trip() {
        for text in [
            "dataProviders/AAAAAAAAAAE/certificates/AAAAAAAAAAI",
            "duchies/worker1/certificates/AAAAAAAAAAI",
            "measurementConsumers/AAAAAAAAAAE/certificates/AAAAAAAAAAI",
            "modelProviders/AAAAAAAAAAE/certificates/AAAAAAAAAAI",
        ] {
            assert_eq!(text.parse::<CertificateName>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn other_certificate_names_are_refused() {
        for text in [
            "",
            "certificates/AAAAAAAAAAI",
            "accounts/AAAAAAAAAAE/certificates/AAAAAAAAAAI",
            "duchies/worker1/certificates/",
            "duchies/worker1/certificates/AAAAAAAAAAI/x",
            "duchies/worker1/x/certificates/AAAAAAAAAAI",
            "duchies/certificates/certificates/certificates/AAAAAAAAAAI",
            "dataProviders/worker1/certificates/AAAAAAAAAAI",
        ] {
            assert!(text.parse::<CertificateName>().is_err(), "{text}");
        }
    }

    #[test]
    fn public_keys_belong_to_publishers_and_consumers() {
        for text in ["dataProviders/AAAAAAAAAAE/publicKey", "measurementConsumers/AAAAAAAAAAE/publicKey"] {
            assert_eq!(text.parse::<PublicKeyName>().unwrap().to_string(), text);
        }
        assert!("duchies/worker1/publicKey".parse::<PublicKeyName>().is_err());
    }
}
