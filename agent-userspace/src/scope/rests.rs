//! Which grants an action rests on, and how a declaration names them.
//!
//! Input: an action. Output: the numbers of the grants that cover it, one for each name and list that it needs. Pure. Says nothing
//! of the verdict: what no grant covers has none here, and what is denied may have some.

use std::net::SocketAddr;

use super::network::NetworkTable;
use super::{Access, Action, Grant, GrantRule, PathList, Scope, SeenPath, UnixAddress, abstract_path};

impl Scope {
    /// The grants that cover an action.
    pub(crate) fn rests_on(&self, action: &Action<'_>) -> Vec<u32> {
        let lists = |access: Access| -> &'static [PathList] {
            match access {
                Access::Read | Access::Path => &[PathList::Read],
                Access::Write => &[PathList::Write],
                Access::ReadWrite => &[PathList::Read, PathList::Write],
                Access::Exec => &[PathList::Exec],
            }
        };
        match action {
            Action::File { path, access } => self.covering(lists(*access), std::slice::from_ref(path)),
            Action::Files { paths, access } => self.covering(lists(*access), paths),
            Action::Exec { path, script } => self.covering(&[PathList::Exec], &[script.unwrap_or(*path)]),
            Action::Connect { address } => covering_address(&self.connect, *address),
            Action::Listen { address } => covering_address(&self.listen, *address),
            Action::Unix { address: UnixAddress::Path(path) } => self.covering(&[PathList::Unix], &[*path]),
            Action::Unix { address: UnixAddress::Abstract(name) } => {
                let path = abstract_path(name);
                self.covering(&[PathList::UnixAbstract], &[SeenPath::whole(&path)])
            }
            Action::Privilege { name } => self.privileges.get(*name).copied().into_iter().collect(),
        }
    }

    fn covering(&self, lists: &[PathList], paths: &[SeenPath<'_>]) -> Vec<u32> {
        let whole = paths.iter().filter(|path| !path.cut);
        whole.flat_map(|path| lists.iter().filter_map(|list| self.trie(*list).find(path.bytes, &mut 0))).collect()
    }
}

fn covering_address(table: &NetworkTable, address: SocketAddr) -> Vec<u32> {
    table.find(address, &mut 0).into_iter().collect()
}

impl Grant {
    /// The section and key that it is declared under.
    pub(crate) fn declared_as(&self) -> (&'static str, &'static str) {
        match &self.rule {
            GrantRule::Path { list, .. } => list.declared_as(),
            GrantRule::Connect(_) => ("[scope.network]", "connect"),
            GrantRule::Listen(_) => ("[scope.network]", "listen"),
            GrantRule::Privilege(_) => ("[scope.privileges]", "allow"),
        }
    }

    /// Whether it takes away, and grants nothing.
    pub(crate) fn denies(&self) -> bool {
        matches!(&self.rule, GrantRule::Path { list: PathList::Deny | PathList::ExecDeny, .. })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::scope::grant::{NetworkRule, Origin, PathRule, PrivilegeRule, Rules};
    use crate::scope::network::NetworkPattern;
    use crate::scope::pattern::PathPattern;

    fn scope() -> Scope {
        let origin = Origin { file: "a.toml".into(), line: 1, column: 1 };
        let path = |text: &str| PathRule {
            pattern: PathPattern::parse(text).unwrap(),
            resolved: None,
            origin: origin.clone(),
        };
        let rules = Rules {
            read: vec![path("/srv/**"), path("/etc/x")],
            write: vec![path("/tmp/**")],
            deny: vec![path("/srv/secret")],
            exec: vec![path("/bin/*")],
            connect: vec![NetworkRule {
                pattern: NetworkPattern::parse("10.0.0.0/8:443").unwrap(),
                origin: origin.clone(),
            }],
            privileges: vec![PrivilegeRule { name: "ptrace".to_owned(), origin: origin.clone() }],
            ..Rules::default()
        };
        Scope::compile([&rules]).unwrap()
    }

    #[test]
    fn an_action_rests_on_a_grant_of_each_list_and_each_name() {
        let scope = scope();
        let texts = |action: &Action<'_>| -> Vec<String> {
            let numbers = scope.rests_on(action).into_iter();
            numbers.map(|number| scope.grants[number as usize].text().into_owned()).collect()
        };
        let file = |path: &'static str, access| Action::File { path: SeenPath::whole(path.as_bytes()), access };
        assert_eq!(texts(&file("/srv/a", Access::Read)), ["/srv/**"]);
        assert_eq!(texts(&file("/tmp/a", Access::ReadWrite)), ["/tmp/**"], "reading has no grant there");
        let both = [SeenPath::whole(b"/tmp/a"), SeenPath::whole(b"/tmp/b")];
        assert_eq!(texts(&Action::Files { paths: &both, access: Access::Write }), ["/tmp/**", "/tmp/**"]);
        assert_eq!(texts(&file("/srv/a", Access::Exec)), [""; 0]);
        assert_eq!(texts(&Action::Connect { address: "10.1.2.3:443".parse().unwrap() }), ["10.0.0.0/8:443"]);
        assert_eq!(texts(&Action::Privilege { name: "ptrace" }), ["ptrace"]);
        let cut = SeenPath { bytes: b"/srv/a", cut: true };
        assert_eq!(
            texts(&Action::File { path: cut, access: Access::Read }),
            [""; 0],
            "a path that was cut matches none"
        );
    }

    #[test]
    fn a_deny_is_no_grant() {
        let names: Vec<_> = scope().grants.iter().filter(|grant| grant.denies()).map(Grant::declared_as).collect();
        assert_eq!(names, [("[scope.files]", "deny")]);
    }
}
