//! Checkpoints: signed statements of how far the trail has come, and with which chain. Exported, they vouch for the trail
//! against whoever can write it.

use serde_json::{Map, Value};

use super::key::{self, HostKey};
use crate::entry::{Draft, Timestamp};

/// The event of a checkpoint.
pub const CHECKPOINT: &str = "trail.checkpoint";
/// What is signed begins with this, so that the signature stands for nothing else.
const PURPOSE: &str = "bailiwick.trail.checkpoint/1";

const TRAIL: &str = "bailiwick.checkpoint.trail";
const SEQ: &str = "bailiwick.checkpoint.seq";
const CHAIN: &str = "bailiwick.checkpoint.chain";
const TIME: &str = "bailiwick.checkpoint.time";
const KEY: &str = "bailiwick.checkpoint.key";
const SIGNATURE: &str = "bailiwick.checkpoint.signature";

/// How many digits of a key tell it from others.
const KEY_DIGITS: usize = 16;

/// As much of a key as tells it from others.
pub fn short_key(key: &str) -> String {
    key.chars().take(KEY_DIGITS).chain(['…']).collect()
}

/// What a checkpoint says: the trail of this id had this chain after the entry of this seq.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The trail's id.
    pub trail: String,
    /// The last entry it vouches for.
    pub seq: u64,
    /// That entry's chain.
    pub chain: String,
    /// When it was signed.
    pub time: Timestamp,
    /// The public key, in hexadecimal digits.
    pub key: String,
    /// The signature, in hexadecimal digits.
    pub signature: String,
}

impl Checkpoint {
    /// Writes into a draft what the trail is now.
    pub(super) fn seal(draft: &mut Draft, host: &HostKey, trail: &str, seq: u64, chain: &str) {
        let mut checkpoint = Self {
            trail: trail.to_owned(),
            seq,
            chain: chain.to_owned(),
            time: draft.time,
            key: host.public(),
            signature: String::new(),
        };
        checkpoint.signature = host.sign(checkpoint.message().as_bytes());
        let said: [(&str, Value); 6] = [
            (TRAIL, checkpoint.trail.into()),
            (SEQ, checkpoint.seq.into()),
            (CHAIN, checkpoint.chain.into()),
            (TIME, checkpoint.time.to_string().into()),
            (KEY, checkpoint.key.into()),
            (SIGNATURE, checkpoint.signature.into()),
        ];
        draft.attributes = said.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    }

    /// Reads what attributes say, wherever they come from: numbers may have become strings on the way.
    pub fn of_attributes(attributes: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| attributes.get(name).and_then(Value::as_str).map(str::to_owned);
        let seq = attributes.get(SEQ)?;
        Some(Self {
            trail: text(TRAIL)?,
            seq: seq.as_u64().or_else(|| seq.as_str()?.parse().ok())?,
            chain: text(CHAIN)?,
            time: text(TIME)?.parse().ok()?,
            key: text(KEY)?,
            signature: text(SIGNATURE)?,
        })
    }

    /// Whether the key that it names signed it.
    pub fn is_signed(&self) -> bool {
        key::is_signed(&self.key, self.message().as_bytes(), &self.signature)
    }

    fn message(&self) -> String {
        format!("{PURPOSE}\n{}\n{}\n{}\n{}\n", self.trail, self.seq, self.chain, self.time)
    }
}
