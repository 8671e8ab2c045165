//! What is exported where, and how: from the settings and from the standard variables, once both are parsed.

use std::fmt;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderMap;

use super::backoff::Backoff;
use super::files::NamedFile;
use super::ocsf::OcsfSettings;
use super::proxy::ProxyChoice;
use super::tls::TlsFiles;

/// The target that `[export]` and the `OTEL_EXPORTER_OTLP_*` variables describe. No other may have this name.
pub const STANDARD_TARGET: &str = "otlp";

/// What OpenTelemetry sets where nothing is said.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
const DEFAULT_METRICS_INTERVAL: Duration = Duration::from_secs(60);

/// A kind of telemetry, sent on its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Log records: the entries.
    Logs,
    /// Spans: sessions and processes.
    Traces,
    /// Sums over the entries.
    Metrics,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Logs, Self::Traces, Self::Metrics];

    /// The signal as OTLP's paths have it, and `status`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Logs => "logs",
            Self::Traces => "traces",
            Self::Metrics => "metrics",
        }
    }

    /// Where it is sent to below a receiver's common URL: over HTTP each signal has a path of its own.
    ///
    /// # Errors
    /// It is no URL of a receiver.
    pub fn endpoint(self, common: &str, protocol: Protocol) -> Result<Uri, NoEndpoint> {
        match protocol {
            Protocol::HttpProtobuf => parse_endpoint(&format!("{}/v1/{}", common.trim_end_matches('/'), self.as_str())),
            Protocol::Grpc => parse_endpoint(common),
        }
    }
}

/// A text is no URL of a receiver. It is not shown: there may be a login in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoEndpoint {
    /// It is no URL, or one of another kind.
    #[error("is no URL such as http://127.0.0.1:4318")]
    NoUrl,
    /// It has a login.
    #[error("has a login in it, which would not be sent: put an `authorization` header into a file of headers")]
    Login,
}

/// Reads a URL that is used as it is.
pub(super) fn parse_endpoint(url: &str) -> Result<Uri, NoEndpoint> {
    let uri: Uri = url.parse().map_err(|_| NoEndpoint::NoUrl)?;
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(NoEndpoint::Login);
    }
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some_and(|host| !host.is_empty()) => Ok(uri),
        Some(_) | None => Err(NoEndpoint::NoUrl),
    }
}

/// How requests travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// gRPC over HTTP/2.
    Grpc,
    /// Protobuf over HTTP/1.1.
    HttpProtobuf,
}

impl Protocol {
    /// All of them, by the names that OpenTelemetry gives them.
    pub const ALL: [(&'static str, Self); 2] = [("grpc", Self::Grpc), ("http/protobuf", Self::HttpProtobuf)];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::HttpProtobuf => "http/protobuf",
        }
    }
}

/// Whether requests are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// They are not.
    None,
    /// With gzip.
    Gzip,
    /// With Zstandard: less work for the same size, where the receiver takes it.
    Zstd,
}

impl Compression {
    /// All of them, by name.
    pub const ALL: [(&'static str, Self); 3] = [("none", Self::None), ("gzip", Self::Gzip), ("zstd", Self::Zstd)];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Where one signal goes, and how.
#[derive(Clone, PartialEq, Eq)]
pub struct SignalSettings {
    /// Which signal.
    pub signal: Signal,
    /// The whole URL; for gRPC, of the server.
    pub endpoint: Uri,
    /// How.
    pub protocol: Protocol,
    /// Sent with every request; often secret.
    pub headers: HeaderMap,
    /// The same from a file, which is read again when it changes; they come before the others.
    pub headers_file: Option<NamedFile>,
    /// How long a request may take.
    pub timeout: Duration,
    /// Whether it is compressed.
    pub compression: Compression,
    /// The files of certificates.
    pub tls: TlsFiles,
    /// The proxy on the way.
    pub proxy: ProxyChoice,
}

impl SignalSettings {
    /// The URL as people are shown it: without a query, which may hold a key.
    pub fn shown_endpoint(&self) -> String {
        self.endpoint.to_string().split('?').next().unwrap_or_default().to_owned()
    }

    /// Whether the receiver is reached over TLS.
    pub fn is_secure(&self) -> bool {
        self.endpoint.scheme_str() == Some("https")
    }
}

impl fmt::Debug for SignalSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().collect();
        f.debug_struct("SignalSettings")
            .field("signal", &self.signal)
            .field("endpoint", &self.shown_endpoint())
            .field("protocol", &self.protocol)
            .field("headers", &names)
            .field("timeout", &self.timeout)
            .field("headers_file", &self.headers_file)
            .field("compression", &self.compression)
            .field("tls", &self.tls)
            .field("proxy", &self.proxy)
            .finish()
    }
}

/// A receiver, by whatever name, and what it gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSettings {
    /// What `status` calls it, and its cursors.
    pub name: String,
    /// The signals that it gets.
    pub signals: Vec<SignalSettings>,
    /// How long to wait before trying again.
    pub backoff: Backoff,
}

/// What is exported. Without a target, nothing is.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ExportSettings {
    /// Where to.
    pub targets: Vec<TargetSettings>,
    /// How often metrics are sent.
    pub metrics_interval: MetricsInterval,
    /// The file of OCSF events, where there is to be one.
    pub ocsf: Option<OcsfSettings>,
    /// Whether sessions join the trace that their agent says it is part of.
    pub join_traces: bool,
}

/// How often metrics are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsInterval(pub Duration);

impl Default for MetricsInterval {
    fn default() -> Self {
        Self(DEFAULT_METRICS_INTERVAL)
    }
}

/// A setting cannot be honoured. The values of headers are never repeated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {problem}")]
pub struct SettingsError {
    /// The variable, or the key with its file and line.
    pub place: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}
