//! halo-crypto
