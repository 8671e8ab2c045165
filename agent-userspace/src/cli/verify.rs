//! `bailiwick verify`: whether the trail is whole, and up to where a checkpoint vouches for it.
//!
//! Inputs: the state directory, and perhaps checkpoints that a back end gave back. Outputs: one line, or JSON; exit code 0 or
//! 1. Needs no daemon. Refuses: to repair anything.

use serde_json::json;

use super::args::{Paths, VerifyArgs};
use super::output::Output;
use super::{CliError, GOOD, NO};
use crate::entry::Timestamp;
use crate::trail::{FirstBad, Verified, read_checkpoints, verify as verify_trail};

/// How many digits of a key are shown.
const KEY_DIGITS: usize = 16;

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
        .map(|bad| json!({"uid": bad.uid, "file": bad.file.to_string_lossy(), "offset": bad.offset, "why": bad.why}));
    json!({
        "whole": verified.first_bad.is_none(),
        "entries": verified.entries,
        "first_seq": verified.first_seq,
        "last_seq": verified.last_seq,
        "removed": verified.removed,
        "first_bad": first_bad,
        "vouched_until": verified.vouched.as_ref().map(|checkpoint| checkpoint.seq),
        "vouched_time": verified.vouched.as_ref().map(|checkpoint| checkpoint.time),
        "checkpoints": verified.checkpoints,
        "keys": verified.keys,
    })
    .to_string()
}

fn sentence(verified: &Verified, against_exported: bool) -> String {
    let by = if against_exported { "an exported checkpoint" } else { "a checkpoint in the trail itself" };
    let vouched = match &verified.vouched {
        Some(checkpoint) => {
            let key: String = checkpoint.key.chars().take(KEY_DIGITS).collect();
            format!("{by} of {}, signed with {key}…, vouches for them until seq {}", checkpoint.time, checkpoint.seq)
        }
        None => "no checkpoint vouches for any of them".to_owned(),
    };
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
    let removed = match verified.removed {
        0 => String::new(),
        removed => format!(" ({removed} older ones were removed, as tombstones say)"),
    };
    let (entries, last) = (verified.entries, verified.last_seq);
    format!("whole: {entries} entries until seq {last}{removed}; {vouched}; {limit}")
}
