//! What takes minutes, and is run by hand.

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;

/// What the daemon holds in memory, and what the sensor's maps do, in KiB.
fn memory(instance: &Instance) -> (u64, u64) {
    let proc = format!("/proc/{}", instance.daemon_pid().as_raw_pid());
    let number = |line: &str| line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap();
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    let resident = status.lines().find(|line| line.starts_with("VmRSS:")).map(number).unwrap();
    let descriptors = std::fs::read_dir(format!("{proc}/fdinfo")).unwrap();
    let texts = descriptors.filter_map(|entry| std::fs::read_to_string(entry.unwrap().path()).ok());
    let maps_bytes = texts.flat_map(|text| {
        let lines: Vec<u64> = text.lines().filter(|line| line.starts_with("memlock:")).map(number).collect();
        lines
    });
    (resident, maps_bytes.sum::<u64>() / 1024)
}

#[test]
#[ignore = "a soak of minutes: its figures are in docs/performance.md"]
fn memory_stays_bounded_over_two_hundred_thousand_processes() {
    const ROUNDS: usize = 20;
    const PROCESSES: &str = "10000";
    const GROWTH_KIB: u64 = 8 * 1024;
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("storm")]);
    let storm = instance.place().copy_of("storm", "agent-storm");
    let round = |number: usize| {
        instance
            .run("storm", &[storm.as_os_str(), PROCESSES.as_ref(), "fork,double-fork,setsid,vfork".as_ref()])
            .success();
        instance.sync();
        let (resident, maps) = memory(&instance);
        println!("round {number}: {resident} KiB resident, {maps} KiB of maps");
        (resident, maps)
    };
    // The first fills what is kept for reuse.
    let (first, maps) = round(0);
    for number in 1..ROUNDS {
        let (resident, maps_now) = round(number);
        assert_eq!(maps_now, maps, "maps are allocated at once");
        assert!(resident < first + GROWTH_KIB, "{first} KiB became {resident} KiB");
    }
    let status = instance.json("status --json");
    assert_eq!(status["lost"], 0, "{status:#}");
}
