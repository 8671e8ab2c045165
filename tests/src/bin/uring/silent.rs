//! What no completion tells of: since none was asked for, or found room.

use std::path::Path;
use std::time::{Duration, Instant};

use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, opcode, types};

use crate::files::c_path;

const CWD: types::Fd = types::Fd(libc::AT_FDCWD);

/// Until there is such a file, or none.
fn wait_for(dir: &Path, name: &str, exists: bool) -> anyhow::Result<()> {
    let deadline = Instant::now() + Duration::from_secs(10);
    while dir.join(name).exists() != exists {
        anyhow::ensure!(Instant::now() < deadline, "{name}: what was asked for was not done");
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}

fn submit(ring: &mut IoUring, entry: Entry) -> anyhow::Result<()> {
    // SAFETY: the kernel has its own copy of a path when the submission returns.
    unsafe { ring.submission().push(&entry)? };
    ring.submit()?;
    Ok(())
}

pub(crate) fn silent(dir: &Path) -> anyhow::Result<()> {
    let mut ring = IoUring::new(2)?;
    let (made, never) = (c_path(dir, "silent")?, c_path(dir, "never")?);
    let open = opcode::OpenAt::new(CWD, made.as_ptr()).flags(libc::O_RDWR | libc::O_CREAT).mode(0o600).build();
    submit(&mut ring, open.flags(Flags::SKIP_SUCCESS))?;
    wait_for(dir, "silent", true)?;
    submit(&mut ring, opcode::UnlinkAt::new(CWD, made.as_ptr()).build().flags(Flags::SKIP_SUCCESS))?;
    wait_for(dir, "silent", false)?;
    submit(&mut ring, opcode::OpenAt::new(CWD, never.as_ptr()).build().flags(Flags::SKIP_SUCCESS))?;
    ring.submit_and_wait(1)?;
    anyhow::ensure!(ring.completion().next().is_some_and(|end| end.result() == -libc::ENOENT), "it was there");
    println!("{{}}");
    Ok(())
}

pub(crate) fn crowded(dir: &Path) -> anyhow::Result<()> {
    // Twice as many completions as operations find room.
    let mut ring = IoUring::new(4)?;
    for _ in 0..9 {
        submit(&mut ring, opcode::Nop::new().build())?;
    }
    let names = ["alone", "absent", "first", "second", "third"];
    let paths = names.map(|name| c_path(dir, name));
    let words = [7, 8, 9, 9, 9];
    for name in names.iter().filter(|&&name| name != "absent") {
        std::fs::write(dir.join(name), "")?;
    }
    for ((path, word), name) in paths.into_iter().zip(words).zip(names) {
        let path = path?;
        submit(&mut ring, opcode::UnlinkAt::new(CWD, path.as_ptr()).build().user_data(word))?;
        if word != 9 {
            wait_for(dir, name, false)?;
        }
    }
    for name in names {
        wait_for(dir, name, false)?;
    }
    println!("{{}}");
    Ok(())
}
