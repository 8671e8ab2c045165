//! The host's key, with which checkpoints are signed: Ed25519, made at first start.
//!
//! `keys/checkpoint.p8` holds it (PKCS #8), for root alone; `keys/checkpoint.pub` its public half, in hexadecimal digits.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use ring::rand::SystemRandom;
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::chain::{bytes_of, hexadecimal};
use super::error::{TrailError, io_error};
use super::segment;

/// Signs what the trail vouches for.
#[derive(Debug)]
pub(super) struct HostKey {
    pair: Ed25519KeyPair,
}

impl HostKey {
    /// Reads the key below `state_dir`, or makes one.
    pub(super) fn read_or_create(state_dir: &Path) -> Result<Self, TrailError> {
        let dir = state_dir.join("keys");
        DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(io_error("create", &dir))?;
        let path = dir.join("checkpoint.p8");
        let document = match fs::read(&path) {
            Ok(document) => document,
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(&dir, &path)?,
            Err(error) => return Err(io_error("read", &path)(error)),
        };
        let pair = Ed25519KeyPair::from_pkcs8(&document)
            .map_err(|error| TrailError::BadKey { path: path.clone(), why: error.to_string() })?;
        let key = Self { pair };
        let public = dir.join("checkpoint.pub");
        fs::write(&public, format!("{}\n", key.public())).map_err(io_error("write", &public))?;
        Ok(key)
    }

    /// The public half, in hexadecimal digits.
    pub(super) fn public(&self) -> String {
        hexadecimal(self.pair.public_key().as_ref())
    }

    /// A signature, in hexadecimal digits.
    pub(super) fn sign(&self, message: &[u8]) -> String {
        hexadecimal(self.pair.sign(message).as_ref())
    }
}

/// Whether the owner of that public key signed the message.
pub(super) fn is_signed(public: &str, message: &[u8], signature: &str) -> bool {
    let (Some(public), Some(signature)) = (bytes_of(public), bytes_of(signature)) else { return false };
    UnparsedPublicKey::new(&ED25519, public).verify(message, &signature).is_ok()
}

/// Makes a key, durable before anything is signed with it.
fn create(dir: &Path, path: &Path) -> Result<Vec<u8>, TrailError> {
    let document = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|error| TrailError::BadKey { path: path.to_owned(), why: error.to_string() })?;
    let draft = dir.join("checkpoint.p8.new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&draft).map_err(io_error("create", &draft))?;
    file.write_all(document.as_ref()).and_then(|()| file.sync_all()).map_err(io_error("write", &draft))?;
    fs::rename(&draft, path).map_err(io_error("write", path))?;
    segment::sync_directory(dir)?;
    Ok(document.as_ref().to_vec())
}
