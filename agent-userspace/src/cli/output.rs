//! Where the command line's output goes.
//!
//! Inputs: text, reports. Outputs: standard output, or a buffer in tests. Refuses: to go on when nobody reads any more, which
//! is no error.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

use super::CliError;
use super::text::is_hostile;

/// Output to standard output or elsewhere.
pub struct Output<'a> {
    writer: Box<dyn Write + 'a>,
    is_stdout: bool,
    is_terminal: bool,
}

/// What a wait came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waited {
    /// There is something to read.
    Readable,
    /// Nobody reads our output any more.
    ReaderLeft,
    /// The time ran out.
    TimedOut,
}

impl<'a> Output<'a> {
    /// Standard output.
    pub fn stdout() -> Self {
        let is_terminal = io::stdout().is_terminal();
        Self { writer: Box::new(BufWriter::new(io::stdout())), is_stdout: true, is_terminal }
    }

    /// Anything else.
    pub fn to(writer: impl Write + 'a) -> Self {
        Self { writer: Box::new(writer), is_stdout: false, is_terminal: false }
    }

    /// Writes text.
    pub fn text(&mut self, text: &str) -> Result<(), CliError> {
        self.writer.write_all(text.as_bytes()).map_err(CliError::Output)
    }

    /// Writes a value as one line of JSON: on a terminal, what would drive it is escaped too, which changes no value.
    pub fn json<T: Serialize>(&mut self, value: &T) -> Result<(), CliError> {
        let written = if self.is_terminal {
            value.serialize(&mut Serializer::with_formatter(&mut self.writer, ForTerminal))
        } else {
            serde_json::to_writer(&mut self.writer, value)
        };
        let written = written.map_err(io::Error::from);
        written.and_then(|()| self.writer.write_all(b"\n")).map_err(CliError::Output)
    }

    /// Lets what was written be seen.
    pub fn flush(&mut self) -> Result<(), CliError> {
        self.writer.flush().map_err(CliError::Output)
    }

    /// Waits until there is something to read, or until nobody reads what we write.
    pub fn wait(&self, input: impl AsFd, at_most: Option<Duration>) -> Result<Waited, CliError> {
        let stdout = io::stdout();
        let mut waiting = vec![PollFd::new(&input, PollFlags::IN)];
        if self.is_stdout {
            // No event is asked for: a pipe whose reader left reports an error by itself.
            waiting.push(PollFd::new(&stdout, PollFlags::empty()));
        }
        let limit = at_most.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        match poll(&mut waiting, limit.as_ref()) {
            Ok(0) => Ok(Waited::TimedOut),
            Err(rustix::io::Errno::INTR) => Ok(Waited::TimedOut),
            Err(error) => Err(CliError::Output(error.into())),
            Ok(_) => {
                let is_readable = waiting.first().is_some_and(|input| !input.revents().is_empty());
                Ok(if is_readable { Waited::Readable } else { Waited::ReaderLeft })
            }
        }
    }
}

/// JSON that can be printed on a terminal.
struct ForTerminal;

impl Formatter for ForTerminal {
    fn write_string_fragment<W: Write + ?Sized>(&mut self, writer: &mut W, fragment: &str) -> io::Result<()> {
        let mut rest = fragment;
        while let Some(at) = rest.find(is_hostile) {
            let (harmless, from) = rest.split_at(at);
            writer.write_all(harmless.as_bytes())?;
            let mut characters = from.chars();
            let mut units = [0_u16; 2];
            for unit in characters.next().iter().flat_map(|hostile| hostile.encode_utf16(&mut units).to_vec()) {
                write!(writer, "\\u{unit:04x}")?;
            }
            rest = characters.as_str();
        }
        writer.write_all(rest.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn json(text: &str, is_terminal: bool) -> String {
        let mut written = Vec::new();
        {
            let mut output = Output::to(&mut written);
            output.is_terminal = is_terminal;
            output.json(&text).unwrap();
        }
        String::from_utf8(written).unwrap()
    }

    #[test]
    fn json_on_a_terminal_escapes_what_would_drive_it_and_means_the_same() {
        let hostile = "a\u{9b}2J\u{202e}b\u{7f}\u{e0041}\u{1b}\"ä";
        let text = json(hostile, true);
        assert_eq!(text, "\"a\\u009b2J\\u202eb\\u007f\\udb40\\udc41\\u001b\\\"ä\"\n");
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), hostile);
    }

    #[test]
    fn json_for_a_program_is_as_the_trail_has_it() {
        assert_eq!(json("\u{202e}", false), "\"\u{202e}\"\n");
    }
}
