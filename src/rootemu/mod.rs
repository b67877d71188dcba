//! Root emulation: system call tables, filter, supervisor.
use crate::error::Result;
use crate::oci::ImagePath;
use crate::rootfs::meta::Override;
use serde_json::Value;
use std::collections::BTreeMap;
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode { Consistent, SuccessOnly, None }
pub struct User { pub uid: u32, pub gid: u32, pub groups: Vec<u32> }
pub struct EmulationSpec;
impl EmulationSpec {
    pub fn new(_: Mode, _: User) -> Self { Self }
    pub fn with_owners<'a>(self, _: impl IntoIterator<Item = (&'a ImagePath, Override)>) -> Self { self }
    pub fn to_value(&self) -> Value { Value::Null }
}
#[derive(Default)]
pub struct Report;
impl Report {
    pub fn from_value(_: &Value) -> Result<Self> { Ok(Self) }
    pub fn overrides(&self) -> BTreeMap<ImagePath, Override> { BTreeMap::new() }
}
pub struct Emulation;
impl crate::sandbox::Emulator for Emulation {
    fn install(&self, _: &Value) -> Result<Option<std::os::fd::OwnedFd>> { Ok(None) }
    fn supervise(&self, _: &Value, _: std::os::fd::OwnedFd, _: crate::sandbox::Supervision) -> Result<Value> { Ok(Value::Null) }
}
