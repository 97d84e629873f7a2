//! The decoder: whatever bytes come, it says what they are or what is wrong with them, and what it accepts it would
//! write in the same way.

use fairlock_protocol::handshake::HELLO;
use fairlock_protocol::limits::FRAME_BYTES_MAX;
use fairlock_protocol::{Frame, Reply, Request};

/// Takes bytes for a stream from a client and for one from a server. Gives how many frames were understood.
///
/// # Panics
/// When the decoder breaks a promise.
pub fn any_bytes(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    let mut understood = 0;
    while let Ok(Some((frame, length))) = Frame::split(rest) {
        assert!(length <= FRAME_BYTES_MAX && length <= rest.len(), "a frame lies in what was received");
        assert_eq!(frame.body.len() + 16, length, "the body is the rest");
        understood +=
            usize::from(request(&frame, &rest[..length])) + usize::from(reply(&frame, &rest[..length]));
        rest = &rest[length..];
    }
    understood
}

fn request(frame: &Frame<'_>, bytes: &[u8]) -> bool {
    let decoded = match Request::decode(frame) {
        Ok(decoded) => decoded,
        Err(malformed) => {
            assert!(
                malformed.refusal().code() > 0 && !malformed.to_string().is_empty(),
                "an error has a code and a text"
            );
            return false;
        }
    };
    if matches!(decoded, Request::List { prefix, .. } if prefix.len() > 1024) {
        return true;
    }
    let mut written = Vec::new();
    decoded.encode(frame.request, frame.ack, &mut written);
    let (again, _) = Frame::split(&written).expect("what we write is a frame").expect("a whole one");
    assert_eq!(Request::decode(&again), Ok(decoded), "what is written is what was read");
    assert_eq!(frame.flags, 0, "flags of a request mean nothing yet, and so are refused");
    // A HELLO has neither number nor ack, and the default namespace has two spellings.
    if frame.kind != HELLO && written.len() == bytes.len() {
        assert_eq!(written, bytes, "there is one way to write {decoded:?}");
    }
    true
}

fn reply(frame: &Frame<'_>, bytes: &[u8]) -> bool {
    let decoded = match Reply::decode(frame) {
        Ok(decoded) => decoded,
        Err(malformed) => {
            assert!(!malformed.to_string().is_empty(), "an error has a text");
            return false;
        }
    };
    match decoded {
        Reply::Listed(page) => drop(page.entries().count()),
        Reply::Shown(page) => drop(page.entries().count()),
        Reply::Sessions(page) => drop(page.entries().count()),
        other => {
            let mut written = Vec::new();
            other.encode(frame.request, frame.flags, &mut written);
            assert_eq!(written.len(), bytes.len(), "as long as it was: {other:?}");
            let (again, _) = Frame::split(&written).expect("what we write is a frame").expect("a whole one");
            assert_eq!(Reply::decode(&again), Ok(other), "what is written is what was read");
        }
    }
    true
}
