//! Network grants: an address or a network, with a port, a range of ports or any port.
//!
//! Input: `10.0.0.0/8:5432`, `127.0.0.1:*`, `[::1]:443`, `[fd00::/8]:8000-8100`, `*:443`, then socket addresses. Output:
//! the grant of the longest prefix that covers an address. IPv4-mapped IPv6 addresses count as IPv4. A look-up tries each
//! prefix length in use, longest first (162 at most), and halves the ranges of ports: its cost does not grow with the
//! number of grants. Refuses names, until answers of a resolver can be tied to a session.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What is wrong with a network pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// A host name.
    #[error("is a name, and names are not supported yet; use addresses, as in `10.0.0.5:443` or `10.0.0.0/8:443`")]
    Name,
    /// No port.
    #[error("has no port; write `{0}:443`, or `{0}:*` for any port")]
    NoPort(String),
    /// An IPv6 address without brackets.
    #[error("is an IPv6 address without brackets; write `[::1]:443` or `[fd00::/8]:443`")]
    Brackets,
    /// Neither a number, a range nor `*`.
    #[error("has the port `{0}`; write a number from 0 to 65535, a range such as `8000-8100`, or `*`")]
    Port(String),
    /// Neither an address nor a network.
    #[error("has no address that can be read; write `10.0.0.5:443`, `10.0.0.0/8:443`, `[::1]:443` or `*:443`")]
    Address,
    /// A prefix length past the address's.
    #[error("has a prefix of {0} bits; an address has {1}")]
    Prefix(u8, u8),
    /// An address with bits beyond its prefix.
    #[error("has bits beyond its prefix; write `{0}`")]
    HostBits(String),
}

/// A network, with its address's family.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Network {
    V4 { bits: u32, prefix: u8 },
    V6 { bits: u128, prefix: u8 },
}

/// A parsed network grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NetworkPattern {
    text: Box<str>,
    /// None stands for every address of both families.
    network: Option<Network>,
    ports: (u16, u16),
}

impl NetworkPattern {
    /// Parses a network grant.
    pub fn parse(text: &str) -> Result<Self, NetworkError> {
        let (address, port) = split_port(text)?;
        let network = if address == "*" { None } else { Some(parse_network(address)?) };
        Ok(Self { text: text.into(), network, ports: parse_ports(port)? })
    }

    /// The pattern as it was written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether the pattern covers the address and port.
    pub fn matches(&self, address: SocketAddr) -> bool {
        let inside = match (self.network, address.ip().to_canonical()) {
            (None, _) => true,
            (Some(Network::V4 { bits, prefix }), IpAddr::V4(ip)) => mask_v4(ip, prefix) == bits,
            (Some(Network::V6 { bits, prefix }), IpAddr::V6(ip)) => mask_v6(ip, prefix) == bits,
            (Some(Network::V4 { .. }), IpAddr::V6(_)) | (Some(Network::V6 { .. }), IpAddr::V4(_)) => false,
        };
        inside && (self.ports.0..=self.ports.1).contains(&address.port())
    }
}

impl fmt::Display for NetworkPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Ranges of ports that do not overlap: first port to last port and grant. Of overlapping grants the first keeps the ports.
#[derive(Debug, Default)]
struct Ports(BTreeMap<u16, (u16, u32)>);

impl Ports {
    fn insert(&mut self, first: u16, last: u16, grant: u32) {
        let mut free_from = u32::from(first);
        let taken: Vec<(u16, u16)> = self.0.range(..=last).map(|(start, (end, _))| (*start, *end)).collect();
        for (start, end) in taken.into_iter().filter(|(_, end)| *end >= first) {
            if u32::from(start) > free_from {
                self.put(free_from, u32::from(start) - 1, grant);
            }
            free_from = free_from.max(u32::from(end) + 1);
        }
        if free_from <= u32::from(last) {
            self.put(free_from, u32::from(last), grant);
        }
    }

    fn put(&mut self, first: u32, last: u32, grant: u32) {
        if let (Ok(first), Ok(last)) = (u16::try_from(first), u16::try_from(last)) {
            self.0.insert(first, (last, grant));
        }
    }

    fn find(&self, port: u16, operations: &mut u32) -> Option<u32> {
        // What a search among the ports' ranges costs at most; there are never more than 65,536 of them.
        *operations += u32::try_from(self.0.len()).unwrap_or(u32::MAX).checked_ilog2().unwrap_or(0) + 1;
        let (_, (last, grant)) = self.0.range(..=port).next_back()?;
        (*last >= port).then_some(*grant)
    }
}

/// Network grants, ready for look-ups.
#[derive(Debug, Default)]
pub struct NetworkTable {
    networks: HashMap<Network, Ports>,
    everywhere: Ports,
    /// The prefix lengths in use, longest first.
    v4_prefixes: Vec<u8>,
    v6_prefixes: Vec<u8>,
    /// The first grants, to name where none comes nearer.
    first: Vec<u32>,
}

impl NetworkTable {
    /// Adds a pattern. Of grants that cover the same, the first keeps its place.
    pub fn insert(&mut self, pattern: &NetworkPattern, grant: u32) {
        let ports = match pattern.network {
            None => &mut self.everywhere,
            Some(network) => {
                match network {
                    Network::V4 { prefix, .. } => add_prefix(&mut self.v4_prefixes, prefix),
                    Network::V6 { prefix, .. } => add_prefix(&mut self.v6_prefixes, prefix),
                }
                self.networks.entry(network).or_default()
            }
        };
        ports.insert(pattern.ports.0, pattern.ports.1, grant);
        if self.first.len() < super::trie::NEAREST {
            self.first.push(grant);
        }
    }

    /// The grant of the longest prefix that covers the address and port.
    pub fn find(&self, address: SocketAddr, operations: &mut u32) -> Option<u32> {
        for network in self.networks_of(address.ip()) {
            *operations += 1;
            let found = self.networks.get(&network).and_then(|ports| ports.find(address.port(), operations));
            if found.is_some() {
                return found;
            }
        }
        self.everywhere.find(address.port(), operations)
    }

    /// Up to three grants: those of the longest prefixes that cover the address on another port, then the first declared.
    pub fn nearest(&self, address: SocketAddr, operations: &mut u32) -> Vec<u32> {
        let mut found = Vec::new();
        let covering = self.networks_of(address.ip()).filter_map(|network| {
            *operations += 1;
            self.networks.get(&network)?.0.values().next().map(|(_, grant)| *grant)
        });
        for grant in covering.chain(self.first.iter().copied()) {
            if found.len() < super::trie::NEAREST && !found.contains(&grant) {
                found.push(grant);
            }
        }
        found
    }

    /// The networks that an address may be in, longest prefix first.
    fn networks_of(&self, address: IpAddr) -> impl Iterator<Item = Network> + '_ {
        let address = address.to_canonical();
        let prefixes = match address {
            IpAddr::V4(_) => &self.v4_prefixes,
            IpAddr::V6(_) => &self.v6_prefixes,
        };
        prefixes.iter().map(move |prefix| match address {
            IpAddr::V4(ip) => Network::V4 { bits: mask_v4(ip, *prefix), prefix: *prefix },
            IpAddr::V6(ip) => Network::V6 { bits: mask_v6(ip, *prefix), prefix: *prefix },
        })
    }
}

fn add_prefix(prefixes: &mut Vec<u8>, prefix: u8) {
    if let Err(position) = prefixes.binary_search_by(|known| prefix.cmp(known)) {
        prefixes.insert(position, prefix);
    }
}

fn mask_v4(ip: Ipv4Addr, prefix: u8) -> u32 {
    ip.to_bits() & u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(prefix))).unwrap_or(0)
}

fn mask_v6(ip: Ipv6Addr, prefix: u8) -> u128 {
    ip.to_bits() & u128::MAX.checked_shl(128_u32.saturating_sub(u32::from(prefix))).unwrap_or(0)
}

fn split_port(text: &str) -> Result<(&str, &str), NetworkError> {
    if let Some(bracketed) = text.strip_prefix('[') {
        let (address, after) = bracketed.split_once(']').ok_or(NetworkError::Address)?;
        let port = after.strip_prefix(':').ok_or_else(|| NetworkError::NoPort(format!("[{address}]")))?;
        if address.parse::<Ipv4Addr>().is_ok() {
            return Err(NetworkError::Address);
        }
        return Ok((address, port));
    }
    let Some((address, port)) = text.rsplit_once(':') else {
        let shown = if looks_like_name(text) { return Err(NetworkError::Name) } else { text };
        return Err(NetworkError::NoPort(shown.to_owned()));
    };
    if address.contains(':') {
        return Err(NetworkError::Brackets);
    }
    Ok((address, port))
}

/// Whether the text has a letter where an IPv4 address has none.
fn looks_like_name(text: &str) -> bool {
    text.contains(|character: char| character.is_alphabetic()) || (text.contains('*') && text != "*")
}

fn parse_network(text: &str) -> Result<Network, NetworkError> {
    let (address, prefix) = match text.split_once('/') {
        Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| NetworkError::Address)?)),
        None => (text, None),
    };
    let ip = match address.parse::<IpAddr>() {
        Ok(ip) => ip,
        Err(_) if !address.contains(':') && looks_like_name(address) => return Err(NetworkError::Name),
        Err(_) => return Err(NetworkError::Address),
    };
    let (width, shown): (u8, fn(IpAddr, u8) -> String) = match ip {
        IpAddr::V4(_) => (32, |ip, prefix| format!("{ip}/{prefix}")),
        IpAddr::V6(_) => (128, |ip, prefix| format!("[{ip}/{prefix}]")),
    };
    let prefix = prefix.unwrap_or(width);
    if prefix > width {
        return Err(NetworkError::Prefix(prefix, width));
    }
    let (masked, network) = match ip {
        IpAddr::V4(ip) => {
            let bits = mask_v4(ip, prefix);
            (IpAddr::V4(bits.into()), Network::V4 { bits, prefix })
        }
        IpAddr::V6(ip) => {
            let bits = mask_v6(ip, prefix);
            (IpAddr::V6(bits.into()), Network::V6 { bits, prefix })
        }
    };
    if masked != ip {
        return Err(NetworkError::HostBits(shown(masked, prefix)));
    }
    Ok(mapped_to_v4(network))
}

/// A network within `::ffff:0:0/96` is an IPv4 network: such addresses are judged as IPv4.
fn mapped_to_v4(network: Network) -> Network {
    match network {
        Network::V6 { bits, prefix } if prefix >= 96 => match Ipv6Addr::from_bits(bits).to_ipv4_mapped() {
            Some(ip) => Network::V4 { bits: ip.to_bits(), prefix: prefix - 96 },
            None => network,
        },
        Network::V4 { .. } | Network::V6 { .. } => network,
    }
}

fn parse_ports(text: &str) -> Result<(u16, u16), NetworkError> {
    let bad = || NetworkError::Port(text.to_owned());
    if text == "*" {
        return Ok((0, u16::MAX));
    }
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |digits: &str| {
        let plain = digits.bytes().all(|byte| byte.is_ascii_digit());
        if plain { digits.parse::<u16>().map_err(|_| bad()) } else { Err(bad()) }
    };
    let (first, last) = (number(first)?, number(last)?);
    if first > last { Err(bad()) } else { Ok((first, last)) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    fn table(patterns: &[&str]) -> NetworkTable {
        let mut table = NetworkTable::default();
        for (grant, text) in (0_u32..).zip(patterns) {
            table.insert(&NetworkPattern::parse(text).unwrap(), grant);
        }
        table
    }

    #[test]
    fn a_grant_covers_its_network_and_its_ports_alone() {
        for (pattern, address, expected) in [
            ("10.0.0.0/8:5432", "10.9.8.7:5432", true),
            ("10.0.0.0/8:5432", "10.9.8.7:5433", false),
            ("10.0.0.0/8:5432", "11.0.0.1:5432", false),
            ("127.0.0.1:*", "127.0.0.1:1", true),
            ("127.0.0.1:*", "127.0.0.2:1", false),
            ("[::1]:443", "[::1]:443", true),
            ("[::1]:443", "[::2]:443", false),
            ("[fd00::/8]:8000-8100", "[fd12::1]:8100", true),
            ("[fd00::/8]:8000-8100", "[fd12::1]:8101", false),
            ("10.0.0.0/8:443", "[::ffff:10.1.1.1]:443", true),
            ("[::ffff:10.0.0.0/104]:443", "10.1.1.1:443", true),
            ("*:443", "[2001:db8::1]:443", true),
            ("*:443", "192.0.2.1:443", true),
            ("*:443", "192.0.2.1:80", false),
            ("0.0.0.0/0:53", "8.8.8.8:53", true),
            ("0.0.0.0/0:53", "[2001:db8::1]:53", false),
            ("[::/0]:53", "[2001:db8::1]:53", true),
        ] {
            let address: SocketAddr = address.parse().unwrap();
            assert_eq!(NetworkPattern::parse(pattern).unwrap().matches(address), expected, "{pattern}, {address}");
            assert_eq!(table(&[pattern]).find(address, &mut 0).is_some(), expected, "{pattern}, {address}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_what_would_be_right() {
        for (pattern, expected) in [
            ("api.example.com:443", "names are not supported yet; use addresses"),
            ("*.example.com:443", "names are not supported yet"),
            ("localhost", "names are not supported yet"),
            ("10.0.0.5", "has no port; write `10.0.0.5:443`"),
            ("[::1]", "has no port; write `[::1]:443`"),
            ("::1:443", "write `[::1]:443`"),
            ("10.0.0.5:https", "has the port `https`"),
            ("10.0.0.5:70000", "has the port `70000`"),
            ("10.0.0.5:90-80", "has the port `90-80`"),
            ("10.0.0.5:+80", "has the port `+80`"),
            ("10.0.0.0/33:80", "has a prefix of 33 bits; an address has 32"),
            ("10.1.2.3/8:80", "write `10.0.0.0/8`"),
            ("[fd00::1/8]:80", "write `[fd00::/8]`"),
            ("300.0.0.1:80", "has no address that can be read"),
            ("[10.0.0.1]:80", "has no address that can be read"),
        ] {
            let message = NetworkPattern::parse(pattern).unwrap_err().to_string();
            assert!(message.contains(expected), "{pattern}: {message}");
        }
    }

    #[test]
    fn the_longest_prefix_is_the_one_named_and_the_first_of_equals() {
        let table = table(&["10.0.0.0/8:*", "10.1.0.0/16:80", "10.1.0.0/16:1-100", "*:443"]);
        for (address, grant) in [("10.1.1.1:80", 1), ("10.1.1.1:81", 2), ("10.1.1.1:200", 0), ("11.1.1.1:443", 3)] {
            assert_eq!(table.find(address.parse().unwrap(), &mut 0), Some(grant), "{address}");
        }
    }

    #[test]
    fn the_nearest_grants_are_those_of_the_same_network_first() {
        let table = table(&["192.0.2.1:80", "192.0.2.2:80", "192.0.2.3:80", "10.0.0.0/8:5432"]);
        assert_eq!(table.nearest("10.0.0.1:22".parse().unwrap(), &mut 0), [3, 0, 1]);
    }

    #[test]
    fn finding_costs_the_same_at_ten_grants_and_at_a_hundred_thousand() {
        let build = |number: u32| {
            let mut table = NetworkTable::default();
            for grant in 0..number {
                let [_, high, middle, low] = (grant / 10).to_be_bytes();
                let text = match grant % 10 {
                    0..4 => format!("10.{high}.{middle}.{low}:443"),
                    4..6 => format!("172.{high}.{middle}.0/24:{}", 1000 + grant % 60_000),
                    6..8 => format!("[fd00:{high}:{middle}:{low}::/64]:443"),
                    8 => format!("192.0.2.1:{}", grant % 65_536),
                    _ => "10.0.0.0/8:5432".to_owned(),
                };
                table.insert(&NetworkPattern::parse(&text).unwrap(), grant);
            }
            table
        };
        let (few, many) = (build(10), build(100_000));
        for address in ["10.0.0.0:443", "192.0.2.1:8", "[fd00::1]:443", "8.8.8.8:53", "10.2.3.4:5432"] {
            let address: SocketAddr = address.parse().unwrap();
            let (mut at_few, mut at_many) = (0, 0);
            let _ = few.find(address, &mut at_few);
            let _ = many.find(address, &mut at_many);
            // At most one halving of a full range of ports is added.
            assert!(at_many <= at_few + 17, "{address}: {at_few} operations at 10 grants, {at_many} at 100,000");
        }
    }
}
