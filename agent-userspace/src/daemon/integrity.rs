//! The thread that hashes what agents begin with, and the file in which it is kept.
//!
//! The pipeline hands over which files a session began with, and never waits: the queue has a bound, and what finds no room
//! is not looked at, which is said in the log and counted in the state. The thread opens the image through the process while
//! that lives, so that what ran is hashed and not what has taken its place; afterwards by its path. It tells the pipeline of
//! what changed. A file that cannot be written is a warning: then a change over a restart goes unnoticed.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};

use sha2::{Digest, Sha256};
use tracing::{debug, warn};

use super::command::{Asker, Command};
use super::pipeline::Pipeline;
use super::state::SharedView;
use crate::attribute::procfs::ProcFs;
use crate::attribute::script_of;
use crate::decode::Exec;
use crate::entry::{Draft, Method, Timestamp};
use crate::finding::{AGENT_CHANGED, Found};
use crate::integrity::{Change, FileState, Files, Role, Seen};
use crate::scope::recorded::readable;

/// Sessions that wait to be looked at.
const MOST_WAITING: usize = 256;
/// The longest file that is hashed.
const MOST_BYTES: u64 = 4 << 30;
/// The least of all priorities.
const NICENESS: i32 = 19;

/// What a session began with.
pub(super) struct Begun {
    session: u64,
    whose: Draft,
    cause: String,
    tgid: u32,
    image: Vec<u8>,
    /// Whether the agent is recognised by its image.
    by_image: bool,
    script: Option<Vec<u8>>,
}

/// The pipeline's end.
pub(super) struct Hasher(SyncSender<Begun>);

/// The thread.
pub(super) struct Integrity {
    begun: Receiver<Begun>,
    asker: Asker,
    view: SharedView,
    proc: ProcFs,
    path: PathBuf,
}

/// Both.
pub(super) fn pair(state_dir: &Path, asker: Asker, view: SharedView) -> (Hasher, Integrity) {
    let (sender, begun) = sync_channel(MOST_WAITING);
    let path = state_dir.join("agent-files.json");
    (Hasher(sender), Integrity { begun, asker, view, proc: ProcFs::at(Path::new("/proc")), path })
}

impl Pipeline {
    /// Has it looked at what a session began with. `whose` is the entry that says so, with that seq.
    pub(super) fn look_at_files_of(&self, session: u64, whose: &Draft, seq: u64, exec: Option<&Exec>) {
        let Some(root) = self.attributor.session(session).map(|session| session.root) else { return };
        let Some(attribution) = whose.attribution else { return };
        let by_script = attribution.method == Method::Script;
        let script = match exec {
            Some(exec) => script_of(exec, by_script),
            None if by_script => self.attributor.script_of_running(root.tgid),
            None => None,
        };
        let running = || self.attributor.process(root)?.executable.clone();
        let Some(image) = exec.map(|exec| exec.path.bytes.clone()).or_else(running) else { return };
        let begun = Begun {
            session,
            whose: whose.clone(),
            cause: self.uid(seq),
            tgid: root.tgid,
            image,
            by_image: attribution.method == Method::Executable,
            script,
        };
        match self.hasher.0.try_send(begun) {
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
            Err(TrySendError::Full(begun)) => {
                warn!(agent = begun.whose.agent, "too many sessions begin: what this one runs is not hashed");
            }
        }
    }

    /// Records that an agent began with something else than before.
    pub(super) fn find_changed(&mut self, session: u64, change: &Change, whose: Draft, cause: String) {
        self.find(session, &changed_found(change).because_of([cause]), whose);
    }
}

fn changed_found(change: &Change) -> Found {
    let (was, is) = (&change.was, &change.is);
    let role = is.role.as_str();
    let text = match was.path == is.path {
        true => format!("the {role} of '{}' is not what it was since {}: {}", is.agent, was.since, is.path),
        false => format!("the {role} of '{}' is another one: {}, before it was {}", is.agent, is.path, was.path),
    };
    let found = Found::new(&AGENT_CHANGED, format!("{role} {} {}", is.path, is.sha256), text)
        .with("bailiwick.integrity.role", role)
        .with("bailiwick.integrity.path", is.path.clone())
        .with("bailiwick.integrity.was", was.sha256.clone())
        .with("bailiwick.integrity.is", is.sha256.clone())
        .with("bailiwick.integrity.since", was.since.to_string());
    match was.path == is.path {
        true => found,
        false => found.with("bailiwick.integrity.was_path", was.path.clone()),
    }
}

impl Integrity {
    /// Goes on until the pipeline has ended.
    pub(super) fn run(self) {
        let own = rustix::thread::gettid();
        if let Err(error) = rustix::process::setpriority_process(Some(own), NICENESS) {
            debug!(%error, "hashing keeps its priority");
        }
        let mut files = read(&self.path);
        self.view.lock().files = files.clone();
        while let Ok(begun) = self.begun.recv() {
            let before = files.clone();
            self.look(&mut files, &begun);
            if files != before {
                if let Err(error) = write(&self.path, &files) {
                    warn!(path = %self.path.display(), %error, "a change of an agent over a restart goes unnoticed");
                }
                self.view.lock().files = files.clone();
            }
        }
    }

    fn look(&self, files: &mut Files, begun: &Begun) {
        let image = self.open_image(begun);
        let script = begun.script.as_ref().map(|path| (self.open_script(begun.tgid, path), path));
        let own_script = script.is_some();
        let looked = std::iter::once((Role::Image, &begun.image, image, begun.by_image))
            .chain(script.map(|(file, path)| (Role::Script, path, file, own_script)));
        for (role, path, file, is_its_own) in looked {
            let agent = begun.whose.agent.as_deref().unwrap_or_default();
            let path = readable(path).0;
            let Some((file, state)) = file else {
                debug!(agent, path, "it has gone before it could be hashed");
                continue;
            };
            let seen = Seen { agent, role, path: &path, state, is_its_own };
            let change = files.look(&seen, Timestamp::now(), || sha256(file, state.len_bytes));
            if let Some(change) = change {
                let (session, whose, cause) = (begun.session, begun.whose.clone(), begun.cause.clone());
                self.asker.ask(Command::Changed { session, change: Box::new(change), whose: Box::new(whose), cause });
            }
        }
    }

    /// The image itself while its process runs it, whatever has become of its path.
    fn open_image(&self, begun: &Begun) -> Option<(File, FileState)> {
        let runs = self.proc.executable(begun.tgid).as_ref() == Some(&begun.image);
        let held = runs.then(|| open(&self.proc.image(begun.tgid)).ok()).flatten();
        held.or_else(|| open(&path_of(&begun.image)).ok())
    }

    fn open_script(&self, tgid: u32, path: &[u8]) -> Option<(File, FileState)> {
        let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
        let within = self.proc.open_in_root(tgid, path, flags).map(|(file, _)| File::from(file));
        let within = within.and_then(|file| with_state(file).ok());
        within.or_else(|| open(&path_of(path)).ok())
    }
}

fn path_of(path: &[u8]) -> PathBuf {
    PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(path))
}

fn open(path: &Path) -> io::Result<(File, FileState)> {
    // Whatever is there: a pipe must not hold us up.
    let file = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
    with_state(file)
}

fn with_state(file: File) -> io::Result<(File, FileState)> {
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let state = FileState {
        device: metadata.dev(),
        inode: metadata.ino(),
        len_bytes: metadata.len(),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    };
    Ok((file, state))
}

/// The SHA-256 of a file, in hexadecimal; none of one that is too long or cannot be read.
fn sha256(file: File, len_bytes: u64) -> Option<String> {
    const CHUNK: usize = 1 << 16;
    if len_bytes > MOST_BYTES {
        warn!(len_bytes, "an agent's file is too long to be hashed");
        return None;
    }
    let (mut file, mut hash, mut chunk) = (file.take(MOST_BYTES), Sha256::new(), vec![0; CHUNK]);
    loop {
        match file.read(&mut chunk).ok()? {
            0 => break,
            read => hash.update(chunk.get(..read)?),
        }
    }
    Some(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// What was known when the daemon before ended. A file that cannot be read is nothing: what agents run is then new.
fn read(path: &Path) -> Files {
    let text = match fs::read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Files::default(),
        Err(error) => {
            warn!(path = %path.display(), %error, "what agents ran before is not known");
            return Files::default();
        }
    };
    serde_json::from_slice(&text).unwrap_or_else(|error| {
        warn!(path = %path.display(), %error, "what agents ran before is not known");
        Files::default()
    })
}

fn write(path: &Path, files: &Files) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(files)?)?;
    File::open(&new)?.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn what_is_written_is_read_again_and_a_torn_file_is_nothing() {
        let state = tempfile::tempdir().unwrap();
        let (program, path) = (state.path().join("program"), state.path().join("agent-files.json"));
        fs::write(&program, "x").unwrap();
        let (file, file_state) = open(&program).unwrap();
        let program = program.display().to_string();
        let seen = Seen { agent: "a", role: Role::Script, path: &program, state: file_state, is_its_own: true };
        let mut files = Files::default();
        files.look(&seen, Timestamp(1), || sha256(file, file_state.len_bytes));
        let known = files.of("a").next().unwrap();
        assert_eq!(known.sha256, "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881");
        write(&path, &files).unwrap();
        assert_eq!(read(&path), files);
        fs::write(&path, b"{\"files\":[").unwrap();
        assert_eq!(read(&path), Files::default());
    }

    #[test]
    fn what_is_no_regular_file_is_not_opened_for_long() {
        let place = tempfile::tempdir().unwrap();
        let pipe = place.path().join("pipe");
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(open(&pipe).is_err());
    }
}
