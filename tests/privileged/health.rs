//! The daemon's own health: what `/metrics` says is what happened, and `/readyz` says when nobody should rely on it.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::receiver::Receiver;
use bailiwick_tests::requirement::Requirement::{Promtool, Tier2, Venv};
use bailiwick_tests::requirement::require;
use bailiwick_tests::tmpfs::Tmpfs;
use bailiwick_tests::{alerts, bounded, http, scrape, workload};
use rustix::process::Signal;

/// An address is tried again after five seconds, a page is made anew after one.
const NOTICED_WITHIN: Duration = Duration::from_secs(30);
const ANY_PORT: &str = "[metrics]\nlisten = \"127.0.0.1:0\"\n";

/// An agent `opener` that may read `files` of the instance and nothing else.
fn measured(settings: &str) -> Setup {
    Setup::new().agent(&Declaration::new("opener")).file("bailiwick.toml", settings)
}

/// The same with a scope that covers nothing of what it does.
fn scoped() -> Declaration {
    Declaration::new("opener").with("[scope.files]\nread = [\"/nowhere/**\"]")
}

fn asked(address: SocketAddr, path: &str) -> (u16, String) {
    let (status, body) = http::get(address, path).unwrap();
    (status, String::from_utf8(body).unwrap())
}

#[test]
fn what_is_scraped_is_what_the_trail_has() {
    if !require(&[Tier2]) {
        return;
    }
    let setup = Setup::new().agent(&scoped()).file("bailiwick.toml", ANY_PORT);
    let instance = setup.start();
    let address = scrape::address(&instance);
    instance.read_files(50);
    instance.run("opener", &["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9; do read -r x < /etc/hostname; done"]).success();
    instance.run("opener", &["true", "--password", "hunter2hunter2"]).success();
    let trail = instance.synced_trail();
    let entries = trail.0.len() as f64;
    let page = scrape::until(address, "the page has all entries", |page| {
        page.sum("bailiwick_entries_total", &[]) == Some(entries)
    });
    let events = page.values("bailiwick_entries_total", "bailiwick_event");
    let in_trail: BTreeSet<String> = trail.0.iter().map(|entry| entry["event"].as_str().unwrap().to_owned()).collect();
    assert_eq!(events, in_trail);
    for event in &in_trail {
        let of_event = trail.0.iter().filter(|entry| entry["event"] == **event);
        let count: u64 = of_event.map(|entry| entry["count"].as_u64().unwrap()).sum();
        assert_eq!(page.sum("bailiwick_events_total", &[("bailiwick_event", event)]), Some(count as f64), "{event}");
    }
    let count = |matching: &dyn Fn(&serde_json::Value) -> bool| {
        Some(trail.0.iter().filter(|entry| matching(entry)).count() as f64)
    };
    let out = page.sum("bailiwick_entries_total", &[("bailiwick_verdict", "out_of_scope")]);
    assert_eq!(out, count(&|entry| entry["verdict"] == "out_of_scope"));
    let by_run = [("bailiwick_agent", "opener"), ("bailiwick_attribution_method", "run")];
    assert_eq!(page.sum("bailiwick_sessions_started_total", &by_run), Some(3.0));
    assert_eq!(page.sum("bailiwick_sessions_ended_total", &[]), Some(3.0));
    assert_eq!(page.sum("bailiwick_sessions", &[]), Some(0.0));
    let folded: u64 = trail
        .0
        .iter()
        .filter(|entry| entry["first_time"].is_string() && entry["event"] == "file.open")
        .map(|entry| entry["count"].as_u64().unwrap())
        .sum();
    assert!(folded >= 8, "{folded}");
    assert_eq!(page.sum("bailiwick_folded_total", &[("bailiwick_event", "file.open")]), Some(folded as f64));
    let redacted: u64 = trail.0.iter().filter_map(|entry| entry["attributes"]["bailiwick.redacted"].as_u64()).sum();
    assert!(redacted > 0);
    assert_eq!(page.sum("bailiwick_redacted_total", &[]), Some(redacted as f64));
    let records = instance.json("status --json")["records"].as_u64().unwrap();
    assert_eq!(page.sum("bailiwick_sensor_records_total", &[]), Some(records as f64));
    for (metric, value) in [("bailiwick_healthy", 1.0), ("bailiwick_ready", 1.0), ("bailiwick_agents", 1.0)] {
        assert_eq!(page.sum(metric, &[]), Some(value), "{metric}");
    }
    assert_eq!(page.sum("bailiwick_sensor_ring_size_bytes", &[("bailiwick_ring", "bulk")]), Some(f64::from(8 << 20)));
    assert!(page.sum("bailiwick_sensor_ring_peak_bytes", &[("bailiwick_ring", "bulk")]) > Some(0.0));
    assert_eq!(page.sum("bailiwick_sensor_program_runs_total", &[]), None, "nobody asked for them");
    let observed = instance.json("doctor --json")["observations"].as_array().unwrap().len() as f64;
    assert_eq!(page.sum("bailiwick_sensor_observation_working", &[]), Some(observed));
}

#[test]
fn hooks_are_told_as_they_are_attached_and_detached() {
    if !require(&[Tier2]) {
        return;
    }
    let mut running = measured(&format!("{ANY_PORT}[sensor]\nlinger_seconds = 0\n")).start();
    let address = scrape::address(&running);
    let hook = |page: &scrape::Scrape, what: &str, hook: &str| {
        page.sum(&format!("bailiwick_sensor_hook_{what}"), &[("bailiwick_hook", hook)])
    };
    let is = |page: &scrape::Scrape, value: f64| {
        ["attached", "expected"].iter().all(|what| hook(page, what, "sys_exit") == Some(value))
    };
    let idle = scrape::until(address, "nothing is attached while no agent runs", |page| is(page, 0.0));
    assert_eq!(hook(&idle, "attached", "sched_process_exec"), Some(1.0));
    let agent = running.spawn("opener", &["sleep", "60"]);
    scrape::until(address, "the hook is attached while one does", |page| {
        is(page, 1.0) && page.sum("bailiwick_sessions", &[("bailiwick_agent", "opener")]) == Some(1.0)
    });
    drop(agent);
    scrape::until(address, "it is detached again", |page| is(page, 0.0));
    assert_eq!(running.stop(), Some(0));
}

#[test]
fn programs_are_measured_where_that_is_asked_for() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = measured(&format!("{ANY_PORT}program_time = true\n")).start();
    instance.read_files(20);
    instance.sync();
    let page = scrape::until(scrape::address(&instance), "the programs have run", |page| {
        page.sum("bailiwick_sensor_program_runs_total", &[("bailiwick_program", "on_sys_exit")]) > Some(100.0)
    });
    let seconds = page.sum("bailiwick_sensor_program_time_seconds_total", &[("bailiwick_program", "on_sys_exit")]);
    assert!(seconds > Some(0.0) && seconds < Some(600.0), "{seconds:?}");
}

/// An instance that knows every kind of trouble: a gap nobody counted, losses, a finding, a receiver that is not there.
fn troubled() -> (Instance, SocketAddr) {
    let deputy = Declaration::new("deputy");
    let setup = Setup::new().agent(&scoped()).agent(&deputy).file("bailiwick.toml", ANY_PORT);
    let setup = setup.env("BAILIWICK_RING_BYTES", "4096").env("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
    let mut instance = setup.prepare();
    let start = |instance: &mut Instance| {
        instance.spawn_daemon();
        // 1: it is ready, and unhealthy as soon as the receiver did not answer.
        assert!(matches!(instance.call("status --wait 30s").code(), Some(0 | 1)));
    };
    start(&mut instance);
    assert_eq!(instance.stop(), Some(0));
    start(&mut instance);
    let program = bailiwick_tests::workload::bailiwick();
    let run =
        [program.as_os_str(), "run".as_ref(), "--agent".as_ref(), "deputy".as_ref(), "--".as_ref(), "true".as_ref()];
    instance.run("opener", &run).success();
    let dir = instance.place().files("many", 500);
    let flood =
        format!("cd {}; touch ready; while [ ! -e go ]; do sleep 0.05; done; cat f* > /dev/null", dir.display());
    let flooding = instance.spawn("opener", &["sh", "-c", &flood]);
    bounded::until("it waits", NOTICED_WITHIN, || dir.join("ready").exists());
    instance.signal(Signal::STOP);
    std::fs::write(dir.join("go"), "").unwrap();
    flooding.finish(workload::DEADLINE).success();
    instance.signal(Signal::CONT);
    instance.sync();
    let address = scrape::address(&instance);
    (instance, address)
}

#[test]
fn every_metric_of_the_alerts_is_in_a_live_scrape_and_every_name_in_it_is_documented() {
    if !require(&[Tier2]) {
        return;
    }
    let (instance, address) = troubled();
    let lost = instance.call("status --json").json()["lost"].as_u64().unwrap();
    assert!(lost > 0, "the flood was none");
    let page =
        scrape::until(address, "losses are told", |page| page.sum("bailiwick_lost_total", &[]) == Some(lost as f64));
    let full = page.sum("bailiwick_sensor_lost_total", &[("bailiwick_loss_reason", "ring_full")]);
    assert!(full > Some(0.0), "{}", page.text);
    assert_eq!(page.sum("bailiwick_findings_total", &[("bailiwick_finding", "delegation")]), Some(1.0));
    let documented = alerts::documented();
    let unknown: Vec<_> = page.names().into_iter().filter(|name| !documented.contains(name)).collect();
    assert!(unknown.is_empty(), "no page has {unknown:?}");
    scrape::until(address, "every metric of the alerts is told", |page| alerts::metrics().is_subset(&page.names()));
}

#[test]
fn prometheus_own_tool_finds_no_fault_with_a_real_page() {
    if !require(&[Tier2, Promtool]) {
        return;
    }
    let (instance, address) = troubled();
    let page = scrape::scrape(address).text;
    let file = instance.place().join("page");
    std::fs::write(&file, &page).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "\"$1\" check metrics < \"$2\"", "sh"]).arg(workload::promtool()).arg(&file);
    let said = bounded::run(&mut command, NOTICED_WITHIN);
    // Names of OpenTelemetry's that its rules leave as they are, and that Prometheus' own would have otherwise.
    let ours = |line: &&str| {
        !["process_thread_count ", "process_unix_file_descriptor_count "].iter().any(|name| line.starts_with(name))
    };
    let faults: Vec<&str> = said.stderr.lines().chain(said.stdout.lines()).filter(ours).collect();
    assert!(faults.is_empty() && matches!(said.code(), Some(0 | 3)), "{:?} {faults:?}\n{page}", said.code());
}

#[test]
fn otlp_and_prometheus_tell_of_the_same_metrics() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let receiver = Receiver::start();
    let setup = measured(ANY_PORT).env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint());
    let instance = setup.env("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf").start();
    instance.read_files(20);
    instance.call("sync --exported").success();
    let page = scrape::until(scrape::address(&instance), "the session has ended", |page| {
        page.sum("bailiwick_sessions_ended_total", &[]) == Some(1.0)
    });
    instance.call("sync --exported").success();
    let exported: BTreeSet<String> =
        receiver.metrics().iter().map(|metric| metric["name"].as_str().unwrap().replace('.', "_")).collect();
    // Prometheus' names have the unit and `_total` beside.
    let bare = |name: &String| {
        let name = name.trim_end_matches("_total");
        exported.contains(name)
            || ["_seconds", "_bytes"].iter().any(|unit| exported.contains(name.trim_end_matches(unit)))
    };
    let only_here: Vec<String> = page.names().into_iter().filter(|name| !bare(name)).collect();
    assert!(only_here.is_empty(), "{only_here:?}");
    assert!(exported.contains("bailiwick_sensor_ring_usage") && exported.contains("bailiwick_entries"), "{exported:?}");
}

#[test]
fn one_whose_trail_cannot_be_written_is_alive_and_not_ready_until_it_can() {
    if !require(&[Tier2]) {
        return;
    }
    let mut instance = measured(ANY_PORT).prepare();
    let full = Tmpfs::over(instance.state(), "size=8m");
    instance.start_daemon();
    let address = scrape::address(&instance);
    assert_eq!(asked(address, "/readyz"), (200, "ready\n".to_owned()));
    let filler = full.fill(16 << 10);
    instance.read_files(500);
    bounded::until("it is not ready", NOTICED_WITHIN, || asked(address, "/readyz").0 == 503);
    let (_, why) = asked(address, "/readyz");
    assert!(why.starts_with("not ready: ") && why.contains("No space left"), "{why}");
    let (alive, problems) = asked(address, "/healthz");
    assert!(alive == 200 && problems.starts_with("alive\nproblem: "), "{alive} {problems}");
    scrape::until(address, "the problem is told", |page| {
        page.sum("bailiwick_problem", &[("bailiwick_problem", "trail")]) == Some(1.0)
            && page.sum("bailiwick_ready", &[]) == Some(0.0)
            && page.sum("bailiwick_healthy", &[]) == Some(0.0)
    });
    std::fs::remove_file(filler).unwrap();
    bounded::until("it is ready again", NOTICED_WITHIN, || asked(address, "/readyz").0 == 200);
    scrape::until(address, "and no problem is left", |page| page.sum("bailiwick_problem", &[]).is_none());
    assert_eq!(instance.stop(), Some(0));
}

#[test]
fn an_address_that_is_taken_is_a_problem_and_not_the_end_and_is_had_when_it_is_free() {
    if !require(&[Tier2]) {
        return;
    }
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut instance = measured(&format!("[metrics]\nlisten = \"{address}\"\n")).prepare();
    instance.spawn_daemon();
    assert_eq!(instance.call("status --wait 30s").code(), Some(1), "it is ready, and unhealthy");
    let status = instance.call("status --json").json();
    let reasons = status["reasons"].to_string();
    assert!(reasons.contains(&format!("the metrics cannot be answered at {address}")), "{reasons}");
    assert_eq!((&status["healthy"], &status["metrics"]), (&false.into(), &serde_json::Value::Null));
    instance.read_files(5);
    drop(taken);
    bounded::until("the address is had", NOTICED_WITHIN, || instance.call("status").code() == Some(0));
    assert_eq!(asked(address, "/readyz").0, 200);
}

#[test]
fn without_metrics_nothing_listens() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = measured("").start();
    assert_eq!(instance.json("status --json")["metrics"], serde_json::Value::Null);
    assert_eq!(listening(Path::new("/proc").join(instance.daemon_pid().as_raw_nonzero().to_string()).as_path()), 0);
}

/// How many sockets of a process listen for TCP.
fn listening(process: &Path) -> usize {
    let tables = ["net/tcp", "net/tcp6"].map(|table| std::fs::read_to_string(process.join(table)).unwrap_or_default());
    let of_table = |table: &str| -> Vec<String> {
        let rows = table.lines().skip(1).map(|row| row.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        // State 0A is LISTEN; the tenth field is the inode.
        rows.filter(|row| row.get(3).is_some_and(|state| state == "0A")).filter_map(|row| row.get(9).cloned()).collect()
    };
    let listening: BTreeSet<String> = tables.iter().flat_map(|table| of_table(table)).collect();
    let descriptors = std::fs::read_dir(process.join("fd")).unwrap().flatten();
    let links = descriptors.filter_map(|descriptor| std::fs::read_link(descriptor.path()).ok());
    links
        .filter(|link| listening.contains(link.to_string_lossy().trim_start_matches("socket:[").trim_end_matches(']')))
        .count()
}

#[test]
fn clients_that_send_nothing_or_half_hold_up_neither_agents_nor_the_barrier() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = measured(ANY_PORT).start();
    let address = scrape::address(&instance);
    let mut clients = Vec::new();
    for number in 0..60 {
        let mut client = TcpStream::connect(address).unwrap();
        if number % 2 == 0 {
            client.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n").unwrap();
        }
        clients.push(client);
    }
    let started = Instant::now();
    instance.read_files(100);
    instance.sync();
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(instance.json("status --json")["lost"], 0);
    drop(clients);
    bounded::until("it answers again", NOTICED_WITHIN, || asked(address, "/healthz").0 == 200);
}
