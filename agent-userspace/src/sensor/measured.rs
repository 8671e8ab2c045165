//! What the sensor tells of itself: its hooks, how full its rings are, how long its programs run.

use std::os::fd::{AsFd, AsRawFd};

use aya::programs::BtfTracePoint;
use aya::sys::{Stats, enable_stats};

use super::{ARMED, RECOGNITION, Sensor, SensorError, chain};

/// A hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hook {
    /// The kernel's name for it.
    pub name: &'static str,
    /// Whether it is attached.
    pub attached: bool,
    /// Whether it should be whatever happens, or only while a session lives.
    pub always: bool,
}

/// How full a ring is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RingFill {
    /// `weighty` or `bulk`.
    pub name: &'static str,
    /// What it can hold.
    pub size_bytes: u64,
    /// What waits in it.
    pub used_bytes: u64,
}

/// What a program has cost since it is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProgramCost {
    /// Its name.
    pub program: &'static str,
    /// How often it ran.
    pub runs: u64,
    /// How long, all runs together, with the programs that it called.
    pub run_time_ns: u64,
}

impl Sensor {
    /// Every hook.
    pub fn hooks(&self) -> impl Iterator<Item = Hook> + '_ {
        let recognition = RECOGNITION.iter().map(|&(_, name)| Hook { name, attached: self.recognising, always: true });
        let armed = ARMED.iter().enumerate();
        recognition.chain(armed.map(|(at, &(_, name))| Hook { name, attached: at < self.armed.len(), always: false }))
    }

    /// Both rings.
    pub fn rings(&self) -> [RingFill; 2] {
        [("weighty", &self.weighty), ("bulk", &self.bulk)].map(|(name, ring)| RingFill {
            name,
            size_bytes: ring.size_bytes(),
            used_bytes: ring.used_bytes(),
        })
    }

    /// Has the kernel measure every BPF program on the host, as long as this sensor lives. Costs each run two looks at a clock.
    ///
    /// # Errors
    /// The kernel (before 5.8, or for want of CAP_SYS_ADMIN) refuses.
    pub fn measure_programs(&mut self) -> Result<(), SensorError> {
        let measuring = enable_stats(Stats::RunTime);
        self.measuring = Some(measuring.map_err(|error| SensorError::Load(chain(&error)))?);
        Ok(())
    }

    /// What the programs that are attached have cost; nothing where that is not measured.
    pub fn program_costs(&self) -> Vec<ProgramCost> {
        if self.measuring.is_none() {
            return Vec::new();
        }
        RECOGNITION.iter().chain(ARMED).filter_map(|&(program, _)| self.cost(program)).collect()
    }

    fn cost(&self, program: &'static str) -> Option<ProgramCost> {
        let info = self.program_info(program)?;
        Some(ProgramCost { program, runs: field(&info, "run_cnt:")?, run_time_ns: field(&info, "run_time_ns:")? })
    }

    /// How often the kernel skipped a program because it was running already on that processor.
    pub(super) fn missed(&self, program: &str) -> Option<u64> {
        field(&self.program_info(program)?, "recursion_misses:")
    }

    fn program_info(&self, program: &str) -> Option<String> {
        let program: &BtfTracePoint = self.ebpf.program(program)?.try_into().ok()?;
        let fd = program.fd().ok()?.as_fd().as_raw_fd();
        std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")).ok()
    }
}

/// A number of what the kernel says of a descriptor (`bpf_prog_show_fdinfo`).
fn field(info: &str, name: &str) -> Option<u64> {
    info.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::field;

    #[test]
    fn what_the_kernel_says_of_a_program_is_read() {
        let info = "pos:\t0\nprog_type:\t26\nrun_time_ns:\t81632\nrun_cnt:\t1047\nrecursion_misses:\t0\n";
        assert_eq!((field(info, "run_time_ns:"), field(info, "run_cnt:")), (Some(81_632), Some(1_047)));
        assert_eq!((field(info, "recursion_misses:"), field(info, "other:")), (Some(0), None));
    }
}
