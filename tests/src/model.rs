//! A language model that says what it was told to say: the OpenAI-compatible chat API on loopback, with a script.
//!
//! Each request for a completion gets the next step of the script as one call of the tool `bash`; after the last step it
//! gets the last again. `GET` of any path gives a short text, so that the agent has something to fetch.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::http::{Answer, Request, Server};

/// What a `GET` yields.
pub const PAGE: &str = "Notes for the release: addition adds.\n";

/// The server, and what was asked of it.
#[derive(Debug)]
pub struct ScriptedModel {
    server: Server,
    asked: Arc<AtomicUsize>,
    answers: Arc<Mutex<Vec<Value>>>,
}

impl ScriptedModel {
    /// Starts a model that calls for the commands, one after the other. They may name where it listens.
    ///
    /// # Panics
    ///
    /// If no port is free.
    pub fn start(commands: impl FnOnce(SocketAddr) -> Vec<String>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let commands = commands(listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let answers = Arc::new(Mutex::new(Vec::new()));
        let (counter, tool_answers) = (Arc::clone(&asked), Arc::clone(&answers));
        let server = Server::on(listener, move |request| answer(request, &commands, &counter, &tool_answers));
        Self { server, asked, answers }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// How many completions were asked for.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Acquire)
    }

    /// What the tools answered so far: the messages of role `tool` in the last request.
    pub fn tool_answers(&self) -> Vec<Value> {
        self.answers.lock().unwrap().clone()
    }
}

fn answer(request: &Request, commands: &[String], asked: &AtomicUsize, tool_answers: &Mutex<Vec<Value>>) -> Answer {
    if request.method == "GET" {
        return Answer { status: 200, content_type: "text/plain", body: PAGE.into() };
    }
    let Ok(conversation) = serde_json::from_slice::<Value>(&request.body) else {
        return Answer { status: 400, content_type: "text/plain", body: b"the request is no JSON".to_vec() };
    };
    let messages = conversation["messages"].as_array().cloned().unwrap_or_default();
    *tool_answers.lock().unwrap() = messages.into_iter().filter(|message| message["role"] == "tool").collect();

    let number = asked.fetch_add(1, Ordering::AcqRel);
    let command = commands.get(number).or(commands.last()).map_or("true", String::as_str);
    let body = completion(number, command).to_string().into_bytes();
    Answer { status: 200, content_type: "application/json", body }
}

fn completion(number: usize, command: &str) -> Value {
    let call = json!({
        "id": format!("call_{number}"),
        "type": "function",
        "function": {"name": "bash", "arguments": json!({"command": command}).to_string()},
    });
    json!({
        "id": format!("completion-{number}"),
        "object": "chat.completion",
        "created": 1,
        "model": "scripted",
        "choices": [{
            "index": 0,
            "message": {"role": "assistant", "content": format!("Step {}.", number + 1), "tool_calls": [call]},
            "finish_reason": "tool_calls",
        }],
        "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    })
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;

    use serde_json::{Value, json};

    use super::{PAGE, ScriptedModel};

    fn ask(model: &ScriptedModel, body: &str) -> Value {
        let mut stream = TcpStream::connect(model.address()).unwrap();
        let length = body.len();
        write!(stream, "POST /v1/chat/completions HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}").unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    fn command(completion: &Value) -> String {
        let arguments = &completion["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"];
        let arguments: Value = serde_json::from_str(arguments.as_str().unwrap()).unwrap();
        arguments["command"].as_str().unwrap().to_owned()
    }

    #[test]
    fn the_model_follows_its_script_and_repeats_the_last_step() {
        let model = ScriptedModel::start(|_| vec!["first".into(), "last".into()]);
        let said: Vec<String> = (0..3).map(|_| command(&ask(&model, r#"{"messages": []}"#))).collect();
        assert_eq!(said, ["first", "last", "last"]);
        assert_eq!(model.asked(), 3);
    }

    #[test]
    fn the_model_keeps_what_the_tools_answered() {
        let model = ScriptedModel::start(|_| vec!["true".into()]);
        let messages = json!({"messages": [{"role": "user", "content": "go"}, {"role": "tool", "content": "done"}]});
        ask(&model, &messages.to_string());
        assert_eq!(model.tool_answers(), [json!({"role": "tool", "content": "done"})]);
    }

    #[test]
    fn a_page_can_be_fetched() {
        let model = ScriptedModel::start(|_| vec!["true".into()]);
        assert_eq!(crate::http::get(model.address(), "/notes.txt").unwrap(), (200, PAGE.as_bytes().to_vec()));
    }
}
