//! What an image calls itself: os-release(5).

use std::collections::BTreeMap;

use crate::error::Result;
use crate::oci::ImagePath;
use crate::rootfs::view::View;

/// A distribution; empty fields where the image does not say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    /// `ID`.
    pub id: String,
    /// `VERSION_ID`.
    pub version: String,
    /// `PRETTY_NAME`, else `NAME`.
    pub name: String,
}

const PLACES: [&str; 2] = ["/etc/os-release", "/usr/lib/os-release"];
const LONGEST: u64 = 64 << 10;

pub(super) fn read(view: &View) -> Result<System> {
    for place in PLACES {
        // What can't be read says nothing.
        if let Ok(Some(bytes)) = view.read(&ImagePath::clean(place), LONGEST) {
            return Ok(parse(&String::from_utf8_lossy(&bytes)));
        }
    }
    Ok(System::default())
}

fn parse(text: &str) -> System {
    let field = |line: &str| {
        let (name, value) = line.split_once('=')?;
        let value = value.trim();
        let bare = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote)).unwrap_or(value);
        Some((name.trim().to_owned(), bare.to_owned()))
    };
    let fields: BTreeMap<String, String> = text.lines().filter_map(field).collect();
    let get = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let name = Some(get("PRETTY_NAME")).filter(|name| !name.is_empty()).unwrap_or_else(|| get("NAME"));
    System { id: get("ID").to_lowercase(), version: get("VERSION_ID"), name }
}

impl System {
    /// Namespace and `distro` of package URLs.
    pub(super) fn distribution(&self) -> Option<String> {
        match (self.id.as_str(), self.version.as_str()) {
            ("", _) => None,
            (id, "") => Some(id.to_owned()),
            (id, version) => Some(format!("{id}-{version}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_systems() {
        let system = parse("# x\nID=debian\nVERSION_ID=\"12\"\nNAME='Debian GNU/Linux'\n");
        assert_eq!((system.id.as_str(), system.version.as_str(), system.name.as_str()), ("debian", "12", "Debian GNU/Linux"));
        assert_eq!(system.distribution().as_deref(), Some("debian-12"));
        assert_eq!(parse("").distribution(), None);
    }
}
