//! Measurements, requisitions and participants: what is asked for, and the states that they go through.
//!
//! A state is an enum that is stored. What happens to it is an event, and `state.on(event)` is the next state or an
//! [`IllegalEvent`] that names both, so that nobody sets a state by hand. Terminal states refuse every event.

mod lifecycle;
mod protocol;
mod spec;

pub use lifecycle::{
    IllegalEvent, MeasurementEvent, MeasurementState, ParticipantEvent, ParticipantState, PublicMeasurementState,
    RequisitionEvent, RequisitionState,
};
pub use protocol::{
    DirectConfig, HmssConfig, HmssNoise, HmssVariant, LiquidLegionsNoise, Llv2Config, Population, Protocol,
    ProtocolConfig, ProtocolKind, Rollv2Config, TrusteeConfig, TrusteeNoise, TrusteeThresholds,
};
pub use spec::{EventGroupEntry, MeasurementKind, MeasurementSpec, MeasurementType, RequisitionSpec, Wanted};
