//! `[[resource]]`: a name for what matters, and where it is.
//!
//! Input: a section of a declaration. Output: a [`Resource`]; [`crate::resource`] gives entries its name. Refuses one that
//! nothing leads to: it would never be named.

use super::declaration::read_title;
use super::fault::Fault;
use super::reader::Section;
use super::rules::Reading;
use crate::scope::grant::{NetworkRule, PathRule};

/// `[[resource]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resource {
    /// What people call it.
    pub name: String,
    /// The files that it is.
    pub file: Vec<PathRule>,
    /// The Unix sockets where it is reached.
    pub socket: Vec<PathRule>,
    /// The same by abstract names: each pattern is of `/` and the name.
    pub socket_abstract: Vec<PathRule>,
    /// The addresses where it is reached.
    pub address: Vec<NetworkRule>,
    /// The programs that it is, or is used with.
    pub program: Vec<PathRule>,
}

/// Reads a section; none where it has no name.
pub(super) fn read(mut section: Section<'_>, reading: &mut Reading<'_>) -> Option<Resource> {
    let name = read_title(&mut section, "name = \"orders database\"", reading);
    let file = reading.one_or_more_paths(&mut section, "file");
    let sockets = section.one_or_more("socket", &mut reading.problems);
    let (socket, socket_abstract) = reading.sockets(&sockets);
    let addresses = section.one_or_more("address", &mut reading.problems);
    let address = reading.network_rules(addresses);
    let program = reading.one_or_more_paths(&mut section, "program");
    if !["file", "socket", "address", "program"].into_iter().any(|key| section.has(key)) {
        let example = "file = [\"/srv/orders/**\"], or an address, a socket or a program";
        let fault = Fault::MissingKey { section: section.name().to_owned(), key: "file", example };
        reading.fault(&section.origin(), fault);
    }
    section.finish(&mut reading.problems);
    name.map(|name| Resource { name, file, socket, socket_abstract, address, program })
}
