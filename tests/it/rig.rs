//! What every test needs: a storage directory of its own, the program with a clean environment, and a base image.

use std::ffi::OsStr;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;

use tempfile::TempDir;

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_rootling");

/// Programs of this machine that the base image of the tests is made of.
const BASE: &str =
    "host:sh,ls,cat,cp,mv,rm,ln,mkdir,touch,chmod,chown,stat,id,env,sleep,true,false,echo,find,dd,sort,head,readlink,test,seq,pwd,mkfifo";

/// A storage directory and a scratch directory that vanish with it.
pub struct Rig {
    scratch: TempDir,
    storage: PathBuf,
    /// Words put before the program, such as a program that sets a stage for it.
    wrapper: Vec<String>,
    /// Where the storage directory really is, if not in `scratch`.
    behind: Option<TempDir>,
}

/// What a run of the program ended with.
pub struct Ran {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    line: String,
}

impl Rig {
    /// An empty storage directory.
    pub fn new() -> Rig {
        let scratch = TempDir::with_prefix("rootling-it.").unwrap();
        let storage = scratch.path().join("storage");
        Rig { scratch, storage, wrapper: Vec::new(), behind: None }
    }

    /// A storage directory that holds `base`, made of programs of this machine.
    pub fn with_base() -> Rig {
        let rig = Rig::new();
        rig.ok(["import", BASE, "base"]);
        rig
    }

    /// The same with another storage directory, which may lie on another file system.
    pub fn at(storage: PathBuf, wrapper: &[&str]) -> Rig {
        Rig { storage, wrapper: wrapper.iter().map(|w| (*w).to_owned()).collect(), ..Rig::new() }
    }

    /// A rig whose storage lies on a FUSE file system with these options of bindfs; the mount lives in a namespace per command.
    pub fn on_fuse(options: &str) -> Option<Rig> {
        needs("bindfs")?;
        let plain = Rig::new();
        let (behind, storage) = (plain.path("behind"), plain.path("mount"));
        fs::create_dir_all(&behind).unwrap();
        fs::create_dir_all(&storage).unwrap();
        let enter = format!("bindfs --no-allow-other {options} {} {} && exec \"$@\"", behind.display(), storage.display());
        let wrapper = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", &enter, "sh"];
        let works = Command::new(wrapper[0]).args(&wrapper[1..]).arg("true").stderr(Stdio::null()).status().unwrap().success();
        if !works {
            return skip("FUSE can't be mounted here (is /dev/fuse accessible?)");
        }
        // Its scratch directory goes with the rig that is returned.
        Some(Rig { behind: Some(plain.scratch), ..Rig::at(storage.join("storage"), &wrapper) })
    }

    /// Where tests may put their own files.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.scratch.path().join(name)
    }

    /// Where the storage directory can be seen without its file system.
    pub fn behind(&self) -> &Path {
        self.behind.as_ref().map_or(&self.storage, TempDir::path)
    }

    pub fn storage(&self) -> &Path {
        &self.storage
    }

    /// Writes a file below the scratch directory, with the directories it needs.
    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// The program with its storage directory and a clean environment; nothing is started yet.
    pub fn command<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut words = self.wrapper.clone();
        words.push(PROGRAM.to_owned());
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).arg("--storage").arg(&self.storage).args(arguments);
        command.env_remove("ROOTLING_STORAGE").env("NO_COLOR", "1").current_dir(self.scratch.path()).stdin(Stdio::null());
        command
    }

    /// Runs the program to its end.
    pub fn run<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Ran {
        let mut command = self.command(arguments);
        let line = format!("{command:?}");
        Ran::of(command.output().unwrap(), line)
    }

    /// Runs the program, which must succeed; returns what it printed to stdout.
    #[track_caller]
    pub fn ok<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        let ran = self.run(arguments);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.stdout
    }

    /// Runs the program, which must fail with one error in the agreed form; returns what it printed to stderr.
    #[track_caller]
    pub fn fails<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> String {
        let ran = self.run(arguments);
        assert!(ran.code.is_some_and(|c| c != 0), "should fail, but: {ran}");
        assert_eq!(ran.stderr.lines().filter(|l| l.starts_with("error: ")).count(), 1, "not exactly one error: {ran}");
        assert!(!ran.stderr.contains("panicked at"), "{ran}");
        ran.stderr
    }

    /// Starts the program and leaves it running.
    pub fn start<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Child {
        self.command(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    /// Builds a Dockerfile given as text in a context directory `context` of the scratch directory.
    #[track_caller]
    pub fn build(&self, name: &str, dockerfile: &str) -> String {
        let ran = self.try_build(name, dockerfile);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran.stderr
    }

    /// The same without any opinion on how it ends.
    pub fn try_build(&self, name: &str, dockerfile: &str) -> Ran {
        fs::create_dir_all(self.path("context")).unwrap();
        let file = self.write(&format!("Dockerfile.{name}"), dockerfile);
        let context = self.path("context");
        self.run([
            OsStr::new("build"),
            "--progress".as_ref(),
            "plain".as_ref(),
            "-t".as_ref(),
            name.as_ref(),
            "-f".as_ref(),
            file.as_ref(),
            context.as_ref(),
        ])
    }

    /// Runs a shell command line in an image; returns what it printed.
    #[track_caller]
    pub fn sh(&self, image: &str, script: &str) -> String {
        self.ok(["run", image, "--", "sh", "-c", script])
    }

    /// The facts of an image, by the listing that the corpus uses; without times.
    #[track_caller]
    pub fn facts(&self, image: &str) -> String {
        self.ok(["export", image, "-o", "facts.tar"]);
        let config = self.write("facts.json", self.ok(["inspect", image, "--format", "json"]));
        let compare = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/compare/compare");
        let out =
            Command::new("python3").args([Path::new(compare), Path::new("listing"), &self.path("facts.tar"), &config]).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        String::from_utf8_lossy(&out.stdout).lines().filter(|l| !l.contains(" time=")).map(|l| format!("{l}\n")).collect()
    }

    /// Checks that storage answers, has only whole images, and that a new build and run still work.
    #[track_caller]
    pub fn assert_healthy(&self) {
        let images: serde_json::Value = serde_json::from_str(&self.ok(["images", "--format", "json"])).unwrap();
        for image in images.as_array().expect("a list of images") {
            let name = image["reference"].as_str().or(image["name"].as_str()).expect("an image's reference");
            let archive = self.path("healthy.tar");
            self.ok([OsStr::new("export"), name.as_ref(), "-o".as_ref(), archive.as_ref()]);
            let _ = fs::remove_file(archive);
        }
        self.ok(["prune"]);
        self.ok(["import", BASE, "healthy-base"]);
        self.build("healthy", "FROM healthy-base\nRUN echo well >/state\n");
        assert_eq!(self.sh("healthy", "cat /state"), "well\n");
        self.ok(["rm", "healthy"]);
        self.ok(["rm", "healthy-base"]);
    }
}

impl Ran {
    pub fn of(output: Output, line: String) -> Ran {
        Ran {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            line,
        }
    }
}

impl std::fmt::Display for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\nexit code {:?}\n--- stdout\n{}--- stderr\n{}", self.line, self.code, self.stdout, self.stderr)
    }
}

/// A file that `tests/setup` makes, or `None` after [`skip`].
pub fn fixture(name: &str) -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(name);
    if path.exists() {
        return Some(path);
    }
    skip(&format!("{} is missing; run tests/setup as root", path.display()))
}

/// Whether a program is installed; `None` after [`skip`].
pub fn needs(program: &str) -> Option<()> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|d| d.join(program).exists()) {
        return Some(());
    }
    skip(&format!("`{program}` is not installed"))
}

/// Says why a test does nothing; under `CI=true` that is a failure.
#[track_caller]
pub fn skip<T>(reason: &str) -> Option<T> {
    assert!(!std::env::var("CI").is_ok_and(|v| v == "true"), "skipped, which CI does not allow: {reason}");
    let _ = writeln!(std::io::stderr(), "skipped: {reason}");
    None
}

/// Checks once that we are the ordinary user that the promises are about.
pub fn assert_ordinary_user() {
    static CHECKED: OnceLock<()> = OnceLock::new();
    CHECKED.get_or_init(|| {
        let id = Command::new("id").args(["-u"]).output().unwrap();
        assert_ne!(String::from_utf8_lossy(&id.stdout).trim(), "0", "tests that build or run containers must not run as root");
        let user = Command::new("id").args(["-un"]).output().unwrap();
        let user = String::from_utf8_lossy(&user.stdout).trim().to_owned();
        let subuid = fs::read_to_string("/etc/subuid").unwrap_or_default();
        let listed = subuid.lines().any(|l| l.split(':').next() == Some(&user));
        assert!(!(listed && std::env::var("CI").is_ok_and(|v| v == "true")), "`{user}` has a subuid entry");
    });
}
