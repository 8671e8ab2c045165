//! Names that will be others the next time: ids of processes, versions, names drawn at random.
//!
//! Input: the components of a path, and which of its beginnings the session itself made. Output: the components of a pattern,
//! as narrow as will do. Only what a session itself made counts as drawn at random: what was there before it keeps its name.
//! Pure. Refuses to make a glob with more than one `*`, which would not be found fast.

use crate::redact::REDACTED;

/// Why a component is no literal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Why {
    /// A process's or a thread's id, a descriptor, a terminal's number.
    Number,
    /// A version.
    Version,
    /// A name that the session drew at random.
    Drawn,
    /// A secret stood there.
    Redacted,
    /// A byte that no pattern can hold.
    Bytes,
}

/// A component of a pattern, and why it is no literal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shaped {
    pub(super) text: String,
    pub(super) why: Option<Why>,
}

/// What is known of a path beside its name.
pub(super) struct Known<'a> {
    /// Whether the session made what lies at the path of the first so many components.
    pub(super) made: &'a dyn Fn(usize) -> bool,
    /// Whether it is a program: its own name may have a version in it.
    pub(super) is_program: bool,
    /// Whether a secret was redacted in it.
    pub(super) is_redacted: bool,
}

/// The pattern of a path's components.
pub(super) fn shaped(components: &[&[u8]], known: &Known<'_>) -> Vec<Shaped> {
    let of = |(at, name): (usize, &&[u8])| {
        let is_last = at + 1 == components.len();
        let text = String::from_utf8_lossy(name);
        if is_number_of_a_process(components, at) {
            return Shaped { text: "[0-9]*".to_owned(), why: Some(Why::Number) };
        }
        if known.is_redacted && text.contains(REDACTED) {
            return Shaped { text: around_redacted(&text), why: Some(Why::Redacted) };
        }
        if (known.made)(at + 1)
            && let Some(glob) = drawn(name).or_else(|| probe(components.get(..at).unwrap_or_default(), name))
        {
            return Shaped { text: glob, why: Some(Why::Drawn) };
        }
        if (!is_last || known.is_program)
            && let Some(glob) = versioned(name)
        {
            return Shaped { text: glob, why: Some(Why::Version) };
        }
        let literal = literal(name);
        let why = (literal.contains('?') && !text.contains('?')).then_some(Why::Bytes);
        Shaped { text: literal, why }
    };
    components.iter().enumerate().map(of).collect()
}

/// `/proc/PID`, `/proc/PID/task/TID`, `/proc/PID/fd/N`, `/dev/pts/N`.
fn is_number_of_a_process(components: &[&[u8]], at: usize) -> bool {
    let is_number = components.get(at).is_some_and(|name| !name.is_empty() && name.iter().all(u8::is_ascii_digit));
    let before: Vec<&[u8]> = components.iter().take(at).copied().collect();
    is_number
        && match before.as_slice() {
            [b"proc"] | [b"dev", b"pts"] => true,
            [b"proc", _, below] => matches!(*below, b"task" | b"fd" | b"fdinfo" | b"map_files"),
            [b"proc", _, b"task", _, below] => matches!(*below, b"fd" | b"fdinfo"),
            _ => false,
        }
}

/// A name that was drawn at random, as a glob: what is before the first drawn part and after the last stays.
pub(super) fn drawn(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name).ok().filter(|text| text.is_ascii())?;
    let mut first = None;
    let mut last = 0;
    let mut start = 0;
    for (end, byte) in text.bytes().chain([b'.']).enumerate() {
        if !matches!(byte, b'.' | b'-' | b'_') {
            continue;
        }
        let part = text.get(start..end).unwrap_or_default();
        if let Some(from) = drawn_from(part) {
            first.get_or_insert(start + from);
            last = end;
        }
        start = end + 1;
    }
    let parts = first.map(|first| glob(text, first, last));
    parts.or_else(|| temporary(text).map(|(from, to)| glob(text, from, to)))
}

/// The name by which Python tries whether a directory for temporary files can be written to: eight characters, nothing else.
/// Words may look alike: a digit tells, as nine of ten such names have one.
fn probe(directory: &[&[u8]], name: &[u8]) -> Option<String> {
    const LENGTH: usize = 8;
    let is_temporary = matches!(directory, [b"tmp"] | [b"var" | b"usr", b"tmp"] | [b"dev", b"shm"]);
    let is_drawn = name.len() == LENGTH
        && name.iter().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'_')
        && name.iter().any(u8::is_ascii_digit);
    (is_temporary && is_drawn).then(|| "?".repeat(LENGTH))
}

/// Where the drawn characters stand in a name that begins as temporary ones do: six to twelve of them.
fn temporary(text: &str) -> Option<(usize, usize)> {
    const BEGINNINGS: [&str; 8] = ["tmp", "temp", ".tmp", "_temp", "sed", "pip-", "npm-", "sh-thd."];
    let is_drawn = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let stem = text.find('.').filter(|dot| *dot > 0).unwrap_or(text.len());
    // What the C compiler's driver makes.
    if stem == 8 && text.starts_with("cc") && text.get(2..stem).is_some_and(is_drawn) {
        return Some((2, stem));
    }
    let begin = BEGINNINGS.iter().find(|begin| text.starts_with(**begin))?;
    let rest = text.get(begin.len()..)?;
    ((6..=12).contains(&rest.len()) && is_drawn(rest)).then_some((begin.len(), text.len()))
}

/// Where in a part of a name the drawn characters begin: a long number, hexadecimal digits, or six characters as `mkstemp`
/// draws them. Words with capitals are none.
fn drawn_from(part: &str) -> Option<usize> {
    let is = |test: fn(&u8) -> bool| part.as_bytes().iter().any(test);
    if part.len() >= 3 && part.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(0);
    }
    let has_both = is(u8::is_ascii_digit) && is(u8::is_ascii_alphabetic);
    if part.len() >= 8 && part.bytes().all(|byte| byte.is_ascii_hexdigit()) && has_both {
        return Some(0);
    }
    if part.len() >= 16 && has_both {
        return Some(0);
    }
    let from = part.len().checked_sub(6)?;
    let tail = part.as_bytes().get(from..)?;
    let kind = |byte: &u8| (byte.is_ascii_digit(), byte.is_ascii_uppercase(), byte.is_ascii_lowercase());
    let turns = tail.windows(2).filter(|pair| pair.first().map(kind) != pair.last().map(kind)).count();
    let has_capital = tail.iter().any(u8::is_ascii_uppercase);
    (tail.iter().all(u8::is_ascii_alphanumeric) && has_capital && turns >= if has_both { 2 } else { 4 }).then_some(from)
}

fn glob(text: &str, from: usize, to: usize) -> String {
    let side = |part: Option<&str>| literal(part.unwrap_or_default().as_bytes());
    format!("{}*{}", side(text.get(..from)), side(text.get(to..)))
}

/// A name with a version in it, as a glob: the first number stays.
fn versioned(name: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(name).ok()?;
    let digits_at = |from: usize| text.bytes().skip(from).take_while(u8::is_ascii_digit).count();
    let mut at = 0;
    while at < text.len() {
        let major = digits_at(at);
        if major == 0 {
            at += 1;
            continue;
        }
        let dot = at + major;
        let mut end = dot;
        while text.as_bytes().get(end) == Some(&b'.') && digits_at(end + 1) > 0 {
            end += 1 + digits_at(end + 1);
        }
        if end > dot {
            let (before, after) = (text.get(..=dot)?, text.get(end..)?);
            return Some(format!("{}[0-9]*{}", literal(before.as_bytes()), literal(after.as_bytes())));
        }
        at = dot;
    }
    None
}

/// A redacted name: `*` for the secret and what lies between several.
fn around_redacted(text: &str) -> String {
    let (before, rest) = text.split_once(REDACTED).unwrap_or((text, ""));
    let after = rest.rsplit_once(REDACTED).map_or(rest, |(_, after)| after);
    format!("{}*{}", literal(before.as_bytes()), literal(after.as_bytes()))
}

/// The pattern that matches exactly these bytes; a byte that is no UTF-8, or a control character, becomes `?`.
pub(super) fn literal(bytes: &[u8]) -> String {
    let mut pattern = String::new();
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            match character {
                '*' | '?' | '[' => pattern.extend(['[', character, ']']),
                control if control.is_control() => pattern.push('?'),
                plain => pattern.push(plain),
            }
        }
        pattern.extend(chunk.invalid().iter().map(|_| '?'));
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(path: &str, made_from: usize, is_program: bool) -> String {
        let components: Vec<&[u8]> = path.split('/').skip(1).map(str::as_bytes).collect();
        let made = |length: usize| length >= made_from;
        let known = Known { made: &made, is_program, is_redacted: path.contains(REDACTED) };
        shaped(&components, &known).iter().map(|shaped| format!("/{}", shaped.text)).collect()
    }

    #[test]
    fn ids_of_processes_and_versions_are_not_kept() {
        for (path, expected) in [
            ("/proc/1234/status", "/proc/[0-9]*/status"),
            ("/proc/1/task/22/comm", "/proc/[0-9]*/task/[0-9]*/comm"),
            ("/proc/sys/kernel/cap_last_cap", "/proc/sys/kernel/cap_last_cap"),
            ("/dev/pts/3", "/dev/pts/[0-9]*"),
            ("/opt/tool-1.2.3/bin/x", "/opt/tool-1.[0-9]*/bin/x"),
            ("/usr/lib/python3.13/os.py", "/usr/lib/python3.[0-9]*/os.py"),
            ("/srv/report-1.2.txt", "/srv/report-1.2.txt"),
            ("/srv/12/x", "/srv/12/x"),
        ] {
            assert_eq!(pattern(path, 99, false), expected);
        }
        assert_eq!(pattern("/usr/bin/python3.13", 99, true), "/usr/bin/python3.[0-9]*");
    }

    #[test]
    fn a_name_that_the_session_drew_is_a_glob_and_one_that_was_there_before_is_not() {
        for (path, expected) in [
            ("/tmp/tmpab12_x9z", "/tmp/tmp*"),
            ("/srv/sedAb12Cd", "/srv/sed*"),
            ("/tmp/1od1mzkz", "/tmp/????????"),
            ("/var/tmp/x7_c0vvp", "/var/tmp/????????"),
            ("/srv/1od1mzkz", "/srv/1od1mzkz"),
            ("/tmp/deadline", "/tmp/deadline"),
            ("/tmp/sh-thd.123456", "/tmp/sh-thd.*"),
            ("/x/tmp_obj_AbCdEf", "/x/tmp_obj_*"),
            ("/x/calc.cpython-313.pyc.139832911", "/x/calc.cpython-*"),
            ("/x/0a1b2c3d-1111-2222-3333-0a1b2c3d4e5f.json", "/x/*.json"),
            ("/x/Makefile", "/x/Makefile"),
            ("/x/README.md", "/x/README.md"),
            ("/x/ReadMe.md", "/x/ReadMe.md"),
            ("/x/index.lock", "/x/index.lock"),
            ("/x/test_calc.py", "/x/test_calc.py"),
            ("/x/sedentary.txt", "/x/sedentary.txt"),
            ("/x/[a]*", "/x/[[]a][*]"),
        ] {
            assert_eq!(pattern(path, 2, false), expected);
        }
        assert_eq!(pattern("/tmp/tmpab12_x9z/a", 3, false), "/tmp/tmpab12_x9z/a");
    }

    #[test]
    fn a_redacted_name_keeps_what_is_around_the_secret() {
        assert_eq!(pattern("/tmp/ghp_[redacted].txt/x", 99, false), "/tmp/ghp_*.txt/x");
        assert_eq!(pattern("/tmp/[redacted]-[redacted]", 99, false), "/tmp/*");
    }

    #[test]
    fn bytes_that_no_pattern_holds_are_one_character_each() {
        assert_eq!(literal(b"a\xff\nb"), "a??b");
    }
}
