//! Cache keys: what a step's result depends on, as one digest.
//!
//! A key is made of the parent's key, the resolved instruction and the content of what is read. Fields are length-prefixed, so that no two
//! different inputs give the same bytes.

use crate::oci::{Digest, Hasher};

/// Bumped when the meaning of a step changes, so that old records don't answer for it.
const GENERATION: &str = "rootling step 1";

/// Gathers the fields of one key.
pub struct Key(Hasher);

impl Key {
    /// The key of a step that does `action` on what `parent` made.
    pub fn new(parent: &Digest, action: &str) -> Self {
        let mut key = Self(Hasher::new());
        key.field(GENERATION);
        key.field(parent.bytes());
        key.field(action);
        key
    }

    /// Adds one input.
    pub fn field(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        let bytes = bytes.as_ref();
        self.0.update(&(bytes.len() as u64).to_le_bytes());
        self.0.update(bytes);
        self
    }

    /// Adds a number.
    pub fn number(&mut self, number: u64) -> &mut Self {
        self.field(number.to_le_bytes())
    }

    /// Adds a list.
    pub fn list<T: AsRef<[u8]>>(&mut self, items: impl IntoIterator<Item = T>) -> &mut Self {
        let mut count = 0;
        for item in items {
            self.field(item);
            count += 1;
        }
        self.number(count)
    }

    /// The key.
    pub fn finish(self) -> Digest {
        self.0.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_do_not_run_together() {
        let parent = Digest::of("");
        let key = |fields: &[&str]| {
            let mut key = Key::new(&parent, "RUN");
            key.list(fields);
            key.finish()
        };
        assert_ne!(key(&["ab", "c"]), key(&["a", "bc"]));
        assert_ne!(key(&["a"]), key(&["a", ""]));
        assert_eq!(key(&["a", "b"]), key(&["a", "b"]));
    }
}
