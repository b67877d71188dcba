//! A socket inside whose connections the caller accepts.
//!
//! It is made in memory inside, where no name of it is left on the host, and handed to the caller on a channel, a descriptor that the sandbox process
//! holds to its end: so the channel also says when there are no more connections to wait for.

use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::net::{UnixListener, UnixStream};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, bind, listen, recvmsg, sendmsg,
    socket, socketpair,
};
use rustix::fs::Mode;

use super::attach::proc_path;
use crate::error::{Error, Result};
use crate::sys::process;

/// The caller's end of a channel: the connections made to one [`super::MountKind::Socket`].
#[derive(Debug)]
pub struct Connections {
    channel: OwnedFd,
    listener: Option<UnixListener>,
}

impl Connections {
    /// Makes a channel. The second end is to be passed to [`super::spawn_holding`], and kept nowhere else.
    ///
    /// # Errors
    /// If there are no descriptors left.
    pub fn channel() -> Result<(Self, OwnedFd)> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|errno| Error::os("can't make a socket pair", errno))?;
        Ok((Self { channel: ours, listener: None }, theirs))
    }

    /// Waits for the next connection; `None` when everything inside has ended.
    pub fn accept(&mut self) -> Option<UnixStream> {
        loop {
            let listener = match &self.listener {
                Some(listener) => listener,
                None => {
                    let listener = receive_descriptor(self.channel.as_fd())?;
                    self.listener.insert(listener.into())
                }
            };
            let mut fds = [PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(self.channel.as_fd(), PollFlags::empty())];
            match poll(&mut fds, PollTimeout::NONE) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
            if fds[0].any() == Some(true)
                && let Ok((connection, _)) = listener.accept()
            {
                return Some(connection);
            }
            if fds[1].any() == Some(true) {
                return None;
            }
        }
    }
}

/// Makes a listening socket under a name in a directory and hands it to the caller.
pub(super) fn listen_at(directory: BorrowedFd<'_>, name: &str, mode: u32, channel: BorrowedFd<'_>) -> Result<()> {
    let fail = |errno: Errno| Error::os("can't make a socket in a tmpfs", errno);
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).map_err(fail)?;
    // Short whatever the directory is called: 108 bytes are all an address has.
    let address = UnixAddr::new(&proc_path(directory).join(name)).map_err(fail)?;
    bind(socket.as_raw_fd(), &address).map_err(fail)?;
    let chmod = rustix::fs::chmodat(directory, name, Mode::from_raw_mode(mode & 0o7777), rustix::fs::AtFlags::empty());
    chmod.map_err(|errno| Error::os("can't set a socket's mode", errno))?;
    listen(&socket, Backlog::MAXCONN).map_err(fail)?;
    send_descriptor(channel, socket.as_fd()).map_err(|errno| Error::os("can't hand a socket over", errno))
}

/// Sends a descriptor.
pub(super) fn send_descriptor(channel: BorrowedFd<'_>, descriptor: BorrowedFd<'_>) -> Result<(), Errno> {
    let fds = [descriptor.as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(channel.as_raw_fd(), &[IoSlice::new(b"l")], &rights, MsgFlags::MSG_NOSIGNAL, None).map(drop)
}

/// Waits for a descriptor; `None` if the other end closes without sending one.
fn receive_descriptor(channel: BorrowedFd<'_>) -> Option<OwnedFd> {
    let mut byte = [0];
    let mut space = nix::cmsg_space!([RawFd; 1]);
    let mut parts = [IoSliceMut::new(&mut byte)];
    let message = loop {
        match recvmsg::<()>(channel.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC) {
            Err(Errno::EINTR) => {}
            result => break result.ok()?,
        }
    };
    let mut received = message.cmsgs().ok()?.filter_map(|message| match message {
        ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
        _ => None,
    });
    received.next().map(process::received)
}
