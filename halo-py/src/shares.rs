//! A publisher's vector as what it sends, and the seed as the other worker opens it.

use std::sync::Arc;

use halo_core::privacy::MaximumFrequency;
use halo_crypto::consent::tink::{PrivateKeyset, PublicKeyset};
use halo_crypto::share::{Modulus, Seed};
use halo_duchy::protocol::hmss::{OpenSeed, Requisition};
use halo_edp_sdk::progress::Unobserved;
use halo_edp_sdk::share::{self, Encoding, Sharing};
use rand_core::CryptoRng;

use crate::error::Error;
use crate::simulate::body;

/// The smallest of the usual moduli that F·S + 2 numbers fit into.
pub(crate) fn default_modulus(maximum_frequency: MaximumFrequency, publishers: usize) -> Result<u32, Error> {
    let needed = maximum_frequency.get() as usize * publishers + 2;
    let usual: &[u32] = if maximum_frequency.counts_frequency() { &[127, 251, 256] } else { &[127, 251] };
    match usual.iter().find(|modulus| **modulus as usize >= needed) {
        Some(modulus) => Ok(*modulus),
        None => Err(Error::Parameter(format!(
            "max_frequency {maximum_frequency} and {publishers} publishers need a modulus of {needed}, above what a byte \
             holds; lower max_frequency or ask fewer publishers at once"
        ))),
    }
}

/// Shares a vector; the seed is encrypted for whoever has the keyset, bound to the requisition's id.
pub(crate) fn requisition(
    id: String,
    cells: &[u8],
    modulus: Modulus,
    to: &PublicKeyset,
    rng: &mut impl CryptoRng,
) -> Result<Requisition, Error> {
    let sharing = Sharing { modulus, encoding: Encoding::Bytes };
    let mut bytes = Vec::with_capacity(cells.len());
    let seed = share::share(cells.to_vec(), &sharing, &mut bytes, &mut Unobserved, rng)?;
    let encrypted_seed =
        to.encrypt(seed.expose(), id.as_bytes(), rng).map_err(|error| Error::Parameter(error.to_string()))?;
    Ok(Requisition { id, share: body(bytes, 1)?, encrypted_seed })
}

/// Opens what [`requisition`] has encrypted.
pub(crate) fn opener(keyset: Arc<PrivateKeyset>) -> Arc<OpenSeed> {
    Arc::new(move |id: &str, encrypted: &[u8]| {
        let bytes = keyset.decrypt(encrypted, id.as_bytes()).map_err(|error| error.to_string())?;
        Seed::from_slice(bytes.expose()).map_err(|error| error.to_string())
    })
}
