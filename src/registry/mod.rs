//! OCI distribution over HTTP; the only module that names the HTTP client.
//!
//! Synchronous outside, tokio inside. No environment variable and no configuration path is known here: [`Settings`] come in as
//! plain data, [`RegistriesConf`] and [`Credentials`] read the files whose paths they are given. Nothing is loaded or started
//! before the first request needs it (CA certificates only for HTTPS).
//!
//! A request passes, outermost first: [`Client`] (endpoints: mirrors, then the registry) -> `transport` (retries, 401, plain
//! HTTP or TLS) -> `redirect` (hops, where credentials may go) -> `connections` (one HTTP client per kind of trust).
//!
//! Two things pass by it: `upload` and `sending`, which send, add to a request what is to be sent; `engine` speaks with Docker's engine over its socket.
//!
//! Not here: what a manifest means (`transfer`).
//!
//! Source: OCI distribution-spec 1.1, Docker's token authentication (distribution, docs/spec/auth), containers-registries.conf(5),
//! containers-auth.json(5), containers-certs.d(5).

mod auth_file;
mod blob;
mod body;
mod challenge;
mod client;
mod connections;
mod credentials;
mod download;
mod engine;
mod fault;
mod helper;
mod log_in;
mod names;
mod payload;
mod redirect;
mod referrers;
mod registries_conf;
mod retry;
mod scope;
mod sending;
mod settings;
mod tags;
mod token;
mod transport;
mod upload;

pub use blob::BlobStream;
pub use client::{Client, FetchedManifest};
pub use credentials::{Credentials, Keeper, Login, OneTime};
pub use download::{Ask, Fetched, Head, Receiver, Validators};
pub use engine::Engine;
pub use log_in::{Admitted, Checked};
pub use registries_conf::{Endpoint, RegistriesConf, Security};
pub use scope::Scope;
pub use settings::{Patience, Settings, TlsVerify};
pub use upload::{Put, Upload};
