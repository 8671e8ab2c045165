//! Receivers behind TLS, and receivers that only a proxy reaches, in front of a real one.

use std::time::Duration;

use bailiwick_tests::bounded;
use bailiwick_tests::certificates::Certificates;
use bailiwick_tests::connect_proxy::ConnectProxy;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::faulty::Faulty;
use bailiwick_tests::instance::Setup;
use bailiwick_tests::receiver::Receiver;
use bailiwick_tests::requirement::Requirement::{Tier2, Venv};
use bailiwick_tests::requirement::require;

use crate::targets::{Target, exported, has_everything, settings, status_of};

const TOLD_WITHIN: Duration = Duration::from_secs(20);

#[test]
fn over_tls_both_sides_are_who_they_say_or_nothing_is_sent() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let receiver = Receiver::start();
    let mut instance = Setup::new().agent(&Declaration::new("storm")).prepare();
    let place = instance.place().path().to_owned();
    let ours = Certificates::in_dir(&place.join("ours"), &["localhost"]);
    let others = Certificates::in_dir(&place.join("others"), &["localhost"]);
    let (grpc, http) = (receiver.grpc_address(), receiver.http_address());
    let open = [Faulty::secure(grpc, ours.server(false)), Faulty::secure(http, ours.server(false))];
    let asking = [Faulty::secure(grpc, ours.server(true)), Faulty::secure(http, ours.server(true))];
    let strange = Faulty::secure(http, others.server(false));
    let (certificate, key) = ours.client();
    let trust = |authority: &Certificates| format!("tls.ca_file = {:?}", authority.authority());
    let show = format!("tls.certificate_file = {certificate:?}\ntls.key_file = {key:?}");
    let at = |proxy: &Faulty| format!("https://{}", proxy.address());
    let switched = place.join("switched.pem");
    std::fs::copy(ours.authority(), &switched).unwrap();
    let targets = [
        Target::new("store", format!("https://localhost:{}", open[0].address().port()), "grpc"),
        Target::new("file-grpc", at(&open[0]), "grpc").with(trust(&ours)),
        Target::new("file-http", at(&open[1]), "http/protobuf").with(trust(&ours)).with("compression = \"gzip\""),
        Target::new("mutual-grpc", at(&asking[0]), "grpc").with(trust(&ours)).with(&show),
        Target::new("mutual-http", at(&asking[1]), "http/protobuf").with(trust(&ours)).with(&show),
        Target::new("nobody", at(&asking[1]), "http/protobuf").with(trust(&ours)).with("signals = [\"logs\"]"),
        Target::new("stranger", at(&strange), "http/protobuf").with(format!("tls.ca_file = {switched:?}")),
    ];
    instance.write("bailiwick.toml", &settings(&targets.each_ref(), &place));
    instance.set_env("SSL_CERT_FILE", ours.authority());
    instance.start_daemon();
    let storm = instance.place().copy_of("storm", "agent-storm");
    instance.run("storm", &[storm.as_os_str(), "50".as_ref()]).success();
    instance.sync();

    let told = |target: &str, words: &str| {
        let status = instance.call("status --json").json();
        status_of(&status, target, "logs")["error"].as_str().is_some_and(|error| error.contains(words))
    };
    bounded::until("a stranger is not believed", TOLD_WITHIN, || told("stranger", "invalid peer certificate"));
    bounded::until("who shows nothing is refused", TOLD_WITHIN, || told("nobody", "ertificate"));
    assert_eq!(receiver.session("stranger").log_records().len() + receiver.session("nobody").log_records().len(), 0);

    // An authority and a target's settings are put right: the one without a restart, the other with one.
    std::fs::copy(others.authority(), &switched).unwrap();
    bounded::until("the new authority is believed", TOLD_WITHIN, || {
        let status = instance.call("status --json").json();
        status_of(&status, "stranger", "logs")["pending"] == 0
    });
    instance.stop();
    let mut targets = targets;
    targets[5].more = format!("{}\n{show}\nsignals = [\"logs\", \"traces\", \"metrics\"]\n", trust(&ours));
    instance.write("bailiwick.toml", &settings(&targets.each_ref(), &place));
    instance.start_daemon();
    let trail = exported(&instance);
    for target in &targets {
        has_everything(&receiver, target.name, &trail);
    }
}

#[test]
fn files_that_cannot_be_used_stop_the_start_with_where_they_are_named() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Setup::new().prepare();
    let place = instance.place().path().to_owned();
    let ours = Certificates::in_dir(&place, &[]);
    let (certificate, _) = ours.client();
    let (_, other_key) = Certificates::in_dir(&place.join("others"), &[]).client();
    std::fs::write(place.join("headers"), "authorization: Bearer hunter2\nhunter2\n").unwrap();
    let wrong = [
        (format!("headers_file = {:?}", place.join("headers")), ":4:16: ", "headers:2: is not of the form name: value"),
        (format!("headers_file = {:?}", place.join("none")), ":4:16: ", "none: cannot be read (No such file"),
        (
            format!("tls.ca_file = {:?}", place.join("headers")),
            ":4:15: ",
            "headers: has no certificate in PEM; it begins",
        ),
        (
            format!("tls.certificate_file = {certificate:?}\ntls.key_file = {other_key:?}"),
            ":4:24: ",
            "client.pem: cannot be used (",
        ),
    ];
    for (lines, named, problem) in wrong {
        let target = format!("[[export.target]]\nname = \"a\"\nendpoint = \"https://127.0.0.1:1\"\n{lines}\n");
        instance.write("bailiwick.toml", &target);
        let said = instance.refused();
        assert_eq!(said.code(), Some(2), "{}", said.stderr);
        let place = format!("{}{named}", instance.config("bailiwick.toml").display());
        assert!(said.stderr.contains(&place) && said.stderr.contains(problem), "{lines}: {}", said.stderr);
        assert!(!said.stderr.contains("hunter2"), "{}", said.stderr);
    }
}

#[test]
fn receivers_that_only_a_proxy_reaches_get_everything() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let receiver = Receiver::start();
    let mut instance = Setup::new().agent(&Declaration::new("storm")).prepare();
    let place = instance.place().path().to_owned();
    let ours = Certificates::in_dir(&place, &["otlp.example"]);
    let secure = Faulty::secure(receiver.grpc_address(), ours.server(false));
    let secure_http = Faulty::secure(receiver.http_address(), ours.server(false));
    let names = [
        ("plain.example:4318", receiver.http_address()),
        ("plain.example:4317", receiver.grpc_address()),
        ("otlp.example:443", secure.address()),
        ("otlp.example:8443", secure_http.address()),
    ];
    let open = ConnectProxy::start(&names, None);
    // `printf user:pass | base64`
    let closed = ConnectProxy::start(&names, Some("Basic dXNlcjpwYXNz"));
    let login = |user: &str| format!("proxy = \"http://{user}@{}\"", closed.address());
    let trust = format!("tls.ca_file = {:?}", ours.authority());
    let targets = [
        Target::new("forwarded", "http://plain.example:4318", "http/protobuf"),
        Target::new("plain-grpc", "http://plain.example:4317", "grpc"),
        Target::new("secure-grpc", "https://otlp.example", "grpc").with(&trust),
        Target::new("login-forwarded", "http://plain.example:4318", "http/protobuf").with(login("user:pass")),
        Target::new("login-secure", "https://otlp.example:8443", "http/protobuf").with(&trust).with(login("user:pass")),
        Target::new("direct", receiver.http_endpoint(), "http/protobuf"),
        Target::new("refused", "https://otlp.example", "grpc").with(&trust).with(login("user:hunter2")),
    ];
    instance.write("bailiwick.toml", &settings(&targets.each_ref(), &place));
    instance.set_env("HTTP_PROXY", format!("http://{}", open.address()));
    instance.set_env("https_proxy", format!("http://{}", open.address()));
    instance.start_daemon();
    let storm = instance.place().copy_of("storm", "agent-storm");
    instance.run("storm", &[storm.as_os_str(), "50".as_ref()]).success();
    instance.sync();

    let refused = || {
        let status = instance.call("status --json").json();
        let error = status_of(&status, "refused", "logs")["error"].as_str().unwrap_or_default().to_owned();
        error.contains("refuses to connect to otlp.example:443: HTTP/1.1 407 Proxy Authentication Required")
    };
    bounded::until("the proxy's refusal is told", TOLD_WITHIN, refused);
    assert!(!instance.log().contains("hunter2") && !instance.call("doctor").stdout.contains("hunter2"));
    instance.stop();
    let through = format!("{}\n{}\n", trust, login("user:pass"));
    let mut targets = targets;
    targets[6].more = through;
    instance.write("bailiwick.toml", &settings(&targets.each_ref(), &place));
    instance.start_daemon();
    let trail = exported(&instance);
    for target in &targets {
        has_everything(&receiver, target.name, &trail);
    }
    let asked = open.asked();
    for line in ["CONNECT plain.example:4317 HTTP/1.1", "CONNECT otlp.example:443 HTTP/1.1"] {
        assert!(asked.iter().any(|asked| asked == line), "{asked:?}");
    }
    let forwarded = "POST http://plain.example:4318/v1/logs HTTP/1.1";
    assert!(asked.iter().any(|asked| asked == forwarded), "{asked:?}");
    let direct = receiver.http_address().to_string();
    assert!(!asked.iter().any(|asked| asked.contains(&direct)), "this host is reached directly: {asked:?}");
}
