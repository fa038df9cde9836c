//! What a publisher makes for each protocol: where it works, the reach-only sketch, and the limits that hold for all.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use arrow_array::{ArrayRef, Int64Array, RecordBatch};
use halo_core::{
    measurement::{HmssVariant, Population, Protocol},
    pb::api::{self, EncryptedMessage, SignedMessage, requisition::duchy_entry::value::Protocol as EntryProtocol},
    privacy::{NoiseMechanism, PrivacyParams},
    wire::type_name,
};
use halo_crypto::{
    batch,
    consent::tink::PrivateKeyset,
    hash::{self, Domain},
};
use halo_edp_sdk::{
    Error,
    answer::{self, Source},
    encrypt::{INDEX_BYTES, Layout},
    progress::Unobserved,
    requisition::{Asked, Justification, OpenedRequisition, Refusal},
    spool::{Spool, Spooled},
};
use halo_sketch::{frequency_vector::VidIndexMap, liquid_legions::Params};
use parquet::arrow::ArrowWriter;
use prost::Message;
use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
use sha2::{Digest, Sha256};

use crate::{
    parties::{self, World, reach, reach_and_frequency, reach_only, share_shuffle},
    requisition::{Known, refused},
};

pub(crate) const COMPATIBLE: HmssVariant = HmssVariant::Compatible { ring_modulus: 127 };

pub(crate) fn rng(seed: u64) -> ChaCha20Rng {
    ChaCha20Rng::seed_from_u64(seed)
}

/// A directory with events and a spool.
pub(crate) struct Desk {
    directory: tempfile::TempDir,
    pub(crate) spool: Spool,
}

impl Desk {
    pub(crate) fn new(columns: &[(&str, &[i64])]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let spool = Spool::open(&directory.path().join("spool")).unwrap();
        let columns = columns.iter().map(|(name, values)| {
            let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
            (*name, values)
        });
        let batch = RecordBatch::try_from_iter(columns).unwrap();
        let file = std::fs::File::create(directory.path().join("events.parquet")).unwrap();
        let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        Self { directory, spool }
    }

    pub(crate) fn events(&self) -> PathBuf {
        self.directory.path().join("events.parquet")
    }

    /// The answer, with the bytes of its body.
    pub(crate) fn answer(&self, world: &World, opened: &OpenedRequisition) -> Result<(Spooled, Vec<u8>), Error> {
        let events = self.events();
        let source = Source { events: &events, seconds_per_impression: None };
        let work = answer::read(opened, &source, &mut Unobserved)?;
        let signer = world.publisher.signer();
        let spooled = work.spool(Some(&signer), &self.spool, &mut Unobserved, &mut rng(7))?;
        assert_eq!(self.spool.find(&opened.spool_name(), &opened.binding)?.as_ref(), Some(&spooled));
        let body = std::fs::read(&spooled.body).unwrap();
        assert_eq!(Sha256::digest(&body).as_slice(), spooled.manifest.body_sha256);
        Ok((spooled, body))
    }
}

/// What becomes of the world's requisition when the publisher allows something else.
pub(crate) fn opened_by(world: &World, alter: impl FnOnce(&mut Known)) -> Result<OpenedRequisition, Refusal> {
    let mut known = Known::of(world);
    alter(&mut known);
    known.open(world, &world.requisition())
}

pub(crate) fn opened(world: &World) -> OpenedRequisition {
    opened_by(world, |_| ()).unwrap()
}

/// What becomes of it when the Kingdom alters it.
pub(crate) fn handed_out_otherwise(
    world: &World,
    alter: impl FnOnce(&mut api::Requisition),
) -> Result<OpenedRequisition, Refusal> {
    let mut requisition = world.requisition();
    alter(&mut requisition);
    Known::of(world).open(world, &requisition)
}

/// What the publisher signed and encrypted.
pub(crate) fn opened_message(
    world: &World,
    encrypted: &EncryptedMessage,
    keyset: &PrivateKeyset,
    name: &str,
) -> Vec<u8> {
    assert!(encrypted.type_url.ends_with(type_name::SIGNED_MESSAGE));
    let plaintext = keyset.decrypt(&encrypted.ciphertext, b"").unwrap();
    let signed = SignedMessage::decode(plaintext.expose().as_slice()).unwrap();
    let message = signed.message.unwrap();
    assert!(message.type_url.ends_with(name), "{}", message.type_url);
    let certificate = &world.publisher.certificate;
    certificate.verify_signature(&message.value, &signed.signature_algorithm_oid, &signed.signature).unwrap();
    message.value
}

/// The vector in the clear.
pub(crate) fn plain(vids: &[i64], population: Population, cap: u8) -> Vec<u8> {
    let map = VidIndexMap::new(population.vids()).unwrap();
    let mut cells = vec![0; map.size()];
    for vid in vids {
        let cell: &mut u8 = &mut cells[map.index(*vid as u64).unwrap()];
        *cell = (*cell + 1).min(cap);
    }
    cells
}

#[test]
fn a_reach_only_body_holds_indexes_and_noise() {
    let world = World::of(reach(1.0, 1e-6), reach_only());
    let opened = opened(&world);
    let Asked::Sketch(task) = &opened.asked else { panic!("{opened:?}") };
    assert_eq!((task.layout, task.params.size()), (Layout::IndexOnly, 100_000));
    let vids = [1, 1, 2, 30, 31, 32];
    let (spooled, body) = Desk::new(&[("vid", &vids)]).answer(&world, &opened).unwrap();
    assert_eq!(body.len() as u64, spooled.manifest.record_count * INDEX_BYTES as u64);
    assert!(spooled.manifest.attachment.is_empty());

    let mut ciphertexts = batch::decode_ciphertexts(&body).unwrap();
    let secrets: Vec<_> = world.secrets.values().collect();
    let (last, first) = secrets.split_last().unwrap();
    first.iter().for_each(|secret| batch::peel(secret, &mut ciphertexts));
    let mut found: BTreeMap<[u8; 32], u64> = BTreeMap::new();
    for point in batch::encode_points(&batch::open(last, &ciphertexts)) {
        *found.entry(*point.as_bytes()).or_default() += 1;
    }
    let of = |domain, text: &str| *hash::hash_to_group(domain, text.as_bytes()).encode().as_bytes();
    let noise = found.remove(&of(Domain::NoiseId, "publisher_noise_register_id")).unwrap();
    let params = Params::new(12.0, 100_000, 1).unwrap();
    let expected: BTreeMap<[u8; 32], u64> =
        [1, 2, 30, 31, 32].map(|vid| (of(Domain::Index, &params.index(vid).to_string()), 1)).into();
    assert_eq!(found, expected, "each index once, whoever shares it");
    assert_eq!(spooled.manifest.record_count, noise + 5);
}

#[test]
fn reach_only_has_entries_of_its_own_and_no_frequencies() {
    let world = World::of(reach(1.0, 1e-6), reach_only());
    let outcome = handed_out_otherwise(&world, |requisition| {
        let value = requisition.duchies[0].value.as_mut().unwrap();
        let Some(EntryProtocol::ReachOnlyLiquidLegionsV2(key)) = value.protocol.take() else { panic!("{value:?}") };
        value.protocol = Some(EntryProtocol::LiquidLegionsV2(key));
    });
    refused(outcome, Justification::SpecInvalid, "duchy aggregator: has no key for reach-only Liquid Legions v2");
    let world = World::of(reach_and_frequency(5), reach_only());
    refused(opened_by(&world, |_| ()), Justification::SpecInvalid, "REACH for this protocol");
}

#[test]
fn limits_of_the_publisher_hold_for_every_protocol() {
    let declined = Justification::Declined;
    let quiet = |mut protocol| {
        match &mut protocol {
            Protocol::Hmss(hmss) => hmss.noise = None,
            Protocol::Rollv2(rollv2) => rollv2.noise = None,
            Protocol::Direct(direct) => direct.noise = vec![None],
            other => panic!("{other:?}"),
        }
        protocol
    };
    let gaussian = [Some(NoiseMechanism::DiscreteGaussian)];
    let protocols = || [reach_only(), share_shuffle(COMPATIBLE, "0..19"), parties::direct(&gaussian)];
    for protocol in protocols() {
        let kind = protocol.kind();
        let world = World::of(reach(1.0, 1e-6), protocol.clone());
        assert!(opened_by(&world, |_| ()).is_ok(), "{kind}");
        let outcome = opened_by(&world, |known| known.trust.protocols.retain(|one| *one != kind));
        refused(outcome, declined, &format!("protocol {kind} is none of those"));
        let outcome =
            opened_by(&world, |known| known.trust.maximum_result = Some(PrivacyParams::new(0.5, 1e-6).unwrap()));
        refused(outcome, declined, "reach has epsilon 1; this publisher allows 0.5 (maximum_result_epsilon)");
        let outcome =
            opened_by(&world, |known| known.trust.maximum_result = Some(PrivacyParams::new(1.0, 1e-9).unwrap()));
        refused(outcome, declined, "maximum_result_delta");

        let world = World::of(reach(1.0, 1e-6), quiet(protocol));
        refused(opened_by(&world, |_| ()), declined, "allow_no_noise");
        let strict = |known: &mut Known| {
            known.trust.allow_no_noise = true;
            known.trust.maximum_result = Some(PrivacyParams::new(0.5, 1e-9).unwrap());
        };
        assert!(opened_by(&world, strict).is_ok(), "without noise ε and δ say nothing");
    }
}
