//! Words, states and the wire contract of Halo.
#![forbid(unsafe_code)]

pub mod clock;
mod error;
#[cfg(unix)]
pub mod lock;
pub mod measurement;
pub mod privacy;
pub mod resource;
pub mod session;
#[cfg(feature = "transport")]
pub mod transport;
#[cfg(feature = "proto")]
pub mod wire;

pub use error::Error;

#[cfg(feature = "proto")]
mod generated {
    #![allow(missing_docs, clippy::all, clippy::clone_on_ref_ptr, unreachable_pub, unused_qualifications, rustdoc::all)]
    include!(concat!(env!("OUT_DIR"), "/wire_types.rs"));
}

/// Generated messages (and, under feature `grpc`, clients and servers) of the wire contract.
#[cfg(feature = "proto")]
pub mod pb {
    pub use crate::generated::google::r#type;
    pub use crate::generated::halo::v1 as halo;
    pub use crate::generated::wfa::measurement::api::v2alpha as api;
    pub use crate::generated::wfa::measurement::system::v1alpha as system;
}
