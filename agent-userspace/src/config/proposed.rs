//! A configuration with one declaration in the place of another: what history is replayed against.
//!
//! Input: a declaration's file, and the directory of the configuration in force. Output: the [`Config`] as it would be with
//! that declaration, and its agent's name. The declaration takes the place of the file itself and of any other that declares
//! the same agent. Where there is no such directory, it stands alone beside the grant sets that ship.

use std::path::Path;

use super::fault::{ConfigErrors, Fault, Problem};
use super::host::{Host, ThisHost};
use super::source::{SourceFile, is_there};
use super::{Config, Sources};

impl Config {
    /// The configuration of `directory` with this declaration in it, and whose it is.
    ///
    /// # Errors
    /// Everything that is wrong with any of the files.
    pub fn with_proposed(file: &Path, directory: &Path) -> Result<(Self, String), ConfigErrors> {
        let source = SourceFile::read(file).map_err(|problem| ConfigErrors(vec![problem]))?;
        Self::with_proposed_source(source, directory, &ThisHost)
    }

    /// The same for a declaration that stands in no file yet.
    ///
    /// # Errors
    /// Everything that is wrong with any of the files.
    pub fn with_proposed_text(name: &str, text: &str, directory: &Path) -> Result<(Self, String), ConfigErrors> {
        Self::with_proposed_source(SourceFile::of_text(name, text), directory, &ThisHost)
    }

    fn with_proposed_source(
        proposed: SourceFile,
        directory: &Path,
        host: &dyn Host,
    ) -> Result<(Self, String), ConfigErrors> {
        let mut sources = if is_there(directory) {
            Sources::of_directory(directory)?
        } else {
            Sources { partial: true, ..Sources::default() }
        };
        let agent = agent_of(proposed.text());
        let is_other = |known: &SourceFile| {
            let same_file = known.name() == proposed.name();
            let same_agent = agent.is_some() && agent_of(known.text()) == agent;
            !same_file && !same_agent
        };
        sources.declarations.retain(is_other);
        let name = proposed.name().to_string();
        sources.declarations.push(proposed);
        let config = sources.load(host)?;
        match agent {
            Some(agent) if config.declaration(&agent).is_some() => Ok((config, agent)),
            Some(_) | None => Err(ConfigErrors(vec![Problem::of_file(&name, Fault::NoKind)])),
        }
    }
}

/// The agent that a declaration's text names, whether it is right otherwise or not.
fn agent_of(text: &str) -> Option<String> {
    let table: toml::Table = text.parse().ok()?;
    table.get("agent")?.get("name")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const AGENT: &str = "[agent]\nname = \"shop\"\nowner = \"o\"\n[scope.files]\nread = [\"/srv/**\"]\n";

    fn directory(declaration: &str) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("agents.d")).unwrap();
        std::fs::write(directory.path().join("agents.d/a.toml"), declaration).unwrap();
        directory
    }

    #[test]
    fn a_proposed_declaration_takes_the_place_of_the_agents_own() {
        let directory = directory(AGENT);
        let (config, agent) =
            Config::with_proposed_text("new.toml", &AGENT.replace("/srv", "/opt"), directory.path()).unwrap();
        assert_eq!((agent.as_str(), config.declarations.len()), ("shop", 1));
        let declared = config.declaration("shop").unwrap().declared_scope.as_ref().unwrap();
        assert_eq!(declared.rules.read[0].pattern.text(), "/opt/**");
    }

    #[test]
    fn where_nothing_is_configured_it_stands_alone() {
        let (config, _) = Config::with_proposed_text("new.toml", AGENT, Path::new("/nonexistent/x")).unwrap();
        assert_eq!(config.declarations.len(), 1);
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place_and_what_declares_no_agent_is_refused() {
        let directory = directory(AGENT);
        let wrong = Config::with_proposed_text("new.toml", &AGENT.replace("/srv", "srv"), directory.path());
        assert!(wrong.unwrap_err().to_string().contains("new.toml:5:9"));
        let nobody = Config::with_proposed_text("new.toml", "[set]\nname = \"x\"\n", directory.path());
        assert!(nobody.unwrap_err().to_string().contains("new.toml"));
    }
}
