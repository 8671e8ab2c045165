//! Does things through an io_uring, and not by system calls.
//!
//! `uring plain|async|polled DIR PORT`: below an empty directory it makes, opens, reads, writes, changes, links, renames and
//! removes files, fails at each of these, uses files that have no descriptor, connects to `127.0.0.1:PORT` and sends
//! datagrams there, connects to nobody and to Unix sockets, binds, takes connections and descriptors. `async` has each done by a
//! worker thread of the kernel's, `polled` has a thread of the kernel's take the operations. It prints `{"done":
//! [{"operation": NAME, "result": RESULT}], "refused": PORT, "accepted": [PORT, PORT]}`.
//!
//! `uring silent DIR PORT` makes, opens and unlinks a file there, opens one that is not there, and asks for no completion
//! where that succeeds. `uring crowded DIR PORT` has more done than there is room for completions: operations that do nothing,
//! then unlinks of `alone` and `absent`, each by a word of its own, then of `first`, `second` and `third` by the same.

mod files;
mod network;
mod ring;
mod silent;

use std::path::Path;

use anyhow::bail;
use serde_json::json;

use self::ring::{Mode, Ring};

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [mode, dir, port] = &arguments[..] else { bail!("usage: uring plain|async|polled|silent|crowded DIR PORT") };
    let dir = Path::new(dir);
    let mode = match mode.as_str() {
        "plain" => Mode::Plain,
        "async" => Mode::Async,
        "polled" => Mode::Polled,
        "silent" => return silent::silent(dir),
        "crowded" => return silent::crowded(dir),
        _ => bail!("{mode} is none of plain, async, polled, silent, crowded"),
    };
    let mut ring = Ring::new(mode)?;
    files::files(&mut ring, dir)?;
    files::failures(&mut ring, dir)?;
    files::fixed(&mut ring, dir)?;
    network::network(&mut ring, port.parse()?)?;
    let refused = network::addresses(&mut ring, dir)?;
    network::descriptors(&mut ring, mode, &dir.join("made"))?;
    let accepted = network::accepts(mode)?;
    println!("{}", json!({"done": ring.done, "refused": refused, "accepted": accepted}));
    Ok(())
}
