//! Command lines: secrets that are known by the argument before them, or by the program that is run.
//!
//! Input: the arguments. Output: pieces of them, in the order of the arguments.

use std::ops::Range;

use super::patterns::{Known, is_value};

/// An option that takes a password and does not say so.
struct Telling {
    /// Base names of the programs: one of them stands before the option, first or behind `sudo`, `env`, `timeout`.
    programs: &'static [&'static str],
    options: &'static [&'static str],
    /// Whether the value may stand in the same argument: `-pSECRET`.
    attached: bool,
    /// What must stand in the value for it to be one.
    within: &'static str,
    /// A word that must stand before, as a subcommand.
    after: &'static str,
}

const TELLING: [Telling; 7] = [
    Telling {
        programs: &["curl", "wget", "http", "https", "xh", "xhs"],
        options: &["-u", "-U", "-a", "--user", "--proxy-user", "--auth"],
        attached: true,
        within: ":",
        after: "",
    },
    Telling { programs: &["curl"], options: &["-b", "--cookie"], attached: false, within: "=", after: "" },
    Telling {
        programs: &[
            "mysql",
            "mysqldump",
            "mysqladmin",
            "mysqlimport",
            "mariadb",
            "mariadb-dump",
            "mariadb-admin",
            "7z",
        ],
        options: &["-p"],
        attached: true,
        within: "",
        after: "",
    },
    Telling { programs: &["sshpass"], options: &["-p"], attached: true, within: "", after: "" },
    Telling { programs: &["redis-cli"], options: &["-a"], attached: false, within: "", after: "" },
    Telling {
        programs: &["docker", "podman", "helm", "az", "buildah", "skopeo", "oc"],
        options: &["-p"],
        attached: false,
        within: "",
        after: "login",
    },
    Telling {
        programs: &["ldapsearch", "ldapmodify", "ldapadd"],
        options: &["-w"],
        attached: false,
        within: "",
        after: "",
    },
];

/// Of these programs an option's value is never an argument of its own.
const ATTACHED_ONLY: [&str; 8] =
    ["mysql", "mysqldump", "mysqladmin", "mysqlimport", "mariadb", "mariadb-dump", "mariadb-admin", "7z"];
/// Programs of which `-e` is followed by a script.
const INTERPRETERS: [&str; 7] = ["node", "perl", "ruby", "php", "deno", "bun", "lua"];
/// A program that runs another has it among its first arguments.
const MOST_BEFORE_PROGRAM: usize = 16;

/// What is known to be secret by its place.
pub(super) fn find(known: &Known, arguments: &[&str]) -> Vec<(usize, Range<usize>)> {
    let programs: Vec<&str> = arguments.iter().take(MOST_BEFORE_PROGRAM).map(|argument| base_name(argument)).collect();
    let mut found = Vec::new();
    for (index, argument) in arguments.iter().enumerate() {
        let before = index.checked_sub(1).and_then(|before| arguments.get(before)).copied().unwrap_or_default();
        let earlier = arguments.get(..index).unwrap_or_default();
        let here = programs.get(..index.min(programs.len())).unwrap_or_default();
        let piece = after_option(known, before, argument)
            .or_else(|| assigned(known, here, before, argument))
            .or_else(|| TELLING.iter().find_map(|telling| told(telling, here, earlier, before, argument)));
        found.extend(piece.map(|piece| (index, piece)));
    }
    found
}

fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// `--password X`.
fn after_option(known: &Known, before: &str, argument: &str) -> Option<Range<usize>> {
    let takes = known.is_option(before.as_bytes()) && !before.starts_with("--no-") && !before.starts_with("--with-");
    (takes && is_argument(argument)).then_some(0..argument.len())
}

/// A value, not the next option: `-x`, `--long`.
fn is_argument(argument: &str) -> bool {
    let is_option = argument.starts_with("--") || (argument.starts_with('-') && argument.len() == 2);
    !is_option && is_value(argument.as_bytes())
}

/// `--password=X`, `FOO_TOKEN=X`, `--env=FOO_TOKEN=X`: all that is left of the argument, whatever stands in it. In a script
/// it is a word of many.
fn assigned(known: &Known, programs: &[&str], before: &str, argument: &str) -> Option<Range<usize>> {
    if argument.contains(char::is_whitespace) && is_before_script(programs, before) {
        return None;
    }
    let mut end = 0;
    // The second `=` at most: behind it nothing is a name any more.
    for _ in 0..2 {
        let length = argument.get(end..)?.find('=')?;
        let name = argument.get(end..end + length)?.trim_start_matches('-');
        end += length + 1;
        if known.names_secret(name.as_bytes()) {
            let value = argument.get(end..)?;
            return is_value(value.as_bytes()).then_some(end..argument.len());
        }
    }
    None
}

/// `-c`, `-lc`; `-e` where the program is an interpreter.
fn is_before_script(programs: &[&str], before: &str) -> bool {
    let letters = before.strip_prefix('-').unwrap_or_default();
    let are_letters = !letters.is_empty() && letters.chars().all(|letter| letter.is_ascii_alphabetic());
    let interprets = || programs.iter().any(|program| INTERPRETERS.contains(program));
    (are_letters && letters.ends_with('c'))
        || (interprets() && ((are_letters && letters.ends_with(['e', 'r', 'p'])) || before == "--eval"))
}

fn told(telling: &Telling, programs: &[&str], earlier: &[&str], before: &str, argument: &str) -> Option<Range<usize>> {
    let program = programs.iter().find(|program| telling.programs.contains(program))?;
    if !telling.after.is_empty() && !earlier.contains(&telling.after) {
        return None;
    }
    let is_secret = |value: &str| value.contains(telling.within) && is_value(value.as_bytes());
    if telling.options.contains(&before) && !ATTACHED_ONLY.contains(program) {
        return (is_argument(argument) && is_secret(argument)).then_some(0..argument.len());
    }
    let attached = |option: &&str| {
        let value = argument.strip_prefix(*option)?;
        let value = if option.starts_with("--") { value.strip_prefix('=')? } else { value };
        (!value.is_empty() && is_secret(value)).then(|| argument.len() - value.len()..argument.len())
    };
    if telling.attached { telling.options.iter().find_map(attached) } else { None }
}
