//! Trace and span ids, derived from what they name: sent twice, a span is the same span.

use opentelemetry::trace::{SpanId, TraceId};
use sha2::{Digest, Sha256};

use crate::entry::SessionId;

/// The trace that a session is.
pub fn trace_id(session: SessionId) -> TraceId {
    TraceId::from_bytes(first(&Sha256::new_with_prefix("bailiwick/trace").chain_update(session.0.to_be_bytes())))
}

/// The session's span: the root of its trace.
pub fn session_span_id(session: SessionId) -> SpanId {
    SpanId::from_bytes(first(&Sha256::new_with_prefix("bailiwick/session").chain_update(session.0.to_be_bytes())))
}

/// The span of a process within a session. A process that was in two has one in each.
pub fn process_span_id(session: SessionId, tgid: u32, start_boot_ns: u64) -> SpanId {
    let digest = Sha256::new_with_prefix("bailiwick/process")
        .chain_update(session.0.to_be_bytes())
        .chain_update(tgid.to_be_bytes())
        .chain_update(start_boot_ns.to_be_bytes());
    SpanId::from_bytes(first(&digest))
}

fn first<const N: usize>(digest: &Sha256) -> [u8; N] {
    let mut bytes = [0; N];
    for (byte, hashed) in bytes.iter_mut().zip(digest.clone().finalize()) {
        *byte = hashed;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::{process_span_id, session_span_id, trace_id};
    use crate::entry::SessionId;

    /// Computed with another implementation: `printf 'bailiwick/trace\0\0\0\0\0\0\0\x2a' | sha256sum`, and likewise.
    #[test]
    fn ids_are_the_documented_hashes() {
        let session = SessionId(42);
        assert_eq!(trace_id(session).to_string(), "93f81d17bfdbdc08813c0ab58f3c676a");
        assert_eq!(session_span_id(session).to_string(), "69855faa23b5586b");
        assert_eq!(process_span_id(session, 1234, 987_654_321).to_string(), "e365f30e8a3b89fb");
    }

    #[test]
    fn a_process_has_another_span_in_another_session() {
        assert_ne!(process_span_id(SessionId(1), 7, 9), process_span_id(SessionId(2), 7, 9));
        assert_ne!(process_span_id(SessionId(1), 7, 9), process_span_id(SessionId(1), 7, 10));
    }
}
