//! Declarations as the tests write them.

use std::fmt::Write;
use std::path::Path;

/// A declaration of an agent with what every one must have.
#[derive(Clone, Debug)]
pub struct Declaration {
    name: String,
    text: String,
}

impl Declaration {
    /// An agent that is started by `run` alone, and has no scope.
    ///
    /// # Panics
    ///
    /// Never; writing to a string cannot fail.
    pub fn new(name: &str) -> Self {
        let mut text = String::new();
        writeln!(text, "[agent]\nname = {name:?}\nowner = \"tests@example.com\"\npurpose = \"A test\"").unwrap();
        Self { name: name.to_owned(), text }
    }

    /// A declaration as it stands in a file.
    pub fn of_text(name: &str, text: &str) -> Self {
        Self { name: name.to_owned(), text: text.to_owned() }
    }

    /// Adds lines as they are.
    #[must_use]
    pub fn with(mut self, lines: &str) -> Self {
        self.text.push('\n');
        self.text.push_str(lines);
        self.text.push('\n');
        self
    }

    /// Recognised by this executable.
    #[must_use]
    pub fn executable(self, path: &Path) -> Self {
        self.with(&format!("[[recognise]]\nexecutable = {:?}", path.display().to_string()))
    }

    /// Recognised by this `#!` script.
    #[must_use]
    pub fn script(self, path: &Path) -> Self {
        self.with(&format!("[[recognise]]\nscript = {:?}", path.display().to_string()))
    }

    /// The file it belongs into, below the configuration's directory.
    pub fn file(&self) -> String {
        format!("agents.d/{}.toml", self.name)
    }

    /// Its text.
    pub fn text(&self) -> &str {
        &self.text
    }
}
