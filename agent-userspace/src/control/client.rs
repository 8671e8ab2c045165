//! The client's end of the control socket. Blocking: the command line does one thing at a time.
//!
//! Inputs: a request. Outputs: the responses, up to the line that ends them. Refuses: lines over
//! [`MAX_RESPONSE_BYTES`], and to take an answer that was cut off for a whole one.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::protocol::{MAX_RESPONSE_BYTES, RemoteError, Request, Response};
use super::socket::path_in;

/// Where a daemon is to be asked.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Asking failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error(
        "no daemon answers at {} ({source}); start it with `systemctl start bailiwick`, or as root with `bailiwick daemon`",
        socket.display()
    )]
    NoDaemon {
        /// The socket.
        socket: PathBuf,
        /// Why connecting failed.
        source: io::Error,
    },
    /// The socket's mode, or a directory's on the way, says no.
    #[error(
        "the control socket {} may not be used by this user; become root, or have an administrator add you to the group \
         'bailiwick'",
        socket.display()
    )]
    NotAllowed {
        /// The socket.
        socket: PathBuf,
    },
    /// The daemon said no.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The daemon does not answer in time.
    #[error("the daemon at {} does not answer (waited {waited:?})", socket.display())]
    Silent {
        /// The socket.
        socket: PathBuf,
        /// How long.
        waited: Duration,
    },
    /// The connection ended before the answer did.
    #[error("the daemon at {} ended the connection before its answer was whole: it stopped, or was stopped", socket.display())]
    CutOff {
        /// The socket.
        socket: PathBuf,
    },
    /// The answer is none.
    #[error("the daemon at {} answers what this version does not understand: {problem}", socket.display())]
    Unreadable {
        /// The socket.
        socket: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

impl Client {
    /// Of the instance with this runtime directory.
    pub fn at(runtime_dir: &Path) -> Self {
        Self { socket: path_in(runtime_dir) }
    }

    /// Connects, and sends nothing yet.
    pub fn connect(&self) -> Result<Connected, ClientError> {
        let stream = UnixStream::connect(&self.socket).map_err(|source| self.not_connected(source))?;
        Ok(Connected { socket: self.socket.clone(), stream })
    }

    /// Asks, and waits `patience` for every line of the answer (for ever without).
    pub fn ask(&self, request: &Request, patience: Option<Duration>) -> Result<Answer, ClientError> {
        self.connect()?.ask(request, patience)
    }

    fn not_connected(&self, source: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match source.kind() {
            io::ErrorKind::PermissionDenied => ClientError::NotAllowed { socket },
            _ => ClientError::NoDaemon { socket, source },
        }
    }
}

/// A connection on which nothing was asked yet.
#[derive(Debug)]
pub struct Connected {
    socket: PathBuf,
    stream: UnixStream,
}

impl Connected {
    /// Asks.
    pub fn ask(mut self, request: &Request, patience: Option<Duration>) -> Result<Answer, ClientError> {
        let cut_off = |_: io::Error| ClientError::CutOff { socket: self.socket.clone() };
        let mut line = serde_json::to_vec(request).map_err(|error| self.unreadable(&error))?;
        line.push(b'\n');
        self.stream.set_write_timeout(patience).map_err(cut_off)?;
        self.stream.set_read_timeout(patience).map_err(cut_off)?;
        // A daemon that turns a client away answers before it has read, so a failure to write is not yet the answer.
        let written = self.stream.write_all(&line);
        drop(written);
        Ok(Answer { socket: self.socket, lines: BufReader::new(self.stream), patience, is_over: false })
    }

    fn unreadable(&self, error: &serde_json::Error) -> ClientError {
        ClientError::Unreadable { socket: self.socket.clone(), problem: error.to_string() }
    }
}

/// The lines of an answer. After an error, or the line that ends it, there is nothing more.
#[derive(Debug)]
pub struct Answer {
    socket: PathBuf,
    lines: BufReader<UnixStream>,
    patience: Option<Duration>,
    is_over: bool,
}

impl Answer {
    /// Whether the next line may have to be waited for: a moment to show what was written so far.
    pub fn is_drained(&self) -> bool {
        !self.lines.buffer().contains(&b'\n')
    }

    /// The one line of an answer that has only one.
    pub fn only(mut self) -> Result<Response, ClientError> {
        let cut_off = ClientError::CutOff { socket: self.socket.clone() };
        let first = self.next().ok_or(cut_off)??;
        match self.next() {
            None => Ok(first),
            Some(Err(error)) => Err(error),
            Some(Ok(_)) => Err(self.not_understood("more than one line")),
        }
    }

    /// The error for an answer that does not fit the request.
    pub fn not_understood(&self, problem: &str) -> ClientError {
        ClientError::Unreadable { socket: self.socket.clone(), problem: problem.to_owned() }
    }

    fn read(&mut self) -> Result<Option<Response>, ClientError> {
        let mut line = Vec::new();
        let limit = MAX_RESPONSE_BYTES as u64 + 1;
        if let Err(error) = (&mut self.lines).take(limit).read_until(b'\n', &mut line) {
            return Err(self.not_read(&error));
        }
        if line.len() > MAX_RESPONSE_BYTES {
            return Err(self.not_understood("a line that is too long"));
        }
        if line.last() != Some(&b'\n') {
            return Err(ClientError::CutOff { socket: self.socket.clone() });
        }
        let response = serde_json::from_slice(&line).map_err(|error| self.not_understood(&error.to_string()))?;
        match response {
            Response::End {} => Ok(None),
            Response::Error(error) => Err(error.into()),
            other => Ok(Some(other)),
        }
    }

    fn not_read(&self, error: &io::Error) -> ClientError {
        let socket = self.socket.clone();
        match (error.kind(), self.patience) {
            (io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut, Some(waited)) => {
                ClientError::Silent { socket, waited }
            }
            _ => ClientError::CutOff { socket },
        }
    }
}

impl Iterator for Answer {
    type Item = Result<Response, ClientError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let read = self.read();
        self.is_over = !matches!(read, Ok(Some(_)));
        read.transpose()
    }
}

impl AsFd for Answer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.lines.get_ref().as_fd()
    }
}
