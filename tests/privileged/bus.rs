//! Work that an agent hands to another daemon: a real D-Bus, private to the test, with a service of its own that the bus
//! starts when it is asked for. What the service does is done outside any session; that the agent spoke to the bus, and to
//! which process, is what can be told of it, and a grant decides whether it may.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use bailiwick_tests::bounded::{Running, until};
use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::both_sets;
use bailiwick_tests::requirement::Requirement::{Dbus, Tier2};
use bailiwick_tests::workload::Place;
use serde_json::json;

/// The service: it takes its name on the bus at `argv[1]`, and of the first call removes the file that it names.
const SERVICE: &str = r"
import os, socket, struct, sys
bus = socket.socket(socket.AF_UNIX); bus.connect(sys.argv[1])
bus.sendall(b'\0AUTH EXTERNAL ' + str(os.getuid()).encode().hex().encode() + b'\r\n')
assert bus.recv(100).startswith(b'OK'); bus.sendall(b'BEGIN\r\n')
CALL, RETURN = 1, 2
PATH, INTERFACE, MEMBER, REPLY_TO, DESTINATION, SENDER, SIGNATURE = 1, 2, 3, 5, 6, 7, 8
def string(text): return struct.pack('<I', len(text)) + text.encode() + b'\0'
def field(code, kind, value): return bytes([code, 1]) + kind + b'\0' + value
def send(kind, serial, fields, body=b''):
    array = b''
    for one in fields: array += bytes(-len(array) % 8) + one
    head = struct.pack('<cBBBIII', b'l', kind, 0, 1, len(body), serial, len(array)) + array
    bus.sendall(head + bytes(-len(head) % 8) + body)
def ask(serial, member, signature, body):
    fields = [field(PATH, b'o', string('/')), field(INTERFACE, b's', string('org.freedesktop.DBus')),
              field(MEMBER, b's', string(member)), field(DESTINATION, b's', string('org.freedesktop.DBus'))]
    if signature: fields.append(field(SIGNATURE, b'g', bytes([len(signature)]) + signature + b'\0'))
    send(CALL, serial, fields, body)
name = string('org.bailiwick.Test')
ask(1, 'Hello', b'', b'')
ask(2, 'RequestName', b'su', name + bytes(-len(name) % 4) + struct.pack('<I', 0))
stream = bus.makefile('rb')
kind = None
while kind != CALL:
    _, kind, _, _, length, serial, size = struct.unpack('<cBBBIII', stream.read(16))
    fields, body = stream.read(size + -size % 8), stream.read(length)
size = struct.unpack_from('<I', body)[0]
os.unlink(body[4:4 + size])
at = fields.index(bytes([SENDER, 1]) + b's\0') + 4
size = struct.unpack_from('<I', fields, at)[0]
caller = fields[at + 4:at + 4 + size].decode()
send(RETURN, 3, [field(REPLY_TO, b'u', struct.pack('<I', serial)), field(DESTINATION, b's', string(caller))])
";

/// A bus that ends with the test.
struct Bus {
    daemon: Running,
    socket: PathBuf,
}

impl Bus {
    fn start(place: &Place) -> Self {
        let (services, socket, program) = (place.files("services", 0), place.join("bus"), place.join("service.py"));
        std::fs::write(&program, SERVICE).unwrap();
        let service = format!(
            "[D-BUS Service]\nName=org.bailiwick.Test\nExec=/usr/bin/env python3 {} {}\n",
            program.display(),
            socket.display()
        );
        std::fs::write(services.join("org.bailiwick.Test.service"), service).unwrap();
        let settings = format!(
            "<busconfig><listen>unix:path={}</listen><servicedir>{}</servicedir>\
             <policy context=\"default\"><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>\
             <allow own=\"*\"/></policy></busconfig>\n",
            socket.display(),
            services.display()
        );
        let path = place.join("bus.conf");
        std::fs::write(&path, settings).unwrap();
        let mut command = Command::new("dbus-daemon");
        command.arg("--config-file").arg(&path).arg("--nofork");
        let daemon = Running::start(&mut command);
        until("the bus", Duration::from_secs(10), || socket.exists());
        Self { daemon, socket }
    }

    /// What asks the service to remove a file.
    fn asks_to_remove(&self, path: &Path) -> Vec<String> {
        let (bus, file) = (format!("--bus=unix:path={}", self.socket.display()), format!("string:{}", path.display()));
        let service = ["--dest=org.bailiwick.Test", "/", "org.bailiwick.Test.Remove"].map(str::to_owned);
        let mut command = vec!["dbus-send".to_owned(), "--print-reply".to_owned(), bus];
        command.extend(service);
        command.push(file);
        command
    }
}

#[test]
fn work_handed_over_a_bus_is_a_connection_to_the_process_that_took_it() {
    for setup in both_sets(&[Tier2, Dbus]) {
        let place = Place::new();
        let bus = Bus::start(&place);
        let scope = format!("[scope.unix]\nconnect = [\"{}\"]", bus.socket.display());
        let (granted, other) =
            (Declaration::new("granted").with(&scope), Declaration::new("other").with("[scope.unix]"));
        let instance = setup.agent(&granted).agent(&other).start();
        for (agent, verdict) in [("granted", "in_scope"), ("other", "out_of_scope")] {
            let file = place.join(agent);
            std::fs::write(&file, "").unwrap();
            instance.run(agent, &bus.asks_to_remove(&file)).success();
            assert!(!file.exists(), "the service did not do it");

            let trail: Entries = instance.synced_trail().agent(agent);
            let connected = trail
                .event("unix.connect")
                .filter(|entry| entry["attributes"]["bailiwick.unix.path"] == json!(bus.socket.to_str()));
            let entry = connected.only();
            assert_eq!(entry["verdict"], verdict, "{entry:#}");
            assert_eq!(entry["session"], trail.event("session.start").only()["session"], "{entry:#}");
            let attributes = &entry["attributes"];
            assert_eq!(attributes["bailiwick.peer.tgid"], bus.daemon.tgid(), "{entry:#}");
            let executable = attributes["bailiwick.peer.executable"].as_str().unwrap_or_default();
            assert!(executable.ends_with("/dbus-daemon"), "{entry:#}");
            // Who did it is no descendant of the agent's.
            let removed =
                trail.event("file.unlink").filter(|entry| entry["attributes"]["file.path"] == json!(file.to_str()));
            assert!(removed.is_empty(), "{:#?}", removed.0);
        }
    }
}
