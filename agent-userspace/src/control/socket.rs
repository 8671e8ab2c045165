//! The socket's file.
//!
//! Inputs: the runtime directory, and who may use it. Outputs: a listening socket that only those can connect to, from the
//! first moment. Refuses: a directory where another daemon answers. Removes its file when dropped.

use std::io;
use std::os::unix::fs::chown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, chmod};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};

use super::peer::Access;

/// The socket's name in the runtime directory.
pub const SOCKET_NAME: &str = "control.sock";

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Where the control socket of an instance is.
pub fn path_in(runtime_dir: &Path) -> PathBuf {
    runtime_dir.join(SOCKET_NAME)
}

/// A listening control socket.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// The control socket could not be made.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// Somebody answers there.
    #[error("another daemon answers at {}: stop it, or give this one directories of its own", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// A step failed.
    #[error("cannot {step} the control socket {}: {source}", path.display())]
    Step {
        /// What was tried.
        step: &'static str,
        /// The socket.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

impl ControlSocket {
    /// Makes the socket in this directory, which exists; takes the place of one that nobody listens on.
    pub fn bind(runtime_dir: &Path, access: &Access) -> Result<Self, BindError> {
        let path = path_in(runtime_dir);
        let failed = |step: &'static str| {
            let path = path.clone();
            move |source: io::Error| BindError::Step { step, path, source }
        };
        remove_dead(&path)?;
        let address = SocketAddrUnix::new(&path).map_err(io::Error::from).map_err(failed("name"))?;
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(io::Error::from)
            .map_err(failed("make"))?;
        bind(&socket, &address).map_err(io::Error::from).map_err(failed("bind"))?;
        // Nobody can connect before `listen`, so the mode is right from the first connection on.
        let mode = match access.group() {
            Some(group) => {
                chown(&path, None, Some(group)).map_err(failed("give to the group"))?;
                0o660
            }
            None => 0o600,
        };
        chmod(&path, Mode::from_raw_mode(mode)).map_err(io::Error::from).map_err(failed("set the mode of"))?;
        listen(&socket, BACKLOG).map_err(io::Error::from).map_err(failed("listen on"))?;
        Ok(Self { listener: UnixListener::from(socket), path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The listening end, non-blocking.
    pub(super) fn listener(&self) -> io::Result<tokio::net::UnixListener> {
        tokio::net::UnixListener::from_std(self.listener.try_clone()?)
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Nothing can be done about a failure, and the next start takes the place of a dead socket.
        drop(std::fs::remove_file(&self.path));
    }
}

fn remove_dead(path: &Path) -> Result<(), BindError> {
    match UnixStream::connect(path) {
        Ok(_) => Err(BindError::InUse { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => std::fs::remove_file(path)
            .map_err(|source| BindError::Step { step: "remove the dead", path: path.to_owned(), source }),
        // It is not there; or something else is wrong, which making it will tell.
        Err(_) => Ok(()),
    }
}
