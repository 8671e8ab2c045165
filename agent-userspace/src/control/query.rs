//! Which entries a client wants.
//!
//! Inputs: a [`Filter`] as sent, and entries. Outputs: whether an entry matches. Pure, and linear in the lengths of path
//! and pattern. Refuses: filters with more or longer values than the limits below.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::entry::{Entry, SessionId, Timestamp, Verdict};

/// Values of one kind in a filter, and their length: every entry is held against each.
const MAX_VALUES: usize = 64;
const MAX_VALUE_BYTES: usize = 4096;

/// The attributes that hold paths which an entry is about.
const PATH_ATTRIBUTES: [&str; 9] = [
    "file.path",
    "bailiwick.file.new_path",
    "bailiwick.file.host_path",
    "bailiwick.file.other_path",
    "process.executable.path",
    "bailiwick.exec.script",
    "bailiwick.exec.given",
    "bailiwick.unix.path",
    "bailiwick.module.path",
];

/// The attributes that hold the ends of a connection: address and port.
const ENDPOINT_ATTRIBUTES: [(&str, &str); 4] = [
    ("server.address", "server.port"),
    ("client.address", "client.port"),
    ("network.local.address", "network.local.port"),
    ("network.peer.address", "network.peer.port"),
];

/// Which entries: every kind of value that is given must match, by any of its values.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Agents' names.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
    /// Sessions' ids, or beginnings of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sessions: Vec<String>,
    /// Events' names, or families: `file.*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
    /// Verdicts.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub verdicts: Vec<Verdict>,
    /// Agents, or beginnings of sessions' ids, that delegated, at any depth.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub delegators: Vec<String>,
    /// Addresses: [`AddressPattern`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Of this time or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Of an earlier time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Paths: a pattern with `*`, `**` or `?`, or else a path and all below it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
}

/// The filter is too large to be held against every entry.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("at most {MAX_VALUES} values of a filter, each of at most {MAX_VALUE_BYTES} bytes")]
pub struct FilterTooLarge;

impl Filter {
    /// Whether it is within the limits.
    pub fn check(&self) -> Result<(), FilterTooLarge> {
        let lists = [&self.agents, &self.sessions, &self.events, &self.paths, &self.delegators, &self.addresses];
        let fits =
            |list: &Vec<String>| list.len() <= MAX_VALUES && list.iter().all(|value| value.len() <= MAX_VALUE_BYTES);
        let all_fit = lists.into_iter().all(fits) && self.verdicts.len() <= MAX_VALUES;
        if all_fit { Ok(()) } else { Err(FilterTooLarge) }
    }

    /// Whether the entry is wanted.
    pub fn matches(&self, entry: &Entry) -> bool {
        let draft = &entry.draft;
        self.since.is_none_or(|since| draft.time >= since)
            && self.until.is_none_or(|until| draft.time < until)
            && any(&self.events, |event| event_matches(event, &draft.event))
            && any(&self.verdicts, |verdict| *verdict == draft.verdict)
            && any(&self.agents, |agent| draft.agent.as_deref() == Some(agent))
            && any(&self.sessions, |prefix| draft.session.is_some_and(|id| is_beginning(prefix, id)))
            && any(&self.delegators, |by| {
                draft.delegation.iter().any(|link| link.agent == *by || is_beginning(by, link.session))
            })
            && any(&self.addresses, |wanted| {
                AddressPattern::parse(wanted).is_some_and(|wanted| endpoints(entry).any(|end| wanted.matches(end)))
            })
            && any(&self.paths, |pattern| paths_of(entry).any(|path| path_matches(pattern, path)))
    }
}

fn is_beginning(prefix: &str, id: SessionId) -> bool {
    let is_hex = prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex && id.to_string().starts_with(&prefix.to_ascii_lowercase())
}

/// An address, all of a network, or an address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AddressPattern {
    address: IpAddr,
    /// How many of its bits count.
    bits: u8,
    port: Option<u16>,
}

impl AddressPattern {
    /// Reads `10.0.0.5`, `10.0.0.5:5432`, `10.0.0.0/8`, `::1`, `[::1]:443`.
    pub fn parse(text: &str) -> Option<Self> {
        let whole = |address: IpAddr| if address.is_ipv4() { 32 } else { 128 };
        if let Ok(both) = text.parse::<SocketAddr>() {
            return Some(Self { address: both.ip(), bits: whole(both.ip()), port: Some(both.port()) });
        }
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse::<IpAddr>().ok()?, bits.parse().ok()?),
            None => text.parse().map(|address| (address, whole(address))).ok()?,
        };
        (bits <= whole(address)).then_some(Self { address, bits, port: None })
    }

    /// Whether it is an address, and a port, that is meant.
    pub fn matches(&self, (address, port): (IpAddr, Option<u16>)) -> bool {
        self.contains(address) && self.port.is_none_or(|wanted| port == Some(wanted))
    }

    /// Whether it is an address that is meant, of whatever port.
    pub fn contains(&self, address: IpAddr) -> bool {
        address.is_ipv4() == self.address.is_ipv4() && (number(address) ^ number(self.address)) & self.mask() == 0
    }

    /// The first address that is meant.
    pub fn first(&self) -> IpAddr {
        let first = number(self.address) & self.mask();
        match self.address {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::from((first >> 96) as u32)),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::from(first)),
        }
    }

    fn mask(&self) -> u128 {
        u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0)
    }
}

/// An address of four bytes stands in the upper ones: the first bits are the first of either kind.
fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
        IpAddr::V6(address) => u128::from(address),
    }
}

/// The ends of a connection that an entry names.
pub(crate) fn endpoints(entry: &Entry) -> impl Iterator<Item = (IpAddr, Option<u16>)> {
    let attributes = &entry.draft.attributes;
    ENDPOINT_ATTRIBUTES.iter().filter_map(|(address, port)| {
        let address = attributes.get(*address)?.as_str()?.parse().ok()?;
        let port = attributes.get(*port).and_then(Value::as_u64);
        Some((address, port.and_then(|port| u16::try_from(port).ok())))
    })
}

fn any<T>(wanted: &[T], matches: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(matches)
}

/// The paths that an entry is about.
pub(crate) fn paths_of(entry: &Entry) -> impl Iterator<Item = &str> {
    PATH_ATTRIBUTES.iter().filter_map(|name| entry.draft.attributes.get(*name).and_then(Value::as_str))
}

/// `file.*` is the family, anything else a whole name.
fn event_matches(wanted: &str, event: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(family) => event.starts_with(family),
        None => event == wanted,
    }
}

/// Whether a path is the pattern's, or lies below it where it is no pattern.
pub fn path_matches(pattern: &str, path: &str) -> bool {
    if pattern.contains(['*', '?']) {
        return glob_matches(pattern.as_bytes(), path.as_bytes());
    }
    let directory = pattern.trim_end_matches('/');
    path.strip_prefix(directory).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `**` matches anything, `*` anything but `/`, `?` one byte but `/`. One pass over the pattern with the set of prefixes
/// of the path that match so far, so that no pattern is exponential.
fn glob_matches(pattern: &[u8], path: &[u8]) -> bool {
    let mut reached = vec![false; path.len() + 1];
    reached[0] = true;
    let mut rest = pattern;
    while let Some((&symbol, after)) = rest.split_first() {
        let crosses = symbol == b'*' && after.first() == Some(&b'*');
        rest = if crosses { after.get(1..).unwrap_or_default() } else { after };
        if symbol == b'*' {
            for (at, byte) in path.iter().enumerate() {
                reached[at + 1] |= reached[at] && (crosses || *byte != b'/');
            }
        } else {
            for (at, byte) in path.iter().enumerate().rev() {
                let fits = if symbol == b'?' { *byte != b'/' } else { *byte == symbol };
                reached[at + 1] = reached[at] && fits;
            }
            reached[0] = false;
        }
    }
    reached.last().copied().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::entry;
    use crate::entry::SessionId;

    #[test]
    fn a_filter_without_values_wants_everything() {
        assert!(Filter::default().matches(&entry(1, "file.open").build()));
    }

    #[test]
    fn an_event_is_wanted_by_name_or_by_family() {
        let wants = |events: &[&str], event| {
            let filter = Filter { events: events.iter().map(|name| (*name).to_owned()).collect(), ..Filter::default() };
            filter.matches(&entry(1, event).build())
        };
        assert!(wants(&["file.*"], "file.create"));
        assert!(wants(&["process.exec", "file.open"], "file.open"));
        assert!(!wants(&["file.*"], "filesystem.x"));
        assert!(!wants(&["file"], "file.open"));
        assert!(wants(&["*"], "gap"));
    }

    #[test]
    fn every_kind_of_value_must_match() {
        let opened = entry(1, "file.open").agent("demo", 0xab).path("r", "/tmp/x").verdict(Verdict::OutOfScope).build();
        let all = Filter {
            agents: vec!["demo".into()],
            sessions: vec!["00000000000000AB".into()],
            events: vec!["file.open".into()],
            verdicts: vec![Verdict::OutOfScope, Verdict::Denied],
            paths: vec!["/tmp".into()],
            ..Filter::default()
        };
        assert!(all.matches(&opened));
        assert!(!Filter { agents: vec!["other".into()], ..all.clone() }.matches(&opened));
        assert!(!Filter { sessions: vec!["ab".into()], ..all.clone() }.matches(&opened));
        assert!(!Filter { verdicts: vec![Verdict::InScope], ..all.clone() }.matches(&opened));
        assert!(!Filter { paths: vec!["/srv".into()], ..all }.matches(&opened));
    }

    #[test]
    fn an_address_is_wanted_by_itself_with_its_port_or_by_its_network() {
        let connected = entry(1, "network.connect")
            .with("server.address", "10.1.2.3".into())
            .with("server.port", 5432.into())
            .build();
        let wants = |address: &str| Filter { addresses: vec![address.into()], ..Filter::default() }.matches(&connected);
        for good in ["10.1.2.3", "10.1.2.3:5432", "10.0.0.0/8", "0.0.0.0/0", "10.1.2.3/32"] {
            assert!(wants(good), "{good}");
        }
        for other in ["10.1.2.4", "10.1.2.3:80", "11.0.0.0/8", "::/0", "::ffff:10.1.2.3", "nonsense", "10.1.2.3/33"] {
            assert!(!wants(other), "{other}");
        }
        let v6 = entry(1, "network.connect").with("server.address", "fd00::7".into()).build();
        let wants = |address: &str| Filter { addresses: vec![address.into()], ..Filter::default() }.matches(&v6);
        assert!(wants("fd00::/8") && wants("::/0") && wants("fd00::7") && !wants("[fd00::7]:1") && !wants("fe80::/10"));
    }

    #[test]
    fn what_was_delegated_is_wanted_by_the_agent_or_the_session_that_did() {
        let done = entry(1, "file.open").agent("third", 3).delegated_by("demo", 0xab).delegated_by("tester", 2).build();
        let wants = |by: &str| Filter { delegators: vec![by.into()], ..Filter::default() }.matches(&done);
        assert!(wants("demo") && wants("tester") && wants("00000000000000ab"));
        assert!(!wants("third") && !wants("0000000000000003"));
    }

    #[test]
    fn a_time_is_from_and_not_including() {
        let at = |since, until| {
            let filter = Filter { since, until, ..Filter::default() };
            filter.matches(&entry(5, "file.open").build())
        };
        let time = crate::control::testing::time_of;
        assert!(at(Some(time(5)), None) && at(None, Some(time(6))) && at(Some(time(1)), Some(time(9))));
        assert!(!at(Some(time(6)), None) && !at(None, Some(time(5))));
    }

    #[test]
    fn an_entry_of_no_session_or_path_is_not_wanted_by_one() {
        let gap = entry(1, "gap").build();
        assert_eq!(gap.draft.session, None::<SessionId>);
        assert!(!Filter { sessions: vec![String::new()], ..Filter::default() }.matches(&gap));
        assert!(!Filter { paths: vec!["/".into()], ..Filter::default() }.matches(&gap));
    }

    #[test]
    fn what_a_file_is_renamed_to_is_wanted_as_what_it_was() {
        let renamed = entry(1, "file.rename")
            .with("file.path", "/srv/a".into())
            .with("bailiwick.file.new_path", "/tmp/b".into())
            .build();
        let wants = |path: &str| Filter { paths: vec![path.into()], ..Filter::default() }.matches(&renamed);
        assert!(wants("/srv/a") && wants("/tmp/b") && !wants("/srv/b"));
    }

    #[test]
    fn a_path_without_wildcards_is_itself_and_what_lies_below() {
        assert!(path_matches("/tmp", "/tmp"));
        assert!(path_matches("/tmp", "/tmp/a/b"));
        assert!(path_matches("/tmp/", "/tmp/a"));
        assert!(path_matches("/", "/tmp/a"));
        assert!(!path_matches("/tmp", "/tmpfile"));
    }

    #[test]
    fn one_star_stays_in_a_directory_and_two_do_not() {
        assert!(path_matches("/tmp/*.txt", "/tmp/a.txt"));
        assert!(!path_matches("/tmp/*.txt", "/tmp/a/b.txt"));
        assert!(path_matches("/tmp/**.txt", "/tmp/a/b.txt"));
        assert!(path_matches("**/.env", "/srv/shop/.env"));
        assert!(path_matches("/tmp/?", "/tmp/a"));
        assert!(!path_matches("/tmp/?", "/tmp/"));
        assert!(!path_matches("/tmp?a", "/tmp/a"));
        assert!(!path_matches("/tmp/*", "/srv/tmp/a"));
        assert!(path_matches("/tmp/*", "/tmp/"));
    }

    #[test]
    fn a_hostile_pattern_takes_no_exponential_time() {
        let pattern = "**a".repeat(500) + "b";
        assert!(!path_matches(&pattern, &"a".repeat(4000)));
    }

    #[test]
    fn a_filter_over_its_limits_is_refused() {
        let many = Filter { agents: vec![String::new(); MAX_VALUES + 1], ..Filter::default() };
        assert_eq!(many.check(), Err(FilterTooLarge));
        let long = Filter { paths: vec!["x".repeat(MAX_VALUE_BYTES + 1)], ..Filter::default() };
        assert_eq!(long.check(), Err(FilterTooLarge));
        assert_eq!(Filter::default().check(), Ok(()));
    }
}
