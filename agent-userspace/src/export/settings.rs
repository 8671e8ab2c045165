//! What the standard `OTEL_EXPORTER_OTLP_*` variables ask for. Parsed once; what cannot be honoured is refused.

use std::fmt;
use std::time::Duration;

use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::backoff::Backoff;

/// What OpenTelemetry sets where nothing is said.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);
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

    fn variable(self, what: &str) -> String {
        format!("OTEL_EXPORTER_OTLP_{}_{what}", self.as_str().to_ascii_uppercase())
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

/// Whether requests are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// They are not.
    None,
    /// With gzip.
    Gzip,
}

/// Where one signal goes, and how.
#[derive(Clone, PartialEq)]
pub struct SignalSettings {
    /// Which signal.
    pub signal: Signal,
    /// The whole URL; for gRPC, of the server.
    pub endpoint: Uri,
    /// How.
    pub protocol: Protocol,
    /// Sent with every request; often secret.
    pub headers: HeaderMap,
    /// How long a request may take.
    pub timeout: Duration,
    /// Whether it is compressed.
    pub compression: Compression,
}

impl fmt::Debug for SignalSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.keys().collect();
        f.debug_struct("SignalSettings")
            .field("signal", &self.signal)
            .field("endpoint", &self.endpoint)
            .field("protocol", &self.protocol)
            .field("headers", &names)
            .field("timeout", &self.timeout)
            .field("compression", &self.compression)
            .finish()
    }
}

/// What is exported. Without a signal, nothing is.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct ExportSettings {
    /// The signals that have an endpoint.
    pub signals: Vec<SignalSettings>,
    /// How often metrics are sent.
    pub metrics_interval: MetricsInterval,
    /// How long to wait before trying again.
    pub backoff: Backoff,
}

/// How often metrics are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsInterval(pub Duration);

impl Default for MetricsInterval {
    fn default() -> Self {
        Self(DEFAULT_METRICS_INTERVAL)
    }
}

/// A variable cannot be honoured. The values of headers are never repeated.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable}: {problem}")]
pub struct SettingsError {
    /// The variable.
    pub variable: String,
    /// What is wrong, and what would be right.
    pub problem: String,
}

impl ExportSettings {
    /// Reads the process's environment.
    pub fn from_env() -> Result<Self, SettingsError> {
        Self::from_variables(|name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned()))
    }

    /// Reads variables as `lookup` gives them. As OpenTelemetry has it, an empty one is unset.
    pub fn from_variables(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, SettingsError> {
        let variables = Variables { lookup: &|name| lookup(name).filter(|value| !value.trim().is_empty()) };
        let mut settings = Self::default();
        for signal in Signal::ALL {
            settings.signals.extend(variables.signal(signal)?);
        }
        if settings.signals.is_empty() {
            return Ok(settings);
        }
        variables.refuse_unsupported()?;
        if let Some(interval) = variables.milliseconds("OTEL_METRIC_EXPORT_INTERVAL")? {
            settings.metrics_interval = MetricsInterval(interval);
        }
        Ok(settings)
    }
}

struct Variables<'a> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
}

impl Variables<'_> {
    /// The signal's own variable, else the one for all; with the name it was found under.
    fn get(&self, signal: Signal, what: &str) -> Option<(String, String)> {
        [signal.variable(what), format!("OTEL_EXPORTER_OTLP_{what}")]
            .into_iter()
            .find_map(|name| (self.lookup)(&name).map(|value| (name, value.trim().to_owned())))
    }

    fn signal(&self, signal: Signal) -> Result<Option<SignalSettings>, SettingsError> {
        if !self.enabled(signal)? {
            return Ok(None);
        }
        let protocol = match self.get(signal, "PROTOCOL") {
            None => Protocol::HttpProtobuf,
            Some((variable, value)) => match value.as_str() {
                "grpc" => Protocol::Grpc,
                "http/protobuf" => Protocol::HttpProtobuf,
                _ => return Err(bad(variable, format!("'{value}' is not known: use 'grpc' or 'http/protobuf'"))),
            },
        };
        let Some(endpoint) = self.endpoint(signal, protocol)? else { return Ok(None) };
        let compression = match self.get(signal, "COMPRESSION") {
            None => Compression::None,
            Some((variable, value)) => match value.as_str() {
                "none" => Compression::None,
                "gzip" => Compression::Gzip,
                _ => return Err(bad(variable, format!("'{value}' is not known: use 'none' or 'gzip'"))),
            },
        };
        let timeout = match self.get(signal, "TIMEOUT") {
            None => DEFAULT_TIMEOUT,
            Some((variable, value)) => milliseconds(variable, &value)?,
        };
        let headers = match self.get(signal, "HEADERS") {
            None => HeaderMap::new(),
            Some((variable, value)) => headers(&variable, &value)?,
        };
        Ok(Some(SignalSettings { signal, endpoint, protocol, headers, timeout, compression }))
    }

    /// `OTEL_LOGS_EXPORTER=none` and its like turn a signal off.
    fn enabled(&self, signal: Signal) -> Result<bool, SettingsError> {
        let variable = format!("OTEL_{}_EXPORTER", signal.as_str().to_ascii_uppercase());
        match (self.lookup)(&variable).as_deref().map(str::trim) {
            None | Some("otlp") => Ok(true),
            Some("none") => Ok(false),
            Some(value) => Err(bad(variable, format!("'{value}' is not known: use 'otlp' or 'none'"))),
        }
    }

    fn endpoint(&self, signal: Signal, protocol: Protocol) -> Result<Option<Uri>, SettingsError> {
        let Some((variable, value)) = self.get(signal, "ENDPOINT") else { return Ok(None) };
        let own = variable == signal.variable("ENDPOINT");
        let url = match protocol {
            Protocol::HttpProtobuf if !own => format!("{}/v1/{}", value.trim_end_matches('/'), signal.as_str()),
            Protocol::HttpProtobuf | Protocol::Grpc => value.clone(),
        };
        let problem = || bad(variable.clone(), format!("'{value}' is no URL such as http://127.0.0.1:4318"));
        let uri: Uri = url.parse().map_err(|_| problem())?;
        match uri.scheme_str() {
            Some("http" | "https") if uri.host().is_some() => Ok(Some(uri)),
            Some(_) | None => Err(problem()),
        }
    }

    fn milliseconds(&self, variable: &str) -> Result<Option<Duration>, SettingsError> {
        (self.lookup)(variable).map(|value| milliseconds(variable.to_owned(), value.trim())).transpose()
    }

    /// Passing over what would change whom we trust, or what the numbers mean, would be worse than stopping.
    fn refuse_unsupported(&self) -> Result<(), SettingsError> {
        for what in ["CERTIFICATE", "CLIENT_KEY", "CLIENT_CERTIFICATE"] {
            let found = Signal::ALL.into_iter().find_map(|signal| self.get(signal, what));
            if let Some((variable, _)) = found {
                let remedy =
                    "is not supported: certificates are checked against the host's store; add the authority there";
                return Err(bad(variable, remedy.to_owned()));
            }
        }
        let variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        match (self.lookup)(variable).as_deref().map(|value| value.trim().to_ascii_lowercase()).as_deref() {
            None | Some("cumulative") => Ok(()),
            Some(value) => {
                Err(bad(variable.to_owned(), format!("'{value}' is not supported: totals are sent, so 'cumulative'")))
            }
        }
    }
}

fn bad(variable: String, problem: String) -> SettingsError {
    SettingsError { variable, problem }
}

fn milliseconds(variable: String, value: &str) -> Result<Duration, SettingsError> {
    match value.parse::<u64>() {
        Ok(milliseconds) if milliseconds > 0 => Ok(Duration::from_millis(milliseconds)),
        Ok(_) | Err(_) => Err(bad(variable, format!("'{value}' is no number of milliseconds above 0"))),
    }
}

/// `name=value,name=value`, values percent-encoded.
fn headers(variable: &str, list: &str) -> Result<HeaderMap, SettingsError> {
    let mut headers = HeaderMap::new();
    for (index, item) in list.split(',').map(str::trim).filter(|item| !item.is_empty()).enumerate() {
        let number = index + 1;
        let problem = |what: &str| bad(variable.to_owned(), format!("header {number} of the list {what}"));
        let (name, value) = item.split_once('=').ok_or_else(|| problem("is not of the form name=value"))?;
        let name: HeaderName = name.trim().parse().map_err(|_| problem("has no valid name"))?;
        let value = percent_decoded(value.trim()).ok_or_else(|| problem("is not percent-encoded correctly"))?;
        let mut value = HeaderValue::from_bytes(&value).map_err(|_| problem("has a value that no header may have"))?;
        if value.to_str().is_err() {
            return Err(problem("has a value that is not ASCII"));
        }
        value.set_sensitive(true);
        headers.append(name, value);
    }
    Ok(headers)
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?].map(char::from);
        let value = digits[0].to_digit(16)? * 16 + digits[1].to_digit(16)?;
        decoded.push(u8::try_from(value).ok()?);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so by panicking")]

    use std::time::Duration;

    use super::{Compression, ExportSettings, Protocol, SettingsError, Signal};

    fn read(variables: &[(&str, &str)]) -> Result<ExportSettings, SettingsError> {
        ExportSettings::from_variables(|name| {
            variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn problem(variables: &[(&str, &str)]) -> String {
        let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")];
        all.splice(0..0, variables.iter().copied());
        read(&all).unwrap_err().to_string()
    }

    #[test]
    fn without_an_endpoint_nothing_is_exported() {
        assert!(read(&[]).unwrap().signals.is_empty());
        assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).unwrap().signals.is_empty());
    }

    #[test]
    fn a_common_endpoint_gets_each_signals_path_over_http_only() {
        let endpoints = |variables| -> Vec<_> {
            read(variables).unwrap().signals.into_iter().map(|signal| signal.endpoint.to_string()).collect()
        };
        let http = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318/in/")];
        assert_eq!(
            endpoints(&http),
            ["http://c:4318/in/v1/logs", "http://c:4318/in/v1/traces", "http://c:4318/in/v1/metrics"]
        );
        let grpc = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")];
        assert_eq!(endpoints(&grpc), ["http://c:4317/"; 3]);
    }

    #[test]
    fn a_signals_own_variables_come_before_the_common_ones() {
        let settings = read(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "500"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "https://logs.example/x"),
            ("OTEL_EXPORTER_OTLP_LOGS_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_LOGS_TIMEOUT", "7000"),
            ("OTEL_EXPORTER_OTLP_LOGS_HEADERS", "authorization=Bearer%20s3cret, x-tenant=a"),
            ("OTEL_EXPORTER_OTLP_LOGS_COMPRESSION", "gzip"),
            ("OTEL_METRICS_EXPORTER", "none"),
        ])
        .unwrap();
        let [logs, traces] = settings.signals.as_slice() else { panic!("two signals: {settings:?}") };
        assert_eq!(
            (logs.signal, logs.protocol, logs.compression),
            (Signal::Logs, Protocol::HttpProtobuf, Compression::Gzip)
        );
        assert_eq!(logs.endpoint.to_string(), "https://logs.example/x");
        assert_eq!(logs.headers["authorization"], "Bearer s3cret");
        assert_eq!(logs.headers["x-tenant"], "a");
        assert_eq!(logs.timeout, Duration::from_secs(7));
        assert!(!format!("{settings:?}").contains("s3cret"));
        assert_eq!(
            (traces.signal, traces.protocol, traces.timeout),
            (Signal::Traces, Protocol::Grpc, Duration::from_millis(500))
        );
    }

    #[test]
    fn what_cannot_be_honoured_is_refused_with_what_would_be_right() {
        let cases = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json", "use 'grpc' or 'http/protobuf'"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "collector:4318", "is no URL such as"),
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "ftp://c", "is no URL such as"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "no number of milliseconds"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0", "no number of milliseconds"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "use 'none' or 'gzip'"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,hunter2", "header 2 of the list is not of the form name=value"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=hunter2", "header 1 of the list has no valid name"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%hunter2", "not percent-encoded"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem", "host's store"),
            ("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta", "'cumulative'"),
            ("OTEL_LOGS_EXPORTER", "console", "use 'otlp' or 'none'"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "x", "no number of milliseconds"),
        ];
        for (variable, value, expected) in cases {
            let text = problem(&[(variable, value)]);
            assert!(text.starts_with(variable), "{text}");
            assert!(text.contains(expected), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
