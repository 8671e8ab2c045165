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
mod contexts;
mod cursor;
mod dead_letters;
mod delivery;
mod exporters;
mod files;
mod headers;
mod health;
pub mod ids;
mod logs;
mod metrics;
pub mod ocsf;
mod outcome;
mod payload;
mod place;
mod proxy;
mod resource;
mod road;
mod sender;
mod settings;
mod spans;
mod sums;
#[cfg(test)]
mod tests;
mod tls;
mod totals;
mod value;
mod variables;

pub use backoff::Backoff;
pub use cursor::CursorError;
pub use exporters::{Exporters, FlushError, Flusher, StartError, TargetStatus};
pub use files::{FileError, FileProblem, NamedFile};
pub use proxy::{NoProxy, Proxy, ProxyChoice};
pub use resource::host_resource;
pub use sender::SenderError;
pub use settings::{
    Compression, DEFAULT_TIMEOUT, ExportSettings, MetricsInterval, NoEndpoint, Protocol, STANDARD_TARGET,
    SettingsError, Signal, SignalSettings, TargetSettings,
};
pub use tls::{ClientFiles, TlsError, TlsFiles};
pub(crate) use totals::Totals;
pub(crate) use value::attribute;

/// An error with its causes: "client error (Connect)" alone tells nobody what is wrong.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Some errors repeat what their cause says.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}
