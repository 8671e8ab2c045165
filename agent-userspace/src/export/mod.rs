//! The export: what the trail holds, sent over OTLP.
//!
//! Inputs: the trail on disk, the targets of the settings, and the one of the standard `OTEL_EXPORTER_OTLP_*` variables.
//! Outputs: every entry as a log record, every session as a trace, sums of both as metrics, over gRPC or HTTP, to each.
//!
//! Each signal of each target is a reader of the trail of its own, with a cursor of its own that moves only when the
//! receiver has acknowledged: a receiver that is away, or a daemon that is killed, loses nothing, and what is refused
//! holds up no other signal and no other target. Sending is at least once, and the same each time: ids are derived, never drawn.
//!
//! Refusals: nothing is sent where no endpoint is set; nothing that is not durable yet is sent; a setting that cannot
//! be honoured stops the start. `docs/export.md` lists every field.

mod backoff;
mod body;
mod cursor;
mod exporters;
pub mod ids;
mod logs;
mod metrics;
pub mod ocsf;
mod outcome;
mod payload;
mod resource;
mod sender;
mod settings;
mod spans;
#[cfg(test)]
mod tests;
mod totals;
mod value;
mod variables;
mod worker;

pub use backoff::Backoff;
pub use cursor::CursorError;
pub use exporters::{Exporters, FlushError, Flusher, StartError, TargetStatus};
pub use resource::host_resource;
pub use sender::SenderError;
pub use settings::{
    Compression, DEFAULT_TIMEOUT, ExportSettings, MetricsInterval, NoEndpoint, Protocol, STANDARD_TARGET,
    SettingsError, Signal, SignalSettings, TargetSettings,
};
pub(crate) use value::attribute;
