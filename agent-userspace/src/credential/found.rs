//! What is found about credentials: the rows of [`crate::finding::FINDINGS`] that are, and how each is said.
//!
//! Pure: whoever finds says what it knows. Never a value of a credential.

use super::ledger::New;
use super::table::{Known, Means, Use};
use super::watch::Read;
use crate::entry::Timestamp;
use crate::finding::{Finding, Found};

/// The credential's name.
pub const NAME: &str = "bailiwick.credential.name";
/// How it was come by: `file`, `socket` or `environment`.
pub const MEANS: &str = "bailiwick.credential.means";
/// Whether the agent declares it.
pub const DECLARED: &str = "bailiwick.credential.declared";
/// The entry of the action by which it was read.
pub const ENTRY: &str = "bailiwick.credential.entry";
/// The file or socket.
pub const PATH: &str = "bailiwick.credential.path";
/// The variable.
pub const VARIABLE: &str = "bailiwick.credential.variable";

/// The attributes that name a credential in a finding.
macro_rules! about {
    ($($more:literal),*) => {
        &[
            "bailiwick.credential.name",
            "bailiwick.credential.means",
            "[bailiwick.credential.path]",
            "[bailiwick.credential.variable]",
            $($more),*
        ]
    };
}

/// A credential was not changed in time.
pub const OVERDUE: Finding = Finding {
    event: "finding.credential_overdue",
    meaning: "a declared credential was not changed for longer than `rotate_every`; said once for each change that is overdue",
    attributes: about!("bailiwick.credential.last_changed", "bailiwick.credential.due"),
};

/// An agent read a credential that it does not declare.
pub const UNDECLARED: Finding = Finding {
    event: "finding.credential_undeclared",
    meaning: "an agent read a credential that its declaration does not name: another's, or a well-known one of the catalogue",
    attributes: about!("[bailiwick.credential.declared_by]"),
};

/// More may read a credential than should.
pub const EXPOSED: Finding = Finding {
    event: "finding.credential_exposed",
    meaning: "a credential's file may be read by others than its owner, or several agents read the same credential; said once \
              for a mode, and again when a further agent reads it",
    attributes: about!("[bailiwick.credential.mode]", "[bailiwick.credential.agents]"),
};

/// A credential has a new reader.
pub const NEW_READER: Finding = Finding {
    event: "finding.credential_new_reader",
    meaning: "a credential that had readers was read by an agent, a unit (or another way in which sessions are started) or a \
              program that never read it before",
    attributes: about!("bailiwick.credential.new", "bailiwick.credential.reader"),
};

/// An old handle was used after a rotation.
pub const OLD_HANDLE: Finding = Finding {
    event: "finding.credential_old_handle",
    meaning: "a process read on from a credential's file that had been replaced meanwhile: it goes on with what was rotated away",
    attributes: about!("bailiwick.credential.last_changed"),
};

/// A credential was read, and then something left the scope.
pub const EXFILTRATION: Finding = Finding {
    event: "finding.exfiltration",
    meaning: "a session read a credential and then connected, or tried to, to where its scope does not let it",
    attributes: about!("bailiwick.connection.to"),
};

/// A credential was read, and another host reached.
pub const LATERAL_MOVEMENT: Finding = Finding {
    event: "finding.lateral_movement",
    meaning: "within a minute after a session read a credential it connected, or tried to, to a port where administration happens \
              (`admin` of the catalogue) that is not in scope, or in scope but with a credential that the agent does not declare; \
              or to another host of a private network, out of scope",
    attributes: about!("bailiwick.connection.to"),
};

fn about(finding: &'static Finding, key: String, text: String, name: &str, means: Means, place: &str) -> Found {
    let found = Found::new(finding, key, text).with(NAME, name).with(MEANS, means.as_str());
    match means {
        Means::File | Means::Socket => found.with(PATH, place),
        Means::Environment => found.with(VARIABLE, place),
    }
}

fn of_use(finding: &'static Finding, more: &str, text: String, used: &Use, name: &str) -> Found {
    about(finding, format!("{}:{} {more}", used.means.as_str(), used.place), text, name, used.means, &used.place)
}

/// A credential of that file, changed then, was due.
pub fn overdue(known: &Known, file: &str, changed: Timestamp, due: Timestamp) -> Found {
    let text = format!("'{}' ({file}) was last changed {changed} and was due {due}", known.name);
    about(&OVERDUE, format!("{file} {changed}"), text, &known.name, Means::File, file)
        .with("bailiwick.credential.last_changed", changed.to_string())
        .with("bailiwick.credential.due", due.to_string())
}

/// An agent does not declare what it read.
pub fn undeclared(agent: &str, used: &Use, known: &Known) -> Found {
    let (name, place) = (&known.name, &used.place);
    let by = known.declared_by.join(", ");
    let whose = if by.is_empty() { "nobody declares it".to_owned() } else { format!("{by} does") };
    let text =
        format!("'{agent}' read '{name}' ({place}), which its declaration does not name as a [[credential]]; {whose}");
    let found = of_use(&UNDECLARED, "", text, used, name);
    if by.is_empty() { found } else { found.with("bailiwick.credential.declared_by", known.declared_by.clone()) }
}

/// Others than its owner may read a file.
pub fn readable(name: &str, file: &str, mode: u32) -> Found {
    let text = format!("'{name}' ({file}) may be read by others than its owner: its mode is {mode:04o}; 0600 would do");
    about(&EXPOSED, format!("{file} {mode:o}"), text, name, Means::File, file)
        .with("bailiwick.credential.mode", format!("{mode:04o}"))
}

/// Several agents read the same.
pub fn shared(used: &Use, name: &str, agents: &[String]) -> Found {
    let text = format!("'{name}' ({}) is read by several agents: {}", used.place, agents.join(", "));
    of_use(&EXPOSED, "shared", text, used, name).with("bailiwick.credential.agents", agents.to_vec())
}

/// A reader is new.
pub fn new_reader(agent: &str, used: &Use, name: &str, new: &New) -> Found {
    let (what, who) = match new {
        New::Agent => ("agent", agent),
        New::Unit(via) => ("unit", via.as_str()),
        New::Binary(path) => ("binary", path.as_str()),
    };
    let by = if *new == New::Agent { String::new() } else { format!(" of '{agent}'") };
    let text = format!("'{name}' ({}) was read by the {what} {who}{by} for the first time", used.place);
    of_use(&NEW_READER, &format!("{what} {who}"), text, used, name)
        .with("bailiwick.credential.new", what)
        .with("bailiwick.credential.reader", who)
}

/// A replaced file was read on from.
pub fn old_handle(used: &Use, name: &str, changed: Timestamp) -> Found {
    let text =
        format!("'{name}' ({}) was replaced {changed}, and is still read from a handle opened before", used.place);
    of_use(&OLD_HANDLE, "", text, used, name).with("bailiwick.credential.last_changed", changed.to_string())
}

/// A connection out of scope followed a read.
pub fn exfiltration(agent: &str, read: &Read, to: &str) -> Found {
    let text = format!("'{agent}' read '{}' ({}) and then went out of its scope to {to}", read.name, read.used.place);
    of_use(&EXFILTRATION, to, text, &read.used, &read.name).with("bailiwick.connection.to", to)
}

/// Another host was reached right after a read.
pub fn lateral_movement(agent: &str, read: &Read, to: &str) -> Found {
    let text = format!("'{agent}' read '{}' ({}) and right after that reached {to}", read.name, read.used.place);
    of_use(&LATERAL_MOVEMENT, to, text, &read.used, &read.name).with("bailiwick.connection.to", to)
}
