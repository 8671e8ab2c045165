//! Requests, whole, as OTLP has them.

use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{InstrumentationScope, KeyValue};
use opentelemetry_proto::tonic::logs::v1::{ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::metrics::v1::{Metric, ResourceMetrics, ScopeMetrics, metric};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prost::Message;

use super::contexts::Contexts;
use super::resource::SCHEMA_URL;
use super::{logs, spans};
use crate::entry::Entry;

/// A request of one signal.
#[derive(Clone, Debug)]
pub(super) enum Payload {
    Logs(ExportLogsServiceRequest),
    Traces(ExportTraceServiceRequest),
    Metrics(ExportMetricsServiceRequest),
}

impl Payload {
    /// Its length on the wire, before compression.
    pub(super) fn encoded_len(&self) -> usize {
        match self {
            Self::Logs(request) => request.encoded_len(),
            Self::Traces(request) => request.encoded_len(),
            Self::Metrics(request) => request.encoded_len(),
        }
    }

    /// How many records, spans or data points are in it.
    pub(super) fn records(&self) -> u64 {
        let count: usize = match self {
            Self::Logs(request) => {
                let scopes = request.resource_logs.iter().flat_map(|resource| &resource.scope_logs);
                scopes.map(|scope| scope.log_records.len()).sum()
            }
            Self::Traces(request) => {
                let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
                scopes.map(|scope| scope.spans.len()).sum()
            }
            Self::Metrics(request) => {
                let scopes = request.resource_metrics.iter().flat_map(|resource| &resource.scope_metrics);
                scopes.flat_map(|scope| &scope.metrics).map(points).sum()
            }
        };
        u64::try_from(count).unwrap_or(u64::MAX)
    }

    /// The request as HTTP carries it.
    pub(super) fn encode(&self) -> Vec<u8> {
        match self {
            Self::Logs(request) => request.encode_to_vec(),
            Self::Traces(request) => request.encode_to_vec(),
            Self::Metrics(request) => request.encode_to_vec(),
        }
    }
}

/// What every request says of its sender.
#[derive(Clone, Debug)]
pub(super) struct Origin {
    resource: Resource,
}

impl Origin {
    pub(super) fn new(attributes: Vec<KeyValue>) -> Self {
        Self { resource: Resource { attributes, ..Resource::default() } }
    }

    /// Every entry as a log record.
    pub(super) fn logs(&self, entries: &[Entry], contexts: &Contexts) -> Payload {
        let scope_logs = ScopeLogs {
            scope: scope(),
            log_records: entries.iter().map(|entry| logs::record(entry, contexts)).collect(),
            schema_url: SCHEMA_URL.to_owned(),
        };
        let resource_logs = ResourceLogs {
            resource: Some(self.resource.clone()),
            scope_logs: vec![scope_logs],
            schema_url: SCHEMA_URL.to_owned(),
        };
        Payload::Logs(ExportLogsServiceRequest { resource_logs: vec![resource_logs] })
    }

    /// The spans that end with these entries; nothing where none does.
    pub(super) fn traces(&self, entries: &[Entry], contexts: &Contexts) -> Option<Payload> {
        let spans: Vec<_> = entries.iter().filter_map(|entry| spans::span(entry, contexts)).collect();
        if spans.is_empty() {
            return None;
        }
        let scope_spans = ScopeSpans { scope: scope(), spans, schema_url: SCHEMA_URL.to_owned() };
        let resource_spans = ResourceSpans {
            resource: Some(self.resource.clone()),
            scope_spans: vec![scope_spans],
            schema_url: SCHEMA_URL.to_owned(),
        };
        Some(Payload::Traces(ExportTraceServiceRequest { resource_spans: vec![resource_spans] }))
    }

    /// These metrics.
    pub(super) fn metrics(&self, metrics: Vec<Metric>) -> Payload {
        let scope_metrics = ScopeMetrics { scope: scope(), metrics, schema_url: SCHEMA_URL.to_owned() };
        let resource_metrics = ResourceMetrics {
            resource: Some(self.resource.clone()),
            scope_metrics: vec![scope_metrics],
            schema_url: SCHEMA_URL.to_owned(),
        };
        Payload::Metrics(ExportMetricsServiceRequest { resource_metrics: vec![resource_metrics] })
    }
}

fn points(metric: &Metric) -> usize {
    match &metric.data {
        Some(metric::Data::Sum(sum)) => sum.data_points.len(),
        Some(metric::Data::Gauge(gauge)) => gauge.data_points.len(),
        Some(metric::Data::Histogram(histogram)) => histogram.data_points.len(),
        Some(metric::Data::ExponentialHistogram(histogram)) => histogram.data_points.len(),
        Some(metric::Data::Summary(summary)) => summary.data_points.len(),
        None => 0,
    }
}

fn scope() -> Option<InstrumentationScope> {
    Some(InstrumentationScope {
        name: "bailiwick".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    })
}
