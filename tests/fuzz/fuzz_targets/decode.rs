//! Whatever bytes stand in a ring, the decoder takes them without a panic.
#![no_main]

libfuzzer_sys::fuzz_target!(|record: &[u8]| {
    // What is no record is refused; only a panic is a finding.
    let _ = agent_userspace::decode::decode(record);
    let _ = agent_userspace::decode::time_boot_ns(record);
});
