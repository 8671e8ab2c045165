//! A real OpenTelemetry receiver on loopback, `ddapm-test-agent`, and what arrived there.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::bounded::{self, Running};
use crate::{http, workload};

/// A Python program starts in about a second; two busy cores take longer.
const STARTS_WITHIN: Duration = Duration::from_secs(60);

/// The receiver; it ends when this is dropped.
#[derive(Debug)]
pub struct Receiver {
    _process: Running,
    http: SocketAddr,
    grpc: SocketAddr,
}

impl Receiver {
    /// Starts it on free ports, and waits until it answers.
    ///
    /// # Panics
    ///
    /// If it does not start.
    #[must_use]
    pub fn start() -> Self {
        // Bound all at once, so that they differ; free again before the receiver takes them.
        let listeners = [(); 3].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [own, http, grpc] = listeners.map(|listener| listener.local_addr().unwrap());
        let mut command = Command::new(workload::venv().join("bin/ddapm-test-agent"));
        command.args(["--host", "127.0.0.1", "--port", &own.port().to_string()]);
        command.args(["--otlp-http-port", &http.port().to_string(), "--otlp-grpc-port", &grpc.port().to_string()]);
        let process = Running::start(&mut command);
        let answers = || matches!(http::get(http, "/test/session/logs"), Ok((200, _)));
        bounded::until("the receiver answers", STARTS_WITHIN, answers);
        Self { _process: process, http, grpc }
    }

    /// What to set `OTEL_EXPORTER_OTLP_ENDPOINT` to for OTLP over HTTP.
    pub fn http_endpoint(&self) -> String {
        format!("http://{}", self.http)
    }

    /// What to set `OTEL_EXPORTER_OTLP_ENDPOINT` to for OTLP over gRPC.
    pub fn grpc_endpoint(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// Where it takes OTLP over HTTP.
    pub fn http_address(&self) -> SocketAddr {
        self.http
    }

    /// Where it takes OTLP over gRPC.
    pub fn grpc_address(&self) -> SocketAddr {
        self.grpc
    }

    /// Every log record that arrived, repeats included.
    pub fn log_records(&self) -> Vec<Value> {
        self.session("").log_records()
    }

    /// Every span that arrived, repeats included.
    pub fn spans(&self) -> Vec<Value> {
        self.session("").spans()
    }

    /// Every metric that arrived.
    pub fn metrics(&self) -> Vec<Value> {
        self.session("").metrics()
    }

    /// What came with this token in the header [`SESSION_HEADER`], so that several senders can share a receiver.
    pub fn session<'a>(&'a self, token: &'a str) -> Session<'a> {
        Session { receiver: self, token }
    }
}

/// The signals, and how what they carry is nested.
const SIGNALS: [(&str, [&str; 3]); 3] = [
    ("logs", ["resource_logs", "scope_logs", "log_records"]),
    ("traces", ["resource_spans", "scope_spans", "spans"]),
    ("metrics", ["resource_metrics", "scope_metrics", "metrics"]),
];

/// The header by which the receiver keeps senders apart.
pub const SESSION_HEADER: &str = "x-datadog-test-session-token";

/// What came of one sender; of all who say nothing, where its token is empty.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    receiver: &'a Receiver,
    token: &'a str,
}

impl Session<'_> {
    /// Every log record that arrived, repeats included.
    pub fn log_records(&self) -> Vec<Value> {
        self.leaves(0)
    }

    /// Every span that arrived, repeats included.
    pub fn spans(&self) -> Vec<Value> {
        self.leaves(1)
    }

    /// Every metric that arrived.
    pub fn metrics(&self) -> Vec<Value> {
        self.leaves(2)
    }

    fn leaves(&self, signal: usize) -> Vec<Value> {
        let (signal, lists) = SIGNALS[signal];
        leaves(&self.received(signal), lists)
    }

    /// Who sent it: the resource of each request.
    pub fn resources(&self) -> Vec<Value> {
        let of = |[outer, ..]: [&str; 3], signal| {
            let requests = self.received(signal).as_array().cloned().unwrap_or_default();
            let outer = requests.iter().flat_map(|request| request[outer].as_array().cloned().unwrap_or_default());
            outer.map(|part| part["resource"].clone()).collect::<Vec<_>>()
        };
        SIGNALS.into_iter().flat_map(|(signal, lists)| of(lists, signal)).collect()
    }

    /// The schemas that requests and what is in them say their names are of.
    pub fn schemas(&self) -> BTreeSet<String> {
        let mut schemas = BTreeSet::new();
        for (signal, [outer, middle, _]) in SIGNALS {
            let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
            for request in self.received(signal).as_array().cloned().unwrap_or_default() {
                for part in list(&request, outer) {
                    let scopes = list(&part, middle);
                    let all = scopes.iter().chain([&part]);
                    schemas.extend(all.map(|one| one["schema_url"].as_str().unwrap_or_default().to_owned()));
                }
            }
        }
        schemas
    }

    /// The points of a metric in the report that says most: totals only grow, and the receiver does not promise to list
    /// reports in order.
    pub fn points(&self, name: &str) -> Vec<Value> {
        let metrics = self.metrics();
        let reports = metrics.iter().filter(|metric| metric["name"] == name);
        let points = reports
            .filter_map(|metric| ["sum", "gauge"].into_iter().find_map(|kind| metric[kind]["data_points"].as_array()));
        points.max_by_key(|points| points.iter().map(number).sum::<u64>()).cloned().unwrap_or_default()
    }

    /// The number of the newest point of a gauge with these attributes.
    pub fn latest(&self, name: &str, wanted: &[(&str, &str)]) -> Option<u64> {
        let metrics = self.metrics();
        let reports = metrics.iter().filter(|metric| metric["name"] == name);
        let points = reports.filter_map(|metric| metric["gauge"]["data_points"].as_array()).flatten();
        let newest = points
            .filter(|point| has_all(point, wanted))
            .max_by_key(|point| point["time_unix_nano"].as_str().and_then(|time| time.parse::<u64>().ok()));
        newest.map(number)
    }

    /// The sum of those of these points whose attributes are these.
    pub fn sum(&self, name: &str, wanted: &[(&str, &str)]) -> u64 {
        self.points(name).iter().filter(|point| has_all(point, wanted)).map(number).sum()
    }

    fn received(&self, signal: &str) -> Value {
        let of = if self.token.is_empty() { String::new() } else { format!("?test_session_token={}", self.token) };
        let (status, body) = http::get(self.receiver.http, &format!("/test/session/{signal}{of}")).unwrap();
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }
}

fn has_all(point: &Value, wanted: &[(&str, &str)]) -> bool {
    wanted.iter().all(|(key, value)| attribute(point, key).as_deref() == Some(*value))
}

/// A point's whole number; protobuf's JSON writes 64-bit integers as strings.
pub fn number(point: &Value) -> u64 {
    point["as_int"].as_str().and_then(|value| value.parse().ok()).unwrap_or_default()
}

/// The elements three lists down, in every request.
fn leaves(requests: &Value, [outer, middle, inner]: [&str; 3]) -> Vec<Value> {
    let list = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let requests = requests.as_array().cloned().unwrap_or_default();
    let outer = requests.iter().flat_map(|request| list(request, outer));
    let middle = outer.flat_map(|resource| list(&resource, middle));
    middle.flat_map(|scope| list(&scope, inner)).collect()
}

/// An attribute's value, whatever its type, as text; protobuf's JSON writes 64-bit integers as strings.
pub fn attribute(of: &Value, key: &str) -> Option<String> {
    let found = of["attributes"].as_array()?.iter().find(|attribute| attribute["key"] == key)?;
    let value = found["value"].as_object()?.values().next()?;
    Some(value.as_str().map_or_else(|| value.to_string(), str::to_owned))
}

/// The different values of an attribute.
///
/// # Panics
///
/// If one of `of` lacks it.
pub fn distinct(of: &[Value], key: &str) -> BTreeSet<String> {
    of.iter().map(|one| attribute(one, key).unwrap_or_else(|| panic!("no {key}: {one}"))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{attribute, distinct, leaves};

    #[test]
    fn records_are_found_in_every_request() {
        let record = |uid: &str| json!({"attributes": [{"key": "log.record.uid", "value": {"string_value": uid}}]});
        let request = |records| json!({"resource_logs": [{"scope_logs": [{"log_records": records}]}]});
        let requests = json!([request(vec![record("a"), record("b")]), request(vec![record("b")])]);
        let records = leaves(&requests, ["resource_logs", "scope_logs", "log_records"]);
        assert_eq!(records.len(), 3);
        assert_eq!(distinct(&records, "log.record.uid").len(), 2);
    }

    #[test]
    fn an_attribute_of_any_type_is_text() {
        let span = json!({"attributes": [{"key": "process.pid", "value": {"int_value": "7"}}]});
        assert_eq!(attribute(&span, "process.pid").as_deref(), Some("7"));
        assert_eq!(attribute(&span, "other"), None);
    }
}
