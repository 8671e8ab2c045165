//! Headers that every request carries: from a variable's list, or from a file of lines. Their values are never repeated.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use super::files::{FileError, FileProblem, NamedFile};

/// What is wrong with a header.
pub(super) type Wrong = &'static str;

/// `name=value,name=value`, values percent-encoded; what is wrong comes with the header's place in the list, from 1.
pub(super) fn of_list(list: &str) -> Result<HeaderMap, (usize, Wrong)> {
    let mut headers = HeaderMap::new();
    for (index, item) in list.split(',').map(str::trim).filter(|item| !item.is_empty()).enumerate() {
        let add = || {
            let (name, value) = item.split_once('=').ok_or("is not of the form name=value")?;
            let value = percent_decoded(value.trim()).ok_or("is not percent-encoded correctly")?;
            header(name, &value)
        };
        let (name, value) = add().map_err(|wrong| (index + 1, wrong))?;
        headers.append(name, value);
    }
    Ok(headers)
}

/// The headers of a file: `name: value`, one on a line; empty lines and those that begin with `#` are passed over.
pub(super) fn of_file(file: &NamedFile) -> Result<HeaderMap, FileError> {
    let bytes = file.read()?;
    let mut headers = HeaderMap::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let add = || {
            let colon = line.iter().position(|byte| *byte == b':').ok_or("is not of the form name: value")?;
            let (name, value) = line.split_at(colon);
            let name = std::str::from_utf8(name).map_err(|_| NO_NAME)?;
            header(name, value.get(1..).unwrap_or_default().trim_ascii())
        };
        let (name, value) =
            add().map_err(|wrong| FileError { line: Some(index + 1), ..file.error(FileProblem::Header(wrong)) })?;
        headers.append(name, value);
    }
    Ok(headers)
}

const NO_NAME: Wrong = "has no valid name";

fn header(name: &str, value: &[u8]) -> Result<(HeaderName, HeaderValue), Wrong> {
    let name: HeaderName = name.trim().parse().map_err(|_| NO_NAME)?;
    let mut value = HeaderValue::from_bytes(value).map_err(|_| "has a value that no header may have")?;
    if value.to_str().is_err() {
        return Err("has a value that is not ASCII");
    }
    value.set_sensitive(true);
    Ok((name, value))
}

fn percent_decoded(text: &str) -> Option<Vec<u8>> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let digits = [bytes.next()?, bytes.next()?].map(char::from);
        let value = digits[0].to_digit(16)? * 16 + digits[1].to_digit(16)?;
        decoded.push(u8::try_from(value).ok()?);
    }
    Some(decoded)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use super::of_file;
    use crate::export::files::NamedFile;

    fn read(text: &str) -> Result<Vec<(String, String)>, String> {
        let dir = tempfile::TempDir::new().unwrap();
        let file = NamedFile { path: dir.path().join("headers"), named_by: "bailiwick.toml:5:16".to_owned() };
        std::fs::write(&file.path, text).unwrap();
        let headers = of_file(&file).map_err(|error| error.to_string())?;
        Ok(headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect())
    }

    #[test]
    fn a_file_has_a_header_on_each_line() {
        let text = "# the token of this host\nAuthorization: Bearer a:b=c \r\n\nx-tenant:7\n";
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read(text).unwrap(), [pair("authorization", "Bearer a:b=c"), pair("x-tenant", "7")]);
    }

    #[test]
    fn a_line_that_is_no_header_is_told_with_its_place_and_without_what_it_says() {
        for (text, expected) in [
            ("a: 1\nhunter2", "/headers:2: is not of the form name: value; write one header on a line"),
            ("a b: hunter2", "/headers:1: has no valid name; write"),
            ("a: hunter2\u{7f}", "/headers:1: has a value that no header may have; write"),
            ("a: hunter2é", "/headers:1: has a value that is not ASCII; write"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.starts_with("bailiwick.toml:5:16: /") && error.contains(expected), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
