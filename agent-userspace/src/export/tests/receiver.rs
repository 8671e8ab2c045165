//! A receiver of OTLP within the test: keeps what it gets, answers as it is told to.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{ExportMetricsServiceRequest, ExportMetricsServiceResponse};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::{metric, number_data_point};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::codec::CompressionEncoding;
use tonic::transport::server::TcpIncoming;
use tonic::{Code, Status};

/// How the next request of a signal is answered, where not with a plain success.
#[derive(Clone, Copy, Debug)]
pub(super) enum Answer {
    Grpc(Code),
    Http(u16),
    /// Accepted but for so many records.
    Partly(i64),
}

#[derive(Default)]
pub(super) struct Kept {
    pub(super) logs: Vec<LogRecord>,
    pub(super) spans: Vec<Span>,
    pub(super) metrics: Vec<ExportMetricsServiceRequest>,
    pub(super) resources: Vec<Resource>,
    pub(super) headers: Vec<HeaderMap>,
    /// Of each request of logs that came, accepted or not: its length and its number of records.
    pub(super) sizes: Vec<(usize, usize)>,
    pub(super) answers: BTreeMap<&'static str, VecDeque<Answer>>,
    /// Requests with more records than this are too large.
    pub(super) most_records: Option<usize>,
    /// Requests with a record of this path are answered so.
    pub(super) poison: Option<(String, Answer)>,
    /// Requests without this `authorization` are refused.
    pub(super) token: Option<String>,
}

#[derive(Clone, Default)]
pub(super) struct Receiver(Arc<Mutex<Kept>>);

pub(super) fn text(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value?;
    Some(match value {
        any_value::Value::StringValue(text) => text,
        any_value::Value::IntValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}

impl Receiver {
    pub(super) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap()
    }

    pub(super) fn answer(&self, signal: &'static str, answers: impl IntoIterator<Item = Answer>) {
        self.kept().answers.entry(signal).or_default().extend(answers);
    }

    pub(super) fn uids(&self) -> BTreeSet<String> {
        self.kept().logs.iter().map(|record| text(&record.attributes, "log.record.uid").unwrap()).collect()
    }

    /// Of the last metrics that came, the sum of a metric's points whose attributes are these.
    pub(super) fn sum(&self, name: &str, wanted: &[(&str, &str)]) -> i64 {
        let kept = self.kept();
        let Some(request) = kept.metrics.last() else { return 0 };
        let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
        let Some(metric) = metrics.iter().find(|metric| metric.name == name) else { return 0 };
        let points = match metric.data.clone().unwrap() {
            metric::Data::Sum(sum) => sum.data_points,
            metric::Data::Gauge(gauge) => gauge.data_points,
            other => panic!("no such metric is sent: {other:?}"),
        };
        let matching = points
            .into_iter()
            .filter(|point| wanted.iter().all(|(key, value)| text(&point.attributes, key).as_deref() == Some(*value)));
        matching
            .map(|point| match point.value.unwrap() {
                number_data_point::Value::AsInt(value) => value,
                number_data_point::Value::AsDouble(value) => panic!("no such number is sent: {value}"),
            })
            .sum()
    }

    pub(super) async fn serve_grpc(&self, address: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
        let incoming = TcpIncoming::bind(address).unwrap();
        let address = incoming.local_addr().unwrap();
        let (gzip, zstd) = (CompressionEncoding::Gzip, CompressionEncoding::Zstd);
        let router = tonic::transport::Server::builder()
            .add_service(LogsServiceServer::new(self.clone()).accept_compressed(gzip).accept_compressed(zstd))
            .add_service(TraceServiceServer::new(self.clone()).accept_compressed(gzip).accept_compressed(zstd))
            .add_service(MetricsServiceServer::new(self.clone()).accept_compressed(gzip).accept_compressed(zstd));
        let serving = tokio::spawn(async move { router.serve_with_incoming(incoming).await.unwrap() });
        (address, serving)
    }

    pub(super) async fn serve_http(&self, address: SocketAddr) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let receiver = self.clone();
        let serving = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let receiver = receiver.clone();
                let service = service_fn(move |request| {
                    let receiver = receiver.clone();
                    async move { Ok::<_, Infallible>(receiver.http(request).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        (address, serving)
    }

    async fn http(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (parts, body) = request.into_parts();
        assert_eq!(parts.headers["content-type"], "application/x-protobuf");
        let mut body = body.collect().await.unwrap().to_bytes();
        let encoding = parts.headers.get("content-encoding").map(|encoding| encoding.to_str().unwrap().to_owned());
        body = match encoding.as_deref() {
            None => body,
            Some("gzip") => {
                let mut plain = Vec::new();
                GzDecoder::new(body.as_ref()).read_to_end(&mut plain).unwrap();
                plain.into()
            }
            Some("zstd") => zstd::decode_all(body.as_ref()).unwrap().into(),
            Some(other) => panic!("no such encoding was asked for: {other}"),
        };
        let result = match parts.uri.path() {
            "/v1/logs" => self
                .take_logs(ExportLogsServiceRequest::decode(body).unwrap(), parts.headers)
                .map(|answer| answer.encode_to_vec()),
            "/v1/traces" => self
                .take_traces(ExportTraceServiceRequest::decode(body).unwrap(), parts.headers)
                .map(|answer| answer.encode_to_vec()),
            "/v1/metrics" => self
                .take_metrics(ExportMetricsServiceRequest::decode(body).unwrap(), parts.headers)
                .map(|answer| answer.encode_to_vec()),
            path => panic!("no signal has this path: {path}"),
        };
        let mut response = Response::new(Full::default());
        match result {
            Ok(answer) => *response.body_mut() = Full::from(answer),
            Err(Answer::Http(status)) => *response.status_mut() = StatusCode::from_u16(status).unwrap(),
            Err(answer) => panic!("no answer of HTTP: {answer:?}"),
        }
        response
    }

    fn next_answer(&self, signal: &'static str, headers: HeaderMap) -> Option<Answer> {
        let mut kept = self.kept();
        kept.headers.push(headers);
        kept.answers.get_mut(signal).and_then(VecDeque::pop_front)
    }

    fn take_logs(
        &self,
        request: ExportLogsServiceRequest,
        headers: HeaderMap,
    ) -> Result<ExportLogsServiceResponse, Answer> {
        let mut answer = ExportLogsServiceResponse::default();
        let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let next = self.next_answer("logs", headers);
        let mut kept = self.kept();
        if kept.token.is_some() && kept.token != authorization {
            return Err(Answer::Grpc(Code::Unauthenticated));
        }
        let resource = &request.resource_logs[0];
        let records = &resource.scope_logs[0].log_records;
        kept.sizes.push((request.encoded_len(), records.len()));
        if kept.most_records.is_some_and(|most| records.len() > most) {
            return Err(Answer::Grpc(Code::ResourceExhausted));
        }
        if let Some((path, refusal)) = &kept.poison
            && records.iter().any(|record| text(&record.attributes, "file.path").as_ref() == Some(path))
        {
            return Err(*refusal);
        }
        match next {
            Some(Answer::Partly(rejected_log_records)) => {
                let error_message = "two of them are bad".to_owned();
                answer.partial_success = Some(ExportLogsPartialSuccess { rejected_log_records, error_message });
            }
            Some(refusal) => return Err(refusal),
            None => {}
        }
        kept.resources.extend(resource.resource.clone());
        kept.logs.extend(records.iter().cloned());
        Ok(answer)
    }

    fn take_traces(
        &self,
        request: ExportTraceServiceRequest,
        headers: HeaderMap,
    ) -> Result<ExportTraceServiceResponse, Answer> {
        match self.next_answer("traces", headers) {
            Some(refusal) => return Err(refusal),
            None => self
                .kept()
                .spans
                .extend(request.resource_spans.into_iter().flat_map(|r| r.scope_spans).flat_map(|s| s.spans)),
        }
        Ok(ExportTraceServiceResponse::default())
    }

    fn take_metrics(
        &self,
        request: ExportMetricsServiceRequest,
        headers: HeaderMap,
    ) -> Result<ExportMetricsServiceResponse, Answer> {
        match self.next_answer("metrics", headers) {
            Some(refusal) => return Err(refusal),
            None => self.kept().metrics.push(request),
        }
        Ok(ExportMetricsServiceResponse::default())
    }
}

fn grpc<T, R>(
    request: tonic::Request<T>,
    take: impl FnOnce(T, HeaderMap) -> Result<R, Answer>,
) -> Result<tonic::Response<R>, Status> {
    let (metadata, _, message) = request.into_parts();
    match take(message, metadata.into_headers()) {
        Ok(answer) => Ok(tonic::Response::new(answer)),
        Err(Answer::Grpc(code)) => Err(Status::new(code, "as the test says")),
        Err(answer) => panic!("no answer of gRPC: {answer:?}"),
    }
}

#[tonic::async_trait]
impl LogsService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportLogsServiceRequest>,
    ) -> Result<tonic::Response<ExportLogsServiceResponse>, Status> {
        grpc(request, |message, headers| self.take_logs(message, headers))
    }
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, Status> {
        grpc(request, |message, headers| self.take_traces(message, headers))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: tonic::Request<ExportMetricsServiceRequest>,
    ) -> Result<tonic::Response<ExportMetricsServiceResponse>, Status> {
        grpc(request, |message, headers| self.take_metrics(message, headers))
    }
}
