//! Parties and their certificates.

use halo_core::{
    pb::{
        api::{self, measurement::State},
        system,
    },
    wire::{self, type_name},
};
use halo_crypto::consent::{
    tink::PrivateKeyset,
    x509::{Certificate, ECDSA_WITH_SHA256, SigningKey},
};
use prost::Message;
use tonic::Code;

use crate::{
    scene::Scene,
    world::{CONSUMER, Caller, DUCHIES, OTHER_CONSUMER, PUBLISHERS, World, assert_refused, padded, rng},
};

#[tokio::test]
async fn a_revoked_certificate_ends_what_relies_on_it() {
    let scene = Scene::new().await;
    scene.set_keys().await;
    let name = scene.world.party(DUCHIES[2]).certificate_name();
    let revoke = api::RevokeCertificateRequest {
        name: name.clone(),
        revocation_state: api::certificate::RevocationState::Revoked.into(),
    };
    let outcome = scene.caller(DUCHIES[1]).certificates().revoke_certificate(revoke.clone()).await;
    assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    let revoked = scene.caller(DUCHIES[2]).certificates().revoke_certificate(revoke).await.unwrap().into_inner();
    assert_eq!(revoked.revocation_state(), api::certificate::RevocationState::Revoked);
    let failure = scene.consumer().get(&scene.measurement.name).await.failure.unwrap();
    assert_eq!(failure.reason(), api::measurement::failure::Reason::CertificateRevoked);
    let release = api::ReleaseCertificateHoldRequest { name: name.clone() };
    let outcome = scene.caller(DUCHIES[2]).certificates().release_certificate_hold(release).await;
    assert_refused(outcome, Code::FailedPrecondition, "CERTIFICATE_REVOCATION_STATE_ILLEGAL");

    let request = scene.world.request(&scene.world.spec());
    let next = scene.consumer().measurements().create_measurement(request).await.unwrap().into_inner();
    let mut stream = scene
        .caller(DUCHIES[2])
        .computations()
        .stream_active_computations(system::StreamActiveComputationsRequest::default())
        .await
        .unwrap()
        .into_inner();
    let computation = loop {
        let computation = stream.message().await.unwrap().unwrap().computation.unwrap();
        if computation.name != scene.computation.name {
            break computation;
        }
    };
    let share = scene.world.key_share(DUCHIES[2], &computation).signed(scene.world.party(DUCHIES[2]));
    let outcome = scene.caller(DUCHIES[2]).participants().set_participant_requisition_params(share).await;
    assert_refused(outcome, Code::FailedPrecondition, "CERTIFICATE_IS_INVALID");
    assert_eq!(next.state(), State::AwaitingRequisitionFulfillment);
}

#[tokio::test]
async fn certificates_and_parties_are_read_by_those_who_may() {
    let scene = Scene::new().await;
    let get = |caller: &str, name: String| {
        let mut client = scene.caller(caller).certificates();
        async move { client.get_certificate(api::GetCertificateRequest { name }).await }
    };
    let duchy = scene.world.party(DUCHIES[0]);
    let found = get(PUBLISHERS[0], duchy.certificate_name()).await.unwrap().into_inner();
    assert_eq!(found.x509_der, duchy.certificate.der());
    get(PUBLISHERS[0], scene.world.consumer().certificate_name()).await.unwrap();
    get(DUCHIES[0], scene.world.party(PUBLISHERS[0]).certificate_name()).await.unwrap();
    for (caller, name) in [
        (PUBLISHERS[0], scene.world.party(PUBLISHERS[1]).certificate_name()),
        (DUCHIES[0], scene.world.consumer().certificate_name()),
        (CONSUMER, format!("{}/certificates/AAAAAAAAAAE", DUCHIES[0])),
    ] {
        assert_refused(get(caller, name).await, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    let request = api::GetDataProviderRequest { name: PUBLISHERS[0].into() };
    let publisher = scene.consumer().data_providers().get_data_provider(request.clone()).await.unwrap().into_inner();
    assert_eq!(publisher.certificate_der, scene.world.party(PUBLISHERS[0]).certificate.der());
    let key = publisher.public_key.unwrap();
    assert_eq!(key.message.unwrap().value, scene.world.party(PUBLISHERS[0]).public_key());
    let outcome = scene.caller(PUBLISHERS[1]).data_providers().get_data_provider(request).await;
    assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");

    // A new certificate, from the party's own authority and from another's.
    let (own, _) = scene.world.party(PUBLISHERS[0]).issue(|_| {});
    let (foreign, _) = scene.world.party(PUBLISHERS[1]).issue(|_| {});
    let create = |pem: &str| {
        let der = Certificate::from_pem(pem.as_bytes()).unwrap().der().to_vec();
        let certificate = Some(api::Certificate { x509_der: der, ..Default::default() });
        api::CreateCertificateRequest { parent: PUBLISHERS[0].into(), certificate }
    };
    let mut publisher = scene.caller(PUBLISHERS[0]).certificates();
    publisher.create_certificate(create(&own)).await.unwrap();
    let outcome = publisher.create_certificate(create(&own)).await;
    assert_refused(outcome, Code::AlreadyExists, "CERT_SUBJECT_KEY_ID_ALREADY_EXISTS");
    let outcome = publisher.create_certificate(create(&foreign)).await;
    assert_refused(outcome, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    let mut large = create(&own);
    large.certificate.as_mut().unwrap().x509_der.resize((16 << 10) + 1, 0);
    let status =
        assert_refused(publisher.create_certificate(large).await, Code::InvalidArgument, "INVALID_FIELD_VALUE");
    assert!(status.message().contains("16384 are taken"), "{}", status.message());
    let list = api::ListCertificatesRequest { parent: PUBLISHERS[0].into(), ..Default::default() };
    assert_eq!(publisher.list_certificates(list).await.unwrap().into_inner().certificates.len(), 2);
}

#[tokio::test]
async fn a_party_that_was_removed_takes_no_new_part() {
    let mut world = World::new();
    let running = world.start().await;
    let request = world.request(&world.spec());
    let consumer = world.connect(&running.endpoint, CONSUMER).await;
    consumer.measurements().create_measurement(request.clone()).await.unwrap();
    drop(consumer);
    running.stop().await;
    world.parties.remove(PUBLISHERS[1]);
    world.parties.remove(OTHER_CONSUMER);
    let running = world.start().await;
    let consumer = world.connect(&running.endpoint, CONSUMER).await;
    let outcome = consumer.measurements().create_measurement(request).await;
    assert_refused(outcome, Code::FailedPrecondition, "DATA_PROVIDER_NOT_FOUND");
    let get = api::GetDataProviderRequest { name: PUBLISHERS[1].into() };
    let outcome = consumer.data_providers().get_data_provider(get).await;
    assert_refused(outcome, Code::PermissionDenied, "PERMISSION_DENIED");
    let publisher = world.connect(&running.endpoint, PUBLISHERS[0]).await;
    let group = api::EventGroup { measurement_consumer: OTHER_CONSUMER.into(), ..Default::default() };
    let create = api::CreateEventGroupRequest {
        parent: PUBLISHERS[0].into(),
        event_group: Some(group),
        request_id: String::new(),
    };
    let outcome = publisher.event_groups().create_event_group(create).await;
    assert_refused(outcome, Code::FailedPrecondition, "MEASUREMENT_CONSUMER_NOT_FOUND");
    drop((consumer, publisher));
    running.stop().await;
}

#[tokio::test]
async fn keys_are_replaced_by_their_owner_and_outlive_a_new_display_name() {
    let mut world = World::new();
    let running = world.start().await;
    let owner = world.connect(&running.endpoint, PUBLISHERS[0]).await;
    let (pem, key) = world.party(PUBLISHERS[0]).issue(|_| {});
    let der = Certificate::from_pem(pem.as_bytes()).unwrap().der().to_vec();
    let create = api::CreateCertificateRequest {
        parent: PUBLISHERS[0].into(),
        certificate: Some(api::Certificate { x509_der: der.clone(), ..Default::default() }),
    };
    let certificate = owner.certificates().create_certificate(create).await.unwrap().into_inner().name;
    let mut fresh = api::EncryptionPublicKey {
        data: PrivateKeyset::generate_hpke(&mut rng()).public().to_bytes(),
        ..Default::default()
    };
    fresh.set_format(api::encryption_public_key::Format::TinkKeyset);
    let signing = SigningKey::from_pkcs8_pem(&key).unwrap();
    let signed = |bytes: Vec<u8>| api::SignedMessage {
        signature: signing.sign(&bytes),
        signature_algorithm_oid: ECDSA_WITH_SHA256.into(),
        message: Some(wire::pack(type_name::ENCRYPTION_PUBLIC_KEY, bytes)),
        ..Default::default()
    };
    let good = api::PublicKey {
        name: format!("{}/publicKey", PUBLISHERS[0]),
        public_key: Some(signed(fresh.encode_to_vec())),
        certificate: certificate.clone(),
    };
    let update = |caller: &Caller, key: api::PublicKey| {
        let mut client = caller.public_keys();
        async move { client.update_public_key(api::UpdatePublicKeyRequest { public_key: Some(key) }).await }
    };
    for stranger in [PUBLISHERS[1], CONSUMER, DUCHIES[0]] {
        let caller = world.connect(&running.endpoint, stranger).await;
        assert_refused(update(&caller, good.clone()).await, Code::PermissionDenied, "PERMISSION_DENIED");
    }
    let invalid = (Code::InvalidArgument, "INVALID_FIELD_VALUE");
    let foreign = world.party(PUBLISHERS[1]);
    for (key, (code, expected)) in [
        (api::PublicKey { certificate: foreign.certificate_name(), ..good.clone() }, invalid),
        // Signed with the key of another certificate.
        (api::PublicKey { certificate: world.party(PUBLISHERS[0]).certificate_name(), ..good.clone() }, invalid),
        (api::PublicKey { public_key: Some(signed(b"no key".to_vec())), ..good.clone() }, invalid),
        (api::PublicKey { public_key: Some(signed(padded(fresh.encode_to_vec(), 4096))), ..good.clone() }, invalid),
        (api::PublicKey { public_key: None, ..good.clone() }, (Code::InvalidArgument, "REQUIRED_FIELD_NOT_SET")),
    ] {
        assert_refused(update(&owner, key).await, code, expected);
    }
    update(&owner, good.clone()).await.unwrap();
    drop(owner);
    running.stop().await;

    world.parties.get_mut(PUBLISHERS[0]).unwrap().display_name = "somebody else".into();
    let running = world.start().await;
    let consumer = world.connect(&running.endpoint, CONSUMER).await;
    let get = api::GetDataProviderRequest { name: PUBLISHERS[0].into() };
    let found = consumer.data_providers().get_data_provider(get).await.unwrap().into_inner();
    assert_eq!((found.display_name.as_str(), found.certificate), ("somebody else", certificate));
    assert_eq!((found.certificate_der, found.public_key), (der, good.public_key));
    drop(consumer);
    running.stop().await;
}
