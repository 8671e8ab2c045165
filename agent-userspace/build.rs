//! Embeds the sensor's object into the daemon.
//!
//! Input: `target/sensor/sensor.o` of the workspace, which `cargo xtask build` puts there (always there, wherever
//! cargo's own target directory is). Output: the variable `BAILIWICK_SENSOR_OBJECT`, the path of the file to include.
//! Without an object that file is empty, so that plain cargo builds and tests all that needs no sensor.
//!
//! Refuses: to build the sensor itself. A build script that starts cargo would make every `cargo check` need the BPF
//! target.

use std::{
    env, fs,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::SystemTime,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn main() -> Result<()> {
    let package = PathBuf::from(required("CARGO_MANIFEST_DIR")?);
    let workspace = package.parent().ok_or("the package lies in no workspace")?;
    let folder = workspace.join("target/sensor");
    // Cargo takes a watched path that does not exist for changed at every build: watch its folder, which does.
    if let Err(error) = ensure_old_folder(&folder) {
        println!("cargo::warning=cannot create {}: {error}", folder.display());
    }
    println!("cargo::rerun-if-changed={}", folder.display());
    println!("cargo::rerun-if-changed=build.rs");

    let built = folder.join("sensor.o");
    let object = if built.is_file() { built } else { empty_object()? };
    println!("cargo::rustc-env=BAILIWICK_SENSOR_OBJECT={}", object.display());
    Ok(())
}

/// Creates `folder`, dated so far back that cargo does not take it for a change since this script started.
fn ensure_old_folder(folder: &Path) -> io::Result<()> {
    if !folder.is_dir() {
        fs::create_dir_all(folder)?;
        File::open(folder)?.set_modified(SystemTime::UNIX_EPOCH)?;
    }
    Ok(())
}

fn empty_object() -> Result<PathBuf> {
    let path = PathBuf::from(required("OUT_DIR")?).join("no-sensor.o");
    fs::write(&path, b"").map_err(|error| format!("cannot write {}: {error}", path.display()))?;
    Ok(path)
}

fn required(variable: &str) -> Result<String> {
    Ok(env::var(variable).map_err(|error| format!("{variable}: {error}"))?)
}
