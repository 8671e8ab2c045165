//! Lines of descent as `/proc` would show them.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::symlink;

use super::*;

struct Host(tempfile::TempDir);

/// A process: its id, its parent, its user, the leader of its session, its terminal, its image.
type Row<'a> = (u32, u32, u32, u32, u32, &'a str);

const PTS_3: u32 = 136 << 8 | 3;

impl Host {
    fn of(rows: &[Row<'_>]) -> Self {
        let host = Self(tempfile::tempdir().unwrap());
        for &(tgid, parent, uid, leader, terminal, image) in rows {
            let directory = host.0.path().join(tgid.to_string());
            fs::create_dir_all(directory.join("fd")).unwrap();
            fs::create_dir_all(directory.join("net")).unwrap();
            symlink(image, directory.join("exe")).unwrap();
            let stat = format!("{tgid} (x) S {parent} {tgid} {leader} {terminal} 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 9 0");
            fs::write(directory.join("stat"), stat).unwrap();
            fs::write(directory.join("status"), format!("PPid:\t{parent}\nUid:\t{uid}\t{uid}\t0\t0\n")).unwrap();
        }
        host
    }

    fn file(&self, path: &str, text: &str) {
        fs::write(self.0.path().join(path), text).unwrap();
    }

    fn lineage(&self, tgid: u32, uid: u32) -> Lineage {
        let proc = ProcFs::at(self.0.path()).with_logins(&self.0.path().join("logins"));
        lineage(&proc, tgid, uid, proc.login_uid(tgid), None)
    }
}

/// A program of root's own, of that name: what stands on every host is linked to.
fn roots(name: &str, place: &std::path::Path) -> String {
    let path = place.join(name);
    if !path.exists() {
        fs::copy("/bin/true", &path).unwrap();
    }
    path.display().to_string()
}

#[test]
fn a_terminal_is_known_by_the_process_or_the_shell_that_started_it() {
    let host = Host::of(&[(10, 1, 1000, 10, PTS_3, "/bin/bash"), (11, 10, 1000, 11, 0, "/usr/bin/agent")]);
    let found = host.lineage(11, 1000);
    assert_eq!(found.principal.terminal.as_deref(), Some("/dev/pts/3"));
    assert_eq!((found.principal.via.as_deref(), found.lost), (Some("terminal"), None));
}

#[test]
fn who_called_sudo_is_known_where_sudo_is_roots_own() {
    let place = tempfile::tempdir().unwrap();
    let sudo = roots("sudo", place.path());
    let rows = [
        (10, 1, 1000, 10, PTS_3, "/bin/bash"),
        (11, 10, 0, 10, PTS_3, sudo.as_str()),
        (12, 11, 0, 10, PTS_3, "/usr/bin/agent"),
    ];
    let found = Host::of(&rows).lineage(12, 0).principal;
    let is_root = rustix::process::geteuid().is_root();
    assert_eq!(found.asked_by.map(|asker| asker.uid), is_root.then_some(1000));
    assert_eq!(found.through, if is_root { vec!["sudo"] } else { vec![] });
}

#[test]
fn an_orphan_is_followed_to_the_leader_of_its_session_and_lost_where_that_has_ended() {
    let shell = (10, 1, 1000, 10, PTS_3, "/bin/bash");
    let orphan = (12, 1, 1000, 10, 0, "/usr/bin/agent");
    let found = Host::of(&[shell, orphan]).lineage(12, 1000);
    assert_eq!((found.principal.terminal.as_deref(), found.lost), (Some("/dev/pts/3"), None));
    let lost = Host::of(&[orphan]).lineage(12, 1000).lost.unwrap();
    assert_eq!((lost.tgid, lost.program.as_str()), (12, "agent"));
    assert!(lost.why.contains("the leader of its session, process 10"), "{}", lost.why);
}

#[test]
fn a_multiplexers_server_stands_for_its_one_client_and_is_where_it_is_lost_without_one() {
    let server = (20, 1, 1000, 20, 0, "/usr/bin/tmux");
    let shell = (21, 20, 1000, 21, 136 << 8 | 7, "/bin/bash");
    let agent = (22, 21, 1000, 21, 136 << 8 | 7, "/usr/bin/agent");
    let outside = (10, 1, 1000, 10, PTS_3, "/bin/bash");
    let client = (11, 10, 1000, 10, PTS_3, "/usr/bin/tmux");
    let found = Host::of(&[server, shell, agent, outside, client]).lineage(22, 1000);
    assert_eq!((found.principal.terminal.as_deref(), found.lost), (Some("/dev/pts/3"), None));
    assert_eq!(found.principal.through, ["tmux"]);

    let detached = Host::of(&[server, shell, agent]).lineage(22, 1000);
    let lost = detached.lost.unwrap();
    assert_eq!((lost.tgid, lost.program.as_str(), lost.why.as_str()), (20, "tmux", "nobody is attached to it"));
    let second = (30, 1, 1000, 30, 0, "/usr/bin/tmux");
    let lost = Host::of(&[server, shell, agent, outside, client, second]).lineage(22, 1000).lost.unwrap();
    assert!(lost.why.starts_with("2 servers of uid 1000"), "{}", lost.why);
}

#[test]
fn an_ssh_connection_is_that_which_its_server_accepted() {
    let place = tempfile::tempdir().unwrap();
    let sshd = roots("sshd-session", place.path());
    let rows = [
        (10, 1, 0, 10, 0, sshd.as_str()),
        (11, 10, 1000, 11, PTS_3, "/bin/bash"),
        (12, 11, 1000, 12, 0, "/usr/bin/agent"),
    ];
    let host = Host::of(&rows);
    host.file(
        "10/net/tcp",
        "  sl\n 0: 00000000:0016 00000000:0000 0A 0:0 00:0 0 0 0 1 1\n \
         1: 0A00000A:A000 0B00000A:01BB 01 0:0 00:0 0 0 0 3 1\n 2: 0A00000A:0016 057100CB:C000 01 0:0 00:0 0 0 0 2 1\n",
    );
    for inode in [2, 3] {
        symlink(format!("socket:[{inode}]"), host.0.path().join(format!("10/fd/{inode}"))).unwrap();
    }
    host.file("12/loginuid", "1000\n");
    let found = host.lineage(12, 1000).principal;
    if rustix::process::geteuid().is_root() {
        assert_eq!((found.ssh.as_deref(), found.via.as_deref()), (Some("203.0.113.5:49152"), Some("ssh")));
    }
    assert_eq!(found.login_uid, Some(1000));
    let own = Host::of(&[(10, 1, 1000, 10, 0, "/home/a/none-such/sshd"), (12, 10, 1000, 12, 0, "/usr/bin/agent")]);
    assert_eq!(own.lineage(12, 1000).principal.ssh, None, "a program that is called so is no server");
}

#[test]
fn a_login_is_known_by_its_scope_where_parents_tell_nothing() {
    let host = Host::of(&[(12, 1, 1000, 12, 0, "/usr/bin/agent")]);
    host.file("12/cgroup", "0::/user.slice/user-1000.slice/session-3.scope\n");
    fs::create_dir(host.0.path().join("logins")).unwrap();
    host.file("logins/3", "# comment\nUID=1000\nREMOTE_HOST=203.0.113.9\nSERVICE=sshd\n");
    let found = host.lineage(12, 1000);
    assert_eq!((found.principal.ssh.as_deref(), found.principal.unit, found.lost), (Some("203.0.113.9"), None, None));
}
