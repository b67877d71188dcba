//! Extended attributes: sets of them, each stored once and named by a number.
//!
//! squashfs has three classes of names. What is in none of them (access control lists: `system.posix_acl_access`) keeps the name under
//! which layers keep it on disk, in `user.`: other programs pass over it, and an import finds it again.

use std::collections::HashMap;
use std::io;

use super::codec::Encoder;
use super::metadata::{Listed, Table};
use crate::rootfs::meta::KEPT_XATTR_PREFIX;
use crate::rootfs::record::Xattrs;

/// The classes of names by their numbers.
pub(super) const CLASSES: [&[u8]; 3] = [b"user.", b"trusted.", b"security."];

/// The sets met, in that order.
#[derive(Default)]
pub(super) struct Sets {
    numbers: HashMap<Xattrs, u32>,
    sets: Vec<Xattrs>,
}

impl Sets {
    /// A set's number; `None` for an empty one.
    pub fn number(&mut self, set: Xattrs) -> Option<u32> {
        if set.is_empty() {
            return None;
        }
        if let Some(&number) = self.numbers.get(&set) {
            return Some(number);
        }
        let number = u32::try_from(self.sets.len()).ok()?;
        self.numbers.insert(set.clone(), number);
        self.sets.push(set);
        Some(number)
    }

    pub fn is_empty(&self) -> bool {
        self.sets.is_empty()
    }

    /// The table, which is going to begin at `at`.
    pub fn table(&self, encoder: &mut Encoder, at: u64) -> io::Result<Listed> {
        let mut ids = Vec::new();
        let mut pairs = Table::new(encoder);
        for set in &self.sets {
            let reference = pairs.position().reference();
            let mut names = 0;
            for (name, value) in set {
                let (class, rest) = class(name);
                names += CLASSES[usize::from(class)].len() + rest.len() + 1;
                let mut pair = Vec::with_capacity(rest.len() + value.len() + 8);
                pair.extend(class.to_le_bytes());
                pair.extend(u16::try_from(rest.len()).unwrap_or(u16::MAX).to_le_bytes());
                pair.extend(&rest);
                pair.extend(u32::try_from(value.len()).unwrap_or(u32::MAX).to_le_bytes());
                pair.extend(value);
                pairs.write(&pair)?;
            }
            ids.extend(reference.to_le_bytes());
            ids.extend(u32::try_from(set.len()).unwrap_or(u32::MAX).to_le_bytes());
            ids.extend(u32::try_from(names).unwrap_or(u32::MAX).to_le_bytes());
        }
        let (mut bytes, _) = pairs.finish()?;
        // In front of the list: where the pairs begin, how many sets there are.
        let mut header = at.to_le_bytes().to_vec();
        header.extend(u32::try_from(self.sets.len()).unwrap_or(u32::MAX).to_le_bytes());
        header.extend([0; 4]);
        let listed = Listed::new(encoder, &ids, at + bytes.len() as u64, &header)?;
        bytes.extend(listed.bytes);
        Ok(Listed { bytes, list: listed.list })
    }
}

/// A name as its class and the rest.
fn class(name: &[u8]) -> (u16, Vec<u8>) {
    for (number, prefix) in (0..).zip(CLASSES) {
        if let Some(rest) = name.strip_prefix(prefix) {
            return (number, rest.to_vec());
        }
    }
    let kept = [KEPT_XATTR_PREFIX.as_bytes(), name].concat();
    (0, kept[CLASSES[0].len()..].to_vec())
}

/// The name in the image of one read from a squashfs image.
pub(super) fn image_name(class: u16, rest: &[u8]) -> Option<Vec<u8>> {
    let name = [*CLASSES.get(usize::from(class))?, rest].concat();
    match name.strip_prefix(KEPT_XATTR_PREFIX.as_bytes()) {
        // What has a class was not kept by us.
        Some(kept) if kept.is_empty() || CLASSES.iter().any(|prefix| kept.starts_with(prefix)) => None,
        Some(kept) => Some(kept.to_vec()),
        None => Some(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for (name, number, rest) in [
            (&b"user.mime"[..], 0, &b"mime"[..]),
            (b"trusted.x", 1, b"x"),
            (b"security.capability", 2, b"capability"),
            (b"system.posix_acl_access", 0, b"rootling.xattr.system.posix_acl_access"),
        ] {
            assert_eq!(class(name), (number, rest.to_vec()));
            assert_eq!(image_name(number, rest).as_deref(), Some(name));
        }
        for (number, rest) in [(3, &b"x"[..]), (0, b"rootling.xattr.security.capability"), (0, b"rootling.xattr.")] {
            assert_eq!(image_name(number, rest), None, "forged");
        }
    }
}
