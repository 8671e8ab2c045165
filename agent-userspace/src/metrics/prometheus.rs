//! Metrics as Prometheus' text (version 0.0.4), named as OpenTelemetry's compatibility rules say.

use std::fmt::Write;

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::{HistogramDataPoint, Metric, NumberDataPoint, metric, number_data_point};

/// The page.
pub(super) fn text(metrics: &[Metric]) -> String {
    let mut page = String::new();
    for metric in metrics {
        match &metric.data {
            Some(metric::Data::Sum(sum)) if sum.is_monotonic => {
                numbers(&mut page, metric, "_total", "counter", &sum.data_points);
            }
            Some(metric::Data::Sum(sum)) => numbers(&mut page, metric, "", "gauge", &sum.data_points),
            Some(metric::Data::Gauge(gauge)) => numbers(&mut page, metric, "", "gauge", &gauge.data_points),
            Some(metric::Data::Histogram(histogram)) => histograms(&mut page, metric, &histogram.data_points),
            Some(metric::Data::ExponentialHistogram(_) | metric::Data::Summary(_)) | None => {}
        }
    }
    page
}

fn numbers(page: &mut String, metric: &Metric, suffix: &str, kind: &str, points: &[NumberDataPoint]) {
    let name = name(metric, kind == "gauge") + suffix;
    head(page, &name, kind, &metric.description);
    for point in points {
        line(page, &name, &labels(&point.attributes), &value(point.value));
    }
}

fn histograms(page: &mut String, metric: &Metric, points: &[HistogramDataPoint]) {
    let name = name(metric, false);
    head(page, &name, "histogram", &metric.description);
    for point in points {
        let bounds = point.explicit_bounds.iter().map(f64::to_string).chain(["+Inf".to_owned()]);
        let mut below = 0u64;
        for (bound, count) in bounds.zip(&point.bucket_counts) {
            below = below.saturating_add(*count);
            let mut labels = labels(&point.attributes);
            labels.push(format!("le=\"{bound}\""));
            line(page, &format!("{name}_bucket"), &labels, &below.to_string());
        }
        let labels = labels(&point.attributes);
        line(page, &format!("{name}_sum"), &labels, &point.sum.unwrap_or_default().to_string());
        line(page, &format!("{name}_count"), &labels, &point.count.to_string());
    }
}

fn head(page: &mut String, name: &str, kind: &str, help: &str) {
    let help = help.replace('\\', "\\\\").replace('\n', "\\n");
    // Writing to a string cannot fail.
    let _ = writeln!(page, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn line(page: &mut String, name: &str, labels: &[String], value: &str) {
    let _ = match labels {
        [] => writeln!(page, "{name} {value}"),
        labels => writeln!(page, "{name}{{{}}} {value}", labels.join(",")),
    };
}

/// Dots become underscores, and the unit stands at the end in words; what is counted in braces is no unit.
fn name(metric: &Metric, gauge: bool) -> String {
    let unit = match metric.unit.as_str() {
        "s" => "_seconds",
        "By" => "_bytes",
        "1" if gauge => "_ratio",
        _ => "",
    };
    let name = identifier(&metric.name);
    if name.ends_with(unit) { name } else { name + unit }
}

fn identifier(name: &str) -> String {
    name.chars().map(|character| if character.is_ascii_alphanumeric() { character } else { '_' }).collect()
}

fn labels(attributes: &[KeyValue]) -> Vec<String> {
    attributes.iter().map(|attribute| format!("{}=\"{}\"", identifier(&attribute.key), escaped(attribute))).collect()
}

fn escaped(attribute: &KeyValue) -> String {
    let text = match attribute.value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::BoolValue(value)) => value.to_string(),
        Some(any_value::Value::IntValue(value)) => value.to_string(),
        Some(any_value::Value::DoubleValue(value)) => value.to_string(),
        // No label of ours is one of these.
        Some(_) | None => String::new(),
    };
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn value(value: Option<number_data_point::Value>) -> String {
    match value {
        Some(number_data_point::Value::AsInt(value)) => value.to_string(),
        Some(number_data_point::Value::AsDouble(value)) => value.to_string(),
        None => "NaN".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::text;
    use crate::metrics::{Histogram, Instrument, Kind, Registry};

    static HELD: Instrument =
        Instrument { name: "a.held", kind: Kind::Gauge, unit: "By", labels: &["a.name"], help: "What is\nheld" };
    static SENT: Instrument =
        Instrument { name: "a.sent", kind: Kind::Counter, unit: "{it}", labels: &[], help: "Sent" };
    static TOOK: Instrument =
        Instrument { name: "a.took", kind: Kind::Histogram, unit: "s", labels: &[], help: "Took" };

    #[test]
    fn the_text_is_as_prometheus_has_it() {
        let registry = Registry::default();
        registry.observe(|readings| {
            readings.add(&HELD, &["it's \"x\"\\\n"], 0.5);
            readings.add(&HELD, &[""], 7u64);
            readings.add(&SENT, &[], u64::MAX);
            let took = Histogram::new(&[0.1, 1.0]);
            for milliseconds in [50u64, 100, 101, 2_000] {
                took.record_ns(milliseconds * 1_000_000);
            }
            readings.add_histogram(&TOOK, &[], &took);
        });
        let expected = concat!(
            "# HELP a_held_bytes What is\\nheld\n# TYPE a_held_bytes gauge\n",
            "a_held_bytes{a_name=\"it's \\\"x\\\"\\\\\\n\"} 0.5\na_held_bytes 7\n",
            "# HELP a_sent_total Sent\n# TYPE a_sent_total counter\na_sent_total 9223372036854775807\n",
            "# HELP a_took_seconds Took\n# TYPE a_took_seconds histogram\n",
            "a_took_seconds_bucket{le=\"0.1\"} 2\na_took_seconds_bucket{le=\"1\"} 3\na_took_seconds_bucket{le=\"+Inf\"} 4\n",
            "a_took_seconds_sum 2.251\na_took_seconds_count 4\n",
        );
        assert_eq!(text(&registry.metrics()), expected);
    }
}
