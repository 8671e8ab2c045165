//! `bailiwick check`: whether declarations are right, and which grant decides.
//!
//! Inputs: files, and perhaps a path or address. Outputs: what the configuration's check says; exit code 0 or 2. Needs
//! neither a daemon nor privileges. Refuses: to decide anything itself.

use std::path::PathBuf;

use super::args::CheckArgs;
use super::output::Output;
use super::{BAD_INPUT, CliError, GOOD};

/// Prints what `check` says of the files (its text, and whether they are right) and returns the exit code.
pub fn check(
    args: &CheckArgs,
    output: &mut Output<'_>,
    check: impl FnOnce(&[PathBuf], Option<&str>) -> (String, bool),
) -> Result<u8, CliError> {
    let (text, is_right) = check(&args.files, args.explain.as_deref());
    output.text(&text)?;
    if !text.ends_with('\n') && !text.is_empty() {
        output.text("\n")?;
    }
    Ok(if is_right { GOOD } else { BAD_INPUT })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn checked(is_right: bool) -> (u8, String) {
        let args = CheckArgs { files: vec!["a.toml".into()], explain: Some("10.0.0.1:80".into()) };
        let mut written = Vec::new();
        let say = |files: &[PathBuf], explain: Option<&str>| (format!("{files:?} {}", explain.unwrap()), is_right);
        let code = check(&args, &mut Output::to(&mut written), say).unwrap();
        (code, String::from_utf8(written).unwrap())
    }

    #[test]
    fn a_wrong_declaration_exits_with_2() {
        assert_eq!(checked(false).0, 2);
    }

    #[test]
    fn what_is_said_ends_with_a_line() {
        assert_eq!(checked(true), (0, "[\"a.toml\"] 10.0.0.1:80\n".to_owned()));
    }
}
