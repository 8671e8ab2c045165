//! Sending one request to one receiver, over gRPC or HTTP.

use std::io::{self, Write};
use std::time::Duration;

use bytes::Bytes;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;
use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

use super::outcome::Outcome;
use super::payload::Payload;
use super::settings::{Compression, Protocol, SignalSettings};

const AGENT: &str = concat!("OTel-OTLP-Exporter-Bailiwick/", env!("CARGO_PKG_VERSION"));

/// The longest answer that is read: one sentence and a number are expected.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A receiver's address cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// gRPC: the URL, or the certificates.
    #[error("cannot send to {endpoint}: {source}")]
    Grpc {
        /// The receiver.
        endpoint: Uri,
        /// Why not.
        source: tonic::transport::Error,
    },
    /// HTTP: the host's certificates cannot be read.
    #[error("cannot send to {endpoint}: the host's certificates cannot be read: {source}")]
    Certificates {
        /// The receiver.
        endpoint: Uri,
        /// Why not.
        source: io::Error,
    },
}

/// Sends requests of one signal.
pub(super) struct Sender {
    way: Way,
    headers: HeaderMap,
    timeout: Duration,
    compression: Compression,
}

enum Way {
    Grpc(Channel),
    Http(Client<HttpConnector, Full<Bytes>>, Uri),
    Https(Client<HttpsConnector<HttpConnector>, Full<Bytes>>, Uri),
}

impl Sender {
    /// Prepares to send; connects when there is something to send. Called within the runtime.
    pub(super) fn new(settings: &SignalSettings) -> Result<Self, SenderError> {
        let endpoint = settings.endpoint.clone();
        let secure = endpoint.scheme_str() == Some("https");
        let way = match settings.protocol {
            Protocol::Grpc => Way::Grpc(channel(endpoint, secure, settings.timeout)?),
            Protocol::HttpProtobuf if secure => {
                let connector = HttpsConnectorBuilder::new()
                    .with_native_roots()
                    .map_err(|source| SenderError::Certificates { endpoint: endpoint.clone(), source })?
                    .https_only()
                    .enable_http1()
                    .build();
                Way::Https(Client::builder(TokioExecutor::new()).build(connector), endpoint)
            }
            Protocol::HttpProtobuf => Way::Http(Client::builder(TokioExecutor::new()).build_http(), endpoint),
        };
        Ok(Self {
            way,
            headers: settings.headers.clone(),
            timeout: settings.timeout,
            compression: settings.compression,
        })
    }

    /// Sends one request and waits for its answer, no longer than the timeout.
    pub(super) async fn send(&self, payload: &Payload) -> Outcome {
        let sending = async {
            match &self.way {
                Way::Grpc(channel) => self.grpc(channel.clone(), payload.clone()).await,
                Way::Http(client, uri) => self.http(|request| client.request(request), uri, payload).await,
                Way::Https(client, uri) => self.http(|request| client.request(request), uri, payload).await,
            }
        };
        match tokio::time::timeout(self.timeout, sending).await {
            Ok(outcome) => outcome,
            Err(_) => Outcome::Retry { after: None, error: format!("no answer within {:?}", self.timeout) },
        }
    }

    async fn grpc(&self, channel: Channel, payload: Payload) -> Outcome {
        let compressed = match self.compression {
            Compression::None => None,
            Compression::Gzip => Some(CompressionEncoding::Gzip),
            Compression::Zstd => Some(CompressionEncoding::Zstd),
        };
        let answer = match payload {
            Payload::Logs(request) => {
                let client = LogsServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
                let mut client = compressed.into_iter().fold(client, LogsServiceClient::send_compressed);
                client.export(self.request(request)).await.map(|answer| rejected_logs(&answer.into_inner()))
            }
            Payload::Traces(request) => {
                let client = TraceServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
                let mut client = compressed.into_iter().fold(client, TraceServiceClient::send_compressed);
                client.export(self.request(request)).await.map(|answer| rejected_spans(&answer.into_inner()))
            }
            Payload::Metrics(request) => {
                let client = MetricsServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
                let mut client = compressed.into_iter().fold(client, MetricsServiceClient::send_compressed);
                client.export(self.request(request)).await.map(|answer| rejected_points(&answer.into_inner()))
            }
        };
        answer.unwrap_or_else(|status| Outcome::of_status(&status))
    }

    fn request<T>(&self, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        *request.metadata_mut() = MetadataMap::from_headers(self.headers.clone());
        request.set_timeout(self.timeout);
        request
    }

    async fn http<F, E>(&self, call: impl FnOnce(Request<Full<Bytes>>) -> F, uri: &Uri, payload: &Payload) -> Outcome
    where
        F: Future<Output = Result<hyper::Response<hyper::body::Incoming>, E>>,
        E: std::error::Error,
    {
        let request = match self.http_request(uri, payload) {
            Ok(request) => request,
            Err(error) => return Outcome::Hold { error },
        };
        let response = match call(request).await {
            Ok(response) => response,
            Err(error) => return Outcome::Retry { after: None, error: with_causes(&error) },
        };
        let status = response.status();
        if !status.is_success() {
            let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            return Outcome::of_http(status, after);
        }
        match Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await {
            Ok(body) => accepted(payload, &body.to_bytes()),
            // It was accepted, whatever else was to be said of it.
            Err(error) => Outcome::Accepted { rejected: 0, message: format!("the answer was cut off: {error}") },
        }
    }

    fn http_request(&self, uri: &Uri, payload: &Payload) -> Result<Request<Full<Bytes>>, String> {
        let mut body = payload.encode();
        let mut request = Request::builder().method(Method::POST).uri(uri);
        if let Some(headers) = request.headers_mut() {
            headers.extend(self.headers.clone());
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
            if let Some((encoding, compressed)) = compressed(self.compression, &body) {
                body = compressed.map_err(|error| format!("the request cannot be compressed: {error}"))?;
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
            }
        }
        request.body(Full::from(body)).map_err(|error| format!("the request cannot be made: {error}"))
    }
}

fn channel(endpoint: Uri, secure: bool, timeout: Duration) -> Result<Channel, SenderError> {
    let prepare = || -> Result<Channel, tonic::transport::Error> {
        let mut prepared = Endpoint::from(endpoint.clone()).connect_timeout(timeout).user_agent(AGENT)?;
        if secure {
            prepared = prepared.tls_config(ClientTlsConfig::new().with_native_roots())?;
        }
        Ok(prepared.connect_lazy())
    };
    prepare().map_err(|source| SenderError::Grpc { endpoint: endpoint.clone(), source })
}

/// The body compressed, with the name that HTTP has for how.
fn compressed(compression: Compression, body: &[u8]) -> Option<(&'static str, io::Result<Vec<u8>>)> {
    match compression {
        Compression::None => None,
        Compression::Gzip => Some(("gzip", gzipped(body))),
        Compression::Zstd => Some(("zstd", zstd::bulk::compress(body, zstd::DEFAULT_COMPRESSION_LEVEL))),
    }
}

fn gzipped(body: &[u8]) -> io::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 4), flate2::Compression::fast());
    encoder.write_all(body)?;
    encoder.finish()
}

/// The whole chain: "client error (Connect)" alone tells nobody what is wrong.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

fn accepted(payload: &Payload, body: &[u8]) -> Outcome {
    // An answer that cannot be read still came with a success: what it said of single records is not known.
    match payload {
        Payload::Logs(_) => rejected_logs(&ExportLogsServiceResponse::decode(body).unwrap_or_default()),
        Payload::Traces(_) => rejected_spans(&ExportTraceServiceResponse::decode(body).unwrap_or_default()),
        Payload::Metrics(_) => rejected_points(&ExportMetricsServiceResponse::decode(body).unwrap_or_default()),
    }
}

fn rejected_logs(answer: &ExportLogsServiceResponse) -> Outcome {
    let partial = answer.partial_success.as_ref();
    partially(partial.map(|partial| (partial.rejected_log_records, partial.error_message.as_str())))
}

fn rejected_spans(answer: &ExportTraceServiceResponse) -> Outcome {
    let partial = answer.partial_success.as_ref();
    partially(partial.map(|partial| (partial.rejected_spans, partial.error_message.as_str())))
}

fn rejected_points(answer: &ExportMetricsServiceResponse) -> Outcome {
    let partial = answer.partial_success.as_ref();
    partially(partial.map(|partial| (partial.rejected_data_points, partial.error_message.as_str())))
}

fn partially(partial: Option<(i64, &str)>) -> Outcome {
    let (rejected, message) = partial.unwrap_or((0, ""));
    Outcome::Accepted { rejected: u64::try_from(rejected).unwrap_or(0), message: message.to_owned() }
}
