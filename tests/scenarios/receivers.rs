//! Two real receivers at once, written by others in other languages, have what the trail has, uid by uid.

use std::time::Duration;

use bailiwick_tests::bounded;
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::Setup;
use bailiwick_tests::receiver::{Receiver, distinct};
use bailiwick_tests::requirement::Requirement::{Tier2, Venv};
use bailiwick_tests::requirement::require;
use bailiwick_tests::rotel::Rotel;

use crate::targets::{exported, has_everything, uids};

/// The second one gathers what it gets for a moment, and passes it on.
const PASSES_ON_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn two_real_receivers_have_what_the_trail_has_uid_by_uid() {
    if !require(&[Tier2, Venv]) {
        return;
    }
    let receiver = Receiver::start();
    let rotel = Rotel::start(&receiver, "rotel");
    let settings = format!(
        "[[export.target]]\nname = \"rotel\"\nendpoint = {:?}\nprotocol = \"grpc\"\ncompression = \"gzip\"\n\n\
         [[export.target]]\nname = \"rotel-http\"\nendpoint = {:?}\ncompression = \"gzip\"\nsignals = [\"logs\"]\n",
        rotel.grpc_endpoint(),
        rotel.http_endpoint()
    );
    let instance = Setup::new()
        .agent(&Declaration::new("storm"))
        .file("bailiwick.toml", &settings)
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.http_endpoint())
        .env("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")
        .env("OTEL_METRIC_EXPORT_INTERVAL", "500")
        .start();
    let storm = instance.place().copy_of("storm", "agent-storm");
    for _ in 0..2 {
        instance.run("storm", &[storm.as_os_str(), "300".as_ref()]).success();
    }
    let trail = exported(&instance);
    let all = uids(&trail);
    assert!(all.len() > 1_000, "enough for several requests: {}", all.len());
    let passed_on = || {
        let got = distinct(&receiver.session("rotel").log_records(), "log.record.uid");
        got.is_superset(&all) && receiver.session("rotel").sum("bailiwick.entries", &[]) >= all.len() as u64
    };
    bounded::until("rotel has passed everything on", PASSES_ON_WITHIN, passed_on);
    has_everything(&receiver, "rotel", &trail);
    has_everything(&receiver, "", &trail);
    let (direct, through) = (receiver.log_records(), receiver.session("rotel").log_records());
    let after = exported(&instance);
    assert!(distinct(&direct, "log.record.uid").is_subset(&uids(&after)), "nothing that the trail has not");
    assert!(distinct(&through, "log.record.uid").is_subset(&uids(&after)), "nothing that the trail has not");
    let status = instance.json("status --json");
    let targets: Vec<_> = status["export"].as_array().unwrap().iter().map(|item| item["target"].clone()).collect();
    assert_eq!(targets, ["otlp", "otlp", "otlp", "rotel", "rotel", "rotel", "rotel-http"]);
}
