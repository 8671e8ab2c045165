//! `[metrics]` of `bailiwick.toml`: where the daemon answers for its own health.
//!
//! Input: the section. Output: [`MetricsSettings`]. Refuses: an address that other hosts reach, unless the section says that
//! this is meant.

use std::net::SocketAddr;

use super::fault::{Fault, Problem};
use super::reader::Section;
use super::rules::Reading;

/// `[metrics]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetricsSettings {
    /// Where `/metrics`, `/healthz` and `/readyz` are answered; none: nowhere.
    pub listen: Option<SocketAddr>,
    /// Whether the kernel measures how long the sensor's programs run.
    pub program_time: bool,
}

impl MetricsSettings {
    pub(super) fn read(&mut self, mut section: Section<'_>, reading: &mut Reading<'_>) {
        let problems = &mut reading.problems;
        let listen = section.string("listen", problems);
        let remote = section.boolean("allow_remote", problems).is_some_and(|remote| remote.value);
        if let Some(time) = section.boolean("program_time", problems) {
            self.program_time = time.value;
        }
        section.finish(problems);
        let Some(listen) = listen else { return };
        let wanted = match listen.value.parse::<SocketAddr>() {
            Ok(address) if remote || address.ip().is_loopback() => {
                self.listen = Some(address);
                return;
            }
            Ok(_) => {
                "an address of loopback, such as \"127.0.0.1:9464\": anybody who reaches it may read it. Where that is \
                 meant, add allow_remote = true"
            }
            Err(_) => "an address and a port, such as \"127.0.0.1:9464\" or \"[::1]:9464\"",
        };
        let value = listen.value.escape_debug().take(80).collect();
        problems.push(Problem::at(&listen.origin, Fault::Range { key: "listen", value, wanted: wanted.to_owned() }));
    }
}
