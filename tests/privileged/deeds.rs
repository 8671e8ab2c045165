//! Changes of names, of what files are, of mounts, and uses of privileges: each is told of, by the name and the object
//! that it was done to, and judged.

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use serde_json::{Value, json};

/// What the call on a name becomes: the call, the event, the file's name, the other name.
const NAMES: &[(&str, &str, &str, Option<&str>)] = &[
    ("unlink", "file.unlink", "unlinked", None),
    ("unlinkat", "file.unlink", "unlinkedat", None),
    ("rename", "file.rename", "old", Some("new")),
    ("renameat", "file.rename", "older", Some("newer")),
    ("renameat2", "file.rename", "oldest", Some("newest")),
    ("link", "file.link", "one", Some("two")),
    ("linkat", "file.link", "first", Some("second")),
    ("symlink", "file.symlink", "symlink", None),
    ("symlinkat", "file.symlink", "symlinkat", None),
    ("mkdir", "file.mkdir", "dir", None),
    ("mkdirat", "file.mkdir", "dirat", None),
    ("rmdir", "file.rmdir", "dir", None),
    ("unlinkat", "file.rmdir", "dirat", None),
    ("mknod", "file.create", "fifo", None),
    ("mknodat", "file.create", "fifoat", None),
    ("truncate", "file.truncate", "changed", None),
    // By way of a symbolic link, which the call follows.
    ("chmod", "file.chmod", "changed", None),
    ("fchmodat", "file.chmod", "changed", None),
    ("chown", "file.chown", "changed", None),
    ("lchown", "file.chown", "symlink", None),
    ("fchownat", "file.chown", "changed", None),
    ("setxattr", "file.xattr", "changed", None),
    ("removexattr", "file.xattr", "changed", None),
    ("ftruncate", "file.truncate", "mapped", None),
    ("fallocate", "file.truncate", "mapped", None),
    ("fchmod", "file.chmod", "mapped", None),
    ("fchown", "file.chown", "mapped", None),
    ("fsetxattr", "file.xattr", "mapped", None),
];

/// What a call becomes that the kernel refuses: the call, the event, the error.
const PRIVILEGES: &[(&str, &str, &str)] = &[
    ("ptrace", "privilege.ptrace", "ESRCH"),
    ("process_vm_readv", "privilege.ptrace", ""),
    ("setuid", "privilege.setid", "EINVAL"),
    ("setresgid", "privilege.setid", ""),
    ("capset", "privilege.capset", "EFAULT"),
    ("unshare", "privilege.namespace", "EINVAL"),
    ("setns", "privilege.namespace", "EBADF"),
    ("chroot", "privilege.namespace", "ENOTDIR"),
    ("bpf", "privilege.bpf", "EINVAL"),
    ("init_module", "privilege.module", ""),
    ("delete_module", "privilege.module", ""),
    ("kexec_load", "privilege.kexec", ""),
    ("keyctl", "privilege.keyctl", "EOPNOTSUPP"),
    ("add_key", "privilege.keyctl", "EPERM"),
    ("memfd_create", "privilege.memfd", ""),
    ("perf_event_open", "privilege.perf", ""),
    ("mount", "file.mount", ""),
    ("io_uring_setup", "io_uring.setup", "EFAULT"),
];

fn is_by(call: &'static str) -> impl Fn(&Value) -> bool {
    move |entry| entry["attributes"]["bailiwick.syscall"] == call
}

#[test]
fn every_change_of_a_name_or_of_a_file_is_told_of_by_its_names() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("deeds")]);
    let deeds = instance.place().copy_of("deeds", "agent-deeds");
    let dir = instance.place().files("dir", 0);
    instance.run("deeds", &[deeds.as_os_str(), "names".as_ref(), dir.as_os_str()]).success();
    let trail = instance.synced_trail();
    let path = |name: &str| json!(dir.join(name).to_str());
    for &(call, event, name, other) in NAMES {
        let told = trail.event(event).filter(is_by(call));
        let told = told.filter(|entry| entry["attributes"]["file.path"] == path(name));
        assert_eq!(told.len(), 1, "{call} of {name}: {:#?}", trail.filter(is_by(call)).0);
        let entry = told.only();
        assert_eq!(entry["count"], 1, "{entry:#}");
        assert!(entry["attributes"].get("error.type").is_none(), "{entry:#}");
        if let Some(other) = other {
            assert_eq!(entry["attributes"]["bailiwick.file.new_path"], path(other), "{entry:#}");
        }
    }
    let mapped = |event: &str| trail.event(event).filter(|entry| entry["attributes"]["file.path"] == path("mapped"));
    assert_eq!(mapped("file.map_write").count(), 1);
    // Once by mmap, once by mprotect: the same file in the same mode.
    assert_eq!(mapped("file.map_exec").count(), 2);
    let renamed = trail.event("file.rename").filter(is_by("rename"));
    assert_eq!(renamed.only()["attributes"]["bailiwick.file.as_given"], true);
    let by_descriptor = trail.event("file.chmod").filter(is_by("fchmod"));
    assert!(by_descriptor.only()["attributes"]["bailiwick.file.inode"].is_string(), "{:#?}", by_descriptor.0);
}

#[test]
fn a_change_by_way_of_a_symlink_is_judged_by_where_it_leads() {
    if !require(&[Tier2]) {
        return;
    }
    let scope = |write: &str| {
        format!("[scope.files]\nread = [\"/**\"]\nwrite = [\"{write}\"]\n[scope.exec]\nallow = [\"/**\"]\n")
    };
    let place = bailiwick_tests::workload::Place::new();
    let (granted, denied) = (place.files("granted", 0), place.files("denied", 0));
    std::fs::write(denied.join("kept"), "").unwrap();
    std::os::unix::fs::symlink(&denied, granted.join("way")).unwrap();
    let instance = Instance::start(&[Declaration::new("sly").with(&scope(&format!("{}/**", granted.display())))]);
    let target = granted.join("way/kept");
    instance.run("sly", &["rm".as_ref(), target.as_os_str()]).success();
    let trail = instance.synced_trail();
    let unlinked = trail.event("file.unlink");
    let entry = unlinked.only();
    assert_eq!(entry["attributes"]["file.path"], json!(denied.join("kept").to_str()), "{entry:#}");
    assert_eq!(entry["attributes"]["bailiwick.file.resolved_after"], true);
    assert_eq!(entry["verdict"], "out_of_scope", "{entry:#}");
}

#[test]
fn every_use_of_a_privilege_is_told_of_even_where_it_is_refused() {
    if !require(&[Tier2]) {
        return;
    }
    let instance = Instance::start(&[Declaration::new("deeds")]);
    let deeds = instance.place().copy_of("deeds", "agent-deeds");
    let said = instance.run("deeds", &[deeds.as_os_str(), "privileges".as_ref()]).success();
    let said = Entries::parse(&said.stdout);
    let trail = instance.synced_trail();
    for &(call, event, error) in PRIVILEGES {
        let told = trail.event(event).filter(is_by(call));
        let entry = told.only();
        let deed = said.filter(|line| line["deed"] == call);
        let failed = deed.only()["errno"] != 0;
        assert_eq!(entry["attributes"].get("error.type").is_some(), failed, "{entry:#}");
        if !error.is_empty() {
            assert_eq!(entry["attributes"]["error.type"], error, "{entry:#}");
        }
    }
}
