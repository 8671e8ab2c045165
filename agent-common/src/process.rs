//! Processes: fork, exec, exit.

use crate::wire;

wire! {
    /// The body of a fork; the header names the parent.
    pub struct Fork [16] {
        /// The new process.
        pub child_tgid: u32,
        /// Zero.
        pub reserved: u32,
        /// When it started, in nanoseconds after boot.
        pub child_start_boot_ns: u64,
    }
}

wire! {
    /// The body of an exec that succeeded.
    ///
    /// Strings: `Path` (the image as the kernel resolved it), `Given`, `Directory` (the working directory), `Environment`
    /// (the allow-listed ones), `Arguments`.
    pub struct Exec [72] {
        /// The session that the process was in before; 0 for none, the header's own when it stayed.
        pub session_before: u64,
        /// The image's inode.
        pub inode: u64,
        /// The image's device, as the kernel writes it: major << 20 | minor.
        pub device: u32,
        /// The index of the agent that the kernel recognised plus one; 0 for none.
        pub agent: u32,
        /// When the parent started, in nanoseconds after boot.
        pub parent_start_boot_ns: u64,
        /// The parent process.
        pub parent_tgid: u32,
        /// Real user id.
        pub uid: u32,
        /// Effective user id.
        pub euid: u32,
        /// Real group id.
        pub gid: u32,
        /// The user id that logged in; `u32::MAX` where none did.
        pub login_uid: u32,
        /// See the constants beginning with `EXEC_`.
        pub flags: u32,
        /// The control group's id in the unified hierarchy.
        pub cgroup_id: u64,
        /// Zero.
        pub reserved: u64,
    }
}

/// What was named to exec was not the image but a script (or a format) that named the image as its interpreter.
pub const EXEC_INTERPRETED: u32 = 1;
/// The image has no name on disk any more, or never had one.
pub const EXEC_NAMELESS: u32 = 2;

wire! {
    /// The body of an exec that failed. Strings: `Directory` (what a relative path starts from), `Given`.
    pub struct ExecFailed [8] {
        /// Why, as a positive errno.
        pub errno: u32,
        /// Zero.
        pub reserved: u32,
    }
}

wire! {
    /// The body of an exit. It is the process's: a thread that ends while others live makes none.
    pub struct Exit [24] {
        /// The status as `wait` gives it: code << 8, or the signal's number in the low seven bits.
        pub status: u32,
        /// The parent process.
        pub parent_tgid: u32,
        /// When the parent started, in nanoseconds after boot.
        pub parent_start_boot_ns: u64,
        /// The session that the parent is in; 0 for none.
        pub parent_session: u64,
    }
}
