//! Access control lists (acl(5)) as the values of extended attributes. No I/O.
//!
//! A list repeats the mode: chmod changes its entries for the owner, the mask (else the owning group) and others, and a list with no more than
//! those three is just a mode. What is kept may be older than the mode, so whoever reads a list sets it to the mode first.
//!
//! Layout (linux/posix_acl_xattr.h): a version of 32 bits, then entries of tag (16), permissions (16) and ID (32), little-endian, in the order of
//! their tags.

/// The attribute of the list that holds for a file.
pub const ACCESS_XATTR: &[u8] = b"system.posix_acl_access";

/// The attribute of the list that what is made in a directory gets.
pub const DEFAULT_XATTR: &[u8] = b"system.posix_acl_default";

const VERSION: [u8; 4] = 2_u32.to_le_bytes();
const OWNER: u16 = 0x01;
const USER: u16 = 0x02;
const OWNING_GROUP: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHERS: u16 = 0x20;

/// A list that the kernel would take.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessList {
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: u16,
    permissions: u16,
    id: u32,
}

/// A value that is no list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invalid {
    /// Of another version (`EOPNOTSUPP`).
    Version,
    /// Anything else (`EINVAL`).
    Form,
}

impl AccessList {
    /// Reads an attribute's value; `None` for one without entries, which means no list.
    ///
    /// # Errors
    /// As posix_acl_from_xattr and posix_acl_valid have it (linux/fs/posix_acl.c).
    pub fn parse(value: &[u8]) -> Result<Option<Self>, Invalid> {
        if value.is_empty() {
            return Ok(None);
        }
        let (version, rest) = value.split_first_chunk::<4>().ok_or(Invalid::Form)?;
        if *version != VERSION {
            return Err(Invalid::Version);
        }
        let (entries, incomplete) = rest.as_chunks::<8>();
        if !incomplete.is_empty() {
            return Err(Invalid::Form);
        }
        let list = Self { entries: entries.iter().map(Entry::parse).collect() };
        match list.entries.is_empty() {
            true => Ok(None),
            false if list.is_valid() => Ok(Some(list)),
            false => Err(Invalid::Form),
        }
    }

    fn is_valid(&self) -> bool {
        let count = |tag| self.entries.iter().filter(|e| e.tag == tag).count();
        let named = count(USER) + count(GROUP);
        let single = [OWNER, OWNING_GROUP, OTHERS].iter().all(|&tag| count(tag) == 1);
        let known = count(OWNER) + count(OWNING_GROUP) + count(OTHERS) + count(MASK) + named == self.entries.len();
        let masked = count(MASK) == 1 || count(MASK) == 0 && named == 0;
        single && known && masked && self.entries.is_sorted_by_key(|e| e.tag) && self.entries.iter().all(|e| e.is_valid())
    }

    /// Whether it says no more than a mode does.
    #[must_use]
    pub fn is_mode(&self) -> bool {
        self.entries.len() == 3
    }

    /// The nine permission bits that it stands for.
    #[must_use]
    pub fn mode(&self) -> u32 {
        self.entries.iter().fold(0, |mode, e| mode | self.shift(e.tag).map_or(0, |shift| u32::from(e.permissions) << shift))
    }

    /// The same list after a chmod.
    #[must_use]
    pub fn with_mode(mut self, mode: u32) -> Self {
        for index in 0..self.entries.len() {
            if let Some(shift) = self.shift(self.entries[index].tag) {
                self.entries[index].permissions = (mode >> shift & 7) as u16;
            }
        }
        self
    }

    /// What something made with a mode gets of a directory's default list: its nine permission bits come of both (posix_acl_create_masq).
    #[must_use]
    pub fn inherited(self, mode: u32) -> Self {
        let both = self.mode() & mode;
        self.with_mode(both)
    }

    /// The attribute's value.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = VERSION.to_vec();
        for entry in &self.entries {
            bytes.extend(entry.tag.to_le_bytes());
            bytes.extend(entry.permissions.to_le_bytes());
            bytes.extend(entry.id.to_le_bytes());
        }
        bytes
    }

    /// Where an entry's permissions stand in the mode. With a mask it is that which the group bits show.
    fn shift(&self, tag: u16) -> Option<u32> {
        match tag {
            OWNER => Some(6),
            MASK => Some(3),
            OWNING_GROUP if !self.entries.iter().any(|e| e.tag == MASK) => Some(3),
            OTHERS => Some(0),
            _ => None,
        }
    }
}

impl Entry {
    fn parse(bytes: &[u8; 8]) -> Self {
        let [a, b, c, d, e, f, g, h] = *bytes;
        let tag = u16::from_le_bytes([a, b]);
        // Entries without a name have any ID when they are set, and -1 when they are read.
        let id = if matches!(tag, USER | GROUP) { u32::from_le_bytes([e, f, g, h]) } else { u32::MAX };
        Self { tag, permissions: u16::from_le_bytes([c, d]), id }
    }

    /// ID -1 is nobody's.
    fn is_valid(self) -> bool {
        self.permissions <= 7 && (!matches!(self.tag, USER | GROUP) || self.id != u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: u32 = u32::MAX;

    fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        AccessList { entries: entries.iter().map(|&(tag, permissions, id)| Entry { tag, permissions, id }).collect() }.to_bytes()
    }

    #[test]
    fn lists_round_trip_and_follow_the_mode() {
        let long =
            value(&[(OWNER, 7, NOBODY), (USER, 7, 33), (OWNING_GROUP, 5, NOBODY), (GROUP, 5, 4), (MASK, 5, NOBODY), (OTHERS, 1, NOBODY)]);
        let list = AccessList::parse(&long).unwrap().unwrap();
        assert_eq!(list.to_bytes(), long);
        assert_eq!((list.mode(), list.is_mode()), (0o751, false));
        let changed = list.clone().with_mode(0o640);
        let expected =
            value(&[(OWNER, 6, NOBODY), (USER, 7, 33), (OWNING_GROUP, 5, NOBODY), (GROUP, 5, 4), (MASK, 4, NOBODY), (OTHERS, 0, NOBODY)]);
        assert_eq!(changed.to_bytes(), expected);
        assert_eq!(list.inherited(0o666).mode(), 0o640);

        let short = value(&[(OWNER, 6, NOBODY), (OWNING_GROUP, 4, NOBODY), (OTHERS, 4, NOBODY)]);
        let list = AccessList::parse(&short).unwrap().unwrap();
        assert_eq!((list.mode(), list.is_mode()), (0o644, true));
        assert_eq!(list.with_mode(0o600).mode(), 0o600);
    }

    #[test]
    fn refuses_what_the_kernel_refuses() {
        assert_eq!(AccessList::parse(b""), Ok(None));
        assert_eq!(AccessList::parse(&VERSION), Ok(None));
        assert_eq!(AccessList::parse(b"\x01\0\0\0"), Err(Invalid::Version));
        for (entries, reason) in [
            (&[(OWNER, 7, NOBODY)][..], "no group, no others"),
            (&[(OWNER, 7, 0), (USER, 7, 33), (OWNING_GROUP, 5, 0), (OTHERS, 1, 0)], "a name without a mask"),
            (&[(OWNER, 7, 0), (OTHERS, 1, 0), (OWNING_GROUP, 5, 0)], "another order"),
            (&[(OWNER, 8, 0), (OWNING_GROUP, 5, 0), (OTHERS, 1, 0)], "a permission that is none"),
            (&[(OWNER, 7, 0), (USER, 7, NOBODY), (OWNING_GROUP, 5, 0), (MASK, 7, 0), (OTHERS, 1, 0)], "nobody's ID"),
            (&[(OWNER, 7, 0), (OWNING_GROUP, 5, 0), (OTHERS, 1, 0), (0x40, 1, 0)], "an unknown tag"),
        ] {
            assert_eq!(AccessList::parse(&value(entries)), Err(Invalid::Form), "{reason}");
        }
        assert_eq!(AccessList::parse(&[&VERSION[..], b"\x01\0\0\0"].concat()), Err(Invalid::Form), "half an entry");
    }
}
