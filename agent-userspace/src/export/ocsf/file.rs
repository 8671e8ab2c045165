//! The file that events go to: appended to, put aside when it is full, and read at its end when it is opened.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::OcsfSettings;

/// The end of a file that is read for its last event. An event is shorter: entries are bounded, and events with them.
const MAX_EVENT_BYTES: u64 = 4 << 20;

/// The file cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {action} {}: {source}", path.display())]
pub struct FileError {
    action: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// The file, open.
#[derive(Debug)]
pub(in crate::export) struct EventFile {
    settings: OcsfSettings,
    open: Option<Open>,
}

#[derive(Debug)]
struct Open {
    file: File,
    len_bytes: u64,
}

impl EventFile {
    /// It is opened when it is first needed, and again when somebody has put another in its place.
    pub(in crate::export) fn new(settings: OcsfSettings) -> Self {
        Self { settings, open: None }
    }

    /// The uid of the last event that is there, in the file or in the one that was put aside last. What a crash tore off in
    /// the middle is cut away first: it is written again, whole.
    pub(super) fn last_uid(&mut self) -> Result<Option<String>, FileError> {
        let path = self.settings.file.clone();
        let open = self.opened()?;
        let (file, len_bytes) = (&open.file, open.len_bytes);
        let error = |action| move |source| FileError { action, path, source };
        let whole = whole_lines(file, len_bytes).map_err(error("read"))?;
        if whole.len_bytes < len_bytes {
            let path = self.settings.file.clone();
            tracing::warn!(file = %path.display(), bytes = len_bytes - whole.len_bytes, "a torn event is cut off; it is written again");
            let open = self.opened()?;
            open.file.set_len(whole.len_bytes).map_err(|source| FileError { action: "cut", path, source })?;
            open.len_bytes = whole.len_bytes;
        }
        if whole.last_uid.is_some() || whole.len_bytes > 0 {
            return Ok(whole.last_uid);
        }
        let aside = self.aside(1);
        let read = File::open(&aside).and_then(|file| whole_lines(&file, file.metadata()?.len()));
        match read {
            Ok(whole) => Ok(whole.last_uid),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(FileError { action: "read", path: aside, source }),
        }
    }

    /// Appends lines, all or none, and has them on disk when it returns. `lines` ends with a line feed.
    pub(super) fn append(&mut self, lines: &[u8]) -> Result<(), FileError> {
        let limit = self.settings.rotate_bytes;
        let held = self.opened()?.len_bytes;
        if held > 0 && held.saturating_add(lines.len() as u64) > limit {
            self.put_aside()?;
        }
        let path = self.settings.file.clone();
        let open = self.opened()?;
        let written = open.file.write_all(lines).and_then(|()| open.file.sync_data());
        match written {
            Ok(()) => {
                open.len_bytes += lines.len() as u64;
                Ok(())
            }
            Err(source) => {
                // What did go in is taken out again: a full disk must not leave half an event. Where even that is refused,
                // the next opening cuts it off.
                if open.file.set_len(open.len_bytes).is_err() {
                    self.open = None;
                }
                Err(FileError { action: "write", path, source })
            }
        }
    }

    fn aside(&self, number: u32) -> PathBuf {
        let mut name = self.settings.file.clone().into_os_string();
        name.push(format!(".{number}"));
        PathBuf::from(name)
    }

    /// Renames `FILE` to `FILE.1`, `FILE.1` to `FILE.2` and so on; the oldest goes.
    fn put_aside(&mut self) -> Result<(), FileError> {
        let keep = self.settings.keep_files;
        let gone = |path: &Path, done: io::Result<()>, action| match done {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(FileError { action, path: path.to_owned(), source })
            }
            Ok(()) | Err(_) => Ok(()),
        };
        self.open = None;
        if keep == 0 {
            let path = &self.settings.file;
            return gone(path, fs::remove_file(path), "remove");
        }
        for number in (1..keep).rev() {
            let (from, to) = (self.aside(number), self.aside(number + 1));
            gone(&from, fs::rename(&from, to), "rename")?;
        }
        let (from, to) = (&self.settings.file, self.aside(1));
        gone(from, fs::rename(from, to), "rename")
    }

    fn opened(&mut self) -> Result<&mut Open, FileError> {
        let path = &self.settings.file;
        let error = |action| move |source| FileError { action, path: path.clone(), source };
        let open = match self.open.take().filter(|open| still_there(path, &open.file)) {
            Some(open) => open,
            None => {
                if let Some(directory) = path.parent() {
                    DirBuilder::new()
                        .recursive(true)
                        .mode(0o700)
                        .create(directory)
                        .map_err(error("make the directory of"))?;
                }
                // Not through a link in the last place: whoever may write there could have us write elsewhere.
                let flags = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
                let mut options = OpenOptions::new();
                options.read(true).append(true).create(true).mode(0o600).custom_flags(flags);
                let file = options.open(path).map_err(error("open"))?;
                let metadata = file.metadata().map_err(error("look at"))?;
                if !metadata.is_file() {
                    return Err(error("write to")(io::Error::other("it is no regular file")));
                }
                Open { file, len_bytes: metadata.len() }
            }
        };
        Ok(self.open.insert(open))
    }
}

/// Whether the path still leads to the open file: another program may rotate it too.
fn still_there(path: &Path, file: &File) -> bool {
    let there = fs::symlink_metadata(path);
    matches!((there, file.metadata()), (Ok(there), Ok(held)) if (there.dev(), there.ino()) == (held.dev(), held.ino()))
}

struct Whole {
    len_bytes: u64,
    last_uid: Option<String>,
}

/// Up to where the file has whole lines, and the uid of the last of them.
fn whole_lines(file: &File, len_bytes: u64) -> io::Result<Whole> {
    let from = len_bytes.saturating_sub(2 * MAX_EVENT_BYTES);
    let mut end = vec![0; usize::try_from(len_bytes - from).unwrap_or(0)];
    file.read_exact_at(&mut end, from)?;
    let Some(last_feed) = end.iter().rposition(|&byte| byte == b'\n') else {
        return match from {
            0 => Ok(Whole { len_bytes: 0, last_uid: None }),
            // Not ours to cut.
            _ => Err(io::Error::other("it does not end with an event")),
        };
    };
    let lines = end.get(..last_feed).unwrap_or_default();
    let last = lines.rsplit(|&byte| byte == b'\n').next().unwrap_or_default();
    let event: Option<serde_json::Value> = serde_json::from_slice(last).ok();
    let last_uid = event.and_then(|event| event.pointer("/metadata/uid")?.as_str().map(str::to_owned));
    Ok(Whole { len_bytes: from + last_feed as u64 + 1, last_uid })
}
