//! A declaration without the grants that nobody used: as text, and as a diff that can be applied.
//!
//! Input: the declaration's text, and what is to go. Output: the text without it, all else kept as it was written, comments too;
//! and the difference as `patch` reads it. Refuses: to add anything, to touch a deny, and to guess: what is not found where it is
//! declared stays.

use similar::TextDiff;
use toml_edit::{Array, DocumentMut, Item, TableLike};

/// An element of a list of the declaration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Element {
    /// The tables that the list stands in, as in `["scope", "files"]`.
    pub tables: Vec<String>,
    /// The list's key.
    pub key: String,
    /// The element as declared.
    pub text: String,
}

/// Why a declaration's text could not be narrowed.
#[derive(Debug, thiserror::Error)]
#[error("the declaration cannot be edited: {0}")]
pub struct NotEditable(#[from] toml_edit::TomlError);

/// The text without these elements.
///
/// # Errors
/// The text is no TOML: it was changed after it was loaded.
pub fn narrowed(text: &str, unused: &[Element]) -> Result<String, NotEditable> {
    let mut document: DocumentMut = text.parse()?;
    for element in unused {
        let Some(list) = list(&mut document, element) else { continue };
        let position = list.iter().position(|value| value.as_str() == Some(&element.text));
        if let Some(position) = position {
            take(list, position);
        }
    }
    Ok(document.to_string())
}

fn list<'a>(document: &'a mut DocumentMut, element: &Element) -> Option<&'a mut Array> {
    let mut table: &mut dyn TableLike = document.as_table_mut();
    for name in &element.tables {
        table = table.get_mut(name)?.as_table_like_mut()?;
    }
    table.get_mut(&element.key).and_then(Item::as_array_mut)
}

/// Takes an element out, with the comments above it and behind it. What stands behind the one before it stays there: to TOML it
/// belongs to this one.
fn take(list: &mut Array, position: usize) {
    let taken = list.remove(position);
    let own = taken.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
    if list.is_empty() {
        list.set_trailing("");
        list.set_trailing_comma(false);
        return;
    }
    match list.get_mut(position) {
        Some(next) => {
            let after = next.decor().prefix().and_then(|prefix| prefix.as_str()).unwrap_or_default();
            let joined = joined(own, after).unwrap_or_else(|| own.to_owned());
            next.decor_mut().set_prefix(joined);
        }
        None => {
            let after = list.trailing().as_str().unwrap_or_default();
            if let Some(joined) = joined(own, after) {
                list.set_trailing(joined);
            }
        }
    }
}

/// The rest of the line before what was taken out, and the lines after it; none where all stood on one line.
fn joined(own: &str, after: &str) -> Option<String> {
    let (_, lines) = after.split_once('\n')?;
    Some(match own.split_once('\n') {
        Some((line, _)) => format!("{line}\n{lines}"),
        None => after.to_owned(),
    })
}

/// The difference between two texts of a file, as `patch` and `git apply` read it; empty where there is none.
pub fn diff(file: &str, before: &str, after: &str) -> String {
    if before == after {
        return String::new();
    }
    let file = file.trim_start_matches('/');
    let (old, new) = (format!("a/{file}"), format!("b/{file}"));
    TextDiff::from_lines(before, after).unified_diff().context_radius(3).header(&old, &new).to_string()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    const TEXT: &str = "# Ours\n[agent]\nname = \"x\"\n\n[scope]\ninclude = [\"base\", \"git\"]   # tools\n\n[scope.files]\nread = [\n    \
                        # the shop\n    \"/srv/a/**\",\n    \"/srv/b/**\", # old\n    \"/srv/c/**\",\n]\ndeny = [\"/srv/b/**\"]\n";

    fn element(tables: &[&str], key: &str, text: &str) -> Element {
        Element {
            tables: tables.iter().map(|&table| table.to_owned()).collect(),
            key: key.to_owned(),
            text: text.to_owned(),
        }
    }

    #[test]
    fn what_is_unused_goes_and_all_else_stays_as_it_was_written() {
        let unused = [element(&["scope", "files"], "read", "/srv/b/**"), element(&["scope"], "include", "base")];
        let after = narrowed(TEXT, &unused).unwrap();
        assert!(after.contains("include = [\"git\"]   # tools\n"), "{after}");
        assert!(after.contains("    # the shop\n    \"/srv/a/**\",\n"), "{after}");
        assert!(!after.contains("\"/srv/b/**\",") && after.contains("deny = [\"/srv/b/**\"]"), "{after}");
        assert!(after.starts_with("# Ours\n[agent]\n"), "{after}");
    }

    #[test]
    fn a_comment_goes_with_the_line_that_it_stands_on() {
        let files = |gone: &str| {
            let text = "[scope.files]\nread = [\n    \"/a\", # about a\n    # above b\n    \"/b\", # about b\n    \"/c\", # about c\n]\n";
            let after = narrowed(text, &[element(&["scope", "files"], "read", gone)]).unwrap();
            after.strip_prefix("[scope.files]\nread = [\n").unwrap().to_owned()
        };
        assert_eq!(files("/a"), "    # above b\n    \"/b\", # about b\n    \"/c\", # about c\n]\n");
        assert_eq!(files("/b"), "    \"/a\", # about a\n    \"/c\", # about c\n]\n");
        assert_eq!(files("/c"), "    \"/a\", # about a\n    # above b\n    \"/b\", # about b\n]\n");
    }

    #[test]
    fn lists_on_one_line_stay_on_it() {
        let after = |gone: &[&str]| {
            let unused: Vec<_> = gone.iter().map(|text| element(&["scope"], "include", text)).collect();
            narrowed("[scope]\ninclude = [\"a\", \"b\", \"c\"]\n", &unused).unwrap()
        };
        assert_eq!(after(&["a"]), "[scope]\ninclude = [\"b\", \"c\"]\n");
        assert_eq!(after(&["b"]), "[scope]\ninclude = [\"a\", \"c\"]\n");
        assert_eq!(after(&["c"]), "[scope]\ninclude = [\"a\", \"b\"]\n");
        assert_eq!(after(&["a", "b", "c"]), "[scope]\ninclude = []\n");
    }

    #[test]
    fn what_is_not_there_changes_nothing_and_has_no_diff() {
        let after = narrowed(TEXT, &[element(&["scope", "exec"], "allow", "/bin/x")]).unwrap();
        assert_eq!(after, TEXT);
        assert_eq!(diff("x.toml", TEXT, &after), "");
    }

    #[test]
    fn patch_applies_the_diff() {
        let after = narrowed(TEXT, &[element(&["scope", "files"], "read", "/srv/a/**")]).unwrap();
        let directory = tempfile::tempdir().unwrap();
        let (file, patch) = (directory.path().join("x.toml"), directory.path().join("diff"));
        std::fs::write(&file, TEXT).unwrap();
        std::fs::write(&patch, diff("x.toml", TEXT, &after)).unwrap();
        let mut command = std::process::Command::new("git");
        command.arg("apply").arg(&patch).current_dir(directory.path());
        assert!(command.status().unwrap().success());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), after);
    }
}
