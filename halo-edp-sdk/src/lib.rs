//! halo-edp-sdk
