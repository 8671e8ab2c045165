//! What of an entry is indexed, and where in a chunk the entries are that a filter may want: two sides of the same.

use std::net::IpAddr;

use super::chunk::{Chunk, Malformed, Section};
use super::dictionary::{Dictionary, Take};
use super::lines::Lines;
use crate::control::query::{AddressPattern, Filter, endpoints, path_matches, paths_of};
use crate::entry::{Entry, SessionId};

/// The terms of an entry, each with the dictionary it goes into.
pub(super) fn terms(entry: &Entry, mut add: impl FnMut(Section, &[u8])) {
    let draft = &entry.draft;
    add(Section::Events, draft.event.as_bytes());
    add(Section::Verdicts, draft.verdict.as_str().as_bytes());
    if let Some(agent) = &draft.agent {
        add(Section::Agents, agent.as_bytes());
    }
    if let Some(session) = draft.session {
        add(Section::SessionIds, &session_term(session));
    }
    if let Some(gap) = &draft.gap {
        add(Section::Gaps, gap.session.map(session_term).as_ref().map_or(&[], |term| &term[..]));
    }
    for link in &draft.delegation {
        add(Section::Delegators, link.agent.as_bytes());
        add(Section::DelegatorSessions, &session_term(link.session));
    }
    for end in endpoints(entry) {
        add(Section::Addresses, &address_term(end));
    }
    for path in paths_of(entry) {
        add(Section::Paths, path.as_bytes());
    }
}

/// The dictionaries.
pub(super) const DICTIONARIES: [Section; 9] = [
    Section::Agents,
    Section::SessionIds,
    Section::Gaps,
    Section::Events,
    Section::Verdicts,
    Section::Delegators,
    Section::DelegatorSessions,
    Section::Addresses,
    Section::Paths,
];

/// The lines that a filter may want, and those that are no entries.
pub(super) fn wanted(filter: &Filter, chunk: &Chunk) -> Result<Lines, Malformed> {
    let head = &chunk.head;
    let too_early = filter.since.is_some_and(|since| head.latest < since);
    let too_late = filter.until.is_some_and(|until| head.earliest >= until);
    let mut lines = if too_early || too_late { Lines::none(head.lines) } else { Lines::all(head.lines) };
    let mut keep = |found: Result<Lines, Malformed>| {
        lines.keep_only(&found?);
        Ok(())
    };
    if !filter.agents.is_empty() {
        keep(by_term(chunk, Section::Agents, filter.agents.iter().map(String::as_str)))?;
    }
    if !filter.events.is_empty() {
        keep(by_event(chunk, &filter.events))?;
    }
    if !filter.verdicts.is_empty() {
        keep(by_term(chunk, Section::Verdicts, filter.verdicts.iter().map(|verdict| verdict.as_str())))?;
    }
    if !filter.sessions.is_empty() {
        keep(by_session(chunk, Section::SessionIds, &filter.sessions))?;
    }
    if !filter.delegators.is_empty() {
        let mut found = by_term(chunk, Section::Delegators, filter.delegators.iter().map(String::as_str))?;
        found.add_all(&by_session(chunk, Section::DelegatorSessions, &filter.delegators)?);
        keep(Ok(found))?;
    }
    if !filter.addresses.is_empty() {
        keep(by_address(chunk, &filter.addresses))?;
    }
    if !filter.paths.is_empty() {
        keep(by_path(chunk, &filter.paths))?;
    }
    lines.add_all(&chunk.unreadable()?);
    Ok(lines)
}

/// The lines of entries of these events.
pub(super) fn of_events(chunk: &Chunk, events: &[&str]) -> Result<Lines, Malformed> {
    by_term(chunk, Section::Events, events.iter().copied())
}

/// The lines of gaps of no known session.
pub(super) fn host_gaps(chunk: &Chunk) -> Result<Lines, Malformed> {
    by_term(chunk, Section::Gaps, [""].into_iter())
}

/// Finds the lines of sessions.
pub(super) struct OfSession {
    entries: Vec<u8>,
    gaps: Vec<u8>,
    count: usize,
}

impl OfSession {
    pub(super) fn of(chunk: &Chunk) -> Result<Self, Malformed> {
        let (entries, gaps) = (chunk.section(Section::SessionIds)?, chunk.section(Section::Gaps)?);
        Ok(Self { entries, gaps, count: chunk.head.lines })
    }

    /// The lines of one session's entries, and of gaps that speak of it.
    pub(super) fn lines(&self, session: SessionId) -> Result<Lines, Malformed> {
        let mut lines = Lines::none(self.count);
        for written in [&self.entries, &self.gaps] {
            Dictionary::read(written)?.add_term(&session_term(session), &mut lines)?;
        }
        Ok(lines)
    }
}

fn by_term<'t>(chunk: &Chunk, section: Section, terms: impl Iterator<Item = &'t str>) -> Result<Lines, Malformed> {
    let written = chunk.section(section)?;
    let dictionary = Dictionary::read(&written)?;
    let mut lines = Lines::none(chunk.head.lines);
    for term in terms {
        dictionary.add_term(term.as_bytes(), &mut lines)?;
    }
    Ok(lines)
}

fn by_event(chunk: &Chunk, events: &[String]) -> Result<Lines, Malformed> {
    let written = chunk.section(Section::Events)?;
    let dictionary = Dictionary::read(&written)?;
    let mut lines = Lines::none(chunk.head.lines);
    for event in events {
        match event.strip_suffix('*') {
            Some(family) => dictionary.add_beginning(family.as_bytes(), &mut lines, |_| true)?,
            None => dictionary.add_term(event.as_bytes(), &mut lines)?,
        }
    }
    Ok(lines)
}

/// By beginnings of ids. What is no such beginning is none of any.
fn by_session(chunk: &Chunk, section: Section, beginnings: &[String]) -> Result<Lines, Malformed> {
    let written = chunk.section(section)?;
    let dictionary = Dictionary::read(&written)?;
    let mut lines = Lines::none(chunk.head.lines);
    for beginning in beginnings.iter().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit())) {
        dictionary.add_beginning(beginning.to_ascii_lowercase().as_bytes(), &mut lines, |_| true)?;
    }
    Ok(lines)
}

fn by_address(chunk: &Chunk, addresses: &[String]) -> Result<Lines, Malformed> {
    let written = chunk.section(Section::Addresses)?;
    let dictionary = Dictionary::read(&written)?;
    let mut lines = Lines::none(chunk.head.lines);
    for pattern in addresses.iter().filter_map(|text| AddressPattern::parse(text)) {
        let first = address_term((pattern.first(), None));
        dictionary.add_range(&first, &mut lines, |term| match address_of(term) {
            Some(end) if pattern.matches(end) => Take::Add,
            Some((address, _)) if pattern.contains(address) => Take::Pass,
            Some(_) | None => Take::End,
        })?;
    }
    Ok(lines)
}

fn by_path(chunk: &Chunk, patterns: &[String]) -> Result<Lines, Malformed> {
    let written = chunk.section(Section::Paths)?;
    let dictionary = Dictionary::read(&written)?;
    let mut lines = Lines::none(chunk.head.lines);
    for pattern in patterns {
        let fits = |term: &[u8]| std::str::from_utf8(term).is_ok_and(|path| path_matches(pattern, path));
        match pattern.find(['*', '?']) {
            Some(wild) => {
                dictionary.add_beginning(pattern.as_bytes().get(..wild).unwrap_or_default(), &mut lines, fits)?;
            }
            None => {
                let directory = pattern.trim_end_matches('/');
                dictionary.add_term(directory.as_bytes(), &mut lines)?;
                dictionary.add_beginning(format!("{directory}/").as_bytes(), &mut lines, |_| true)?;
            }
        }
    }
    Ok(lines)
}

/// An id as it is written everywhere, so that those with the same first digits stand together.
fn session_term(session: SessionId) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut term = [b'0'; 16];
    for (at, digit) in term.iter_mut().enumerate() {
        let value = (session.0 >> (60 - 4 * at)) & 0xf;
        *digit = DIGITS.get(value as usize).copied().unwrap_or(b'0');
    }
    term
}

/// How many bytes the address has, the address, and the port where there is one: so that networks stand together.
fn address_term((address, port): (IpAddr, Option<u16>)) -> Vec<u8> {
    let mut term = match address {
        IpAddr::V4(address) => [&[4][..], &address.octets()].concat(),
        IpAddr::V6(address) => [&[16][..], &address.octets()].concat(),
    };
    term.extend(port.into_iter().flat_map(u16::to_be_bytes));
    term
}

fn address_of(term: &[u8]) -> Option<(IpAddr, Option<u16>)> {
    let (&len, rest) = term.split_first()?;
    let (address, port) = rest.split_at_checked(usize::from(len))?;
    let address = match len {
        4 => IpAddr::from(*address.first_chunk::<4>()?),
        16 => IpAddr::from(*address.first_chunk::<16>()?),
        _ => return None,
    };
    Some((address, port.first_chunk().copied().map(u16::from_be_bytes)))
}
