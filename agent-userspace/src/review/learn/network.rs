//! Addresses to few grants.
//!
//! Input: the addresses that were connected to, or taken. Output: patterns. An address stays itself. Ports of the range that the
//! kernel draws from become that range where several were seen at one address. Where there is no room for all, networks
//! and ports widen step by step. Refuses a pattern that covers what must stay outside.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::tree::Pattern;
use super::uses::Use;
use crate::scope::network::NetworkPattern;

/// The ports that the kernel draws from, as Linux has them unless an administrator chose others.
const DRAWN: (u16, u16) = (32_768, 60_999);

/// Addresses, and how wide they are granted.
#[derive(Debug, Default)]
pub(super) struct Addresses {
    uses: BTreeMap<SocketAddr, Use>,
    outside: BTreeSet<SocketAddr>,
    width: usize,
}

/// Steps of width: how many bits of an IPv4 and of an IPv6 address count, and whether ports do.
const WIDTHS: [(u8, u8, bool); 5] =
    [(32, 128, true), (32, 128, false), (24, 64, false), (16, 48, false), (0, 0, false)];

impl Addresses {
    pub(super) fn add(&mut self, address: SocketAddr, uses: &Use) {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        let known = self.uses.entry(address).or_default();
        known.add(uses);
        known.paths = 1;
    }

    pub(super) fn leave_out(&mut self, address: SocketAddr) {
        self.outside.insert(SocketAddr::new(address.ip().to_canonical(), address.port()));
    }

    /// Takes the next step of width; returns whether there was one.
    pub(super) fn widen(&mut self) -> bool {
        let can = self.uses.len() > 1 && self.width + 1 < WIDTHS.len();
        self.width += usize::from(can);
        can
    }

    /// The patterns.
    pub(super) fn patterns(&self) -> Vec<Pattern> {
        let (v4, v6, ports_count) = WIDTHS.get(self.width).copied().unwrap_or((32, 128, true));
        let mut groups: BTreeMap<String, Vec<(&SocketAddr, &Use)>> = BTreeMap::new();
        for (address, uses) in &self.uses {
            let drawn_here = self.uses.keys().filter(|other| other.ip() == address.ip() && is_drawn(other.port()));
            let ports = match (ports_count, is_drawn(address.port()) && drawn_here.count() > 1) {
                (true, false) => address.port().to_string(),
                (true, true) => format!("{}-{}", DRAWN.0, DRAWN.1),
                (false, _) => "*".to_owned(),
            };
            let bits = if address.is_ipv4() { v4 } else { v6 };
            let wide = format!("{}:{ports}", network(address.ip(), bits));
            groups.entry(self.allowed(wide, *address)).or_default().push((address, uses));
        }
        let merged = groups.into_iter().map(|(text, members)| {
            let mut uses = Use::default();
            members.iter().for_each(|(_, of)| uses.add(of));
            Pattern { text, uses }
        });
        merged.collect()
    }

    /// The pattern, or the address itself where that would cover what must stay outside.
    fn allowed(&self, wide: String, address: SocketAddr) -> String {
        let covers = NetworkPattern::parse(&wide)
            .map_or(true, |pattern| self.outside.iter().any(|outside| pattern.matches(*outside)));
        if covers { address.to_string() } else { wide }
    }
}

fn is_drawn(port: u16) -> bool {
    (DRAWN.0..=DRAWN.1).contains(&port)
}

fn network(ip: IpAddr, bits: u8) -> String {
    match ip {
        IpAddr::V4(ip) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            let base = std::net::Ipv4Addr::from_bits(ip.to_bits() & mask);
            if bits == 32 { base.to_string() } else { format!("{base}/{bits}") }
        }
        IpAddr::V6(ip) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            let base = std::net::Ipv6Addr::from_bits(ip.to_bits() & mask);
            if bits == 128 { format!("[{base}]") } else { format!("[{base}/{bits}]") }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn addresses(texts: &[&str]) -> Addresses {
        let mut addresses = Addresses::default();
        texts.iter().for_each(|text| addresses.add(text.parse().unwrap(), &Use::once("curl")));
        addresses
    }

    fn texts(addresses: &Addresses) -> Vec<String> {
        addresses.patterns().into_iter().map(|pattern| pattern.text).collect()
    }

    #[test]
    fn addresses_stay_themselves_and_several_drawn_ports_become_their_range() {
        assert_eq!(
            texts(&addresses(&["10.0.0.5:443", "[::ffff:10.0.0.5]:443", "127.0.0.1:40000"])),
            ["10.0.0.5:443", "127.0.0.1:40000"]
        );
        assert_eq!(
            texts(&addresses(&["127.0.0.1:40000", "127.0.0.1:50000", "127.0.0.1:80"])),
            ["127.0.0.1:32768-60999", "127.0.0.1:80"]
        );
    }

    #[test]
    fn where_there_is_no_room_they_widen_and_never_over_what_must_stay_outside() {
        let mut some = addresses(&["10.0.0.5:1", "10.0.0.5:2", "10.0.0.6:2", "[fd00::1]:2"]);
        some.leave_out("10.0.0.5:22".parse().unwrap());
        assert!(some.widen());
        assert_eq!(texts(&some), ["10.0.0.5:1", "10.0.0.5:2", "10.0.0.6:*", "[fd00::1]:*"]);
        while some.widen() {}
        assert!(texts(&some).contains(&"10.0.0.5:1".to_owned()));
        for pattern in texts(&some) {
            NetworkPattern::parse(&pattern).unwrap();
        }
    }
}
