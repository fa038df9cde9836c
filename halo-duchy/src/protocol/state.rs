//! What a Duchy keeps between two steps, and its codec.

use std::fmt;

use super::{Description, DuchyId, ProtocolError};

/// Version of the codec; the first byte of every stored state.
const CODEC_VERSION: u8 = 1;
/// More numbers than any step carries.
const MAX_CARRIED: usize = 16;

/// What a Duchy keeps between two steps: where it stands, and the counts and digests that the next step checks
/// against. It holds no key, no seed and no record.
#[derive(Clone, PartialEq, Eq)]
pub struct State {
    pub(crate) protocol: u8,
    pub(crate) engine_version: u16,
    pub(crate) computation: String,
    pub(crate) duchy: DuchyId,
    /// Digest of the parameters and of all participants with their keys.
    pub(crate) context: [u8; 32],
    /// Digest of what the steps before have consumed.
    pub(crate) history: [u8; 32],
    /// What is awaited.
    pub(crate) awaits: Description,
    /// Counts that the next step checks against; what they are is the protocol's matter.
    pub(crate) carried: Vec<u64>,
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State")
            .field("computation", &self.computation)
            .field("duchy", &self.duchy)
            .field("awaits", &self.awaits)
            .finish_non_exhaustive()
    }
}

impl State {
    /// Which messages the next step needs.
    pub fn awaits(&self) -> Description {
        self.awaits
    }

    /// The stored form: a version byte, then fixed-width big-endian numbers and texts with their lengths.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![CODEC_VERSION, self.protocol];
        bytes.extend_from_slice(&self.engine_version.to_be_bytes());
        for text in [self.computation.as_str(), self.duchy.as_str()] {
            bytes.extend_from_slice(&(text.len() as u32).to_be_bytes());
            bytes.extend_from_slice(text.as_bytes());
        }
        bytes.extend_from_slice(&self.context);
        bytes.extend_from_slice(&self.history);
        bytes.push(self.awaits.number());
        bytes.push(self.carried.len() as u8);
        for number in &self.carried {
            bytes.extend_from_slice(&number.to_be_bytes());
        }
        bytes
    }

    /// Reads the stored form.
    ///
    /// # Errors
    /// [`ProtocolError::MalformedState`] when the version is unknown, or something is missing, left over or out of
    /// range.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ProtocolError> {
        let mut reader = Reader(bytes);
        let [version] = reader.array()?;
        if version != CODEC_VERSION {
            return Err(malformed(format!("version {version} is not known, only {CODEC_VERSION}")));
        }
        let [protocol] = reader.array()?;
        let engine_version = u16::from_be_bytes(reader.array()?);
        let computation = reader.text()?.to_owned();
        let duchy = reader.text()?.parse().map_err(|error: halo_core::Error| malformed(error.to_string()))?;
        let context = reader.array()?;
        let history = reader.array()?;
        let [awaits] = reader.array()?;
        let awaits = Description::from_number(awaits)
            .ok_or_else(|| malformed(format!("there is no message description {awaits}")))?;
        let [count] = reader.array()?;
        if usize::from(count) > MAX_CARRIED {
            return Err(malformed(format!("{count} numbers are more than any step carries")));
        }
        let carried = (0..count).map(|_| reader.array().map(u64::from_be_bytes)).collect::<Result<_, _>>()?;
        if !reader.0.is_empty() {
            return Err(malformed(format!("{} bytes are left over", reader.0.len())));
        }
        Ok(Self { protocol, engine_version, computation, duchy, context, history, awaits, carried })
    }
}

fn malformed(reason: String) -> ProtocolError {
    ProtocolError::MalformedState(reason)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], ProtocolError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| malformed("it is too short".to_owned()))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ProtocolError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or_else(|| malformed("it is too short".to_owned()))?;
        self.0 = rest;
        Ok(*taken)
    }

    fn text(&mut self) -> Result<&'a str, ProtocolError> {
        let length = u32::from_be_bytes(self.array()?);
        let bytes = self.take(usize::try_from(length).unwrap_or(usize::MAX))?;
        std::str::from_utf8(bytes).map_err(|_| malformed("a text is not UTF-8".to_owned()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    prop_compose! {
        /// Any state.
        pub(crate) fn arb_state()(
            engine_version in any::<u16>(),
            computation in "[A-Za-z0-9_-]{11}",
            duchy in "[a-z][a-z0-9-]{0,20}",
            context in any::<[u8; 32]>(),
            history in any::<[u8; 32]>(),
            awaits in 1u8..=8,
            carried in prop::collection::vec(any::<u64>(), 0..4),
        ) -> State {
            State {
                protocol: 1, engine_version, computation, duchy: duchy.parse().unwrap(), context, history,
                awaits: Description::from_number(awaits).unwrap(), carried,
            }
        }
    }

    proptest! {
        #[test]
        fn codec_round_trip(state in arb_state()) {
            let bytes = state.to_bytes();
            prop_assert_eq!(&State::from_bytes(&bytes).unwrap(), &state);
            for length in 0..bytes.len() {
                prop_assert!(State::from_bytes(&bytes[..length]).is_err());
            }
            let mut longer = bytes;
            longer.push(0);
            prop_assert!(State::from_bytes(&longer).unwrap_err().to_string().contains("left over"));
        }

        #[test]
        fn any_bytes_do_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = State::from_bytes(&bytes);
        }
    }

    fn golden() -> State {
        State {
            protocol: 1,
            engine_version: 1,
            computation: "AAAAAAAAAHs".to_owned(),
            duchy: "worker1".parse().unwrap(),
            context: [0xc0; 32],
            history: [0x41; 32],
            awaits: Description::ExecutionPhaseTwoInput,
            carried: vec![1, 0x0102_0304_0506_0708],
        }
    }

    #[test]
    fn golden_file_still_decodes() {
        let file = include_str!("../../tests/golden/state-v1.hex");
        let bytes = hex::decode(file.trim()).unwrap();
        assert_eq!(State::from_bytes(&bytes).unwrap(), golden());
        assert_eq!(golden().to_bytes(), bytes);
    }

    #[test]
    fn unknown_versions_and_silly_numbers_are_refused() {
        let mut bytes = golden().to_bytes();
        bytes[0] = 2;
        assert!(State::from_bytes(&bytes).unwrap_err().to_string().contains("version 2"));
        let mut bytes = golden().to_bytes();
        let awaits = bytes.len() - 18;
        bytes[awaits] = 9;
        assert!(State::from_bytes(&bytes).unwrap_err().to_string().contains("description 9"));
    }

    #[test]
    fn debug_shows_no_counts() {
        let shown = format!("{:?}", golden());
        assert!(shown.contains("worker1") && !shown.contains("carried") && !shown.contains("65, 65"));
    }
}
