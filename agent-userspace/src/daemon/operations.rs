//! Operations of an io_uring.

use super::drafts::Compose;
use super::pipeline::Pipeline;
use crate::decode::{Head, Open};
use crate::entry::Timestamp;

/// The operations by number: `enum io_uring_op`.
const OPERATIONS: [&str; 63] = [
    "NOP",
    "READV",
    "WRITEV",
    "FSYNC",
    "READ_FIXED",
    "WRITE_FIXED",
    "POLL_ADD",
    "POLL_REMOVE",
    "SYNC_FILE_RANGE",
    "SENDMSG",
    "RECVMSG",
    "TIMEOUT",
    "TIMEOUT_REMOVE",
    "ACCEPT",
    "ASYNC_CANCEL",
    "LINK_TIMEOUT",
    "CONNECT",
    "FALLOCATE",
    "OPENAT",
    "CLOSE",
    "FILES_UPDATE",
    "STATX",
    "READ",
    "WRITE",
    "FADVISE",
    "MADVISE",
    "SEND",
    "RECV",
    "OPENAT2",
    "EPOLL_CTL",
    "SPLICE",
    "PROVIDE_BUFFERS",
    "REMOVE_BUFFERS",
    "TEE",
    "SHUTDOWN",
    "RENAMEAT",
    "UNLINKAT",
    "MKDIRAT",
    "SYMLINKAT",
    "LINKAT",
    "MSG_RING",
    "FSETXATTR",
    "SETXATTR",
    "FGETXATTR",
    "GETXATTR",
    "SOCKET",
    "URING_CMD",
    "SEND_ZC",
    "SENDMSG_ZC",
    "READ_MULTISHOT",
    "WAITID",
    "FUTEX_WAIT",
    "FUTEX_WAKE",
    "FUTEX_WAITV",
    "FIXED_FD_INSTALL",
    "FTRUNCATE",
    "BIND",
    "LISTEN",
    "RECV_ZC",
    "EPOLL_WAIT",
    "READV_FIXED",
    "WRITEV_FIXED",
    "PIPE",
];

impl Pipeline {
    pub(super) fn record_operation(&mut self, session: u64, head: &Head, operation: &Open, time: Timestamp) {
        let Some(mut compose) = self.compose(session, head, time, "io_uring.submit") else { return };
        compose.operation(operation);
        self.push_counted(session, operation, compose.draft);
    }
}

impl Compose {
    fn operation(&mut self, operation: &Open) {
        let number = operation.key.access;
        let name = OPERATIONS.get(number as usize).map_or_else(|| number.to_string(), |&name| name.to_owned());
        self.set("bailiwick.io_uring.operation", name);
        if operation.key.inode != 0 {
            self.text("file.path", &operation.path);
            self.file_identity(operation.key.device, operation.key.inode, operation.flags);
        }
        self.error(operation.key.errno);
    }
}
