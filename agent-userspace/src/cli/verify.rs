//! `bailiwick verify`: whether the trail is whole, and up to where a checkpoint vouches for it.
//!
//! Inputs: the state directory, and perhaps checkpoints that a back end gave back. Outputs: one line, or JSON; exit code 0 or
//! 1. Needs no daemon. Refuses: to repair anything.

use serde_json::json;

use super::args::{Paths, VerifyArgs};
use super::output::Output;
use super::{CliError, GOOD, NO};
use crate::entry::Timestamp;
use crate::trail::{FirstBad, Verified, read_checkpoints, short_key, verify as verify_trail};

/// Verifies the trail and says what was found.
pub(super) fn verify(paths: &Paths, args: &VerifyArgs, output: &mut Output<'_>) -> Result<u8, CliError> {
    let exported = args.checkpoints.as_deref().map(read_checkpoints).transpose()?;
    let since = args.since.and_then(|since| since.time(Timestamp::now()));
    let verified = verify_trail(&paths.state_dir, since, exported.as_deref())?;
    let text = if args.json { json_of(&verified) } else { sentence(&verified, exported.is_some()) };
    output.text(&text)?;
    output.text("\n")?;
    Ok(if verified.first_bad.is_none() { GOOD } else { NO })
}

fn json_of(verified: &Verified) -> String {
    let first_bad = verified
        .first_bad
        .as_ref()
        .map(|bad| json!({"uid": bad.uid, "file": bad.file.to_string_lossy(), "offset": bad.offset}));
    json!({
        "whole": verified.first_bad.is_none(),
        "entries": verified.entries,
        "first_bad": first_bad,
        "vouched_until": verified.vouched.as_ref().map(|checkpoint| checkpoint.seq),
    })
    .to_string()
}

fn sentence(verified: &Verified, against_exported: bool) -> String {
    let vouched = vouched(verified, against_exported);
    if let Some(FirstBad { uid, file, offset, why }) = &verified.first_bad {
        let (file, entries) = (file.display(), verified.entries);
        return format!(
            "NOT whole: {uid} in {file} at byte {offset}: {why}; {entries} entries before it are good; {vouched}"
        );
    }
    let limit = if against_exported {
        "what was cut off behind that cannot be noticed"
    } else {
        "a tail that was cut off, or a trail written anew, cannot be noticed without checkpoints kept elsewhere \
         (--checkpoints FILE)"
    };
    let (entries, last, removed) = (verified.entries, verified.last_seq, removed(verified, against_exported));
    format!("whole: {entries} entries until seq {last}{removed}; {vouched}; {limit}")
}

fn vouched(verified: &Verified, against_exported: bool) -> String {
    let by = if against_exported { "an exported checkpoint" } else { "a checkpoint in the trail itself" };
    let Some(checkpoint) = &verified.vouched else { return "no checkpoint vouches for any of them".to_owned() };
    let (time, key, seq) = (checkpoint.time, short_key(&checkpoint.key), checkpoint.seq);
    let others: Vec<String> =
        verified.keys.iter().filter(|other| **other != checkpoint.key).map(|key| short_key(key)).collect();
    // A host has one key. Another was made by somebody who took the first away, whoever that was.
    let others = match others.as_slice() {
        [] => String::new(),
        others => format!(" (others with {}: ask who replaced the host's key)", others.join(", ")),
    };
    format!("{by} of {time}, signed with {key}{others}, vouches for them until seq {seq}")
}

fn removed(verified: &Verified, against_exported: bool) -> String {
    let Some(tombstone) = verified.tombstone else { return String::new() };
    let removed = verified.removed;
    let vouched_until = verified.vouched.as_ref().map_or(0, |checkpoint| checkpoint.seq);
    let doubt = if against_exported && tombstone > vouched_until {
        ": a tombstone that no exported checkpoint vouches for yet"
    } else {
        ""
    };
    format!(" ({removed} older ones were removed, as the tombstone at seq {tombstone} says{doubt})")
}
