//! The exporters, or that there are none; and what the settings and the environment ask of them.

use std::time::Duration;

use crate::config::Config;
use crate::control::report::ExportStatus;
use crate::export::{ExportSettings, Exporters, Flusher, Protocol, SettingsError, TargetStatus};

/// What is exported, by the configuration and the standard variables, which come first; none where nothing is.
pub(super) fn export_settings(config: &Config) -> Result<Option<ExportSettings>, SettingsError> {
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
    Ok((!settings.targets.is_empty() || settings.ocsf.is_some()).then_some(settings))
}

/// What exports the trail.
pub(super) struct Export {
    exporters: Option<(Exporters, Flusher)>,
}

impl Export {
    /// Nothing is exported.
    pub(super) fn none() -> Self {
        Self { exporters: None }
    }

    /// These are.
    pub(super) fn by(exporters: Exporters) -> Self {
        let flusher = exporters.flusher();
        Self { exporters: Some((exporters, flusher)) }
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
        };
        self.targets().into_iter().map(status).collect()
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
    pub(super) async fn stop(self, within: Duration) {
        if let Some((exporters, _)) = self.exporters {
            exporters.stop(within).await;
        }
    }
}
