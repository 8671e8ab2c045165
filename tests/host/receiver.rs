//! The real receiver is started, and what it received is read, as the scenarios do it.

use std::io::{Read, Write};
use std::net::TcpStream;

use bailiwick_tests::receiver::{Receiver, distinct};
use bailiwick_tests::requirement::Requirement::Venv;
use bailiwick_tests::requirement::require;
use serde_json::json;

#[test]
fn what_is_sent_to_the_receiver_is_found_there() {
    if !require(&[Venv]) {
        return;
    }
    let receiver = Receiver::start();
    assert!(receiver.log_records().is_empty() && receiver.spans().is_empty() && receiver.metrics().is_empty());

    // As the receiver itself writes what came as protobuf.
    let record = |uid: &str| json!({"attributes": [{"key": "log.record.uid", "value": {"string_value": uid}}]});
    let body = json!({"resource_logs": [{"scope_logs": [{"log_records": [record("a"), record("b")]}]}]}).to_string();
    let address = receiver.http_endpoint().replace("http://", "");
    for _ in 0..2 {
        let mut stream = TcpStream::connect(&address).unwrap();
        let head = format!("host: {address}\r\ncontent-type: application/json\r\ncontent-length: {}", body.len());
        write!(stream, "POST /v1/logs HTTP/1.0\r\n{head}\r\n\r\n{body}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(" 200 "), "{answer}");
    }
    assert_eq!(receiver.log_records().len(), 4);
    assert_eq!(distinct(&receiver.log_records(), "log.record.uid").len(), 2);
}
