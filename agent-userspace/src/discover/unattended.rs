//! A look at the host without a daemon: who is declared is asked of the declarations and of `/proc` alone.

use std::path::Path;
use std::sync::Arc;

use super::{Inventory, Scanner, Whose};
use crate::attribute::Attributor;
use crate::attribute::procfs::ProcFs;
use crate::config::Config;

/// Who is whose by the declarations, and by who was started by `bailiwick run`.
struct ByDeclarations {
    attributor: Attributor,
    proc: ProcFs,
    own_image: Option<Vec<u8>>,
}

impl Whose for ByDeclarations {
    fn root(&self, tgid: u32) -> Option<String> {
        let recognised = self.attributor.recognise_running(tgid).map(|recognition| recognition.agent);
        recognised.or_else(|| self.started_by_run(tgid))
    }

    fn member(&self, _: u32) -> Option<String> {
        None
    }
}

impl ByDeclarations {
    /// `bailiwick run` stays the parent of what it starts, and its image is this program's own.
    fn started_by_run(&self, tgid: u32) -> Option<String> {
        let parent = self.proc.identity(tgid)?.parent_tgid;
        if self.own_image.is_none() || self.proc.executable(parent) != self.own_image {
            return None;
        }
        agent_of_run(&self.proc.arguments(parent))
    }
}

/// The agent that a command line of `bailiwick run` names.
fn agent_of_run(arguments: &[Vec<u8>]) -> Option<String> {
    let mut words = arguments.iter().skip(1).skip_while(|word| *word != b"run").skip(1);
    while let Some(word) = words.next() {
        let named = match word.strip_prefix(b"--agent") {
            Some(b"") => words.next()?.as_slice(),
            Some(rest) => rest.strip_prefix(b"=")?,
            None if word == b"--" => return None,
            None => continue,
        };
        return String::from_utf8(named.to_vec()).ok();
    }
    None
}

/// Looks at this host once, as this process.
pub fn look(config: &Arc<Config>, with_claims: bool) -> Inventory {
    let proc = ProcFs::at(Path::new("/proc"));
    let own_tgid = std::process::id();
    let whose = ByDeclarations {
        attributor: Attributor::new(Arc::clone(config), proc.clone()),
        own_image: proc.executable(own_tgid),
        proc: proc.clone(),
    };
    Scanner::of(proc, own_tgid).scan(config, &whose, with_claims)
}

#[cfg(test)]
mod tests {
    use super::agent_of_run;

    #[test]
    fn the_agent_of_a_run_is_what_its_option_says_and_not_its_commands() {
        let of = |line: &str| agent_of_run(&line.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>());
        assert_eq!(of("bailiwick --runtime-dir /r run --agent a -- x --agent b").as_deref(), Some("a"));
        assert_eq!(of("bailiwick run --agent=a -- x").as_deref(), Some("a"));
        assert_eq!(of("bailiwick run -- x --agent b"), None);
        assert_eq!(of("bailiwick tail --agent a"), None);
    }
}
