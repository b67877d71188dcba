//! `host:sh,ls,…`: an image of programs of this machine and of what they need to run.
//!
//! Taken are: the programs, the interpreters of scripts, the dynamic loader and the libraries they name, all under the names
//! they have here. What programs open by themselves (plugins, `libnss_*`, data files) is not known and not taken.

mod elf;
mod search;
mod tree;

use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

use self::elf::Needs;
use self::search::Search;
use self::tree::{Taken, Tree};
use crate::error::{Error, IoContext as _, Kind, Result, nearest, quote, quote_path};

const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";
/// A script's interpreter may be a script; the kernel allows four.
const MOST_INTERPRETERS: usize = 5;
/// The kernel's BINPRM_BUF_SIZE.
const LONGEST_SHEBANG: usize = 256;

/// The image's files.
pub(super) struct Closure {
    tree: Tree,
    search: Search,
    /// `PATH`.
    directories: Vec<PathBuf>,
}

impl Closure {
    /// Collects the programs: names to be found in `search_path` (as `PATH` is written), or absolute paths.
    pub(super) fn collect(programs: &str, search_path: &str) -> Result<Self> {
        let directories = search_path.split(':').filter(|dir| dir.starts_with('/')).map(PathBuf::from).collect();
        let mut closure = Self { tree: Tree::default(), search: Search::of_this_machine(), directories };
        closure.skeleton();
        let mut names = programs.split(',').map(str::trim).filter(|name| !name.is_empty()).peekable();
        if names.peek().is_none() {
            return Err(Error::input("no program named").hint("name some: `host:sh,ls,cat`"));
        }
        for name in names {
            let path = closure.find(name)?;
            closure.program(&path, 0)?;
        }
        Ok(closure)
    }

    /// Writes the layer's tar.
    pub(super) fn write(&self, out: impl Write) -> Result<()> {
        self.tree.write(out)
    }

    fn skeleton(&mut self) {
        for (path, mode) in [
            ("dev", 0o755),
            ("etc", 0o755),
            ("proc", 0o755),
            ("root", 0o700),
            ("sys", 0o755),
            ("tmp", 0o1777),
            ("var", 0o755),
            ("var/tmp", 0o1777),
        ] {
            self.tree.directory(path, mode);
        }
        // Where `/bin` is a link to `usr/bin`, programs and scripts count on both names.
        for name in ["bin", "sbin", "lib", "lib64"] {
            match std::fs::read_link(Path::new("/").join(name)) {
                Ok(target) if target.is_relative() => {
                    self.tree.symlink(Path::new(name), &target);
                    self.tree.directory(&target.to_string_lossy(), 0o755);
                }
                _ => self.tree.directory(name, 0o755),
            }
        }
        self.tree.bytes("etc/passwd", PASSWD);
        self.tree.bytes("etc/group", GROUP);
    }

    fn find(&self, name: &str) -> Result<PathBuf> {
        if name.contains('/') {
            let path = PathBuf::from(name);
            return match path.is_absolute() {
                false => Err(Error::input(format!("program {} is neither a name nor an absolute path", quote(name)))),
                true if path.is_file() => Ok(path),
                true => Err(Error::with_kind(Kind::NotFound, format!("no program {} on this machine", quote(name)))),
            };
        }
        if let Some(path) = self.directories.iter().map(|dir| dir.join(name)).find(|path| path.is_file()) {
            return Ok(path);
        }
        let entries = self.directories.iter().filter_map(|dir| std::fs::read_dir(dir).ok()).flatten().flatten();
        let known: Vec<String> = entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        let error = Error::with_kind(Kind::NotFound, format!("no program {} on this machine", quote(name)));
        let searched = self.directories.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ");
        Err(match nearest(name, known.iter().map(String::as_str)) {
            Some(near) => error.cause(format!("searched {searched}")).hint(format!("did you mean {}?", quote(near))),
            None => error.cause(format!("searched {searched}")),
        })
    }

    /// Takes a program, with its interpreter if it is a script, with its libraries if it is not.
    fn program(&mut self, path: &Path, depth: usize) -> Result<()> {
        let (real, taken) = self.tree.take(path)?;
        if taken == Taken::Before {
            return Ok(());
        }
        if let Some(needs) = elf::read(&real)? {
            let Some(loader) = &needs.interpreter else { return Ok(()) };
            let loader = PathBuf::from(String::from_utf8_lossy(loader).into_owned());
            self.program(&loader, depth)?;
            return self.libraries(&real, &needs, &[], &loader);
        }
        for interpreter in self.interpreters(&real)? {
            if depth == MOST_INTERPRETERS {
                return Err(Error::input(format!("too many interpreters on the way to run {}", quote_path(path))));
            }
            self.program(&interpreter, depth + 1).map_err(|e| e.context(format!("can't take the interpreter of {}", quote_path(path))))?;
        }
        Ok(())
    }

    fn libraries(&mut self, file: &Path, needs: &Needs, inherited: &[PathBuf], loader: &Path) -> Result<()> {
        let origin = file.parent().unwrap_or(Path::new("/")).to_owned();
        let mut passed_on: Vec<PathBuf> = Vec::new();
        if needs.runpath.is_empty() {
            passed_on.extend(needs.rpath.iter().flat_map(|dir| search::expand(dir, &origin)));
            passed_on.extend_from_slice(inherited);
        }
        for name in &needs.libraries {
            let found = self.search.library(name, needs, &origin, inherited, loader)?.ok_or_else(|| {
                Error::with_kind(Kind::NotFound, format!("library {} of {} is not on this machine", quote(name), quote_path(file)))
                    .hint(format!("does the program run here? `ldd {}` shows what is missing", file.display()))
            })?;
            if found.configured_only {
                // The image has no loader cache, so the library also needs a name where the loader looks without one.
                let default = std::fs::canonicalize(loader).doing("find", loader)?;
                let name = found.path.file_name().unwrap_or_default();
                self.tree.symlink(&default.with_file_name(name), &found.path);
            }
            let (real, taken) = self.tree.take(&found.path)?;
            if taken == Taken::Now
                && let Some(library) = elf::read(&real)?
            {
                self.libraries(&real, &library, &passed_on, loader)?;
            }
        }
        Ok(())
    }

    /// What a `#!` line names; `env` brings the program it runs.
    fn interpreters(&self, script: &Path) -> Result<Vec<PathBuf>> {
        let mut start = Vec::new();
        let file = std::fs::File::open(script).doing("open", script)?;
        file.take(LONGEST_SHEBANG as u64).read_to_end(&mut start).doing("read", script)?;
        let Some(line) = start.strip_prefix(b"#!").and_then(|rest| rest.split(|b| *b == b'\n').next()) else { return Ok(Vec::new()) };
        let line = String::from_utf8_lossy(line).into_owned();
        let mut words = line.split_ascii_whitespace();
        let Some(interpreter) = words.next() else { return Ok(Vec::new()) };
        let mut found = vec![PathBuf::from(interpreter)];
        if Path::new(interpreter).file_name().is_some_and(|name| name == "env")
            && let Some(program) = words.find(|word| !word.starts_with('-') && !word.contains('='))
        {
            found.push(self.find(program)?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATH: &str = "/usr/local/bin:/usr/bin:/bin";

    fn script(dir: &Path, name: &str, text: &str) -> String {
        let path = dir.join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    #[test]
    fn takes_what_a_program_needs() {
        let closure = Closure::collect("sh, ls", PATH).unwrap();
        let names = closure.tree.names();
        for wanted in ["/etc/passwd", "/tmp"] {
            assert!(names.iter().any(|n| n == wanted), "{wanted} in {names:?}");
        }
        for ending in ["/sh", "/ls", "/libc.so.6"] {
            assert!(names.iter().any(|n| n.ends_with(ending)), "{ending} in {names:?}");
        }
        assert!(names.iter().any(|n| n.contains("/ld-linux")), "{names:?}");
    }

    #[test]
    fn takes_interpreters() {
        let dir = tempfile::tempdir().unwrap();
        let plain = script(dir.path(), "plain", "#! /bin/sh -e\n");
        let by_env = script(dir.path(), "by-env", "#!/usr/bin/env -S cat\n");
        for (program, ending) in [(plain, "/sh"), (by_env, "/cat")] {
            let names = Closure::collect(&program, PATH).unwrap().tree.names();
            assert!(names.iter().any(|n| n.ends_with(ending)), "{program}: {names:?}");
        }
        let data = script(dir.path(), "data", "no program at all");
        assert!(Closure::collect(&data, PATH).unwrap().tree.names().contains(&data));
    }

    #[test]
    fn says_what_is_missing() {
        let dir = tempfile::tempdir().unwrap();
        let myself = script(dir.path(), "myself", &format!("#!{}/myself\n", dir.path().display()));
        assert!(Closure::collect(&myself, PATH).is_ok(), "it is there already");
        let lost = script(dir.path(), "lost", "#!/no/such/interpreter\n");
        for (programs, expected) in [
            ("", "no program named"),
            ("sh,no-such-program-here", "no program `no-such-program-here`"),
            ("./sh", "neither a name nor an absolute path"),
            ("/no/such", "no program `/no/such`"),
            (lost.as_str(), "can't take the interpreter"),
        ] {
            let error = Closure::collect(programs, PATH).err().unwrap();
            assert!(error.to_string().contains(expected), "{error}");
        }
        let error = Closure::collect("gzp", PATH).err().unwrap();
        assert!(error.hints().iter().any(|h| h.contains("did you mean")), "{error:?}");
    }
}
