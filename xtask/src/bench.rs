//! `cargo xtask bench`: what Bailiwick costs, beside what nothing and `strace` cost; `cargo xtask bench trail`: what its trail costs.
//!
//! Measured is the CPU that a worker's operations take, on a core of its own; the daemon and the bench run on another. Every condition is compared with what was measured right before and right after it with
//! nothing attached. The trail is audited: an operation that it neither shows nor admits to have lost counts as lost.
//!
//! Output: tables in Markdown (or JSON) on standard output, progress on standard error. Exit code 1 when anything was
//! lost: that is the only target. Refuses: to measure on one core, and anything but daemons that it started itself.

mod audit;
mod cost;
mod instance;
mod plan;
mod report;
mod stage;
mod stats;
mod trail;
mod worker;

use std::{
    collections::BTreeMap,
    env,
    path::PathBuf,
    process::{Command, ExitCode},
};

use anyhow::{Context, Error, Result, bail};
use clap::{Args, Subcommand};
use rustix::thread::CpuSet;

pub(crate) use self::worker::Worker;
use self::{
    audit::Ledger,
    instance::{Held, Instance, Place, output_of},
    plan::{Condition, Plan, Workload},
    report::{DaemonUse, Results, Slot},
    stage::{Files, Listener},
    stats::median,
    worker::{Job, Said, performed, pin_to},
};
use crate::{
    build::{self, Profile},
    invocation::Invocation,
    mounts,
    setup::{self, Group},
    workspace::Workspace,
};

/// What `strace` has to look at to see what Bailiwick sees.
const OBSERVED_CALLS: &str =
    "trace=open,openat,openat2,creat,read,write,pread64,pwrite64,execve,execveat,connect,fork,vfork,clone,clone3";

/// What to measure, and how long.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Options {
    /// Something else than what agents and others are slowed down by
    #[command(subcommand)]
    other: Option<Other>,
    /// How often each condition is measured [default: 7, which takes about four minutes; with --quick 2]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    rounds: Option<u16>,
    /// Short runs: shows whether all works, not what it costs
    #[arg(long)]
    quick: bool,
    /// JSON instead of tables
    #[arg(long)]
    json: bool,
    /// Only these conditions (all when not given); may be given several times
    #[arg(long = "only", value_enum, value_name = "CONDITION")]
    conditions: Vec<Condition>,
    /// Measure this `bailiwick` instead of building one
    #[arg(long, value_name = "PATH")]
    program: Option<PathBuf>,
}

/// What else can be measured.
#[derive(Debug, Subcommand)]
enum Other {
    /// The trail: writing, indexing, verifying it, and asking about it (needs no root)
    Trail(trail::Options),
}

impl Options {
    fn plan(&self) -> Plan {
        let rounds = |default| usize::from(self.rounds.unwrap_or(default));
        if self.quick { Plan::quick(rounds(2)) } else { Plan::thorough(rounds(7)) }
    }

    /// What is compared with nothing, in the order of the table's rows.
    fn compared(&self) -> Vec<Condition> {
        let wanted = |condition: &Condition| self.conditions.is_empty() || self.conditions.contains(condition);
        Condition::COMPARED.into_iter().filter(wanted).collect()
    }
}

/// Builds what is to be measured, measures, and prints the tables.
///
/// # Errors
/// Without root where a daemon is wanted, with fewer than two cores, and when anything fails on the way.
pub(crate) fn run(workspace: &Workspace, options: &Options) -> Result<ExitCode> {
    if let Some(Other::Trail(options)) = &options.other {
        trail::run(workspace, options)?;
        return Ok(ExitCode::SUCCESS);
    }
    if cfg!(debug_assertions) {
        return Err(become_optimised(workspace));
    }
    let plan = options.plan();
    let mut compared = options.compared();
    if let Some(missing) = ["strace", "taskset"].into_iter().find(|program| !workspace.has_program(program)) {
        eprintln!("bench: no {missing} on this host, so nothing is compared with strace");
        compared.retain(|condition| condition.has_daemon());
    }
    let program = if compared.iter().any(|condition| condition.has_daemon()) {
        prepare_program(workspace, options)?
    } else {
        PathBuf::new()
    };
    let bench = Bench::prepare(plan, program)?;
    let results = bench.measure(&compared)?;
    drop(bench);
    print(options, &plan, &results)?;
    if results.is_whole() {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("bench: the trail is not whole:\n{}", results.complaints().trim_end());
    Ok(ExitCode::FAILURE)
}

/// Goes on as the optimised build of this program. What is not optimised would add as much to a system call that
/// does nothing as the call itself costs.
fn become_optimised(workspace: &Workspace) -> Error {
    let exec = || -> Result<std::io::Error> {
        setup::ensure(workspace, &[Group::Build])?;
        Invocation::new("cargo").args(["build", "--release", "--package", "xtask"]).run_in(workspace)?;
        let program = workspace.metadata()?.target_directory.join("release/xtask");
        let mut command = Invocation::new(program).args(env::args_os().skip(1)).command(workspace);
        command.current_dir(env::current_dir().context("the current directory is gone")?);
        Ok(std::os::unix::process::CommandExt::exec(&mut command))
    };
    match exec() {
        Ok(error) => Error::new(error).context("cannot start the optimised build of xtask"),
        Err(error) => error,
    }
}

/// The daemon's program, built unless it is given, on a host where it can run.
fn prepare_program(workspace: &Workspace, options: &Options) -> Result<PathBuf> {
    if !rustix::process::geteuid().is_root() {
        bail!(
            "a daemon needs root, since it loads programs into the kernel. Run this:\n  \
             sudo env \"HOME=$HOME\" \"PATH=$PATH\" cargo xtask bench"
        );
    }
    mounts::ensure(workspace, mounts::FOR_RUN)?;
    match &options.program {
        Some(program) => program.canonicalize().with_context(|| format!("cannot find {}", program.display())),
        None => {
            setup::ensure(workspace, &[Group::Build])?;
            build::all(workspace, Profile::Release)
        }
    }
}

/// Everything is prepared: the stage is made, and this process has left the worker's core.
#[derive(Debug)]
struct Bench {
    plan: Plan,
    program: PathBuf,
    worker: PathBuf,
    worker_cpu: usize,
    files: Files,
    listener: Listener,
    place: Place,
    // The last field: dropped after all that it guards.
    _guard: instance::Guard,
}

impl Bench {
    fn prepare(plan: Plan, program: PathBuf) -> Result<Self> {
        let worker = env::current_exe().context("cannot find this program's own file")?;
        let (own_cpu, worker_cpu) = two_cpus()?;
        // Before anything is started: threads and children inherit it.
        pin_to(own_cpu)?;
        let (place, guard) = Place::new(&worker)?;
        let new_files = performed(plan.most_operations(Workload::OpenNew));
        let files = Files::make(place.join("stage"), new_files)?;
        let listener = Listener::start()?;
        Ok(Self { plan, program, worker, worker_cpu, files, listener, place, _guard: guard })
    }

    fn measure(&self, compared: &[Condition]) -> Result<Results> {
        let slots = self.plan.slots(compared);
        let count = slots.len();
        let mut results = Results::default();
        for (index, condition) in slots.into_iter().enumerate() {
            if condition != Condition::Nothing {
                eprintln!("bench: {}/{}: {condition}", index.div_ceil(2), count / 2);
            }
            let slot = if condition.has_daemon() { self.with_daemon(condition, index) } else { self.bare(condition) };
            results.slots.push(slot.with_context(|| condition.to_string())?);
        }
        Ok(results)
    }

    /// A slot without a daemon.
    fn bare(&self, condition: Condition) -> Result<Slot> {
        let mut times = Times::default();
        self.each_run(condition, |workload| {
            let mut command = match condition {
                Condition::Strace => self.strace(&[]),
                Condition::StraceFiltered => self.strace(&["--seccomp-bpf", "-e", OBSERVED_CALLS]),
                Condition::Nothing | Condition::Idle | Condition::Outside | Condition::Inside => {
                    Command::new(&self.worker)
                }
            };
            times.add(workload, self.work(workload, condition, &mut command)?.cpu_us);
            Ok(())
        })?;
        Ok(Slot { condition, cpu_us: times.medians(), daemon: None })
    }

    /// A slot with a daemon of its own, so that what is left of another condition does not count here.
    fn with_daemon(&self, condition: Condition, number: usize) -> Result<Slot> {
        let instance = Instance::start(&self.program, &self.place, number)?;
        let held = if condition == Condition::Outside { Some(Held::start(&instance, &self.worker)?) } else { None };
        let (mut times, mut own_times) = (Times::default(), Times::default());
        let mut ledger = Ledger::new(&self.files, self.listener.port());
        let family = instance.family();
        self.each_run(condition, |workload| {
            let before = family.cpu();
            let inside = condition == Condition::Inside;
            let mut command = if inside { instance.run(&self.worker) } else { Command::new(&self.worker) };
            let said = self.work(workload, condition, &mut command)?;
            if inside {
                // What it still has to do for these operations is part of what they cost.
                instance.sync()?;
                ledger.expect(workload, said.performed);
            }
            let own = family.cpu().saturating_sub(before);
            own_times.add(workload, own.as_secs_f64() * 1e6 / said.performed as f64);
            times.add(workload, said.cpu_us);
            Ok(())
        })?;
        drop(held);
        let account = ledger.close(&instance)?;
        let daemon = DaemonUse { cpu_us: own_times.medians(), memory: family.memory(), account };
        Ok(Slot { condition, cpu_us: times.medians(), daemon: Some(daemon) })
    }

    /// Every workload in turn, as often as planned.
    fn each_run(&self, condition: Condition, mut run: impl FnMut(Workload) -> Result<()>) -> Result<()> {
        for _ in 0..self.plan.passes {
            for workload in Workload::ALL {
                run(workload).with_context(|| format!("{} with {condition}", workload.heading()))?;
            }
        }
        Ok(())
    }

    /// On the worker's core, since the two never run at once: from another core it would cost several times as much
    /// to wake it up.
    fn strace(&self, options: &[&str]) -> Command {
        let mut command = Command::new("taskset");
        command
            .args(["-c", &self.worker_cpu.to_string(), "strace", "-f", "-o", "/dev/null"])
            .args(options)
            .arg(&self.worker);
        command
    }

    /// Runs a worker to its end; `command` lacks its arguments only.
    fn work(&self, workload: Workload, condition: Condition, command: &mut Command) -> Result<Said> {
        let job = Job {
            workload,
            operations: self.plan.operations(workload, condition),
            cpu: self.worker_cpu,
            stage: self.files.root().to_owned(),
            port: self.listener.port(),
        };
        command.args(job.arguments());
        let output = output_of(command, "a worker")?;
        Said::parse(String::from_utf8_lossy(&output).trim_end())
    }
}

/// What was measured of each workload, pass by pass.
#[derive(Debug, Default)]
struct Times(BTreeMap<Workload, Vec<f64>>);

impl Times {
    fn add(&mut self, workload: Workload, cpu_us: f64) {
        self.0.entry(workload).or_default().push(cpu_us);
    }

    fn medians(self) -> BTreeMap<Workload, f64> {
        self.0.into_iter().filter_map(|(workload, values)| Some((workload, median(&values)?))).collect()
    }
}

/// Two CPUs that this process may use: for everything else, and for the worker.
fn two_cpus() -> Result<(usize, usize)> {
    let allowed = rustix::thread::sched_getaffinity(None).context("cannot read the allowed CPUs")?;
    let mut cpus = (0..CpuSet::MAX_CPU).filter(|cpu| allowed.is_set(*cpu));
    match (cpus.next(), cpus.next()) {
        (Some(own), Some(worker)) => Ok((own, worker)),
        _ => bail!("the bench needs two CPUs: one for the worker alone, one for everything else"),
    }
}

fn print(options: &Options, plan: &Plan, results: &Results) -> Result<()> {
    let system = rustix::system::uname();
    let kernel = system.release().to_string_lossy();
    if options.json {
        let mut document = results.to_json();
        document["kernel"] = kernel.into();
        document["rounds"] = plan.rounds.into();
        document["passes"] = plan.passes.into();
        println!("{document:#}");
        return Ok(());
    }
    let Plan { rounds, passes, .. } = plan;
    println!("Linux {kernel}; {rounds} rounds of {passes}; median (least..greatest).\n");
    println!("{}", results.cost_table());
    if results.slots.iter().any(|slot| slot.daemon.is_some()) {
        println!("{}", results.own_table());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(conditions: &[Condition]) -> Options {
        Options { other: None, rounds: None, quick: false, json: false, conditions: conditions.to_vec(), program: None }
    }

    #[test]
    fn without_a_choice_everything_is_compared() {
        assert_eq!(options(&[]).compared(), Condition::COMPARED);
    }

    #[test]
    fn a_choice_is_measured_once_and_in_the_order_of_the_rows() {
        let chosen = [Condition::Strace, Condition::Idle, Condition::Strace];
        assert_eq!(options(&chosen).compared(), [Condition::Idle, Condition::Strace]);
    }

    #[test]
    fn of_several_passes_the_median_counts() {
        let mut times = Times::default();
        [3.0, 1.0, 2.0].into_iter().for_each(|value| times.add(Workload::Getpid, value));
        assert_eq!(times.medians(), BTreeMap::from([(Workload::Getpid, 2.0)]));
    }
}
