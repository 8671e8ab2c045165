//! What no completion tells of.

use std::path::Path;

use io_uring::squeue::Flags;
use io_uring::{IoUring, opcode, types};

use crate::files::c_path;

/// Does what no completion tells of; returns how many completions found no room.
pub(crate) fn silent(dir: &Path) -> anyhow::Result<u32> {
    const CWD: types::Fd = types::Fd(libc::AT_FDCWD);
    const OPERATIONS: u32 = 7;
    let mut ring = IoUring::new(2)?;
    let made = c_path(dir, "silent")?;
    let open = opcode::OpenAt::new(CWD, made.as_ptr()).flags(libc::O_RDWR | libc::O_CREAT).mode(0o600).build();
    let unlink = opcode::UnlinkAt::new(CWD, made.as_ptr()).build();
    for (entry, exists) in [(open, true), (unlink, false)] {
        // SAFETY: the kernel has its own copy of the path when the submission returns.
        unsafe { ring.submission().push(&entry.flags(Flags::SKIP_SUCCESS))? };
        ring.submit()?;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
        while dir.join("silent").exists() != exists {
            anyhow::ensure!(std::time::Instant::now() < deadline, "what was asked for silently was not done");
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
    for _ in 0..OPERATIONS {
        // SAFETY: the operation leads to nothing.
        unsafe { ring.submission().push(&opcode::Nop::new().build())? };
        ring.submit()?;
    }
    Ok(OPERATIONS - ring.completion().len() as u32)
}
