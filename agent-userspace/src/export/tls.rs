//! Whom we trust and who we say we are, when a receiver is reached over TLS.

use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::files::{FileError, FileProblem, NamedFile};

/// The files of certificates that a target names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// The authorities that a receiver's certificate must be of; none: those of the host's store.
    pub ca: Option<NamedFile>,
    /// What we show to a receiver that asks who we are.
    pub client: Option<ClientFiles>,
}

/// Our own certificate, with those between it and its authority, and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientFiles {
    /// The certificates.
    pub certificate: NamedFile,
    /// The key.
    pub key: NamedFile,
}

impl TlsFiles {
    /// Every file there is.
    pub(super) fn all(&self) -> impl Iterator<Item = &NamedFile> {
        let client = self.client.iter().flat_map(|client| [&client.certificate, &client.key]);
        self.ca.iter().chain(client)
    }
}

/// TLS cannot be prepared.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error(transparent)]
    File(#[from] FileError),
    /// The host's store is empty, or cannot be read.
    #[error("the host's certificates cannot be read{}; install ca-certificates, or name a file with `ca_file` or OTEL_EXPORTER_OTLP_CERTIFICATE", because(.0.as_ref()))]
    Store(Option<rustls_native_certs::Error>),
    /// The library cannot do what we ask.
    #[error("TLS cannot be prepared: {0}")]
    Library(rustls::Error),
}

fn because(error: Option<&rustls_native_certs::Error>) -> String {
    error.map(|error| format!(" ({error})")).unwrap_or_default()
}

/// What a connection over TLS is made with.
pub(super) fn client_config(files: &TlsFiles) -> Result<ClientConfig, TlsError> {
    let roots = match &files.ca {
        Some(file) => authorities(file)?,
        None => host_store()?,
    };
    let builder = builder()?.with_root_certificates(roots);
    let Some(client) = &files.client else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(&client.certificate)?;
    let key = PrivateKeyDer::from_pem_slice(&client.key.read()?).map_err(|error| match error {
        pem::Error::NoItemsFound => client.key.error(FileProblem::NoPem("private key", "PRIVATE KEY")),
        error => client.key.error(FileProblem::Pem(error)),
    })?;
    builder
        .with_client_auth_cert(chain, key)
        .map_err(|error| client.certificate.error(FileProblem::Refused(error)).into())
}

/// For a receiver that is reached without TLS: a connection over TLS would trust nobody.
pub(super) fn no_tls() -> Result<ClientConfig, TlsError> {
    Ok(builder()?.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
}

fn builder() -> Result<rustls::ConfigBuilder<ClientConfig, rustls::WantsVerifier>, TlsError> {
    ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Library)
}

fn certificates(file: &NamedFile) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&file.read()?).collect();
    match read {
        Ok(found) if found.is_empty() => Err(file.error(FileProblem::NoPem("certificate", "CERTIFICATE"))),
        Ok(found) => Ok(found),
        Err(error) => Err(file.error(FileProblem::Pem(error))),
    }
}

fn authorities(file: &NamedFile) -> Result<RootCertStore, FileError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| file.error(FileProblem::Refused(error)))?;
    }
    Ok(roots)
}

fn host_store() -> Result<RootCertStore, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // A store has certificates of all ages; one that cannot be read must not make the others useless.
    let (usable, _unusable) = roots.add_parsable_certificates(found.certs);
    if usable == 0 { Err(TlsError::Store(found.errors.into_iter().next())) } else { Ok(roots) }
}
