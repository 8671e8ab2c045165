#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

use agent_common::RecordKind;
use agent_common::process as wire;
use zerocopy::{FromBytes, IntoBytes};

use super::*;

fn record(kind: RecordKind, body: &[u8], strings: &[(StringTag, &[u8], bool)]) -> Vec<u8> {
    let header = RecordHeader { kind: kind.to_wire(), session: 7, tgid: 40, tid: 41, ..RecordHeader::default() };
    let mut bytes = [header.as_bytes(), body].concat();
    for (tag, string, cut) in strings {
        let len_bytes = u16::try_from(string.len()).unwrap();
        let header = StringHeader { tag: tag.to_wire(), flags: u8::from(*cut), len_bytes };
        bytes.extend_from_slice(header.as_bytes());
        bytes.extend_from_slice(string);
    }
    bytes
}

#[test]
fn an_exec_has_its_path_arguments_and_environment() {
    let body = wire::Exec { login_uid: u32::MAX, agent: 3, ..wire::Exec::default() };
    let strings: &[(StringTag, &[u8], bool)] = &[
        (StringTag::Path, b"/usr/bin/dash", false),
        (StringTag::Environment, b"AI_AGENT=x", false),
        (StringTag::Arguments, b"sh\0-c\0\0", false),
    ];
    let event = decode(&record(RecordKind::Exec, body.as_bytes(), strings)).unwrap();
    let Action::Exec(exec) = event.action else { panic!("no exec: {:?}", event.action) };
    assert_eq!(exec.path.bytes, b"/usr/bin/dash");
    assert_eq!(exec.arguments, [b"sh".to_vec(), b"-c".to_vec(), b"".to_vec()]);
    assert_eq!(exec.environment[0].bytes, b"AI_AGENT=x");
    assert_eq!((exec.agent, exec.login_uid), (Some(2), None));
}

#[test]
fn a_failed_open_is_the_given_path_after_its_directory() {
    let body = agent_common::file::Open::default();
    let strings: &[(StringTag, &[u8], bool)] =
        &[(StringTag::Given, b"../x", false), (StringTag::Directory, b"/srv/shop", false)];
    let event = decode(&record(RecordKind::Open, body.as_bytes(), strings)).unwrap();
    let Action::Open(open) = event.action else { panic!("no open: {:?}", event.action) };
    assert_eq!((open.path.bytes.as_slice(), open.as_given), (b"/srv/shop/../x".as_slice(), true));
}

#[test]
fn an_ipv4_address_mapped_into_ipv6_is_an_ipv4_address() {
    let mut remote = [0; 16];
    remote[10..].copy_from_slice(&[0xff, 0xff, 127, 0, 0, 1]);
    let body = agent_common::network::Socket { remote, remote_port: 80, family: AF_INET6, ..Default::default() };
    let event = decode(&record(RecordKind::Connect, body.as_bytes(), &[])).unwrap();
    let Action::Socket(connect) = event.action else { panic!("no connect: {:?}", event.action) };
    assert_eq!(connect.remote, "127.0.0.1:80".parse().unwrap());
}

#[test]
fn a_record_cut_anywhere_is_an_error_or_a_shorter_record_but_never_a_panic() {
    let body = wire::Exec::default();
    let whole = record(RecordKind::Exec, body.as_bytes(), &[(StringTag::Path, b"/bin/true", false)]);
    let fixed = size_of::<RecordHeader>() + size_of::<wire::Exec>();
    for len in 0..whole.len() {
        assert_eq!(decode(&whole[..len]).is_ok(), len == fixed, "at {len}");
    }
}

#[test]
fn an_unknown_kind_is_named_and_is_not_fatal() {
    let mut bytes = record(RecordKind::Fork, wire::Fork::default().as_bytes(), &[]);
    bytes[4] = 0xee;
    assert_eq!(decode(&bytes), Err(DecodeError::UnknownKind { kind: 0xee }));
}

const AF_INET6: u16 = 10;

/// A generator of bytes that are the same in every run.
struct Bytes(u64);

impl Bytes {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

#[test]
fn whatever_bytes_come_are_decoded_or_refused() {
    let mut bytes = Bytes(0x9e37_79b9_7f4a_7c15);
    let strings: Vec<(StringTag, &[u8], bool)> = (0..=u8::MAX)
        .filter_map(StringTag::from_wire)
        .map(|tag| (tag, &b"/tmp/\xff\0name"[..], tag == StringTag::Given))
        .collect();
    let mut decoded = 0u32;
    for &kind in RecordKind::ALL {
        // Long enough for every body; what is too much begins the strings.
        for body_len in [0, 8, 24, 48, 64, 96, 112, 144] {
            let body: Vec<u8> = (0..body_len).map(|_| bytes.next() as u8).collect();
            let whole = record(kind, &body, &strings);
            decoded += u32::from(decode(&whole).is_ok());
            for _ in 0..500 {
                let mut changed = whole.clone();
                for _ in 0..=bytes.below(8) {
                    let at = bytes.below(changed.len());
                    changed[at] = bytes.next() as u8;
                }
                changed.truncate(bytes.below(changed.len() + 1));
                if let Ok(event) = decode(&changed) {
                    let _ = event.action.kind();
                }
            }
        }
    }
    assert!(decoded as usize >= RecordKind::ALL.len(), "no kind was decoded at all: {decoded}");
}

#[test]
fn the_corpus_of_the_fuzzing_has_a_record_of_every_kind_and_each_is_one() {
    let corpus = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus/decode");
    let mut kinds: std::collections::BTreeSet<u16> = std::collections::BTreeSet::new();
    for file in std::fs::read_dir(corpus).unwrap() {
        let path = file.unwrap().path();
        let record = std::fs::read(&path).unwrap();
        decode(&record).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (header, _) = RecordHeader::read_from_prefix(&record).unwrap();
        kinds.insert(header.kind);
    }
    assert_eq!(kinds, RecordKind::ALL.iter().map(|kind| kind.to_wire()).collect());
}
