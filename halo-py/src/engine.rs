//! The classes of `halo_cmm.engine`: one party and one step at a time, everything that is stored or sent as bytes.

mod keys;
mod message;
mod ring;
mod shuffle;
mod trustee;

pub(crate) use keys::{HybridKey, KeyShare, Participant, encrypt, encrypt_reach_only};
pub(crate) use message::{Message, Step};
pub(crate) use ring::{LiquidLegionsV2, ReachOnlyLiquidLegionsV2};
pub(crate) use shuffle::{ShareShuffle, Upload, share};
pub(crate) use trustee::{EnvelopeKey, SealedVector, Trustee, seal};
