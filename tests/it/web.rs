//! Servers for what builds take from elsewhere: files by HTTP(S), repositories by git's own programs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::rig::{Rig, needs};

/// A web server that lives as long as this value.
pub struct Web {
    child: Child,
    pub port: u16,
    root: PathBuf,
    log: PathBuf,
    scheme: &'static str,
}

/// What `/private/` asks for.
pub const PASSWORD: &str = "s3cr3t-w0rd";

impl Web {
    /// Serves the directory `www` of the rig; `None` after a skip.
    pub fn start(rig: &Rig) -> Option<Web> {
        Self::serve(rig, None)
    }

    /// The same with TLS, by a certificate of an authority nobody knows but who reads the file `ca.pem` of the rig.
    pub fn start_tls(rig: &Rig) -> Option<Web> {
        needs("openssl")?;
        let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -keyout ca.key -out ca.pem -subj /CN=test-ca && \
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout tls.key -out tls.csr -subj /CN=127.0.0.1 && \
            printf 'subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n' >ext && \
            openssl x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out tls.pem";
        sh(&rig.path(""), script);
        Self::serve(rig, Some((rig.path("tls.pem"), rig.path("tls.key"))))
    }

    fn serve(rig: &Rig, tls: Option<(PathBuf, PathBuf)>) -> Option<Web> {
        needs("python3")?;
        needs("git")?;
        let (root, log) = (rig.path("www"), rig.path("log"));
        fs::create_dir_all(&root).unwrap();
        fs::write(&log, "").unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/servers/web-server.py");
        let mut command = Command::new("python3");
        command.arg(script).arg(&root).arg(&log).env("PASSWORD", PASSWORD);
        let scheme = if tls.is_some() { "https" } else { "http" };
        if let Some((certificate, key)) = &tls {
            command.arg(certificate).arg(key);
        }
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        let mut port = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut port).unwrap();
        Some(Web { child, port: port.trim().parse().expect("the server prints its port"), root, log, scheme })
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}://127.0.0.1:{}/{path}", self.scheme, self.port)
    }

    /// Writes a file to be served, as old as the epoch's first billion seconds.
    pub fn file(&self, name: &str, content: impl AsRef<[u8]>) {
        self.file_of(name, content, 1_000_000_000);
    }

    pub fn file_of(&self, name: &str, content: impl AsRef<[u8]>, seconds: u64) {
        let path = self.root.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::open(&path).unwrap().set_modified(time).unwrap();
    }

    /// The requests since the last call: method, path, status, Authorization.
    pub fn requests(&self) -> Vec<String> {
        let requests = fs::read_to_string(&self.log).unwrap().lines().map(str::to_owned).collect();
        fs::write(&self.log, "").unwrap();
        requests
    }

    /// A bare repository `NAME.git`, made of what `script` commits in a work tree; also reachable below `/git/`.
    pub fn repository(&self, rig: &Rig, name: &str, script: &str) -> Repository {
        let work = rig.path("work").join(name);
        fs::create_dir_all(&work).unwrap();
        let repository = Repository { work, bare: self.root.join(format!("{name}.git")) };
        repository.sh("git init -q -b main . && git config user.email t@example.org && git config user.name tester");
        repository.commit(script);
        repository
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A repository that is served.
pub struct Repository {
    pub work: PathBuf,
    pub bare: PathBuf,
}

impl Repository {
    /// Runs a script in the work tree, commits everything, and publishes it; returns the commit.
    pub fn commit(&self, script: &str) -> String {
        self.sh(script);
        self.sh("git add -A && git commit -q --allow-empty -m change --date=@1000000000");
        self.publish();
        self.sh("git rev-parse HEAD").trim().to_owned()
    }

    pub fn publish(&self) {
        let bare = self.bare.display();
        fs::create_dir_all(self.bare.parent().unwrap()).unwrap();
        self.sh(&format!(
            "[ -d {bare} ] || git init -q --bare -b main {bare}; git push -q --force --mirror {bare} && git -C {bare} update-server-info"
        ));
    }

    /// Runs a script in the work tree.
    pub fn sh(&self, script: &str) -> String {
        sh(&self.work, script)
    }
}

/// Runs a script that must succeed.
#[track_caller]
pub fn sh(directory: &Path, script: &str) -> String {
    let mut command = Command::new("sh");
    command.args(["-ec", script]).current_dir(directory).env("GIT_COMMITTER_DATE", "@1000000000 +0000").env("GIT_CONFIG_NOSYSTEM", "1");
    let out = command.env("GIT_CONFIG_GLOBAL", "/dev/null").stdin(Stdio::null()).output().unwrap();
    assert!(out.status.success(), "{script}\n{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// The entries of an image as `tar tv` shows them, without those whose name contains `without`.
pub fn listing(rig: &Rig, image: &str) -> String {
    rig.ok(["export", image, "-o", "listing.tar"]);
    sh(&rig.path(""), "TZ=UTC tar tv --numeric-owner --full-time -f listing.tar | sed 's/  */ /g'")
}

/// Files of the storage directory that hold a text.
pub fn holding(rig: &Rig, text: &str) -> String {
    sh(rig.storage(), &format!("grep -rlaF -e '{text}' . || true"))
}
