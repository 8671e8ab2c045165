//! Links `first-open` without a C runtime and without a loader: its first instruction is its own.

fn main() {
    for argument in ["-nostartfiles", "-nodefaultlibs", "-static-pie", "-Wl,--no-dynamic-linker"] {
        println!("cargo:rustc-link-arg-bin=first-open={argument}");
    }
    println!("cargo:rerun-if-changed=build.rs");
}
