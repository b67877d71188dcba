//! Logging in: real registries with passwords, tokens and certificates, the real programs that share their files, and secrets that are seen nowhere.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::registry::write_layout;
use crate::rig::{PROGRAM, Ran, Rig, assert_ordinary_user, needs, skip};
use crate::served::{Layer, Tar};

/// A registry with logins, stopped when dropped.
pub struct Server {
    dir: PathBuf,
    pub address: String,
    values: String,
}

impl Server {
    pub fn start(arguments: &[&str], environment: &[(&str, &str)]) -> Option<Server> {
        let dir = tempfile::tempdir().unwrap().keep();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/registry");
        let out = Command::new(script).arg("start").arg(&dir).args(arguments).envs(environment.iter().copied()).output().unwrap();
        if out.status.code() == Some(77) {
            return skip(&String::from_utf8_lossy(&out.stderr));
        }
        assert!(out.status.success(), "{out:?}");
        let mut server = Server { dir, address: String::new(), values: String::from_utf8(out.stdout).unwrap() };
        server.address = server.value("REGISTRY");
        Some(server)
    }

    pub fn value(&self, name: &str) -> String {
        let line = self.values.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{name} in {}", self.values)).to_owned()
    }

    /// How often the token server's log has this.
    pub fn asked(&self, what: &str) -> usize {
        fs::read_to_string(self.dir.join("token.log")).unwrap().lines().filter(|line| line.contains(what)).count()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/servers/registry")).arg("stop").arg(&self.dir).output();
    }
}

/// A user's home: variables that lead nowhere else, and a small image to send around.
pub struct Home {
    pub rig: Rig,
    pub home: PathBuf,
}

impl Home {
    pub fn new() -> Home {
        let rig = Rig::new();
        let home = rig.path("home");
        fs::create_dir_all(home.join("bin")).unwrap();
        fs::create_dir_all(home.join("run")).unwrap();
        write_layout(&rig.path("layout"), &[Layer::gzipped(&Tar::default().file("f", "content\n").end())]);
        Home { rig, home }
    }

    fn settle(&self, command: &mut Command) {
        for name in ["REGISTRY_AUTH_FILE", "DOCKER_CONFIG", "XDG_CONFIG_HOME", "CONTAINERS_REGISTRIES_CONF"] {
            command.env_remove(name);
        }
        let path = format!("{}:{}", self.home.join("bin").display(), std::env::var("PATH").unwrap());
        command.env("HOME", &self.home).env("XDG_RUNTIME_DIR", self.home.join("run")).env("PATH", path);
    }

    pub fn rootling(&self, arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Ran {
        let mut command = self.rig.command(arguments);
        self.settle(&mut command);
        command.envs(environment.iter().copied()).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let line = format!("{command:?}");
        let mut child = command.spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        Ran::of(child.wait_with_output().unwrap(), line)
    }

    #[track_caller]
    pub fn ok(&self, arguments: &[&str]) -> Ran {
        self.ok_with(arguments, "", &[])
    }

    #[track_caller]
    pub fn ok_with(&self, arguments: &[&str], input: &str, environment: &[(&str, &str)]) -> Ran {
        let ran = self.rootling(arguments, input, environment);
        assert_eq!(ran.code, Some(0), "{ran}");
        ran
    }

    #[track_caller]
    pub fn fails(&self, arguments: &[&str], input: &str, expected: &[&str]) -> Ran {
        let ran = self.rootling(arguments, input, &[]);
        assert!(ran.code.is_some_and(|code| code != 0), "should fail: {ran}");
        expected.iter().for_each(|text| assert!(ran.stderr.contains(text), "{text}: {ran}"));
        ran
    }

    #[track_caller]
    pub fn log_in(&self, server: &str, user: &str, word: &str) -> Ran {
        self.ok_with(&["login", "-u", user, "--password-stdin", server], &format!("{word}\n"), &[])
    }

    /// Another program as this user.
    fn other(&self, program: &str, arguments: &[&str]) -> Ran {
        let mut command = Command::new(program);
        self.settle(&mut command);
        command.args(arguments).stdin(Stdio::null());
        let line = format!("{command:?}");
        Ran::of(command.output().unwrap(), line)
    }

    fn auth_file(&self) -> PathBuf {
        self.home.join("run/containers/auth.json")
    }

    fn auths(&self, file: &Path) -> serde_json::Value {
        serde_json::from_str::<serde_json::Value>(&fs::read_to_string(file).unwrap()).unwrap()["auths"].clone()
    }

    /// Imports the small image and pushes it.
    pub fn push(&self, server: &Server, name: &str, options: &[&str]) -> Ran {
        let reference = format!("{}/{name}", server.address);
        let layout = format!("oci:{}:latest", self.rig.path("layout").display());
        self.ok(&["convert", &layout, &format!("storage:{reference}")]);
        let mut arguments = vec!["push"];
        arguments.extend(options);
        arguments.push(&reference);
        self.rootling(&arguments, "", &[])
    }

    fn write_program(&self, name: &str, text: &str) {
        let path = self.home.join("bin").join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn passwords_are_checked_and_kept() {
    assert_ordinary_user();
    let Some(server) = Server::start(&["htpasswd"], &[]) else { return };
    let (home, address) = (Home::new(), &*server.address);
    home.fails(&["login", "-u", "user", "--password-stdin", address], "wrong", &["can't log in", "401", "check the user name"]);
    assert!(!home.auth_file().exists(), "a refused login leaves nothing");
    let ran = home.log_in(address, "user", "pass");
    assert!(ran.stdout.contains("Login Succeeded") && ran.stderr.contains("auth.json"), "{ran}");
    assert_eq!(fs::metadata(home.auth_file()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(home.auths(&home.auth_file())[address]["auth"], "dXNlcjpwYXNz");
    assert_eq!(home.ok(&["login", "--get-login", address]).stdout, "user\n");
    // Without a name the stored login is tried; nobody is there to be asked.
    assert!(home.ok(&["login", address]).stderr.contains("stored login"));
    // A URL means its host.
    home.ok(&["login", &format!("http://{address}/v2/")]);
    assert_eq!(home.push(&server, "team/app", &[]).code, Some(0));
    home.ok(&["pull", &format!("{address}/team/app")]);
    assert!(home.ok(&["logout", address]).stdout.contains("Removed"));
    home.fails(&["pull", &format!("{address}/team/app:other")], "", &["rootling login 127.0.0.1:"]);
    home.fails(&["logout", address], "", &["not logged in"]);
    home.fails(&["login", "--get-login", address], "", &["not logged in"]);
    let warned = home.ok(&["login", "-u", "user", "-p", "pass", address]);
    assert!(warned.stderr.contains("warning:"), "{warned}");
    home.log_in(&format!("{address}/team"), "user", "pass");
    assert!(home.ok(&["logout", "--all"]).stdout.contains("Removed"));
    assert_eq!(home.auths(&home.auth_file()), serde_json::json!({}));
}

#[test]
fn without_a_registry_nothing_is_kept() {
    let home = Home::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let login = |server: &str, expected: &[&str]| {
        home.fails(&["login", "-u", "user", "--password-stdin", server], "pass", expected);
    };
    login(&closed, &["can't log in", "ECONNREFUSED"]);
    login("registry.invalid", &["can't log in", "unknown host"]);
    login("nodot", &["names no registry"]);
    home.fails(&["login", &closed], "", &["terminal", "--password-stdin"]);
    home.fails(&["login", "--password-stdin", &closed], "", &["--username"]);
    home.fails(&["login", "-u", "user", "--password-stdin", &closed], "", &["password is empty"]);
    assert!(!home.auth_file().exists());
}

#[test]
fn no_server_means_docker() {
    let (home, refusing) = (Home::new(), TcpListener::bind("127.0.0.1:0").unwrap());
    let conf = format!("[[registry]]\nprefix = 'docker.io'\nlocation = '{}'\n", refusing.local_addr().unwrap());
    fs::create_dir_all(home.home.join(".config/containers")).unwrap();
    fs::write(home.home.join(".config/containers/registries.conf"), conf).unwrap();
    let seen = answer_once(refusing, |_| "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}".into());
    // A script's variable without a value is no reason to send a password to docker.io.
    home.fails(&["login", "-u", "user", "--password-stdin", ""], "pass\n", &["the registry is empty", "hint:"]);
    home.fails(&["logout", ""], "", &["the registry is empty"]);
    home.ok_with(&["login", "-u", "user", "--password-stdin"], "pass\n", &[("DOCKER_CONFIG", "")]);
    assert_eq!(home.auths(&home.auth_file())["docker.io"]["auth"], "dXNlcjpwYXNz");
    assert!(seen.lock().unwrap()[0].starts_with("GET /v2/ "), "{seen:?}");
}

/// A server that answers every request by a function of its head, one connection after the other.
pub fn answer_once(listener: TcpListener, answer: impl Fn(&str) -> String + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = seen.clone();
    std::thread::spawn(move || {
        for mut connection in listener.incoming().flatten() {
            let mut head = Vec::new();
            let mut byte = [0];
            // A handshake of TLS is answered as plain servers do.
            if connection.peek(&mut byte).is_ok_and(|n| n == 1) && byte[0] == 0x16 {
                let _ = connection.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
                continue;
            }
            while !head.ends_with(b"\r\n\r\n") && connection.read(&mut byte).is_ok_and(|n| n == 1) {
                head.push(byte[0]);
            }
            let head = String::from_utf8_lossy(&head).into_owned();
            let reply = answer(&head);
            log.lock().unwrap().push(head);
            let _ = connection.write_all(reply.as_bytes());
        }
    });
    seen
}

#[test]
fn tokens_of_all_kinds() {
    let Some(server) = Server::start(&["token"], &[("OFFLINE", "1")]) else { return };
    let (home, address) = (Home::new(), &*server.address);
    home.fails(&["login", "-u", "user", "--password-stdin", address], "no", &["incorrect username or password", "check the user name"]);
    home.log_in(address, "user", "pass");
    // What is kept is the identity token in the place of the password.
    let kept = home.auths(&home.auth_file())[address].clone();
    assert_eq!((kept["identitytoken"].as_str(), kept["auth"].as_str()), (Some("identity-of-user"), Some("dXNlcjo=")));
    assert_eq!(home.ok(&["login", "--get-login", address]).stdout, "user\n");
    home.ok(&["login", address]);
    assert_eq!(home.push(&server, "team/app", &[]).code, Some(0));
    assert!(server.asked("POST /token") >= 2, "identity tokens are posted");
    home.log_in(address, "reader", "reader");
    assert_ne!(home.push(&server, "team/other", &[]).code, Some(0), "a reader may not push");
    home.ok(&["pull", &format!("{address}/team/app")]);
    // podman and skopeo understand what is kept.
    if needs("skopeo").is_some() {
        let ran = home.other("skopeo", &["inspect", "--tls-verify=false", &format!("docker://{address}/team/app")]);
        assert_eq!(ran.code, Some(0), "{ran}");
    }
}

#[test]
fn a_token_server_without_get() {
    let Some(server) = Server::start(&["token"], &[("POST", "1")]) else { return };
    let home = Home::new();
    home.log_in(&server.address, "user", "pass");
    assert_eq!(home.auths(&home.auth_file())[&server.address]["auth"], "dXNlcjpwYXNz");
    assert_eq!(home.push(&server, "team/app", &[]).code, Some(0));
}

#[test]
fn tokens_that_expire_meanwhile() {
    assert_ordinary_user();
    // Two to three seconds as the registry counts, although clients are told a minute.
    let Some(server) = Server::start(&["token"], &[("TTL", "-57"), ("CLAIMED", "60")]) else { return };
    let home = Home::new();
    home.log_in(&server.address, "user", "pass");
    for tag in ["1", "2"] {
        assert_eq!(home.push(&server, &format!("team/app:{tag}"), &[]).code, Some(0));
        home.ok(&["rm", &format!("{}/team/app:{tag}", server.address)]);
    }
    home.ok(&["import", "host:sh,sleep", "base"]);
    let image = format!("{}/team/app", server.address);
    let text = format!("FROM base\nCOPY --from={image}:1 /f /one\nRUN sleep 4\nCOPY --from={image}:2 /f /two\n");
    let file = home.rig.write("Dockerfile", text);
    let before = server.asked("GET /token");
    home.ok(&["build", "--no-cache", "-f", file.to_str().unwrap(), home.rig.path("layout").to_str().unwrap()]);
    assert!(server.asked("GET /token") >= before + 2, "a token that was refused is replaced");
}

#[test]
fn certificates() {
    let Some(server) = Server::start(&["htpasswd", "mtls"], &[]) else { return };
    let (home, address) = (Home::new(), &*server.address);
    let login = |options: &[&str]| {
        let mut arguments = vec!["login", "-u", "user", "--password-stdin"];
        arguments.extend(options);
        arguments.push(address);
        home.rootling(&arguments, "pass", &[])
    };
    let ran = login(&[]);
    assert!(ran.code != Some(0) && ran.stderr.contains("unknown authority"), "{ran}");
    let certs = home.home.join("certs");
    fs::create_dir(&certs).unwrap();
    fs::copy(server.value("REGISTRY_CA"), certs.join("ca.crt")).unwrap();
    let dir = certs.to_str().unwrap();
    assert_ne!(login(&["--cert-dir", dir]).code, Some(0), "it asks for a client's certificate");
    fs::copy(server.value("REGISTRY_CERT"), certs.join("client.cert")).unwrap();
    fs::copy(server.value("REGISTRY_KEY"), certs.join("client.key")).unwrap();
    let ran = login(&["--cert-dir", dir]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let ran = home.push(&server, "team/app", &["--cert-dir", dir]);
    assert_eq!(ran.code, Some(0), "{ran}");
    // The same where podman and docker look.
    let own = home.home.join(".config/containers/certs.d");
    fs::create_dir_all(&own).unwrap();
    fs::rename(&certs, own.join(address)).unwrap();
    home.ok(&["pull", &format!("{address}/team/app")]);
}

#[test]
fn files_are_shared_with_podman_and_skopeo() {
    let (Some(()), Some(()), Some(server)) = (needs("podman"), needs("skopeo"), Server::start(&["htpasswd"], &[])) else { return };
    let (home, address) = (Home::new(), &*server.address);
    // Ours, read by theirs.
    home.log_in(address, "user", "pass");
    assert_eq!(home.push(&server, "team/app", &[]).code, Some(0));
    let image = format!("docker://{address}/team/app");
    let ran = home.other("skopeo", &["inspect", "--tls-verify=false", &image]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let ran = home.other("podman", &["login", "--get-login", address]);
    assert_eq!((ran.code, ran.stdout.as_str()), (Some(0), "user\n"), "{ran}");
    // Removed by theirs.
    let ran = home.other("podman", &["logout", address]);
    assert_eq!(ran.code, Some(0), "{ran}");
    home.fails(&["login", "--get-login", address], "", &["not logged in"]);
    // Theirs, read and removed by ours.
    for program in ["podman", "skopeo"] {
        let ran = home.other(program, &["login", "--tls-verify=false", "-u", "user", "-p", "pass", address]);
        assert_eq!(ran.code, Some(0), "{ran}");
        assert_eq!(home.ok(&["login", "--get-login", address]).stdout, "user\n");
        home.ok(&["pull", &format!("{address}/team/app")]);
        home.ok(&["logout", address]);
        let ran = home.other("skopeo", &["inspect", "--tls-verify=false", &image]);
        assert_ne!(ran.code, Some(0), "{ran}");
    }
}

#[test]
fn dockers_own_file_and_helpers() {
    let Some(server) = Server::start(&["htpasswd"], &[]) else { return };
    let (home, address) = (Home::new(), &*server.address);
    // A helper of the simplest kind: a file for each server.
    home.write_program(
        "docker-credential-files",
        "#!/bin/sh\nd=$HOME/kept; mkdir -p $d; in=$(cat); f=$d/$(printf %s \"$in\" | tr '/:' '__')\ncase $1 in\n\
         store) s=$(printf %s \"$in\" | sed 's/.*\"ServerURL\":\"\\([^\"]*\\)\".*/\\1/'); printf %s \"$in\" >$d/$(printf %s \"$s\" | tr '/:' '__') ;;\n\
         get) [ -e \"$f\" ] && cat \"$f\" || { echo 'credentials not found in native keychain'; exit 1; } ;;\n\
         erase) rm \"$f\" ;;\nlist) echo '{}' ;;\nesac\n",
    );
    let docker = home.home.join(".docker");
    fs::create_dir(&docker).unwrap();
    let config = docker.join("config.json");
    fs::write(&config, r#"{"credsStore": "files", "HttpHeaders": {"X": "y"}}"#).unwrap();
    let ran = home.log_in(address, "user", "pass");
    assert!(ran.stderr.contains("docker-credential-files"), "{ran}");
    let text = fs::read_to_string(&config).unwrap();
    assert!(!text.contains("dXNlcjpwYXNz") && text.contains("HttpHeaders") && text.contains(address), "{text}");
    assert!(!home.auth_file().exists());
    assert_eq!(home.push(&server, "team/app", &[]).code, Some(0));
    assert_eq!(home.ok(&["login", "--get-login", address]).stdout, "user\n");
    home.ok(&["logout", address]);
    home.fails(&["login", "--get-login", address], "", &["not logged in"]);
    // Who is logged in by a file that is not ours is told which.
    fs::write(&config, format!(r#"{{"auths": {{"{address}": {{"auth": "dXNlcjpwYXNz"}}}}}}"#)).unwrap();
    let ran = home.ok(&["logout", address]);
    assert!(ran.stderr.contains("still logged in") && ran.stderr.contains(".docker/config.json"), "{ran}");
    // Who sets $DOCKER_CONFIG means that file, for docker's name of docker's registry too.
    let moved = home.home.join("moved");
    let variables = [("DOCKER_CONFIG", moved.to_str().unwrap())];
    home.ok_with(&["login", "-u", "user", "--password-stdin", address], "pass", &variables);
    assert_eq!(home.auths(&moved.join("config.json"))[address]["auth"], "dXNlcjpwYXNz");
}

#[test]
fn many_logins_at_once() {
    let Some(server) = Server::start(&["htpasswd"], &[]) else { return };
    let home = Home::new();
    std::thread::scope(|scope| {
        for n in 0..8 {
            let (home, address) = (&home, &server.address);
            scope.spawn(move || home.log_in(&format!("{address}/team{n}"), "user", "pass"));
        }
    });
    assert_eq!(home.auths(&home.auth_file()).as_object().unwrap().len(), 8);
}

/// What no output may ever hold, and what it looks like as Basic credentials of `user` (the middle of its base64).
const SECRET: &str = "hush-Pa55w0rd";
const ENCODED: &str = "aHVzaC1QYTU1dzByZ";

#[track_caller]
fn assert_silent(ran: &Ran) {
    let all = format!("{}{}", ran.stdout, ran.stderr);
    assert!(!all.contains(SECRET) && !all.contains(ENCODED) && !all.contains("c2gtUGE1NXcwcm"), "a secret is shown: {ran}");
}

#[test]
fn secrets_are_seen_nowhere() {
    let (Some(server), Some(tokens)) = (Server::start(&["htpasswd"], &[]), Server::start(&["token"], &[])) else { return };
    let home = Home::new();
    let with_secret = format!("user:{SECRET}");
    let nobody = "127.0.0.1:9";
    for address in [&*server.address, &*tokens.address, nobody] {
        let image = format!("{address}/team/app");
        let bound = format!("{address}={with_secret}");
        let lines: &[(&[&str], &str)] = &[
            (&["login", "-u", "user", "--password-stdin", address], SECRET),
            (&["login", "-u", "user", "-p", SECRET, address], ""),
            (&["login", "-u", &with_secret, "-p", "x", address], ""),
            (&["login", &format!("https://{with_secret}@{address}")], ""),
            (&["pull", "--creds", &with_secret, "--retry", "0", &image], ""),
            (&["pull", "--creds", &bound, "--retry", "0", &image], ""),
            (&["pull", "--creds", &with_secret, "--no-such-option", &image], ""),
            (&["pull", "--creds", &with_secret, "Not A Name"], ""),
        ];
        for (arguments, input) in lines {
            let ran = home.rootling(arguments, input, &[]);
            assert_ne!(ran.code, Some(0), "{ran}");
            assert_silent(&ran);
        }
        let ran = home.rootling(&["pull", &image, "--retry", "0"], "", &[("ROOTLING_USERNAME", "user"), ("ROOTLING_PASSWORD", SECRET)]);
        assert_silent(&ran);
    }
    // A stored secret that is wrong, in a file that is broken at its end.
    fs::create_dir_all(home.auth_file().parent().unwrap()).unwrap();
    let auth = Command::new("sh").args(["-c", &format!("printf %s '{with_secret}' | base64")]).output().unwrap();
    let auth = String::from_utf8(auth.stdout).unwrap();
    for text in [
        format!(r#"{{"auths":{{"{}":{{"auth":"{}"}}}}}}"#, server.address, auth.trim()),
        format!(r#"{{"auths":{{"{}":{{"auth":"{}"}}}}"#, server.address, auth.trim()),
        format!(r#"{{"auths":{{"{}":"{SECRET}"}}}}"#, server.address),
    ] {
        fs::write(home.auth_file(), text).unwrap();
        let ran = home.rootling(&["pull", &format!("{}/team/app", server.address)], "", &[]);
        assert_ne!(ran.code, Some(0), "{ran}");
        assert_silent(&ran);
    }
}

#[test]
fn one_time_credentials() {
    let (Some(server), Some(other)) = (Server::start(&["htpasswd"], &[]), Server::start(&["htpasswd"], &[])) else { return };
    let (home, address) = (Home::new(), &*server.address);
    let ran = home.push(&server, "team/app", &["--creds", "user:pass"]);
    assert_eq!(ran.code, Some(0), "{ran}");
    let image = format!("{address}/team/app");
    let pull = |environment: &[(&str, &str)], options: &[&str]| {
        let mut arguments = vec!["pull"];
        arguments.extend(options);
        arguments.push(&image);
        home.ok(&["rm", &image]);
        home.ok(&["prune"]);
        home.ok_with(&arguments, "", environment)
    };
    pull(&[], &["--creds", "user:pass"]);
    pull(&[("ROOTLING_USERNAME", "user"), ("ROOTLING_PASSWORD", "pass")], &[]);
    pull(&[("CH_IMAGE_USERNAME", "user"), ("CH_IMAGE_PASSWORD", "pass")], &[]);
    // A build may ask several registries, so it must be told whose they are.
    home.ok(&["rm", &image]);
    let file = home.rig.write("Dockerfile", format!("FROM {image}\nLABEL a=b\n"));
    let (file, context) = (file.to_str().unwrap(), home.rig.path("."));
    let build = |options: &[&str], environment: &[(&str, &str)]| {
        let mut arguments = vec!["build", "-f", file];
        arguments.extend(options);
        arguments.push(context.to_str().unwrap());
        home.rootling(&arguments, "", environment)
    };
    let ran = build(&["--creds", "user:pass"], &[]);
    assert!(ran.code != Some(0) && ran.stderr.contains("--creds HOST=user"), "{ran}");
    let ran = build(&["--creds", &format!("{}=user:pass", other.address)], &[]);
    assert!(ran.code != Some(0) && ran.stderr.contains("rootling login"), "another registry's are not sent: {ran}");
    let ran = build(&["--creds", &format!("{address}=user:pass")], &[]);
    assert_eq!(ran.code, Some(0), "{ran}");
    home.ok(&["rm", &image]);
    let variables = [("ROOTLING_USERNAME", "user"), ("ROOTLING_PASSWORD", "pass"), ("ROOTLING_REGISTRY", address)];
    let ran = build(&["--no-cache"], &variables);
    assert_eq!(ran.code, Some(0), "{ran}");
    // Nobody is there to be asked for the password.
    home.ok(&["rm", &image]);
    home.fails(&["pull", "--creds", "user", &image], "", &["no terminal"]);
    assert!(!home.auth_file().exists(), "nothing of it was stored");
}

/// A program asked at a terminal of its own: what it showed, its exit code, and whether the terminal echoes afterwards.
fn at_terminal(home: &Home, arguments: &[&str], keys: &str) -> (String, i32) {
    let script = r#"
import os, pty, subprocess, sys, termios, time
keys = sys.argv[1].encode().decode("unicode_escape").encode()
master, slave = pty.openpty()
def start():
    os.setsid()
    import fcntl
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)
child = subprocess.Popen(sys.argv[2:], stdin=subprocess.DEVNULL, stdout=slave, stderr=slave, preexec_fn=start)
shown = b""
os.set_blocking(master, False)
def look():
    global shown
    try: shown += os.read(master, 4096)
    except BlockingIOError: time.sleep(0.02)
for part in keys.split(b"|"):
    # Typed when it is asked for, as people do.
    before = shown.count(b": ")
    until = time.time() + 20
    while shown.count(b": ") <= look.__dict__.setdefault("asked", 0) and time.time() < until and child.poll() is None: look()
    look.asked = shown.count(b": ")
    time.sleep(0.1)
    os.write(master, part)
while child.poll() is None: look()
for _ in range(5): look()
echo = bool(termios.tcgetattr(slave)[3] & termios.ECHO)
sys.stdout.buffer.write(shown)
print(f"\necho={echo}")
sys.exit(child.returncode if child.returncode >= 0 else 128 - child.returncode)
"#;
    let mut command = Command::new("python3");
    command.args(["-c", script, keys, PROGRAM, "--storage"]).arg(home.rig.storage()).args(arguments);
    home.settle(&mut command);
    let out = command.env("NO_COLOR", "1").output().unwrap();
    let shown = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(shown.contains("echo="), "{shown}{}", String::from_utf8_lossy(&out.stderr));
    (shown, out.status.code().unwrap())
}

#[test]
fn asks_at_the_terminal() {
    let (Some(()), Some(server)) = (needs("python3"), Server::start(&["htpasswd"], &[])) else { return };
    let (home, address) = (Home::new(), &*server.address);
    let (shown, code) = at_terminal(&home, &["login", address], r"user\n|pasx\x7fs\n");
    assert!(code == 0 && shown.contains("Login Succeeded") && shown.contains("echo=True"), "{code} {shown}");
    assert!(!shown.contains("pas"), "it was shown: {shown}");
    home.ok(&["logout", address]);
    // Ctrl-C ends it, with the terminal as it was.
    let (shown, code) = at_terminal(&home, &["login", "-u", "user", address], r"pas\x03");
    assert!(code == 130 && shown.contains("echo=True"), "{code} {shown}");
    assert!(!home.auth_file().exists() || home.auths(&home.auth_file()) == serde_json::json!({}));
    assert_eq!(home.push(&server, "team/app", &["--creds", "user:pass"]).code, Some(0));
    let (shown, code) = at_terminal(&home, &["pull", "--creds", "user", &format!("{address}/team/app")], r"pass\n");
    assert!(code == 0 && shown.contains("Password of user"), "{code} {shown}");
}
