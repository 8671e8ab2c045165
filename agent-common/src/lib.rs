//! The wire types that the sensor (kernel side) and the daemon (user side) share.
//!
//! Integers only, layout pinned by assertions: both sides read the same bytes, whichever compiler made them. A record is
//! a [`RecordHeader`], the body of its kind, then strings, each behind a [`StringHeader`]; it takes as much of the ring as
//! it needs.
#![no_std]

pub mod call;
pub mod file;
pub mod maps;
pub mod network;
pub mod process;
pub mod record;

pub use record::{RecordHeader, RecordKind, StringHeader, StringTag};

/// Implements byte access on the side that reads records.
macro_rules! wire {
    ($(#[$meta:meta])* pub struct $name:ident [$size:literal] { $($(#[$field_meta:meta])* pub $field:ident: $ty:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(
            feature = "user",
            derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
        )]
        pub struct $name { $($(#[$field_meta])* pub $field: $ty,)* }
        const _: () = assert!(size_of::<$name>() == $size);
    };
}
pub(crate) use wire;
