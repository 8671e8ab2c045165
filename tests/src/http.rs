//! Just enough HTTP on loopback to ask a receiver and to play a model.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// No peer on loopback needs longer between two bytes.
const QUIET_MAX: Duration = Duration::from_secs(30);
/// A request to a model grows with the conversation; one beyond this is a mistake.
const BODY_MAX_BYTES: u64 = 16 << 20;

/// A request, as far as the tests look at it.
#[derive(Debug)]
pub struct Request {
    /// `GET`, `POST`.
    pub method: String,
    /// The path, query included.
    pub path: String,
    /// Whether the client speaks HTTP/1.0, and so expects the end of the connection to end the answer.
    pub closes: bool,
    /// The body.
    pub body: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// `200`.
    pub status: u16,
    /// `application/json`.
    pub content_type: &'static str,
    /// The body.
    pub body: Vec<u8>,
}

/// A server on loopback; it ends when this is dropped.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves on a free port of 127.0.0.1, each connection in a thread of its own.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), answer)
    }

    /// Serves on a listener.
    ///
    /// # Panics
    ///
    /// If it is none any more.
    pub fn on(listener: TcpListener, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, answer) = (Arc::clone(&stop), Arc::new(answer));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if stopped.load(Ordering::Acquire) {
                    return;
                }
                let answer = Arc::clone(&answer);
                std::thread::spawn(move || {
                    // A client that goes away in the middle is no fault of the server's.
                    let _ = serve(stream, |request| answer(request));
                });
            }
        });
        Self { address, stop, thread: Some(thread) }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        // Wakes the accepting thread, which then sees that it is to stop.
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn serve(stream: TcpStream, answer: impl Fn(&Request) -> Answer) -> io::Result<()> {
    stream.set_read_timeout(Some(QUIET_MAX))?;
    let mut writer = stream.try_clone()?;
    let mut reader = BufReader::new(stream);
    while let Some(request) = read_request(&mut reader)? {
        let Answer { status, content_type, body } = answer(&request);
        let length = body.len();
        let head = format!("HTTP/1.1 {status} .\r\ncontent-type: {content_type}\r\ncontent-length: {length}\r\n\r\n");
        writer.write_all(head.as_bytes())?;
        writer.write_all(&body)?;
        if request.closes {
            break;
        }
    }
    Ok(())
}

/// Reads one request; `None` where the client has closed the connection.
fn read_request(reader: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace();
    let (method, path) = (words.next().unwrap_or_default().to_owned(), words.next().unwrap_or_default().to_owned());
    let closes = words.next() == Some("HTTP/1.0");
    let mut length = 0;
    loop {
        let mut header = String::new();
        reader.read_line(&mut header)?;
        let header = header.trim_end();
        if header.is_empty() {
            break;
        }
        if let Some((name, value)) = header.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().map_err(io::Error::other)?;
        }
    }
    if length > BODY_MAX_BYTES {
        return Err(io::Error::other(format!("a body of {length} bytes")));
    }
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body)?;
    Ok(Some(Request { method, path, closes, body }))
}

/// Fetches `path`, and returns the status and the body.
///
/// # Errors
///
/// When nobody listens, or what comes is no HTTP.
pub fn get(address: SocketAddr, path: &str) -> io::Result<(u16, Vec<u8>)> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(QUIET_MAX))?;
    // HTTP/1.0: the server closes at the end, and may not send in chunks.
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").ok_or_else(|| io::Error::other("no head"))?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let status = head.split_whitespace().nth(1).and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| io::Error::other(format!("no status: {head}")))?;
    Ok((status, answer.split_off(end + 4)))
}

#[cfg(test)]
mod tests {
    use super::{Answer, Server, get};

    #[test]
    fn what_the_server_answers_is_what_the_client_gets() {
        let server = Server::start(|request| Answer {
            status: if request.path == "/known" { 200 } else { 404 },
            content_type: "text/plain",
            body: format!("{} {}", request.method, request.path).into_bytes(),
        });
        assert_eq!(get(server.address(), "/known").unwrap(), (200, b"GET /known".to_vec()));
        assert_eq!(get(server.address(), "/other").unwrap(), (404, b"GET /other".to_vec()));
    }

    #[test]
    fn a_dropped_server_listens_no_more() {
        let server = Server::start(|_| Answer { status: 200, content_type: "text/plain", body: Vec::new() });
        let address = server.address();
        drop(server);
        assert!(get(address, "/").is_err());
    }
}
