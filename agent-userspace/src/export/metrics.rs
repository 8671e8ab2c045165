//! Totals as OTLP metrics: cumulative, since the trail was made.

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Metric, NumberDataPoint, Sum, metric, number_data_point,
};

use super::totals::{GapSeries, Series, Totals};
use super::value::attribute;
use crate::entry::Timestamp;

/// The totals as they are at `now`, of a trail made at `start`.
pub(super) fn metrics(totals: &Totals, start: Timestamp, now: Timestamp) -> Vec<Metric> {
    let point = |attributes, value: u64| NumberDataPoint {
        attributes,
        start_time_unix_nano: start.0,
        time_unix_nano: now.0,
        value: Some(number_data_point::Value::AsInt(i64::try_from(value).unwrap_or(i64::MAX))),
        ..NumberDataPoint::default()
    };
    let series = |pick: fn(&super::totals::Sums) -> u64| {
        totals.series.iter().map(|(key, sums)| point(series_attributes(key), pick(sums))).collect::<Vec<_>>()
    };
    let mut redacted = series(|sums| sums.redacted);
    redacted.retain(|point| point.value != Some(number_data_point::Value::AsInt(0)));
    let gaps = |pick: fn(&super::totals::GapSums) -> u64| {
        totals.gaps.iter().map(|(key, sums)| point(gap_attributes(key), pick(sums))).collect::<Vec<_>>()
    };
    let live = totals.live().into_iter().map(|(agent, count)| NumberDataPoint {
        start_time_unix_nano: 0,
        ..point(agent_attribute(agent).into_iter().collect(), count)
    });
    vec![
        sum("bailiwick.entries", "{entry}", "Entries of the trail", series(|sums| sums.entries)),
        sum("bailiwick.events", "{event}", "Actions that the entries stand for", series(|sums| sums.events)),
        sum("bailiwick.records.redacted", "{entry}", "Entries of which something was redacted", redacted),
        sum("bailiwick.lost", "{event}", "Actions known to be lost, where they were counted", gaps(|sums| sums.lost)),
        sum("bailiwick.gaps", "{gap}", "Gaps whose losses were counted", gaps(|sums| sums.counted)),
        sum("bailiwick.gaps.uncounted", "{gap}", "Gaps in which nobody counted", gaps(|sums| sums.uncounted)),
        gauge("bailiwick.sessions", "{session}", "Sessions that live", live.collect()),
    ]
    .into_iter()
    .filter(|metric| !is_empty(metric))
    .collect()
}

fn sum(name: &str, unit: &str, description: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    let aggregation_temporality = AggregationTemporality::Cumulative.into();
    let sum = Sum { data_points, aggregation_temporality, is_monotonic: true };
    Metric { data: Some(metric::Data::Sum(sum)), ..named(name, unit, description) }
}

fn gauge(name: &str, unit: &str, description: &str, data_points: Vec<NumberDataPoint>) -> Metric {
    Metric { data: Some(metric::Data::Gauge(Gauge { data_points })), ..named(name, unit, description) }
}

fn named(name: &str, unit: &str, description: &str) -> Metric {
    Metric { name: name.to_owned(), unit: unit.to_owned(), description: description.to_owned(), ..Metric::default() }
}

fn is_empty(metric: &Metric) -> bool {
    match &metric.data {
        Some(metric::Data::Sum(sum)) => sum.data_points.is_empty(),
        Some(metric::Data::Gauge(gauge)) => gauge.data_points.is_empty(),
        Some(metric::Data::Histogram(_) | metric::Data::ExponentialHistogram(_) | metric::Data::Summary(_)) => false,
        None => true,
    }
}

fn series_attributes(key: &Series) -> Vec<KeyValue> {
    let mut attributes =
        vec![attribute("bailiwick.event", key.event.as_str()), attribute("bailiwick.verdict", key.verdict.as_str())];
    attributes.extend(agent_attribute(key.agent.as_deref()));
    attributes.extend(key.overflow.then(|| attribute("otel.metric.overflow", true)));
    attributes
}

fn gap_attributes(key: &GapSeries) -> Vec<KeyValue> {
    let mut attributes = vec![attribute("bailiwick.event", key.kind.as_str())];
    attributes.extend(agent_attribute(key.agent.as_deref()));
    attributes.extend(key.overflow.then(|| attribute("otel.metric.overflow", true)));
    attributes
}

fn agent_attribute(agent: Option<&str>) -> Option<KeyValue> {
    agent.map(|agent| attribute("bailiwick.agent", agent))
}
