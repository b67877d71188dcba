//! The name that was probably meant, as BuildKit suggests it.

/// Changes of one letter that still are a slip; from here on it is another name.
const TOO_MANY: usize = 3;

/// Letters of the longest name compared: the comparison takes length times length.
const LONGEST: usize = 100;

/// The first of the nearest options; none if one is the name itself.
pub(super) fn suggest<'a>(name: &str, options: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let mut best = (TOO_MANY, None);
    for option in options {
        if option == name {
            return None;
        }
        if name.len() <= LONGEST && option.len().abs_diff(name.len()) < 4 * TOO_MANY {
            let distance = distance(name, option);
            if distance < best.0 {
                best = (distance, Some(option));
            }
        }
    }
    best.1
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, cb) in b.iter().enumerate() {
            let changed = diagonal + usize::from(ca != *cb);
            diagonal = std::mem::replace(&mut row[j + 1], 0);
            row[j + 1] = changed.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised() {
        for (name, expected) in [
            ("PAHT", Some("PATH")),
            ("DIR_ASSET", Some("DIR_ASSETS")),
            ("BULIDPLATFORM", Some("BUILDPLATFORM")),
            ("PATH", None),
            ("path", None),
            ("version", None),
        ] {
            assert_eq!(suggest(name, ["PATH", "DIR_ASSETS", "BUILDPLATFORM"]), expected, "{name}");
        }
        assert_eq!(suggest(&"x".repeat(1 << 20), ["x"]), None);
    }
}
