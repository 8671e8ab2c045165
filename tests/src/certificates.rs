//! Certificates of a test's own: an authority, a server's and a client's, in files as an operator has them.

use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, SanType};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// An authority, and a certificate of it for servers on 127.0.0.1 and of these names.
#[derive(Debug)]
pub struct Certificates {
    dir: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    authority: rcgen::Certificate,
    names: Vec<String>,
}

impl Certificates {
    /// Makes an authority, with its certificate in `dir`.
    ///
    /// # Panics
    ///
    /// If that fails.
    pub fn in_dir(dir: &Path, names: &[&str]) -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "An authority of a test");
        let key = KeyPair::generate().unwrap();
        let authority = params.self_signed(&key).unwrap();
        let names = names.iter().map(|name| (*name).to_owned()).collect();
        std::fs::create_dir_all(dir).unwrap();
        let made = Self { dir: dir.to_owned(), issuer: Issuer::new(params, key), authority, names };
        std::fs::write(made.authority(), made.authority.pem()).unwrap();
        made
    }

    /// The authority's certificate, in PEM.
    pub fn authority(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// A client's certificate and its key, in PEM.
    ///
    /// # Panics
    ///
    /// If they cannot be made.
    pub fn client(&self) -> (PathBuf, PathBuf) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["a-host.example".to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let files = (self.dir.join("client.pem"), self.dir.join("client.key"));
        std::fs::write(&files.0, certificate.pem()).unwrap();
        std::fs::write(&files.1, key.serialize_pem()).unwrap();
        files
    }

    /// What a server needs to speak TLS; one that asks its clients for a certificate of the same authority, where that is wanted.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub fn server(&self, asks_clients: bool) -> ServerConfig {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(self.names.clone()).unwrap();
        params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let builder = if asks_clients {
            let mut roots = RootCertStore::empty();
            roots.add(self.authority.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            builder.unwrap().with_client_cert_verifier(verifier)
        } else {
            builder.unwrap().with_no_client_auth()
        };
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let mut config = builder.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}
