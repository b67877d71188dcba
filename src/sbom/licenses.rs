//! Whether what a database says of a licence is an SPDX expression.
//!
//! A document must not name licences that SPDX does not know. Of its several hundred identifiers those are listed that packages use; a text with any
//! other goes into the document as a remark.

const KNOWN: &[&str] = &[
    "0BSD",
    "AFL-2.1",
    "AGPL-3.0-only",
    "AGPL-3.0-or-later",
    "Apache-1.1",
    "Apache-2.0",
    "Artistic-1.0",
    "Artistic-1.0-Perl",
    "Artistic-2.0",
    "BlueOak-1.0.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-2-Clause-Patent",
    "BSD-3-Clause",
    "BSD-4-Clause",
    "BSL-1.0",
    "bzip2-1.0.6",
    "CC-BY-3.0",
    "CC-BY-4.0",
    "CC-BY-SA-4.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "CPL-1.0",
    "curl",
    "EPL-1.0",
    "EPL-2.0",
    "EUPL-1.2",
    "FTL",
    "GFDL-1.3-or-later",
    "GPL-1.0-or-later",
    "GPL-2.0-only",
    "GPL-2.0-or-later",
    "GPL-3.0-only",
    "GPL-3.0-or-later",
    "HPND",
    "ICU",
    "IJG",
    "ISC",
    "LGPL-2.0-only",
    "LGPL-2.0-or-later",
    "LGPL-2.1-only",
    "LGPL-2.1-or-later",
    "LGPL-3.0-only",
    "LGPL-3.0-or-later",
    "Libpng",
    "MIT",
    "MIT-0",
    "MIT-CMU",
    "MPL-1.1",
    "MPL-2.0",
    "NCSA",
    "NTP",
    "OFL-1.1",
    "OLDAP-2.8",
    "OpenSSL",
    "PHP-3.01",
    "PostgreSQL",
    "PSF-2.0",
    "Python-2.0",
    "Ruby",
    "Sleepycat",
    "SMLNJ",
    "TCL",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "UPL-1.0",
    "Vim",
    "W3C",
    "WTFPL",
    "X11",
    "Zlib",
    "ZPL-2.1",
];

const EXCEPTIONS: &[&str] = &[
    "Autoconf-exception-3.0",
    "Bison-exception-2.2",
    "Classpath-exception-2.0",
    "GCC-exception-2.0",
    "GCC-exception-3.1",
    "Linux-syscall-note",
    "LLVM-exception",
    "OpenSSL-exception",
];

/// The expression, if it is one and names nothing unknown. Only the plain form without parentheses: `A AND B WITH C OR D`.
pub(super) fn expression(text: &str) -> Option<&str> {
    let words: Vec<&str> = text.split(' ').collect();
    let mut rest = words.as_slice();
    loop {
        let [license, after @ ..] = rest else { return None };
        if !KNOWN.contains(license) {
            return None;
        }
        rest = match after {
            ["WITH", exception, after @ ..] if EXCEPTIONS.contains(exception) => after,
            after => after,
        };
        match rest {
            [] => return Some(text),
            ["AND" | "OR", after @ ..] => rest = after,
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_expressions() {
        for (text, expected) in [
            ("MIT", true),
            ("MIT AND BSD-2-Clause OR GPL-2.0-or-later", true),
            ("Apache-2.0 WITH LLVM-exception OR MIT", true),
            ("GPLv2+", false),
            ("MIT AND", false),
            ("MIT MIT", false),
            ("MIT WITH something", false),
            ("", false),
            (" MIT", false),
        ] {
            assert_eq!(expression(text).is_some(), expected, "{text}");
        }
    }
}
