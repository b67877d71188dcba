//! SSH agents for steps: what a step may ask an agent, and agents of our own for key files.
//!
//! A step gets keys listed and data signed, nothing else: it can't remove the user's keys, lock the agent or add keys to it (as BuildKit).
//! The protocol is draft-ietf-sshm-ssh-agent: a length of four bytes, then a message whose first byte is its type.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::error::{Error, Result, quote_path};
use crate::sandbox::Connections;

/// Types of messages that reach the agent: `SSH_AGENTC_REQUEST_IDENTITIES`, `SSH_AGENTC_SIGN_REQUEST`.
const ALLOWED: [u8; 2] = [11, 13];

/// `SSH_AGENT_FAILURE` as a whole message.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// The longest message OpenSSH's agent takes (`AGENT_MAX_LEN`).
const LONGEST: usize = 256 * 1024;

/// Answers the connections of one step until it ends. An agent that is gone ends the connection, as one that was never there.
pub fn serve(mut connections: Connections, agent: &Path) {
    while let Some(step) = connections.accept() {
        let agent = agent.to_owned();
        // On its own: an agent that waits for its user's consent must not hold up the others, nor the end of the step.
        std::thread::spawn(move || {
            let _ = UnixStream::connect(agent).and_then(|agent| relay(step, agent));
        });
    }
}

/// Passes messages on until either end closes.
fn relay(mut step: UnixStream, mut agent: UnixStream) -> std::io::Result<()> {
    loop {
        let request = receive(&mut step)?;
        if !request.get(4).is_some_and(|kind| ALLOWED.contains(kind)) {
            step.write_all(&FAILURE)?;
            continue;
        }
        agent.write_all(&request)?;
        let answer = receive(&mut agent)?;
        step.write_all(&answer)?;
    }
}

/// One message with its length.
fn receive(from: &mut UnixStream) -> std::io::Result<Vec<u8>> {
    let mut length = [0; 4];
    from.read_exact(&mut length)?;
    let size = u32::from_be_bytes(length) as usize;
    if size == 0 || size > LONGEST {
        return Err(std::io::ErrorKind::InvalidData.into());
    }
    let mut message = length.to_vec();
    message.resize(4 + size, 0);
    from.read_exact(&mut message[4..])?;
    Ok(message)
}

/// An agent of our own: the system's `ssh-agent` with some keys. Ends when dropped, and with this process.
pub struct OwnAgent {
    child: Child,
    socket: PathBuf,
}

/// Adds the keys, says where the agent listens, and stays until our end of the pipe closes. The agent lives as long as this shell.
const SCRIPT: &str = r#"ssh-add -q -- "$@" </dev/null && echo "$SSH_AUTH_SOCK" && cat >/dev/null; kill "$SSH_AGENT_PID""#;

impl OwnAgent {
    /// Starts it.
    ///
    /// # Errors
    /// If there is no `ssh-agent`, or a key can't be read without asking somebody.
    pub fn start(keys: &[PathBuf]) -> Result<Self> {
        let mut child = Command::new("ssh-agent")
            .args(["sh", "-c", SCRIPT, "sh"])
            .args(keys)
            // Nobody is to be asked for a passphrase.
            .envs([("SSH_ASKPASS", "false"), ("SSH_ASKPASS_REQUIRE", "force")])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|e| Error::os("can't start `ssh-agent`", e).hint("install OpenSSH's client, or give the socket of a running agent"))?;
        let mut line = String::new();
        let read = child.stdout.take().map_or(Ok(0), |out| BufReader::new(out).read_line(&mut line));
        let socket = PathBuf::from(line.trim_end());
        if read.is_ok() && socket.is_absolute() {
            return Ok(Self { child, socket });
        }
        let mut why = String::new();
        let _ = child.stderr.take().map(|mut err| err.read_to_string(&mut why));
        let _ = child.wait();
        let names: Vec<String> = keys.iter().map(|key| quote_path(key)).collect();
        let error = Error::input(format!("can't use the SSH key {}", names.join(", ")));
        let error = why.lines().map(str::trim).filter(|line| !line.is_empty()).fold(error, |error, line| error.cause(line));
        Err(error.hint("a key with a passphrase must be in an agent: `ssh-add KEY`, then `--ssh default`"))
    }

    /// Where it listens.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for OwnAgent {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An agent that echoes, seen through the relay.
    fn ask(request: &[u8]) -> Vec<u8> {
        let (mut asker, step) = UnixStream::pair().unwrap();
        let (near, mut far) = UnixStream::pair().unwrap();
        let relay = std::thread::spawn(move || relay(step, near));
        let agent = std::thread::spawn(move || {
            while let Ok(message) = receive(&mut far) {
                far.write_all(&message).unwrap();
            }
        });
        asker.write_all(request).unwrap();
        asker.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        // What is broken is answered by closing, with or without a reset.
        let _ = asker.read_to_end(&mut answer);
        let _ = relay.join().unwrap();
        agent.join().unwrap();
        answer
    }

    #[test]
    fn only_listing_and_signing_pass() {
        for (request, expected) in [
            (&[0, 0, 0, 1, 11][..], &[0, 0, 0, 1, 11][..]),
            (&[0, 0, 0, 3, 13, 1, 2], &[0, 0, 0, 3, 13, 1, 2]),
            // Removing all keys; locking; adding; an extension.
            (&[0, 0, 0, 1, 19], &FAILURE),
            (&[0, 0, 0, 2, 22, 0], &FAILURE),
            (&[0, 0, 0, 2, 17, 0], &FAILURE),
            (&[0, 0, 0, 2, 27, 0], &FAILURE),
            // Broken ones.
            (&[0, 0, 0, 0], &[]),
            (&[255, 255, 255, 255, 11], &[]),
            (&[0, 0, 0, 9, 11], &[]),
        ] {
            assert_eq!(ask(request), expected, "{request:?}");
        }
    }
}
