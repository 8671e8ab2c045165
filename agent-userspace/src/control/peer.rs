//! Who may use the control socket.
//!
//! Purpose: the second of two checks (the first is the socket's mode). Inputs: the credentials the kernel recorded when
//! the peer connected; `/etc/group`; `/proc`. Outputs: allowed or [`Forbidden`]. Refuses: everyone but root, the daemon's
//! own user, and members of the group `bailiwick`.

use std::fs::File;
use std::io::{self, Read};
use std::path::PathBuf;

/// The group whose members may use the socket, where the host has one.
pub const GROUP: &str = "bailiwick";

/// No `/proc/PID/status` is longer; a list of 65,536 groups would be, and is then read in part.
const MAX_STATUS_BYTES: u64 = 1024 * 1024;

/// The process at the other end, as the kernel recorded it at `connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its effective uid.
    pub uid: u32,
    /// Its effective gid.
    pub gid: u32,
    /// Its process id; `None` where it lies in a pid namespace that the daemon cannot see.
    pub tgid: Option<u32>,
}

/// Decides who may use the socket.
#[derive(Clone, Debug)]
pub struct Access {
    group: Option<u32>,
    own_uid: u32,
    proc_root: PathBuf,
}

/// The peer may not use the socket.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "uid {uid} may not use the daemon's control socket: root may, and members of the group '{GROUP}' (become root, or \
     have an administrator add you to the group)"
)]
pub struct Forbidden {
    uid: u32,
}

/// The child that `run` names is not one of the peer's.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotItsChild {
    /// It has another parent.
    #[error("process {child} is not a child of the process that asks")]
    OtherParent {
        /// The process named.
        child: u32,
    },
    /// It cannot be seen.
    #[error(
        "process {child} is not to be seen by the daemon: start the command from the daemon's own pid namespace, not \
         from within a container"
    )]
    Unseen {
        /// The process named.
        child: u32,
    },
}

impl Access {
    /// As this host has it: its group, the daemon's own user, its `/proc`.
    pub fn of_host() -> Self {
        let groups = std::fs::read_to_string("/etc/group").unwrap_or_default();
        Self {
            group: gid_of(&groups, GROUP),
            own_uid: rustix::process::geteuid().as_raw(),
            proc_root: PathBuf::from("/proc"),
        }
    }

    /// With these instead: for tests.
    pub fn with(group: Option<u32>, own_uid: u32, proc_root: PathBuf) -> Self {
        Self { group, own_uid, proc_root }
    }

    /// The group's id, where the host has it.
    pub fn group(&self) -> Option<u32> {
        self.group
    }

    /// Whether the peer may use the socket.
    pub fn check(&self, peer: Peer) -> Result<(), Forbidden> {
        if self.is_own(peer) || self.is_member(peer) { Ok(()) } else { Err(Forbidden { uid: peer.uid }) }
    }

    /// Whether it is root or the daemon's own user.
    pub fn is_own(&self, peer: Peer) -> bool {
        peer.uid == 0 || peer.uid == self.own_uid
    }

    /// Whether `child` is a child of the peer, which therefore holds its id until it reaps it.
    pub fn check_child(&self, child: u32, peer: Peer) -> Result<(), NotItsChild> {
        let status = self.status_of(child).map_err(|_| NotItsChild::Unseen { child })?;
        let parent = field(&status, "PPid:").and_then(|value| value.trim().parse::<u32>().ok());
        match (parent, peer.tgid) {
            (Some(parent), Some(asking)) if parent == asking => Ok(()),
            _ => Err(NotItsChild::OtherParent { child }),
        }
    }

    fn is_member(&self, peer: Peer) -> bool {
        let Some(group) = self.group else { return false };
        if peer.gid == group {
            return true;
        }
        let Some(status) = peer.tgid.and_then(|tgid| self.status_of(tgid).ok()) else { return false };
        let Some(groups) = field(&status, "Groups:") else { return false };
        groups.split_ascii_whitespace().any(|gid| gid.parse() == Ok(group))
    }

    fn status_of(&self, tgid: u32) -> io::Result<String> {
        let mut text = String::new();
        File::open(self.proc_root.join(tgid.to_string()).join("status"))?
            .take(MAX_STATUS_BYTES)
            .read_to_string(&mut text)?;
        Ok(text)
    }
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    status.lines().find_map(|line| line.strip_prefix(name))
}

/// The id of a group of `/etc/group`. Groups of other sources (LDAP and such) are not looked up.
fn gid_of(group_file: &str, name: &str) -> Option<u32> {
    group_file.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok()).flatten()
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use super::*;

    fn proc_with(status: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("77")).unwrap();
        std::fs::write(root.path().join("77/status"), status).unwrap();
        root
    }

    fn peer(uid: u32, gid: u32) -> Peer {
        Peer { uid, gid, tgid: Some(77) }
    }

    #[test]
    fn the_groups_id_is_found_by_its_whole_name() {
        let groups = "root:x:0:\nbailiwicks:x:5:\nbailiwick:x:990:alice,bob\n";
        assert_eq!(gid_of(groups, "bailiwick"), Some(990));
        assert_eq!(gid_of("bailiwicks:x:5:\n", "bailiwick"), None);
        assert_eq!(gid_of("bailiwick:x:no:\nbailiwick", "bailiwick"), None);
    }

    #[test]
    fn root_and_the_daemons_own_user_may_and_others_may_not() {
        let root = proc_with("Name:\tx\n");
        let access = Access::with(None, 42, root.path().into());
        assert_eq!(access.check(peer(0, 0)), Ok(()));
        assert_eq!(access.check(peer(42, 42)), Ok(()));
        assert_eq!(access.check(peer(1000, 990)), Err(Forbidden { uid: 1000 }));
    }

    #[test]
    fn members_by_primary_or_by_supplementary_group_may() {
        let root = proc_with("Name:\tx\nGroups:\t27 990 1000 \n");
        let access = Access::with(Some(990), 0, root.path().into());
        assert_eq!(access.check(peer(1000, 990)), Ok(()));
        assert_eq!(access.check(peer(1000, 1000)), Ok(()));
    }

    #[test]
    fn a_group_whose_digits_merely_contain_the_id_does_not_count() {
        let root = proc_with("Groups:\t1990 9900 \n");
        let access = Access::with(Some(990), 0, root.path().into());
        assert!(access.check(peer(1000, 1000)).is_err());
    }

    #[test]
    fn a_peer_that_is_gone_is_no_member() {
        let root = tempfile::tempdir().unwrap();
        let access = Access::with(Some(990), 0, root.path().into());
        assert!(access.check(peer(1000, 1000)).is_err());
        assert!(access.check(Peer { uid: 1000, gid: 1000, tgid: None }).is_err());
    }

    #[test]
    fn only_a_child_of_the_asking_process_may_be_made_a_session() {
        let root = proc_with("PPid:\t70\n");
        let access = Access::with(None, 0, root.path().into());
        let asking = |tgid| Peer { uid: 0, gid: 0, tgid };
        assert_eq!(access.check_child(77, asking(Some(70))), Ok(()));
        assert_eq!(access.check_child(77, asking(Some(7))), Err(NotItsChild::OtherParent { child: 77 }));
        assert_eq!(access.check_child(77, asking(None)), Err(NotItsChild::OtherParent { child: 77 }));
        assert_eq!(access.check_child(78, asking(Some(70))), Err(NotItsChild::Unseen { child: 78 }));
    }
}
