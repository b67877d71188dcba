//! Asking the person at the terminal, on `/dev/tty`, so that standard input may be anything.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};

use nix::sys::signal::{Signal, raise};
use nix::sys::termios::{LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr};

use crate::error::{Error, Kind, Result};

const END_OF_TEXT: u8 = 3;
const END_OF_TRANSMISSION: u8 = 4;
const BACKSPACE: u8 = 8;
const KILL_LINE: u8 = 21;
const DELETE: u8 = 127;

/// Asks for a line of text.
pub fn line(question: &str) -> Result<String> {
    let mut terminal = open(question)?;
    write(&mut terminal, question)?;
    let mut text = Vec::new();
    let mut byte = [0];
    while terminal.read(&mut byte).map_err(|e| Error::os("can't read from the terminal", e))? == 1 && byte[0] != b'\n' {
        text.push(byte[0]);
    }
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

/// Asks for a secret, which is not shown while it is typed.
///
/// The keys that would end or stop the program arrive as text meanwhile, so that it never ends with the terminal still silent; Ctrl-C then
/// ends it after all.
pub fn secret(question: &str) -> Result<String> {
    let mut terminal = open(question)?;
    let silent = Silent::begin(terminal.try_clone().map_err(|e| Error::os("can't use the terminal", e))?)?;
    write(&mut terminal, question)?;
    let typed = read_secret(&mut terminal);
    drop(silent);
    let _ = terminal.write_all(b"\n");
    match typed? {
        Some(secret) => Ok(secret),
        None => {
            // As if the terminal had sent it; whoever waits for this program sees why it ended.
            let _ = raise(Signal::SIGINT);
            Err(Error::with_kind(Kind::Interrupted, "interrupted"))
        }
    }
}

/// `None` after Ctrl-C.
fn read_secret(terminal: &mut File) -> Result<Option<String>> {
    let mut text = Vec::new();
    let mut byte = [0];
    loop {
        let read = terminal.read(&mut byte).map_err(|e| Error::os("can't read from the terminal", e))?;
        match byte[0] {
            _ if read == 0 => break,
            b'\n' | b'\r' | END_OF_TRANSMISSION => break,
            END_OF_TEXT => return Ok(None),
            KILL_LINE => text.clear(),
            BACKSPACE | DELETE => {
                // A character may be several bytes.
                while text.pop().is_some_and(|last| last & 0xc0 == 0x80) {}
            }
            other => text.push(other),
        }
    }
    String::from_utf8(text).map(Some).map_err(|_| Error::input("the password is not UTF-8"))
}

fn open(question: &str) -> Result<File> {
    let asked = question.trim_end_matches([':', ' ']).to_lowercase();
    OpenOptions::new().read(true).write(true).open("/dev/tty").map_err(|_| {
        Error::input(format!("there is no terminal to ask for the {asked}"))
            .hint("without one, `rootling login` takes it from standard input with `--password-stdin`, and `--creds` as USER:PASSWORD or from $ROOTLING_PASSWORD")
    })
}

fn write(terminal: &mut File, text: &str) -> Result<()> {
    let shown: String = text.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
    terminal.write_all(shown.as_bytes()).map_err(|e| Error::os("can't write to the terminal", e))
}

/// A terminal that shows nothing of what is typed; dropped, it is as it was.
struct Silent {
    terminal: File,
    before: Termios,
}

impl Silent {
    fn begin(terminal: File) -> Result<Self> {
        let failed = |e: nix::Error| Error::os("can't make the terminal silent", std::io::Error::from(e));
        let before = tcgetattr(&terminal).map_err(failed)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO | LocalFlags::ECHONL | LocalFlags::ICANON | LocalFlags::ISIG);
        silent.control_chars[SpecialCharacterIndices::VMIN as usize] = 1;
        silent.control_chars[SpecialCharacterIndices::VTIME as usize] = 0;
        tcsetattr(&terminal, SetArg::TCSAFLUSH, &silent).map_err(failed)?;
        Ok(Self { terminal, before })
    }
}

impl Drop for Silent {
    fn drop(&mut self) {
        let _ = tcsetattr(&self.terminal, SetArg::TCSAFLUSH, &self.before);
    }
}
