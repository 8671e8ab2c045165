//! The text of one configuration file, and the lines and columns in it.
//!
//! Input: a path. Output: a [`SourceFile`] that turns byte offsets into places. Refuses what is no regular file, what is
//! longer than [`MAX_FILE_BYTES`] (before reading it), and what is not UTF-8.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::{Fault, Problem};
use crate::scope::grant::Origin;

/// The longest configuration file that is read.
pub const MAX_FILE_BYTES: u64 = 1024 * 1024;
/// The most files of one directory.
pub const MAX_FILES: usize = 1024;

/// One configuration file.
#[derive(Clone, Debug)]
pub struct SourceFile {
    name: Arc<str>,
    /// What the file is called in the configuration's hash: the same wherever the directory lies.
    hashed_as: String,
    text: String,
    line_starts: Vec<usize>,
    shipped: bool,
}

impl SourceFile {
    /// A text that ships with Bailiwick.
    pub fn shipped(name: &str, text: &str) -> Self {
        Self::new(format!("{name} (shipped)"), name.to_owned(), text.to_owned(), true)
    }

    /// A text of the host's own, as though read from a file of that name.
    pub fn of_text(name: &str, text: &str) -> Self {
        Self::new(name.to_owned(), name.to_owned(), text.to_owned(), false)
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Self, Problem> {
        let name = path.display().to_string();
        let bytes = read_bytes(path).map_err(|fault| Problem::of_file(&name, fault))?;
        let directory = path.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
        let file = path.file_name().unwrap_or_default().to_string_lossy();
        let hashed_as = if directory.ends_with(".d") { format!("{directory}/{file}") } else { file.into_owned() };
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Self::new(name, hashed_as, text, false)),
            Err(error) => {
                let valid = String::from_utf8_lossy(&error.as_bytes()[..error.utf8_error().valid_up_to()]).into_owned();
                let end = valid.len();
                let origin = Self::new(name, hashed_as, valid, false).origin(end);
                Err(Problem::at(&origin, Fault::NotUtf8))
            }
        }
    }

    fn new(name: String, hashed_as: String, text: String, shipped: bool) -> Self {
        let line_starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { name: name.into(), hashed_as, text, line_starts, shipped }
    }

    /// The file's name, as places name it.
    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// What the configuration's hash calls the file.
    pub fn hashed_as(&self) -> &str {
        &self.hashed_as
    }

    /// The file's text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the file ships with Bailiwick.
    pub fn is_shipped(&self) -> bool {
        self.shipped
    }

    /// The place of a byte offset.
    pub fn origin(&self, offset: usize) -> Origin {
        let line = self.line_starts.partition_point(|start| *start <= offset).saturating_sub(1);
        let start = self.line_starts.get(line).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(offset.saturating_sub(start), |before| before.chars().count());
        let from_one = |number: usize| u32::try_from(number + 1).unwrap_or(u32::MAX);
        Origin { file: self.name.clone(), line: from_one(line), column: from_one(column) }
    }
}

fn read_bytes(path: &Path) -> Result<Vec<u8>, Fault> {
    // Opened without blocking, so that a named pipe in the directory cannot hold the daemon up.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path);
    let file = file.map_err(|error| unreadable(path, error))?;
    let metadata = file.metadata().map_err(Fault::Unreadable)?;
    if metadata.is_dir() {
        return Err(Fault::Directory);
    }
    if !metadata.is_file() {
        return Err(Fault::NotAFile);
    }
    let mut bytes = Vec::new();
    if metadata.len() <= MAX_FILE_BYTES {
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(Fault::Unreadable)?;
    }
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX).max(metadata.len());
    if length > MAX_FILE_BYTES { Err(Fault::TooLarge { limit: MAX_FILE_BYTES }) } else { Ok(bytes) }
}

/// Why a file or directory could not be opened, in words that say what to do.
pub(super) fn unreadable(path: &Path, error: std::io::Error) -> Fault {
    match error.kind() {
        std::io::ErrorKind::NotFound => match std::fs::read_link(path) {
            Ok(target) => Fault::Dangling { target },
            Err(_) => Fault::Missing,
        },
        std::io::ErrorKind::PermissionDenied => Fault::NotAllowed { uid: rustix::process::geteuid().as_raw() },
        _ => Fault::Unreadable(error),
    }
}

/// Whether something of that name is there, be it a symlink that leads nowhere: what is there must be right.
pub(super) fn is_there(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

/// The `*.toml` files of a directory, sorted by name; none where there is no such directory. Hidden files are passed over.
pub(super) fn files_of(directory: &Path) -> Result<Vec<PathBuf>, Problem> {
    let failed = |fault| Problem::of_file(&directory.display().to_string(), fault);
    let listing = match std::fs::read_dir(directory) {
        Ok(listing) => listing,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !is_there(directory) => return Ok(Vec::new()),
        Err(error) => return Err(failed(unreadable(directory, error))),
    };
    let mut files = Vec::new();
    for item in listing {
        let path = item.map_err(|error| failed(Fault::Unreadable(error)))?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if hidden || path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        files.push(path);
        if files.len() > MAX_FILES {
            return Err(failed(Fault::TooManyFiles { limit: MAX_FILES }));
        }
    }
    files.sort();
    Ok(files)
}
