//! Bad inputs: each is refused, and the culprit named.

use halo_duchy::protocol::{Description, Received, Slot};

use super::*;

fn two() -> (Parameters, Vec<Requisition>) {
    let parameters = parameters(4, 3, 2);
    let all = requisitions(&parameters, &[vec![1, 0, 1, 0], vec![0, 1, 1, 0]]);
    (parameters, all)
}

fn refused(parameters: &Parameters, requisitions: &[Requisition]) -> ProtocolError {
    duchy(parameters, 1).start(requisitions, &MemoryWorkspace).unwrap_err()
}

fn bytes(body: &Body) -> Vec<u8> {
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut body.open().unwrap(), &mut bytes).unwrap();
    bytes
}

#[test]
fn every_bad_vector_names_its_publisher() {
    let (parameters, all) = two();
    let other = |change: &dyn Fn(&mut Requisition)| {
        let mut all = all.clone();
        change(&mut all[1]);
        refused(&parameters, &all)
    };
    let edit = |one: &mut Requisition, change: &dyn Fn(&mut Vec<u8>)| {
        let mut ciphertext = bytes(&one.vector);
        change(&mut ciphertext);
        one.vector = body(ciphertext);
    };
    let of = |cells: &[u8]| requisition(&self::parameters(cells.len(), 3, 2), 1, cells);
    type Change<'a> = &'a dyn Fn(&mut Requisition);
    let cases: [(Change<'_>, &str); 11] = [
        (&|one| *one = of(&[1, 2, 3]), "it has 3 cells where 4 are due"),
        (&|one| *one = of(&[1, 2, 3, 0, 1]), "more than 4 cells"),
        (&|one| *one = of(&[1, 2, 128, 0]), "cell 2 is 128, above the protocol's cap of 127"),
        (&|one| edit(one, &|bytes| bytes.truncate(30)), "ends inside segment 0"),
        (&|one| edit(one, &|bytes| bytes.truncate(58)), "segment 0 of the ciphertext does not open"),
        (&|one| edit(one, &|bytes| bytes[45] ^= 1), "segment 0 of the ciphertext does not open"),
        (&|one| one.wrapped_key.clone_from(&all[0].wrapped_key), "under its key-encryption key"),
        (&|one| one.wrapped_key.clear(), "no encrypted keyset"),
        (&|one| one.kek = "example-kms://2".to_owned(), "not kept here"),
        (&|one| *one = Requisition { id: one.id.clone(), ..all[0].clone() }, "under its key-encryption key"),
        (
            &|one| {
                let ciphertext = bytes(&one.vector);
                let (records, sha256) = (one.vector.records(), [7; 32]);
                one.vector = Arc::new(MemoryBody::with_header(ciphertext, 1, records, sha256));
            },
            "its SHA-256 is another one",
        ),
    ];
    for (change, reason) in cases {
        let error = other(change);
        assert!(matches!(&error, ProtocolError::BadVector { .. }), "{error}");
        assert_eq!(error.requisition(), Some("requisitions/01"), "{error}");
        assert!(error.to_string().contains(reason), "{error} does not say {reason:?}");
    }
}

#[test]
fn reordered_and_missing_segments_name_their_publisher() {
    let parameters = parameters(2_500_000, 3, 2);
    let all = requisitions(&parameters, &[vec![1; 2_500_000], vec![2; 2_500_000]]);
    let ciphertext = bytes(&all[1].vector);
    let segments: Vec<&[u8]> = ciphertext.chunks(1 << 20).collect();
    let [a, b, c] = segments[..] else { panic!() };
    let other = &bytes(&all[0].vector)[1 << 20..2 << 20];
    for (segments, number) in [([a, c, b], 1), ([a, a, c], 1), ([a, b, b], 2), ([a, other, c], 1), ([a, b, &[]], 1)] {
        let mut all = all.clone();
        all[1].vector = body(segments.concat());
        let error = refused(&parameters, &all);
        assert_eq!(error.requisition(), Some("requisitions/01"), "{error}");
        assert!(error.to_string().contains(&format!("segment {number} ")), "{error}");
    }
}

#[test]
fn in_another_requisitions_place_a_vector_does_not_open() {
    let (parameters, all) = two();
    let swap = |all: &[Requisition]| {
        let [one, other] = all else { panic!() };
        vec![Requisition { id: other.id.clone(), ..one.clone() }, Requisition { id: one.id.clone(), ..other.clone() }]
    };
    assert!(refused(&parameters, &swap(&all)).requisition().is_some());
    // The reference's envelopes are bound to nothing: there it is the signed digest that tells.
    let compatible = Parameters { variant: Variant::Compatible, ..parameters.clone() };
    let all = requisitions(&compatible, &[vec![1, 0, 1, 0], vec![0, 1, 1, 0]]);
    done(duchy(&compatible, 1).start(&swap(&all), &MemoryWorkspace).unwrap());
    // Neither kind is taken for the other.
    assert!(refused(&parameters, &all).requisition().is_some());
}

#[test]
fn the_door_checks_what_can_be_seen() {
    let (parameters, all) = two();
    let duchy = duchy(&parameters, 1);
    duchy.check_requisition(&all[0]).unwrap();
    let refuse = |one: Requisition| duchy.check_requisition(&one).unwrap_err().to_string();
    let of = |cells: &[u8]| requisition(&self::parameters(cells.len(), 3, 2), 1, cells);
    assert!(refuse(of(&[1, 2, 3])).contains("has 59 bytes where 60 are due for 4 cells"));
    assert!(refuse(Requisition { id: "requisitions/77".to_owned(), ..all[0].clone() }).contains("none of the"));
    assert!(refuse(Requisition { wrapped_key: vec![1], ..all[0].clone() }).contains("no encrypted keyset"));
    let vector = Arc::new(MemoryBody::with_header(bytes(&all[0].vector), 1, 60, [0; 32]));
    assert!(
        refuse(Requisition { vector, ..all[0].clone() }).contains("requisitions/00 is not acceptable: its SHA-256")
    );
}

#[test]
fn everybody_takes_part_exactly_once() {
    let (parameters, all) = two();
    let stranger = Requisition { id: "requisitions/99".to_owned(), ..all[0].clone() };
    assert!(refused(&parameters, &[all[0].clone(), stranger]).to_string().contains("none of the computation's"));
    assert!(refused(&parameters, &[all[0].clone(), all[0].clone()]).to_string().contains("there twice"));
    let duchy = duchy(&parameters, 1);
    let Step::Wait { state, .. } = duchy.start(&all[..1], &MemoryWorkspace).unwrap() else { panic!() };
    let error = duchy.advance(&state, &all[..1], &[], &MemoryWorkspace).unwrap_err();
    assert_eq!((error.requisition(), error.to_string().contains("not arrived")), (Some("requisitions/01"), true));
    // Others than those with which it began.
    for others in [&all[1..], &[], &[all[1].clone(), all[0].clone()]] {
        let error = duchy.advance(&state, others, &[], &MemoryWorkspace).unwrap_err();
        assert!(matches!(error, ProtocolError::OtherRequisitions), "{error}");
    }
    // Nobody sends a message to a trustee.
    let slot = Slot { from: "worker1".parse().unwrap(), description: Description::AggregationInput };
    let received = Received { slot, body: body(vec![1]) };
    let error = duchy.advance(&state, &all, &[received], &MemoryWorkspace).unwrap_err();
    assert!(matches!(error, ProtocolError::UnexpectedMessage { .. }), "{error}");
    // A state of another protocol or of other parameters.
    let other = self::duchy(&Parameters { sampling_width: 0.5, ..parameters }, 1);
    let error = other.advance(&state, &all, &[], &MemoryWorkspace).unwrap_err();
    assert!(matches!(error, ProtocolError::ForeignState(_)), "{error}");
}

#[test]
fn nothing_opens_without_an_accepted_attestation() {
    let (parameters, all) = two();
    let new = |trust| {
        Duchy::new(parameters.clone(), "c".to_owned(), "aggregator".parse().unwrap(), Secret::new([1; 32]), trust)
    };
    // The trustee itself refuses a simulation that nobody has allowed.
    let error = new(Trust { allow_simulated: false, ..trust(true) }).unwrap_err();
    assert!(matches!(&error, ProtocolError::NotAttested { .. }) && error.to_string().contains("allow_simulated"));
    // So does the publishers' key service.
    let error = new(trust(false)).unwrap().start(&all, &MemoryWorkspace).unwrap_err();
    assert!(matches!(&error, ProtocolError::NotAttested { what, .. } if what.contains("requisitions/00")), "{error}");
    // Evidence is bound to the parameters: with others than those a key service expects, none opens.
    #[derive(Debug)]
    struct Expecting([u8; 32]);
    impl halo_crypto::attestation::KeyService for Expecting {
        fn release(
            &self,
            request: &halo_crypto::attestation::KeyRequest<'_>,
        ) -> Result<DataKey, halo_crypto::attestation::Refused> {
            assert_ne!(request.statement.binding, self.0);
            Err(halo_crypto::attestation::Refused::OtherStatement)
        }
    }
    let keys = Arc::new(Expecting([0; 32]));
    let error = new(Trust { keys, ..trust(true) }).unwrap().start(&all, &MemoryWorkspace).unwrap_err();
    assert!(matches!(&error, ProtocolError::NotAttested { .. }), "{error}");
}

#[test]
fn parameters_out_of_range() {
    let good = parameters(4, 3, 2);
    let cases: [(Parameters, &str); 8] = [
        (Parameters { cells: 1, ..good.clone() }, "at least 2"),
        (Parameters { maximum_frequency: MaximumFrequency::new(128).unwrap(), ..good.clone() }, "above 127"),
        (Parameters { requisitions: Vec::new(), ..good.clone() }, "no requisitions"),
        (Parameters { requisitions: vec!["a".to_owned(); 2], ..good.clone() }, "listed twice"),
        (Parameters { sampling_width: 0.0, ..good.clone() }, "width"),
        (
            Parameters {
                thresholds: Some(Thresholds { impressions_per_person: 0, ..Thresholds::new(1, 1) }),
                ..good.clone()
            },
            "from 1 to 127",
        ),
        (
            Parameters { noise: Noise::Sticky(Budget { frequency: None, ..budget(1.0, 1e-9) }), ..good.clone() },
            "frequencies need noise",
        ),
        (Parameters { noise: Noise::DiscreteGaussian(budget(1e-9, 1e-9)), ..good.clone() }, "noise"),
    ];
    for (parameters, reason) in cases {
        let error = parameters.check().unwrap_err();
        assert!(error.to_string().contains(reason), "{error} does not say {reason:?}");
    }
    let me = "aggregator".parse().unwrap();
    let sticky = Parameters { noise: Noise::Sticky(budget(1.0, 1e-9)), ..good };
    let none = Trust { noise_key: None, ..trust(true) };
    let error = Duchy::new(sticky, "c".to_owned(), me, Secret::new([1; 32]), none).unwrap_err();
    assert!(error.to_string().contains("secret"), "{error}");
}
