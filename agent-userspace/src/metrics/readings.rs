//! Numbers, gathered from all that have some, as OTLP has them.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, HistogramDataPoint, Metric, NumberDataPoint, Sum, metric, number_data_point,
};

use super::histogram::Histogram;
use super::instruments::{Instrument, Kind};
use crate::entry::Timestamp;
use crate::export::attribute;

/// Series told of one metric: what is beyond is left out, and labels are chosen so that nothing is.
const MAX_SERIES: usize = 3_000;

/// A value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Number {
    /// A count.
    Whole(u64),
    /// A measure.
    Real(f64),
}

impl From<u64> for Number {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<bool> for Number {
    fn from(value: bool) -> Self {
        Self::Whole(u64::from(value))
    }
}

impl From<f64> for Number {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

impl From<Number> for number_data_point::Value {
    fn from(number: Number) -> Self {
        match number {
            Number::Whole(value) => Self::AsInt(i64::try_from(value).unwrap_or(i64::MAX)),
            Number::Real(value) => Self::AsDouble(value),
        }
    }
}

/// What was read.
#[derive(Debug)]
pub struct Readings {
    started: Timestamp,
    now: Timestamp,
    numbers: BTreeMap<&'static str, (&'static Instrument, Vec<NumberDataPoint>)>,
    histograms: BTreeMap<&'static str, (&'static Instrument, Vec<HistogramDataPoint>)>,
}

impl Readings {
    pub(super) fn new(started: Timestamp, now: Timestamp) -> Self {
        Self { started, now, numbers: BTreeMap::new(), histograms: BTreeMap::new() }
    }

    /// Tells a series of a counter or gauge, its labels in the order of the instrument's. Each series is told once.
    pub fn add(&mut self, instrument: &'static Instrument, labels: &[&str], value: impl Into<Number>) {
        let point = NumberDataPoint {
            attributes: attributes(instrument, labels),
            start_time_unix_nano: if instrument.kind == Kind::Counter { self.started.0 } else { 0 },
            time_unix_nano: self.now.0,
            value: Some(value.into().into()),
            ..NumberDataPoint::default()
        };
        let (_, points) = self.numbers.entry(instrument.name).or_insert_with(|| (instrument, Vec::new()));
        if points.len() < MAX_SERIES {
            points.push(point);
        }
    }

    /// Tells a series of a histogram.
    pub fn add_histogram(&mut self, instrument: &'static Instrument, labels: &[&str], histogram: &Histogram) {
        let bucket_counts: Vec<u64> = histogram.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        let point = HistogramDataPoint {
            attributes: attributes(instrument, labels),
            start_time_unix_nano: self.started.0,
            time_unix_nano: self.now.0,
            count: bucket_counts.iter().sum(),
            sum: Some(histogram.sum_seconds()),
            bucket_counts,
            explicit_bounds: histogram.bounds.to_vec(),
            ..HistogramDataPoint::default()
        };
        let (_, points) = self.histograms.entry(instrument.name).or_insert_with(|| (instrument, Vec::new()));
        if points.len() < MAX_SERIES {
            points.push(point);
        }
    }

    pub(super) fn into_metrics(self) -> Vec<Metric> {
        let aggregation_temporality = AggregationTemporality::Cumulative.into();
        let numbers = self.numbers.into_values().map(|(instrument, data_points)| {
            let data = match instrument.kind {
                Kind::Counter => metric::Data::Sum(Sum { data_points, aggregation_temporality, is_monotonic: true }),
                Kind::Gauge | Kind::Histogram => metric::Data::Gauge(Gauge { data_points }),
            };
            named(instrument, data)
        });
        let histograms = self.histograms.into_values().map(|(instrument, data_points)| {
            let histogram = opentelemetry_proto::tonic::metrics::v1::Histogram { data_points, aggregation_temporality };
            named(instrument, metric::Data::Histogram(histogram))
        });
        numbers.chain(histograms).collect()
    }
}

fn named(instrument: &Instrument, data: metric::Data) -> Metric {
    Metric {
        name: instrument.name.to_owned(),
        description: instrument.help.to_owned(),
        unit: instrument.unit.to_owned(),
        data: Some(data),
        ..Metric::default()
    }
}

fn attributes(instrument: &Instrument, labels: &[&str]) -> Vec<KeyValue> {
    debug_assert_eq!(instrument.labels.len(), labels.len(), "the labels of {}", instrument.name);
    let given = instrument.labels.iter().zip(labels).filter(|(_, value)| !value.is_empty());
    given.map(|(label, value)| attribute(label, *value)).collect()
}
