//! Secrets and SSH agents reach the step, and nothing of them stays: not in layers, config, history, cache, output, or anywhere else in storage.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use regex::bytes::Regex;

use crate::rig::{Ran, Rig, assert_ordinary_user, needs};

/// Looks for secrets in all they could have become.
struct Hunt {
    forms: Regex,
}

impl Hunt {
    fn new<'a>(secrets: impl IntoIterator<Item = &'a str>) -> Self {
        let forms: Vec<String> = secrets.into_iter().flat_map(forms).map(|form| regex::escape(&form)).collect();
        Self { forms: Regex::new(&forms.join("|")).unwrap() }
    }

    #[track_caller]
    fn in_bytes(&self, bytes: &[u8], place: &str) {
        if let Some(found) = self.forms.find(bytes) {
            panic!("{place} holds {:?}", String::from_utf8_lossy(found.as_bytes()));
        }
    }

    /// Every file, link, name and attribute below a directory.
    #[track_caller]
    fn in_directory(&self, directory: &Path) {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            self.in_bytes(path.as_os_str().as_encoded_bytes(), "a name");
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                self.in_directory(&path);
            } else if kind.is_file() {
                self.in_bytes(&fs::read(&path).unwrap_or_default(), &path.display().to_string());
            } else if kind.is_symlink() {
                self.in_bytes(fs::read_link(&path).unwrap().as_os_str().as_encoded_bytes(), &path.display().to_string());
            } else {
                assert!(!std::os::unix::fs::FileTypeExt::is_socket(&kind), "a socket is left at {}", path.display());
            }
        }
    }

    /// Storage, output, and all that can be had of the image.
    #[track_caller]
    fn everywhere(&self, rig: &Rig, ran: &Ran) {
        self.in_directory(rig.storage());
        self.in_bytes(ran.to_string().as_bytes(), "the output");
        rig.ok(["export", "made", "-o", "made.tar"]);
        self.in_bytes(&fs::read(rig.path("made.tar")).unwrap(), "the image");
        for command in [&["inspect", "made", "--format", "json"][..], &["history", "made"], &["cache"], &["cache", "--format", "json"]] {
            self.in_bytes(rig.ok(command).as_bytes(), &command.join(" "));
        }
    }
}

/// A secret as it is, in hexadecimal, in base64, and as a list of numbers, which is how JSON would hold bytes.
fn forms(secret: &str) -> Vec<String> {
    let hex: String = secret.bytes().map(|byte| format!("{byte:02x}")).collect();
    let mut forms = vec![secret.to_owned(), hex.clone(), hex.to_uppercase()];
    // Within a longer text, base64 depends on the place modulo 3; the ends are shared with neighbours.
    for shift in 0..3 {
        let inner = &secret.as_bytes()[shift..];
        let inner = &inner[..inner.len() / 3 * 3];
        forms.push(base64::engine::general_purpose::STANDARD.encode(inner));
        forms.push(base64::engine::general_purpose::URL_SAFE.encode(inner));
    }
    forms.push(secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(","));
    forms
}

fn build(rig: &Rig, dockerfile: &str, options: &[&str], variables: &[(&str, &str)]) -> Ran {
    fs::create_dir_all(rig.path("context")).unwrap();
    rig.write("Dockerfile", dockerfile);
    let mut command = rig.command(["build", "--progress", "plain", "-t", "made", "-f", "Dockerfile"]);
    command.args(options).arg("context").envs(variables.iter().copied());
    Ran::of(command.output().unwrap(), "build".into())
}

const SECRET: &str = "open-sesame-8f0b91c2d3";

#[test]
fn secrets_are_read_and_leave_no_trace() {
    assert_ordinary_user();
    let rig = Rig::with_base();
    rig.write("token", SECRET);
    let dockerfile = "FROM base\n\
        RUN --mount=type=secret,id=file --mount=type=secret,id=variable,env=V --mount=type=secret,id=file,target=at/f,uid=7,gid=8,mode=0440 \\\n\
          [ ${#V} = 22 ] && [ \"$(cat /run/secrets/file)\" = \"$V\" ] && [ \"$(cat at/f)\" = \"$V\" ] && stat -c '%u:%g %a' /run/secrets/file at/f && echo read >/state\n\
        RUN --mount=type=secret,id=absent [ ! -e /run/secrets/absent ] && [ ! -e /run/secrets ] && [ ! -e /at ]\n\
        RUN --mount=type=secret,id=variable cp /run/secrets/variable /tmp-copy && rm /tmp-copy\n";
    let options = ["--secret", "id=file,src=token", "--secret", "id=variable,env=TOKEN"];
    let ran = build(&rig, dockerfile, &options, &[("TOKEN", SECRET)]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stderr.contains("0:0 400") && ran.stderr.contains("7:8 440"), "{ran}");
    Hunt::new([SECRET]).everywhere(&rig, &ran);
    assert_eq!(rig.sh("made", "cat /state; ls -d /run/secrets /at 2>/dev/null; echo none"), "read\nnone\n");
    // Another content is no other step.
    rig.write("token", "another-secret-of-22-b");
    let again = build(&rig, dockerfile, &options, &[("TOKEN", "another-secret-of-22-b")]);
    assert_eq!((again.code, again.stderr.matches("cached").count()), (Some(0), 3), "{again}");
}

#[test]
fn a_named_user_has_a_secret_of_its_own() {
    let rig = Rig::with_base();
    rig.write("token", SECRET);
    let dockerfile = "FROM base\nRUN mkdir -p /etc && echo 'alice:x:1234:1234::/:/bin/sh' >/etc/passwd\nUSER alice\n\
        RUN --mount=type=secret,id=token,src=token,uid=1234 id -u && stat -c %u:%a /run/secrets/token && [ \"$(cat /run/secrets/token)\" ]\n";
    let ran = build(&rig, &dockerfile.replace(",src=token", ""), &["--secret", "id=token,src=token"], &[]);
    assert_eq!(ran.code, Some(0), "{ran}");
    assert!(ran.stderr.contains("  1234\n  1234:400\n"), "{ran}");
}

#[test]
fn failed_and_killed_steps_keep_secrets_too() {
    let rig = Rig::with_base();
    rig.write("token", SECRET);
    let hunt = Hunt::new([SECRET]);
    let ran = build(
        &rig,
        "FROM base\nRUN --mount=type=secret,id=token,env=T cat /run/secrets/token >/dev/null; false\n",
        &["--secret", "id=token,src=token"],
        &[],
    );
    assert_eq!(ran.code, Some(1), "{ran}");
    hunt.in_bytes(ran.to_string().as_bytes(), "the output");
    hunt.in_directory(rig.storage());
    rig.write(
        "context/Dockerfile",
        "FROM base\nRUN --mount=type=secret,id=token,env=T --mount=type=cache,target=/c touch /c/started; sleep 60\n",
    );
    let mut child = rig.start(["build", "-t", "made", "--secret", "id=token,src=token", "context"]);
    let started = Instant::now();
    while !find(rig.storage(), "started") {
        assert!(started.elapsed() < Duration::from_secs(30), "the RUN never started");
        std::thread::sleep(Duration::from_millis(20));
    }
    hunt.in_directory(rig.storage());
    child.kill().unwrap();
    child.wait().unwrap();
    hunt.in_directory(rig.storage());
    rig.assert_healthy();
}

fn find(directory: &Path, name: &str) -> bool {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .any(|entry| entry.file_name() == name || entry.file_type().is_ok_and(|kind| kind.is_dir()) && find(&entry.path(), name))
}

/// A real agent with a key, ended when dropped.
struct Agent {
    child: Child,
    socket: PathBuf,
    key: PathBuf,
}

impl Agent {
    fn start(rig: &Rig) -> Self {
        let key = rig.path("key");
        let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(&key).status().unwrap();
        assert!(made.success());
        let socket = rig.path("agent");
        let child = Command::new("ssh-agent").arg("-D").arg("-a").arg(&socket).stdout(Stdio::null()).spawn().unwrap();
        let agent = Self { child, socket, key };
        let started = Instant::now();
        while !agent.ask(&["-q", agent.key.to_str().unwrap()]).status.success() {
            assert!(started.elapsed() < Duration::from_secs(20), "ssh-agent does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        agent
    }

    fn ask(&self, arguments: &[&str]) -> std::process::Output {
        Command::new("ssh-add").args(arguments).env("SSH_AUTH_SOCK", &self.socket).stdin(Stdio::null()).output().unwrap()
    }

    fn fingerprint(&self) -> String {
        let out = Command::new("ssh-keygen").arg("-lf").arg(&self.key).output().unwrap();
        String::from_utf8_lossy(&out.stdout).split_whitespace().nth(1).unwrap().to_owned()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The base with OpenSSH's own client.
fn with_client() -> Option<Rig> {
    for program in ["ssh-agent", "ssh-add", "ssh-keygen"] {
        needs(program)?;
    }
    let rig = Rig::new();
    rig.ok(["import", "host:sh,ssh-add,ssh-keygen,cat,ls,stat,echo,true,printf", "base"]);
    Some(rig)
}

#[test]
fn agents_answer_inside_and_nothing_of_them_stays() {
    let Some(rig) = with_client() else { return };
    let agent = Agent::start(&rig);
    let fingerprint = agent.fingerprint();
    let dockerfile = "FROM base\n\
        RUN --mount=type=ssh,uid=7,gid=8,mode=0660 echo $SSH_AUTH_SOCK && stat -c '%u:%g %a' $SSH_AUTH_SOCK && ssh-add -l\n\
        RUN --mount=type=ssh ssh-add -D || echo 'keys stay'; ssh-add -x </dev/null || true; ssh-add -l >/dev/null && ssh-add -T /key.pub 2>/dev/null; echo asked\n\
        RUN --mount=type=ssh,id=other,target=/a/socket [ $SSH_AUTH_SOCK = /a/socket ] && [ ! -e /a/socket ]\n\
        RUN [ -z \"$SSH_AUTH_SOCK\" ] && [ ! -e /run/buildkit ] && [ ! -e /a ]\n";
    let socket = agent.socket.to_str().unwrap();
    for (how, options, variables) in [
        ("the environment's agent", vec!["--ssh".to_owned(), "default".into()], vec![("SSH_AUTH_SOCK", socket)]),
        ("a socket", vec!["--ssh".into(), format!("default={socket}"), "--no-cache".into()], vec![]),
        ("a key", vec!["--ssh".into(), format!("default={}", agent.key.display()), "--no-cache".into()], vec![]),
    ] {
        let options: Vec<&str> = options.iter().map(String::as_str).collect();
        let ran = build(&rig, dockerfile, &options, &variables);
        assert_eq!(ran.code, Some(0), "{how}: {ran}");
        for wanted in ["/run/buildkit/ssh_agent.0", "7:8 660", fingerprint.as_str(), "keys stay", "asked"] {
            assert!(ran.stderr.contains(wanted), "{how}: no {wanted}: {ran}");
        }
        let listed = agent.ask(&["-l"]);
        assert!(String::from_utf8_lossy(&listed.stdout).contains(&fingerprint), "{how}: the step took the user's keys away");
        let private = fs::read_to_string(&agent.key).unwrap();
        Hunt::new(private.lines().filter(|line| !line.starts_with("-----") && line.len() > 40)).everywhere(&rig, &ran);
        // The address of the user's agent is nobody's business either.
        Hunt::new([socket]).in_directory(rig.storage());
    }
}

#[test]
fn a_signature_made_inside_is_good() {
    let Some(rig) = with_client() else { return };
    let agent = Agent::start(&rig);
    let public = rig.path("key.pub");
    fs::create_dir_all(rig.path("context")).unwrap();
    fs::copy(&public, rig.path("context/key.pub")).unwrap();
    let dockerfile =
        "FROM base\nCOPY key.pub /key.pub\nRUN --mount=type=ssh printf hello >/m && ssh-keygen -q -Y sign -n file -f /key.pub /m\n";
    let ran = build(&rig, dockerfile, &["--ssh", &format!("default={}", agent.socket.display())], &[]);
    assert_eq!(ran.code, Some(0), "{ran}");
    rig.write("signature", rig.ok(["run", "made", "--", "cat", "/m.sig"]));
    let mut check = Command::new("ssh-keygen")
        .args(["-Y", "check-novalidate", "-n", "file", "-s"])
        .arg(rig.path("signature"))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(b"hello").unwrap();
    assert!(check.wait().unwrap().success());
}

#[test]
fn keys_that_can_not_be_used_are_explained() {
    let Some(rig) = with_client() else { return };
    rig.write("nonsense", "no key\n");
    let ran = build(&rig, "FROM base\nRUN --mount=type=ssh true\n", &["--ssh", "default=nonsense"], &[]);
    assert_ne!(ran.code, Some(0), "{ran}");
    assert!(ran.stderr.contains("can't use the SSH key") && ran.stderr.contains("hint: "), "{ran}");
}
