//! What is answered to which path.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::{Method, StatusCode};

/// The content type of Prometheus' text.
const METRICS: &str = "text/plain; version=0.0.4; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// How the daemon is, as the end point asks. Every method may take a moment: each is called on a thread for that.
pub trait Health: Send + Sync + 'static {
    /// Every metric, as Prometheus' text.
    fn metrics(&self) -> String;

    /// Why it does not live: a restart would be the cure.
    fn dead(&self) -> Option<String>;

    /// Why it does not watch, or does not write: nobody should rely on it.
    fn not_ready(&self) -> Vec<String>;

    /// All that is wrong, as `bailiwick status` has it.
    fn problems(&self) -> Vec<String>;
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Of what type the body is.
    pub content_type: &'static str,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// A text, of lines.
    pub(super) fn text(status: StatusCode, lines: &[String]) -> Self {
        let body = lines.iter().map(|line| format!("{line}\n")).collect::<String>();
        Self { status, content_type: TEXT, body: body.into() }
    }
}

/// Answers, with the last page of metrics at hand.
pub(super) struct Answers {
    health: Arc<dyn Health>,
    fresh_for: Duration,
    page: Mutex<Option<(Instant, Bytes)>>,
}

impl Answers {
    /// Answers about `health`; a page of metrics is made anew only when the last one is older than that.
    pub(super) fn of(health: Arc<dyn Health>, fresh_for: Duration) -> Self {
        Self { health, fresh_for, page: Mutex::new(None) }
    }

    pub(super) fn to(&self, method: &Method, path: &str) -> Answer {
        if method != Method::GET && method != Method::HEAD {
            return Answer::text(StatusCode::METHOD_NOT_ALLOWED, &[format!("{method} is not answered; GET is")]);
        }
        match path {
            "/metrics" => Answer { status: StatusCode::OK, content_type: METRICS, body: self.page() },
            "/healthz" => self.healthz(),
            "/readyz" => self.readyz(),
            _ => Answer::text(
                StatusCode::NOT_FOUND,
                &["there are /metrics, /healthz (does the daemon live) and /readyz (does it watch and write)"
                    .to_owned()],
            ),
        }
    }

    fn page(&self) -> Bytes {
        // Held while the page is made: who asks meanwhile gets the same.
        let mut page = self.page.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made, page)) = page.as_ref()
            && made.elapsed() < self.fresh_for
        {
            return page.clone();
        }
        let made = Bytes::from(self.health.metrics());
        *page = Some((Instant::now(), made.clone()));
        made
    }

    /// What is wrong stands in the body all the same: a restart does not cure it, so it does not make the daemon dead.
    fn healthz(&self) -> Answer {
        let (status, first) = match self.health.dead() {
            None => (StatusCode::OK, "alive".to_owned()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("dead: {why}")),
        };
        let problems = self.health.problems().into_iter().map(|problem| format!("problem: {problem}"));
        Answer::text(status, &std::iter::once(first).chain(problems).collect::<Vec<_>>())
    }

    fn readyz(&self) -> Answer {
        let mut reasons: Vec<String> = self.health.dead().into_iter().collect();
        reasons.extend(self.health.not_ready());
        if reasons.is_empty() {
            return Answer::text(StatusCode::OK, &["ready".to_owned()]);
        }
        let lines: Vec<String> = reasons.iter().map(|reason| format!("not ready: {reason}")).collect();
        Answer::text(StatusCode::SERVICE_UNAVAILABLE, &lines)
    }
}
