//! Writes a real record of every kind into a directory: the corpus that the decoder's fuzzing starts from.
//!
//! `capture DIR` loads the sensor, has a child do everything that is observed once, and writes the first record of each
//! kind as it stands in its ring to `DIR/EVENT-KIND`. It needs root.

use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use agent_common::maps::Member;
use agent_common::{RecordHeader, RecordKind};
use agent_userspace::hook_check::{self, Performer};
use agent_userspace::observation::event_of;
use agent_userspace::sensor::{Sensor, SensorOptions, new_session};
use anyhow::{Context, bail};
use zerocopy::FromBytes;

/// Room for all that the child does.
const RING_BYTES: u32 = 4 << 20;
/// What is on its way into a ring has arrived by then.
const SETTLE: Duration = Duration::from_millis(500);

fn main() -> anyhow::Result<()> {
    let argument = std::env::args_os().nth(1).context("usage: capture DIR")?;
    if argument == hook_check::SUBCOMMAND {
        std::process::exit(hook_check::process_main());
    }
    // The child executes its own image once more: that must do nothing.
    if argument == "--version" {
        return Ok(());
    }
    capture(&PathBuf::from(argument))
}

fn capture(dir: &Path) -> anyhow::Result<()> {
    let options = SensorOptions { ring_bytes: RING_BYTES, environment: vec!["PATH".to_owned()], count_calls: true };
    let mut sensor = Sensor::load(&options)?;
    sensor.attach_recognition()?;
    sensor.arm()?;
    let performer = Performer::start()?;
    sensor.set_member(performer.pidfd().as_fd(), &Member { session: new_session()?, ..Member::default() })?;
    performer.perform()?;
    std::thread::sleep(SETTLE);
    let mut first: BTreeMap<u16, Vec<u8>> = BTreeMap::new();
    sensor.visit_waiting(|record| {
        if let Ok((header, _)) = RecordHeader::read_from_prefix(record) {
            first.entry(header.kind).or_insert_with(|| record.to_vec());
        }
    });
    std::fs::create_dir_all(dir)?;
    for (number, record) in &first {
        let kind = RecordKind::from_wire(*number).with_context(|| format!("a record of the kind {number}"))?;
        std::fs::write(dir.join(format!("{}-{number}", event_of(kind))), record)?;
    }
    let missing: Vec<_> = RecordKind::ALL.iter().filter(|kind| !first.contains_key(&kind.to_wire())).collect();
    if !missing.is_empty() {
        bail!("no record came of {missing:?}");
    }
    println!("{} kinds", first.len());
    Ok(())
}
