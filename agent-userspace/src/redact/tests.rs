#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use serde_json::{Value, json};

use super::{Expression, REDACTED_PIECES, RedactSettings, Redactor};
use crate::entry::{Draft, ProcessRef, Timestamp};

fn redactor() -> Redactor {
    Redactor::new(RedactSettings::default()).unwrap()
}

fn draft(attributes: Value) -> Draft {
    let Value::Object(attributes) = attributes else { panic!("no object") };
    Draft { attributes, ..Draft::of_host(Timestamp(0), "process.exec") }
}

/// A command line's arguments: words, and what stands in backquotes, which no secret here has.
fn arguments(line: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    for (number, part) in line.split('`').enumerate() {
        if number % 2 == 1 {
            arguments.push(part.to_owned());
        } else {
            arguments.extend(part.split_whitespace().map(str::to_owned));
        }
    }
    arguments
}

fn redacted_line(redactor: &Redactor, line: &str) -> (Vec<String>, u64) {
    let mut draft = draft(json!({"process.command_args": arguments(line)}));
    redactor.redact(&mut draft);
    let pieces = draft.attributes.get(REDACTED_PIECES).map_or(0, |pieces| pieces.as_u64().unwrap());
    assert_eq!(draft.redacted, if pieces > 0 { vec!["process.command_args"] } else { vec![] });
    (serde_json::from_value(draft.attributes["process.command_args"].clone()).unwrap(), pieces)
}

/// Command lines, and what is left of them. Keys are of the form that their makers give them, and open nothing.
const SECRETS: &[(&str, &str)] = &[
    ("aws configure set aws_access_key_id AKIAIOSFODNN7EXAMPLE", "aws configure set aws_access_key_id [redacted]"),
    (
        "env AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY ls",
        "env AWS_SECRET_ACCESS_KEY=[redacted] ls",
    ),
    (
        "aws configure set aws_secret wJalrXUtnFEMI/K7MDENG/bPxRfiCYEX4MPL3KEY",
        "aws configure set aws_secret [redacted]",
    ),
    (
        "gh api -H `Authorization: token ghp_16C7e42F292c6912E7710c838347Ae178B4a`",
        "gh api -H `Authorization: token [redacted]`",
    ),
    ("echo gho_16C7e42F292c6912E7710c838347Ae178B4a", "echo [redacted]"),
    ("echo github_pat_11ABCDEFG0abcdefghijkl_mnopqrstuvwxyz0123456789ABCDEFGHIJKLM", "echo [redacted]"),
    ("OPENAI_API_KEY=sk-proj-abcdEFGH1234ijklMNOP5678 codex", "OPENAI_API_KEY=[redacted] codex"),
    ("claude --resume sk-ant-api03-abcdEFGH1234-ijklMNOP_5678AA", "claude --resume [redacted]"),
    ("slack-send xoxb-123456789012-1234567890123-AbCdEfGhIjKlMnOpQrStUvWx hi", "slack-send [redacted] hi"),
    (
        "curl https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXXXXXXXXXXXXXX",
        "curl https://hooks.slack.com/services/[redacted]",
    ),
    (
        "curl https://maps.googleapis.com/maps/api/js?key=AIzaSyD4-abcdefghijklmnopqrstuvwxyz0123&v=3",
        "curl https://maps.googleapis.com/maps/api/js?key=[redacted]&v=3",
    ),
    ("glab auth login --hostname x -t glpat-abcDEF123456ghiJKL78", "glab auth login --hostname x -t [redacted]"),
    (
        "npm config set //registry.npmjs.org/:_authToken=npm_abcdefghijklmnopqrstuvwxyz0123456789",
        "npm config set //registry.npmjs.org/:_authToken=[redacted]",
    ),
    (
        "twine upload -u __token__ -p pypi-AgEIcHlwaS5vcmcCJDExMTExMTEx dist/x.whl",
        "twine upload -u __token__ -p [redacted] dist/x.whl",
    ),
    (
        "jwt decode eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0NTY3ODkwIn0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U",
        "jwt decode [redacted]",
    ),
    (
        "sh -c `echo \"-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA\n-----END RSA PRIVATE KEY-----\" > k`",
        "sh -c `echo \"-----BEGIN RSA PRIVATE KEY-----[redacted]-----END RSA PRIVATE KEY-----\" > k`",
    ),
    (
        "curl -H `Authorization: Bearer abc.def-123` https://x.test/",
        "curl -H `Authorization: Bearer [redacted]` https://x.test/",
    ),
    ("curl -H `authorization: hunter2` https://x.test/", "curl -H `authorization: [redacted]` https://x.test/"),
    ("curl -H `X-Api-Key: hunter2` https://x.test/", "curl -H `X-Api-Key: [redacted]` https://x.test/"),
    ("curl -H `PRIVATE-TOKEN: hunter2` https://x.test/", "curl -H `PRIVATE-TOKEN: [redacted]` https://x.test/"),
    ("curl -H `Cookie: sid=hunter2; theme=dark` https://x.test/", "curl -H `Cookie: [redacted]` https://x.test/"),
    ("curl -u admin:hunter2 https://x.test/", "curl -u [redacted] https://x.test/"),
    ("sudo curl -sSf -uadmin:hunter2 https://x.test/", "sudo curl -sSf -u[redacted] https://x.test/"),
    ("curl --user=admin:hunter2 https://x.test/", "curl --user=[redacted] https://x.test/"),
    ("mysql -h db -u root -phunter2 shop", "mysql -h db -u root -p[redacted] shop"),
    ("sshpass -p hunter2 ssh host", "sshpass -p [redacted] ssh host"),
    ("docker login -u me -p hunter2 registry.test", "docker login -u me -p [redacted] registry.test"),
    ("docker run -e DB_PASSWORD=a&b|c image", "docker run -e DB_PASSWORD=[redacted] image"),
    ("docker run --env=FOO_TOKEN=hunter2 image", "docker run --env=FOO_TOKEN=[redacted] image"),
    ("psql postgres://shop:hunter2@db.test:5432/shop", "psql postgres://[redacted]@db.test:5432/shop"),
    ("git clone https://oauth2:hunter2@gitlab.test/a/b.git", "git clone https://[redacted]@gitlab.test/a/b.git"),
    ("tool --password hunter2 --verbose", "tool --password [redacted] --verbose"),
    ("tool --password=hunter2 --verbose", "tool --password=[redacted] --verbose"),
    ("tool --password=`my long pass`", "tool --password= `my long pass`"),
    ("vault login -token hvs.abcdef", "vault login -token [redacted]"),
    ("tool --api-key hunter2", "tool --api-key [redacted]"),
    ("tool --client-secret hunter2", "tool --client-secret [redacted]"),
    ("java -Dspring.datasource.password=hunter2 -jar x.jar", "java -Dspring.datasource.password=[redacted] -jar x.jar"),
    (
        "curl https://x.test/cb?token=hunter2&user=me&api_key=hunter3&access_token=hunter4#top",
        "curl https://x.test/cb?token=[redacted]&user=me&api_key=[redacted]&access_token=[redacted]",
    ),
    (
        "curl https://b.test/x?X-Amz-Signature=0123456789abcdef&X-Amz-Date=20260101",
        "curl https://b.test/x?X-Amz-Signature=[redacted]&X-Amz-Date=20260101",
    ),
    (
        "curl -d `{\"user\": \"me\", \"password\": \"hun\\\"ter2\"}`",
        "curl -d `{\"user\": \"me\", \"password\": \"[redacted]\"}`",
    ),
    ("bash -c `export DB_SECRET=hunter2; make`", "bash -c `export DB_SECRET=[redacted] make`"),
    ("bash -lc `mytool --token hunter2 --out x`", "bash -lc `mytool --token [redacted] --out x`"),
    ("python3 -c `api_key = 'hunter2'\nprint(1)`", "python3 -c `api_key = '[redacted]'\nprint(1)`"),
    ("sh -c `curl -u admin:hunter2 https://x.test/`", "sh -c `curl -u [redacted] https://x.test/`"),
    ("sh -c `PGPASSWORD=hunter2 psql -h db`", "sh -c `PGPASSWORD=[redacted] psql -h db`"),
    (
        "sh -c `curl -H \"Authorization: Basic aHVudGVyMg==\" x.test`",
        "sh -c `curl -H \"Authorization: Basic [redacted]\" x.test`",
    ),
    ("openssl enc -aes256 -pass pass:hunter2 -in x", "openssl enc -aes256 -pass [redacted] -in x"),
    ("openssl rsa -passin pass:hunter2 -in x", "openssl rsa -passin pass:[redacted] -in x"),
    ("deploy MY_SIGNING_KEY=hunter2", "deploy MY_SIGNING_KEY=[redacted]"),
    ("tool Zk3vQ9xL2mT8wB5nR7yH", "tool [redacted]"),
    ("tool --id=q8Xv2LkPz0RtYw7NbMc4HdGf9JsAe1Uo --x", "tool --id=[redacted] --x"),
    ("tool k9x2m7q4v8z1n5b3w6t0r2y8p4", "tool [redacted]"),
    ("echo 3q2+7w8AbC/dEfG1hIjK5lMnOp6QrStUv0WxYz9aBcDe= | base64 -d", "echo [redacted] | base64 -d"),
];

/// Command lines as agents run them all day.
const ORDINARY: &[&str] = &[
    "git checkout 0f924149f21d5f6fcd2b6ed0c1efa6e39f4401bb",
    "git show 0f92414 --stat",
    "git commit -m `Fix the token bucket: refill once a second`",
    "git commit -m `Add bearer authentication and a password prompt`",
    "git push origin refs/heads/feature/JIRA-1234-AddUserLogin2Page",
    "git clone git@github.com:torvalds/linux.git",
    "git clone https://github.com/torvalds/linux.git",
    "git clone ssh://git@github.com/torvalds/linux.git",
    "cat .git/objects/3f/a9c0e1d2b4a5968778695a4b3c2d1e0f9a8b7c",
    "sha256sum -c e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "docker run --rm image@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    "docker run -u 1000:1000 -e HOME=/home/me image",
    "docker exec 4c01db0b339c ls",
    "kubectl logs web-7d4b9c6f5d-x2x9z -n kube-system",
    "kubectl get secret my-secret -o yaml",
    "mount UUID=3e6be9de-8139-11d1-9106-a43f08d823a6 /mnt",
    "curl -fsSL https://static.crates.io/crates/serde/serde-1.0.219.crate -o serde.crate",
    "curl http://localhost:8080/api/v1/users?page=2&sort=name&sort_key=created",
    "curl http://127.0.0.1:8080/tokens/list",
    "sh -c `curl -u \"$USER:$PASSWORD\" https://x.test/`",
    "sh -c `curl -H \"Authorization: Bearer $TOKEN\" https://x.test/`",
    "sh -c `GITHUB_TOKEN=${GH_TOKEN} make release`",
    "sh -c `docker login --password-stdin < ~/.token`",
    "tool --password-file /run/secrets/db --token-file=/run/secrets/token",
    "ansible-playbook --private-key ~/.ssh/id_ed25519 site.yml",
    "ssh -i /home/me/.ssh/id_ed25519 -o IdentitiesOnly=yes host",
    "psql --no-password shop",
    "rustc --crate-name serde -C metadata=1a2b3c4d5e6f7a8b -C extra-filename=-1a2b3c4d5e6f7a8b",
    "rustc --extern serde=/w/target/debug/deps/libserde-1a2b3c4d5e6f7a8b.rlib --cap-lints allow",
    "/w/target/debug/deps/agent_userspace-0f1e2d3c4b5a6978 --test-threads=1",
    "target/debug/deps/agent_userspace-0f1e2d3c4b5a6978 a_gate_holds_what_is_declared",
    "cargo test -p agent-userspace --target x86_64-unknown-linux-gnu -- --nocapture",
    "cc1plus -quiet -I/usr/include/x86_64-linux-gnu/c++/12 -D_GNU_SOURCE -mtune=generic -march=x86-64 a.cpp",
    "ld -plugin-opt=-fresolution=/tmp/ccXb3Kd9.res --build-id=sha1 -dynamic-linker /lib64/ld-linux-x86-64.so.2",
    "/nix/store/3n58xw4373jp0ljirf06d8077j15pc4j-glibc-2.37-8/bin/ldd x",
    "node /home/me/.cache/node/corepack/v1/pnpm/9.1.0/bin/pnpm.cjs install --frozen-lockfile",
    "npm install lodash@4.17.21 --integrity sha512-v2kDEe57lecTulaDIuNTPy3Ry4gLGJ6Z1O3vE1krgXZNrsQ+LFTGHVxVjcXPs17LhbZVGedAJv8XZ1tvj5FvSg==",
    "ssh-keygen -lf - SHA256:nThbg6kXUpJWGl7E1IGOCspRomTxdCARLviKw6E5SY8",
    "echo ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl me@host",
    "python3 -m pytest tests/test_tokens.py::TestTokenBucket::test_refills_after_60s -x -q",
    "python3 -c `import tokenize, secrets; print(secrets.token_hex)`",
    "TOKENIZERS_PARALLELISM=false python3 train.py --max-tokens 4096 --eos_token_id=2",
    "env GIT_ASKPASS=/usr/bin/true SSH_AUTH_SOCK=/tmp/ssh-x/agent.1 git fetch",
    "env PWD=/srv/shop OLDPWD=/srv make",
    "grep -rn `fn is_secret` src --include=*.rs",
    "grep -E `password|secret|token` src/main.rs",
    "find . -name `*.key` -o -name `*secret*`",
    "rg AbstractSingletonProxyFactoryBean2 src/main/java/com/example/App",
    "java -XX:MaxRAMPercentage=75.0 -XX:+UseG1GC -cp /app/libs/spring-core-6.1.2.jar com.example.Main2Application",
    "chrome --type=renderer --enable-features=NetworkServiceInProcess2,TrustTokens --lang=en-US",
    "code --folder-uri vscode-remote://wsl+Ubuntu/home/me/src",
    "tar -xJf linux-6.1.55.tar.xz --strip-components=1 -C /usr/src/linux-headers-6.1.0-13-amd64",
    "cc -m64 /tmp/rustcXb3K/symbols.o /w/target/debug/deps/first-1a2b3c4d5e6f7a8b.5qcipjwe5663tnl45uvex5bmr.rcgu.o -lc",
    "cc target/debug/deps/first-1a2b3c4d5e6f7a8b.5qcipjwe5663tnl45uvex5bmr.1k2j3h4.rcgu.o",
    "rm -r target/debug/incremental/first-3kq9/s-hogc7viupd-0ghm2jm-6r2zijuxqlw8gm37opobmglqn",
    "go build -ldflags=-X=main.version=v0.0.0-20240801120000-abcdef123456 ./...",
    "systemd-run --unit=bailiwick-20260131T120000Z --property=MemoryMax=2G make",
    "sed -n 1,60p agent-userspace/src/config/kernel_selectors_tests.rs",
    "ps -o pid,lstart,args --sort=-start_time",
    "echo 01ARZ3NDEKTSV4RRFFQ69G5FAV",
];

#[test]
fn what_looks_like_a_secret_on_a_command_line_is_redacted_and_what_is_around_it_is_kept() {
    let redactor = redactor();
    assert!(SECRETS.len() >= 30);
    let mut wrong = Vec::new();
    for (line, expected) in SECRETS {
        let (found, _) = redacted_line(&redactor, line);
        if found != arguments(expected) {
            wrong.push(format!("of {line}\nexpected {:?}\nfound    {found:?}", arguments(expected)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn an_ordinary_command_line_is_left_as_it_is() {
    let redactor = redactor();
    assert!(ORDINARY.len() >= 30);
    let found: Vec<String> = ORDINARY
        .iter()
        .map(|line| redacted_line(&redactor, line))
        .filter(|(_, pieces)| *pieces > 0)
        .map(|(arguments, _)| arguments.join(" "))
        .collect();
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn to_redact_what_is_redacted_changes_nothing() {
    let redactor = redactor();
    for (line, _) in SECRETS {
        let mut once = draft(json!({"process.command_args": arguments(line)}));
        redactor.redact(&mut once);
        let mut twice = once.clone();
        redactor.redact(&mut twice);
        assert_eq!(once, twice, "{line}");
    }
}

#[test]
fn an_argument_that_is_one_value_is_redacted_to_its_end() {
    let redactor = redactor();
    for (argument, expected) in [
        ("--password=my long & strange pass", "--password=[redacted]"),
        ("FOO_SECRET=two words", "FOO_SECRET=[redacted]"),
    ] {
        let mut draft = draft(json!({"process.command_args": ["tool", argument]}));
        redactor.redact(&mut draft);
        assert_eq!(draft.attributes["process.command_args"][1], expected);
    }
}

#[test]
fn every_piece_of_an_entry_is_counted_and_every_attribute_is_marked_once() {
    let mut draft = draft(json!({
        "process.command_args": ["tool", "--token", "hunter2", "--password=hunter3"],
        "process.environment_variable.MY_TOKEN": "hunter4",
        "process.environment_variable.TRACEPARENT": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "process.environment_variable.TRACESTATE": "congo=Zk3vQ9xL2mT8wB5nR7yH",
        "bailiwick.unix.abstract": "ipc-ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "file.path": "/srv/shop",
        "process.parent_pid": 7,
    }));
    draft.process = Some(ProcessRef {
        tgid: 1,
        tid: 1,
        start_boot_ns: 1,
        executable: Some("/x/glpat-abcDEF123456ghiJKL78".into()),
    });
    redactor().redact(&mut draft);
    assert_eq!(draft.attributes[REDACTED_PIECES], 5);
    let marked = [
        "process.command_args",
        "process.environment_variable.MY_TOKEN",
        "bailiwick.unix.abstract",
        "process.executable",
    ];
    assert_eq!(draft.redacted, marked);
    assert_eq!(draft.attributes["process.environment_variable.MY_TOKEN"], "[redacted]");
    assert_eq!(draft.attributes["bailiwick.unix.abstract"], "ipc-[redacted]");
    assert_eq!(draft.process.unwrap().executable.unwrap(), "/x/[redacted]");
}

#[test]
fn an_entry_without_a_secret_says_nothing_of_redaction() {
    let before = draft(json!({"file.path": "/usr/lib/x86_64-linux-gnu/libc.so.6", "bailiwick.file.access": "r"}));
    let mut after = before.clone();
    redactor().redact(&mut after);
    assert_eq!(before, after);
    assert!(!serde_json::to_string(&after).unwrap().contains("redacted"));
}

#[test]
fn a_path_is_searched_for_keys_of_a_known_form_and_never_for_what_looks_random() {
    let redactor = redactor();
    for (path, expected) in [
        ("/tmp/ghp_16C7e42F292c6912E7710c838347Ae178B4a/x", "/tmp/[redacted]/x"),
        ("/srv/AKIAIOSFODNN7EXAMPLE.csv", "/srv/[redacted].csv"),
        (
            "/root/.cache/uv/archive-v0/Zk3vQ9xL2mT8wB5nR7yH/x.py",
            "/root/.cache/uv/archive-v0/Zk3vQ9xL2mT8wB5nR7yH/x.py",
        ),
        ("/usr/lib/python3.11/secrets.py", "/usr/lib/python3.11/secrets.py"),
        ("/run/secrets/kubernetes.io/serviceaccount/token", "/run/secrets/kubernetes.io/serviceaccount/token"),
    ] {
        for name in ["file.path", "bailiwick.file.new_path", "process.working_directory", "bailiwick.exec.given"] {
            let mut draft = draft(json!({name: path}));
            redactor.redact(&mut draft);
            assert_eq!(draft.attributes[name], expected, "{name}");
        }
    }
}

#[test]
fn what_was_escaped_hides_no_secret() {
    let mut draft = draft(json!({"process.command_args": [
        "a\\xFFghp_16C7e42F292c6912E7710c838347Ae178B4a\\xFE", "\\xFFsk-abcdEFGH1234ijklMNOP", "--password=\\xC3hunter2"
    ]}));
    redactor().redact(&mut draft);
    let expected = json!(["a\\xFF[redacted]\\xFE", "\\xFF[redacted]", "--password=[redacted]"]);
    assert_eq!(draft.attributes["process.command_args"], expected);
}

#[test]
fn a_secret_of_letters_beyond_ascii_is_cut_at_whole_characters() {
    let mut draft = draft(json!({"process.command_args": ["x", "--password=pässwörd", "sh -c 'TOKEN=schlüssel ä'"]}));
    redactor().redact(&mut draft);
    let expected = json!(["x", "--password=[redacted]", "sh -c 'TOKEN=[redacted] ä'"]);
    assert_eq!(draft.attributes["process.command_args"], expected);
}

#[test]
fn a_pattern_of_the_settings_redacts_too_and_its_group_named_secret_alone_where_it_has_one() {
    let patterns = ["corp-[a-z]+", "badge:(?<secret>[0-9]+)"].map(|text| Expression::parse(text).unwrap()).into();
    let redactor = Redactor::new(RedactSettings { patterns, ..RedactSettings::default() }).unwrap();
    assert_eq!(redacted_line(&redactor, "x corp-abc badge:77").0, ["x", "[redacted]", "badge:[redacted]"]);
}

#[test]
fn what_the_settings_allow_is_never_redacted() {
    let allow = vec![Expression::parse("build-[0-9a-zA-Z]+").unwrap(), Expression::parse("^--token=test$").unwrap()];
    let redactor = Redactor::new(RedactSettings { allow, ..RedactSettings::default() }).unwrap();
    let line = "x build-Zk3vQ9xL2mT8wB5nR7yH --token=test";
    assert_eq!(redacted_line(&redactor, line).0.join(" "), line);
    assert_eq!(redacted_line(&redactor, "x --token=live").0, ["x", "--token=[redacted]"]);
}

#[test]
fn without_entropy_only_patterns_redact_and_disabled_nothing_does() {
    let line = "x Zk3vQ9xL2mT8wB5nR7yH --token=live";
    let mut redactor = Redactor::new(RedactSettings { entropy: false, ..RedactSettings::default() }).unwrap();
    assert_eq!(redacted_line(&redactor, line).0.join(" "), "x Zk3vQ9xL2mT8wB5nR7yH --token=[redacted]");
    redactor.set(RedactSettings { enabled: false, ..RedactSettings::default() });
    assert_eq!(redacted_line(&redactor, line).0.join(" "), line);
}

/// `cargo test --release -p agent-userspace -- --ignored --nocapture redacting` prints what an entry costs.
#[test]
#[ignore = "a measurement"]
fn redacting_an_ordinary_entry_costs_well_under_a_microsecond() {
    const ROUNDS: u32 = 200_000;
    let redactor = redactor();
    let mut open = draft(json!({
        "file.path": "/usr/lib/python3.11/site-packages/numpy/core/__pycache__/multiarray.cpython-311.pyc",
        "bailiwick.file.access": "r", "bailiwick.file.device": "8:1", "bailiwick.file.inode": "1048577",
    }));
    open.process =
        Some(ProcessRef { tgid: 1, tid: 1, start_boot_ns: 1, executable: Some("/usr/bin/python3.11".into()) });
    let line = arguments(ORDINARY.iter().find(|line| line.contains("-fresolution")).unwrap());
    let mut exec = draft(json!({"process.command_args": line, "bailiwick.exec.given": "/usr/bin/ld"}));
    let secret = draft(json!({"process.command_args": arguments(SECRETS[3].0)}));
    let time = |what: &str, mut act: Box<dyn FnMut() + '_>| {
        let begin = std::time::Instant::now();
        (0..ROUNDS).for_each(|_| act());
        let each = begin.elapsed() / ROUNDS;
        println!("{what}: {each:?}");
        each
    };
    let of_open = time("file.open", Box::new(|| redactor.redact(&mut open)));
    time("process.exec", Box::new(|| redactor.redact(&mut exec)));
    time("process.exec with a secret", Box::new(|| redactor.redact(&mut secret.clone())));
    assert!(of_open < std::time::Duration::from_micros(1), "{of_open:?}");
}
