//! The socket between the daemon and the gate: packets of one size, some with a file descriptor. Never blocks.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};

use super::wire::{MESSAGE_BYTES, Message};

/// What came.
#[derive(Debug)]
pub(super) enum Receipt {
    /// Nothing yet.
    Nothing,
    /// The other end is gone.
    Closed,
    /// A message, perhaps with a descriptor.
    Message(Message, Option<OwnedFd>),
}

/// Both ends of a new channel.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?)
}

/// Sends a message, or fails with `WouldBlock`.
pub(super) fn send(socket: impl AsFd, message: &Message, descriptor: Option<BorrowedFd<'_>>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors = descriptor.map(|descriptor| [descriptor]);
    if let Some(descriptors) = &descriptors
        && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors))
    {
        return Err(Errno::NOBUFS.into());
    }
    sendmsg(socket, &[IoSlice::new(message)], &mut ancillary, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)?;
    Ok(())
}

/// Takes the next message, if there is one.
pub(super) fn receive(socket: impl AsFd) -> io::Result<Receipt> {
    let mut message = [0; MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let received = match recvmsg(socket, &mut [IoSliceMut::new(&mut message)], &mut ancillary, flags) {
        Ok(received) => received,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(Receipt::Nothing),
        Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Receipt::Closed),
        Err(errno) => return Err(errno.into()),
    };
    if received.bytes == 0 {
        return Ok(Receipt::Closed);
    }
    let descriptor = ancillary.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        // Neither end asks for credentials, and the type is not exhaustive.
        _ => None,
    });
    Ok(Receipt::Message(message, descriptor))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_message_arrives_whole_and_with_its_descriptor() {
        let (here, there) = pair().unwrap();
        let (mut reader, writer) = std::io::pipe().unwrap();
        send(&here, &[7; MESSAGE_BYTES], Some(writer.as_fd())).unwrap();
        drop(writer);
        let Receipt::Message(message, Some(descriptor)) = receive(&there).unwrap() else {
            panic!("no message with a descriptor came");
        };
        assert_eq!(message, [7; MESSAGE_BYTES]);
        File::from(descriptor).write_all(b"through").unwrap();
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "through");
    }

    #[test]
    fn nothing_and_the_end_are_told_apart() {
        let (here, there) = pair().unwrap();
        assert!(matches!(receive(&there).unwrap(), Receipt::Nothing));
        drop(here);
        assert!(matches!(receive(&there).unwrap(), Receipt::Closed));
    }

    #[test]
    fn a_full_channel_does_not_block() {
        let (here, _there) = pair().unwrap();
        let refused = (0..100_000).find_map(|_| send(&here, &[0; MESSAGE_BYTES], None).err());
        assert_eq!(refused.map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    }
}
