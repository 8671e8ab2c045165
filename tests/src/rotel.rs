//! A second real receiver, `rotel`, a collector written by others. It passes on what it gets to the first one, under a token
//! of its own, so that what it took can be read there.

use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::bounded::{self, Running};
use crate::receiver::{Receiver, SESSION_HEADER};
use crate::workload::{self, Place};

const STARTS_WITHIN: Duration = Duration::from_secs(20);

/// The collector; it ends when this is dropped.
#[derive(Debug)]
pub struct Rotel {
    _process: Running,
    _place: Place,
    grpc: SocketAddr,
    http: SocketAddr,
}

/// The program, in the Python environment of the tests.
pub fn program() -> PathBuf {
    workload::venv().join("lib/python3.11/site-packages/rotel/rotel-agent")
}

impl Rotel {
    /// Starts it on free ports, in front of a receiver, which gets its things under this token.
    ///
    /// # Panics
    ///
    /// If it does not start.
    #[must_use]
    pub fn start(receiver: &Receiver, token: &str) -> Self {
        let place = Place::new();
        // Bound all at once, so that they differ; free again before it takes them.
        let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        let [grpc, http] = listeners.map(|listener| listener.local_addr().unwrap());
        let mut command = Command::new(program());
        command.args(["start", "--otlp-grpc-endpoint", &grpc.to_string(), "--otlp-http-endpoint", &http.to_string()]);
        command.args(["--exporter", "otlp", "--otlp-exporter-protocol", "grpc"]);
        command.args(["--otlp-exporter-endpoint", &receiver.grpc_endpoint()]);
        command.args(["--otlp-exporter-custom-headers", &format!("{SESSION_HEADER}={token}")]);
        command.arg("--pid-file").arg(place.join("pid")).arg("--log-file").arg(place.join("log"));
        let process = Running::start(&mut command);
        bounded::until("rotel listens", STARTS_WITHIN, || TcpStream::connect(grpc).is_ok());
        Self { _process: process, _place: place, grpc, http }
    }

    /// Where it takes OTLP over gRPC.
    pub fn grpc_endpoint(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// Where it takes OTLP over HTTP.
    pub fn http_endpoint(&self) -> String {
        format!("http://{}", self.http)
    }
}
