//! As much of DER (X.690) as keys need: definite lengths, short tags.

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const OCTET_STRING: u8 = 0x04;
pub(super) const OID: u8 = 0x06;
pub(super) const SEQUENCE: u8 = 0x30;

/// Values one after the other.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next value's content, if it has this tag.
    pub(super) fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        let (&first, rest) = self.0.split_first()?;
        if first != tag {
            return None;
        }
        let (&length, rest) = rest.split_first()?;
        let (length, rest) = match length {
            0..=0x7f => (usize::from(length), rest),
            // More than three bytes of length are no key.
            0x81..=0x83 => {
                let (digits, rest) = rest.split_at_checked(usize::from(length - 0x80))?;
                (digits.iter().fold(0, |number, digit| number << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(content)
    }
}

/// One value.
pub(super) fn value(tag: u8, content: &[u8]) -> Vec<u8> {
    let mut out = vec![tag];
    match content.len() {
        short @ 0..=0x7f => out.push(short as u8),
        long => {
            let digits = long.to_be_bytes();
            let digits = &digits[digits.iter().take_while(|digit| **digit == 0).count()..];
            out.push(0x80 | digits.len() as u8);
            out.extend_from_slice(digits);
        }
    }
    out.extend_from_slice(content);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_writes() {
        for length in [0, 1, 127, 128, 255, 256, 70_000] {
            let content = vec![1; length];
            let bytes = value(SEQUENCE, &content);
            let mut reader = Reader(&bytes);
            assert_eq!(reader.take(SEQUENCE), Some(&content[..]), "{length}");
            assert!(reader.0.is_empty());
        }
    }

    #[test]
    fn refuses_what_is_cut_off() {
        for bytes in [&[][..], &[0x30], &[0x30, 5, 1], &[0x30, 0x81], &[0x30, 0x82, 1], &[0x30, 0x80, 0, 0], &[0x02, 1, 1]] {
            assert!(Reader(bytes).take(SEQUENCE).is_none(), "{bytes:?}");
        }
    }
}
