//! On whose behalf a process runs: its user, who logged in, over which connection, by which unit, at which terminal.
//!
//! Input: a process that runs, and `/proc`. Output: a [`Lineage`]: the principal, and where the trail of parents was lost,
//! where it was. Parents are followed through sudo, su and shells; a process whose parent has ended, through the leader of
//! its process session; the server of a terminal multiplexer, which is a daemon, through the one client that it can have.
//! Programs count by their image where that is root's own, not by what they call themselves. What a process says about
//! itself is not asked for.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use super::procfs::{Identity, ProcFs};
use super::tcp;
use crate::entry::{Person, Principal};

/// The longest chain of parents that is followed to find where somebody came from.
const MOST_ANCESTORS: usize = 64;
/// Programs that run others as another user.
const CHANGES_USER: [&str; 5] = ["sudo", "su", "doas", "pkexec", "runuser"];
/// Servers that terminals come back to.
const MULTIPLEXERS: [&str; 5] = ["tmux", "screen", "dtach", "abduco", "zellij"];

/// Where it was lost on whose behalf a process runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The last process that is known.
    pub tgid: u32,
    /// Its image's name.
    pub program: String,
    /// Why nothing is known beyond it.
    pub why: String,
}

/// On whose behalf a process runs, and where that was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// What is known.
    pub principal: Principal,
    /// Where the rest was lost; none where nothing was.
    pub lost: Option<Lost>,
}

/// On whose behalf a process runs; `via` where that is known otherwise.
pub fn principal(proc: &ProcFs, tgid: u32, uid: u32, login_uid: Option<u32>, via: Option<&str>) -> Principal {
    lineage(proc, tgid, uid, login_uid, via).principal
}

/// The same, with where it was lost.
pub fn lineage(proc: &ProcFs, tgid: u32, uid: u32, login_uid: Option<u32>, via: Option<&str>) -> Lineage {
    let mut walk = Walk { proc, ssh: None, through: Vec::new(), asked_by: None, terminal: None, lost: None };
    walk.follow(tgid, true);
    let unit = proc.unit(tgid);
    let login = unit.as_deref().and_then(|unit| proc.login_of_scope(unit));
    let ssh = walk.ssh.map(|peer| peer.to_string()).or_else(|| login.and_then(|login| login.remote_host));
    // A login's own scope is none of a service.
    let unit = unit.filter(|unit| unit.ends_with(".service"));
    let on_terminal = walk.terminal.is_some();
    let found_via = ssh.as_ref().map(|_| "ssh".to_owned()).or_else(|| unit.clone());
    let found_via = found_via.or_else(|| on_terminal.then(|| "terminal".to_owned()));
    let asked_by = walk.asked_by.filter(|&asker| asker != uid);
    let principal = Principal {
        uid,
        user: user_name(uid),
        login_uid,
        via: via.map(str::to_owned).or(found_via),
        login_user: login_uid.and_then(user_name),
        asked_by: asked_by.map(|uid| Person { uid, user: user_name(uid) }),
        ssh,
        unit,
        terminal: walk.terminal,
        through: walk.through,
    };
    Lineage { principal, lost: walk.lost }
}

struct Walk<'a> {
    proc: &'a ProcFs,
    ssh: Option<SocketAddr>,
    through: Vec<String>,
    /// The user of whoever asked first: the outermost that is known.
    asked_by: Option<u32>,
    terminal: Option<String>,
    lost: Option<Lost>,
}

impl Walk<'_> {
    /// Follows the parents of a process. A multiplexer's client is followed once: it has a multiplexer around it seldom, and
    /// then that one's lineage is lost.
    fn follow(&mut self, tgid: u32, through_server: bool) {
        let mut current = tgid;
        let mut seen = BTreeSet::new();
        for _ in 0..MOST_ANCESTORS {
            let Some(identity) = self.proc.identity(current).filter(|_| seen.insert(current)) else { return };
            self.terminal = self.terminal.take().or_else(|| identity.terminal_name());
            let program = self.program(current);
            if program.starts_with("sshd") && self.is_roots_own(current) {
                self.ssh = self.ssh_peer(current);
                if self.ssh.is_some() {
                    return;
                }
            }
            if current != tgid && CHANGES_USER.contains(&program.as_str()) && self.is_roots_own(current) {
                self.note(&program);
                self.asked_by = self.proc.identity(identity.parent_tgid).map(|caller| caller.uid).or(self.asked_by);
            }
            if current != tgid && self.is_server(&identity, &program) {
                self.note(&program);
                self.beyond_server(current, &identity, &program, through_server);
                return;
            }
            current = match identity.parent_tgid {
                0 => return,
                1 => match self.beyond_orphan(current, &identity, &program) {
                    Some(leader) => leader,
                    None => return,
                },
                parent => parent,
            };
        }
    }

    fn note(&mut self, program: &str) {
        if !self.through.iter().any(|known| known == program) {
            self.through.push(program.to_owned());
        }
    }

    fn lose(&mut self, tgid: u32, program: &str, why: String) {
        self.lost = Some(Lost { tgid, program: program.to_owned(), why });
    }

    /// A process that was left by its parent: the leader of its process session stands for that, where it lives.
    fn beyond_orphan(&mut self, tgid: u32, identity: &Identity, program: &str) -> Option<u32> {
        let leader = identity.leader;
        if leader == tgid || leader == 0 || self.proc.unit(tgid).is_some() {
            return None;
        }
        // The number of a leader is not given to another while its session lives.
        if self.proc.identity(leader).is_some() {
            return Some(leader);
        }
        self.lose(
            tgid,
            program,
            format!("its parent has ended, and so has the leader of its session, process {leader}"),
        );
        None
    }

    /// Whether it is a multiplexer's server: a daemon, without a terminal of its own.
    fn is_server(&self, identity: &Identity, program: &str) -> bool {
        MULTIPLEXERS.contains(&program) && !identity.on_terminal
    }

    /// The server may have been started by anybody: who works in it now is its client. With one server of a user's, every
    /// client of that user's is its own.
    fn beyond_server(&mut self, tgid: u32, identity: &Identity, program: &str, through_server: bool) {
        // Its windows' terminals are its own making.
        self.terminal = None;
        let of_user = self.proc.processes().into_iter().filter_map(|other| Some((other, self.proc.identity(other)?)));
        let alike = of_user.filter(|(other, one)| one.uid == identity.uid && self.program(*other) == program);
        let (clients, servers): (Vec<_>, Vec<_>) = alike.partition(|(_, one)| one.on_terminal);
        if servers.len() > 1 {
            let count = servers.len();
            return self.lose(
                tgid,
                program,
                format!("{count} servers of uid {} run, so its clients are not known", identity.uid),
            );
        }
        match clients.as_slice() {
            [(client, _)] if through_server => self.follow(*client, false),
            [] => self.lose(tgid, program, "nobody is attached to it".to_owned()),
            several => {
                let count = several.len();
                self.lose(tgid, program, format!("{count} clients are attached to it, and any of them may have asked"));
            }
        }
    }

    /// The name of a process's image; what it calls itself does not count.
    fn program(&self, tgid: u32) -> String {
        let path = self.proc.executable(tgid).unwrap_or_default();
        String::from_utf8_lossy(path.rsplit(|byte| *byte == b'/').next().unwrap_or_default()).into_owned()
    }

    /// Whether a process's image is a file of root's: then it is what it is called, as far as root says so.
    fn is_roots_own(&self, tgid: u32) -> bool {
        self.proc.owner_of_image(tgid) == Some(0)
    }

    /// The far end of the connection that an ssh server's process serves.
    fn ssh_peer(&self, tgid: u32) -> Option<SocketAddr> {
        let held: BTreeSet<u64> = self.proc.sockets(tgid).into_iter().collect();
        let sockets = tcp::sockets(self.proc, tgid);
        // What it forwards it is connected to as a client; its own connection came in where a server listens.
        let served: BTreeSet<u16> = sockets.iter().filter(|one| one.is_listening).map(|one| one.local.port()).collect();
        let mut connected = sockets.iter().filter(|one| !one.is_listening && held.contains(&one.inode));
        connected.find(|one| served.contains(&one.local.port())).map(|one| one.remote)
    }
}

/// A user's name, of `/etc/passwd`.
pub fn user_name(uid: u32) -> Option<String> {
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let number: u32 = fields.nth(1)?.parse().ok()?;
        (number == uid).then(|| name.to_owned())
    })
}

#[cfg(test)]
#[path = "principal_tests.rs"]
mod tests;
