//! `[[credential]]`: a secret, where it lies, and how often it must be changed.
//!
//! Input: a section of a declaration, or of the catalogue of well-known ones. Output: a [`Credential`]. Refuses a declared file
//! that is not there: a path with a mistake in it would watch over nothing. What the catalogue names need not be there.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::declaration::{read_duration, read_title};
use super::fault::Fault;
use super::reader::Section;
use super::rules::Reading;
use super::settings::environment_keys;
use crate::scope::grant::{Origin, PathRule};
use crate::scope::pattern::PathPattern;

/// `[[credential]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credential {
    /// What people call it.
    pub name: String,
    /// Where it stands.
    pub origin: Origin,
    /// The files that hold it.
    pub file: Vec<PathRule>,
    /// Files that do not, though `file` covers them.
    pub except: Vec<PathPattern>,
    /// The Unix sockets behind which it lies.
    pub socket: Vec<PathRule>,
    /// The same by abstract names: each pattern is of `/` and the name.
    pub socket_abstract: Vec<PathRule>,
    /// The environment variables that hold it.
    pub environment: Vec<String>,
    /// How often it must be changed.
    pub rotate_every: Option<Duration>,
}

/// Reads a declared credential; none where it has no name.
fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Option<Credential> {
    let credential = read_common(&mut section, reading);
    section.finish(&mut reading.problems);
    let credential = credential?;
    credential.file.iter().for_each(|rule| refuse_missing(rule, reading));
    Some(credential)
}

/// Reads the credentials of a declaration. Two of one name are one too many.
pub(super) fn read_all(sections: Vec<Section<'_>>, reading: &mut Reading<'_>) -> Vec<Credential> {
    let mut credentials: Vec<Credential> = Vec::new();
    for section in sections {
        let Some(credential) = read(section, reading) else { continue };
        keep_one(&mut credentials, credential, reading);
    }
    credentials
}

/// Adds a credential to those of its file, or reports that its name is taken.
pub(super) fn keep_one(credentials: &mut Vec<Credential>, credential: Credential, reading: &mut Reading<'_>) {
    match credentials.iter().find(|known| known.name == credential.name) {
        Some(first) => {
            let (name, first) = (credential.name.clone(), first.origin.clone());
            reading.fault(&credential.origin, Fault::DuplicateCredential { name, first });
        }
        None => credentials.push(credential),
    }
}

/// Reads a credential of the catalogue; none where it has no name.
pub(super) fn read_well_known(mut section: Section<'_>, reading: &mut Reading<'_>) -> Option<Credential> {
    let credential = read_common(&mut section, reading);
    let except = reading.one_or_more_paths(&mut section, "except");
    section.finish(&mut reading.problems);
    let except = except.into_iter().map(|rule| rule.pattern).collect();
    credential.map(|credential| Credential { except, ..credential })
}

fn read_common(section: &mut Section<'_>, reading: &mut Reading<'_>) -> Option<Credential> {
    let origin = section.origin();
    let name = read_title(section, "name = \"model-api-key\"", reading);
    let file = reading.one_or_more_paths(section, "file");
    let sockets = section.one_or_more("socket", &mut reading.problems);
    let (socket, socket_abstract) = reading.sockets(&sockets);
    let environment = section.one_or_more("environment", &mut reading.problems);
    let environment = environment_keys(&environment, section, &mut reading.problems);
    let rotate_every = read_duration(section, "rotate_every", reading);
    if !["file", "socket", "environment"].into_iter().any(|key| section.has(key)) {
        let example = "file = \"/etc/keys/model\", or a socket or environment variable";
        let fault = Fault::MissingKey { section: section.name().to_owned(), key: "file", example };
        reading.fault(&origin, fault);
    }
    let name = name?;
    Some(Credential { name, origin, file, except: Vec::new(), socket, socket_abstract, environment, rotate_every })
}

fn refuse_missing(rule: &PathRule, reading: &mut Reading<'_>) {
    let Some(path) = rule.pattern.as_literal() else { return };
    if let Err(error) = reading.host.canonicalize(Path::new(path))
        && error.kind() == io::ErrorKind::NotFound
    {
        reading.fault(&rule.origin, Fault::NoCredential(path.to_owned()));
    }
}
