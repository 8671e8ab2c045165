//! What became of a request, as the OTLP specification classifies answers.

use std::time::Duration;

use hyper::StatusCode;
use tonic::{Code, Status};

/// What became of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The receiver has it; `rejected` of its records it refused for good.
    Accepted { rejected: u64, message: String },
    /// Not now: to be tried again, after this long if the receiver says so.
    Retry { after: Option<Duration>, error: String },
    /// It is too large: less of it may pass.
    TooLarge { error: String },
    /// Trying again soon would be no use: credentials, or a receiver that does not take this. Held, and tried now and
    /// then, since a new token or a new collector may come.
    Hold { error: String },
}

/// No receiver is believed when it asks for a longer wait than this.
const LONGEST_ASKED_WAIT: Duration = Duration::from_secs(300);

impl Outcome {
    /// What a gRPC status says.
    pub(super) fn of_status(status: &Status) -> Self {
        let error = format!("{:?}: {}", status.code(), status.message());
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
            Code::ResourceExhausted => Self::TooLarge { error },
            // Not an answer, but a connection that broke.
            Code::Unknown if std::error::Error::source(status).is_some() => Self::Retry { after: None, error },
            Code::Ok
            | Code::Unknown
            | Code::InvalidArgument
            | Code::NotFound
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Unimplemented
            | Code::Internal
            | Code::Unauthenticated => Self::Hold { error },
        }
    }

    /// What an HTTP status other than a success says.
    pub(super) fn of_http(status: StatusCode, retry_after: Option<&str>) -> Self {
        let error = status.to_string();
        match status.as_u16() {
            429 | 502 | 503 | 504 => {
                // A date instead of seconds is allowed, but rare: then our own wait does.
                let after = retry_after.and_then(|text| text.trim().parse().ok()).map(Duration::from_secs);
                Self::Retry { after: after.map(|after| after.min(LONGEST_ASKED_WAIT)), error }
            }
            413 => Self::TooLarge { error },
            _ => Self::Hold { error },
        }
    }
}

/// `google.rpc.Status`, which gRPC servers put their details in.
#[derive(Clone, PartialEq, prost::Message)]
struct RpcStatus {
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
    use std::time::Duration;

    use hyper::StatusCode;
    use prost::Message;
    use tonic::{Code, Status};

    use super::{Outcome, RetryInfo, RpcAny, RpcDuration, RpcStatus};

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
        for code in
            [Code::Unauthenticated, Code::PermissionDenied, Code::InvalidArgument, Code::Unimplemented, Code::Unknown]
        {
            assert!(matches!(Outcome::of_status(&Status::new(code, "")), Outcome::Hold { .. }), "{code:?}");
        }
        assert!(matches!(Outcome::of_status(&Status::new(Code::ResourceExhausted, "")), Outcome::TooLarge { .. }));
    }

    #[test]
    fn a_server_may_say_when_to_come_back() {
        let retry = RetryInfo { retry_delay: Some(RpcDuration { seconds: 2, nanos: 500_000_000 }) };
        let type_url = "type.googleapis.com/google.rpc.RetryInfo".to_owned();
        let details = RpcStatus { details: vec![RpcAny { type_url, value: retry.encode_to_vec() }] };
        let status = Status::with_details(Code::ResourceExhausted, "slow", details.encode_to_vec().into());
        let expected =
            Outcome::Retry { after: Some(Duration::from_millis(2500)), error: "ResourceExhausted: slow".to_owned() };
        assert_eq!(Outcome::of_status(&status), expected);
    }

    #[test]
    fn http_answers_are_classified_as_otlp_says() {
        for status in [429, 502, 503, 504] {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            let outcome = Outcome::of_http(status, Some("7"));
            assert!(matches!(outcome, Outcome::Retry { after: Some(after), .. } if after.as_secs() == 7), "{status}");
            assert!(matches!(Outcome::of_http(status, Some("never")), Outcome::Retry { after: None, .. }), "{status}");
        }
        assert!(matches!(Outcome::of_http(StatusCode::PAYLOAD_TOO_LARGE, None), Outcome::TooLarge { .. }));
        for status in [
            StatusCode::BAD_REQUEST,
            StatusCode::UNAUTHORIZED,
            StatusCode::NOT_FOUND,
            StatusCode::INTERNAL_SERVER_ERROR,
        ] {
            assert!(matches!(Outcome::of_http(status, None), Outcome::Hold { .. }), "{status}");
        }
    }
}
