//! A W3C trace context in an environment: which trace an agent says that it is part of.
//!
//! Input: the values of `TRACEPARENT` and `TRACESTATE`, as an exec or `/proc` gives them. Output: a [`TraceContext`], where
//! they are one. It is a claim: anybody can set these variables. It links and places spans, and decides nothing: no session,
//! no verdict, and not whether something is exported. What is no context is none, and no error.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::entry::Draft;

/// The variable of the trace and the span.
pub const TRACEPARENT: &str = "TRACEPARENT";
/// The variable of what back ends add to them.
pub const TRACESTATE: &str = "TRACESTATE";
/// What comes before a variable's name in the name of its attribute.
pub const VARIABLE: &str = "process.environment_variable.";

/// The longest state that is kept: what the specification asks everybody to pass on.
const MAX_STATE_BYTES: usize = 512;
/// The most members that a state may have.
const MAX_STATE_MEMBERS: usize = 32;

/// A span of a trace that is not ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct TraceContext {
    /// The trace.
    pub trace_id: [u8; 16],
    /// The span.
    pub span_id: [u8; 8],
    /// Its flags: whether it says that it is sampled, above all. What is ours is exported either way.
    pub flags: u8,
    /// What back ends added; often nothing.
    pub state: String,
}

/// The same as the variables have it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Written {
    traceparent: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    tracestate: String,
}

/// This is no `TRACEPARENT`.
#[derive(Debug, thiserror::Error)]
#[error("is no trace context such as 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")]
pub struct NoTraceContext;

impl TryFrom<Written> for TraceContext {
    type Error = NoTraceContext;

    fn try_from(written: Written) -> Result<Self, NoTraceContext> {
        Self::parse(written.traceparent.as_bytes(), written.tracestate.as_bytes()).ok_or(NoTraceContext)
    }
}

impl From<TraceContext> for Written {
    fn from(context: TraceContext) -> Self {
        Self { traceparent: context.traceparent(), tracestate: context.state }
    }
}

impl TraceContext {
    /// Reads both variables; the second may be empty. A state that is not well-formed is left out.
    pub fn parse(traceparent: &[u8], tracestate: &[u8]) -> Option<Self> {
        let (version, rest) = (hex::<1>(traceparent.get(..2)?)?, traceparent.get(2..)?);
        let (fields, more) = rest.split_at_checked(53)?;
        let [b'-', trace @ .., b'-'] = fields.get(..34)? else { return None };
        let [span @ .., b'-', high, low] = fields.get(34..)? else { return None };
        // A later version may have more fields, never other ones.
        let is_whole = match version {
            [0] => more.is_empty(),
            [0xff] => false,
            [_] => more.is_empty() || more.starts_with(b"-"),
        };
        let (trace_id, span_id, [flags]) = (hex(trace)?, hex(span)?, hex(&[*high, *low])?);
        let is_set = trace_id != [0; 16] && span_id != [0; 8];
        (is_whole && is_set).then(|| Self { trace_id, span_id, flags, state: state(tracestate).unwrap_or_default() })
    }

    /// Reads it from an environment, `KEY=VALUE` each.
    pub fn of_environment<'a>(variables: impl Iterator<Item = &'a [u8]> + Clone) -> Option<Self> {
        let value = |key: &str| {
            variables.clone().find_map(|variable| variable.strip_prefix(key.as_bytes())?.strip_prefix(b"="))
        };
        Self::parse(value(TRACEPARENT)?, value(TRACESTATE).unwrap_or_default())
    }

    /// Reads it from an entry that has the variables among its attributes.
    pub fn of_entry(draft: &Draft) -> Option<Self> {
        let value = |key: &str| draft.attributes.get(&format!("{VARIABLE}{key}")).and_then(Value::as_str);
        let is_cut = draft.truncated.iter().any(|name| name.strip_prefix(VARIABLE) == Some(TRACESTATE));
        let state = value(TRACESTATE).filter(|_| !is_cut).unwrap_or_default();
        Self::parse(value(TRACEPARENT)?.as_bytes(), state.as_bytes())
    }

    /// As `TRACEPARENT` has it.
    pub fn traceparent(&self) -> String {
        let mut text = String::from("00-");
        push_hex(&mut text, &self.trace_id);
        text.push('-');
        push_hex(&mut text, &self.span_id);
        text.push('-');
        push_hex(&mut text, &[self.flags]);
        text
    }
}

fn push_hex(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        for digit in [byte >> 4, byte & 0xf] {
            text.push(char::from_digit(digit.into(), 16).unwrap_or('0'));
        }
    }
}

/// Lower case digits alone: the specification knows no others.
fn hex<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let digit = |digit: &u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let mut bytes = [0; N];
    let (pairs, []) = digits.as_chunks::<2>() else { return None };
    if pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(high)? << 4 | digit(low)?;
    }
    Some(bytes)
}

/// A well-formed state; none where it is not.
fn state(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?.trim();
    let is_member = |member: &str| member.is_empty() || member.split_once('=').is_some_and(|(key, _)| !key.is_empty());
    let well_formed = text.len() <= MAX_STATE_BYTES
        && text.bytes().all(|byte| (0x20..0x7f).contains(&byte))
        && text.split(',').count() <= MAX_STATE_MEMBERS
        && text.split(',').map(str::trim).all(is_member);
    well_formed.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on says so by panicking")]

    use super::TraceContext;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn a_context_is_read_as_the_specification_writes_it_and_written_so() {
        let context = TraceContext::parse(GOOD.as_bytes(), b"vendor=a1, other=x=y").unwrap();
        assert_eq!(context.trace_id[..2], [0x0a, 0xf7]);
        assert_eq!(context.span_id[..2], [0xb7, 0xad]);
        assert_eq!((context.flags, context.state.as_str()), (1, "vendor=a1, other=x=y"));
        assert_eq!(context.traceparent(), GOOD);
        let kept = serde_json::to_string(&context).unwrap();
        assert_eq!(serde_json::from_str::<TraceContext>(&kept).unwrap(), context);
        let later = format!("cc{}-more", &GOOD[2..]);
        assert_eq!(TraceContext::parse(later.as_bytes(), b"").unwrap().trace_id, context.trace_id);
    }

    #[test]
    fn what_is_no_context_is_none() {
        for wrong in [
            "",
            "00",
            &GOOD[..54],
            &format!("{GOOD}-more"),
            &format!("{GOOD} "),
            &GOOD.to_uppercase(),
            &format!("ff{}", &GOOD[2..]),
            &format!("cc{}more", &GOOD[2..]),
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
            "00_0af7651916cd43dd8448eb211c80319c_b7ad6b7169203331_01",
        ] {
            assert_eq!(TraceContext::parse(wrong.as_bytes(), b""), None, "{wrong}");
        }
    }

    #[test]
    fn a_state_that_is_none_is_left_out_and_the_context_stays() {
        let long = "a=".to_owned() + &"x".repeat(511);
        for wrong in ["nothing", "=x", "a=\u{1b}[2J", "a=\u{fc}", &long, &"a=b,".repeat(40)] {
            assert_eq!(TraceContext::parse(GOOD.as_bytes(), wrong.as_bytes()).unwrap().state, "", "{wrong}");
        }
    }

    #[test]
    fn an_environment_has_one_where_a_variable_says_so() {
        let variables = ["XTRACEPARENT=1".to_owned(), format!("TRACEPARENT={GOOD}"), "TRACESTATE=a=b".to_owned()];
        let context = TraceContext::of_environment(variables.iter().map(String::as_bytes)).unwrap();
        assert_eq!((context.traceparent().as_str(), context.state.as_str()), (GOOD, "a=b"));
        assert_eq!(TraceContext::of_environment(variables[..1].iter().map(String::as_bytes)), None);
    }
}
