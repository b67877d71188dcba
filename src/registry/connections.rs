//! HTTP clients, one for each kind of trust, made when first needed.
//!
//! Loading the system's CA certificates takes 10 ms and more, so plain HTTP never does it.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use reqwest::Url;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};

use super::fault;
use super::names;
use super::registries_conf::Security;
use super::settings::Settings;
use crate::error::{Error, IoContext as _, Result};

/// The HTTP clients of one [`Client`](super::Client).
pub(super) struct Connections {
    settings: Arc<Settings>,
    provider: Arc<CryptoProvider>,
    roots: OnceLock<Arc<RootCertStore>>,
    made: Mutex<HashMap<Key, reqwest::Client>>,
    /// Names that only the site's name service knows.
    names: Mutex<BTreeMap<String, Vec<SocketAddr>>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct Key {
    /// Never through a proxy.
    loopback: bool,
    /// `None` for plain HTTP.
    tls: Option<(Security, HostCertificates)>,
    /// Set if DNS does not know the host.
    addresses: Option<(String, Vec<SocketAddr>)>,
}

/// What `certs.d` has for one host; empty for nearly every host, so that they share a client.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
struct HostCertificates {
    authorities: Vec<Vec<u8>>,
    /// Certificate and key, PEM.
    identity: Option<(Vec<u8>, Vec<u8>)>,
}

impl Connections {
    pub(super) fn new(settings: Arc<Settings>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        Self { settings, provider, roots: OnceLock::new(), made: Mutex::default(), names: Mutex::default() }
    }

    /// The client for a URL.
    pub(super) fn client(&self, url: &Url, security: Security) -> Result<reqwest::Client> {
        let tls = match url.scheme() {
            "https" => Some((security, self.host_certificates(url)?)),
            _ => None,
        };
        let host = url.host_str().unwrap_or_default();
        let addresses = self.names().get(host).map(|addresses| (host.to_owned(), addresses.clone()));
        let key = Key { loopback: is_loopback(host), tls, addresses };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = made.get(&key) {
            return Ok(client.clone());
        }
        let client = self.make(&key)?;
        made.insert(key, client.clone());
        Ok(client)
    }

    /// Asks the site's name service for a host that DNS does not know; whether that made a difference.
    pub(super) fn look_up_elsewhere(&self, url: &Url) -> bool {
        let host = url.host_str().unwrap_or_default();
        if self.names().contains_key(host) {
            return false;
        }
        let addresses = names::ask_getent(host);
        !addresses.is_empty() && self.names().insert(host.to_owned(), addresses).is_none()
    }

    fn names(&self) -> MutexGuard<'_, BTreeMap<String, Vec<SocketAddr>>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make(&self, key: &Key) -> Result<reqwest::Client> {
        let config = match &key.tls {
            // Never used for a handshake, but the HTTP client insists on one.
            None => self.config(Arc::new(RootCertStore::empty()), Security::Verified, &HostCertificates::default())?,
            Some((Security::Insecure, own)) => self.config(Arc::new(RootCertStore::empty()), Security::Insecure, own)?,
            Some((Security::Verified, own)) => self.config(self.roots_with(own)?, Security::Verified, own)?,
        };
        let builder = reqwest::Client::builder()
            .tls_backend_preconfigured(config)
            .user_agent(&self.settings.user_agent)
            .connect_timeout(self.settings.patience.connect)
            // Hops are followed by `redirect`, which knows where credentials may go.
            .redirect(reqwest::redirect::Policy::none())
            // One connection for each layer: over long distances several connections carry more than one, and a layer that
            // unpacks slowly can't use up the flow-control window of the others.
            .http1_only();
        // Go's programs, curl users and everybody's scripts expect this machine never to be reached through a proxy.
        let builder = if key.loopback { builder.no_proxy() } else { builder };
        let builder = match &key.addresses {
            Some((host, addresses)) => builder.resolve_to_addrs(host, addresses),
            None => builder,
        };
        builder.build().map_err(|e| Error::new("can't set up HTTP").cause(e))
    }

    fn config(&self, roots: Arc<RootCertStore>, security: Security, own: &HostCertificates) -> Result<ClientConfig> {
        let bad = |e: &dyn std::fmt::Display| Error::new("can't set up TLS").cause(e);
        let builder = ClientConfig::builder_with_provider(self.provider.clone());
        let builder = builder.with_safe_default_protocol_versions().map_err(|e| bad(&e))?;
        let builder = match security {
            Security::Verified => builder.with_root_certificates(roots),
            Security::Insecure => {
                builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAnybody { provider: self.provider.clone() }))
            }
        };
        let Some((certificate, key)) = &own.identity else { return Ok(builder.with_no_client_auth()) };
        let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>().map_err(|e| bad(&e))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| bad(&e))?;
        builder.with_client_auth_cert(chain, key).map_err(|e| bad(&e))
    }

    /// The system's CA certificates and those of the settings; Mozilla's list where the system has none, as in bare containers.
    fn roots(&self) -> Result<Arc<RootCertStore>> {
        if let Some(roots) = self.roots.get() {
            return Ok(roots.clone());
        }
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if store.is_empty() {
            store.add_parsable_certificates(webpki_root_certs::TLS_SERVER_ROOT_CERTS.iter().cloned());
        }
        for file in &self.settings.ca_files {
            add_authorities(&mut store, &std::fs::read(file).doing("read", file)?).map_err(|e| e.at_file(file))?;
        }
        Ok(self.roots.get_or_init(|| Arc::new(store)).clone())
    }

    fn roots_with(&self, own: &HostCertificates) -> Result<Arc<RootCertStore>> {
        let roots = self.roots()?;
        if own.authorities.is_empty() {
            return Ok(roots);
        }
        let mut store = RootCertStore::clone(&roots);
        for pem in &own.authorities {
            add_authorities(&mut store, pem)?;
        }
        Ok(Arc::new(store))
    }

    /// Reads the directory for every host, else `DIR/host[:port]/`; the first directory that has the host counts, as for podman.
    fn host_certificates(&self, url: &Url) -> Result<HostCertificates> {
        let host = fault::host(url);
        let dir = match &self.settings.certificates {
            Some(dir) => Some(dir.clone()),
            None => self.settings.certificate_dirs.iter().map(|dir| dir.join(&host)).find(|dir| dir.is_dir()),
        };
        let Some(dir) = dir else { return Ok(HostCertificates::default()) };
        let mut found = HostCertificates::default();
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&dir).doing("read", &dir)? {
            names.push(entry.doing("read", &dir)?.path());
        }
        names.sort();
        for path in names {
            match path.extension().and_then(|e| e.to_str()) {
                Some("crt") => found.authorities.push(std::fs::read(&path).doing("read", &path)?),
                Some("cert") if found.identity.is_none() => {
                    let key = path.with_extension("key");
                    let pair = (std::fs::read(&path).doing("read", &path)?, std::fs::read(&key).doing("read", &key)?);
                    found.identity = Some(pair);
                }
                _ => {}
            }
        }
        Ok(found)
    }
}

/// Adds the path to an error about a certificate file.
trait AtFile {
    fn at_file(self, file: &Path) -> Self;
}

impl AtFile for Error {
    fn at_file(self, file: &Path) -> Self {
        self.at(crate::error::Place::Path(file.to_owned()))
    }
}

fn add_authorities(store: &mut RootCertStore, pem: &[u8]) -> Result<()> {
    let bad = |e: &dyn std::fmt::Display| Error::input("invalid CA certificate").cause(e);
    let before = store.len();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        store.add(certificate.map_err(|e| bad(&e))?).map_err(|e| bad(&e))?;
    }
    if store.len() == before {
        return Err(bad(&"no `BEGIN CERTIFICATE` in it"));
    }
    Ok(())
}

/// Whether a host's name means this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare == "localhost" || bare.ends_with(".localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// For `--tls-verify=false`: any certificate will do; signatures are still checked, which costs nothing.
#[derive(Debug)]
struct AcceptAnybody {
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for AcceptAnybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_this_machine() {
        for (host, expected) in [
            ("localhost", true),
            ("a.localhost", true),
            ("127.8.8.8", true),
            ("[::1]", true),
            ("::1", true),
            ("10.0.0.1", false),
            ("localhost.example", false),
        ] {
            assert_eq!(is_loopback(host), expected, "{host}");
        }
    }
}
