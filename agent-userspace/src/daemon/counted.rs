//! What is told of by its count alone: bytes by file, system calls by number. The record of a key only says what it
//! counts; its entries come with the flushes.

use super::drafts::{Compose, access_name};
use super::pipeline::Pipeline;
use crate::decode::{Head, Open};
use crate::entry::Timestamp;

impl Pipeline {
    pub(super) fn record_transfer(&mut self, session: u64, head: &Head, transfer: &Open, time: Timestamp) {
        let Some(mut compose) = self.compose(session, head, time, "file.io") else { return };
        compose.text("file.path", &transfer.path);
        compose.set("bailiwick.file.access", access_name(transfer.key.access));
        compose.file_identity(transfer.key.device, transfer.key.inode, transfer.flags);
        compose.set(BYTES, transfer.bytes);
        self.hold(session, transfer, compose);
    }

    pub(super) fn record_call_count(&mut self, session: u64, head: &Head, call: &Open, time: Timestamp) {
        let Some(mut compose) = self.compose(session, head, time, "syscall.count") else { return };
        let (number, narrow) = (call.key.access, call.key.flags != 0);
        compose.set("bailiwick.syscall", name_of(number, narrow));
        compose.set("bailiwick.syscall.number", number);
        if narrow {
            compose.set("bailiwick.syscall.abi", "i386");
        }
        self.hold(session, call, compose);
    }

    fn hold(&mut self, session: u64, count: &Open, compose: Compose) {
        if count.folded {
            self.folding.hold(count.key, compose.draft);
        } else {
            self.push(session, compose.draft);
        }
    }
}

/// The attribute that counts bytes.
pub(super) const BYTES: &str = "bailiwick.file.bytes";

/// A call's name; its number where it has none.
fn name_of(number: u32, narrow: bool) -> String {
    let name = if narrow {
        syscalls::x86::Sysno::new(number as usize).map(|call| call.name())
    } else {
        syscalls::x86_64::Sysno::new(number as usize).map(|call| call.name())
    };
    name.map_or_else(|| number.to_string(), str::to_owned)
}
