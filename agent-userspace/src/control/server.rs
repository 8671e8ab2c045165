//! The server: connections in, requests checked, answers streamed.
//!
//! Inputs: a [`ControlSocket`], a [`Core`]. Outputs: answers. Refuses: peers that [`Access`] forbids, connections over the
//! limits, requests that are none. No client can hold up another, or the daemon: what blocks runs on threads for that,
//! entries go out in batches, and a reader that does not read is let go.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::chain::Asked;
use super::core::{Core, Found, From, Question};
use super::follow::{Pass, on_its_own_thread, tail};
use super::peer::{Access, Peer};
use super::protocol::{ErrorKind, RemoteError, Request, Response};
use super::query::Filter;
use super::report::{AgentItem, Explained, Items};
use super::sessions::Sessions;
use super::show::{Candidates, Story};
use super::socket::ControlSocket;
use super::writer::{Ended, Wire};
use crate::entry::{Entry, SessionId, Timestamp};

/// What records that somebody reviewed an agent's scope.
const REVIEW: &str = "decision.review";
/// The longest that `sync` waits, whatever the client asks for.
const MAX_SYNC_WAIT: Duration = Duration::from_secs(600);

/// How long to wait when no connection can be accepted (no file descriptor left, say), so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What bounds the server.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections of root and the daemon's own user at a time.
    pub own_connections: usize,
    /// Connections of all others at a time, so that they cannot keep root out.
    pub other_connections: usize,
    /// How long a client may take to send its request.
    pub request_time: Duration,
    /// How long a client may take nothing of an answer.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            own_connections: 64,
            other_connections: 64,
            request_time: Duration::from_secs(5),
            stall: Duration::from_secs(60),
        }
    }
}

/// Serves until dropped; then every connection ends.
///
/// # Errors
///
/// When the socket cannot be handed to the runtime.
pub async fn serve(socket: ControlSocket, core: Arc<dyn Core>, access: Access, limits: Limits) -> io::Result<()> {
    let listener = socket.listener()?;
    let own = Arc::new(Semaphore::new(limits.own_connections));
    let others = Arc::new(Semaphore::new(limits.other_connections));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a control connection");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Some(peer) = peer_of(&stream) else { continue };
        let places = if access.is_own(peer) { &own } else { &others };
        let place = Arc::clone(places).try_acquire_owned();
        if place.is_err() {
            tracing::warn!(uid = peer.uid, "a control connection is turned away: too many are open");
        }
        let connection =
            Connection { core: Arc::clone(&core), access: access.clone(), limits, peer, place: place.ok() };
        connections.spawn(connection.serve(stream));
    }
}

fn peer_of(stream: &UnixStream) -> Option<Peer> {
    let credentials = stream.peer_cred().ok()?;
    let tgid = credentials.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|tgid| *tgid != 0);
    Some(Peer { uid: credentials.uid(), gid: credentials.gid(), tgid })
}

struct Connection {
    core: Arc<dyn Core>,
    access: Access,
    limits: Limits,
    peer: Peer,
    /// Held for as long as the connection is; none when all were taken.
    place: Option<OwnedSemaphorePermit>,
}

impl Connection {
    async fn serve(self, stream: UnixStream) {
        // A client that is turned away gets one line, which fits into any socket's buffer.
        let stall = if self.place.is_some() { self.limits.stall } else { Duration::from_millis(100) };
        let mut wire = Wire::new(stream, stall);
        let last = match self.answer(&mut wire).await {
            Ok(()) => Response::End {},
            Err(Ended::Refused(error)) => Response::Error(error),
            Err(Ended::Stalled) => Response::Error(RemoteError::new(
                ErrorKind::TooSlow,
                format!("nothing was read for {:?}, so the daemon let go", self.limits.stall),
            )),
            Err(Ended::Gone) => return,
        };
        if let Err(Ended::Stalled) = wire.last_line(&last).await {
            tracing::warn!(uid = self.peer.uid, "a control connection is dropped: its reader does not read");
        }
    }

    async fn answer(&self, wire: &mut Wire) -> Result<(), Ended> {
        if self.place.is_none() {
            let message = "too many connections to the daemon are open: end a `bailiwick tail` or two";
            return Err(RemoteError::new(ErrorKind::Busy, message).into());
        }
        let (access, peer) = (self.access.clone(), self.peer);
        on_its_own_thread(move || access.check(peer))
            .await?
            .map_err(|error| RemoteError::new(ErrorKind::Forbidden, error.to_string()))?;
        let request = wire.request(self.limits.request_time).await?;
        match request {
            Request::Run { agent, child } => self.run(agent, child, wire).await,
            Request::Sync { exported, wait_ms } => {
                let wait = Duration::from_millis(wait_ms).min(MAX_SYNC_WAIT);
                self.report(wire, move |core| Ok(Response::Synced(core.sync(exported, wait)?))).await
            }
            Request::Status {} => self.report(wire, |core| Ok(Response::Status(core.status()))).await,
            Request::Doctor {} => self.report(wire, |core| Ok(Response::Doctor(core.doctor()))).await,
            Request::Agents {} => self.agents(wire).await,
            Request::Credentials {} => {
                self.report(wire, |core| Ok(Response::Credentials(Box::new(core.credentials())))).await
            }
            Request::Reload {} => self.report(wire, move |core| Ok(Response::Reloaded(core.reload(Some(peer))?))).await,
            Request::Review { done } => {
                self.report(wire, move |core| Ok(Response::Reviewed { uid: core.review(*done, peer)? })).await
            }
            Request::Explain { uid } => self.report(wire, move |core| explain(core, &uid)).await,
            Request::Tail { filter, since, follow } => {
                check(&filter)?;
                tail(&self.core, filter, since, follow, wire).await
            }
            Request::Chain { session } => self.chain(&session, wire).await,
            Request::Sessions { filter } => {
                check(&filter)?;
                self.sessions(filter, wire).await
            }
            Request::Show { session, filter } => {
                check(&filter)?;
                self.show(&session, filter, wire).await
            }
        }
    }

    /// Sends the one line that the core has for an answer.
    async fn report(
        &self,
        wire: &mut Wire,
        ask: impl FnOnce(&dyn Core) -> Result<Response, RemoteError> + Send + 'static,
    ) -> Result<(), Ended> {
        let core = Arc::clone(&self.core);
        let response = wire.while_there(on_its_own_thread(move || ask(core.as_ref()))).await???;
        wire.queue(&response)?;
        wire.flush().await
    }

    async fn run(&self, agent: String, child: u32, wire: &mut Wire) -> Result<(), Ended> {
        let (access, peer) = (self.access.clone(), self.peer);
        self.report(wire, move |core| {
            access
                .check_child(child, peer)
                .map_err(|error| RemoteError::new(ErrorKind::BadRequest, error.to_string()))?;
            Ok(Response::Accepted(core.run(&agent, child, peer)?))
        })
        .await
    }

    /// The agents, with what the trail says of each: its sessions, its last review.
    async fn agents(&self, wire: &mut Wire) -> Result<(), Ended> {
        let all = Question::Sessions { filter: Filter::default() };
        let sessions = self
            .pass(wire, all, Sessions::matching(Filter::default()), |sessions, found| {
                sessions.add(found);
                None
            })
            .await?;
        let filter = Filter { events: vec![REVIEW.to_owned()], ..Filter::default() };
        let reviews = Question::Entries { from: From::Start, filter };
        let reviews = self
            .pass(wire, reviews, HashMap::new(), |reviews: &mut HashMap<String, Timestamp>, found| {
                if let Found::Entry(entry) = found
                    && entry.draft.event == REVIEW
                    && let Some(agent) = entry.draft.agent
                {
                    reviews.insert(agent, entry.draft.time);
                }
                None
            })
            .await?;
        let core = Arc::clone(&self.core);
        let mut items: Vec<AgentItem> = on_its_own_thread(move || core.agents()).await?;
        let live: HashSet<SessionId> = items.iter().flat_map(|item| item.sessions.iter().copied()).collect();
        for session in sessions.finish(&live) {
            let of = |item: &&mut AgentItem| item.declared && Some(&item.agent) == session.agent.as_ref();
            if let Some(item) = items.iter_mut().find(of) {
                item.add_session(&session);
            }
        }
        for item in items.iter_mut().filter(|item| item.declared) {
            if let Some(&at) = reviews.get(&item.agent) {
                item.add_review(at);
            }
        }
        wire.queue(&Response::Agents(Items { items }))?;
        wire.flush().await
    }

    async fn sessions(&self, filter: Filter, wire: &mut Wire) -> Result<(), Ended> {
        // Asked before and after: a session that starts or ends meanwhile is not taken for one whose end was not seen.
        let mut live = self.live().await?;
        let question = Question::Sessions { filter: filter.clone() };
        let sessions = self
            .pass(wire, question, Sessions::matching(filter), |sessions, found| {
                sessions.add(found);
                None
            })
            .await?;
        live.extend(self.live().await?);
        wire.queue(&Response::Sessions(Items { items: sessions.finish(&live) }))?;
        wire.flush().await
    }

    async fn show(&self, prefix: &str, filter: Filter, wire: &mut Wire) -> Result<(), Ended> {
        let mut live = self.live().await?;
        let all = Question::Sessions { filter: Filter::default() };
        let candidates = self
            .pass(wire, all, Candidates::beginning(prefix)?, |candidates, found| {
                candidates.add(&found);
                None
            })
            .await?;
        let session = candidates.only()?;
        let question = Question::Story { session, filter: filter.clone() };
        let story = self.pass(wire, question, Story::matching(session, filter), Story::add).await?;
        live.extend(self.live().await?);
        wire.queue(&Response::Closing(Box::new(story.close(live.contains(&session)))))?;
        wire.flush().await
    }

    async fn chain(&self, prefix: &str, wire: &mut Wire) -> Result<(), Ended> {
        let mut live = self.live().await?;
        let all = Question::Sessions { filter: Filter::default() };
        let asked = self
            .pass(wire, all, Asked::beginning(prefix)?, |asked, found| {
                asked.add(&found);
                None
            })
            .await?;
        let all = Question::Entries { from: From::Start, filter: Filter::default() };
        let tree = self
            .pass(wire, all, asked.tree()?, |tree, found| {
                tree.add(&found);
                None
            })
            .await?;
        live.extend(self.live().await?);
        wire.queue(&Response::Chain(Items { items: tree.finish(&live) }))?;
        wire.flush().await
    }

    /// Goes through the answer, sending what `take` gives of it.
    async fn pass<S: Send + 'static>(
        &self,
        wire: &mut Wire,
        question: Question,
        state: S,
        take: fn(&mut S, Found) -> Option<Entry>,
    ) -> Result<S, Ended> {
        let core = Arc::clone(&self.core);
        let answer = on_its_own_thread(move || core.find(question)).await?;
        Pass::new(answer, state, take).send(wire).await
    }

    async fn live(&self) -> Result<HashSet<SessionId>, Ended> {
        let core = Arc::clone(&self.core);
        let agents: Vec<AgentItem> = on_its_own_thread(move || core.agents()).await?;
        Ok(agents.into_iter().flat_map(|agent| agent.sessions).collect())
    }
}

/// Finds the entry by the position that its uid ends with.
fn explain(core: &dyn Core, uid: &str) -> Result<Response, RemoteError> {
    let Some(seq) = uid.rsplit_once('-').and_then(|(_, seq)| seq.parse::<u64>().ok()) else {
        let message = "an entry is named by its uid, such as 5f3a91c2-1042: `bailiwick tail` shows it in every line";
        return Err(RemoteError::new(ErrorKind::BadRequest, message));
    };
    let entry = core.entries(From::Seq(seq)).next().transpose()?.filter(|entry| entry.uid == uid);
    let Some(entry) = entry else {
        let message = "no entry of that uid stands in the trail; it may be another trail's, or have been retired";
        return Err(RemoteError::new(ErrorKind::NotFound, message));
    };
    let explanation = core.explain(&entry);
    Ok(Response::Explained(Box::new(Explained { entry, explanation })))
}

fn check(filter: &Filter) -> Result<(), RemoteError> {
    filter.check().map_err(|error| RemoteError::new(ErrorKind::BadRequest, error.to_string()))
}
