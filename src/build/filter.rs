//! Which of a source's files a COPY or ADD takes: `.dockerignore`, `--exclude` and the pattern of `--parents`, asked together in one walk.

use crate::dockerfile::ignore::{Ignore, Matched};
use crate::oci::ImagePath;
use crate::rootfs::meta::Kind;
use crate::rootfs::scan::Selection;

/// The rules for what lies below one directory.
pub struct Filter<'a> {
    /// The directory; `--exclude` and `--parents` speak of paths below it.
    pub top: &'a ImagePath,
    /// `.dockerignore`, which speaks of paths below the root.
    pub ignore: Option<&'a Ignore>,
    /// `--exclude`.
    pub excludes: &'a Ignore,
    /// `--parents`: what alone is taken, and what leads there.
    pub only: Option<&'a Ignore>,
}

/// What is known of a directory.
#[derive(Clone, Default)]
pub struct State {
    ignore: Matched,
    excludes: Matched,
    only: Matched,
}

impl Filter<'_> {
    /// What is known of the top itself.
    pub fn start(&self) -> State {
        let mut state = State::default();
        if let (Some(ignore), false) = (self.ignore, self.top.is_root()) {
            for above in self.top.ancestors().chain([self.top.clone()]) {
                state.ignore = ignore.matches_in(above.as_bytes(), &state.ignore);
            }
        }
        state
    }

    /// Decides about an entry of a directory of which `parent` is known.
    pub fn decide(&self, path: &ImagePath, kind: Kind, parent: &State) -> (Selection, State) {
        let directory = kind == Kind::Directory;
        let mut selection = Selection::Take;
        let mut state = State::default();
        if let Some(ignore) = self.ignore.filter(|ignore| !ignore.is_empty()) {
            state.ignore = ignore.matches_in(path.as_bytes(), &parent.ignore);
            if state.ignore.ignored() {
                if !directory || ignore.can_skip(path.as_bytes()) {
                    return (Selection::Skip, state);
                }
                selection = Selection::IfNeeded;
            }
        }
        let below = below(self.top, path);
        if !self.excludes.is_empty() {
            state.excludes = self.excludes.matches_in(below, &parent.excludes);
            if state.excludes.ignored() {
                if !directory || self.excludes.can_skip(below) {
                    return (Selection::Skip, state);
                }
                selection = Selection::Way;
            }
        }
        if let Some(only) = self.only {
            state.only = only.matches_in(below, &parent.only);
            if !state.only.ignored() {
                if !directory || !only.may_match_below(below) {
                    return (Selection::Skip, state);
                }
                selection = Selection::Way;
            }
        }
        (selection, state)
    }
}

/// The part of a path that follows a directory above it.
pub fn below<'p>(top: &ImagePath, path: &'p ImagePath) -> &'p [u8] {
    if top.is_root() { path.as_bytes() } else { path.as_bytes().get(top.as_bytes().len() + 1..).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ignore(patterns: &[&str]) -> Ignore {
        Ignore::from_patterns(patterns.iter().copied()).unwrap()
    }

    /// What is said of a directory or file `path`, asked as a walk asks.
    fn decided(filter: &Filter<'_>, path: &str, kind: Kind) -> Selection {
        let path = ImagePath::clean(path);
        let mut state = filter.start();
        let above: Vec<_> = path.ancestors().filter(|above| above.starts_with(filter.top) && above != filter.top).collect();
        for above in above {
            let (selection, next) = filter.decide(&above, Kind::Directory, &state);
            if selection == Selection::Skip {
                return selection;
            }
            state = next;
        }
        filter.decide(&path, kind, &state).0
    }

    #[test]
    fn the_three_speak_of_different_roots() {
        let top = ImagePath::clean("src");
        let (ignored, excludes, only) = (ignore(&["src/*.o", "*.md"]), ignore(&["*.c", "!keep.c", "tmp"]), ignore(&["lib/**/h"]));
        let filter = Filter { top: &top, ignore: Some(&ignored), excludes: &excludes, only: None };
        for (path, kind, expected) in [
            ("src/a.o", Kind::File, Selection::Skip),
            ("src/a.md", Kind::File, Selection::Take),
            ("src/a.c", Kind::File, Selection::Skip),
            ("src/keep.c", Kind::File, Selection::Take),
            ("src/d/a.c", Kind::File, Selection::Take),
            ("src/tmp", Kind::Directory, Selection::Skip),
            ("src/tmp/x", Kind::File, Selection::Skip),
        ] {
            assert_eq!(decided(&filter, path, kind), expected, "{path}");
        }
        let filter = Filter { only: Some(&only), excludes: &ignore(&[]), ..filter };
        for (path, kind, expected) in [
            ("src/lib", Kind::Directory, Selection::Way),
            ("src/lib/x/y", Kind::Directory, Selection::Way),
            ("src/lib/x/h", Kind::File, Selection::Take),
            ("src/lib/h", Kind::Directory, Selection::Take),
            ("src/lib/h/x", Kind::File, Selection::Take),
            ("src/lib/x/g", Kind::File, Selection::Skip),
            ("src/bin", Kind::Directory, Selection::Skip),
        ] {
            assert_eq!(decided(&filter, path, kind), expected, "{path}");
        }
    }
}
