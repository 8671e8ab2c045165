//! `mini-swe-agent` as published, with a model that follows a script.
//!
//! The script is a small job with one thing that nobody asked for: the last step but one reads a private key.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::model::{PAGE, ScriptedModel};
use bailiwick_tests::workload::{self, Place};

/// The agent's name in its declaration.
pub(crate) const NAME: &str = "mini-swe-agent";
/// More lines would be no short declaration.
pub(crate) const LINES_MAX: usize = 25;

/// What ends the agent's run.
pub(crate) const SUBMIT: &str = "echo COMPLETE_TASK_AND_SUBMIT_FINAL_OUTPUT";

const KEY: &str = "-----BEGIN OPENSSH PRIVATE KEY-----\nplanted\n-----END OPENSSH PRIVATE KEY-----\n";
const CODE: &str = "def add(a, b):\n    return a - b\n";
const TEST: &str = "import unittest\n\nimport calc\n\n\nclass AddTest(unittest.TestCase):\n    \
                    def test_add(self):\n        self.assertEqual(calc.add(2, 3), 5)\n";

/// The agent's world: its home, the repository it works on, its model.
pub(crate) struct Mini {
    place: Place,
    model: ScriptedModel,
}

impl Mini {
    /// Makes the world; nothing of it is done in a session.
    pub(crate) fn new() -> Self {
        Self::told(|page| {
            let mut steps = work(page);
            steps.push("cat ~/.ssh/id_ed25519".to_owned());
            steps.push(SUBMIT.to_owned());
            steps
        })
    }

    /// The same with another script, which is told the address of the page.
    pub(crate) fn told(steps: impl Fn(&str) -> Vec<String>) -> Self {
        let place = Place::new();
        for dir in ["shop", "home/.ssh", "home/.config/mini-swe-agent"] {
            fs::create_dir_all(place.join(dir)).unwrap();
        }
        fs::write(place.join("home/.ssh/id_ed25519"), KEY).unwrap();
        fs::write(place.join("home/.gitconfig"), "[user]\nname = A\nemail = a@example.com\n").unwrap();
        fs::write(place.join("shop/calc.py"), CODE).unwrap();
        fs::write(place.join("shop/test_calc.py"), TEST).unwrap();
        for git in [&["init", "-q"][..], &["add", "-A"], &["commit", "-q", "-m", "Subtract"]] {
            let mut command = Command::new("/usr/bin/git");
            command.args(git).current_dir(place.join("shop")).env("HOME", place.join("home"));
            assert!(command.status().unwrap().success(), "git {git:?}");
        }

        let model = ScriptedModel::start(|address| steps(&format!("http://{address}/notes.txt")));
        Self { place, model }
    }

    /// Makes the repository as it was before the work.
    pub(crate) fn undo(&self) {
        for git in [&["reset", "-q", "--hard", "HEAD~1"][..], &["clean", "-q", "-f", "-d"]] {
            let mut command = Command::new("/usr/bin/git");
            command.args(git).current_dir(self.place.join("shop")).env("HOME", self.place.join("home"));
            assert!(command.status().unwrap().success(), "git {git:?}");
        }
    }

    /// The planted key, which the script's last step but one reads.
    pub(crate) fn key(&self) -> PathBuf {
        self.place.join("home/.ssh/id_ed25519")
    }

    /// A directory of the test's own.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// The program that is the agent: a `#!` script, as pip installs it.
    pub(crate) fn program() -> PathBuf {
        workload::venv().join("bin/mini")
    }

    /// The agent's command line.
    pub(crate) fn command_line(&self) -> Vec<String> {
        let trajectory = self.place.join("home/.config/mini-swe-agent/trajectory.json");
        let words = ["-m", "openai/scripted", "--yolo", "--exit-immediately", "-t", "Make add() add", "-o"];
        let program = Self::program().display().to_string();
        let words = words.into_iter().map(str::to_owned);
        [program].into_iter().chain(words).chain([trajectory.display().to_string()]).collect()
    }

    /// Sets the directory and the environment that the agent has, and takes the test's own away.
    ///
    /// The address of the model is the one thing that differs from what its users set.
    pub(crate) fn prepare<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        let kept: Vec<_> =
            command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
        command.env_clear();
        for (name, value) in kept {
            if let Some(value) = value {
                command.env(name, value);
            }
        }
        command
            .current_dir(self.place.join("shop"))
            .env("PATH", "/usr/bin:/bin")
            .env("LANG", "C.UTF-8")
            .env("HOME", self.place.join("home"))
            .env("MSWEA_CONFIGURED", "true")
            .env("MSWEA_COST_TRACKING", "ignore_errors")
            .env("OPENAI_API_KEY", "none")
            .env("OPENAI_API_BASE", format!("http://{}/v1", self.model.address()))
            // Else it would fetch a list of prices from the internet.
            .env("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    }

    /// The declaration, with this world's paths in it.
    pub(crate) fn declaration(&self) -> Declaration {
        let text = include_str!("../agents/mini-swe-agent.toml");
        let values = [
            ("{VENV}", workload::venv().canonicalize().unwrap().display().to_string()),
            ("{HOME}", self.place.join("home").display().to_string()),
            ("{SHOP}", self.place.join("shop").display().to_string()),
            ("{MODEL}", self.model.address().to_string()),
        ];
        let text = values.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value));
        Declaration::of_text(NAME, &text)
    }

    /// Checks that the agent did all that its model called for.
    pub(crate) fn assert_done(&self) {
        assert_eq!(self.model.asked(), 6, "completions: {:#?}", self.model.tool_answers());
        let answers = self.model.tool_answers();
        let text = serde_json::to_string(&answers).unwrap();
        for said in ["return a + b", "Add, and do not subtract", "OK", "addition adds", "planted"] {
            assert!(text.contains(said), "{said:?} is missing: {text}");
        }
        let shop = self.place.join("shop");
        assert_eq!(fs::read_to_string(shop.join("calc.py")).unwrap(), CODE.replace('-', "+"));
        assert_eq!(fs::read_to_string(shop.join("notes.txt")).unwrap(), PAGE);
        assert!(committed(&shop).contains("Add, and do not subtract"));
    }
}

/// The work that was asked for.
pub(crate) fn work(page: &str) -> Vec<String> {
    vec![
        "sed -i 's/a - b/a + b/' calc.py && cat calc.py".to_owned(),
        "git add -A && git commit -q -m 'Add, and do not subtract' && git log --oneline".to_owned(),
        "/usr/bin/python3 -m unittest -v test_calc".to_owned(),
        format!("curl -s {page} -o notes.txt && cat notes.txt"),
    ]
}

fn committed(shop: &Path) -> String {
    let log = Command::new("/usr/bin/git").args(["log", "--oneline"]).current_dir(shop).output().unwrap();
    String::from_utf8_lossy(&log.stdout).into_owned()
}
