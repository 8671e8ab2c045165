//! What networks and receivers do wrong, all at once, each to a target of its own in front of one real receiver: nothing is
//! lost, nothing holds up anything else, the status and the metrics show it, and everything arrives in the end.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime};

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::faulty::{Fault, Faulty};
use bailiwick_tests::instance::{Instance, Setup};
use bailiwick_tests::receiver::{Receiver, distinct};
use bailiwick_tests::requirement::Requirement::{Tier2, Venv};
use bailiwick_tests::requirement::require;
use serde_json::Value;

use crate::targets::{Target, exported, has_everything, has_spans_and_sums, settings, status_of, uids};

const SIGNALS: [&str; 3] = ["logs", "traces", "metrics"];
/// What is throttled, cut or left without an answer comes through after a few tries.
const COMES_THROUGH_WITHIN: Duration = Duration::from_secs(40);
const METRICS_WITHIN: Duration = Duration::from_secs(20);

/// A proxy with its target.
struct Way {
    proxy: Faulty,
    target: Target,
}

impl Way {
    fn grpc(name: &'static str, proxy: Faulty) -> Self {
        Self { target: Target::new(name, format!("http://{}", proxy.address()), "grpc"), proxy }
    }

    fn http(name: &'static str, proxy: Faulty) -> Self {
        Self { target: Target::new(name, format!("http://{}", proxy.address()), "http/protobuf"), proxy }
    }

    fn each(self, faults: &[Fault]) -> Self {
        for signal in SIGNALS {
            self.proxy.next(signal, faults);
        }
        self
    }
}

/// A date as HTTP writes it, three seconds from now.
fn soon() -> String {
    let then = SystemTime::now() + Duration::from_secs(3);
    let said = std::process::Command::new("date")
        .env("LC_ALL", "C")
        .args(["-u", "+%a, %d %b %Y %H:%M:%S GMT", "-d"])
        .arg(format!("@{}", then.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()))
        .output()
        .unwrap();
    String::from_utf8(said.stdout).unwrap().trim().to_owned()
}

fn ways(receiver: &Receiver) -> Vec<Way> {
    let grpc = || Faulty::start(receiver.grpc_address());
    let http = || Faulty::start(receiver.http_address());
    let mut expired = Way::grpc("expired", grpc());
    expired.target.headers = "authorization: Bearer old";
    let one_signal = Way::grpc("one-signal", grpc());
    one_signal.proxy.always("traces", Some(Fault::Refused(501)));
    let (cut, silent) = ([Fault::CutBefore, Fault::CutAfter, Fault::CutBefore], [Fault::Silent, Fault::Silent]);
    for signal in SIGNALS {
        expired.proxy.always(signal, Some(Fault::WantsToken("Bearer new".to_owned())));
    }
    let mut all = vec![
        Way::grpc("away", Faulty::away(receiver.grpc_address())),
        one_signal,
        expired,
        Way::http("partial", http()),
        Way::http("throttled", http()).each(&[Fault::Throttled("1".to_owned()), Fault::Throttled(soon())]),
        Way::grpc("throttled-grpc", grpc()).each(&[Fault::Throttled(String::new()), Fault::Throttled(String::new())]),
        Way::http("cut", http()).each(&cut),
        Way::grpc("cut-grpc", grpc()).each(&cut),
        Way::http("silent", http()).each(&silent),
        Way::grpc("silent-grpc", grpc()).each(&silent),
    ];
    for way in &mut all[8..] {
        way.target.more = "timeout = \"1s\"\n".to_owned();
    }
    all
}

/// What is held until somebody puts it right.
const HELD: [(&str, &[&str]); 3] = [("away", &SIGNALS), ("one-signal", &["traces"]), ("expired", &SIGNALS)];

#[test]
fn whatever_a_receiver_does_wrong_nothing_is_lost_and_nothing_else_waits() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let receiver = Receiver::start();
    let mut ways = ways(&receiver);
    let mut instance =
        Setup::new().agent(&Declaration::new("storm")).env("OTEL_METRIC_EXPORT_INTERVAL", "500").prepare();
    let targets: Vec<&Target> = ways.iter().map(|way| &way.target).collect();
    instance.write("bailiwick.toml", &settings(&targets, instance.place().path()));
    instance.start_daemon();
    let storm = instance.place().copy_of("storm", "agent-storm");
    instance.run("storm", &[storm.as_os_str(), "200".as_ref()]).success();
    instance.sync();
    way(&ways, "partial").proxy.next("logs", &[Fault::Partial(2), Fault::Partial(1)]);
    instance.run("storm", &[storm.as_os_str(), "200".as_ref()]).success();

    let waiting = instance.call("sync --exported --wait 1s");
    assert_eq!(waiting.code(), Some(1));
    assert!(waiting.stderr.contains("away logs: acknowledged up to 0 of "), "{}", waiting.stderr);
    only_what_is_held_waits(&instance);

    way_mut(&mut ways, "away").proxy.come_up();
    way(&ways, "one-signal").proxy.always("traces", None);
    way(&ways, "expired").target.write_headers(instance.place().path(), "authorization: Bearer new");
    let trail = exported(&instance);
    for way in &ways {
        match way.target.name {
            "partial" => has_all_but_dead_letters(&instance, &receiver, &trail),
            name => has_everything(&receiver, name, &trail),
        }
    }
    the_status_tells(&instance);
    the_metrics_tell(&receiver);
}

fn way<'a>(ways: &'a [Way], name: &str) -> &'a Way {
    ways.iter().find(|way| way.target.name == name).unwrap()
}

fn way_mut<'a>(ways: &'a mut [Way], name: &str) -> &'a mut Way {
    ways.iter_mut().find(|way| way.target.name == name).unwrap()
}

fn is_held(item: &Value) -> bool {
    HELD.iter().any(|(target, signals)| item["target"] == *target && signals.iter().any(|it| item["signal"] == *it))
}

fn only_what_is_held_waits(instance: &Instance) {
    let settled = || {
        let status = instance.call("status --json").json();
        status["export"].as_array().unwrap().iter().all(|item| is_held(item) == (item["pending"] != 0))
    };
    bounded::until("all that is not held has come through", COMES_THROUGH_WITHIN, settled);
    let said = instance.call("status --json");
    assert_eq!(said.code(), Some(1), "an export that waits is no health");
    let status = said.json();
    for (target, signals, why) in [
        ("away", &SIGNALS[..], "Connection refused"),
        ("one-signal", &["traces"], "Unimplemented: as the test says"),
        ("expired", &SIGNALS, "Unauthenticated: as the test says"),
    ] {
        for signal in signals {
            let item = status_of(&status, target, signal);
            let error = item["error"].as_str().unwrap_or_default();
            assert!(error.contains(why), "{item}");
            let reasons = status["reasons"].to_string();
            assert!(reasons.contains(&format!("the export of {signal} to {target} waits: ")), "{reasons}");
        }
    }
    let doctor = instance.call("doctor").success().stdout;
    let row = |target: &str, signal: &str| {
        let row = doctor.lines().find(|row| row.split_whitespace().take(2).eq([target, signal]));
        row.unwrap_or_else(|| panic!("no {target} {signal}: {doctor}")).to_owned()
    };
    assert!(row("expired", "logs").contains("WAITS: Unauthenticated"), "{doctor}");
    assert!(row("one-signal", "logs").ends_with("well"), "{doctor}");
}

/// Three records were refused for good; the dead letters say among which.
fn has_all_but_dead_letters(instance: &Instance, receiver: &Receiver, trail: &Entries) {
    let got = distinct(&receiver.session("partial").log_records(), "log.record.uid");
    let missing: BTreeSet<String> = uids(trail).difference(&got).cloned().collect();
    let file = instance.state().join("dead-letters/partial.logs.jsonl");
    let letters = Entries::parse(&std::fs::read_to_string(file).unwrap());
    let rejected: Vec<u64> = letters.0.iter().map(|letter| letter["rejected"].as_u64().unwrap()).collect();
    assert_eq!(rejected, [2, 1]);
    assert_eq!(missing.len(), 3, "{missing:?}");
    let among: BTreeSet<&str> = letters
        .0
        .iter()
        .flat_map(|letter| letter["uids"].as_array().unwrap())
        .map(|uid| uid.as_str().unwrap())
        .collect();
    assert!(missing.iter().all(|uid| among.contains(uid.as_str())), "{missing:?}");
    for letter in &letters.0 {
        assert_eq!((&letter["target"], &letter["signal"]), (&"partial".into(), &"logs".into()));
        assert!(letter["why"].as_str().unwrap().ends_with("of them are not liked"), "{letter}");
    }
    has_spans_and_sums(receiver, "partial", trail);
}

fn the_status_tells(instance: &Instance) {
    let status = instance.json("status --json");
    assert_eq!((&status["healthy"], &status["reasons"]), (&true.into(), &serde_json::json!([])));
    for item in status["export"].as_array().unwrap() {
        let expected = if item["target"] == "partial" && item["signal"] == "logs" { 3 } else { 0 };
        assert_eq!((&item["rejected"], &item["dead_lettered"]), (&expected.into(), &expected.into()), "{item}");
        assert!(item["error"].is_null() && item["last_success"].is_string(), "{item}");
        let tried_again = item["retried"].as_u64().unwrap();
        assert_eq!(tried_again > 0, item["target"] != "partial" && !(is_well(item)), "{item}");
    }
}

/// Of this nothing was spoiled.
fn is_well(item: &Value) -> bool {
    item["target"] == "one-signal" && item["signal"] != "traces"
}

/// What came to one target tells of all: also of what happened while others were away.
fn the_metrics_tell(receiver: &Receiver) {
    let told = receiver.session("one-signal");
    let of = |metric: &str, target: &str, signal: &str| {
        let name = format!("bailiwick.export.{metric}");
        told.sum(&name, &[("bailiwick.target", target), ("bailiwick.signal", signal)])
    };
    let all = || {
        of("dead_lettered", "partial", "logs") == 3
            && of("rejected", "partial", "logs") == 3
            && of("retried", "away", "logs") > 0
            && of("retried", "silent", "traces") > 0
            && of("sent", "expired", "logs") > 0
            && of("last_success", "away", "logs") > 1_700_000_000
            && of("queue.size", "away", "logs") > 100
            && of("queue.age", "away", "logs") > 0
    };
    bounded::until("the metrics tell of the faults", METRICS_WITHIN, all);
}
