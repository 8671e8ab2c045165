//! The exporters, or that there are none; and what the settings and the environment ask of them.

use std::time::Duration;

use super::DaemonError;
use crate::config::Config;
use crate::control::report::{ExportStatus, ExportWay};
use crate::export::ocsf::OCSF_TARGET;
use crate::export::{
    Compression, ExportSettings, Exporters, Flusher, NamedFile, Protocol, ProxyChoice, Signal, SignalSettings,
    TargetStatus,
};

/// What is exported, by the configuration and the standard variables, which come first; none where nothing is.
pub(super) fn export_settings(config: &Config) -> Result<Option<ExportSettings>, DaemonError> {
    let configured = &config.settings.export;
    let lookup = |name: &str| {
        let of_environment = std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        of_environment.or_else(|| match name {
            "OTEL_EXPORTER_OTLP_ENDPOINT" => configured.endpoint.clone(),
            "OTEL_EXPORTER_OTLP_PROTOCOL" => configured.protocol.map(Protocol::as_str).map(str::to_owned),
            _ => None,
        })
    };
    let mut settings = ExportSettings::from_variables(lookup, &configured.targets)?;
    settings.ocsf = configured.ocsf.clone();
    settings.join_traces = configured.join_traces;
    settings.check()?;
    Ok((!settings.targets.is_empty() || settings.ocsf.is_some()).then_some(settings))
}

/// What exports the trail.
pub(super) struct Export {
    exporters: Option<(Exporters, Flusher)>,
    settings: ExportSettings,
}

impl Export {
    /// Nothing is exported.
    pub(super) fn none() -> Self {
        Self { exporters: None, settings: ExportSettings::default() }
    }

    /// These do it, as the settings say.
    pub(super) fn by(exporters: Exporters, settings: ExportSettings) -> Self {
        let flusher = exporters.flusher();
        Self { exporters: Some((exporters, flusher)), settings }
    }

    fn targets(&self) -> Vec<TargetStatus> {
        self.exporters.as_ref().map(|(exporters, _)| exporters.status()).unwrap_or_default()
    }

    pub(super) fn status(&self) -> Vec<ExportStatus> {
        let status = |target: TargetStatus| ExportStatus {
            target: target.target,
            signal: target.signal.to_owned(),
            acknowledged: target.acknowledged,
            pending: target.pending,
            dead_lettered: target.dead_lettered,
            rejected: target.rejected,
            sent: target.sent,
            retried: target.retried,
            last_success: target.last_success,
            oldest: target.oldest,
            error: target.error,
        };
        self.targets().into_iter().map(status).collect()
    }

    /// How each signal gets to each target.
    pub(super) fn ways(&self) -> Vec<ExportWay> {
        let targets = self.settings.targets.iter();
        let signals = targets.flat_map(|target| target.signals.iter().map(|signal| (&target.name, signal)));
        // In the order of the settings; the file of OCSF events comes last.
        let mut errors = self.targets().into_iter().map(|target| target.error);
        let mut ways: Vec<_> =
            signals.zip(&mut errors).map(|((name, signal), error)| way(name, signal, error)).collect();
        ways.extend(self.settings.ocsf.as_ref().zip(errors.next()).map(|(ocsf, error)| ExportWay {
            target: OCSF_TARGET.to_owned(),
            signal: Signal::Logs.as_str().to_owned(),
            endpoint: ocsf.file.display().to_string(),
            protocol: "file".to_owned(),
            compression: Compression::None.as_str().to_owned(),
            error,
            ..ExportWay::default()
        }));
        ways
    }

    /// The last entry that every target has acknowledged; with no target, nothing is waited for.
    pub(super) fn acknowledged(&self) -> u64 {
        self.targets().into_iter().map(|target| target.acknowledged).min().unwrap_or(u64::MAX)
    }

    /// What keeps entries from being acknowledged.
    pub(super) fn problems(&self) -> Vec<String> {
        let problem = |target: TargetStatus| {
            let error = target.error?;
            Some(format!("the export of {} to {} waits: {error}", target.signal, target.target))
        };
        self.targets().into_iter().filter_map(problem).collect()
    }

    /// Waits until everything up to that entry is acknowledged by every target; says what it waits for if that is too late.
    pub(super) async fn flush(&self, until_seq: u64, within: Duration) -> Result<(), String> {
        match &self.exporters {
            None => Ok(()),
            Some((_, flusher)) => flusher.flush(until_seq, within).await.map_err(|error| error.to_string()),
        }
    }

    /// Ends the exporters, with what time they have to send the rest.
    pub(super) async fn stop(&self, within: Duration) {
        if let Some((exporters, _)) = &self.exporters {
            exporters.stop(within).await;
        }
    }
}

fn way(target: &str, signal: &SignalSettings, error: Option<String>) -> ExportWay {
    let path = |file: &NamedFile| file.path.display().to_string();
    ExportWay {
        target: target.to_owned(),
        signal: signal.signal.as_str().to_owned(),
        endpoint: signal.shown_endpoint(),
        protocol: signal.protocol.as_str().to_owned(),
        compression: signal.compression.as_str().to_owned(),
        proxy: match &signal.proxy {
            ProxyChoice::Through(proxy) => Some(proxy.place()),
            ProxyChoice::ByVariables | ProxyChoice::Direct => None,
        },
        headers_file: signal.headers_file.as_ref().map(path),
        ca_file: signal.tls.ca.as_ref().map(path),
        certificate_file: signal.tls.client.as_ref().map(|client| path(&client.certificate)),
        error,
    }
}
