//! What the iterators write, parsed. Pure; what is too short is left out.

use agent_common::maps::{FileRow, TaskRow};
use zerocopy::FromBytes;

/// A file that a member has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenFile {
    /// What the kernel says of it.
    pub row: FileRow,
    /// Its path.
    pub path: Vec<u8>,
}

pub(super) fn tasks(bytes: &[u8]) -> Vec<TaskRow> {
    bytes.chunks_exact(size_of::<TaskRow>()).filter_map(|row| TaskRow::read_from_bytes(row).ok()).collect()
}

pub(super) fn open_files(mut bytes: &[u8]) -> Vec<OpenFile> {
    let mut files = Vec::new();
    while let Ok((row, rest)) = FileRow::read_from_prefix(bytes) {
        let Some((path, rest)) = rest.split_at_checked(row.path_len_bytes as usize) else { break };
        files.push(OpenFile { row, path: path.to_vec() });
        bytes = rest;
    }
    files
}
