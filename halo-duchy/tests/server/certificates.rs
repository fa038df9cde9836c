//! The outer door: who gets no connection at all.

use halo_core::transport::{Identity, TransportError};
use rustls::{ClientConfig, RootCertStore, crypto::ring, pki_types::ServerName};
use tokio::{io::AsyncReadExt, net::TcpStream};
use tokio_rustls::TlsConnector;

use crate::world::{BYSTANDER, ME, PUBLISHERS, Party, STRANGER, World};

fn identity((certificate, key): (String, String)) -> Identity {
    Identity::from_pem(certificate.as_bytes(), key.as_bytes()).unwrap()
}

/// A certificate of a party, changed.
fn changed(party: &Party, change: impl FnOnce(&mut rcgen::CertificateParams)) -> Identity {
    identity(party.issue(change))
}

#[tokio::test]
async fn certificates_that_do_not_count_are_refused_by_name() {
    let world = World::start(false).await;
    let publisher = world.party(PUBLISHERS[0]);
    let expired = changed(publisher, |params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let early = changed(publisher, |params| params.not_before = rcgen::date_time_ymd(4000, 1, 1));
    for (what, shown, words) in [
        ("expired", expired, "it has expired, or is not valid yet"),
        ("not valid yet", early, "it has expired, or is not valid yet"),
        ("a party that the Duchy does not know", world.party(STRANGER).identity(), "it does not know the authority"),
        ("the Duchy's own", world.party(ME).identity(), "it does not know the authority"),
    ] {
        let Err(error) = world.dial(&shown).await else { panic!("{what}: got in") };
        assert!(matches!(error, TransportError::CertificateRefused { .. }), "{what}: {error:?}");
        let text = error.to_string();
        assert!(text.contains(&format!("the server {} refused this client certificate", world.endpoint)), "{text}");
        assert!(text.contains(words), "{what}: {text}");
        assert!(!error.is_transient(), "{what}: another attempt cannot help");
    }
    for known in [PUBLISHERS[0], PUBLISHERS[1], BYSTANDER] {
        world.connect(known).await;
    }
}

#[tokio::test]
async fn without_a_certificate_nobody_gets_in() {
    let world = World::start(false).await;
    let mut roots = RootCertStore::empty();
    roots.add(world.party(ME).root().to_vec().into()).unwrap();
    let config = ClientConfig::builder_with_provider(ring::default_provider().into())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = TcpStream::connect(world.endpoint.trim_start_matches("https://")).await.unwrap();
    let connector = TlsConnector::from(std::sync::Arc::new(config));
    let mut stream = connector.connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap();
    let error = stream.read(&mut [0; 1]).await.unwrap_err();
    assert!(error.to_string().contains("CertificateRequired"), "{error}");
}
