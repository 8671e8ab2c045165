//! A proxy in front of a real receiver that does to requests what networks and receivers do to them.
//!
//! It speaks HTTP/1 and HTTP/2, with and without TLS, so OTLP over both protocols passes through it. What it does not spoil
//! it passes on as it came, and hands back what the receiver says. Faults are set by signal, and can be changed while it runs.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use opentelemetry_proto::tonic::collector::logs::v1::{
    ExportLogsPartialSuccess, ExportLogsServiceRequest, ExportLogsServiceResponse,
};
use prost::Message;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tonic::{Code, Status};

/// What is done to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Answered with this status of HTTP, or the code of gRPC that means the same, and not passed on.
    Refused(u16),
    /// Answered with 429 and this `Retry-After`; over gRPC with RESOURCE_EXHAUSTED and a `RetryInfo` of a second.
    Throttled(String),
    /// Refused as unauthenticated unless it has this `authorization`.
    WantsToken(String),
    /// Passed on without this many of its records, which the answer says. Of logs over HTTP.
    Partial(usize),
    /// The connection ends when half of the request is read.
    CutBefore,
    /// The connection ends when the receiver has it, and has answered.
    CutAfter,
    /// No answer ever comes.
    Silent,
}

/// Faults of a signal.
#[derive(Debug, Default)]
struct Plan {
    /// What is done to the next requests, one each.
    next: Vec<Fault>,
    /// What is done to all others.
    always: Option<Fault>,
    /// How many requests came.
    requests: usize,
}

#[derive(Debug)]
struct Shared {
    receiver: SocketAddr,
    plans: Mutex<HashMap<String, Plan>>,
}

/// The proxy. It ends when this is dropped.
#[derive(Debug)]
pub struct Faulty {
    address: SocketAddr,
    shared: Arc<Shared>,
    tls: Option<Arc<rustls::ServerConfig>>,
    listening: Option<JoinHandle<()>>,
    runtime: Runtime,
}

impl Faulty {
    /// Listens on a free port of 127.0.0.1, in front of a receiver's port for either protocol.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn start(receiver: SocketAddr) -> Self {
        let mut faulty = Self::away(receiver);
        faulty.come_up();
        faulty
    }

    /// Has a port, and does not listen on it.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn away(receiver: SocketAddr) -> Self {
        let free = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let shared = Arc::new(Shared { receiver, plans: Mutex::default() });
        Self { address: free.local_addr().unwrap(), shared, tls: None, listening: None, runtime }
    }

    /// Listens with TLS.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn secure(receiver: SocketAddr, tls: rustls::ServerConfig) -> Self {
        let mut faulty = Self::away(receiver);
        faulty.tls = Some(Arc::new(tls));
        faulty.come_up();
        faulty
    }

    /// Listens on its port from now on.
    ///
    /// # Panics
    ///
    /// If another has taken the port.
    pub fn come_up(&mut self) {
        let listener = self.runtime.block_on(TcpListener::bind(self.address)).unwrap();
        let acceptor = self.tls.clone().map(TlsAcceptor::from);
        self.listening = Some(self.runtime.spawn(accept(listener, acceptor, Arc::clone(&self.shared))));
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does this to each of the next requests of a signal.
    pub fn next(&self, signal: &str, faults: &[Fault]) {
        self.plan(signal, |plan| plan.next.extend_from_slice(faults));
    }

    /// Does this to all requests of a signal that nothing else is done to.
    pub fn always(&self, signal: &str, fault: Option<Fault>) {
        self.plan(signal, |plan| plan.always = fault);
    }

    /// How many requests of a signal came.
    pub fn requests(&self, signal: &str) -> usize {
        self.plan(signal, |plan| plan.requests)
    }

    fn plan<T>(&self, signal: &str, change: impl FnOnce(&mut Plan) -> T) -> T {
        change(self.shared.plans.lock().unwrap().entry(signal.to_owned()).or_default())
    }
}

type Body = UnsyncBoxBody<Bytes, hyper::Error>;

async fn accept(listener: TcpListener, acceptor: Option<TlsAcceptor>, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
        // A client that goes away in the middle is what this is about.
        tokio::spawn(async move {
            match acceptor {
                None => serve(stream, shared).await,
                Some(acceptor) => {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, shared).await;
                    }
                }
            }
        });
    }
}

async fn serve<S>(stream: S, shared: Arc<Shared>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let cut = Arc::new(Notify::new());
    let service = service_fn(|request| {
        let (shared, cut) = (Arc::clone(&shared), Arc::clone(&cut));
        async move { Ok::<_, Infallible>(spoil(request, &shared, &cut).await) }
    });
    let server = auto::Builder::new(TokioExecutor::new());
    tokio::select! {
        _ = server.serve_connection(TokioIo::new(stream), service) => {}
        // Dropped here, the connection is closed with whatever was under way on it.
        () = cut.notified() => {}
    }
}

async fn spoil(request: Request<Incoming>, shared: &Shared, cut: &Notify) -> Response<Body> {
    let grpc =
        request.headers().get("content-type").is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    let signal = signal_of(request.uri().path());
    let fault = {
        let mut plans = shared.plans.lock().unwrap();
        let plan = plans.entry(signal.to_owned()).or_default();
        plan.requests += 1;
        if plan.next.is_empty() { plan.always.clone() } else { Some(plan.next.remove(0)) }
    };
    match fault {
        None => pass_on(request, shared.receiver, grpc).await,
        Some(Fault::Refused(status)) => refuse(status, grpc),
        Some(Fault::Throttled(after)) => throttle(&after, grpc),
        Some(Fault::WantsToken(token)) => match request.headers().get("authorization") {
            Some(given) if given.as_bytes() == token.as_bytes() => pass_on(request, shared.receiver, grpc).await,
            Some(_) | None => refuse(401, grpc),
        },
        Some(Fault::Partial(records)) => pass_on_partly(request, shared, records).await,
        Some(Fault::CutBefore) => {
            let _ = request.into_body().frame().await;
            cut.notify_one();
            std::future::pending().await
        }
        Some(Fault::CutAfter) => {
            pass_on(request, shared.receiver, grpc).await;
            cut.notify_one();
            std::future::pending().await
        }
        Some(Fault::Silent) => std::future::pending().await,
    }
}

/// The signal of a path of either protocol.
fn signal_of(path: &str) -> &'static str {
    match path {
        path if path.contains("logs") => "logs",
        path if path.contains("trace") => "traces",
        path if path.contains("metrics") => "metrics",
        path => panic!("no signal has this path: {path}"),
    }
}

fn refuse(status: u16, grpc: bool) -> Response<Body> {
    if !grpc {
        let mut response = Response::new(whole(&b"as the test says"[..]));
        *response.status_mut() = StatusCode::from_u16(status).unwrap();
        return response;
    }
    let code = match status {
        400 => Code::InvalidArgument,
        401 => Code::Unauthenticated,
        501 => Code::Unimplemented,
        503 => Code::Unavailable,
        other => panic!("no code of gRPC was chosen for {other}"),
    };
    of_grpc(Status::new(code, "as the test says"))
}

fn throttle(after: &str, grpc: bool) -> Response<Body> {
    if grpc {
        return of_grpc(Status::with_details(Code::ResourceExhausted, "slow down", retry_in_a_second().into()));
    }
    let response = Response::builder().status(StatusCode::TOO_MANY_REQUESTS).header("retry-after", after);
    response.body(whole(Bytes::new())).unwrap()
}

/// A `google.rpc.Status` with a `google.rpc.RetryInfo` of one second.
fn retry_in_a_second() -> Vec<u8> {
    let field = |number: u8, content: &[u8]| {
        let mut bytes = vec![number << 3 | 2, u8::try_from(content.len()).unwrap()];
        bytes.extend_from_slice(content);
        bytes
    };
    // RetryInfo { retry_delay: Duration { seconds: 1 } }, in an Any, in the Status' details.
    let info = field(1, &[1 << 3, 1]);
    let any = [field(1, b"type.googleapis.com/google.rpc.RetryInfo"), field(2, &info)].concat();
    field(3, &any)
}

fn of_grpc(status: Status) -> Response<Body> {
    status.into_http::<Full<Bytes>>().map(|body| body.map_err(|error| match error {}).boxed_unsync())
}

fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|error| match error {}).boxed_unsync()
}

/// Passes a request on, and gives the receiver's answer.
async fn pass_on(request: Request<Incoming>, receiver: SocketAddr, grpc: bool) -> Response<Body> {
    let (parts, body) = request.into_parts();
    match body.collect().await {
        Ok(body) => hand_over(parts, body.to_bytes(), receiver, grpc).await,
        Err(_) => refuse(503, grpc),
    }
}

/// Passes a request of logs on without its last records, and says so; the first that has more than these.
async fn pass_on_partly(request: Request<Incoming>, shared: &Shared, records: usize) -> Response<Body> {
    let (mut parts, body) = request.into_parts();
    assert!(!parts.headers.contains_key("content-encoding"), "partial success is of plain OTLP/HTTP");
    let Ok(body) = body.collect().await else { return refuse(503, false) };
    let mut logs = ExportLogsServiceRequest::decode(body.to_bytes()).unwrap();
    let scope = &mut logs.resource_logs[0].scope_logs[0];
    let Some(left) = scope.log_records.len().checked_sub(records).filter(|left| *left > 0) else {
        shared.plans.lock().unwrap().get_mut("logs").unwrap().next.insert(0, Fault::Partial(records));
        return hand_over(parts, logs.encode_to_vec().into(), shared.receiver, false).await;
    };
    scope.log_records.truncate(left);
    parts.headers.remove("content-length");
    let answer = hand_over(parts, logs.encode_to_vec().into(), shared.receiver, false).await;
    assert!(answer.status().is_success(), "{answer:?}");
    let partial = ExportLogsPartialSuccess {
        rejected_log_records: i64::try_from(records).unwrap(),
        error_message: format!("{records} of them are not liked"),
    };
    let said = ExportLogsServiceResponse { partial_success: Some(partial) };
    Response::builder().header("content-type", "application/x-protobuf").body(whole(said.encode_to_vec())).unwrap()
}

async fn hand_over(mut parts: Parts, body: Bytes, receiver: SocketAddr, grpc: bool) -> Response<Body> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = Uri::builder().scheme("http").authority(receiver.to_string()).path_and_query(path).build().unwrap();
    parts.version = if grpc { Version::HTTP_2 } else { Version::HTTP_11 };
    parts.headers.remove("host");
    let client: Client<_, Full<Bytes>> = Client::builder(TokioExecutor::new()).http2_only(grpc).build_http();
    match client.request(Request::from_parts(parts, Full::new(body))).await {
        Ok(answer) => answer.map(BodyExt::boxed_unsync),
        Err(error) => panic!("the receiver behind the proxy: {error:?}"),
    }
}
