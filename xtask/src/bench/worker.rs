//! The process that is measured: does one thing again and again, and says what CPU that took.
//!
//! Input: its arguments. Output: one line of JSON on standard output. It measures itself (`getrusage`, children
//! included), from after a warm-up to after the last operation, so that neither its own start nor that of `strace` or
//! `bailiwick run` counts. Refuses: to go on when an operation fails, since failing ones cost something else.

use std::{
    hint::black_box,
    io::{self, Read, Write},
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Subcommand};
use rustix::{
    fs::{Mode, OFlags},
    net::{AddressFamily, SocketFlags, SocketType, sockopt},
    thread::CpuSet,
};
use serde_json::{Value, json};

use super::{
    plan::Workload,
    stage::{Files, c_path},
};

/// One operation of so many is done before the measuring begins, to warm caches up.
const WARM_UP: usize = 10;

/// What the bench starts this program as.
#[derive(Debug, Subcommand)]
pub(crate) enum Worker {
    /// Be measured
    Work(Job),
    /// Say `ready`, and live until standard input ends
    Hold,
    /// Once standard input ends, end and remove what a bench left behind
    Guard(super::instance::Place),
}

/// What to do, how often, and where.
#[derive(Debug, Clone, Args)]
pub(crate) struct Job {
    #[arg(long, value_enum)]
    pub(super) workload: Workload,
    #[arg(long)]
    pub(super) operations: usize,
    #[arg(long)]
    pub(super) cpu: usize,
    #[arg(long)]
    pub(super) stage: PathBuf,
    #[arg(long)]
    pub(super) port: u16,
}

/// What a worker says of itself.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Said {
    /// Operations, those of the warm-up included: what the trail must account for.
    pub(super) performed: u64,
    /// User and system CPU, children included, of one operation.
    pub(super) cpu_us: f64,
}

/// How many operations precede `measured` ones.
fn warm_up(measured: usize) -> usize {
    measured.div_ceil(WARM_UP)
}

/// How many operations a run performs that measures so many.
pub(super) fn performed(measured: usize) -> usize {
    measured + warm_up(measured)
}

impl Worker {
    /// What an agent that holds a session says once it runs.
    pub(super) const READY: &str = "ready";

    /// Does what it was started for.
    ///
    /// # Errors
    /// When an operation fails, or standard output is closed.
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Work(job) => {
                pin_to(job.cpu)?;
                let said = job.work()?;
                writeln!(io::stdout(), "{}", said.to_json()).context("cannot write to standard output")
            }
            Self::Hold => {
                writeln!(io::stdout(), "{}", Self::READY).context("cannot write to standard output")?;
                until_stdin_ends()
            }
            Self::Guard(place) => {
                until_stdin_ends()?;
                place.clear();
                Ok(())
            }
        }
    }
}

fn until_stdin_ends() -> Result<()> {
    let mut rest = [0; 16];
    while io::stdin().read(&mut rest).context("cannot read standard input")? > 0 {}
    Ok(())
}

/// Lets this thread, and what it starts, run on `cpu` alone.
///
/// # Errors
/// When there is no such CPU, or it is not allowed.
pub(super) fn pin_to(cpu: usize) -> Result<()> {
    ensure!(cpu < CpuSet::MAX_CPU, "no CPU {cpu}");
    let mut set = CpuSet::new();
    set.set(cpu);
    rustix::thread::sched_setaffinity(None, &set).with_context(|| format!("cannot run on CPU {cpu} alone"))
}

impl Job {
    /// As arguments of this program.
    pub(super) fn arguments(&self) -> Vec<std::ffi::OsString> {
        let text = |text: &str| std::ffi::OsString::from(text);
        vec![
            text("bench-worker"),
            text("work"),
            text("--workload"),
            text(self.workload.name()),
            text("--operations"),
            text(&self.operations.to_string()),
            text("--cpu"),
            text(&self.cpu.to_string()),
            text("--stage"),
            self.stage.clone().into(),
            text("--port"),
            text(&self.port.to_string()),
        ]
    }

    fn work(&self) -> Result<Said> {
        let files = Files::at(self.stage.clone());
        match self.workload {
            Workload::Getpid => self.measure(|_| {
                black_box(rustix::process::getpid());
                Ok(())
            }),
            Workload::OpenSame => {
                let same = c_path(&files.same())?;
                self.measure(|_| open_and_close(&same))
            }
            Workload::OpenNew => {
                let new = files.new_files(performed(self.operations))?;
                self.measure(|number| {
                    new.get(number).map_or(Err(rustix::io::Errno::NOENT), |path| open_and_close(path))
                })
            }
            Workload::ReadWrite => {
                let file = rustix::fs::open(files.touched(), OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
                    .context("cannot open what is to be read and written")?;
                self.measure(|_| read_and_write(&file))
            }
            Workload::Connect => {
                let listener = SocketAddrV4::new(Ipv4Addr::LOCALHOST, self.port);
                self.measure(|_| connect_and_close(&listener))
            }
            Workload::ForkExec => {
                let mut tiny = Command::new(files.tiny());
                self.measure(|_| match tiny.status() {
                    Ok(status) if status.success() => Ok(()),
                    Ok(_) => Err(rustix::io::Errno::CHILD),
                    Err(error) => Err(rustix::io::Errno::from_io_error(&error).unwrap_or(rustix::io::Errno::IO)),
                })
            }
        }
        .with_context(|| format!("{} failed", self.workload.name()))
    }

    fn measure(&self, mut operation: impl FnMut(usize) -> rustix::io::Result<()>) -> Result<Said> {
        let (first, end) = (warm_up(self.operations), performed(self.operations));
        (0..first).try_for_each(&mut operation)?;
        let before = cpu_used()?;
        (first..end).try_for_each(&mut operation)?;
        let used = cpu_used()?.saturating_sub(before);
        let cpu_us = used.as_secs_f64() * 1e6 / self.operations as f64;
        Ok(Said { performed: end as u64, cpu_us })
    }
}

fn open_and_close(path: &std::ffi::CStr) -> rustix::io::Result<()> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(drop)
}

/// Always the same bytes of it, which lie in memory.
fn read_and_write(file: &std::os::fd::OwnedFd) -> rustix::io::Result<()> {
    let mut bytes = [0; 64];
    let read = rustix::io::pread(file, &mut bytes, 0)?;
    let written = rustix::io::pwrite(file, &bytes, 0)?;
    if read == bytes.len() && written == bytes.len() { Ok(()) } else { Err(rustix::io::Errno::IO) }
}

/// Closes with a reset: what lingers after an orderly close would use up the ports.
pub(super) fn connect_and_close(to: &SocketAddrV4) -> rustix::io::Result<()> {
    let socket = rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    sockopt::set_socket_linger(&socket, Some(Duration::ZERO))?;
    rustix::net::connect(&socket, to)
}

/// User and system CPU of this process and of its children that ended.
fn cpu_used() -> Result<Duration> {
    Ok(usage(libc::RUSAGE_SELF)? + usage(libc::RUSAGE_CHILDREN)?)
}

fn usage(of: libc::c_int) -> Result<Duration> {
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: `usage` is memory for one `rusage`, which is all that the call writes to.
    if unsafe { libc::getrusage(of, usage.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error()).context("cannot read the CPU used");
    }
    // SAFETY: all integers, zeroed above, and written by the call that succeeded.
    let usage = unsafe { usage.assume_init() };
    let duration = |time: libc::timeval| {
        let (seconds, micros) = (u64::try_from(time.tv_sec), u64::try_from(time.tv_usec));
        Duration::from_secs(seconds.unwrap_or(0)) + Duration::from_micros(micros.unwrap_or(0))
    };
    Ok(duration(usage.ru_utime) + duration(usage.ru_stime))
}

impl Said {
    fn to_json(self) -> Value {
        json!({ "performed": self.performed, "cpu_us": self.cpu_us })
    }

    /// Reads what a worker wrote.
    ///
    /// # Errors
    /// When that is something else.
    pub(super) fn parse(output: &str) -> Result<Self> {
        let Ok(value) = serde_json::from_str::<Value>(output) else {
            bail!("a worker said {output:?} instead of what it measured");
        };
        let (performed, cpu_us) = (value["performed"].as_u64(), value["cpu_us"].as_f64());
        let said = performed.zip(cpu_us).map(|(performed, cpu_us)| Self { performed, cpu_us });
        said.with_context(|| format!("a worker left something out: {output:?}"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::{super::stage::Listener, *};

    fn job(workload: Workload, stage: PathBuf, port: u16) -> Job {
        Job { workload, operations: 20, cpu: 0, stage, port }
    }

    #[test]
    fn every_workload_performs_its_operations_and_their_warm_up_at_some_cost() {
        let folder = tempfile::tempdir().unwrap();
        let files = Files::make(folder.path().join("stage"), performed(20)).unwrap();
        let listener = Listener::start().unwrap();
        for workload in Workload::ALL {
            let said = job(workload, files.root().to_owned(), listener.port()).work().unwrap();
            assert_eq!(said.performed, 22, "{workload:?}");
            assert!(said.cpu_us >= 0.0 && said.cpu_us < 1e6, "{workload:?}: {}", said.cpu_us);
        }
    }

    #[test]
    fn the_cpu_of_children_counts() {
        let before = cpu_used().unwrap();
        assert!(Command::new("sh").args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"]).status().is_ok());
        assert!(cpu_used().unwrap() - before > Duration::from_millis(1));
    }

    #[test]
    fn a_worker_stops_at_the_first_operation_that_fails() {
        let folder = tempfile::tempdir().unwrap();
        for workload in [Workload::OpenSame, Workload::OpenNew, Workload::ForkExec] {
            let error = job(workload, folder.path().to_owned(), 0).work().unwrap_err();
            assert_eq!(error.to_string(), format!("{} failed", workload.name()));
        }
        std::fs::write(Files::at(folder.path().to_owned()).touched(), b"short").unwrap();
        assert!(job(Workload::ReadWrite, folder.path().to_owned(), 0).work().is_err());
    }

    #[test]
    fn what_a_worker_says_is_understood_and_nothing_else_is() {
        let said = Said { performed: 7, cpu_us: 0.25 };
        assert_eq!(Said::parse(&said.to_json().to_string()).unwrap(), said);
        for other in ["", "7", "{\"performed\":7}"] {
            assert!(Said::parse(other).is_err(), "{other}");
        }
    }
}
