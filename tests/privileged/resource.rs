//! Resources: what an agent touches is told of by the name that a declaration gives it.

use std::net::TcpListener;
use std::os::unix::net::UnixListener;

use bailiwick_tests::declaration::Declaration;
use bailiwick_tests::entries::Entries;
use bailiwick_tests::instance::Instance;
use bailiwick_tests::requirement::Requirement::Tier2;
use bailiwick_tests::requirement::require;
use bailiwick_tests::workload::Place;
use serde_json::{Value, json};

/// Reads a file, writes another that nothing names, asks two sockets, and runs a program.
const WORK: &str = "import socket, subprocess, sys\n\
    data, other, unix, port, program = sys.argv[1:6]\n\
    open(data).read(); open(data).read()\n\
    open(other, 'w').write('x')\n\
    s = socket.socket(socket.AF_UNIX); s.connect(unix); s.close()\n\
    socket.create_connection(('127.0.0.1', int(port))).close()\n\
    subprocess.run([program, data], check=True)\n";

fn names(entries: &Entries, event: &str, attribute: &str, value: &Value) -> Value {
    let of = entries.event(event).filter(|entry| entry["attributes"][attribute] == *value);
    assert!(!of.is_empty(), "no {event} with {attribute} {value}");
    of.0[0]["attributes"]["bailiwick.resource"].clone()
}

#[test]
fn what_matters_goes_by_its_name_in_entries_lines_and_stories_whoever_declares_it() {
    if !require(&[Tier2]) {
        return;
    }
    let place = Place::new();
    let data = place.files("customers", 1).join("f0");
    std::fs::write(&data, "x").unwrap();
    let (other, unix) = (place.join("other"), place.join("orders.sock"));
    let program = place.copy_of("first-open", "deploy");
    let (_unix, tcp) = (UnixListener::bind(&unix).unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    let port = tcp.local_addr().unwrap().port();
    let text = |path: &std::path::Path| path.display().to_string();
    let declared = format!(
        "[[resource]]\nname = \"customer data\"\nfile = {:?}\n\
         [[resource]]\nname = \"orders database\"\naddress = \"127.0.0.1:{port}\"\nsocket = [{:?}]\n\
         [[resource]]\nname = \"deployment\"\nprogram = [{:?}]\n",
        format!("{}/**", text(data.parent().unwrap())),
        text(&unix),
        text(&program),
    );
    // Another agent's declaration has the names.
    let instance = Instance::start(&[Declaration::new("worker"), Declaration::new("owner").with(&declared)]);
    let port = port.to_string();
    let arguments = [text(&data), text(&other), text(&unix), port.clone(), text(&program)];
    let mut command = vec!["python3".to_owned(), "-c".to_owned(), WORK.to_owned()];
    command.extend(arguments);
    instance.run("worker", &command).success();

    let trail = instance.synced_trail();
    assert_eq!(names(&trail, "file.open", "file.path", &json!(text(&data))), json!(["customer data"]));
    assert_eq!(names(&trail, "file.create", "file.path", &json!(text(&other))), Value::Null);
    assert_eq!(names(&trail, "unix.connect", "bailiwick.unix.path", &json!(text(&unix))), json!(["orders database"]));
    let connected = json!(tcp.local_addr().unwrap().port());
    assert_eq!(names(&trail, "network.connect", "server.port", &connected), json!(["orders database"]));
    let executed = names(&trail, "process.exec", "process.executable.path", &json!(text(&program)));
    assert_eq!(executed, json!(["deployment"]));

    let session = trail.sessions().remove(0);
    let story = instance.call(&format!("show {session}")).success().stdout;
    assert!(story.contains("\nresources\n  customer data: read x3\n  deployment: executed\n"), "{story}");
    assert!(story.contains("  orders database: reached x2\n"), "{story}");
    let line = instance.call("tail --since start --no-follow --event network.connect").success().stdout;
    assert!(line.contains(&format!("tcp 127.0.0.1:{port} [orders database]")), "{line}");
}
