#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::host::FileIdentity;
use super::*;
use crate::entry::Verdict;
use crate::export::{Compression, NamedFile, Protocol, ProxyChoice, TargetSettings};
use crate::scope::{Access, Action, SeenPath};

/// A host of a test's own making.
#[derive(Default)]
pub(super) struct FakeHost {
    /// Whole paths that are symlinks, and what they lead to.
    pub(super) links: HashMap<PathBuf, PathBuf>,
    /// Files that exist; their directories do too.
    pub(super) files: HashSet<PathBuf>,
}

impl FakeHost {
    pub(super) fn new(files: &[&str], links: &[(&str, &str)]) -> Self {
        Self {
            files: files.iter().map(PathBuf::from).collect(),
            links: links.iter().map(|(from, to)| (PathBuf::from(from), PathBuf::from(to))).collect(),
        }
    }
}

impl Host for FakeHost {
    fn canonicalize(&self, path: &Path) -> io::Result<PathBuf> {
        let mut resolved = PathBuf::new();
        for component in path {
            resolved.push(component);
            while let Some(target) = self.links.get(&resolved) {
                resolved.clone_from(target);
            }
        }
        let exists = self.files.iter().any(|file| file.starts_with(&resolved));
        if exists { Ok(resolved) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    fn identity(&self, path: &Path) -> Option<FileIdentity> {
        let path = self.canonicalize(path).ok()?;
        let text = path.to_str()?;
        self.files.contains(&path).then(|| FileIdentity { device: 1, inode: text.bytes().map(u64::from).sum() })
    }

    fn list(&self, directory: &Path) -> Vec<OsString> {
        let Ok(directory) = self.canonicalize(directory) else { return Vec::new() };
        let below = |path: &PathBuf| path.strip_prefix(&directory).ok()?.iter().next().map(OsString::from);
        let names: std::collections::BTreeSet<OsString> =
            self.files.iter().chain(self.links.keys()).filter_map(below).collect();
        names.into_iter().collect()
    }

    fn user_id(&self, name: &str) -> Option<u32> {
        (name == "agent").then_some(990)
    }
}

pub(super) fn load(texts: &[(&str, &str)], host: &FakeHost) -> Result<Config, ConfigErrors> {
    let mut sources = Sources::default();
    for (name, text) in texts {
        let source = SourceFile::of_text(name, text);
        if name.starts_with("grants.d/") {
            sources.grant_sets.push(source);
        } else if name.starts_with("catalogue.d/") {
            sources.catalogues.push(source);
        } else if *name == "bailiwick.toml" {
            sources.settings = Some(source);
        } else if *name == "credentials.toml" {
            sources.well_known = Some(source);
        } else {
            sources.declarations.push(source);
        }
    }
    sources.load(host)
}

pub(super) fn declarations(texts: &[&str], host: &FakeHost) -> Vec<Declaration> {
    let names: Vec<String> = (0..texts.len()).map(|number| format!("agents.d/{number}.toml")).collect();
    let texts: Vec<(&str, &str)> = names.iter().map(String::as_str).zip(texts.iter().copied()).collect();
    load(&texts, host).map(|config| config.declarations).unwrap_or_else(|errors| panic!("{errors}"))
}

fn errors(texts: &[(&str, &str)]) -> String {
    match load(texts, &FakeHost::default()) {
        Ok(_) => panic!("nothing was found wrong with {texts:?}"),
        Err(errors) => errors.to_string(),
    }
}

/// What is said of a declaration whose `[agent]` is right.
fn error_of(rest: &str) -> String {
    errors(&[("x.toml", &format!("[agent]\nname = \"x\"\nowner = \"o\"\n{rest}"))])
}

pub(super) fn verdict(declaration: &Declaration, path: &str, access: Access) -> Verdict {
    let action = Action::File { path: SeenPath::whole(path.as_bytes()), access };
    declaration.scope.as_ref().expect("a scope").judge(&action).verdict
}

#[test]
fn a_declaration_says_what_it_says() {
    let text = "[agent]\nname = \"x\"\nowner = \"o\"\npurpose = \"p\"\nreview_every = \"90d\"\n\
        [scope]\ninclude = [\"base\"]\n[scope.files]\nread = [\n  \"/srv/a/**\",\n  \"/srv/b\",\n]\n\
        [scope.privileges]\nallow = [\"ptrace\"]\n[scope.delegate]\nto = [\"y\"]\nlimit = \"theirs\"\nmax_depth = 2\n\
        [[resource]]\nname = \"r\"\naddress = [\"10.0.0.5:5432\"]\n\
        [[credential]]\nname = \"k\"\nfile = \"/etc/keys/model\"\nrotate_every = \"30d\"\n\
        [respond]\nout_of_scope = \"alert\"\n";
    let other = "[agent]\nname = \"y\"\n";
    let agent = declarations(&[text, other], &FakeHost::new(&["/etc/keys/model"], &[])).remove(0);
    assert_eq!(agent.about.review_every, Some(Duration::from_secs(90 * 86_400)));
    let scope = agent.declared_scope.as_ref().unwrap();
    assert_eq!((scope.delegate.limit, scope.delegate.max_depth), (Limit::Theirs, Some(2)));
    assert_eq!(agent.credentials[0].rotate_every, Some(Duration::from_secs(30 * 86_400)));
    assert_eq!(agent.resources[0].address.len(), 1);
    let action = Action::File { path: SeenPath::whole(b"/srv/b"), access: Access::Read };
    let reason = agent.scope.as_ref().unwrap().judge(&action).reason.unwrap();
    assert_eq!((reason.text.as_str(), reason.line), ("/srv/b", Some(11)), "the line of the list's element");
    let action = Action::File { path: SeenPath::whole(b"/etc/passwd"), access: Access::Read };
    let reason = agent.scope.as_ref().unwrap().judge(&action).reason.unwrap();
    assert_eq!(reason.file.as_deref(), Some("grants/base.toml (shipped)"));
}

#[test]
fn every_fault_is_told_with_its_place_and_what_would_be_right() {
    for (text, expected) in [
        (
            "[[recognise]]\nexecutabel = \"/x\"",
            "x.toml:5:1: `executabel` is not a key of [[recognise]]; did you mean `executable`?",
        ),
        ("[scop]\n", "x.toml:4:2: `scop` is not a key of the file; did you mean `scope`?"),
        (
            "[scope]\nread = [\"/x\"]",
            "x.toml:5:1: `read` is not a key of [scope]; write one of include, files, network, unix, exec, privileges, delegate",
        ),
        ("[scope]\ninclude = [\"bsae\"]", "x.toml:5:12: there is no grant set `bsae`; did you mean `base`?"),
        (
            "[scope]\ninclude = [\"kubernetes\"]",
            "x.toml:5:12: there is no grant set `kubernetes`; write one of base, git, node, python, rust",
        ),
        (
            "[scope.files]\nread = [\n  \"/ok\",\n  \"srv/x\",\n]",
            "x.toml:7:3: \"srv/x\" is not absolute; begin it with `/`",
        ),
        ("[scope.files]\nread = \"/x\"", "x.toml:5:8: `read` is a TOML string; write a list of strings"),
        ("[scope.files]\nread = [1]", "x.toml:5:9: `read` is a TOML integer; write a list of strings"),
        (
            "[scope.network]\nconnect = [\"api.example.com:443\"]",
            "x.toml:5:12: \"api.example.com:443\" is a name, and names are not supported yet; use addresses",
        ),
        (
            "[respond]\nout_of_scope = \"kill\"",
            "x.toml:5:16: `out_of_scope = \"kill\"` is not supported yet; write \"alert\": nothing is prevented yet",
        ),
        ("[respond]\nout_of_scope = \"alrt\"", "x.toml:5:16: `out_of_scope` is \"alrt\"; did you mean `alert`?"),
        ("[scope.privileges]\nallow = [\"ptrac\"]", "x.toml:5:10: `allow` is \"ptrac\"; did you mean `ptrace`?"),
        ("[scope.delegate]\nto = [\"y\"]", "x.toml:5:7: no agent `y` is declared; "),
        ("[scope.delegate]\nlimit = \"min\"", "x.toml:5:9: `limit` is \"min\"; did you mean `mine`?"),
        ("[scope.delegate]\nmax_depth = -1", "x.toml:5:13: `max_depth` is -1; write a whole number from 1 to 16"),
        (
            "[[credential]]\nname = \"k\"\nrotate_every = \"-1d\"",
            "x.toml:6:16: `rotate_every` is \"-1d\", which is negative",
        ),
        (
            "[[resource]]\nname = \"r\"",
            "x.toml:4:1: [[resource]] has no `file`; add file = [\"/srv/orders/**\"], or an address",
        ),
        ("[[resource]]\nname = \"r\"\nsocket = [\"x\"]", "x.toml:6:11: \"x\" is not absolute; begin it with `/`"),
        (
            "[[credential]]\nname = \"k\"",
            "x.toml:4:1: [[credential]] has no `file`; add file = \"/etc/keys/model\", or a socket",
        ),
        (
            "[[credential]]\nname = \"k\"\nfile = \"/no/key\"",
            "x.toml:6:8: \"/no/key\" is not there, so nothing would be watched",
        ),
        (
            "[[credential]]\nname = \"k\"\nsocket = \"/s\"\n[[credential]]\nname = \"k\"\nsocket = \"/t\"",
            "x.toml:7:1: the credential `k` stands at x.toml:4:1 already; give one of them another name",
        ),
        (
            "[[credential]]\nname = \"k\"\nenvironment = [\"A=B\"]",
            "x.toml:6:16: `environment` is \"A=B\"; write the name of a variable",
        ),
        ("[[credential]]\nfile = \"/k\"", "x.toml:4:1: [[credential]] has no `name`; add name = \"model-api-key\""),
        (
            "[[recognise]]\nsha256 = \"abc\"\nexecutable = \"/x\"",
            "x.toml:5:10: \"abc\" is no SHA-256; write 64 hexadecimal digits",
        ),
        ("[[recognise]]\n", "x.toml:4:1: [[recognise]] is empty and would recognise every process"),
        ("[[recognise]]\nexecutable = \"**\"", "x.toml:5:1: \"**\" names every executable"),
        ("[[recognise]]\nexecutable = \"/**/*\"", "x.toml:5:1: \"/**/*\" names every executable"),
        ("[[recognise]]\ncontainer = \"c\"", "x.toml:5:1: recognising a `container` is not supported yet"),
        ("[[recognise]]\nuser = \"nobody-here\"", "x.toml:5:8: there is no user `nobody-here` in /etc/passwd"),
        (
            "[[recognise]]\nunit = \"agent\"",
            "x.toml:5:8: \"agent\" is no unit that holds processes; write its name with its kind",
        ),
        ("[[recognise]]\nargv = [\"[x\"]", "x.toml:5:9: \"[x\": `[` is never closed"),
        ("[[recognise]]\nenvironment = [\"=1\"]", "x.toml:5:16: \"=1\" names no variable"),
        (
            "[[recognise]]\nenvironment = [\"SECRET\"]",
            "x.toml:5:16: the sensor does not read the variable `SECRET`; add it to `environment` in [sensor]",
        ),
        ("[[recognise]]\nexecutable = \"~/bin/x\"", "x.toml:5:14: \"~/bin/x\" begins with `~`"),
        ("[scope\n", "x.toml:4:7: is not TOML: "),
        ("[agent]\n", "x.toml:4:2: is not TOML: duplicate key"),
    ] {
        let found = error_of(text);
        assert!(found.starts_with(expected), "of {text:?}\nexpected {expected}\nfound    {found}");
    }
    let hash = "0".repeat(64);
    let found = error_of(&format!("[[recognise]]\nsha256 = \"{hash}\""));
    assert!(found.starts_with("x.toml:5:10: `sha256` needs `executable` beside it"), "{found}");
}

#[test]
fn an_agents_section_is_read_as_strictly() {
    for (text, expected) in [
        ("", "x.toml:1:1: the file has no `agent`; add [agent] with `name = \"my-agent\"`"),
        ("[agent]\nowner = \"o\"", "x.toml:1:1: [agent] has no `name`; add name = \"my-agent\""),
        ("[agent]\nname = \"\"", "x.toml:2:8: the name \"\" is not usable; write 1 to 64 of a-z"),
        ("[agent]\nname = \"My Agent\"", "x.toml:2:8: the name \"My Agent\" is not usable"),
        ("[agent]\nname = \"-x\"", "x.toml:2:8: the name \"-x\" is not usable"),
        ("[agent]\nname = 7", "x.toml:2:8: `name` is a TOML integer; write a string in quotes"),
        ("[agent]\nname = \"x\"\nowner = \" \"", "x.toml:3:9: `owner` is empty"),
        ("[agent]\nname = \"x\"\nowner = \"a\\u001bb\"", "x.toml:3:9: `owner` has a control character"),
        (
            "[agent]\nname = \"x\"\nreview_every = \"90\"",
            "x.toml:3:16: `review_every` is \"90\", which is no duration; write a whole number and a unit",
        ),
        (
            "[agent]\nname = \"x\"\nreview_every = \"0d\"",
            "x.toml:3:16: `review_every` is \"0d\", which is no time at all",
        ),
        ("agent = 1", "x.toml:1:9: `agent` is a TOML integer; write a section of its own in brackets"),
    ] {
        let found = errors(&[("x.toml", text)]);
        assert!(found.starts_with(expected), "of {text:?}\nexpected {expected}\nfound    {found}");
    }
    let long = format!("[agent]\nname = \"{}\"", "x".repeat(65));
    assert!(errors(&[("x.toml", &long)]).contains("is not usable"));
}

#[test]
fn all_faults_of_all_files_are_told_at_once() {
    let found = errors(&[
        ("bailiwick.toml", "[sensor]\nidel = \"detach\"\ngate = 1"),
        ("a.toml", "[agent]\nname = \"A\"\n[scope]\nincldue = []"),
        ("b.toml", "[agent]\nname = \"b\"\n[scope.files]\nread = [\"x\", \"/a//b\"]"),
    ]);
    let places: Vec<String> = found.lines().map(|line| line.split(": ").next().unwrap().to_owned()).collect();
    assert_eq!(
        places,
        ["bailiwick.toml:3:8", "bailiwick.toml:2:1", "a.toml:2:8", "a.toml:4:1", "b.toml:4:9", "b.toml:4:14"]
    );
}

#[test]
fn settings_outside_of_their_range_are_told_with_it() {
    for (text, expected) in [
        ("[sensor]\nidle = \"detached\"", "bailiwick.toml:2:8: `idle` is \"detached\"; did you mean `detach`?"),
        (
            "[sensor]\nring_bytes = 5000",
            "bailiwick.toml:2:14: `ring_bytes` is 5000; write a power of two from 4096 to 1073741824, such as 8192",
        ),
        ("[sensor]\nring_bytes = -1", "bailiwick.toml:2:14: `ring_bytes` is -1; write a power of two"),
        (
            "[sensor]\nlinger_seconds = -3",
            "bailiwick.toml:2:18: `linger_seconds` is -3; write a whole number from 0 to 3600",
        ),
        (
            "[sensor]\nenvironment = [\"A=B\"]",
            "bailiwick.toml:2:16: `environment` is \"A=B\"; write the name of a variable",
        ),
        ("[sensor]\ngate = \"yes\"", "bailiwick.toml:2:8: `gate` is a TOML string; write true or false"),
        (
            "[trail]\nsync_interval_ms = 0",
            "bailiwick.toml:2:20: `sync_interval_ms` is 0; write a whole number from 1 to 60000",
        ),
        (
            "[export]\nendpoint = \"collector\"",
            "bailiwick.toml:2:12: `endpoint` is no URL such as http://127.0.0.1:4318",
        ),
        (
            "[export]\nprotocol = \"http\"",
            "bailiwick.toml:2:12: `protocol` is \"http\"; write one of grpc, http/protobuf",
        ),
        (
            "[[export.target]]\nendpoint = \"http://c:4318\"",
            "bailiwick.toml:1:1: [[export.target]] has no `name`; add name = \"backup\"",
        ),
        (
            "[[export.target]]\nname = \"a\"",
            "bailiwick.toml:1:1: [[export.target]] has no `endpoint`; add endpoint = \"https://collector",
        ),
        (
            "[[export.target]]\nname = \"otlp\"\nendpoint = \"http://c:4318\"",
            "bailiwick.toml:2:8: `name` is \"otlp\"; write another name: this is that of the target of [export]",
        ),
        (
            "[[export.target]]\nname = \"a\"\nendpoint = \"http://c\"\n[[export.target]]\nname = \"a\"\nendpoint = \"http://d\"",
            "bailiwick.toml:5:8: the target `a` stands at bailiwick.toml:2:8 already; give one of them another name",
        ),
        (
            "[[export.target]]\nname = \"a\"\nendpoint = \"c:4318\"",
            "bailiwick.toml:3:12: `endpoint` is no URL such as http://127.0.0.1:4318",
        ),
        (
            "[[export.target]]\nname = \"a\"\nendpoint = \"https://u:p@c:4318\"",
            "bailiwick.toml:3:12: `endpoint` has a login in it, which would not be sent: put an `authorization` header into",
        ),
        (
            "[[export.target]]\nname = \"a\"\nendpoint = \"http://c\"\ncompression = \"gz\"",
            "bailiwick.toml:4:15: `compression` is \"gz\"; write one of none, gzip, zstd",
        ),
        (
            "[[export.target]]\nname = \"a\"\nendpoint = \"http://c\"\ntimeout = \"10\"",
            "bailiwick.toml:4:11: `timeout` is \"10\", which is no duration; write",
        ),
        (
            "[[export.target]]\nname = \"a\"\nendpoint = \"http://c\"\nlongest_pause = \"1d\"",
            "bailiwick.toml:4:17: `longest_pause` is \"1d\"; write at most \"600s\"",
        ),
        (
            "[[export.target]]\nname = \"a\"\nendpoint = \"http://c\"\nsignals = [\"log\"]",
            "bailiwick.toml:4:12: `signals` is \"log\"; did you mean `logs`?",
        ),
        (
            "[[export.target]]\nname = \"a\"\nendpoint = \"http://c\"\nsignals = []",
            "bailiwick.toml:4:1: `signals` is empty; write something, or leave the key out",
        ),
        (
            "[[export.target]]\nname = \"a\"\nendpoint = \"http://c\"\nheader_file = \"/x\"",
            "bailiwick.toml:4:1: `header_file` is not a key of [[export.target]]; ",
        ),
        (
            "[[export.target]]\nname = \"a\"\nendpoint = \"https://c\"\nheaders_file = \"token\"",
            "bailiwick.toml:4:16: `headers_file` is \"token\"; write the file's whole path, from `/` on",
        ),
        (
            "[[export.target]]\nname = \"a\"\nendpoint = \"https://c\"\nproxy = \"socks5://u:p@h\"",
            "bailiwick.toml:4:9: `proxy` is no proxy that can be used: write one that speaks HTTP, as in `http://proxy.example:3128`, or \"none\"",
        ),
        (
            "[[export.target]]\nname = \"a\"\nendpoint = \"https://c\"\n[export.target.tls]\ncertificate_file = \"/c.pem\"",
            "bailiwick.toml:5:1: [export.target.tls] has no `key_file`; add key_file = \"/etc/bailiwick/export.key\"",
        ),
        (
            "[[export.target]]\nname = \"a\"\nendpoint = \"http://c\"\n[export.target.tls]\nca_file = \"/ca.pem\"",
            "bailiwick.toml:3:12: `endpoint` is \"http://c\"; write one that begins with https://, or leave [export.target.tls] out",
        ),
        ("[redact]\nenabled = 1", "bailiwick.toml:2:11: `enabled` is a TOML integer; write true or false"),
        (
            "[redact]\npatterns = [\"ok\",\n  \"(x\"]",
            "bailiwick.toml:3:3: `patterns` has \"(x\", which is no regular expression: unclosed group; write an expression",
        ),
        (
            "[redact]\nallow = [\"x*\"]",
            "bailiwick.toml:2:10: `allow` has \"x*\", which matches the empty string, which is everywhere; write",
        ),
        (
            "[redact]\nallow = ['\\w{9999}']",
            "bailiwick.toml:2:10: `allow` has \"\\\\w{9999}\", which is no regular expression: Compiled regex exceeds size",
        ),
        ("[redact]\npattern = []", "bailiwick.toml:2:1: `pattern` is not a key of [redact]; did you mean `patterns`?"),
    ] {
        let found = errors(&[("bailiwick.toml", text)]);
        assert!(found.starts_with(expected), "of {text:?}\nexpected {expected}\nfound    {found}");
    }
    let text = "[sensor]\nidle = \"armed\"\nobserve = \"full\"\nring_bytes = 4096\nlinger_seconds = 0\ngate = false\nenvironment = [\"A\", \"A\"]\n";
    let sensor = load(&[("bailiwick.toml", text)], &FakeHost::default()).unwrap().settings.sensor;
    assert_eq!(
        (sensor.idle, sensor.observe, sensor.ring_bytes),
        (settings::Idle::Armed, settings::Observe::Full, 4096)
    );
    assert_eq!((sensor.linger, sensor.gate, sensor.environment), (Duration::ZERO, false, vec!["A".to_owned()]));
}

#[test]
fn a_target_gets_each_of_its_signals_at_the_path_of_its_protocol() {
    let text = "[[export.target]]\nname = \"a\"\nendpoint = \"http://c:4318/x\"\n\n[[export.target]]\nname = \"b\"\n\
                endpoint = \"https://d:4317\"\nprotocol = \"grpc\"\ncompression = \"zstd\"\ntimeout = \"3s\"\n\
                longest_pause = \"1m\"\nsignals = [\"traces\"]\nheaders_file = \"/run/token\"\nproxy = \"none\"\n\
                [export.target.tls]\nca_file = \"/ca.pem\"\ncertificate_file = \"/c.pem\"\nkey_file = \"/k.pem\"\n";
    let targets = load(&[("bailiwick.toml", text)], &FakeHost::default()).unwrap().settings.export.targets;
    let endpoints = |target: &TargetSettings| -> Vec<_> {
        target.signals.iter().map(|signal| signal.endpoint.to_string()).collect()
    };
    assert_eq!(targets.iter().map(|target| target.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(
        endpoints(&targets[0]),
        ["http://c:4318/x/v1/logs", "http://c:4318/x/v1/traces", "http://c:4318/x/v1/metrics"]
    );
    assert_eq!(endpoints(&targets[1]), ["https://d:4317/"]);
    let signal = &targets[1].signals[0];
    assert_eq!((signal.protocol, signal.compression), (Protocol::Grpc, Compression::Zstd));
    assert_eq!((signal.timeout, targets[1].backoff.longest), (Duration::from_secs(3), Duration::from_secs(60)));
    let named = |file: &NamedFile| (file.path.display().to_string(), file.named_by.clone());
    let place = |path: &str, place: &str| (path.to_owned(), place.to_owned());
    assert_eq!(named(signal.headers_file.as_ref().unwrap()), place("/run/token", "bailiwick.toml:13:16"));
    assert_eq!(signal.proxy, ProxyChoice::Direct);
    let (ca, client) = (signal.tls.ca.as_ref().unwrap(), signal.tls.client.as_ref().unwrap());
    assert_eq!(named(ca), place("/ca.pem", "bailiwick.toml:16:11"));
    assert_eq!(named(&client.certificate), place("/c.pem", "bailiwick.toml:17:20"));
    assert_eq!(named(&client.key), place("/k.pem", "bailiwick.toml:18:12"));
}

#[test]
fn what_is_redacted_is_set_with_expressions_of_ones_own() {
    let text = "[redact]\nenabled = false\nentropy = false\npatterns = ['corp-\\d+']\nallow = [\"^test$\"]\n";
    let redact = load(&[("bailiwick.toml", text)], &FakeHost::default()).unwrap().settings.redact;
    let expression = |text| vec![crate::redact::Expression::parse(text).unwrap()];
    assert_eq!((redact.enabled, redact.entropy), (false, false));
    assert_eq!((redact.patterns, redact.allow), (expression("corp-\\d+"), expression("^test$")));
}

#[test]
fn metrics_are_answered_on_loopback_unless_said_otherwise() {
    let metrics = |text: &str| {
        let text = format!("[metrics]\n{text}\n");
        let loaded = load(&[("bailiwick.toml", &text)], &FakeHost::default());
        loaded.map(|config| config.settings.metrics).map_err(|errors| errors.to_string())
    };
    assert_eq!(metrics("").unwrap(), super::metrics::MetricsSettings::default());
    let read = metrics("listen = \"[::1]:9464\"\nprogram_time = true").unwrap();
    assert_eq!((read.listen, read.program_time), (Some("[::1]:9464".parse().unwrap()), true));
    let remote = metrics("listen = \"0.0.0.0:9464\"").unwrap_err();
    assert!(
        remote.starts_with("bailiwick.toml:2:10: `listen` is 0.0.0.0:9464; write an address of loopback"),
        "{remote}"
    );
    assert!(remote.ends_with("add allow_remote = true"), "{remote}");
    assert!(metrics("listen = \"0.0.0.0:9464\"\nallow_remote = true").unwrap().listen.is_some());
    let name = metrics("listen = \"localhost\"").unwrap_err();
    assert!(name.contains("an address and a port, such as \"127.0.0.1:9464\""), "{name}");
    assert!(metrics("listn = \"127.0.0.1:1\"").unwrap_err().contains("`listen`"));
}

#[test]
fn two_agents_of_one_name_are_told_with_both_places() {
    let agent = "[agent]\nname = \"x\"\n";
    let found = errors(&[("a.toml", agent), ("b.toml", agent)]);
    assert_eq!(found, "b.toml:2:8: the agent `x` is declared at a.toml:2:8 already; give one of them another name");
}

#[test]
fn two_agents_that_recognise_the_same_equally_well_are_told_with_both_places() {
    let agent = |name: &str, table: &str| format!("[agent]\nname = \"{name}\"\n\n[[recognise]]\n{table}\n");
    let twins = |one: &str, other: &str| {
        let texts = [agent("a", one), agent("b", other)];
        let host = FakeHost::new(&["/usr/bin/node"], &[("/bin", "/usr/bin")]);
        let loaded = load(&[("a.toml", &texts[0]), ("b.toml", &texts[1])], &host);
        loaded.err().map(|errors| errors.to_string())
    };
    let script = "executable = \"/usr/bin/node\"\nscript = \"**/cli.js\"";
    let found = twins(script, script).unwrap();
    assert!(
        found
            .starts_with("b.toml:4:1: the agents `b` and `a` (a.toml:4:1) recognise the same processes equally well; "),
        "{found}"
    );
    assert!(twins("executable = \"/usr/bin/node\"", "executable = \"/bin/node\"").is_some(), "one file, two names");
    let reordered =
        ("environment = [\"AI_AGENT\", \"CLAUDECODE=1\"]", "environment = [\"CLAUDECODE=1\", \"AI_AGENT\"]");
    assert!(twins(reordered.0, reordered.1).is_some());
    assert_eq!(twins(script, "executable = \"/usr/bin/node\""), None, "the narrower one is the better match");
    assert_eq!(twins("argv = [\"a\"]", "argv = [\"b\"]"), None);
}

#[test]
fn a_set_of_ones_own_grants_and_overrides_nothing_unseen() {
    let agent = "[agent]\nname = \"x\"\n[scope]\ninclude = [\"mine\"]\n";
    let set = "[set]\nname = \"mine\"\n[files]\nread = [\"/srv/**\"]\n[network]\nconnect = [\"127.0.0.1:1\"]\n[exec]\nallow = [\"/srv/x\"]\n";
    let config = load(&[("x.toml", agent), ("grants.d/mine.toml", set)], &FakeHost::default()).unwrap();
    assert_eq!(verdict(&config.declarations[0], "/srv/a", Access::Read), Verdict::InScope);
    assert_eq!(verdict(&config.declarations[0], "/srv/x", Access::Exec), Verdict::InScope);

    let base = "[set]\nname = \"base\"\n";
    assert_eq!(
        errors(&[("grants.d/b.toml", base)]),
        "grants.d/b.toml:2:8: the grant set `base` ships with Bailiwick; give this one another name, or add `replace = true` to [set]"
    );
    let replaced = format!("{base}replace = true\n");
    let config = load(&[("grants.d/b.toml", &replaced)], &FakeHost::default()).unwrap();
    assert!(config.grant_sets.iter().any(|set| set.name.value == "base" && set.rules.read.is_empty()));
    assert!(config.notes.iter().any(|note| note.text.contains("takes the place of the one that ships")));
    assert!(errors(&[("grants.d/b.toml", "[set]\nname = \"m\"\nreplace = true")]).contains("nothing is replaced"));
    assert_eq!(
        errors(&[("grants.d/a.toml", set), ("grants.d/b.toml", set)]),
        "grants.d/b.toml:2:8: the grant set `mine` is defined at grants.d/a.toml:2:8 already; give this one another name"
    );
}

#[test]
fn a_grant_on_a_symlink_is_resolved_and_says_so() {
    let host = FakeHost::new(
        &["/usr/bin/dash", "/data/shop/a", "/proc/99/fd"],
        &[
            ("/bin", "/usr/bin"),
            ("/usr/bin/sh", "/usr/bin/dash"),
            ("/srv/shop", "/data/shop"),
            ("/dev/stdout", "/data/shop/a"),
        ],
    );
    let text = "[agent]\nname = \"x\"\nowner = \"o\"\n[scope.files]\nread = [\"/srv/shop/**\", \"/srv/shop/not/yet\", \"/dev/stdout\"]\n\
        [scope.exec]\nallow = [\"/bin/sh\"]\n";
    let config = load(&[("x.toml", text)], &host).unwrap();
    let agent = &config.declarations[0];
    for path in ["/srv/shop/a", "/data/shop/a", "/data/shop/not/yet"] {
        assert_eq!(verdict(agent, path, Access::Read), Verdict::InScope, "{path}");
    }
    assert_eq!(verdict(agent, "/usr/bin/dash", Access::Exec), Verdict::InScope);
    let own: Vec<String> = config
        .notes
        .iter()
        .filter(|note| !note.shipped)
        .map(|note| format!("{}: {}", note.origin, note.text))
        .collect();
    assert_eq!(
        own,
        [
            "x.toml:5:9: \"/srv/shop/**\" begins with a symlink: \"/data/shop/**\" counts as well",
            "x.toml:5:25: \"/srv/shop/not/yet\" begins with a symlink: \"/data/shop/not/yet\" counts as well",
            "x.toml:7:10: \"/bin/sh\" begins with a symlink: \"/usr/bin/dash\" counts as well",
        ]
    );
    let action = Action::Exec { path: SeenPath::whole(b"/usr/bin/dash"), script: None };
    let judgement = agent.scope.as_ref().unwrap().judge(&action);
    assert_eq!(judgement.reason.unwrap().text, "/bin/sh", "named as declared");
}

#[test]
fn an_agent_without_a_scope_is_unscoped() {
    let agent = declarations(&["[agent]\nname = \"x\"\n"], &FakeHost::default()).remove(0);
    assert!(agent.scope.is_none());
    let agent = declarations(&["[agent]\nname = \"x\"\n[scope]\n"], &FakeHost::default()).remove(0);
    assert_eq!(verdict(&agent, "/x", Access::Read), Verdict::OutOfScope, "an empty scope grants nothing");
}

#[test]
fn files_that_cannot_be_read_are_all_named() {
    let directory = tempfile::tempdir().unwrap();
    let agents = directory.path().join("agents.d");
    std::fs::create_dir(&agents).unwrap();
    std::fs::write(agents.join("a.toml"), b"[agent]\nname = \"\xff\"\n").unwrap();
    std::fs::create_dir(agents.join("b.toml")).unwrap();
    std::fs::write(agents.join("c.toml"), vec![b'#'; 1024 * 1024 + 1]).unwrap();
    std::os::unix::fs::symlink("nowhere", agents.join("d.toml")).unwrap();
    std::fs::write(agents.join("ignored.txt"), "?").unwrap();
    std::fs::write(agents.join(".hidden.toml"), "?").unwrap();
    let found = Config::load(Some(directory.path())).unwrap_err().to_string();
    let found: Vec<&str> = found.lines().map(|line| line.strip_prefix(agents.to_str().unwrap()).unwrap()).collect();
    assert_eq!(found[0], "/a.toml:2:9: is not UTF-8 from here on; save the file as UTF-8");
    assert_eq!(found[1], "/b.toml: is a directory; put a TOML file in its place");
    assert_eq!(
        found[2],
        "/c.toml: is longer than 1048576 bytes and was not read; split it, grants into sets in grants.d"
    );
    assert_eq!(found[3], "/d.toml: is a symlink to nowhere, which is not there; make it lead to what is, or remove it");
    assert_eq!(found.len(), 4);
    let missing = Config::load(Some(&directory.path().join("none"))).unwrap_err().to_string();
    assert!(missing.ends_with("none: is not there; create it, or name another"), "{missing}");
}

#[test]
fn a_symlink_that_leads_nowhere_is_not_passed_over() {
    let directory = tempfile::tempdir().unwrap();
    for name in ["agents.d", "grants.d", "bailiwick.toml"] {
        std::os::unix::fs::symlink("nowhere", directory.path().join(name)).unwrap();
    }
    let found = Config::load(Some(directory.path())).unwrap_err().0;
    assert_eq!(found.len(), 3, "{found:?}");
    assert!(found.iter().all(|problem| problem.to_string().contains("is a symlink to nowhere")), "{found:?}");
}

#[test]
fn a_named_pipe_among_the_files_holds_nobody_up() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("agents.d")).unwrap();
    let pipe = directory.path().join("agents.d/pipe.toml");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
    let found = Config::load(Some(directory.path())).unwrap_err().to_string();
    assert!(found.ends_with("pipe.toml: is not a regular file; put a TOML file there"), "{found}");
}

#[test]
fn the_hash_is_of_names_and_bytes_wherever_the_directory_lies() {
    let write = |text: &str| {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("agents.d")).unwrap();
        std::fs::write(directory.path().join("agents.d/x.toml"), text).unwrap();
        Config::load(Some(directory.path())).unwrap().hash
    };
    let one = write("[agent]\nname = \"x\"\n");
    assert_eq!(one, write("[agent]\nname = \"x\"\n"));
    assert_ne!(one, write("[agent]\nname = \"x\"\n#"));
}

#[test]
fn a_pattern_for_an_executable_says_how_many_files_it_leads_to() {
    let text = "[agent]\nname = \"x\"\nowner = \"o\"\n[[recognise]]\nexecutable = \"/opt/*/agent\"\n";
    let config = load(&[("x.toml", text)], &FakeHost::new(&["/opt/1/agent", "/opt/2/agent"], &[])).unwrap();
    let own: Vec<&str> = config.notes.iter().filter(|note| !note.shipped).map(|note| note.text.as_str()).collect();
    assert_eq!(
        own,
        ["\"/opt/*/agent\" leads to 2 files now; those that appear later are recognised from the next reload on"]
    );
}

#[test]
fn a_file_of_nothing_but_errors_is_told_in_bounded_space_and_time() {
    let started = std::time::Instant::now();
    for garbage in ["[\n", "=\n", "a = [\n", "\"", "x = 1\n", "[[[[", "a.b.c.d = {\n"] {
        let text = garbage.repeat((1 << 20) / garbage.len());
        assert!(errors(&[("x.toml", &text)]).lines().count() <= 22, "{garbage:?}");
    }
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
}

#[test]
fn more_tables_and_faults_than_anyone_reads_are_cut_short() {
    let many = "[[recognise]]\nuser = 1\n".repeat(65);
    assert!(error_of(&many).contains("`recognise` has 65 elements; write at most 64"));
    let keys: Vec<String> = (0..150).map(|number| format!("k{number} = 1")).collect();
    let found = error_of(&format!("[scope]\n{}", keys.join("\n")));
    assert_eq!((found.lines().count(), found.lines().last()), (101, Some("and 50 more")));
}
