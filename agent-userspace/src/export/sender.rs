//! Sending one request to one receiver, over gRPC or HTTP.

use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::write::GzEncoder;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{
    CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, PROXY_AUTHORIZATION, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use opentelemetry_proto::tonic::collector::logs::v1::logs_service_client::LogsServiceClient;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceResponse;
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_client::MetricsServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use tonic::body::Body;
use tonic::codec::CompressionEncoding;
use tonic::metadata::MetadataMap;

use super::files::{FileError, NamedFile, Stamp};
use super::outcome::Outcome;
use super::payload::Payload;
use super::proxy::ProxyChoice;
use super::road::Road;
use super::settings::{Compression, ExportSettings, Protocol, SignalSettings};
use super::tls::{TlsError, client_config, no_tls};
use super::{headers, with_causes};
use crate::entry::Timestamp;

const AGENT: &str = concat!("OTel-OTLP-Exporter-Bailiwick/", env!("CARGO_PKG_VERSION"));

/// The longest answer that is read: one sentence and a number are expected.
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// A connection that was not used for so long is made anew.
const IDLE_WITHIN: Duration = Duration::from_secs(60);

/// A receiver cannot be sent to as the settings say.
#[derive(Debug, thiserror::Error)]
pub enum SenderError {
    /// The file of headers.
    #[error(transparent)]
    Headers(#[from] FileError),
    /// Certificates.
    #[error("{source} (for {endpoint})")]
    Tls {
        /// The receiver.
        endpoint: String,
        /// Why not.
        source: TlsError,
    },
}

impl ExportSettings {
    /// Whether every file that is named can be used, before anything is started.
    ///
    /// # Errors
    /// The first that cannot.
    pub fn check(&self) -> Result<(), SenderError> {
        for signal in self.targets.iter().flat_map(|target| &target.signals) {
            Sender::new(signal)?;
        }
        Ok(())
    }
}

/// Sends requests of one signal.
pub(super) struct Sender {
    settings: SignalSettings,
    /// The files as they were when they were read.
    stamps: Vec<Option<Stamp>>,
    /// What sends. None: it is made anew, with the files as they are then, and with new connections.
    made: Option<Made>,
}

/// What was made of the settings and their files.
#[derive(Clone)]
struct Made {
    client: Client<HttpsConnector<Road>, Body>,
    headers: HeaderMap,
}

impl Sender {
    /// Prepares to send; connects when there is something to send.
    pub(super) fn new(settings: &SignalSettings) -> Result<Self, SenderError> {
        let mut sender = Self { settings: settings.clone(), stamps: Vec::new(), made: None };
        sender.made()?;
        Ok(sender)
    }

    /// Whether a file is another than when it was read: what was refused may pass now.
    pub(super) fn has_news(&self) -> bool {
        self.stamps != self.stamps_now()
    }

    fn stamps_now(&self) -> Vec<Option<Stamp>> {
        let files = self.settings.headers_file.iter().chain(self.settings.tls.all());
        files.map(NamedFile::stamp).collect()
    }

    /// What sends, made anew where a file has changed.
    fn made(&mut self) -> Result<Made, SenderError> {
        let stamps = self.stamps_now();
        if let Some(made) = self.made.as_ref().filter(|_| stamps == self.stamps) {
            return Ok(made.clone());
        }
        // Before the files are read: what changes meanwhile is read again.
        self.stamps = stamps;
        let made = make(&self.settings)?;
        self.made = Some(made.clone());
        Ok(made)
    }

    /// Sends one request and waits for its answer, no longer than the timeout.
    pub(super) async fn send(&mut self, payload: &Payload) -> Outcome {
        let Made { client, headers } = match self.made() {
            Ok(made) => made,
            Err(error) => return Outcome::Hold { error: error.to_string() },
        };
        let sending = async {
            match self.settings.protocol {
                Protocol::Grpc => self.grpc(client, headers, payload.clone()).await,
                Protocol::HttpProtobuf => self.http(client, headers, payload).await,
            }
        };
        match tokio::time::timeout(self.settings.timeout, sending).await {
            Ok(outcome) => outcome,
            Err(_) => {
                // The connection may be one that nobody is at the other end of any more.
                self.made = None;
                Outcome::Retry { after: None, error: format!("no answer within {:?}", self.settings.timeout) }
            }
        }
    }

    async fn grpc(&self, client: Client<HttpsConnector<Road>, Body>, headers: HeaderMap, payload: Payload) -> Outcome {
        let compressed = match self.settings.compression {
            Compression::None => None,
            Compression::Gzip => Some(CompressionEncoding::Gzip),
            Compression::Zstd => Some(CompressionEncoding::Zstd),
        };
        let origin = self.settings.endpoint.clone();
        let answer = match payload {
            Payload::Logs(request) => {
                let client = LogsServiceClient::with_origin(client, origin).max_decoding_message_size(MAX_ANSWER_BYTES);
                let mut client = compressed.into_iter().fold(client, LogsServiceClient::send_compressed);
                client
                    .export(self.grpc_request(headers, request))
                    .await
                    .map(|answer| rejected_logs(&answer.into_inner()))
            }
            Payload::Traces(request) => {
                let client =
                    TraceServiceClient::with_origin(client, origin).max_decoding_message_size(MAX_ANSWER_BYTES);
                let mut client = compressed.into_iter().fold(client, TraceServiceClient::send_compressed);
                client
                    .export(self.grpc_request(headers, request))
                    .await
                    .map(|answer| rejected_spans(&answer.into_inner()))
            }
            Payload::Metrics(request) => {
                let client =
                    MetricsServiceClient::with_origin(client, origin).max_decoding_message_size(MAX_ANSWER_BYTES);
                let mut client = compressed.into_iter().fold(client, MetricsServiceClient::send_compressed);
                client
                    .export(self.grpc_request(headers, request))
                    .await
                    .map(|answer| rejected_points(&answer.into_inner()))
            }
        };
        answer.unwrap_or_else(|status| Outcome::of_status(&status))
    }

    fn grpc_request<T>(&self, mut headers: HeaderMap, message: T) -> tonic::Request<T> {
        let mut request = tonic::Request::new(message);
        headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
        *request.metadata_mut() = MetadataMap::from_headers(headers);
        request.set_timeout(self.settings.timeout);
        request
    }

    async fn http(&self, client: Client<HttpsConnector<Road>, Body>, headers: HeaderMap, payload: &Payload) -> Outcome {
        let request = match self.http_request(headers, payload) {
            Ok(request) => request,
            Err(error) => return Outcome::Hold { error },
        };
        let response = match client.request(request).await {
            Ok(response) => response,
            Err(error) => return Outcome::Retry { after: None, error: with_causes(&error) },
        };
        let status = response.status();
        if !status.is_success() {
            let after = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()).map(str::to_owned);
            // What it says is for people: where it cannot be read, the status is all there is.
            let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
            let body = body.map(|body| body.to_bytes()).unwrap_or_default();
            return Outcome::of_http(status, after.as_deref(), &body, Timestamp::now());
        }
        match Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await {
            Ok(body) => accepted(payload, &body.to_bytes()),
            // It was accepted, whatever else was to be said of it.
            Err(error) => Outcome::Accepted { rejected: 0, message: format!("the answer was cut off: {error}") },
        }
    }

    fn http_request(&self, headers: HeaderMap, payload: &Payload) -> Result<Request<Body>, String> {
        let mut body = payload.encode();
        let mut request = Request::builder().method(Method::POST).uri(self.settings.endpoint.clone());
        if let Some(all) = request.headers_mut() {
            all.extend(headers);
            all.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            all.insert(USER_AGENT, HeaderValue::from_static(AGENT));
            if let Some((encoding, compressed)) = compressed(self.settings.compression, &body) {
                body = compressed.map_err(|error| format!("the request cannot be compressed: {error}"))?;
                all.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
            }
        }
        let body = Body::new(Full::<Bytes>::from(body));
        request.body(body).map_err(|error| format!("the request cannot be made: {error}"))
    }
}

/// Reads the files, and makes what sends by them.
fn make(settings: &SignalSettings) -> Result<Made, SenderError> {
    let (grpc, secure) = (settings.protocol == Protocol::Grpc, settings.is_secure());
    let mut headers = settings.headers.clone();
    if let Some(file) = &settings.headers_file {
        headers.extend(headers::of_file(file)?);
    }
    let tls = if secure { client_config(&settings.tls) } else { no_tls() };
    let mut tls = tls.map_err(|source| SenderError::Tls { endpoint: settings.shown_endpoint(), source })?;
    if grpc {
        tls.alpn_protocols = vec![b"h2".to_vec()];
    }
    let proxy = match &settings.proxy {
        ProxyChoice::Through(proxy) => Some(proxy.clone()),
        ProxyChoice::ByVariables | ProxyChoice::Direct => None,
    };
    let tunnel = grpc || secure;
    if let Some(authorization) = proxy.as_ref().filter(|_| !tunnel).and_then(|proxy| proxy.authorization.clone()) {
        headers.insert(PROXY_AUTHORIZATION, authorization);
    }
    let road = Road::new(proxy, tunnel, settings.timeout);
    let client = Client::builder(TokioExecutor::new())
        .http2_only(grpc)
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_WITHIN)
        .build(HttpsConnector::from((road, Arc::new(tls))));
    Ok(Made { client, headers })
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
