//! What a [`Client`](super::Client) is told, as plain data.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{Credentials, RegistriesConf};
use crate::event::{Silent, Sink};

/// Everything a client is told from outside.
#[derive(Clone)]
pub struct Settings {
    /// Mirrors, blocked and insecure registries.
    pub registries: RegistriesConf,
    /// Who we are where.
    pub credentials: Credentials,
    /// Whether servers must prove who they are.
    pub tls: TlsVerify,
    /// Directories with one subdirectory `host[:port]` each: `*.crt` are CAs, `*.cert` with `*.key` a client's certificate.
    pub certificate_dirs: Vec<PathBuf>,
    /// A directory with such files for every registry; then the only one.
    pub certificates: Option<PathBuf>,
    /// Further CA certificates (PEM) trusted for every registry.
    pub ca_files: Vec<PathBuf>,
    /// The `User-Agent` header.
    pub user_agent: String,
    /// When to give up.
    pub patience: Patience,
    /// Bytes of a blob to send at once; all if not given, and less where a registry wants that.
    pub chunk_size: Option<u64>,
    /// Told when a registry makes us wait.
    pub notices: Arc<dyn Sink>,
}

/// Whether servers must prove who they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVerify {
    /// As `registries.conf` says; verified where it says nothing. Loopback addresses may speak plain HTTP.
    #[default]
    Configured,
    /// Always verified, and never plain HTTP (`--tls-verify=true`).
    Always,
    /// Never verified, and plain HTTP is accepted (`--tls-verify=false`).
    Never,
}

/// When to give up.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Longest time to open a connection.
    pub connect: Duration,
    /// A server that sends less than 32 KiB in this time has stalled.
    pub stall: Duration,
    /// Attempts in a row without progress.
    pub attempts: u32,
    /// Wait before the second attempt; doubles each time.
    pub first_delay: Duration,
    /// Longest wait between two attempts, whatever `Retry-After` asks.
    pub longest_delay: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(20),
            stall: Duration::from_secs(45),
            attempts: 6,
            first_delay: Duration::from_millis(400),
            longest_delay: Duration::from_secs(60),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            registries: RegistriesConf::default(),
            credentials: Credentials::default(),
            tls: TlsVerify::default(),
            certificate_dirs: Vec::new(),
            certificates: None,
            ca_files: Vec::new(),
            user_agent: concat!("rootling/", env!("CARGO_PKG_VERSION")).into(),
            patience: Patience::default(),
            chunk_size: None,
            notices: Arc::new(Silent),
        }
    }
}
