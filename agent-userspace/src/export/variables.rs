//! What the standard `OTEL_EXPORTER_OTLP_*` variables ask for. Parsed once; what cannot be honoured is refused.

use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderMap;

use super::backoff::Backoff;
use super::files::NamedFile;
use super::headers;
use super::proxy::{self, ProxyChoice};
use super::settings::{
    Compression, DEFAULT_TIMEOUT, ExportSettings, MetricsInterval, Protocol, STANDARD_TARGET, SettingsError, Signal,
    SignalSettings, TargetSettings, parse_endpoint,
};
use super::tls::{ClientFiles, TlsFiles};

fn variable(signal: Signal, what: &str) -> String {
    format!("OTEL_EXPORTER_OTLP_{}_{what}", signal.as_str().to_ascii_uppercase())
}

impl ExportSettings {
    /// Reads variables as `lookup` gives them, and adds the target that they describe to those of the settings. As
    /// OpenTelemetry has it, an empty one is unset.
    pub fn from_variables(
        lookup: impl Fn(&str) -> Option<String>,
        configured: &[TargetSettings],
    ) -> Result<Self, SettingsError> {
        let variables = Variables { lookup: &|name| lookup(name).filter(|value| !value.trim().is_empty()) };
        let mut settings = Self::default();
        let mut signals = Vec::new();
        for signal in Signal::ALL {
            signals.extend(variables.signal(signal)?);
        }
        if !signals.is_empty() {
            variables.refuse_unsupported()?;
            let name = STANDARD_TARGET.to_owned();
            settings.targets.push(TargetSettings { name, signals, backoff: Backoff::default() });
        }
        settings.targets.extend(configured.iter().cloned());
        for signal in settings.targets.iter_mut().flat_map(|target| &mut target.signals) {
            if signal.proxy == ProxyChoice::ByVariables {
                let chosen = proxy::by_variables(&signal.endpoint, variables.lookup)?;
                signal.proxy = chosen.map_or(ProxyChoice::Direct, ProxyChoice::Through);
            }
        }
        if settings.targets.is_empty() {
            return Ok(settings);
        }
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
        [variable(signal, what), format!("OTEL_EXPORTER_OTLP_{what}")]
            .into_iter()
            .find_map(|name| (self.lookup)(&name).map(|value| (name, value.trim().to_owned())))
    }

    fn signal(&self, signal: Signal) -> Result<Option<SignalSettings>, SettingsError> {
        if !self.enabled(signal)? {
            return Ok(None);
        }
        let protocol = self.choice(signal, "PROTOCOL", &Protocol::ALL)?.unwrap_or(Protocol::HttpProtobuf);
        let Some(endpoint) = self.endpoint(signal, protocol)? else { return Ok(None) };
        let compression = self.choice(signal, "COMPRESSION", &Compression::ALL)?.unwrap_or(Compression::None);
        let timeout = match self.get(signal, "TIMEOUT") {
            None => DEFAULT_TIMEOUT,
            Some((variable, value)) => milliseconds(variable, &value)?,
        };
        let headers = match self.get(signal, "HEADERS") {
            None => HeaderMap::new(),
            Some((variable, value)) => headers::of_list(&value).map_err(|(number, wrong)| SettingsError {
                place: variable,
                problem: format!("header {number} of the list {wrong}"),
            })?,
        };
        let tls = self.tls(signal)?;
        let proxy = ProxyChoice::ByVariables;
        let headers_file = None;
        Ok(Some(SignalSettings { signal, endpoint, protocol, headers, headers_file, timeout, compression, tls, proxy }))
    }

    fn tls(&self, signal: Signal) -> Result<TlsFiles, SettingsError> {
        let file = |what| self.get(signal, what).map(|(named_by, path)| NamedFile { path: path.into(), named_by });
        let client = match (file("CLIENT_CERTIFICATE"), file("CLIENT_KEY")) {
            (Some(certificate), Some(key)) => Some(ClientFiles { certificate, key }),
            (None, None) => None,
            (Some(one), None) => return Err(bad(one.named_by, alone("CLIENT_KEY"))),
            (None, Some(one)) => return Err(bad(one.named_by, alone("CLIENT_CERTIFICATE"))),
        };
        Ok(TlsFiles { ca: file("CERTIFICATE"), client })
    }

    /// One of several words.
    fn choice<T: Copy>(&self, signal: Signal, what: &str, choices: &[(&str, T)]) -> Result<Option<T>, SettingsError> {
        let Some((variable, value)) = self.get(signal, what) else { return Ok(None) };
        if let Some((_, chosen)) = choices.iter().find(|(word, _)| *word == value) {
            return Ok(Some(*chosen));
        }
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("'{word}'")).collect();
        let known = match words.split_last() {
            Some((last, others)) => format!("{} or {last}", others.join(", ")),
            None => String::new(),
        };
        Err(bad(variable, format!("'{value}' is not known: use {known}")))
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
        let Some((name, value)) = self.get(signal, "ENDPOINT") else { return Ok(None) };
        let own = name == variable(signal, "ENDPOINT");
        let endpoint = if own { parse_endpoint(&value) } else { signal.endpoint(&value, protocol) };
        endpoint.map(Some).map_err(|error| bad(name, format!("the value {error}")))
    }

    fn milliseconds(&self, variable: &str) -> Result<Option<Duration>, SettingsError> {
        (self.lookup)(variable).map(|value| milliseconds(variable.to_owned(), value.trim())).transpose()
    }

    /// Passing over what would change what the numbers mean would be worse than stopping.
    fn refuse_unsupported(&self) -> Result<(), SettingsError> {
        let variable = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
        match (self.lookup)(variable).as_deref().map(|value| value.trim().to_ascii_lowercase()).as_deref() {
            None | Some("cumulative") => Ok(()),
            Some(value) => {
                Err(bad(variable.to_owned(), format!("'{value}' is not supported: totals are sent, so 'cumulative'")))
            }
        }
    }
}

fn alone(other: &str) -> String {
    format!("is set without OTEL_EXPORTER_OTLP_{other}: set both, or neither")
}

fn bad(variable: String, problem: String) -> SettingsError {
    SettingsError { place: variable, problem }
}

fn milliseconds(variable: String, value: &str) -> Result<Duration, SettingsError> {
    match value.parse::<u64>() {
        Ok(milliseconds) if milliseconds > 0 => Ok(Duration::from_millis(milliseconds)),
        Ok(_) | Err(_) => Err(bad(variable, format!("'{value}' is no number of milliseconds above 0"))),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on says so by panicking")]

    use std::time::Duration;

    use super::{Compression, ExportSettings, Protocol, SettingsError, Signal, SignalSettings};

    fn read(variables: &[(&str, &str)]) -> Result<ExportSettings, SettingsError> {
        let lookup = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        ExportSettings::from_variables(lookup, &[])
    }

    fn signals(settings: ExportSettings) -> Vec<SignalSettings> {
        settings.targets.into_iter().flat_map(|target| target.signals).collect()
    }

    fn problem(variables: &[(&str, &str)]) -> String {
        let mut all = vec![("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")];
        all.splice(0..0, variables.iter().copied());
        read(&all).unwrap_err().to_string()
    }

    #[test]
    fn without_an_endpoint_nothing_is_exported() {
        assert!(read(&[]).unwrap().targets.is_empty());
        assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]).unwrap().targets.is_empty());
    }

    #[test]
    fn a_common_endpoint_gets_each_signals_path_over_http_only() {
        let endpoints = |variables| -> Vec<_> {
            signals(read(variables).unwrap()).iter().map(|signal| signal.endpoint.to_string()).collect()
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
        let all = signals(settings.clone());
        let [logs, traces] = all.as_slice() else { panic!("two signals: {settings:?}") };
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
            ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://u:hunter2@c", "has a login in it"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s", "no number of milliseconds"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "0", "no number of milliseconds"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "lz4", "use 'none', 'gzip' or 'zstd'"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=1,hunter2", "header 2 of the list is not of the form name=value"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=hunter2", "header 1 of the list has no valid name"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a=%hunter2", "not percent-encoded"),
            ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/k.pem", "is set without OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE"),
            ("OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", "/c.pem", "is set without OTEL_EXPORTER_OTLP_CLIENT_KEY"),
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
