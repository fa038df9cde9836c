//! Hashes that all parties of a measurement must agree on.
//!
//! All of them are SHA-256 over the bytes as they were received: nothing is decoded and encoded again. Where a list or
//! several parts go in, each is preceded by its length as eight big-endian bytes, so that no two inputs collide.

use sha2::{Digest, Sha256};

use crate::resource::{DuchyId, RequisitionName};

/// Names a computation's session: what was asked for, how it is computed, and by whom.
///
/// `spec` is the serialized measurement spec that the consumer signed, `protocol_config` the serialized protocol
/// configuration that the Kingdom froze. The order of `duchies` does not matter.
#[must_use]
pub fn session_id(spec: &[u8], protocol_config: &[u8], duchies: &[DuchyId]) -> [u8; 32] {
    let mut sorted: Vec<&str> = duchies.iter().map(DuchyId::as_str).collect();
    sorted.sort_unstable();
    let mut hash = Sha256::new();
    part(&mut hash, spec);
    part(&mut hash, protocol_config);
    part(&mut hash, sorted.join("\n").as_bytes());
    hash.finalize().into()
}

/// Names the key shares of a computation: each Duchy with its serialized `ElGamalPublicKey`. The order does not matter.
///
/// A publisher encrypts under the keys it saw, and a Duchy confirms the keys it saw; both send this hash, so that a
/// Kingdom which shows them different keys is found out.
#[must_use]
pub fn key_list_hash(keys: &[(DuchyId, &[u8])]) -> [u8; 32] {
    let mut sorted: Vec<&(DuchyId, &[u8])> = keys.iter().collect();
    sorted.sort_unstable();
    let mut hash = Sha256::new();
    for (duchy, key) in sorted {
        part(&mut hash, duchy.as_str().as_bytes());
        part(&mut hash, key);
    }
    hash.finalize().into()
}

/// Names what a publisher agreed to: the measurement spec and its own encrypted requisition spec.
#[must_use]
pub fn requisition_fingerprint(spec: &[u8], encrypted_requisition_spec: &[u8]) -> [u8; 32] {
    requisition_fingerprint_from_hash(spec, &requisition_spec_hash(encrypted_requisition_spec))
}

/// [`requisition_fingerprint`] for those who know only the [`requisition_spec_hash`].
#[must_use]
pub fn requisition_fingerprint_from_hash(spec: &[u8], requisition_spec_hash: &[u8; 32]) -> [u8; 32] {
    Sha256::new().chain_update(spec).chain_update(requisition_spec_hash).finalize().into()
}

/// SHA-256 of the ciphertext of a requisition spec, which is all that a Duchy learns of it.
#[must_use]
pub fn requisition_spec_hash(encrypted_requisition_spec: &[u8]) -> [u8; 32] {
    Sha256::digest(encrypted_requisition_spec).into()
}

/// What a consumer publishes of the nonce that it gives to one publisher only.
#[must_use]
pub fn nonce_hash(nonce: u64) -> [u8; 32] {
    Sha256::digest(nonce.to_be_bytes()).into()
}

/// The Duchy that takes a requisition's data, always the same one for the same requisition; `None` without Duchies.
#[must_use]
pub fn fulfilling_duchy<'a>(requisition: &RequisitionName, duchies: &'a [DuchyId]) -> Option<&'a DuchyId> {
    let mut sorted: Vec<&DuchyId> = duchies.iter().collect();
    sorted.sort_unstable();
    let hash: [u8; 32] = Sha256::digest(requisition.to_string()).into();
    let [a, b, c, d, e, f, g, h, ..] = hash;
    let number = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let index = number.checked_rem(u64::try_from(sorted.len()).ok()?)?;
    sorted.get(usize::try_from(index).ok()?).copied()
}

/// The order in which the Duchies pass a vector on: workers by the hash of their serialized `ElGamalPublicKey` and the
/// computation's id, the aggregator last.
///
/// The keys are drawn for each computation, so honest workers come first, and last, equally often. A worker that draws many
/// keys can choose one that gives it the place it wants: what a protocol trusts one worker with it trusts every worker with.
#[must_use]
pub fn ring_order(computation: &str, keys: &[(DuchyId, &[u8])], aggregator: &DuchyId) -> Vec<DuchyId> {
    let mut order: Vec<(bool, [u8; 32], &DuchyId)> = keys
        .iter()
        .map(|(duchy, key)| {
            let hash = Sha256::new().chain_update(key).chain_update(computation).finalize();
            (duchy == aggregator, hash.into(), duchy)
        })
        .collect();
    order.sort_unstable();
    order.into_iter().map(|(_, _, duchy)| duchy.clone()).collect()
}

fn part(hash: &mut Sha256, bytes: &[u8]) {
    hash.update((bytes.len() as u64).to_be_bytes());
    hash.update(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn duchies(ids: &[&str]) -> Vec<DuchyId> {
        ids.iter().map(|id| DuchyId::new(*id).unwrap()).collect()
    }

    fn keys<'a>(keys: &[(&str, &'a [u8])]) -> Vec<(DuchyId, &'a [u8])> {
        keys.iter().map(|(id, key)| (DuchyId::new(*id).unwrap(), *key)).collect()
    }

    #[test]
    fn order_does_not_matter_where_it_is_said_so() {
        let here = session_id(b"spec", b"config", &duchies(&["worker1", "aggregator", "worker2"]));
        assert_eq!(here, session_id(b"spec", b"config", &duchies(&["worker2", "worker1", "aggregator"])));
        assert_eq!(
            key_list_hash(&keys(&[("a", b"1"), ("b", b"2")])),
            key_list_hash(&keys(&[("b", b"2"), ("a", b"1")]))
        );
    }

    #[test]
    fn moving_a_byte_between_parts_changes_the_hash() {
        let ids = duchies(&["a"]);
        assert_ne!(session_id(b"ab", b"c", &ids), session_id(b"a", b"bc", &ids));
        assert_ne!(key_list_hash(&keys(&[("ab", b"c")])), key_list_hash(&keys(&[("a", b"bc")])));
        assert_ne!(session_id(b"", b"", &duchies(&["a", "b"])), session_id(b"", b"", &duchies(&["ab"])),);
    }

    #[test]
    fn a_fingerprint_can_be_made_from_the_hash_alone() {
        let hash = requisition_spec_hash(b"ciphertext");
        assert_eq!(requisition_fingerprint(b"spec", b"ciphertext"), requisition_fingerprint_from_hash(b"spec", &hash));
    }

    #[test]
    fn a_requisition_goes_to_one_duchy_whatever_the_order() {
        let name: RequisitionName = "dataProviders/AAAAAAAAAAE/requisitions/AAAAAAAAAAI".parse().unwrap();
        let (one, other) =
            (duchies(&["worker1", "aggregator", "worker2"]), duchies(&["worker2", "worker1", "aggregator"]));
        assert_eq!(fulfilling_duchy(&name, &one), fulfilling_duchy(&name, &other));
        assert_eq!(fulfilling_duchy(&name, &[]), None);
    }

    #[test]
    fn every_duchy_gets_some_requisitions() {
        let ids = duchies(&["worker1", "worker2", "aggregator"]);
        let mut seen = std::collections::BTreeMap::new();
        for number in 1..=300 {
            let id = crate::resource::ExternalId::new(number).unwrap();
            let name = RequisitionName::new(id, id);
            *seen.entry(fulfilling_duchy(&name, &ids).unwrap().clone()).or_insert(0) += 1;
        }
        assert!(seen.len() == 3 && seen.values().all(|&count| count > 60), "{seen:?}");
    }

    #[test]
    fn the_aggregator_closes_the_ring() {
        let aggregator = DuchyId::new("aggregator").unwrap();
        let keys = keys(&[("aggregator", b"k0"), ("worker1", b"k1"), ("worker2", b"k2")]);
        let mut firsts = std::collections::BTreeSet::new();
        for computation in ["AAAAAAAAAAE", "AAAAAAAAAAI", "AAAAAAAAAAM", "AAAAAAAAAAQ", "AAAAAAAAAAU", "AAAAAAAAAAY"] {
            let ring = ring_order(computation, &keys, &aggregator);
            assert_eq!(ring.len(), 3);
            assert_eq!(ring[2], aggregator);
            firsts.insert(ring[0].clone());
        }
        assert_eq!(firsts.len(), 2, "each worker comes first in some computation");
    }

    fn hex32(text: &str) -> [u8; 32] {
        hex::decode(text).unwrap().try_into().unwrap()
    }

    // The values below were computed apart from this code, with Python's hashlib, from the formulas in the documentation
    // of each function. They are part of the contract: parties with other values do not understand each other.
    const SPEC: &[u8] = b"measurement spec";
    const GOLDEN_KEYS: [(&str, &[u8]); 3] =
        [("worker1", b"key one"), ("aggregator", b"key two"), ("worker2", b"key three")];

    #[test]
    fn golden_session_id() {
        let found = session_id(SPEC, b"protocol config", &duchies(&["worker1", "aggregator", "worker2"]));
        assert_eq!(found, hex32("653929dd50798cbdde4fab5c02747af16e6d4872eb430f77850e2680f405133e"));
    }

    #[test]
    fn golden_key_list_hash() {
        let found = key_list_hash(&keys(&GOLDEN_KEYS));
        assert_eq!(found, hex32("e3e1743179b309d9cddac093203af4ba34b4b15b00d1c069075d46c520eded47"));
    }

    #[test]
    fn golden_fingerprint_and_spec_hash() {
        let hash = requisition_spec_hash(b"ciphertext");
        assert_eq!(hash, hex32("305531dcc50ebca31cf1d5b31e9fc76ed51f66b3b6dd5a030c6539ae6532f979"));
        let fingerprint = hex32("586074dd30a6f491adb7abcce8e0cac2baacc098147fe734f6927c07415ba151");
        assert_eq!(requisition_fingerprint(SPEC, b"ciphertext"), fingerprint);
        assert_eq!(requisition_fingerprint_from_hash(SPEC, &hash), fingerprint);
    }

    #[test]
    fn golden_nonce_hash() {
        for (nonce, hash) in [
            (0x8877_6655_4433_2211, "804d562d22470fb7be7f06aa076621cb268932be33d8f9fb2844f958dbd74c17"),
            (7, "a3eb8db89fc5123ccfd49585059f292bc40a1c0d550b860f24f84efb4760fbf2"),
        ] {
            assert_eq!(nonce_hash(nonce), hex32(hash));
        }
    }

    #[test]
    fn golden_fulfilling_duchy() {
        let ids = duchies(&["worker1", "aggregator", "worker2"]);
        for (requisition, duchy) in
            [("AAAAAAAAAAI", "aggregator"), ("AAAAAAAAAAM", "worker2"), ("AAAAAAAAABE", "worker1")]
        {
            let name: RequisitionName =
                format!("dataProviders/AAAAAAAAAAE/requisitions/{requisition}").parse().unwrap();
            assert_eq!(fulfilling_duchy(&name, &ids).unwrap().as_str(), duchy);
        }
    }

    #[test]
    fn golden_ring_order() {
        let aggregator = DuchyId::new("aggregator").unwrap();
        for (computation, ring) in [
            ("AAAAAAAAAAE", ["worker1", "worker2", "aggregator"]),
            ("AAAAAAAAAAI", ["worker2", "worker1", "aggregator"]),
            ("AAAAAAAAAAM", ["worker1", "worker2", "aggregator"]),
        ] {
            assert_eq!(ring_order(computation, &keys(&GOLDEN_KEYS), &aggregator), duchies(&ring));
        }
    }
}
