#![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::{Health, Limits, serve};

/// A daemon that is as the test says.
#[derive(Default)]
struct Patient {
    dead: Option<&'static str>,
    not_ready: Vec<&'static str>,
    problems: Vec<&'static str>,
    pages: AtomicU64,
}

fn owned(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|&text| text.to_owned()).collect()
}

impl Health for Patient {
    fn metrics(&self) -> String {
        format!("pages {}\n", self.pages.fetch_add(1, Ordering::Relaxed) + 1)
    }

    fn dead(&self) -> Option<String> {
        self.dead.map(str::to_owned)
    }

    fn not_ready(&self) -> Vec<String> {
        owned(&self.not_ready)
    }

    fn problems(&self) -> Vec<String> {
        owned(&self.problems)
    }
}

/// Serves, and returns where.
async fn served(patient: Patient, limits: Limits) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        serve(listener, Arc::new(patient), limits).await;
    });
    address
}

async fn ask(address: std::net::SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let answer = ask(address, &format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n")).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split_whitespace().nth(1).unwrap().parse().unwrap(), body.to_owned())
}

#[tokio::test]
async fn one_that_is_well_is_alive_and_ready() {
    let address = served(Patient::default(), Limits::default()).await;
    assert_eq!(get(address, "/healthz").await, (200, "alive\n".to_owned()));
    assert_eq!(get(address, "/readyz").await, (200, "ready\n".to_owned()));
    let page = ask(address, "GET /metrics?x=1 HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(page.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{page}");
    assert!(page.ends_with("\r\n\r\npages 1\n"), "{page}");
}

#[tokio::test]
async fn one_that_cannot_write_lives_and_says_why_it_is_not_ready() {
    let full = "the trail cannot be written: No space left on device";
    let patient = Patient { not_ready: vec![full], problems: vec![full], ..Patient::default() };
    let address = served(patient, Limits::default()).await;
    assert_eq!(get(address, "/healthz").await, (200, format!("alive\nproblem: {full}\n")));
    assert_eq!(get(address, "/readyz").await, (503, format!("not ready: {full}\n")));
}

#[tokio::test]
async fn one_that_stands_still_is_neither_alive_nor_ready() {
    let patient = Patient { dead: Some("it stands still"), ..Patient::default() };
    let address = served(patient, Limits::default()).await;
    assert_eq!(get(address, "/healthz").await, (503, "dead: it stands still\n".to_owned()));
    assert_eq!(get(address, "/readyz").await, (503, "not ready: it stands still\n".to_owned()));
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_nothing_is_written() {
    let address = served(Patient::default(), Limits::default()).await;
    let (status, body) = get(address, "/").await;
    assert_eq!(status, 404);
    assert!(body.contains("/metrics"), "{body}");
    let posted = ask(address, "POST /metrics HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").await;
    assert!(posted.starts_with("HTTP/1.1 405 ") && posted.contains("allow: GET, HEAD\r\n"), "{posted}");
    let head = ask(address, "HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 ") && head.ends_with("\r\n\r\n"), "{head}");
    let nonsense = ask(address, "what\r\n\r\n").await;
    assert!(nonsense.starts_with("HTTP/1.1 400 "), "{nonsense}");
}

#[tokio::test]
async fn a_page_that_is_asked_for_too_often_is_given_again() {
    let limits = Limits { page_time: Duration::from_secs(60), ..Limits::default() };
    let address = served(Patient::default(), limits).await;
    for _ in 0..3 {
        assert_eq!(get(address, "/metrics").await.1, "pages 1\n");
    }
    let address = served(Patient::default(), Limits { page_time: Duration::ZERO, ..limits }).await;
    get(address, "/metrics").await;
    assert_eq!(get(address, "/metrics").await.1, "pages 2\n");
}

#[tokio::test]
async fn clients_that_say_nothing_are_let_go_and_others_get_their_turn() {
    let limits = Limits { connections: 2, request_time: Duration::from_millis(200), ..Limits::default() };
    let address = served(Patient::default(), limits).await;
    let mut silent = Vec::new();
    for _ in 0..6 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let started = Instant::now();
    assert_eq!(get(address, "/readyz").await.0, 200);
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    drop(silent);
}

#[tokio::test]
async fn a_client_that_sends_half_a_request_is_let_go_in_time() {
    let limits = Limits {
        connections: 1,
        connection_time: Duration::from_millis(300),
        request_time: Duration::from_secs(5),
        page_time: Duration::ZERO,
    };
    let address = served(Patient::default(), limits).await;
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n").await.unwrap();
    assert_eq!(get(address, "/readyz").await.0, 200);
}
