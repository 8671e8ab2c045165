//! The way to a receiver: directly, through a tunnel that a proxy makes, or to a proxy that passes requests on.
//!
//! Input: where to. Output: a TCP connection, on which TLS may be spoken then.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tower_service::Service;

use super::proxy::Proxy;

/// The longest head of a proxy's answer.
const MAX_HEAD_BYTES: usize = 8 * 1024;

/// How connections are made.
#[derive(Clone, Debug)]
pub(super) struct Road {
    tcp: HttpConnector,
    through: Through,
}

#[derive(Clone, Debug)]
enum Through {
    Nothing,
    /// The proxy connects us, and is not seen any more then.
    Tunnel(Proxy),
    /// The proxy gets the requests, with whole URLs.
    Forward(Proxy),
}

/// A connection could not be made.
#[derive(Debug, thiserror::Error)]
pub(super) enum RoadError {
    /// To the receiver.
    #[error(transparent)]
    Connect(BoxError),
    /// To the proxy.
    #[error("the proxy {proxy} cannot be reached")]
    Unreachable { proxy: String, source: BoxError },
    /// The proxy closed the connection, or said something else than HTTP.
    #[error("the proxy {proxy} gave no answer to CONNECT")]
    Silent { proxy: String, source: io::Error },
    /// The proxy does not connect us.
    #[error("the proxy {proxy} refuses to connect to {receiver}: {answer}")]
    Refused { proxy: String, receiver: String, answer: String },
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl Road {
    /// The way to a receiver. A connection must be there within the time.
    pub(super) fn new(proxy: Option<Proxy>, tunnel: bool, within: Duration) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(within));
        let through = match proxy {
            None => Through::Nothing,
            Some(proxy) if tunnel => Through::Tunnel(proxy),
            Some(proxy) => Through::Forward(proxy),
        };
        Self { tcp, through }
    }
}

impl Service<Uri> for Road {
    type Response = Stream;
    type Error = RoadError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, RoadError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), RoadError>> {
        self.tcp.poll_ready(context).map_err(|error| RoadError::Connect(error.into()))
    }

    fn call(&mut self, to: Uri) -> Self::Future {
        let road = self.clone();
        Box::pin(road.travel(to))
    }
}

impl Road {
    async fn travel(mut self, to: Uri) -> Result<Stream, RoadError> {
        let direct = |io| Stream { io, forwarded: false };
        match self.through {
            Through::Nothing => match self.tcp.call(to).await {
                Ok(io) => Ok(direct(io)),
                Err(error) => Err(RoadError::Connect(error.into())),
            },
            Through::Forward(proxy) => {
                let io = reach(&mut self.tcp, &proxy).await?;
                Ok(Stream { io, forwarded: true })
            }
            Through::Tunnel(proxy) => {
                let mut io = reach(&mut self.tcp, &proxy).await?.into_inner();
                tunnel(&mut io, &proxy, &to).await?;
                Ok(direct(TokioIo::new(io)))
            }
        }
    }
}

async fn reach(tcp: &mut HttpConnector, proxy: &Proxy) -> Result<TokioIo<TcpStream>, RoadError> {
    let reached = tcp.call(proxy.address.clone()).await;
    reached.map_err(|error| RoadError::Unreachable { proxy: proxy.place(), source: error.into() })
}

/// Has the proxy connect us to a receiver.
async fn tunnel(io: &mut TcpStream, proxy: &Proxy, to: &Uri) -> Result<(), RoadError> {
    let port = to.port_u16().unwrap_or(if to.scheme_str() == Some("https") { 443 } else { 80 });
    let receiver = format!("{}:{port}", to.host().unwrap_or_default());
    let mut request = format!("CONNECT {receiver} HTTP/1.1\r\nHost: {receiver}\r\n").into_bytes();
    if let Some(authorization) = &proxy.authorization {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(authorization.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    let silent = |source| RoadError::Silent { proxy: proxy.place(), source };
    io.write_all(&request).await.map_err(silent)?;
    let answer = status_line(io).await.map_err(silent)?;
    let accepted = answer.split(' ').nth(1).is_some_and(|code| code.len() == 3 && code.starts_with('2'));
    if accepted { Ok(()) } else { Err(RoadError::Refused { proxy: proxy.place(), receiver, answer }) }
}

/// The first line of an answer, once its whole head has been read; a byte at a time, since what follows is the receiver's.
async fn status_line(io: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD_BYTES {
            return Err(io::Error::other("its answer is too long"));
        }
        head.push(io.read_u8().await?);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).escape_debug().to_string();
    if line.starts_with("HTTP/1.") { Ok(line) } else { Err(io::Error::other("its answer is no HTTP")) }
}

/// A connection, which knows whether a proxy passes requests on.
#[derive(Debug)]
pub(super) struct Stream {
    io: TokioIo<TcpStream>,
    forwarded: bool,
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.io.connected().proxy(self.forwarded)
    }
}

impl Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}
