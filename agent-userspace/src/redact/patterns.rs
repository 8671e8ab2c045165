//! Secrets of a known form, and values that stand behind a name which says that they are secret.
//!
//! Input: bytes of a text. Output: where the secrets stand in it. One pass looks for *anchors*, short literals of which
//! one stands in whatever a row can match; only the rows of those that were found are tried. Ordinary texts have none.

use std::ops::Range;

use aho_corasick::{AhoCorasick, AhoCorasickKind};

use super::expression::{BadExpression, Expression};
use super::{REDACTED, RedactError};

/// What is looked for: an expression, and the literals without which it cannot match. In an expression with groups each
/// group is a secret; in one without, all that is matched. `NAME`, `QUOTED` and `BARE` stand for the texts below.
struct Row {
    anchors: &'static [&'static str],
    expression: &'static str,
    worth: Worth,
}

/// Whether what was found is worth redacting.
type Worth = fn(&[u8]) -> bool;

/// A name whose value is secret, whatever stands before it: `GITHUB_TOKEN`, `clientSecret`, `db.password`.
const NAME: &str = "(?:[a-z0-9_.-]*(?:password|passwd|passphrase|token|secret|credentials?|secret_key_base|(?:api|access|\
    secret|private|auth|account|encryption|signing|session)[_.-]?key)|(?:[a-z0-9_.-]*[_.-])?pass|[a-z0-9_.-]*[_.-](?:pwd|auth))";
/// A value in quotes, which may be escaped themselves, as in JSON within JSON. An argument that was cut has no second quote.
const QUOTED: &str = r#"(?:\\"((?:[^"\\]|\\[^"])+)|"((?:[^"\\]|\\.)+)|'([^']+))"#;
/// A value without quotes. In a URL `&` begins the next one; in a shell these end a word.
const BARE: &str = r#"([^\s'"&|<>=][^\s'"&|<>]*)"#;
/// What may make a command line of another out of an argument: the beginning, white space, a quote, a bracket.
const BEFORE_OPTION: &str = r#"(?:^|[\s'"(\[,])"#;

const NAMES: &[&str] = &["pass", "token", "secret", "credential", "key", "pwd", "auth"];

const ROWS: &[Row] = &[
    // Keys that their makers gave a prefix, so that they are found.
    Row {
        anchors: &[
            "akia",
            "asia",
            "abia",
            "acca",
            "ghp_",
            "gho_",
            "ghu_",
            "ghs_",
            "ghr_",
            "github_pat_",
            "glpat-",
            "gldt-",
            "glrt-",
            "glcbt-",
            "glptt-",
            "glft-",
            "glsoat-",
            "aiza",
            "ya29.",
            "gocspx-",
            "npm_",
            "hf_",
            "dop_v1_",
            "doo_v1_",
            "dor_v1_",
            "dapi",
            "hvs.",
            "hvb.",
            "hvr.",
            "dckr_",
            "gsk_",
            "shpat_",
            "shpca_",
            "shppa_",
            "shpss_",
            "glsa_",
            "lin_api_",
            "pscale_",
            "rubygems_",
            "age-secret-key-1",
            "atatt3",
            "pmak-",
            "nrak-",
            "r8_",
            "sg.",
            ":aa",
            "whsec_",
            "_live_",
            "_test_",
        ],
        expression: r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}|gh[pousr]_[A-Za-z0-9]{16,}|github_pat_[A-Za-z0-9_]{16,}|gl(?:pat|dt|rt|cbt|ptt|ft|soat)-[A-Za-z0-9_.-]{16,}|AIza[A-Za-z0-9_-]{30,}|ya29\.[A-Za-z0-9_-]{16,}|GOCSPX-[A-Za-z0-9_-]{16,}|npm_[A-Za-z0-9]{30,}|hf_[A-Za-z0-9]{30,}|do[opr]_v1_[a-f0-9]{32,}|dapi[a-f0-9]{32}|hv[sbr]\.[A-Za-z0-9_-]{16,}|dckr_(?:pat|oat)_[A-Za-z0-9_-]{16,}|gsk_[A-Za-z0-9]{30,}|shp(?:at|ca|pa|ss)_[A-Fa-f0-9]{32}|glsa_[A-Za-z0-9_]{24,}|lin_api_[A-Za-z0-9]{24,}|pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.-]{16,}|rubygems_[a-f0-9]{32,}|AGE-SECRET-KEY-1[A-Z0-9]{40,}|ATATT3[A-Za-z0-9_=-]{30,}|PMAK-[A-Za-z0-9-]{30,}|NRAK-[A-Z0-9]{20,}|r8_[A-Za-z0-9]{30,}|SG\.[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}|[0-9]{8,10}:AA[A-Za-z0-9_-]{30,}|whsec_[A-Za-z0-9+/=]{24,}|[rsp]k_(?:live|test)_[A-Za-z0-9]{16,}",
        worth: always,
    },
    // The same, where the prefix may end a word of another kind (`task-`) or begin the name of a package (`pypi-`).
    Row {
        anchors: &["sk-", "pypi-", "xai-", "pplx-", "xox", "xapp-"],
        expression: r"(?:^|[^A-Za-z0-9]|\\x[0-9A-F]{2})((?:sk|xai|pplx)-[A-Za-z0-9_-]{16,}|pypi-[A-Za-z0-9_-]{16,}|xox[abeoprs]-[A-Za-z0-9-]{10,}|xapp-[A-Za-z0-9-]{16,})",
        worth: has_letters_and_digits,
    },
    Row { anchors: &["hooks.slack.com"], expression: r"hooks\.slack\.com/[a-z]+/([A-Za-z0-9/_-]+)", worth: is_value },
    // A JSON Web Token.
    Row { anchors: &["eyj"], expression: r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{4,}\.[A-Za-z0-9_-]*", worth: always },
    // A private key in PEM, to its end, or to where the text was cut.
    Row {
        anchors: &["private key"],
        expression: r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----((?s:.)+?)(?:-----END|\z)",
        worth: is_value,
    },
    // What a URL has before its host: a user with a password, or a token in the user's place.
    Row {
        anchors: &["://"],
        expression: r#"[a-zA-Z][a-zA-Z0-9+.-]*://([^\s/?#'"`<>]*:[^\s/?#'"`<>]*)@|https?://([^\s/?#'"`<>@:]{16,})@"#,
        worth: is_value,
    },
    // What a URL is asked with: signatures and keys have names that are too short to be looked for elsewhere.
    Row {
        anchors: &["sig", "key=", "jwt=", "auth="],
        expression: r#"(?i)[?&;](?:(?:[a-z0-9_.-]*(?:signature|[_.-]sig)|sig|jwt|auth)=([^&\s'#"]+)|key=([^&\s'#"]{16,}))"#,
        worth: is_value,
    },
    // `NAME=value`, `"name": "value"`, `name = 'value'`.
    Row { anchors: NAMES, expression: r#"(?i)NAME\\?["']?\]?[ \t]*(?::=|=>|=|:)[ \t]*[bfru]?QUOTED"#, worth: is_value },
    Row { anchors: NAMES, expression: "(?i)NAME=BARE", worth: is_value },
    // `FOO_KEY=value`: in small letters it is what a table is sorted by.
    Row { anchors: &["_key="], expression: "[A-Z0-9_]+_KEY=(?:QUOTED|BARE)", worth: is_value },
    // `password: value`, of the words that have no other meaning.
    Row {
        anchors: &["password", "passwd", "passphrase"],
        expression: r"(?i)(?:password|passwd|passphrase):[ \t]+BARE",
        worth: is_value,
    },
    // `--password value`, within an argument that is a command line itself.
    Row { anchors: NAMES, expression: r"(?i)BEFORE--?NAME[ \t]+(?:QUOTED|BARE)", worth: is_argument },
    // `Authorization: Bearer value`, and the headers with names of their own.
    Row {
        anchors: &["authorization"],
        expression: r#"(?i)authorization\\?["']?\]?[ \t]*(?:=>|[:=])[ \t]*(?:[bfru]?\\?["'])?(?:(?:bearer|basic|token|digest|negotiate|apikey|key)[ \t]+)?([^\s'"\\][^'"\r\n]*)"#,
        worth: is_value,
    },
    Row {
        anchors: &["bearer"],
        expression: r"(?i)\bbearer(?:[ \t]+|%20|\+)([A-Za-z0-9._~+/=-]{8,})",
        worth: is_bearers,
    },
    Row {
        anchors: &["-key", "-token", "-secret", "-auth", "apikey"],
        expression: r#"(?i)(?:x-[a-z0-9-]*(?:key|token|secret|auth)|[a-z0-9-]*(?:api-?key|subscription-key)|(?:[a-z0-9]+-)+(?:token|secret))\\?["']?[ \t]*:[ \t]*BARE"#,
        worth: is_value,
    },
    Row { anchors: &["cookie:"], expression: r#"(?i)cookie:[ \t]*([^'"\r\n]+)"#, worth: is_value },
    // OpenSSL's way to name a password.
    Row { anchors: &["pass:"], expression: r"\bpass:BARE", worth: is_value },
    // Programs whose option for a password has no telling name, within an argument that is a command line itself.
    Row {
        anchors: &["curl", "wget"],
        expression: r#"\b(?:curl|wget)\b[^|;\n]*?[ \t](?:-[uU]|--user|--proxy-user)[ \t=]*["']?([^\s'":-][^\s'":]*:[^\s'"]*)"#,
        worth: is_value,
    },
    Row { anchors: &["sshpass"], expression: r"\bsshpass[ \t]+-p[ \t]*(?:QUOTED|BARE)", worth: is_value },
    Row {
        anchors: &["mysql", "mariadb"],
        expression: r"\b(?:mysql|mariadb)[a-z-]*\b[^|;\n]*?[ \t]-p(?:QUOTED|BARE)",
        worth: is_value,
    },
];

fn always(_: &[u8]) -> bool {
    true
}

fn has_letters_and_digits(secret: &[u8]) -> bool {
    secret.iter().any(u8::is_ascii_digit) && secret.iter().any(u8::is_ascii_alphabetic)
}

/// A bearer's token, not the word behind `bearer` in a sentence.
fn is_bearers(token: &[u8]) -> bool {
    is_value(token) && (token.len() >= 20 || token.iter().any(u8::is_ascii_digit))
}

/// What an option of that name is given, unless that is another option.
fn is_argument(value: &[u8]) -> bool {
    is_value(value) && !value.starts_with(b"-")
}

/// Whether what stands in a secret's place may be one: neither a switch, nor a variable's name, nor where a file lies.
pub(super) fn is_value(value: &[u8]) -> bool {
    const SWITCHES: [&[u8]; 9] =
        [b"true", b"false", b"yes", b"no", b"none", b"null", b"nil", b"undefined", REDACTED.as_bytes()];
    // In a list of a program's arguments something follows.
    let end = value.iter().rposition(|byte| !matches!(byte, b',' | b';' | b')' | b':')).map_or(0, |last| last + 1);
    let word = value.get(..end).unwrap_or_default();
    let is_switch = word.is_empty() || SWITCHES.iter().any(|switch| word.eq_ignore_ascii_case(switch));
    !is_switch && !is_reference(value) && !is_path(value)
}

/// `$NAME`, `$USER:$NAME`, `${NAME}`, `$(command)`: what a shell puts there is not known here.
fn is_reference(value: &[u8]) -> bool {
    if value.starts_with(b"${") || value.starts_with(b"$(") {
        return true;
    }
    let is_name = |byte: &u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_';
    let is_one = |part: &[u8]| part.strip_prefix(b"$").is_some_and(|name| !name.is_empty() && name.iter().all(is_name));
    value.strip_suffix(b";").unwrap_or(value).split(|&byte| byte == b':').all(is_one)
}

/// `/etc/…`, `~/…`, `./…`: what begins with a slash in base64 goes on otherwise.
fn is_path(value: &[u8]) -> bool {
    let starts: [&[u8]; 3] = [b"./", b"../", b"~/"];
    if starts.iter().any(|start| value.starts_with(start)) {
        return true;
    }
    let Some(first) = value.strip_prefix(b"/").and_then(|rest| rest.split(|&byte| byte == b'/').next()) else {
        return false;
    };
    let more = value.len() > first.len() + 1;
    (2..=12).contains(&first.len()) && more && first.iter().all(u8::is_ascii_lowercase)
}

/// The rows, compiled.
#[derive(Debug)]
pub(super) struct Known {
    anchors: AhoCorasick,
    /// Of each anchor the rows that it is one of, as bits.
    rows_of: Vec<u64>,
    rows: Vec<(Expression, Worth)>,
    name: Expression,
    option: Expression,
}

impl Known {
    pub(super) fn compile() -> Result<Self, RedactError> {
        let mut anchors: Vec<&str> = Vec::new();
        let mut rows_of: Vec<u64> = Vec::new();
        let mut rows = Vec::new();
        for (number, row) in ROWS.iter().enumerate() {
            rows.push((Expression::of_ascii(&written_out(row.expression))?, row.worth));
            for &anchor in row.anchors {
                let place = anchors.iter().position(|known| *known == anchor).unwrap_or_else(|| {
                    anchors.push(anchor);
                    rows_of.push(0);
                    rows_of.len() - 1
                });
                if let Some(rows) = rows_of.get_mut(place) {
                    *rows |= 1 << number;
                }
            }
        }
        let anchors =
            AhoCorasick::builder().ascii_case_insensitive(true).kind(Some(AhoCorasickKind::DFA)).build(&anchors)?;
        let compile = |text: &str| -> Result<Expression, BadExpression> { Expression::of_ascii(&written_out(text)) };
        Ok(Self {
            anchors,
            rows_of,
            rows,
            name: compile(r"\A(?:(?i:NAME)|[A-Z0-9_]+_KEY)\z")?,
            option: compile(r"(?i)\A--?NAME\z")?,
        })
    }

    /// Adds what the rows find in a text.
    pub(super) fn find(&self, text: &[u8], pieces: &mut Vec<Range<usize>>) {
        let anchors = self.anchors.find_overlapping_iter(text);
        let mut wanted =
            anchors.fold(0, |wanted, anchor| wanted | self.rows_of.get(anchor.pattern().as_usize()).unwrap_or(&0));
        while wanted != 0 {
            let row = wanted.trailing_zeros() as usize;
            wanted &= wanted - 1;
            if let Some((expression, worth)) = self.rows.get(row) {
                expression.find_groups(text, *worth, pieces);
            }
        }
    }

    /// Whether a variable or an option of that name holds a secret.
    pub(super) fn names_secret(&self, name: &[u8]) -> bool {
        self.name.is_match(name)
    }

    /// Whether the argument after this option is a secret: `--password`, `-token`.
    pub(super) fn is_option(&self, argument: &[u8]) -> bool {
        argument.starts_with(b"-") && self.option.is_match(argument)
    }
}

/// An expression with the texts that names stand for in it.
fn written_out(expression: &str) -> String {
    let texts = [("BEFORE", BEFORE_OPTION), ("NAME", NAME), ("QUOTED", QUOTED), ("BARE", BARE)];
    texts.iter().fold(expression.to_owned(), |written, (name, text)| written.replace(name, text))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::{Known, ROWS, is_value};

    #[test]
    fn every_pattern_compiles_and_has_a_bit_of_its_own() {
        Known::compile().unwrap();
        assert!(ROWS.len() <= 64);
    }

    #[test]
    fn a_switch_a_reference_and_a_path_are_no_secrets() {
        for value in ["", "false", "None", "$GITHUB_TOKEN", "${X}", "$(pass show x)", "/run/secrets/token", "~/.key"] {
            assert!(!is_value(value.as_bytes()), "{value}");
        }
        for value in ["hunter2", "$ecret", "/9j4AAQSkZJRg/b0+", "12345", "trueblue"] {
            assert!(is_value(value.as_bytes()), "{value}");
        }
    }
}
