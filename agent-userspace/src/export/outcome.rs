//! What became of a request, as the OTLP specification classifies answers.

use std::time::Duration;

use hyper::StatusCode;
use tonic::{Code, Status};

use super::with_causes;
use crate::entry::Timestamp;

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The receiver has it; `rejected` of its records it refused for good.
    Accepted { rejected: u64, message: String },
    /// Not now: to be tried again, after this long if the receiver says so.
    Retry { after: Option<Duration>, error: String },
    /// It is too large: less of it may pass. Where that is not certain, a limit on how much is sent in a time is as likely.
    TooLarge { certain: bool, error: String },
    /// The receiver does not like what is in it, and never will.
    Refused { error: String },
    /// The receiver failed: for a time, or at what is in it.
    Failed { error: String },
    /// It is not about what is sent: credentials, an address, a receiver that does not take this signal. Held, and tried
    /// now and then, since a new token or a new collector may come.
    Hold { error: String },
}

/// No receiver is believed when it asks for a longer wait than this.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(300);

/// The longest message of a receiver that is repeated.
const MAX_MESSAGE_CHARS: usize = 300;

impl Outcome {
    /// What a gRPC status says.
    pub(super) fn of_status(status: &Status) -> Self {
        if let Some(cause) = std::error::Error::source(status) {
            // Not an answer, but a connection that broke or was not made.
            return Self::Retry { after: None, error: with_causes(cause) };
        }
        let error = format!("{:?}: {}", status.code(), shown(status.message()));
        let after = retry_info(status.details());
        match status.code() {
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => Self::Retry { after, error },
            Code::ResourceExhausted if after.is_some() => Self::Retry { after, error },
            // Without a word on when to come back, this is what a server says to a message beyond its limit.
            Code::ResourceExhausted => Self::TooLarge { certain: speaks_of_size(status.message()), error },
            Code::InvalidArgument | Code::AlreadyExists => Self::Refused { error },
            Code::Unknown | Code::Internal => Self::Failed { error },
            Code::Ok
            | Code::NotFound
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::Unauthenticated => Self::Hold { error },
        }
    }

    /// What an HTTP status other than a success says, with the answer's body.
    pub(super) fn of_http(status: StatusCode, retry_after: Option<&str>, body: &[u8], now: Timestamp) -> Self {
        let message = message(body);
        let error = if message.is_empty() { status.to_string() } else { format!("{status}: {message}") };
        match status.as_u16() {
            408 | 429 | 502 | 503 | 504 => {
                let after = retry_after.and_then(|text| wait_until(text.trim(), now));
                Self::Retry { after: after.map(|after| after.min(LONGEST_ASKED_WAIT)), error }
            }
            413 => Self::TooLarge { certain: true, error },
            400 | 409 | 422 => Self::Refused { error },
            500 | 507 | 508 => Self::Failed { error },
            _ => Self::Hold { error },
        }
    }
}

/// gRPC has one code for a message that is too long and for a quota that is used up: implementations name the size.
fn speaks_of_size(message: &str) -> bool {
    let message = message.to_ascii_lowercase();
    ["larger than max", "too large", "message size", "message length", "exceeds the limit"]
        .iter()
        .any(|words| message.contains(words))
}

/// `Retry-After`: seconds, or a date.
fn wait_until(text: &str, now: Timestamp) -> Option<Duration> {
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = jiff::fmt::rfc2822::parse(text).ok()?.timestamp();
    let then = u64::try_from(date.as_nanosecond()).ok()?;
    Some(Duration::from_nanos(then.saturating_sub(now.0)))
}

/// What a refusal says: OTLP has a protobuf for it, proxies write text.
fn message(body: &[u8]) -> String {
    let status = <RpcStatus as prost::Message>::decode(body).ok().filter(|status| !status.message.is_empty());
    match (status, std::str::from_utf8(body)) {
        (Some(status), _) => shown(&status.message),
        (None, Ok(text)) => shown(text.trim()),
        (None, Err(_)) => String::new(),
    }
}

/// A receiver's words, on one line and not too many.
fn shown(text: &str) -> String {
    text.chars().take(MAX_MESSAGE_CHARS).map(|letter| if letter.is_control() { ' ' } else { letter }).collect()
}

/// `google.rpc.Status`, which gRPC servers put their details in.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<RpcAny>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RpcAny {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<RpcDuration>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RpcDuration {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

fn retry_info(details: &[u8]) -> Option<Duration> {
    let status: RpcStatus = prost::Message::decode(details).ok()?;
    let info = status.details.into_iter().find(|detail| detail.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let info: RetryInfo = prost::Message::decode(info.value.as_slice()).ok()?;
    let delay = info.retry_delay.unwrap_or_default();
    let seconds = Duration::from_secs(u64::try_from(delay.seconds).unwrap_or(0));
    let nanos = Duration::from_nanos(u64::try_from(delay.nanos).unwrap_or(0));
    Some(seconds.saturating_add(nanos).min(LONGEST_ASKED_WAIT))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, reason = "a test that cannot go on says so by panicking")]

    use std::time::Duration;

    use hyper::StatusCode;
    use prost::Message;
    use tonic::{Code, Status};

    use super::{Outcome, RetryInfo, RpcAny, RpcDuration, RpcStatus};
    use crate::entry::Timestamp;

    #[test]
    fn grpc_answers_are_classified_as_otlp_says() {
        for code in [
            Code::Cancelled,
            Code::DeadlineExceeded,
            Code::Aborted,
            Code::OutOfRange,
            Code::Unavailable,
            Code::DataLoss,
        ] {
            assert!(
                matches!(Outcome::of_status(&Status::new(code, "")), Outcome::Retry { after: None, .. }),
                "{code:?}"
            );
        }
        for code in [
            Code::Unauthenticated,
            Code::PermissionDenied,
            Code::Unimplemented,
            Code::NotFound,
            Code::FailedPrecondition,
        ] {
            assert!(matches!(Outcome::of_status(&Status::new(code, "")), Outcome::Hold { .. }), "{code:?}");
        }
        for code in [Code::InvalidArgument, Code::AlreadyExists] {
            assert!(matches!(Outcome::of_status(&Status::new(code, "")), Outcome::Refused { .. }), "{code:?}");
        }
        for code in [Code::Internal, Code::Unknown] {
            assert!(matches!(Outcome::of_status(&Status::new(code, "")), Outcome::Failed { .. }), "{code:?}");
        }
        for (message, expected) in [("quota exceeded", false), ("received message larger than max (5 vs. 4)", true)] {
            let outcome = Outcome::of_status(&Status::new(Code::ResourceExhausted, message));
            assert!(matches!(outcome, Outcome::TooLarge { certain, .. } if certain == expected), "{message}");
        }
    }

    #[test]
    fn a_server_may_say_when_to_come_back() {
        let retry = RetryInfo { retry_delay: Some(RpcDuration { seconds: 2, nanos: 500_000_000 }) };
        let type_url = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
        let details =
            RpcStatus { message: String::new(), details: vec![RpcAny { type_url, value: retry.encode_to_vec() }] };
        let status = Status::with_details(Code::ResourceExhausted, "slow", details.encode_to_vec().into());
        let expected =
            Outcome::Retry { after: Some(Duration::from_millis(2500)), error: "ResourceExhausted: slow".to_owned() };
        assert_eq!(Outcome::of_status(&status), expected);
    }

    fn of_http(status: u16, retry_after: Option<&str>) -> Outcome {
        // 2023-11-14T22:13:20Z
        let now = Timestamp(1_700_000_000_000_000_000);
        Outcome::of_http(StatusCode::from_u16(status).unwrap_or_default(), retry_after, b"", now)
    }

    #[test]
    fn http_answers_are_classified_as_otlp_says() {
        for status in [408, 429, 502, 503, 504] {
            assert!(matches!(of_http(status, None), Outcome::Retry { after: None, .. }), "{status}");
        }
        assert!(matches!(of_http(413, None), Outcome::TooLarge { certain: true, .. }));
        for status in [400, 409, 422] {
            assert!(matches!(of_http(status, None), Outcome::Refused { .. }), "{status}");
        }
        assert!(matches!(of_http(500, None), Outcome::Failed { .. }));
        for status in [301, 401, 403, 404, 405, 407, 415, 501] {
            assert!(matches!(of_http(status, None), Outcome::Hold { .. }), "{status}");
        }
    }

    #[test]
    fn retry_after_is_seconds_or_a_date_and_is_not_believed_without_end() {
        for (text, expected) in [
            ("7", Some(7)),
            (" 120 ", Some(120)),
            ("86400", Some(300)),
            ("Tue, 14 Nov 2023 22:13:32 GMT", Some(12)),
            ("Tue, 14 Nov 2023 22:13:00 GMT", Some(0)),
            ("Wed, 15 Nov 2023 22:13:32 GMT", Some(300)),
            ("never", None),
            ("-3", None),
        ] {
            let Outcome::Retry { after, .. } = of_http(429, Some(text)) else { panic!("{text}") };
            assert_eq!(after, expected.map(Duration::from_secs), "{text}");
        }
    }

    #[test]
    fn what_a_refusal_says_is_repeated_on_one_line() {
        let status = RpcStatus { message: "no such\ntenant".to_owned(), details: Vec::new() };
        for (body, expected) in [
            (status.encode_to_vec(), "404 Not Found: no such tenant"),
            (b"<html>\x1b[2Jgone\n".to_vec(), "404 Not Found: <html> [2Jgone"),
            (b"\xff\xfe".to_vec(), "404 Not Found"),
        ] {
            let outcome = Outcome::of_http(StatusCode::NOT_FOUND, None, &body, Timestamp(0));
            assert_eq!(outcome, Outcome::Hold { error: expected.to_owned() });
        }
    }
}
