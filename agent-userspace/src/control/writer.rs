//! One connection's wire: lines out, never waiting for a reader for longer than the limit.
//!
//! Inputs: responses. Outputs: lines on the socket. Refuses: a reader that takes nothing for the time of a stall; it gets
//! what is left of the line it is in, one last line that says so, and the end.

use std::future::Future;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::time::timeout;

use super::protocol::{ErrorKind, MAX_REQUEST_BYTES, RemoteError, Request, Response};

/// Why a connection ends before its answer does.
#[derive(Debug)]
pub(super) enum Ended {
    /// The client is gone, or speaks though it was not asked.
    Gone,
    /// The client does not read.
    Stalled,
    /// The answer is an error.
    Refused(RemoteError),
}

impl<E: Into<RemoteError>> std::convert::From<E> for Ended {
    fn from(error: E) -> Self {
        Self::Refused(error.into())
    }
}

/// Both directions of a connection.
#[derive(Debug)]
pub(super) struct Wire {
    read: BufReader<OwnedReadHalf>,
    write: OwnedWriteHalf,
    pending: Vec<u8>,
    sent: usize,
    stall: Duration,
}

impl Wire {
    pub(super) fn new(stream: UnixStream, stall: Duration) -> Self {
        let (read, write) = stream.into_split();
        Self { read: BufReader::new(read), write, pending: Vec::new(), sent: 0, stall }
    }

    /// Reads the one request.
    pub(super) async fn request(&mut self, within: Duration) -> Result<Request, Ended> {
        let bad = |message: String| Ended::Refused(RemoteError::new(ErrorKind::BadRequest, message));
        let mut line = Vec::new();
        let limit = MAX_REQUEST_BYTES as u64 + 1;
        let read = timeout(within, (&mut self.read).take(limit).read_until(b'\n', &mut line)).await;
        match read {
            Err(_) => return Err(bad(format!("no request within {within:?}"))),
            Ok(Err(_) | Ok(0)) => return Err(Ended::Gone),
            Ok(Ok(_)) => {}
        }
        if line.len() > MAX_REQUEST_BYTES {
            return Err(bad(format!("the request is longer than {MAX_REQUEST_BYTES} bytes")));
        }
        serde_json::from_slice(&line).map_err(|error| bad(format!("no request: {error}")))
    }

    /// Waits for something, unless the client leaves first.
    pub(super) async fn while_there<T>(&mut self, work: impl Future<Output = T>) -> Result<T, Ended> {
        // Nothing more is expected of a client, so whatever can be read means that it is through.
        let mut unexpected = [0_u8; 1];
        tokio::select! {
            biased;
            done = work => Ok(done),
            _ = self.read.read(&mut unexpected) => Err(Ended::Gone),
        }
    }

    /// Puts a line after those that wait.
    pub(super) fn queue(&mut self, response: &Response) -> Result<(), Ended> {
        append(&mut self.pending, response)?;
        Ok(())
    }

    /// Puts finished lines after those that wait.
    pub(super) fn queue_lines(&mut self, lines: &[u8]) {
        self.pending.extend_from_slice(lines);
    }

    /// Writes what waits.
    pub(super) async fn flush(&mut self) -> Result<(), Ended> {
        while self.sent < self.pending.len() {
            match timeout(self.stall, self.write.write(&self.pending[self.sent..])).await {
                Err(_) => return Err(Ended::Stalled),
                Ok(Err(_) | Ok(0)) => return Err(Ended::Gone),
                Ok(Ok(written)) => self.sent += written,
            }
        }
        self.pending.clear();
        self.sent = 0;
        Ok(())
    }

    /// Ends with this line. Of what still waits, only the rest of a line half sent goes before it.
    pub(super) async fn last_line(&mut self, response: &Response) -> Result<(), Ended> {
        let rest = self.pending.get(self.sent..).unwrap_or_default();
        let is_between_lines = self.sent == 0 || self.pending.get(self.sent - 1) == Some(&b'\n');
        let rest_of_line =
            if is_between_lines { 0 } else { rest.iter().position(|byte| *byte == b'\n').map_or(0, |at| at + 1) };
        self.pending.truncate(self.sent + rest_of_line);
        self.queue(response)?;
        self.flush().await?;
        self.write.shutdown().await.map_err(|_| Ended::Gone)
    }
}

/// Appends a response as a line.
pub(super) fn append(lines: &mut Vec<u8>, response: &Response) -> Result<(), RemoteError> {
    let before = lines.len();
    if let Err(error) = serde_json::to_writer(&mut *lines, response) {
        lines.truncate(before);
        return Err(RemoteError::new(ErrorKind::Failed, format!("an answer could not be written as JSON: {error}")));
    }
    lines.push(b'\n');
    Ok(())
}
