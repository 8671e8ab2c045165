//! The catalogue: credentials that are well known, so that one in use is found though nobody declared it.
//!
//! Input: the catalogue that ships, and `credentials.toml` of the configuration's directory, which adds to it. Output: a
//! [`WellKnown`]. Refuses two entries of one name in a file; an entry of the host's own with a shipped one's name takes its
//! place, and says so.

use super::credential::{self, Credential};
use super::reader::Section;
use super::rules::Reading;
use super::source::SourceFile;
use crate::scope::grant::NetworkRule;

/// The catalogue that ships with the daemon.
pub const SHIPPED: (&str, &str) = ("catalogue/credentials.toml", include_str!("../../catalogue/credentials.toml"));

/// The host's own file, in the configuration's directory.
pub(super) const FILE: &str = "credentials.toml";

/// Well-known credentials, and where administration happens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WellKnown {
    /// The credentials, the host's own first.
    pub credentials: Vec<Credential>,
    /// Ports where administration happens.
    pub admin: Vec<NetworkRule>,
}

/// One file of the catalogue.
#[derive(Debug)]
pub(super) struct WellKnownFile {
    /// Whether what ships counts as well.
    shipped: bool,
    admin: Option<Vec<NetworkRule>>,
    credentials: Vec<Credential>,
}

/// The catalogue that ships, as a file.
pub(super) fn shipped_source() -> SourceFile {
    SourceFile::shipped(SHIPPED.0, SHIPPED.1)
}

/// Reads a file of the catalogue.
pub(super) fn read(mut top: Section<'_>, reading: &mut Reading<'_>) -> Option<WellKnownFile> {
    let mut file = WellKnownFile { shipped: true, admin: None, credentials: Vec::new() };
    if let Some(mut section) = top.section("catalogue", "[catalogue]", &mut reading.problems) {
        file.shipped = section.boolean("shipped", &mut reading.problems).is_none_or(|shipped| shipped.value);
        if section.has("admin") {
            file.admin = Some(reading.addresses(&mut section, "admin"));
        }
        section.finish(&mut reading.problems);
    }
    for section in top.sections("credential", "[[credential]]", &mut reading.problems) {
        let Some(credential) = credential::read_well_known(section, reading) else { continue };
        credential::keep_one(&mut file.credentials, credential, reading);
    }
    top.finish(&mut reading.problems);
    Some(file)
}

impl WellKnown {
    /// What ships, and what the host adds to it.
    pub(super) fn of(shipped: Option<WellKnownFile>, own: Option<WellKnownFile>, reading: &mut Reading<'_>) -> Self {
        let Some(own) = own else {
            return shipped.map_or_else(Self::default, |file| Self {
                credentials: file.credentials,
                admin: file.admin.unwrap_or_default(),
            });
        };
        let shipped = shipped.filter(|_| own.shipped);
        let mut credentials = own.credentials;
        let mut admin = own.admin;
        for credential in shipped.into_iter().flat_map(|file| {
            admin = admin.take().or(file.admin);
            file.credentials
        }) {
            match credentials.iter().find(|known| known.name == credential.name) {
                Some(own) => {
                    let text = format!("`{}` takes the place of the one that ships", own.name);
                    let origin = own.origin.clone();
                    reading.note(&origin, text);
                }
                None => credentials.push(credential),
            }
        }
        Self { credentials, admin: admin.unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use std::path::Path;

    use crate::config::Config;
    use crate::config::check::check;

    fn directory(catalogue: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("credentials.toml"), catalogue).unwrap();
        directory
    }

    fn name(config: &Config, path: &str) -> Option<String> {
        let found = config.credentials.at("a", crate::credential::table::Means::File, path.as_bytes())?;
        config.credentials.get(found.0).map(|known| known.name.clone())
    }

    #[test]
    fn what_the_host_adds_counts_beside_what_ships_takes_its_place_or_stands_alone() {
        let own = "[[credential]]\nname = \"badge\"\nfile = \"**/badge\"\n\
            [[credential]]\nname = \"environment file\"\nfile = \"**/env\"\n";
        let load = |text: &str| Config::load(Some(directory(text).path())).unwrap();
        let config = load(own);
        assert_eq!(name(&config, "/x/badge").as_deref(), Some("badge"));
        assert_eq!(name(&config, "/x/env").as_deref(), Some("environment file"));
        assert_eq!(name(&config, "/x/.env"), None, "its place was taken");
        assert_eq!(name(&config, "/etc/shadow").as_deref(), Some("password hashes of the host"));
        assert!(config.notes.iter().any(|note| note.text.contains("takes the place of the one that ships")));
        let config = load(&format!("[catalogue]\nshipped = false\n{own}"));
        assert_eq!(name(&config, "/etc/shadow"), None);
    }

    #[test]
    fn what_is_wrong_with_a_catalogue_is_told_with_its_line() {
        for (text, expected) in [
            (
                "[[credential]]\nname = \"b\"\nfiel = \"/b\"",
                "credentials.toml:3:1: `fiel` is not a key of [[credential]]",
            ),
            ("[[credential]]\nname = \"b\"", "credentials.toml:1:1: [[credential]] has no `file`; add file = "),
            ("[[credential]]\nname = \"b\"\nfile = \"b\"", "credentials.toml:3:8: \"b\" is not absolute"),
            ("[catalogue]\nadmin = [\"*\"]", "credentials.toml:2:10: \"*\" has no port"),
            (
                "[[credential]]\nname = \"b\"\nfile = \"/b\"\n[[credential]]\nname = \"b\"\nfile = \"/c\"",
                "credentials.toml:4:1: the credential `b` stands at ",
            ),
        ] {
            let directory = directory(text);
            let errors = Config::load(Some(directory.path())).unwrap_err().to_string();
            assert!(errors.contains(expected), "{errors}");
            let checked = check(&[directory.path().join("credentials.toml")], None);
            assert!(!checked.ok && checked.text.contains(expected), "{}", checked.text);
        }
    }

    #[test]
    fn a_catalogue_alone_is_a_configuration_and_is_checked() {
        let directory = directory("[catalogue]\nadmin = [\"*:2222\"]\n");
        let checked = check(&[Path::new(directory.path()).to_owned()], None);
        assert!(checked.ok, "{}", checked.text);
    }
}
