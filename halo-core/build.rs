//! Compiles `proto/` with protox when the feature `proto` asks for it.

use std::{env, error::Error, path::PathBuf};

/// Every file of the contract, relative to `proto/`.
const FILES: &[&str] = &[
    "halo/v1/transfers_service.proto",
    "halo/v1/watch_service.proto",
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
    "wfa/measurement/api/v2alpha/random_seed.proto",
    "wfa/measurement/api/v2alpha/requisition_fulfillment_service.proto",
    "wfa/measurement/api/v2alpha/requisition_spec.proto",
    "wfa/measurement/api/v2alpha/requisitions_service.proto",
    "wfa/measurement/system/v1alpha/computation_control_service.proto",
    "wfa/measurement/system/v1alpha/computation_log_entries_service.proto",
    "wfa/measurement/system/v1alpha/computation_participants_service.proto",
    "wfa/measurement/system/v1alpha/computations_service.proto",
    "wfa/measurement/system/v1alpha/requisitions_service.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    if env::var_os("CARGO_FEATURE_PROTO").is_none() {
        return Ok(());
    }
    let files = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(env::var("OUT_DIR")?);
    tonic_prost_build::configure()
        .include_file("wire_types.rs")
        .btree_map(".") // the same content gives the same bytes
        .bytes(".wfa.measurement.api.v2alpha.FulfillRequisitionRequest.BodyChunk.data")
        .bytes(".wfa.measurement.system.v1alpha.AdvanceComputationRequest.BodyChunk.partial_data")
        .client_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .server_mod_attribute(".", "#[cfg(feature = \"grpc\")]")
        .out_dir(out)
        .compile_fds(files)?;
    Ok(())
}
