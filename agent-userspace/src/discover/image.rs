//! Which interpreter an image is: by its name, or, where that tells nothing, by symbols that only it has.
//!
//! An interpreter that was copied, renamed or built elsewhere keeps the symbols that programs and modules link against.
//! Reads the table of dynamic symbols' names of an ELF image, once for each file as it is. Refuses to take a program that has
//! an interpreter inside for one. Blind to an image without dynamic symbols: static, and renamed.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aho_corasick::AhoCorasick;
use object::{Object, ObjectSection, ReadCache};

use super::Seen;
use crate::attribute::procfs::ProcFs;
use crate::config::catalogue::{Catalogue, Interpreter};
use crate::scope::recorded::readable;

/// The longest table of names that is searched: Node's has six megabytes.
const MOST_NAMES_BYTES: u64 = 64 << 20;
/// The most images that are remembered.
const MOST_IMAGES: usize = 4_096;

/// A file as it is: another one, or the same with other content, has another key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Key {
    device: u64,
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

/// What is known of images.
#[derive(Debug, Default)]
pub(super) struct Images {
    /// The interpreters that an image has the symbols of, by name.
    by_symbols: HashMap<Key, Vec<String>>,
    /// The catalogue's symbols that this was found with.
    symbols: Vec<String>,
}

impl Images {
    /// The interpreter that a process's image is.
    pub(super) fn interpreter<'a>(
        &mut self,
        proc: &ProcFs,
        catalogue: &'a Catalogue,
        seen: &Seen,
    ) -> Option<&'a Interpreter> {
        let named = catalogue.interpreter_named(&seen.executable);
        named.or_else(|| self.renamed(proc, catalogue, seen))
    }

    fn renamed<'a>(&mut self, proc: &ProcFs, catalogue: &'a Catalogue, seen: &Seen) -> Option<&'a Interpreter> {
        let symbols: Vec<String> = catalogue.interpreters.iter().flat_map(|one| one.symbols.iter().cloned()).collect();
        if symbols != self.symbols || self.by_symbols.len() >= MOST_IMAGES {
            self.by_symbols.clear();
            self.symbols = symbols;
        }
        let file = File::open(proc.image(seen.tgid)).ok()?;
        let metadata = file.metadata().ok()?;
        let key = Key {
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        };
        let names = self.by_symbols.entry(key).or_insert_with(|| with_symbols(file, catalogue));
        let mut interpreters = catalogue.interpreters.iter();
        let found = interpreters.find(|interpreter| names.contains(&interpreter.name.value))?;
        let image = readable(&seen.executable).0;
        let directory = Path::new(&image).parent()?;
        let is_beside = |name: &String| {
            let path = directory.join(name);
            proc.open_in_root(seen.tgid, path.as_os_str().as_encoded_bytes(), rustix::fs::OFlags::PATH).is_some()
        };
        (!found.unless_beside.iter().any(is_beside)).then_some(found)
    }
}

/// The interpreters that an image has a symbol of.
fn with_symbols(file: File, catalogue: &Catalogue) -> Vec<String> {
    names_of(file).map(|names| having(&names, catalogue)).unwrap_or_default()
}

/// The names of an image's dynamic symbols, each between zeros.
fn names_of(file: File) -> Option<Vec<u8>> {
    let cache = ReadCache::new(file);
    let image = object::File::parse(&cache).ok()?;
    let names = image.section_by_name(".dynstr").filter(|section| section.size() <= MOST_NAMES_BYTES)?;
    names.data().ok().map(<[u8]>::to_vec)
}

fn having(names: &[u8], catalogue: &Catalogue) -> Vec<String> {
    let symbols: Vec<(&String, Vec<u8>)> = catalogue
        .interpreters
        .iter()
        .flat_map(|one| {
            one.symbols.iter().map(move |symbol| (&one.name.value, [b"\0", symbol.as_bytes(), b"\0"].concat()))
        })
        .collect();
    let Ok(search) = AhoCorasick::new(symbols.iter().map(|(_, symbol)| symbol)) else { return Vec::new() };
    let found = search.find_overlapping_iter(names).filter_map(|found| symbols.get(found.pattern().as_usize()));
    let mut found: Vec<String> = found.map(|(name, _)| (*name).clone()).collect();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_symbol_is_a_whole_name() {
        let catalogue = Catalogue::shipped();
        assert_eq!(having(b"\0malloc\0Py_BytesMain\0", catalogue), ["python"]);
        assert!(having(b"\0Py_BytesMainly\0my_Py_BytesMain\0", catalogue).is_empty());
    }

    #[test]
    fn an_image_without_an_interpreter_has_no_such_symbol() {
        let own = File::open("/proc/self/exe").unwrap();
        assert!(with_symbols(own, Catalogue::shipped()).is_empty());
        let no_image = File::open("/proc/self/cmdline").unwrap();
        assert!(with_symbols(no_image, Catalogue::shipped()).is_empty());
    }
}
