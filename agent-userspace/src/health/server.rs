//! The server: few connections, one request each, within a time.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::answer::{Answer, Answers, Health};

/// How long to wait when no connection can be accepted (no file descriptor left, say), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A request for one of three paths is short.
const MAX_HEAD_BYTES: usize = 8 << 10;

/// What bounds the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at a time; further ones wait to be accepted.
    pub connections: usize,
    /// How long a client may take to send its request.
    pub request_time: Duration,
    /// How long a connection may take in all.
    pub connection_time: Duration,
    /// For how long a page of metrics is given again.
    pub page_time: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 16,
            request_time: Duration::from_secs(5),
            connection_time: Duration::from_secs(10),
            page_time: Duration::from_secs(1),
        }
    }
}

/// Serves until dropped; then every connection ends.
pub async fn serve(listener: TcpListener, health: Arc<dyn Health>, limits: Limits) -> Infallible {
    let answers = Arc::new(Answers::of(health, limits.page_time));
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            // Nobody closes it.
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        match listener.accept().await {
            Ok((stream, _)) => drop(connections.spawn(connection(stream, Arc::clone(&answers), limits, place))),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection to the metrics");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, answers: Arc<Answers>, limits: Limits, _place: OwnedSemaphorePermit) {
    let service = service_fn(move |request| respond(request, Arc::clone(&answers)));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.request_time)
        .keep_alive(false)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    // A client that goes away or is too slow has nobody to be told.
    let _ = timeout(limits.connection_time, served).await;
}

async fn respond(request: Request<Incoming>, answers: Arc<Answers>) -> Result<Response<Full<Bytes>>, io::Error> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let answered = tokio::task::spawn_blocking(move || answers.to(&method, &path)).await;
    let Answer { status, content_type, body } = answered.map_err(io::Error::other)?;
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if status == StatusCode::METHOD_NOT_ALLOWED {
        headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
    }
    Ok(response)
}
