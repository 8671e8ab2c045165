//! What the daemon itself costs, as the kernel accounts for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::{Readings, Registry, instruments};

/// Has the registry tell of this process, and of the program that it runs.
pub fn observe_this_process(registry: &Registry) {
    let started = Instant::now();
    let process = Process { directory: PathBuf::from("/proc/self") };
    registry.observe(move |readings| {
        readings.add(&instruments::BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1u64);
        readings.add(&instruments::UPTIME, &[], started.elapsed().as_secs_f64());
        process.tell(readings);
    });
}

struct Process {
    directory: PathBuf,
}

impl Process {
    fn tell(&self, readings: &mut Readings) {
        if let Some(used) = used(&self.directory) {
            readings.add(&instruments::CPU_TIME, &["user"], used.user_seconds);
            readings.add(&instruments::CPU_TIME, &["system"], used.system_seconds);
            readings.add(&instruments::THREAD_COUNT, &[], used.threads);
            readings.add(&instruments::MEMORY_VIRTUAL, &[], used.virtual_bytes);
            readings.add(&instruments::MEMORY_USAGE, &[], used.resident_bytes);
        }
        if let Ok(descriptors) = fs::read_dir(self.directory.join("fd")) {
            readings.add(&instruments::FILE_DESCRIPTOR_COUNT, &[], descriptors.count() as u64);
        }
    }
}

/// What `stat` says, of all that stands in it.
#[derive(Debug, PartialEq)]
struct Used {
    user_seconds: f64,
    system_seconds: f64,
    threads: u64,
    virtual_bytes: u64,
    resident_bytes: u64,
}

fn used(directory: &Path) -> Option<Used> {
    let stat = fs::read_to_string(directory.join("stat")).ok()?;
    let ticks_a_second = rustix::param::clock_ticks_per_second() as f64;
    // The name in parentheses may have anything in it. The field behind it is the third.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let field = |number: usize| fields.get(number.checked_sub(3)?)?.parse::<u64>().ok();
    Some(Used {
        user_seconds: field(14)? as f64 / ticks_a_second,
        system_seconds: field(15)? as f64 / ticks_a_second,
        threads: field(20)?,
        virtual_bytes: field(23)?,
        resident_bytes: field(24)?.saturating_mul(rustix::param::page_size() as u64),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use super::{Used, used};

    #[test]
    fn the_kernels_account_of_a_process_is_read_whatever_its_name() {
        let directory = tempfile::TempDir::new().unwrap();
        let stat =
            "7 (a) R b) S 1 7 7 0 -1 4194560 100 0 0 0 250 50 0 0 20 0 9 0 5000 8192000 300 18446744073709551615\n";
        std::fs::write(directory.path().join("stat"), stat).unwrap();
        let page = rustix::param::page_size() as u64;
        let ticks = rustix::param::clock_ticks_per_second() as f64;
        let expected = Used {
            user_seconds: 250.0 / ticks,
            system_seconds: 50.0 / ticks,
            threads: 9,
            virtual_bytes: 8_192_000,
            resident_bytes: 300 * page,
        };
        assert_eq!(used(directory.path()), Some(expected));
        std::fs::write(directory.path().join("stat"), "7 (cut").unwrap();
        assert_eq!(used(directory.path()), None);
    }
}
