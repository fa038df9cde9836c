//! The wire contract against the facts about the reference's wire: every fact is in ours, and what is ours alone has
//! numbers from 1000 up.
//!
//! `facts/*.tsv` list files, messages, fields (number, name, type, oneof), reserved numbers, enumerations, services and
//! methods.
#![cfg(feature = "proto")]
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::collections::{BTreeMap, BTreeSet};

use prost_reflect::{Cardinality, DescriptorPool, EnumDescriptor, FieldDescriptor, Kind, MessageDescriptor};

const FACTS: [&str; 2] = [include_str!("facts/api_v2alpha.tsv"), include_str!("facts/system_v1alpha.tsv")];

/// The packages that the facts are about.
const PACKAGES: [&str; 2] = ["wfa.measurement.api.v2alpha", "wfa.measurement.system.v1alpha"];

/// First number that is ours.
const OURS: u32 = 1000;

/// Enumerations that the reference does not have; fields from 1000 up use them.
const OUR_ENUMS: [&str; 3] = [
    "wfa.measurement.api.v2alpha.ProtocolConfig.NoiseCalibration",
    "wfa.measurement.api.v2alpha.ProtocolConfig.ShareShuffleVariant",
    "wfa.measurement.system.v1alpha.Computation.MpcProtocolConfig.NoiseCalibration",
];

/// One field: number → (name, type with its label, oneof).
type Fields = BTreeMap<u32, (String, String, String)>;

#[derive(Debug, Default, PartialEq)]
struct Contract {
    messages: BTreeMap<String, Fields>,
    reserved: BTreeMap<String, BTreeSet<(u32, u32)>>,
    enums: BTreeMap<String, BTreeMap<i32, String>>,
    methods: BTreeMap<String, BTreeMap<String, (String, String)>>,
}

/// What the fact tables say.
fn facts() -> Contract {
    let mut contract = Contract::default();
    let mut last = String::new();
    for line in FACTS.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty()) {
        let cells: Vec<&str> = line.trim_start().split('\t').collect();
        let cell = |position: usize| cells.get(position).copied().unwrap_or_default();
        match cell(0) {
            "file" => {}
            "message" => {
                last = cell(1).to_owned();
                contract.messages.entry(last.clone()).or_default();
            }
            "field" => {
                let oneof = cell(4).strip_prefix("oneof ").unwrap_or_default().to_owned();
                let field = (cell(2).to_owned(), cell(3).to_owned(), oneof);
                contract.messages.get_mut(&last).unwrap().insert(cell(1).parse().unwrap(), field);
            }
            "reserved" => {
                let (from, to) = cell(1).split_once('-').unwrap();
                let range = (from.parse().unwrap(), to.parse().unwrap());
                contract.reserved.entry(last.clone()).or_default().insert(range);
            }
            "enum" => {
                let values = cell(2).split(' ').map(|value| {
                    let (name, number) = value.split_once('=').unwrap();
                    (number.parse().unwrap(), name.to_owned())
                });
                contract.enums.insert(cell(1).to_owned(), values.collect());
            }
            "service" => {
                last = cell(1).to_owned();
                contract.methods.entry(last.clone()).or_default();
            }
            "rpc" => {
                let method = (cell(2).to_owned(), cell(3).to_owned());
                contract.methods.get_mut(&last).unwrap().insert(cell(1).to_owned(), method);
            }
            other => panic!("unknown fact {other}"),
        }
    }
    contract
}

/// What our files say. With `ours`, what is ours alone is left in.
fn contract(ours: bool) -> Contract {
    let files = protox::compile(
        [
            "wfa/measurement/api/v2alpha/certificates_service.proto",
            "wfa/measurement/api/v2alpha/data_providers_service.proto",
            "wfa/measurement/api/v2alpha/direct_computation.proto",
            "wfa/measurement/api/v2alpha/duchy.proto",
            "wfa/measurement/api/v2alpha/event_groups_service.proto",
            "wfa/measurement/api/v2alpha/measurement_consumers_service.proto",
            "wfa/measurement/api/v2alpha/measurement_spec.proto",
            "wfa/measurement/api/v2alpha/measurements_service.proto",
            "wfa/measurement/api/v2alpha/multi_party_computation.proto",
            "wfa/measurement/api/v2alpha/public_keys_service.proto",
            "wfa/measurement/api/v2alpha/requisition_fulfillment_service.proto",
            "wfa/measurement/api/v2alpha/requisition_spec.proto",
            "wfa/measurement/api/v2alpha/requisitions_service.proto",
            "wfa/measurement/system/v1alpha/computation_control_service.proto",
            "wfa/measurement/system/v1alpha/computation_log_entries_service.proto",
            "wfa/measurement/system/v1alpha/computation_participants_service.proto",
            "wfa/measurement/system/v1alpha/computations_service.proto",
            "wfa/measurement/system/v1alpha/requisitions_service.proto",
        ],
        [concat!(env!("CARGO_MANIFEST_DIR"), "/proto")],
    )
    .unwrap();
    let pool = DescriptorPool::from_file_descriptor_set(files).unwrap();
    let mut contract = Contract::default();
    for message in pool.all_messages().filter(|message| about(message.parent_file().package_name())) {
        if message.is_map_entry() {
            continue;
        }
        let name = message.full_name().to_owned();
        let fields = message.fields().filter(|field| ours || field.number() < OURS);
        contract.messages.insert(name.clone(), fields.map(|field| (field.number(), shape(&field))).collect());
        let reserved: BTreeSet<_> = message.reserved_ranges().map(|range| (range.start, range.end - 1)).collect();
        if !reserved.is_empty() {
            contract.reserved.insert(name, reserved);
        }
    }
    for descriptor in pool.all_enums().filter(|descriptor| about(descriptor.parent_file().package_name())) {
        if ours || !OUR_ENUMS.contains(&descriptor.full_name()) {
            contract.enums.insert(descriptor.full_name().to_owned(), values(&descriptor));
        }
    }
    for service in pool.services().filter(|service| about(service.parent_file().package_name())) {
        let methods = service.methods().map(|method| {
            let side = |streaming: bool, message: MessageDescriptor| {
                format!("{}{}", if streaming { "stream " } else { "" }, message.full_name())
            };
            let input = side(method.is_client_streaming(), method.input());
            let output = side(method.is_server_streaming(), method.output());
            (method.name().to_owned(), (input, output))
        });
        contract.methods.insert(service.full_name().to_owned(), methods.collect());
    }
    contract
}

fn about(package: &str) -> bool {
    PACKAGES.contains(&package)
}

fn values(descriptor: &EnumDescriptor) -> BTreeMap<i32, String> {
    descriptor.values().map(|value| (value.number(), value.name().to_owned())).collect()
}

/// Name, type with its label, and oneof.
fn shape(field: &FieldDescriptor) -> (String, String, String) {
    let kind = if field.is_map() {
        let Kind::Message(entry) = field.kind() else { panic!("a map of {}", field.full_name()) };
        format!("map<{},{}>", kind(&entry.map_entry_key_field()), kind(&entry.map_entry_value_field()))
    } else if field.cardinality() == Cardinality::Repeated {
        format!("repeated {}", kind(field))
    } else {
        kind(field)
    };
    let oneof = field.containing_oneof().map(|oneof| oneof.name().to_owned()).unwrap_or_default();
    (field.name().to_owned(), kind, oneof)
}

fn kind(field: &FieldDescriptor) -> String {
    match field.kind() {
        Kind::Message(message) => message.full_name().to_owned(),
        Kind::Enum(descriptor) => descriptor.full_name().to_owned(),
        scalar => format!("{scalar:?}").to_lowercase(),
    }
}

#[test]
fn every_fact_is_ours_and_below_1000_nothing_else_is() {
    let (facts, ours) = (facts(), contract(false));
    assert!(facts.messages.len() > 150 && facts.methods.len() > 10, "the tables are not empty");
    // Names first, so that a difference is readable.
    for (name, fields) in &facts.messages {
        assert_eq!(ours.messages.get(name), Some(fields), "{name}");
    }
    for (name, values) in &facts.enums {
        assert_eq!(ours.enums.get(name), Some(values), "{name}");
    }
    for (name, methods) in &facts.methods {
        assert_eq!(ours.methods.get(name), Some(methods), "{name}");
    }
    assert_eq!(ours, facts);
}

#[test]
fn what_is_ours_is_there_and_numbered_from_1000() {
    let all = contract(true);
    let ours: Vec<String> = all
        .messages
        .iter()
        .flat_map(|(name, fields)| fields.range(OURS..).map(move |(_, (field, ..))| format!("{name}.{field}")))
        .collect();
    for expected in [
        "wfa.measurement.api.v2alpha.ElGamalPublicKey.proof_of_possession",
        "wfa.measurement.api.v2alpha.Measurement.deadline",
        "wfa.measurement.api.v2alpha.FulfillRequisitionRequest.Header.body_sha256",
        "wfa.measurement.system.v1alpha.AdvanceComputationRequest.Header.offset",
    ] {
        assert!(ours.iter().any(|name| name == expected), "{expected}");
    }
    for name in OUR_ENUMS {
        assert!(all.enums.contains_key(name), "{name}");
    }
}
