//! A file as the kernel knows it: not by what `stat` gives, which on overlays and some other file systems is another device,
//! but by the mount's own.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// The device (major << 20 | minor) and the inode of the file that a path leads to.
///
/// # Errors
/// There is none, or `/proc` does not say.
pub(super) fn kernel_id(path: &Path) -> io::Result<(u32, u64)> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let file = rustix::fs::open(path, flags, Mode::empty())?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", file.as_raw_fd()))?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    parse(&info, &mounts).ok_or_else(|| io::Error::other("/proc does not say which file it is"))
}

fn parse(info: &str, mounts: &str) -> Option<(u32, u64)> {
    let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let inode = field("ino:")?.parse().ok()?;
    let mount = field("mnt_id:")?;
    let device = mounts.lines().find_map(|line| {
        let mut fields = line.split(' ');
        (fields.next()? == mount).then(|| fields.nth(1)).flatten()
    })?;
    let (major, minor) = device.split_once(':')?;
    let (major, minor): (u32, u32) = (major.parse().ok()?, minor.parse().ok()?);
    Some((major << 20 | minor, inode))
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn the_device_is_that_of_the_mount_and_not_one_whose_number_begins_alike() {
        let info = "pos:\t0\nflags:\t0100000\nmnt_id:\t2\nino:\t77\n";
        let mounts = "25 1 0:5 / /a rw - x x x\n2 1 254:3 / / rw - ext4 /dev/vda rw\n";
        assert_eq!(parse(info, mounts), Some((254 << 20 | 3, 77)));
        assert_eq!(parse("ino:\t77\n", mounts), None);
    }
}
