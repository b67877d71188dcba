//! The program as its users meet it: one binary of integration tests, each module one promise.
//!
//! The tests run as an ordinary user without subuids (`tests/as-user` sees to it under root). A test whose means are
//! missing skips with a reason, which is a failure under `CI=true`.

mod attest;
mod build;
mod cache;
mod cache_mounts;
mod check;
mod coming_from;
mod concurrency;
mod contexts;
mod copies;
mod copy;
mod corpus;
mod cuts;
mod fakeroot;
mod formats;
mod fulldisk;
mod hostile;
mod hostile_archives;
mod image_options;
mod interop;
mod kill;
mod listing;
mod login;
mod manifest;
mod matrix;
mod mounts;
mod outputs;
mod ownership;
mod platforms;
mod push;
mod registries;
mod registry;
mod remote;
mod reproducible;
mod rig;
mod round_trip;
mod run;
mod sbom;
mod scenes;
mod schemas;
mod secrets;
mod separated;
mod served;
mod squashfs;
mod stages;
mod timeline;
mod trust;
mod unchanged;
mod verify;
mod web;
mod with_spec;
mod workspace;
